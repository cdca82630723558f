"""Credentials of S3: from every source, renewed during the life of a store, and explained if there are none."""

import dataclasses
import io
import json
import os
import select
import shlex
import traceback
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from pg_bronze.errors import AccessDenied, PgBronzeError, StoreNotFit, StoreUnavailable
from pg_bronze.lake import s3_client, s3_credentials
from pg_bronze.lake.credential_process import LimitedProcess
from pg_bronze.lake.object_store import Store
from pg_bronze.lake.reading.polars_options import polars_options
from pg_bronze.lake.s3_credentials import FoundCredentials
from pg_bronze.settings import commands
from pg_bronze.settings.bucket import S3Connection
from pg_bronze.settings.load import load_settings
from pg_bronze_tests.harness.aws import ROLE, Aws, running_aws

BUCKET = "lake"
# A program that cannot read it writes the name to its standard error.
KEYS_FILE = "pl4nted.json"


@pytest.fixture(scope="module")
def server() -> Iterator[Aws]:
    with running_aws() as found:
        _store(_connection(found, **_static(found))).client.create_bucket(Bucket=BUCKET)
        yield found


@pytest.fixture
def aws(server: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Aws:
    """The stand-in with new keys, in an environment without any; AWS_* name another server than the settings."""
    server.rotate()
    server.asked.clear()
    server.lifetime, server.is_down, server.code = timedelta(hours=1), False, "ExpiredToken"
    s3_credentials._shared.cache_clear()
    monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_REGION", "eu-west-9")
    return server


def _static(aws: Aws) -> dict[str, str]:
    names = ("MINIO_ACCESS_KEY", "MINIO_SECRET_KEY", "MINIO_SESSION_TOKEN")
    return dict(zip(names, (aws.access_key, aws.secret_key, aws.token), strict=True))


def _connection(aws: Aws, **variables: str) -> S3Connection:
    where = {} if "MINIO_ALIAS" in variables else {"MINIO_ENDPOINT": aws.url}
    return load_settings({"PG_DB": "cine", "MINIO_BUCKET": BUCKET, **where, **variables}, None).s3


def _store(connection: S3Connection) -> Store:
    return Store(s3_client.connect_to(connection), BUCKET, connection=connection)


def _use(store: Store, connection: S3Connection, key: str) -> None:
    """Write, list and read with botocore and with Polars."""
    body = io.BytesIO()
    pl.DataFrame({"id": [1, 2]}).write_parquet(body)
    assert store.create(key, body.getvalue())
    assert [item.key for item in store.list(key)] == [key]
    rows = pl.scan_parquet([store.uri(key)], glob=False, **polars_options(connection))
    rows.sink_parquet(store.uri(f"{key} again"), **polars_options(connection, write=True))
    assert store.get(f"{key} again") is not None


class Sources:
    """Each prepares one source of the current keys, and returns the settings that select it."""

    def __init__(self, aws: Aws, folder: Path, environment: pytest.MonkeyPatch) -> None:
        self.aws, self.folder, self.environment = aws, folder, environment
        (folder / ".aws").mkdir(exist_ok=True)

    def keys(self) -> dict[str, str]:
        return _static(self.aws)

    def alias(self) -> dict[str, str]:
        keys = f"{self.aws.access_key}:{self.aws.secret_key}:{self.aws.token}"
        return {"MINIO_ALIAS": "here", "MC_HOST_here": self.aws.url.replace("://", f"://{keys}@")}

    def variables(self) -> dict[str, str]:
        self.environment.setenv("AWS_ACCESS_KEY_ID", self.aws.access_key)
        self.environment.setenv("AWS_SECRET_ACCESS_KEY", self.aws.secret_key)
        self.environment.setenv("AWS_SESSION_TOKEN", self.aws.token)
        return {"MINIO_CREDENTIALS": "aws"}

    def profile(self) -> dict[str, str]:
        lines = {"aws_access_key_id": self.aws.access_key, "aws_secret_access_key": self.aws.secret_key}
        lines["aws_session_token"] = self.aws.token
        text = "\n".join(["[shop]", *(f"{name} = {value}" for name, value in lines.items())])
        (self.folder / ".aws/credentials").write_text(text)
        return {"MINIO_PROFILE": "shop"}

    def process(self) -> dict[str, str]:
        file = self.folder / KEYS_FILE
        file.write_text(json.dumps({"Version": 1, **self.aws.keys}))
        command = f"cat {shlex.quote(str(file))}"
        (self.folder / ".aws/config").write_text(f"[profile shop]\ncredential_process = {command}\n")
        return {"MINIO_PROFILE": "shop"}

    def web_identity(self) -> dict[str, str]:
        (self.folder / "identity").write_text(self.aws.identity)
        self.environment.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(self.folder / "identity"))
        self.environment.setenv("AWS_ROLE_ARN", f"arn:aws:iam::123456789012:role/{ROLE}")
        self.environment.setenv("AWS_ENDPOINT_URL_STS", self.aws.url)
        return {"MINIO_CREDENTIALS": "aws"}

    def container(self) -> dict[str, str]:
        self.environment.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{self.aws.url}/container")
        return {"MINIO_CREDENTIALS": "aws"}

    def instance(self) -> dict[str, str]:
        self.environment.setenv("AWS_EC2_METADATA_DISABLED", "false")
        self.environment.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", self.aws.url)
        return {"MINIO_CREDENTIALS": "aws"}


