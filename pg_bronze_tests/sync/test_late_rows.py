"""The number of rows and late rows that a watermark carries: exact after crashes, other writers and a reset."""

from dataclasses import replace

import pytest

from pg_bronze.core.row_counts import RowCounts
from pg_bronze.sync import state_changes
from pg_bronze_tests.harness.lake import FORCED_BANDS, MOVIE, SAME, Lake, NoLock, fill, once_after


@pytest.fixture
def lake(database, bucket) -> Lake:
    database.execute(f"{MOVIE}; {fill(1, 5)}")
    made = Lake(database, bucket.store())
    made.tick()
    return made


def counts(lake: Lake) -> tuple[int | None, int | None]:
    """Return rows and late rows of the last watermark, and check the rows against the objects in the bucket."""
    watermark = lake.recorded["movie"]
    assert watermark is not None
    assert watermark.counts is not None
    assert watermark.counts.rows == watermark.counts.day_rows == lake.rows().height
    assert lake.compare() == SAME
    return watermark.counts.rows, watermark.counts.late


def test_a_transaction_that_commits_late_is_counted_and_so_are_updates_and_nulls(lake, database):
    """This is what a copy by ``updated_at > last`` loses; the number is the reason to use this one."""
    database.execute(fill(6, 6))
    with database.connect(autocommit=False) as late:
        late.execute(fill(7, 8))
        database.execute(fill(9, 10))
        assert lake.tick().row_count == 1  # a copy by a column would have seen 9 and 10 now
        database.execute(fill(11, 11))
    [outcome] = [outcome for outcome in lake.drain() if outcome.committed]
    assert (outcome.row_count, outcome.committed[0].late_row_count) == (5, 2)

    database.execute("update movie set title = 'same time' where movie_id <= 3")
    database.execute("update movie set updated_at = clock_timestamp() where movie_id = 4")
    database.execute("insert into movie values (12, 'never', null)")
    lake.tick()
    assert counts(lake) == (16, 6)


@pytest.mark.parametrize("step", ["claim", "put"])
def test_totals_are_exact_after_a_crash_and_in_a_rebuild_from_the_bucket(lake, database, step):
    """A claim counts rows that are not current any more when another writer reads them again."""
    database.execute("update movie set title = 'late' where movie_id <= 3")
    assert lake.crash(step)
    database.execute("update movie set updated_at = clock_timestamp() where movie_id = 3")
    other = Lake(database, lake.store, dict(lake.recorded))
    other.drain()
    assert counts(other) == ({"claim": 8, "put": 9}[step], {"claim": 2, "put": 3}[step])
    rebuilt = Lake(database, lake.store)
    rebuilt.tick()
    assert rebuilt.recorded == other.recorded


def test_totals_are_exact_if_another_writer_commits_first(lake, database):
    other = Lake(database, lake.store, dict(lake.recorded), sync_class=NoLock)
    database.execute("update movie set title = 'late' where movie_id <= 3")
    lake.sync_class = NoLock
    lake.tick(crash_at=once_after("read", other.tick))
    database.execute(fill(6, 6))
    lake.drain()
    assert counts(lake) == (9, 3)


def test_a_window_of_many_slices_in_any_order_has_no_late_row(lake, database):
    """Its rows would be compared with those of the slice before."""
    database.execute(
        "insert into movie select i, 'x', now() - i * interval '1 s' + '1 h' from generate_series(6, 2000) i"
    )
    assert len(lake.tick(slice_rows=300).committed) > 3
    assert counts(lake) == (2000, 0)


def test_rows_that_a_sweep_finds_are_compared_with_what_was_seen_before_them(lake, database):
    database.execute("create index on movie (updated_at)")
    lake.bands = FORCED_BANDS
    for first in range(6, 66, 20):
        database.execute(fill(first, first + 19))
        lake.drain()
    assert counts(lake)[1] == 0
    database.execute("update movie set title = 'old' where movie_id <= 2")
    lake.drain()
    assert counts(lake) == (67, 2)


def test_a_reset_begins_at_zero_and_an_older_lake_continues_without_totals(lake, database):
    watermark = lake.recorded["movie"]
    assert watermark is not None
    lake.recorded["movie"] = replace(watermark, counts=None)
    database.execute(f"{fill(6, 6)}; update movie set title = 'late' where movie_id = 1")
    lake.tick()
    assert lake.recorded["movie"].counts == RowCounts(None, None, 1)
    lake.tick(act=state_changes.reset)
    assert lake.recorded["movie"].counts == RowCounts(0, 0, 0)
    lake.tick()
    assert counts(lake) == (6, 0)
