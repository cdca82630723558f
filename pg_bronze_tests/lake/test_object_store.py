"""The bucket on real servers: create-only writes, listings, the create-only probe, and errors."""

import contextlib
import dataclasses
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import botocore.loaders
import pytest
from botocore.exceptions import ClientError
from pydantic import SecretStr

from pg_bronze.errors import AccessDenied, StoreNotFit, StoreUnavailable
from pg_bronze.lake import create_only, s3_client
from pg_bronze.lake.object_store import Store
from pg_bronze.settings.bucket import S3Connection
from pg_bronze_tests.harness.faults import Proxy
from pg_bronze_tests.harness.repetitions import on_seaweed_alone
from pg_bronze_tests.harness.servers import unused_bucket_name


def test_an_object_is_created_once_and_never_overwritten(any_bucket):
    store = any_bucket.store()

    assert store.create("a/b", b"first")
    assert not store.create("a/b", b"second")
    assert store.get("a/b") == b"first"


def test_exactly_one_of_many_simultaneous_writers_creates_a_key(any_bucket):
    """The commit protocol depends on it."""
    store = any_bucket.store()
    with ThreadPoolExecutor(8) as pool:
        for turn in range(2):
            won = list(
                pool.map(lambda number, turn=turn: store.create(f"claim/{turn}", str(number).encode()), range(8))
            )
            assert sum(won) == 1
            assert store.get(f"claim/{turn}") == str(won.index(True)).encode()


def test_a_missing_object_is_none_and_can_be_deleted_and_moved(any_bucket):
    store = any_bucket.store()

    assert store.get("nothing") is None
    assert store.tail("nothing", 10) is None
    store.delete("nothing")
    store.move("nothing", "elsewhere")
    assert list(store.list("")) == []


def test_a_tail_is_the_end_of_an_object_or_the_whole_object(any_bucket):
    store = any_bucket.store()
    store.create("a", b"0123456789")
    store.create("empty", b"")

    assert store.tail("a", 4) == b"6789"
    assert store.tail("a", 100) == b"0123456789"
    assert store.tail("empty", 4) == b""


def test_a_moved_object_is_only_at_its_new_key(any_bucket):
    store = any_bucket.store()
    store.create("a b/ñ%2F+.parquet", b"rows")

    store.move("a b/ñ%2F+.parquet", "old/gen=0/a b/ñ%2F+.parquet")

    assert [item.key for item in store.list("")] == ["old/gen=0/a b/ñ%2F+.parquet"]
    assert store.get("old/gen=0/a b/ñ%2F+.parquet") == b"rows"


def test_a_listing_starts_after_a_key_that_need_not_exist(any_bucket):
    store = any_bucket.store()
    for key in ("t/t_1.parquet", "t/t_2.parquet", "t/t_3.parquet", "t2/t2_1.parquet"):
        store.create(key, b"x")

    assert [item.key for item in store.list("t/")] == ["t/t_1.parquet", "t/t_2.parquet", "t/t_3.parquet"]
    assert [item.key for item in store.list("t/t_", "t/t_2.parque")] == ["t/t_2.parquet", "t/t_3.parquet"]
    assert [item.key for item in store.list("t/t_", "t/t_2.parquet")] == ["t/t_3.parquet"]


@on_seaweed_alone()
def test_a_listing_of_more_than_one_page_is_complete_and_in_order(any_bucket):
    """A page contains 1,000 objects, and 10 here. The LIST after a claim must not miss objects on the next page."""
    store, keys = any_bucket.store(), [f"t/t_{number:05}.parquet" for number in range(25)]
    for key in keys:
        store.create(key, b"")
    lists = []

    def ask_for_small_pages(params, **_):
        lists.append(params)
        params["MaxKeys"] = 10

    event = "before-parameter-build.s3.ListObjectsV2"
    store.client.meta.events.register(event, ask_for_small_pages)
    try:
        assert [item.key for item in store.list("t/")] == keys
        assert len(lists) == 3
        assert [item.key for item in store.list("t/", keys[4])] == keys[5:]
    finally:
        store.client.meta.events.unregister(event, ask_for_small_pages)


