"""Writer and Polars reach the server of the settings, and nothing else receives a request of theirs.

Neither variables of other programs, nor files in the home directory, nor proxies change that.
"""

import io
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import polars as pl
import pytest
from pydantic import SecretStr

from pg_bronze.demo.s3 import MinioServer
from pg_bronze.errors import StoreNotFit
from pg_bronze.lake import s3_client
from pg_bronze.lake.object_store import Store
from pg_bronze.lake.reading.polars_options import polars_options
from pg_bronze.settings.bucket import S3Connection
from pg_bronze_tests.harness.servers import ROOT, Bucket, s3_connection

URLS = [
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT",
    "AWS_ENDPOINT_URL_STS",
    "AWS_METADATA_ENDPOINT",
    "AWS_PROXY_URL",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "ALL_PROXY",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "all_proxy",
    "http_proxy",
    "https_proxy",
]
GARBAGE = [
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_CA_BUNDLE",
    "AWS_SESSION_TOKEN",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_ALLOW_HTTP",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
    "AWS_S3_EXPRESS",
    "AWS_UNSIGNED_PAYLOAD",
    "AWS_SKIP_SIGNATURE",
    "AWS_REQUEST_PAYER",
    "AWS_CHECKSUM_ALGORITHM",
    "AWS_COPY_IF_NOT_EXISTS",
    "AWS_CONDITIONAL_PUT",
    "AWS_DISABLE_TAGGING",
    "AWS_DISABLE_BULK_DELETE",
    "AWS_IMDSV1_FALLBACK",
    "AWS_BUCKET",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_MAX_ATTEMPTS",
    "AWS_RETRY_MODE",
    "AWS_DEFAULTS_MODE",
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_USE_DUALSTACK_ENDPOINT",
    "AWS_CSM_PORT",
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_RESPONSE_CHECKSUM_VALIDATION",
    "AWS_AUTH_SCHEME_PREFERENCE",
    "AWS_S3_US_EAST_1_REGIONAL_ENDPOINT",
    "AWS_DATA_PATH",
]


@pytest.fixture
def decoy() -> Iterator[tuple[str, list[bytes]]]:
    """The URL of a server that records what it receives, and its records."""
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        received.append(connection.recv(65536))

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", received
        server.shutdown(socket.SHUT_RDWR)


def read_and_write(connection: S3Connection, bucket: str) -> None:
    """Use the bucket in every way: list, create-only writes, reads and writes of Polars."""
    store = Store(s3_client.connect_to(connection), bucket)
    store.prepare()
    body = io.BytesIO()
    pl.DataFrame({"id": [1, 2]}).write_parquet(body)
    assert store.create("movie/1", body.getvalue())
    assert [item.key for item in store.list("movie/")] == ["movie/1"]
    options = polars_options(connection)
    rows = pl.scan_parquet([store.uri("movie/1")], glob=False, **options)
    rows.sink_parquet(store.uri("latest"), **polars_options(connection, write=True))
    assert pl.scan_parquet([store.uri("latest")], glob=False, **options).collect()["id"].to_list() == [1, 2]


def test_variables_of_other_programs_neither_redirect_nor_break_nor_receive_a_request(
    any_bucket, decoy, monkeypatch: pytest.MonkeyPatch
):
    url, received = decoy
    for name in GARBAGE:
        monkeypatch.setenv(name, "garbage")
    for name in URLS:
        monkeypatch.setenv(name, url)
    monkeypatch.setenv("AWS_CSM_ENABLED", "true")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)

    read_and_write(s3_connection(any_bucket), any_bucket.name)

    assert received == []


@pytest.mark.parametrize("value", ["garbage", "sse-c", "aws:kms"])
def test_the_encryption_of_another_server_does_not_break_a_read(bucket, monkeypatch: pytest.MonkeyPatch, value: str):
    monkeypatch.setenv("AWS_SERVER_SIDE_ENCRYPTION", value)
    monkeypatch.setenv("AWS_SSE_CUSTOMER_KEY_BASE64", "garbage")
    body = io.BytesIO()
    pl.DataFrame({"id": [1]}).write_parquet(body)
    bucket.store().create("movie/1", body.getvalue())
    options = polars_options(s3_connection(bucket))

    assert pl.scan_parquet([f"s3://{bucket.name}/movie/1"], glob=False, **options).collect().height == 1


@pytest.mark.parametrize("content", ["[default", "\x00\xff garbage ]["], ids=["syntax", "bytes"])
def test_broken_files_of_other_programs_are_not_read(
    bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
):
    for name in ("config", "credentials", "models"):
        (tmp_path / ".aws").mkdir(exist_ok=True)
        (tmp_path / ".aws" / name).write_bytes(content.encode("latin-1"))
    monkeypatch.setenv("HOME", str(tmp_path))

    read_and_write(s3_connection(bucket), bucket.name)


