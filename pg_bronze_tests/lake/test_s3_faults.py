"""The S3 server stops, freezes, fills up, returns errors or rejects the keys: a clear error, and then recovery.

Nothing is lost, stale or doubled afterwards, at any step of a commit.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pg_bronze.demo.s3 import MinioServer, SeaweedServer
from pg_bronze.errors import AccessDenied, LakeDamaged, StoreNotFit, StoreUnavailable
from pg_bronze.lake import s3_client
from pg_bronze.lake.object_store import Store
from pg_bronze_tests.harness.faults import Proxy, freeze, impatient, stocked
from pg_bronze_tests.harness.lake import SAME, Lake, fill
from pg_bronze_tests.harness.repetitions import also, repetition
from pg_bronze_tests.harness.servers import ROOT, Bucket, new_bucket, until_killed

CLAIM, DATA = "_pg_bronze/claims/movie/", "/movie/movie_"


@pytest.fixture
def proxy(bucket: Bucket) -> Iterator[Proxy]:
    made = Proxy(bucket)
    yield made
    made.close()


@pytest.fixture
def lake(database, proxy: Proxy) -> Lake:
    """Two tables, copied once; then both get new rows."""
    return stocked(Lake(database, proxy.store))


def assert_recovered(lake: Lake) -> None:
    """One tick after the fault copies everything."""
    assert lake.tick().quiet is None
    assert lake.drain()[-1].quiet
    assert lake.compare() == SAME


@pytest.mark.parametrize(
    "method, part, answer",
    [
        ("GET", "list-type=2", (500, "InternalError")),
        ("PUT", CLAIM, (503, "ServiceUnavailable")),
        ("PUT", DATA, (503, "SlowDown")),
        ("DELETE", CLAIM, (500, "InternalError")),
    ],
    ids=["list", "claim", "data", "unclaim"],
)
def test_an_error_of_the_server_is_named_and_the_next_tick_recovers(lake: Lake, proxy: Proxy, method, part, answer):
    with proxy.broken(method, part, answer=answer):
        with pytest.raises(StoreUnavailable, match=rf"{proxy.endpoint_url} failed to .* \({answer[1]}\)"):
            lake.tick()
        if "movie" in part:
            lake.tick("person")
            assert lake.compare("person") == SAME

    assert_recovered(lake)


def test_a_single_error_is_retried_within_the_tick(lake: Lake, proxy: Proxy):
    with proxy.broken("PUT", DATA, times=1, answer=(503, "SlowDown")):
        assert lake.tick().row_count == 11

    assert lake.compare() == SAME


@pytest.mark.parametrize("part", [CLAIM, DATA], ids=["claim", "data"])
def test_a_write_whose_response_is_lost_is_recognized_as_the_writers_own(lake: Lake, proxy: Proxy, part):
    """The client sends it again and receives 412, as if another writer had created the key."""
    with proxy.broken("PUT", part, times=1, lost=True):
        outcome = lake.tick()

    assert outcome.row_count == 11
    assert all(item.own for item in outcome.committed)
    assert lake.compare() == SAME


@pytest.mark.parametrize("part", [CLAIM, DATA], ids=["claim", "data"])
def test_a_write_without_any_response_is_found_by_the_next_tick(lake: Lake, proxy: Proxy, part):
    """The object may exist or not."""
    with (
        proxy.broken("PUT", part, lost=True),
        pytest.raises(StoreUnavailable, match="closed the connection without a response"),
    ):
        lake.tick()
    assert len(lake.keys()) == (2 if part == DATA else 1)

    assert_recovered(lake)


@pytest.mark.parametrize("state", ["recorded", "forgotten", "claimed"])
def test_an_incomplete_response_is_not_taken_for_a_whole_object(lake: Lake, proxy: Proxy, state):
    """Half a footer, listing or claim would be another state of the table."""
    if state == "forgotten":
        lake.forget()
    if state == "claimed":
        assert lake.crash("claim")
    part = {"recorded": "list-type=2", "forgotten": DATA, "claimed": "0000000002.json"}[state]
    with (
        proxy.broken("GET", part, cut=True),
        pytest.raises(StoreUnavailable, match=r"the response was incomplete|\(500\)"),
    ):
        lake.tick()

    assert_recovered(lake)


@pytest.mark.parametrize("method, part", [("PUT", DATA), pytest.param("GET", "list-type=2", marks=repetition)])
def test_a_request_without_a_response_ends_after_two_attempts(lake: Lake, proxy: Proxy, method, part):
    with proxy.broken(method, part, silent=True):
        with (
            impatient(lake, proxy),
            pytest.raises(StoreUnavailable, match="accepted the request and did not respond in time"),
        ):
            lake.tick()
        assert proxy.met == 2

    assert_recovered(lake)


@pytest.mark.parametrize("answer", [(507, "XMinioStorageFull"), (403, "QuotaExceeded")], ids=["disk", "quota"])
def test_a_full_server_is_an_error_that_asks_for_space(lake: Lake, proxy: Proxy, answer):
    with (
        proxy.broken("PUT", DATA, answer=answer),
        pytest.raises(StoreNotFit, match=r"has no space left .* Free some space"),
    ):
        lake.tick()

    assert_recovered(lake)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 96 MB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", folder], check=False).returncode:
        pytest.xfail("this system lets nobody mount a small disk; what a full one answers comes from a proxy only")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize(
    "kind, error, words",
    [
        ("minio", StoreNotFit, r"has no space left .*\(XMinioStorageFull\). Free some space"),
        ("seaweed", StoreUnavailable, r"failed to write .*\(InternalError\). It is retried at the next tick"),
    ],
    ids=["minio", "seaweed"],
)
def test_nothing_is_lost_on_a_full_disk_and_the_next_tick_recovers(small_disk: Path, database, kind, error, words):
    """SeaweedFS names the reason only in its log."""
    made = (
        MinioServer(small_disk / "data", binary=ROOT / ".cache/minio/minio")
        if kind == "minio"
        else SeaweedServer(small_disk / "data")
    )
    with until_killed(made) as server:
        lake = stocked(Lake(database, new_bucket(server).store()))
        database.execute(fill(100, 20_000))  # larger than the space left in a page or a volume
        fill_up(small_disk / "filler")

        with pytest.raises(error, match=words):
            lake.tick()

        (small_disk / "filler").unlink()
        wait_for_space(lake.store)
        assert_recovered(lake)


def fill_up(file: Path) -> None:
    """Write until no byte of space is left."""
    with file.open("wb", buffering=0) as stream:
        for size in (2**20, 2**12, 1):
            with contextlib.suppress(OSError):
                while stream.write(bytes(size)) == size:
                    pass


def wait_for_space(store: Store) -> None:
    """MinIO caches for a moment how full its disk is."""
    deadline = time.monotonic() + 30
    while True:
        try:
            store.replace("_space", b"")
        except StoreNotFit:
            assert time.monotonic() < deadline, "the server does not see the free space"
        else:
            return store.delete("_space")


@pytest.mark.parametrize("part", [DATA, *also(CLAIM)])
def test_a_conflict_is_retried_and_left_to_the_next_tick_if_it_persists(lake: Lake, proxy: Proxy, part):
    """S3 responds with 409 while another conditional write of the same key is in progress."""
    conflict = (409, "ConditionalRequestConflict")
    with proxy.broken("PUT", part, answer=conflict, times=2):
        assert lake.tick().row_count == 11

    lake.database.execute(fill(21, 22))
    with (
        proxy.broken("PUT", part, answer=conflict),
        pytest.raises(
            StoreUnavailable, match=r"failed to write .*ConditionalRequestConflict.*retried at the next tick"
        ),
    ):
        lake.tick()

    assert_recovered(lake)


@pytest.fixture(scope="module", params=["seaweed", *also("minio")])
def own_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """A server of each kind that no other test uses, to be stopped, frozen and killed."""
    folder, binary = tmp_path_factory.mktemp("s3"), ROOT / ".cache/minio/minio"
    made = SeaweedServer(folder) if request.param == "seaweed" else MinioServer(folder, binary=binary)
    with until_killed(made) as server:
        yield server


@pytest.fixture
def own(own_server, database) -> Lake:
    made = new_bucket(own_server)
    client = s3_client.connect(own_server.endpoint_url, "us-east-1", own_server.access_key, own_server.secret_key)
    return stocked(Lake(database, Store(client, made.name)))


def test_copying_continues_after_a_server_was_killed_and_restarted(own: Lake, own_server):
    own_server.kill()
    try:
        with pytest.raises(StoreUnavailable, match="refused the connection"):
            own.tick()
    finally:
        own_server.start()

    assert_recovered(own)


def test_a_server_that_was_restarted_between_two_copies_fails_neither(own: Lake, own_server):
    """A run worker keeps its connections, and the server has closed them."""
    own_server.kill()
    own_server.start()

    assert_recovered(own)


def test_nothing_is_lost_or_doubled_if_the_server_is_killed_between_claim_and_object(own: Lake, own_server):
    """A confirmed write counts; an unconfirmed one is repeated."""

    def on_step(step: str) -> None:
        if step == "list":
            own_server.kill()

    try:
        with pytest.raises(StoreUnavailable, match=r"no connection to the S3 server http://127"):
            own.tick(crash_at=on_step)
    finally:
        own_server.start()

    assert_recovered(own)


@pytest.mark.parametrize("step", [*also("before the tick"), "list"])
def test_copying_continues_after_a_frozen_server_resumes(own: Lake, own_server, step):
    """It executes the requests that it received while frozen: both PUTs of an object happen after the error."""

    def freeze_after(name: str) -> None:
        if name == step:
            freeze(own_server.child.pid)

    freeze_after("before the tick")
    try:
        with (
            impatient(own, own_server),
            pytest.raises(StoreUnavailable, match=r"no connection to the S3 server http://127.*did not respond"),
        ):
            own.tick(crash_at=freeze_after)
    finally:
        os.kill(own_server.child.pid, signal.SIGCONT)

    assert_recovered(own)


def test_changed_keys_are_rejected_until_they_are_corrected(own: Lake, own_server):
    right, bucket = own.store, own.store.bucket
    own.store = Store(
        s3_client.connect(own_server.endpoint_url, "us-east-1", own_server.access_key, "another-one"), bucket
    )
    with pytest.raises(AccessDenied, match=r"rejected the keys.*MINIO_ACCESS_KEY"):
        own.tick()

    own.store = right

    assert_recovered(own)


def test_a_deleted_bucket_stops_every_table_and_so_does_an_empty_one_in_its_place(own: Lake, own_server):
    """A new first load would succeed, and the versions that were overwritten since would be lost silently."""
    Bucket(own_server, own.store.bucket).remove()
    with pytest.raises(StoreNotFit, match="does not exist on http"):
        own.tick()

    own.store.prepare()

    for table in ("movie", "person"):
        with pytest.raises(LakeDamaged, match=rf"pg-bronze reset {table}"):
            own.tick(table)