def test_a_listing_contains_the_time_of_each_write(any_bucket):
    """The times are parsed without botocore, whose parser takes most of the time of a listing."""
    store = any_bucket.store()
    before = datetime.now(UTC).replace(microsecond=0)
    store.create("a/b", b"1")

    (item,) = store.list("")

    assert before <= item.modified <= datetime.now(UTC) + timedelta(seconds=1)
    assert (item.key, item.size_bytes) == ("a/b", 1)


def test_botocores_description_of_s3_is_read_once_per_process(monkeypatch):
    """Every run and every `scan` creates a client. Reading the description again takes 0.13 of its 0.16 s."""
    s3_client.connect("http://127.0.0.1:1", "us-east-1", "key", "secret")
    files = []
    load = botocore.loaders.JSONFileLoader.load_file

    def load_and_record(self, file_path):
        content = load(self, file_path)
        files.extend([file_path] if content is not None else [])
        return content

    monkeypatch.setattr(botocore.loaders.JSONFileLoader, "load_file", load_and_record)

    second = s3_client.connect("http://127.0.0.1:1", "us-east-1", "other key", "secret")

    assert files == []
    assert second._request_signer._credentials.access_key == "other key"


def test_the_runs_of_a_process_share_a_client_until_the_settings_or_the_authorities_change(tmp_path):
    """Creating one for each part of a run took 50 of its 740 ms, and each connects again."""
    file = tmp_path / "ca.pem"
    file.write_text("authorities")
    connection = S3Connection(
        "https://127.0.0.1:1", SecretStr("key"), SecretStr("secret"), "us-east-1", use_ssl=True, ca=str(file)
    )

    first = s3_client.shared(connection)
    same = s3_client.shared(dataclasses.replace(connection))
    other_keys = s3_client.shared(dataclasses.replace(connection, secret_key=SecretStr("rotated")))
    (tmp_path / "new.pem").write_text("authorities")
    (tmp_path / "new.pem").replace(file)
    other_authorities = s3_client.shared(connection)

    assert same is first
    assert other_keys is not first
    assert other_keys._request_signer._credentials.secret_key == "rotated"
    assert other_authorities is not first


def test_runs_get_another_client_each_minute_however_busy_they_are():
    """After an outage a client has used up botocore's retries, and one 503 would fail a run. A host name may move."""
    connection = S3Connection("http://127.0.0.1:1", SecretStr("busy"), SecretStr("secret"), "us-east-1", use_ssl=False)
    first = s3_client.shared(connection, now=lambda: 1000.0)

    assert s3_client.shared(connection, now=lambda: 1059.0) is first
    assert s3_client.shared(connection, now=lambda: 1060.0) is not first


def test_folders_are_directly_below_the_prefix(any_bucket):
    store = any_bucket.store()
    for key in ("movie/1", "movie/2", "sales.movie/date=1/1", "file", "a b%2E/x/y"):
        store.create(key, b"1")

    assert set(store.folders("")) == {"movie", "sales.movie", "a b%2E"}
    assert store.folders("sales.movie/") == ("date=1",)
    assert store.folders("nothing/") == ()


@pytest.mark.parametrize("unfenced", [False, True])
def test_a_missing_bucket_is_created(any_bucket, unfenced):
    here = any_bucket.store()
    store = Store(here.client, unused_bucket_name())

    store.prepare(unfenced=unfenced)

    assert store.create("a", b"x")
    for item in store.list(""):
        store.delete(item.key)
    here.client.delete_bucket(Bucket=store.bucket)


RECORD = "some/prefix/_pg_bronze/create_only.json"


@pytest.fixture
def requests(bucket):
    """A store with a prefix, and the names of the requests that its client sends."""
    store, names = bucket.store("some/prefix"), []
    store.client.meta.events.register("before-call.s3", lambda model, **_: names.append(model.name))
    return store, names


def test_the_create_only_probe_runs_once_a_day(requests):
    """It takes 18 requests or more, which every run would repeat."""
    store, names = requests
    store.prepare()
    assert [item.key for item in store.list("")] == [RECORD]
    names.clear()

    store.prepare()

    assert names == ["GetObject"]


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"not json",
        b"[]",
        b"{}",
        json.dumps({"endpoint": "{endpoint}", "checked_at": "2026-01-02T03:04:05+00:00"}).encode(),
        json.dumps({"endpoint": "http://other.example.org", "checked_at": "{now}"}).encode(),
        json.dumps({"format": 2, "endpoint": "{endpoint}", "checked_at": "{now}"}).encode(),
    ],
    ids=["empty", "not json", "a list", "no entries", "old", "of another server", "of a newer version"],
)
def test_a_record_proves_nothing_unless_it_is_of_this_server_and_day(record):
    now, endpoint = datetime.now(UTC), "http://this.example.org"
    text = record.replace(b"{endpoint}", endpoint.encode()).replace(b"{now}", now.isoformat().encode())
    assert not create_only.is_valid(text, endpoint, now)
    assert create_only.is_valid(create_only.record(endpoint, now), endpoint, now)


