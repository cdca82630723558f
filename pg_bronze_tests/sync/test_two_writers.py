"""Two writers of one table at once, with clocks that disagree: the claim decides, and no row lands twice."""

import threading
from datetime import UTC, datetime, timedelta

import pytest

from pg_bronze.lake.commit import write_all
from pg_bronze.lake.object_store import Store
from pg_bronze.sync import state_changes
from pg_bronze_tests.harness.lake import MOVIE, SAME, STEPS, Crash, Lake, NoLock, crash_after, fill, once_after

NOW = datetime(2026, 1, 2, 0, 0, 10, tzinfo=UTC)
SKEWS = [timedelta(hours=-1), timedelta(0), timedelta(hours=1)]
SKEW_IDS = ["an hour behind", "the same clock", "an hour ahead"]


@pytest.fixture
def pair(database, bucket) -> tuple[Lake, Lake]:
    """Two schedulers that know the same of one table, on servers where the advisory lock does not hold."""
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
    assert not [key for key in one.all_keys() if "claims" in key]


@pytest.mark.parametrize("skew", SKEWS, ids=SKEW_IDS)
@pytest.mark.parametrize("step", ["read", "claim", "list", "put"])
def test_a_writer_that_pauses_while_another_copies_the_same_doubles_nothing(pair, database, step, skew):
    """Whoever comes second has to notice, wherever it stood."""
    one, two = pair

    one.tick(now=lambda: NOW, crash_at=once_after(step, lambda: two.tick(now=lambda: NOW + skew)))

    settle(database, one, two)


@pytest.mark.parametrize("step", STEPS)
def test_a_writer_that_pauses_while_another_gets_far_ahead_doubles_nothing(pair, database, step):
    """The key it is about to write lies in the midst of the other's objects by then."""
    one, two = pair

    def far_ahead() -> None:
        for number in range(30, 33):
            two.tick(now=lambda: NOW + timedelta(hours=1))
            database.execute(f"{fill(number, number)}; update movie set title = title || '+' where movie_id < 5")
        two.tick(now=lambda: NOW - timedelta(hours=1))

    one.tick(now=lambda: NOW, crash_at=once_after(step, far_ahead))

    settle(database, one, two)


@pytest.mark.parametrize("dies_after", ["read", "claim", "put"])
@pytest.mark.parametrize("pauses_after", ["recover", "read", "list"])
def test_a_writer_that_pauses_while_another_dies_doubles_and_loses_nothing(pair, database, pauses_after, dies_after):
    """What the dead one claimed is done again, and comes no second time with the next slice."""
    one, two = pair

    def die() -> None:
        two.crash(dies_after, now=lambda: NOW + timedelta(seconds=7))

    one.tick(now=lambda: NOW, crash_at=once_after(pauses_after, die))

    settle(database, one, two)


@pytest.mark.parametrize("skew", SKEWS, ids=SKEW_IDS)
@pytest.mark.parametrize("step", ["recover", "put", "unclaim"])
def test_a_dead_writers_claim_is_done_once_by_two_others(pair, database, step, skew):
    """Both find the claim and have looked again with it in hand: its key is all that stands between them."""
    one, two = pair
    third = Lake(database, one.store, dict(one.recorded), sync_class=NoLock)
    assert third.crash("claim", now=lambda: NOW + timedelta(minutes=1))

    one.tick(now=lambda: NOW, crash_at=once_after(step, lambda: two.tick(now=lambda: NOW + skew)))

    settle(database, one, two)


@pytest.mark.parametrize("skew", SKEWS, ids=SKEW_IDS)
def test_a_slice_in_hand_gives_way_to_the_claim_of_a_writer_whose_put_is_late(pair, database, skew):
    """Nothing is in the bucket yet but the claim: written beside it, the same rows would be there twice."""
    one, two = pair
    outcomes = []
    with two.source() as source, two.open(source, now=lambda: NOW + skew) as copier:
        stream = copier.start(two.recorded["movie"])

        def write() -> None:
            outcomes.append(write_all(stream.slices(), two.writer(copier)))

        one.tick(now=lambda: NOW, crash_at=once_after("list", write))

    assert [(report.superseded, report.committed) for report in outcomes] == [(True, ())]
    settle(database, one, two)


