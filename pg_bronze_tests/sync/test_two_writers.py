"""Two writers of one table at once, with different clocks: the claim decides, and no row is copied twice."""

import threading
from datetime import UTC, datetime, timedelta

import pytest

from pg_bronze.lake.claim import Claim
from pg_bronze.lake.commit import write_all
from pg_bronze.lake.ledger import Ledger
from pg_bronze.lake.object_store import Store
from pg_bronze.sync import state_changes
from pg_bronze_tests.harness.lake import MOVIE, SAME, STEPS, Crash, Lake, NoLock, crash_after, fill, once_after
from pg_bronze_tests.harness.repetitions import also, combinations

NOW = datetime(2026, 1, 2, 0, 0, 10, tzinfo=UTC)
SKEWS = [timedelta(hours=-1), timedelta(0), timedelta(hours=1)]
SKEW_IDS = ["an hour behind", "the same clock", "an hour ahead"]


@pytest.fixture
def pair(database, bucket) -> tuple[Lake, Lake]:
    """Two writers with the same recorded watermark, on servers where the advisory lock does not hold."""
    database.execute(MOVIE)
    database.execute(fill(1, 10))
    one = Lake(database, bucket.store(), sync_class=NoLock)
    one.tick(now=lambda: NOW)
    database.execute(fill(11, 20))
    return one, Lake(database, bucket.store(), dict(one.recorded), sync_class=NoLock)


def settle(database, one: Lake, two: Lake) -> None:
    database.execute(fill(101, 105))
    one.drain(now=lambda: NOW)
    two.drain(now=lambda: NOW)
    assert one.compare() == SAME
    assert one.recorded == two.recorded
    watermark = one.recorded["movie"]
    assert watermark is not None
    assert watermark.counts is not None
    assert watermark.counts.rows == one.rows().height
    assert not [key for key in one.all_keys() if "claims" in key]


@pytest.mark.parametrize("step, skew", combinations(["read", "claim", "list", "put"], SKEWS))
def test_a_writer_that_pauses_while_another_copies_the_same_rows_doubles_nothing(pair, database, step, skew):
    """The second writer has to notice the first after every step."""
    one, two = pair

    one.tick(now=lambda: NOW, crash_at=once_after(step, lambda: two.tick(now=lambda: NOW + skew)))

    settle(database, one, two)


@pytest.mark.parametrize("step", [*STEPS[2::2], *also(*STEPS[:2], *STEPS[3::2])])
def test_a_writer_that_pauses_while_another_commits_several_objects_doubles_nothing(pair, database, step):
    """Its planned key is then between the keys of the other writer's objects."""
    one, two = pair

    def commit_several_objects() -> None:
        for number in range(30, 33):
            two.tick(now=lambda: NOW + timedelta(hours=1))
            database.execute(f"{fill(number, number)}; update movie set title = title || '+' where movie_id < 5")
        two.tick(now=lambda: NOW - timedelta(hours=1))

    one.tick(now=lambda: NOW, crash_at=once_after(step, commit_several_objects))

    settle(database, one, two)


@pytest.mark.parametrize(
    "pauses_after, killed_after", combinations(["recover", "read", "list"], ["put", "read", "claim"])
)
def test_a_writer_that_pauses_while_another_is_killed_loses_and_doubles_nothing(
    pair, database, pauses_after, killed_after
):
    """The claim of the killed writer is redone, and its rows must not be in the next slice, too."""
    one, two = pair

    def kill() -> None:
        two.crash(killed_after, now=lambda: NOW + timedelta(seconds=7))

    one.tick(now=lambda: NOW, crash_at=once_after(pauses_after, kill))

    settle(database, one, two)


@pytest.mark.parametrize("step, skew", combinations(["recover", "put", "unclaim"], SKEWS))
def test_a_claim_that_two_writers_redo_is_written_once(pair, database, step, skew):
    """Both found the claim and listed again, so only the key of the object separates them."""
    one, two = pair
    third = Lake(database, one.store, dict(one.recorded), sync_class=NoLock)
    assert third.crash("claim", now=lambda: NOW + timedelta(minutes=1))

    one.tick(now=lambda: NOW, crash_at=once_after(step, lambda: two.tick(now=lambda: NOW + skew)))

    settle(database, one, two)