def test_a_record_that_proves_nothing_is_replaced_by_a_new_probe(requests):
    """A copy of a bucket on another server contains the record of the first one."""
    store, names = requests
    store.replace(RECORD, create_only.record("http://other.example.org", datetime.now(UTC)))
    names.clear()

    store.prepare()
    assert names.count("PutObject") >= 8
    names.clear()
    store.prepare()

    assert names == ["GetObject"]


def test_a_server_that_lets_two_of_many_simultaneous_writers_win_is_refused(bucket):
    """Two requests in a row succeed and fail as they should on such a server: RustFS 1659, VersityGW 2288."""
    with contextlib.closing(Proxy(bucket)) as proxy, proxy.broken("PUT", racing=True):
        assert proxy.store.create("in/a/row", b"1")
        assert not proxy.store.create("in/a/row", b"2")

        with pytest.raises(StoreNotFit, match=r"[2-8] of 8 simultaneous writers .*PG_BRONZE_UNFENCED=true"):
            proxy.store.prepare()
        proxy.store.prepare(unfenced=True)

    assert [item.key for item in bucket.store().list("")] == ["in/a/row"]


def test_a_bucket_that_cannot_be_created_is_named_with_its_setting(any_bucket, monkeypatch):
    here = any_bucket.store()
    store = Store(here.client, unused_bucket_name())

    def refused(**_):
        raise ClientError({"Error": {"Code": "TooManyBuckets"}}, "CreateBucket")

    monkeypatch.setattr(store.client, "create_bucket", refused)

    with pytest.raises(StoreNotFit, match=rf"{store.bucket}.*TooManyBuckets.*MINIO_BUCKET"):
        store.prepare()


def test_a_bucket_that_was_removed_is_named(any_bucket):
    here = any_bucket.store()
    store = Store(here.client, unused_bucket_name())

    with pytest.raises(StoreNotFit, match=rf"{store.bucket}.* does not exist on http"):
        list(store.list("movie/"))
    with pytest.raises(StoreNotFit, match=rf"{store.bucket}.* does not exist on http"):
        store.create("movie/a", b"x")


@pytest.mark.parametrize("wrong", ["key", "secret"])
def test_wrong_keys_are_rejected_without_being_shown(any_bucket, wrong):
    server = any_bucket.server
    keys = [server.access_key, server.secret_key]
    keys[wrong == "secret"] = "wrong-but-long-enough"
    store = Store(s3_client.connect(server.endpoint_url, "us-east-1", *keys), any_bucket.name)

    for attempt in (
        store.prepare,
        lambda: list(store.list("")),
        lambda: store.create("a", b""),
        lambda: store.get("a"),
    ):
        with pytest.raises(AccessDenied, match="MINIO_ACCESS_KEY and MINIO_SECRET_KEY") as caught:
            attempt()
        assert not any(key in str(caught.value) for key in keys)


def test_a_server_that_is_down_is_reported_within_ten_seconds():
    """A tick must end before the next one is due."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        store = Store(
            s3_client.connect(f"http://127.0.0.1:{unused.getsockname()[1]}", "us-east-1", "key", "secret"), "bronze"
        )
        started = time.monotonic()

        with pytest.raises(StoreUnavailable, match=r"refused the connection.*MINIO_ENDPOINT.*retried at the next tick"):
            store.create("a", b"x")

    assert time.monotonic() - started < 10


def test_a_host_that_does_not_resolve_is_reported_within_ten_seconds():
    store = Store(s3_client.connect("http://no-such-host.invalid:9000", "us-east-1", "key", "secret"), "bronze")
    started = time.monotonic()

    with pytest.raises(StoreUnavailable, match="MINIO_ENDPOINT"):
        store.get("a")

    assert time.monotonic() - started < 10