@pytest.fixture
def sources(aws: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sources:
    return Sources(aws, tmp_path, monkeypatch)


ALL = ["keys", "alias", "variables", "profile", "process", "web_identity", "container", "instance"]
# botocore keeps keys of an instance that expire soon for ten minutes more.
RENEWED = ["process", "web_identity", "container"]


@pytest.mark.parametrize("source", ALL)
def test_writer_and_polars_use_the_keys_and_the_token_of_each_source(aws: Aws, sources: Sources, source: str):
    """The server rejects any other keys, and these without their token."""
    connection = _connection(aws, **getattr(sources, source)())

    _use(_store(connection), connection, source)


@pytest.mark.parametrize("source", RENEWED)
def test_a_store_and_a_scan_use_renewed_keys_after_the_first_ones_expired(aws: Aws, sources: Sources, source: str):
    """Otherwise a worker stops copying after an hour."""
    aws.lifetime = timedelta(minutes=5)  # botocore renews keys that expire within ten minutes
    connection = _connection(aws, **getattr(sources, source)())
    store = _store(connection)
    _use(store, connection, f"{source} first")
    later = pl.scan_parquet([store.uri(f"{source} first")], glob=False, **polars_options(connection))

    aws.rotate()
    if source == "process":
        (sources.folder / KEYS_FILE).write_text(json.dumps({"Version": 1, **aws.keys}))

    _use(store, connection, f"{source} second")
    assert later.collect()["id"].to_list() == [1, 2]


def test_all_clients_of_a_process_share_the_keys_until_they_expire(aws: Aws, sources: Sources):
    """Every run has a new client, and the metadata of an instance limits the rate of requests."""
    connection = _connection(aws, **sources.container())
    for number in range(3):
        _use(_store(connection), connection, f"shared {number}")

    assert aws.asked == ["/container"]


@pytest.mark.parametrize("source", ["profile", "instance"])
def test_keys_that_the_server_rejected_are_asked_for_again(aws: Aws, sources: Sources, source: str):
    """Another program renews a file, whose keys have no expiry that botocore would know."""
    connection = _connection(aws, **getattr(sources, source)())
    store = _store(connection)
    store.get("absent")
    aws.rotate()
    if source == "profile":
        sources.profile()

    with pytest.raises(StoreUnavailable, match=r"as expired \(ExpiredToken\).*renew them in (profile 'shop'|AWS)"):
        store.get("absent")

    assert store.get("absent") is None


def test_keys_without_an_expiry_are_found_again_after_five_minutes():
    seconds, found = 0.0, []

    def find(profile: str) -> object:
        from botocore.credentials import Credentials

        found.append(profile)
        return Credentials(f"key {len(found)}", "secret")

    credentials = FoundCredentials("shop", find, lambda: seconds)

    assert credentials.keys("x").access_key == "key 1"
    seconds = 299.0
    assert credentials.keys("x").access_key == "key 1"
    seconds = 300.0
    assert credentials.keys("x").access_key == "key 2"


def test_an_expired_token_of_the_settings_is_an_error_that_names_the_settings(aws: Aws):
    connection = _connection(aws, **_static(aws))
    store = _store(connection)
    aws.rotate()

    with pytest.raises(AccessDenied) as caught:
        list(store.list(""))

    assert str(caught.value) == (
        f"the session token for bucket 'lake' on {aws.url} has expired (ExpiredToken). Set new MINIO_ACCESS_KEY, "
        "MINIO_SECRET_KEY and MINIO_SESSION_TOKEN (or MINIO_ALIAS), and restart what runs; or set MINIO_PROFILE or "
        "MINIO_CREDENTIALS=aws, whose keys are renewed. Retried after the fix."
    )


def _nothing(sources: Sources) -> dict[str, str]:
    return {"MINIO_CREDENTIALS": "aws"}


def _unknown_profile(sources: Sources) -> dict[str, str]:
    sources.profile()
    return {"MINIO_PROFILE": "shops"}


def _failing_process(sources: Sources) -> dict[str, str]:
    text = "[profile shop]\ncredential_process = sh -c 'echo pl4nted; echo pl4nted >&2; exit 3'\n"
    (sources.folder / ".aws/config").write_text(text)
    return {"MINIO_PROFILE": "shop"}


def _broken_file(sources: Sources) -> dict[str, str]:
    (sources.folder / ".aws/config").write_text("pl4nted [")
    return {"MINIO_PROFILE": "shop"}


def _rejected_identity(sources: Sources) -> dict[str, str]:
    variables = sources.web_identity()
    (sources.folder / "identity").write_text("pl4nted identity")
    return variables


def _absent_identity(sources: Sources) -> dict[str, str]:
    variables = sources.web_identity()
    (sources.folder / "identity").unlink()
    return variables


def _silent_container(sources: Sources) -> dict[str, str]:
    sources.aws.is_down = True
    return sources.container()


FAILURES = {
    "nothing": (_nothing, AccessDenied, r"no credentials for the bucket were found for AWS .* asked were AWS_ACCESS_K"),
    "unknown profile": (
        _unknown_profile,
        AccessDenied,
        r"profile 'shops' \(MINIO_PROFILE\), and there is no such",
    ),
    "failing process": (_failing_process, StoreUnavailable, r"renewed from profile 'shop' \(MINIO_PROFILE\) \(Credent"),
    "broken file": (_broken_file, StoreUnavailable, r"renewed from profile 'shop' \(MINIO_PROFILE\) \(ConfigParseErr"),
    "rejected identity": (_rejected_identity, StoreUnavailable, r"AWS \(MINIO_CREDENTIALS=aws\) \(InvalidIdentityTok"),
    "absent identity": (_absent_identity, StoreUnavailable, r"AWS \(MINIO_CREDENTIALS=aws\) \(FileNotFoundError\)"),
    "silent container": (_silent_container, StoreUnavailable, r"AWS \(MINIO_CREDENTIALS=aws\) \(CredentialRetrievalE"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_credentials_that_cannot_be_had_are_one_sentence_without_a_secret(
    aws: Aws, sources: Sources, case: str, caplog: pytest.LogCaptureFixture
):
    prepare, kind, sentence = FAILURES[case]
    connection = _connection(aws, **prepare(sources))

    errors: list[PgBronzeError] = []
    with pytest.raises(kind, match=sentence) as caught:
        _store(connection).create("a", b"")
    errors.append(caught.value)
    with pytest.raises(kind, match=sentence) as caught:
        pl.scan_parquet(["s3://lake/a"], glob=False, **polars_options(connection)).collect()
    errors.append(caught.value)

    shown = "".join("".join(traceback.format_exception(error)) for error in errors) + caplog.text
    assert "pl4nted" not in shown
    assert all(str(error).endswith((" It is retried after the fix.", " the next tick.")) for error in errors)


def test_a_source_that_fails_later_is_retried_and_not_logged_with_its_output(
    aws: Aws, sources: Sources, caplog: pytest.LogCaptureFixture
):
    aws.lifetime = timedelta(minutes=5)
    connection = _connection(aws, **sources.process())
    store = _store(connection)
    store.get("absent")
    (sources.folder / KEYS_FILE).rename(sources.folder / "away")

    with pytest.raises(StoreUnavailable, match="could not be read or renewed from profile 'shop'"):
        store.get("absent")
    (sources.folder / "away").rename(sources.folder / KEYS_FILE)

    assert store.get("absent") is None
    assert "Refreshing temporary credentials failed" in caplog.text, "so the search includes the right text"
    assert "pl4nted" not in caplog.text


SOURCE = "[profile shop]\nrole_arn = arn:aws:iam::123456789012:role/copy\nsource_profile = hanging\n[profile hanging]\n"


@pytest.mark.parametrize("heading", ["[profile shop]\n", SOURCE], ids=["profile", "source_profile"])
def test_a_credential_process_that_hangs_is_ended_with_what_it_started(
    aws: Aws, sources: Sources, heading: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """Otherwise the sensor and each run hang with it, without an error."""
    pipe, runs = sources.folder / "pipe", sources.folder / "runs"
    os.mkfifo(pipe)
    program = sources.folder / "program"
    program.write_text(f"#!/bin/sh\necho run >> {runs}\necho pl4nted\nsleep 600 > {pipe} &\nsleep 600\n")
    program.chmod(0o755)
    (sources.folder / ".aws/config").write_text(f"{heading}credential_process = {program}\n")
    monkeypatch.setattr(commands, "LIMIT_S", 1.0)
    monkeypatch.setattr(LimitedProcess, "_did_not_end", {})
    store = _store(_connection(aws, MINIO_PROFILE="shop"))
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    sentence = r"profile 'shop' \(MINIO_PROFILE\), whose credential_process did not end within 1 s .* after 30 s\.$"

    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=sentence) as caught:
            store.get("a")

    assert select.select([reader], [], [], 10)[0], "the pipe ends with the last process that has it"
    assert os.read(reader, 1) == b""
    os.close(reader)
    assert runs.read_text() == "run\n", "not again for each request"
    assert "pl4nted" not in "".join(traceback.format_exception(caught.value)) + caplog.text


def test_a_bucket_is_not_created_on_a_server_that_no_setting_names(aws: Aws, sources: Sources):
    """A forgotten MINIO_ENDPOINT would copy the database to the AWS account of a developer."""
    sources.variables()
    nobody = load_settings({"PG_DB": "cine", "MINIO_BUCKET": "forgotten"}, None).s3
    connection = dataclasses.replace(nobody, endpoint_url=aws.url, use_ssl=False)
    store = Store(s3_client.connect_to(connection), "forgotten", connection=connection)

    with pytest.raises(StoreNotFit, match=r"no S3 server is set. It is not created there. Set MINIO_ENDPOINT"):
        store.prepare()

    assert BUCKET in (names := [item["Name"] for item in store.client.list_buckets()["Buckets"]])
    assert "forgotten" not in names


def test_keys_are_not_shown():
    keys = s3_credentials.Keys("key", "pl4nted", "pl4nted")

    assert "pl4nted" not in f"{keys} {keys!r}"