@pytest.mark.parametrize("skew", SKEWS, ids=SKEW_IDS)
def test_a_slice_is_dropped_if_another_writer_has_claimed_its_number(pair, database, skew):
    """The other writer's object is not in the bucket yet. Written beside it, the same rows would be there twice."""
    one, two = pair
    outcomes, claimed = [], []
    with two.source() as source, two.open(source, now=lambda: NOW + skew) as sync:
        stream = sync.start(two.recorded["movie"])

        def write() -> None:
            key = one.layout().claim(two.recorded["movie"].seq + 1)
            claimed.append(Claim.from_text(one.store.get(key), key).after.key)
            outcomes.append(write_all(stream.slices(), two.writer(sync)))

        one.tick(now=lambda: NOW, crash_at=once_after("list", write))

    assert {item.key for report in outcomes for item in report.committed} <= set(claimed)
    assert len(one.keys()) == 2
    settle(database, one, two)


def test_a_writer_whose_claim_was_redone_continues_after_that_object(pair, database):
    one, two = pair

    outcome = one.tick(now=lambda: NOW, crash_at=once_after("list", lambda: two.tick(now=lambda: NOW)))

    assert [item.own for item in outcome.committed] == [True]  # its nonce is that of the claim
    assert outcome.row_count == 10
    assert len(one.keys()) == 2
    settle(database, one, two)


@pytest.mark.parametrize("recent", [True, False])
def test_a_writer_that_is_superseded_records_the_other_writers_object(pair, database, monkeypatch, recent):
    """Otherwise the table would stop at a watermark that no object continues."""
    monkeypatch.setattr(Ledger, "is_recent", lambda *_: recent)
    one, two = pair

    outcome = one.tick(now=lambda: NOW, crash_at=once_after("read", lambda: two.tick(now=lambda: NOW)))

    assert outcome.committed == []
    assert [(item.row_count, item.own) for item in outcome.adopted] == [(10, False)]
    assert one.recorded == two.recorded
    assert len(one.keys()) == 2
    settle(database, one, two)


def test_a_slice_read_ahead_is_dropped_if_another_writer_withdrew_the_slice_before_it(pair, database):
    """Its key and number would fit, and the blocks of the slice before it would be missing."""
    one, two = pair
    database.execute(fill(1_001, 5_000))
    reads, crashed, read_ahead = [], [], threading.Event()

    def withdraw(step: str) -> None:
        if step == "read":
            reads.append(step)
            if len(reads) == 2:
                read_ahead.set()
        if step == "list" and not crashed:
            assert read_ahead.wait(30)
            database.execute("vacuum full movie")  # the claimed blocks contain other rows now
            crashed.append(two.crash("unclaim", slice_rows=1_000, now=lambda: NOW))

    outcome = one.tick(slice_rows=1_000, crash_at=withdraw, now=lambda: NOW)

    assert crashed == [True]
    assert outcome.committed[0].row_count == 0
    settle(database, one, two)
    assert one.recorded["movie"].generation == 0, "a new generation would copy the missing blocks too"


def test_two_writers_of_block_ranges_double_nothing(pair, database):
    """The window remains open between the objects of two writers."""
    one, two = pair
    database.execute(fill(1_001, 5_000))
    count = [0]

    def run_other_writer(step: str) -> None:
        count[0] += 1
        if count[0] in (5, 12, 13):
            two.tick(slice_rows=700, now=lambda: NOW - timedelta(hours=count[0]))
        if count[0] == 20:
            two.crash(crash_after("claim", 1), slice_rows=900, now=lambda: NOW)

    one.tick(slice_rows=1_000, crash_at=run_other_writer, now=lambda: NOW)

    settle(database, one, two)