def test_a_server_named_in_the_aws_configuration_receives_nothing(
    bucket, decoy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    url, received = decoy
    (tmp_path / "config").write_text(
        f"[default]\nregion = foreign\nendpoint_url = {url}\nca_bundle = /no/such\ns3 =\n  addressing_style = virtual\n"
    )
    (tmp_path / "credentials").write_text("[default]\naws_session_token = foreign\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))

    read_and_write(s3_connection(bucket), bucket.name)

    assert received == []


class _European(MinioServer):
    def _variables(self) -> dict[str, str]:
        return super()._variables() | {"MINIO_SITE_REGION": "eu-west-1"}


def test_a_server_of_another_region_is_an_error_that_names_its_region(tmp_path: Path):
    """botocore alone would follow, so that tables are copied that `scan` cannot read."""
    with _European(tmp_path, binary=ROOT / ".cache/minio/minio") as server:
        right = _connection(server.endpoint_url, server, region="eu-west-1")
        wrong = _connection(server.endpoint_url, server, region="us-east-1")

        for attempt in (
            lambda store: store.prepare(),
            lambda store: list(store.list("")),
            lambda store: store.get("a"),
        ):
            with pytest.raises(StoreNotFit, match=r"is in region 'eu-west-1'.*Set MINIO_REGION=eu-west-1\."):
                attempt(Store(s3_client.connect_to(wrong), "lake"))

        read_and_write(right, "lake")  # creates the bucket


def _connection(url: str, server, region: str = "us-east-1", ca: str | None = None) -> S3Connection:
    keys = SecretStr(server.access_key), SecretStr(server.secret_key)
    return S3Connection(url, *keys, region=region, use_ssl=url.startswith("https"), ca=ca)


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """A folder with a private authority (``ca.crt``) and the certificate of a server on 127.0.0.1."""
    (tmp_path / "leaf.cnf").write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    for arguments in (
        "req -new -x509 -days 9 -nodes -subj /CN=authority -keyout ca.key -out ca.crt",
        "req -new -x509 -days 9 -nodes -subj /CN=another -keyout other.key -out other.crt",
        "req -new -nodes -subj /CN=s3.internal -keyout s3.key -out s3.csr",
        "x509 -req -in s3.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 9 -extfile leaf.cnf -out s3.crt",
    ):
        subprocess.run(["openssl", *arguments.split()], check=True, capture_output=True, cwd=tmp_path)
    return tmp_path


@pytest.fixture
def encrypted(authority: Path, bucket: Bucket) -> Iterator[str]:
    """The URL at which the server of the bucket is reached through TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority / "s3.crt", authority / "s3.key")

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def forward(raw: socket.socket) -> None:
        with suppress(OSError):
            near = context.wrap_socket(raw, server_side=True)
            far = socket.create_connection(("127.0.0.1", bucket.server.port))
            threading.Thread(target=pump, args=(far, near), daemon=True).start()
            pump(near, far)

    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=forward, args=(server.accept()[0],), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield f"https://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("order", [["ca.crt"], ["other.crt", "ca.crt"]], ids=["alone", "second"])
def test_a_private_authority_is_accepted_by_writer_and_polars(encrypted, authority: Path, bucket, order):
    (authority / "bundle.pem").write_text("".join((authority / name).read_text() for name in order))

    read_and_write(_connection(encrypted, bucket.server, ca=str(authority / "bundle.pem")), bucket.name)


@pytest.mark.parametrize("ca", [None, "other.crt"], ids=["system", "another"])
def test_an_unknown_authority_is_an_error_that_names_the_certificate_and_the_setting(
    encrypted, authority: Path, bucket, ca, monkeypatch: pytest.MonkeyPatch
):
    """AWS_CA_BUNDLE would be used by the writer alone."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority / "ca.crt"))
    connection = _connection(encrypted, bucket.server, ca=ca and str(authority / ca))

    with pytest.raises(StoreNotFit, match=r"the certificate of the S3 server https.*MINIO_CA"):
        Store(s3_client.connect_to(connection), bucket.name).check()
    with pytest.raises(StoreNotFit, match=r"the certificate of the S3 server https.*MINIO_CA"):
        Store(s3_client.connect_to(connection), bucket.name).prepare()


def test_the_authorities_of_the_system_are_those_of_polars(
    encrypted, authority: Path, bucket, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SSL_CERT_FILE", str(authority / "ca.crt"))

    read_and_write(_connection(encrypted, bucket.server), bucket.name)
