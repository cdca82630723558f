"""The bucket on real servers: create-only writes, listings, and errors that say who can retry them."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import botocore.loaders
import pytest
from botocore.exceptions import ClientError

from pg_bronze.errors import AccessDenied, StoreNotFit, StoreUnavailable
from pg_bronze.lake import s3_client
from pg_bronze.lake.object_store import Store


def test_an_object_is_created_once_and_never_overwritten(any_bucket):
    store = any_bucket.store()

    assert store.create("a/b", b"first")
    assert not store.create("a/b", b"second")
    assert store.get("a/b") == b"first"


def test_of_many_who_create_one_key_exactly_one_wins(any_bucket):
    """All of a commit's safety rests on this."""
    store = any_bucket.store()
    with ThreadPoolExecutor(8) as pool:
        for turn in range(2):
            won = list(
                pool.map(lambda number, turn=turn: store.create(f"claim/{turn}", str(number).encode()), range(8))
            )
            assert sum(won) == 1
            assert store.get(f"claim/{turn}") == str(won.index(True)).encode()


def test_what_is_missing_is_none_and_deleting_it_is_nothing(any_bucket):
    store = any_bucket.store()

    assert store.get("nothing") is None
    assert store.tail("nothing", 10) is None
    store.delete("nothing")
    store.move("nothing", "elsewhere")
    assert list(store.list("")) == []


def test_a_tail_is_the_end_of_an_object_or_all_of_it(any_bucket):
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


def test_a_listing_begins_behind_a_key_that_need_not_exist(any_bucket):
    store = any_bucket.store()
    for key in ("t/t_1.parquet", "t/t_2.parquet", "t/t_3.parquet", "t2/t2_1.parquet"):
        store.create(key, b"x")

    assert [item.key for item in store.list("t/")] == ["t/t_1.parquet", "t/t_2.parquet", "t/t_3.parquet"]
    assert [item.key for item in store.list("t/t_", "t/t_2.parque")] == ["t/t_2.parquet", "t/t_3.parquet"]
    assert [item.key for item in store.list("t/t_", "t/t_2.parquet")] == ["t/t_3.parquet"]
    assert [item.key for item in store.list("t/", limit=2)] == ["t/t_1.parquet", "t/t_2.parquet"]


def test_a_listing_of_more_than_one_page_is_complete_and_in_order(any_bucket):
    """A page holds 1,000 objects; the claim's second look would miss what stands on the next one."""
    store = any_bucket.store()
    keys = [f"t/t_{number:05}.parquet" for number in range(1_010)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.create(key, b""), keys))

    assert [item.key for item in store.list("t/")] == keys
    assert [item.key for item in store.list("t/", keys[4])] == keys[5:]


def test_a_listing_says_when_each_object_was_written(any_bucket):
    """Its times are read by a parser of our own, because botocore's takes most of a listing's time."""
    store = any_bucket.store()
    before = datetime.now(UTC).replace(microsecond=0)
    store.create("a/b", b"1")

    (found,) = store.list("")

    assert before <= found.modified <= datetime.now(UTC) + timedelta(seconds=1)
    assert (found.key, found.size_bytes) == ("a/b", 1)


def test_what_botocore_knows_of_s3_is_read_once_a_process(monkeypatch):
    """Every run of a code server and every `scan` makes a client; reading it again takes 0.13 of its 0.16 s."""
    s3_client.connect("http://127.0.0.1:1", "us-east-1", "key", "secret")
    read = []
    load = botocore.loaders.JSONFileLoader.load_file

    def noted(self, file_path):
        found = load(self, file_path)
        read.extend([file_path] if found is not None else [])
        return found

    monkeypatch.setattr(botocore.loaders.JSONFileLoader, "load_file", noted)

    second = s3_client.connect("http://127.0.0.1:1", "us-east-1", "other key", "secret")

    assert read == []
    assert second._request_signer._credentials.access_key == "other key"


def test_folders_are_those_directly_below(any_bucket):
    store = any_bucket.store()
    for key in ("movie/1", "movie/2", "sales.movie/date=1/1", "file", "a b%2E/x/y"):
        store.create(key, b"1")

    assert set(store.folders("")) == {"movie", "sales.movie", "a b%2E"}
    assert store.folders("sales.movie/") == ("date=1",)
    assert store.folders("nothing/") == ()


def test_a_missing_bucket_is_made(any_bucket):
    here = any_bucket.store()
    store = Store(here.client, f"{here.bucket}-new")

    store.prepare()

    assert store.create("a", b"x")
    store.delete("a")
    here.client.delete_bucket(Bucket=store.bucket)


def test_a_bucket_that_is_there_is_prepared_without_leaving_a_trace(any_bucket):
    store = any_bucket.store("some/prefix")

    store.prepare()
    store.prepare()

    assert list(store.list("")) == []


def test_a_bucket_that_cannot_be_made_is_named_with_its_setting(any_bucket, monkeypatch):
    here = any_bucket.store()
    store = Store(here.client, f"{here.bucket}-new")

    def refused(**_):
        raise ClientError({"Error": {"Code": "TooManyBuckets"}}, "CreateBucket")

    monkeypatch.setattr(store.client, "create_bucket", refused)

    with pytest.raises(StoreNotFit, match=rf"{store.bucket}.*TooManyBuckets.*MINIO_BUCKET"):
        store.prepare()


def test_a_bucket_removed_while_we_run_is_named(any_bucket):
    here = any_bucket.store()
    store = Store(here.client, f"{here.bucket}-gone")

    with pytest.raises(StoreNotFit, match="does not exist any more"):
        list(store.list("movie/"))
    with pytest.raises(StoreNotFit, match="does not exist any more"):
        store.create("movie/a", b"x")


@pytest.mark.parametrize("wrong", ["key", "secret"])
def test_wrong_keys_are_an_error_of_rights_that_shows_neither(any_bucket, wrong):
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


def test_a_server_that_is_down_is_said_to_be_within_ten_seconds():
    """A tick has to end long before the next one is due."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        store = Store(
            s3_client.connect(f"http://127.0.0.1:{unused.getsockname()[1]}", "us-east-1", "key", "secret"), "bronze"
        )
        started = time.monotonic()

        with pytest.raises(StoreUnavailable, match=r"MINIO_ENDPOINT.*the next tick tries again"):
            store.create("a", b"x")

    assert time.monotonic() - started < 10


def test_a_host_that_does_not_resolve_is_said_within_ten_seconds():
    store = Store(s3_client.connect("http://no-such-host.invalid:9000", "us-east-1", "key", "secret"), "bronze")
    started = time.monotonic()

    with pytest.raises(StoreUnavailable, match="MINIO_ENDPOINT"):
        store.get("a")

    assert time.monotonic() - started < 10
