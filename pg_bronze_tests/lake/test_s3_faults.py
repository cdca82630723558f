"""The S3 server goes down, freezes, fills up, stammers or forgets who we are: an error that says so, and then it heals.

Wherever it happens in a commit, afterwards nothing is lost, stale or doubled.
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
from pg_bronze_tests.harness.faults import Proxy, freeze, stocked
from pg_bronze_tests.harness.lake import SAME, Lake, fill
from pg_bronze_tests.harness.servers import ROOT, Bucket, new_bucket

CLAIM, DATA = "_pg_bronze/claims/movie/", "/movie/movie_"


@pytest.fixture
def proxy(bucket: Bucket) -> Iterator[Proxy]:
    made = Proxy(bucket, answer_s=1.0)
    yield made
    made.close()


@pytest.fixture
def lake(database, proxy: Proxy) -> Lake:
    """Two tables, copied once; then both get new rows."""
    return stocked(Lake(database, proxy.store))


def heals(lake: Lake) -> None:
    """After the fault one tick brings everything."""
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
def test_a_server_that_errs_is_named_and_the_next_tick_heals(lake: Lake, proxy: Proxy, method, part, answer):
    with proxy.broken(method, part, answer=answer):
        with pytest.raises(StoreUnavailable, match=rf"{proxy.endpoint_url} did not .* \({answer[1]}\)"):
            lake.tick()
        if "movie" in part:
            lake.tick("person")
            assert lake.compare("person") == SAME

    heals(lake)


def test_one_bad_answer_is_asked_again_and_nobody_hears_of_it(lake: Lake, proxy: Proxy):
    with proxy.broken("PUT", DATA, times=1, answer=(503, "SlowDown")):
        assert lake.tick().row_count == 11

    assert lake.compare() == SAME


@pytest.mark.parametrize("part", [CLAIM, DATA], ids=["claim", "data"])
def test_a_write_whose_answer_is_lost_is_known_to_be_ours(lake: Lake, proxy: Proxy, part):
    """The client sends it again and hears that the key exists (412): that is no other writer."""
    with proxy.broken("PUT", part, times=1, lost=True):
        outcome = lake.tick()

    assert outcome.row_count == 11
    assert all(item.own for item in outcome.committed)
    assert lake.compare() == SAME


@pytest.mark.parametrize("part", [CLAIM, DATA], ids=["claim", "data"])
def test_a_write_of_which_no_answer_ever_comes_is_found_by_the_next_tick(lake: Lake, proxy: Proxy, part):
    """Whether it arrived is not known, so the object may be there or not."""
    with proxy.broken("PUT", part, lost=True), pytest.raises(StoreUnavailable, match="without an answer"):
        lake.tick()
    assert len(lake.keys()) == (2 if part == DATA else 1)

    heals(lake)


@pytest.mark.parametrize("state", ["recorded", "forgotten", "claimed"])
def test_an_answer_that_is_cut_short_is_no_end_of_an_object(lake: Lake, proxy: Proxy, state):
    """Half a footer, listing or claim that passes for a whole one would be another state of the table."""
    if state == "forgotten":
        lake.forget()
    if state == "claimed":
        assert lake.crash("claim")
    part = {"recorded": "list-type=2", "forgotten": DATA, "claimed": "0000000002.json"}[state]
    with proxy.broken("GET", part, cut=True), pytest.raises(StoreUnavailable, match=r"cut short|\(500\)"):
        lake.tick()

    heals(lake)


@pytest.mark.parametrize("method, part", [("GET", "list-type=2"), ("PUT", DATA)])
def test_a_server_that_takes_a_request_and_never_answers_is_given_up(lake: Lake, proxy: Proxy, method, part):
    with proxy.broken(method, part, silent=True):
        with pytest.raises(StoreUnavailable, match="took the request and did not answer"):
            lake.tick()
        assert proxy.met == 2, "each attempt waits for the whole time"

    heals(lake)


@pytest.mark.parametrize("answer", [(507, "XMinioStorageFull"), (403, "QuotaExceeded")], ids=["disk", "quota"])
def test_a_full_server_asks_for_room(lake: Lake, proxy: Proxy, answer):
    with proxy.broken("PUT", DATA, answer=answer), pytest.raises(StoreNotFit, match=r"has no room .* Make room"):
        lake.tick()

    heals(lake)


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
        ("minio", StoreNotFit, r"has no room .*\(XMinioStorageFull\). Make room"),
        ("seaweed", StoreUnavailable, r"did not write .*\(InternalError\). The next tick tries again"),
    ],
    ids=["minio", "seaweed"],
)
def test_on_a_disk_that_is_full_nothing_is_lost_and_it_heals(small_disk: Path, database, kind, error, words):
    """SeaweedFS gives no reason; its log does."""
    made = (
        MinioServer(small_disk / "data", binary=ROOT / ".cache/minio/minio")
        if kind == "minio"
        else SeaweedServer(small_disk / "data")
    )
    with made as server:
        lake = stocked(Lake(database, new_bucket(server).store()))
        database.execute(fill(100, 20_000))  # larger than what room is left in a page or a volume
        fill_up(small_disk / "filler")

        with pytest.raises(error, match=words):
            lake.tick()

        (small_disk / "filler").unlink()
        wait_for_room(lake.store)
        heals(lake)


def fill_up(file: Path) -> None:
    """Write until there is no room left, to the byte."""
    with file.open("wb", buffering=0) as stream:
        for size in (2**20, 2**12, 1):
            with contextlib.suppress(OSError):
                while stream.write(bytes(size)) == size:
                    pass


def wait_for_room(store: Store) -> None:
    """MinIO remembers for a moment how full its disk was."""
    deadline = time.monotonic() + 30
    while True:
        try:
            store.replace("_room", b"")
        except StoreNotFit:
            assert time.monotonic() < deadline, "there is room again, and the server does not see it"
        else:
            return store.delete("_room")


@pytest.mark.parametrize("part", [CLAIM, DATA], ids=["claim", "data"])
def test_a_conflict_is_asked_again_and_left_to_the_next_tick_if_it_lasts(lake: Lake, proxy: Proxy, part):
    """S3 answers 409 while another conditional write of the same key is under way."""
    conflict = (409, "ConditionalRequestConflict")
    with proxy.broken("PUT", part, answer=conflict, times=2):
        assert lake.tick().row_count == 11

    lake.database.execute(fill(21, 22))
    with (
        proxy.broken("PUT", part, answer=conflict),
        pytest.raises(StoreUnavailable, match=r"did not write .*ConditionalRequestConflict.*next tick tries again"),
    ):
        lake.tick()

    heals(lake)


@pytest.fixture(scope="module", params=["seaweed", "minio"])
def own_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """A server nobody else uses, to be stopped, frozen and killed; of each kind in turn."""
    folder, binary = tmp_path_factory.mktemp("s3"), ROOT / ".cache/minio/minio"
    with SeaweedServer(folder) if request.param == "seaweed" else MinioServer(folder, binary=binary) as server:
        yield server


@pytest.fixture
def own(own_server, database) -> Lake:
    made = new_bucket(own_server)
    client = s3_client.connect(
        own_server.endpoint_url, "us-east-1", own_server.access_key, own_server.secret_key, answer_s=1
    )
    return stocked(Lake(database, Store(client, made.name)))


def test_a_server_that_was_killed_and_comes_back_is_gone_on_with(own: Lake, own_server):
    own_server.kill()
    try:
        with pytest.raises(StoreUnavailable, match="does not take connections"):
            own.tick()
    finally:
        own_server.start()

    heals(own)


def test_a_server_killed_between_claim_and_object_loses_and_doubles_nothing(own: Lake, own_server):
    """What it still said it had taken counts, and what it had not is done again."""

    def on_step(step: str) -> None:
        if step == "list":
            own_server.kill()

    try:
        with pytest.raises(StoreUnavailable, match=r"no connection to the S3 server http://127"):
            own.tick(crash_at=on_step)
    finally:
        own_server.start()

    heals(own)


@pytest.mark.parametrize("step", ["before the tick", "list"])
def test_a_frozen_server_is_given_up_and_gone_on_with_when_it_thaws(own: Lake, own_server, step):
    """What it was asked while it was frozen it does afterwards: both PUTs of an object come after the error."""

    def freeze_after(name: str) -> None:
        if name == step:
            freeze(own_server.child.pid)

    freeze_after("before the tick")
    try:
        with pytest.raises(StoreUnavailable, match=r"no connection to the S3 server http://127.*did not answer"):
            own.tick(crash_at=freeze_after)
    finally:
        os.kill(own_server.child.pid, signal.SIGCONT)

    heals(own)


def test_changed_keys_are_refused_until_they_are_right_again(own: Lake, own_server):
    right, bucket = own.store, own.store.bucket
    own.store = Store(
        s3_client.connect(own_server.endpoint_url, "us-east-1", own_server.access_key, "another-one"), bucket
    )
    with pytest.raises(AccessDenied, match=r"refused the keys.*MINIO_ACCESS_KEY"):
        own.tick()

    own.store = right

    heals(own)


def test_a_deleted_bucket_stops_every_table_and_an_empty_one_in_its_place_as_well(own: Lake, own_server):
    """A new first load into it would look well, and every version overwritten since would be gone without a word."""
    Bucket(own_server, own.store.bucket).remove()
    with pytest.raises(StoreNotFit, match="does not exist any more"):
        own.tick()

    own.store.prepare()

    for table in ("movie", "person"):
        with pytest.raises(LakeDamaged, match=rf"pg-bronze reset {table}"):
            own.tick(table)
