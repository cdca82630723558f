"""Crashes after any step, with any recorded watermark: afterwards nothing is lost, stale or doubled."""

import itertools
from datetime import UTC, datetime

import pytest

from pg_bronze.errors import LakeDamaged, TableChanged
from pg_bronze.lake.claim import Claim
from pg_bronze.lake.ledger import Ledger
from pg_bronze.postgres.connection import Source
from pg_bronze_tests.harness.lake import MOVIE, SAME, STEPS, Crash, Lake, crash_after, fill
from pg_bronze_tests.harness.repetitions import also, combinations

STATES = ("as recorded", "an older one", "footers only")


@pytest.fixture(params=["recorded", *also("listed")])
def lake(database, bucket, request, monkeypatch) -> Lake:
    """A table whose ticks continue the recorded watermark if it is recent, or recover by listings always."""
    if request.param == "listed":
        monkeypatch.setattr(Ledger, "is_recent", lambda *_: False)
    database.execute(MOVIE)
    return Lake(database, bucket.store())


def lose(lake: Lake, state: str, older) -> None:
    """Set what the scheduler has recorded after the crash."""
    if state == "footers only":
        lake.forget()
    elif state == "an older one":
        lake.recorded["movie"] = older


@pytest.mark.parametrize("step, state", combinations(STEPS, STATES))
def test_a_crash_in_a_window_loses_and_doubles_nothing(lake, database, step, state):
    """Each step leaves other traces in the bucket, and the recorded watermark may be old or lost."""
    database.execute(fill(1, 20))
    older = lake.tick().watermark
    database.execute(fill(21, 30))
    lake.tick()
    database.execute(f"{fill(31, 40)}; update movie set title = 'changed' where movie_id % 3 = 0")

    assert lake.crash(step)
    lose(lake, state, older)
    database.execute(f"{fill(41, 45)}; update movie set title = 'after' where movie_id % 10 = 0")
    lake.drain()

    assert lake.compare() == SAME


@pytest.mark.parametrize("step, state", combinations(["read", "claim", "put", "unclaim"], STATES))
def test_a_crash_between_block_ranges_loses_and_doubles_nothing(lake, database, step, state):
    """The next tick must continue the window after the claimed range."""
    database.execute(fill(1, 1))
    older = lake.tick().watermark
    database.execute(fill(2, 4_000))

    assert lake.crash(crash_after(step, 3), slice_rows=1_000)
    lose(lake, state, older)
    database.execute(f"{fill(4_001, 4_010)}; update movie set title = 'after' where movie_id % 100 = 0")
    lake.drain(slice_rows=1_000)

    assert lake.compare() == SAME


@pytest.mark.parametrize("step", STEPS)
def test_a_crash_in_a_first_load_loses_and_doubles_nothing(lake, database, step):
    """Nothing is recorded yet, and the claim is the only trace in the bucket."""
    database.execute(fill(1, 3_000))

    assert lake.crash(step, slice_rows=1_000)
    assert "movie" not in lake.recorded
    database.execute("update movie set title = 'after' where movie_id % 100 = 0")
    lake.drain(slice_rows=1_000)

    assert lake.compare() == SAME


def test_repeated_crashes_lose_and_double_nothing(lake, database):
    """A process may also be killed during recovery."""
    database.execute(fill(1, 2_000))
    for number, step in enumerate(itertools.chain(STEPS, reversed(STEPS), STEPS)):
        if number % 4 == 3:
            lake.forget()
        lake.crash(step, slice_rows=500)
        database.execute(f"{fill(5_000 + number, 5_000 + number)}; delete from movie where movie_id = {number}")

    lake.drain(slice_rows=500)

    assert lake.compare() == SAME


@pytest.mark.parametrize("step, state", combinations(["claim", "put", "unclaim", "a later slice"], STATES))
def test_a_crash_in_a_new_generation_loses_and_doubles_nothing(lake, database, step, state):
    """The recorded object was moved away with the old generation. That must not be reported as damage."""
    database.execute(fill(1, 3))
    older = lake.tick().watermark
    database.execute(fill(4, 6))
    lake.tick()
    database.execute(f"drop table movie; {MOVIE}; {fill(10, 12)}")

    assert lake.crash(crash_after("claim", 2) if step == "a later slice" else step)
    lose(lake, state, older)
    database.execute(fill(13, 14))
    lake.drain()

    assert lake.column() == [10, 11, 12, 13, 14]
    assert lake.compare() == SAME


def test_a_lost_watermark_is_rebuilt_and_recorded_without_copying(lake, database):
    """If it were not recorded, every tick would search the bucket for it."""
    database.execute(fill(1, 3_000))
    lake.drain(slice_rows=1_000)
    before, known = lake.keys(), lake.recorded["movie"]

    lake.forget()
    outcome = lake.tick()

    assert outcome.committed == []
    assert outcome.watermark == known
    assert lake.keys() == before


def test_objects_after_an_older_recorded_watermark_are_adopted(lake, database):
    """Their rows are counted and the watermark is recorded, although there are no new rows."""
    database.execute(fill(1, 3))
    older = lake.tick().watermark
    for number in range(4, 7):
        database.execute(fill(number, number))
        lake.tick()
    newest = lake.recorded["movie"]

    lake.recorded["movie"] = older
    outcome = lake.tick()

    assert [item.row_count for item in outcome.adopted] == [1, 1, 1]
    assert outcome.watermark == newest