def test_a_writer_that_finds_its_claim_done_by_another_goes_on_behind_it(pair, database):
    one, two = pair

    outcome = one.tick(now=lambda: NOW, crash_at=once_after("list", lambda: two.tick(now=lambda: NOW)))

    assert [item.own for item in outcome.committed] == [True]  # the nonce is that of the claim, whoever wrote it
    assert outcome.row_count == 10
    assert len(one.keys()) == 2
    settle(database, one, two)


def test_a_writer_that_comes_too_late_records_what_the_other_wrote(pair, database):
    """Its own slice is thrown away, and the table is not stuck behind a watermark nobody continues."""
    one, two = pair

    outcome = one.tick(now=lambda: NOW, crash_at=once_after("read", lambda: two.tick(now=lambda: NOW)))

    assert outcome.committed == []
    assert [(item.row_count, item.own) for item in outcome.adopted] == [(10, False)]
    assert one.recorded == two.recorded
    assert len(one.keys()) == 2
    settle(database, one, two)


def test_two_writers_in_the_midst_of_block_ranges_double_nothing(pair, database):
    """A range is a slice like any other; its window stays open between two writers."""
    one, two = pair
    database.execute(fill(1_001, 5_000))
    count = [0]

    def other_now_and_then(step: str) -> None:
        count[0] += 1
        if count[0] in (5, 12, 13):
            two.tick(slice_rows=700, now=lambda: NOW - timedelta(hours=count[0]))
        if count[0] == 20:
            two.crash(crash_after("claim", 1), slice_rows=900, now=lambda: NOW)

    one.tick(slice_rows=1_000, crash_at=other_now_and_then, now=lambda: NOW)

    settle(database, one, two)


def test_two_writers_that_never_wait_for_each_other_double_nothing(database, any_bucket):
    """Claims, lists and puts of both in any order, while rows come and one of them dies at times."""
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
    """A store whose process is killed with the PUT of a bronze object under way; ``late`` is that PUT."""

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


def make_again(lake: Lake) -> None:
    lake.drain()
    lake.database.execute(f"drop table movie; {MOVIE}; {fill(11, 30)}")
    lake.drain()


def rewrite(lake: Lake) -> None:
    lake.database.execute("vacuum full movie")
    lake.drain()


# What has happened by then, and whether the key is free.
MEANWHILE = {
    "nothing": (lambda _: None, True),
    "it was done again": (Lake.drain, False),
    "a reset": (reset, True),
    "a reset, and the state was forgotten": (reset_and_forget, True),
    "the table was made again": (make_again, True),
    "its claim was given up": (rewrite, False),
}


@pytest.mark.parametrize("happened", MEANWHILE)
def test_a_dead_writers_put_that_lands_late_doubles_nothing(database, bucket, happened):
    """The network may deliver it long after its key was written by another, and moved away from there.

    It holds a range of blocks whose rows have changed since, so that doing it again gives others.
    """
    act, free = MEANWHILE[happened]
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


def test_while_one_run_copies_a_table_another_leaves_it_alone(database, bucket):
    database.execute(MOVIE)
    database.execute(fill(1, 3))
    lake = Lake(database, bucket.store())
    seen = []

    lake.tick(crash_at=once_after("claim", lambda: seen.append(Lake(database, lake.store).tick())))

    assert [outcome.quiet for outcome in seen] == ["another run is copying it just now"]
    assert lake.compare() == SAME


def test_a_dead_runs_lock_is_free_again(database, bucket):
    """Also that of one whose connection goes on, for the other tables of a batch."""
    database.execute(MOVIE)
    database.execute(fill(1, 3))
    lake = Lake(database, bucket.store())
    with pytest.raises(Crash):
        lake.tick(crash_at="claim")

    assert lake.tick().row_counts == [3]

    database.execute(fill(4, 5))
    with lake.source() as source:
        with pytest.raises(Crash), lake.open(source, on_step=crash_after("read")) as copier:
            copier.start(lake.recorded["movie"])

        assert lake.tick().row_counts == [2]