def test_two_concurrent_writers_double_nothing(database, any_bucket):
    """Claims, listings and PUTs of both in any order, with new rows and crashes."""
    database.execute(MOVIE)
    lakes = [Lake(database, any_bucket.store(), sync_class=NoLock) for _ in range(2)]
    barrier, failures = threading.Barrier(2), []

    def work(lake: Lake, skew: timedelta) -> None:
        try:
            for turn in range(12):
                first = 1_000 * turn + (1 if skew else 501)
                database.execute(
                    f"{fill(first, first + 30)}; update movie set title = 'x' where movie_id % 7 = {turn % 7}"
                )
                barrier.wait(30)
                if turn % 5 == 4:
                    lake.crash(STEPS[turn % 6], now=lambda: datetime.now(UTC) + skew)
                    lake.forget()
                else:
                    lake.tick(now=lambda: datetime.now(UTC) + skew)
        except BaseException as error:  # noqa: BLE001  (the test fails with it)
            failures.append(error)
            barrier.abort()

    threads = [
        threading.Thread(target=work, args=pair) for pair in zip(lakes, [timedelta(0), timedelta(hours=3)], strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert not failures
    settle(database, *lakes)


class OnItsWay(Store):
    """The bucket of a process that is killed during the PUT of an object, which arrives ``late``."""

    late: tuple[str, bytes] | None = None

    def create(self, key: str, body: bytes) -> bool:
        if key.endswith(".parquet"):
            self.late = (key, body)
            raise Crash("put")
        return super().create(key, body)


def reset(lake: Lake) -> None:
    lake.drain()
    lake.tick(act=state_changes.reset)


def reset_and_forget(lake: Lake) -> None:
    reset(lake)
    lake.forget()


def create_again(lake: Lake) -> None:
    lake.drain()
    lake.database.execute(f"drop table movie; {MOVIE}; {fill(11, 30)}")
    lake.drain()


def rewrite(lake: Lake) -> None:
    lake.database.execute("vacuum full movie")
    lake.drain()


def replace_table(lake: Lake) -> None:
    lake.database.execute(f"drop table movie; {MOVIE}; {fill(11, 30)}")
    lake.drain()


# What happens before the PUT arrives, and whether the key is free then.
BEFORE_ARRIVAL = {
    "nothing": (lambda _: None, True),
    "it was redone": (Lake.drain, False),
    "a reset": (reset, True),
    "a reset, and the watermark was lost": (reset_and_forget, True),
    "the table was created again": (create_again, True),
    "its claim was withdrawn": (rewrite, True),
    "its claim opened a new generation": (replace_table, False),
}


@pytest.mark.parametrize("happened", [*list(BEFORE_ARRIVAL)[1::2], *also(*list(BEFORE_ARRIVAL)[::2])])
def test_a_late_put_of_a_killed_writer_doubles_nothing(database, bucket, happened):
    """It may arrive long after another writer's object under its key was moved away.

    It contains a block range whose rows have changed since, so a redo contains other rows.
    """
    act, free = BEFORE_ARRIVAL[happened]
    database.execute(f"{MOVIE}; {fill(1, 600)}")
    lake, store = Lake(database, bucket.store()), bucket.store()
    killed = Lake(database, OnItsWay(store.client, store.bucket))
    assert lake.crash(crash_after("put", 2), slice_rows=200, now=lambda: NOW)
    assert killed.crash("never", slice_rows=200, now=lambda: NOW)
    database.execute(f"update movie set title = 'since' where movie_id % 3 = 0; {fill(601, 620)}")
    act(lake)

    assert store.create(*killed.store.late) is free

    database.execute("update movie set title = 'later' where movie_id between 12 and 20")
    lake.drain()
    assert lake.compare() == SAME
    assert len({footer.after.generation for footer in lake.footers()}) == 1
    assert not [key for key in lake.all_keys() if "claims" in key]


def test_a_table_that_another_run_is_copying_is_left_to_that_run(database, bucket):
    database.execute(MOVIE)
    database.execute(fill(1, 3))
    lake = Lake(database, bucket.store())
    seen = []

    lake.tick(crash_at=once_after("claim", lambda: seen.append(Lake(database, lake.store).tick())))

    assert [outcome.quiet for outcome in seen] == ["another run is copying the table"]
    assert lake.compare() == SAME


def test_the_lock_of_a_killed_run_is_released(database, bucket):
    """Also if its connection remains open for the other tables of a batch."""
    database.execute(MOVIE)
    database.execute(fill(1, 3))
    lake = Lake(database, bucket.store())
    with pytest.raises(Crash):
        lake.tick(crash_at="claim")

    assert lake.tick().row_counts == [3]

    database.execute(fill(4, 5))
    with lake.source() as source:
        with pytest.raises(Crash), lake.open(source, on_step=crash_after("read")) as sync:
            sync.start(lake.recorded["movie"])

        assert lake.tick().row_counts == [2]