@pytest.mark.parametrize(
    "change",
    [
        "alter table movie add rating int default 1",
        "alter table movie rename title to name",
        "alter table movie drop price",
        "vacuum full movie",
        "alter table movie alter price type text",
        "alter table movie drop updated_at",
    ],
)
def test_a_claimed_window_is_redone_after_the_table_was_altered(lake, database, change):
    """Its rows still exist. If the claim were removed, they would never be copied."""
    database.execute(fill(1, 3))
    lake.tick()
    database.execute(fill(4, 6))
    lake.crash("claim")
    database.execute(change)

    lake.drain()

    assert lake.compare().lost == lake.compare().doubled == 0
    assert set(lake.rows()["movie_id"]) == {1, 2, 3, 4, 5, 6}


@pytest.mark.parametrize(
    "change, reason",
    [
        ("vacuum full movie", "was rewritten while it was being read in block ranges"),
        (f"drop table movie; {MOVIE}; {fill(1, 5)}", "cannot be read again"),
    ],
    ids=["rewritten", "created again"],
)
def test_a_claimed_block_range_of_a_rewritten_table_opens_a_new_generation(lake, database, change, reason):
    """The claimed blocks contain other rows now."""
    database.execute(fill(1, 4_000))
    database.execute("delete from movie where movie_id % 3 = 0")
    lake.crash(crash_after("claim", 2), slice_rows=1_000)
    database.execute(change)

    lake.drain(slice_rows=1_000)

    assert reason in lake.footers()[0].reason
    assert lake.footers()[-1].after.generation == 1
    assert lake.compare() == SAME


def test_a_claimed_range_of_a_table_without_a_row_in_doubt_is_withdrawn(lake, database):
    """Nothing of it was delivered, so the state before it still holds."""
    database.execute(fill(1, 4_000))
    lake.crash(crash_after("claim", 2), slice_rows=1_000)
    database.execute(f"truncate movie; {fill(5_001, 5_010)}")

    lake.drain(slice_rows=1_000)

    assert "cannot be read again" in next(footer.reason for footer in lake.footers() if footer.reason)
    assert lake.footers()[-1].after.generation == 0
    assert lake.compare() == SAME


def test_a_claimed_last_block_range_of_a_rewritten_table_is_not_lost(lake, database):
    """After it the table would count as copied, and the rows of its last blocks are in other blocks now."""
    database.execute(fill(1, 4_000))
    database.execute("delete from movie where movie_id % 3 = 0")

    def die_after_the_last_claim(step: str) -> None:
        if step == "claim":
            (key,) = lake.all_keys("_pg_bronze/claims/movie/")
            if not any(leaf.sweep for leaf in Claim.from_text(lake.store.get(key), key).after.leaves.values()):
                raise Crash

    assert lake.crash(die_after_the_last_claim, slice_rows=1_000)
    database.execute("vacuum full movie")

    lake.drain(slice_rows=1_000)

    assert lake.compare() == SAME


def test_a_table_rewritten_while_a_claim_is_redone_loses_nothing(lake, database, monkeypatch):
    """The claimed blocks contain other rows now, although they were the same when the redo started."""
    database.execute(fill(1, 4_000))
    database.execute("delete from movie where movie_id % 3 = 0")
    lake.crash(crash_after("claim", 2), slice_rows=1_000)
    original, left = Source.read_sent, ["vacuum full movie"]

    def rewrite_and_read(self, query, label):
        if left:
            database.execute(left.pop())
        return original(self, query, label)

    monkeypatch.setattr(Source, "read_sent", rewrite_and_read)
    with pytest.raises(TableChanged, match="It is retried at the next tick"):
        lake.tick(slice_rows=1_000)

    lake.drain(slice_rows=1_000)

    assert lake.footers()[-1].after.generation == 1
    assert lake.compare() == SAME


def test_an_unexpected_error_in_a_claimed_read_opens_no_new_generation(lake, database, monkeypatch):
    """A key error while rows are converted was taken for a dropped column, and the whole table was copied again."""
    database.execute(fill(1, 3))
    lake.crash("claim")

    def fails(self, query, label):
        raise KeyError("title")

    monkeypatch.setattr(Source, "read_sent", fails)
    with pytest.raises(KeyError):
        lake.tick()
    monkeypatch.undo()

    lake.drain()

    assert lake.recorded["movie"].generation == 0
    assert lake.compare() == SAME


def test_recovery_finds_a_newest_object_that_is_years_old(lake, database):
    """Otherwise a table that was quiet for years would be copied again."""
    for number, year in enumerate([2019, 2020, 2021, 2022]):
        database.execute(fill(number, number))
        lake.tick(now=lambda year=year: datetime(year, 6, 1, tzinfo=UTC))
    lake.forget()
    database.execute(fill(9, 9))

    assert lake.tick().row_counts == [1]
    assert lake.compare() == SAME


def test_a_missing_object_after_the_recorded_one_stops_the_table(lake, database):
    """The loss of its rows would otherwise go unnoticed."""
    database.execute(fill(1, 3))
    older = lake.tick().watermark
    for number in range(4, 7):
        database.execute(fill(number, number))
        lake.tick()
    lake.store.delete(lake.keys()[2])
    lake.recorded["movie"] = older

    with pytest.raises(LakeDamaged, match="does not continue the watermark of movie"):
        lake.tick()
