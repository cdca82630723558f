"""Taking over from the original system: its traces are there, and somebody has to say what they mean."""

import dataclasses
import io
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import polars as pl
import pytest

from pg_bronze.errors import LakeDamaged, SettingsError, TakeoverUndecided
from pg_bronze.lake.object_store import Store
from pg_bronze.postgres.control_table import Control
from pg_bronze.sync import state_changes
from pg_bronze_tests.harness.lake import MOVIE, SAME, Lake, clock, fill

THEIRS = "movie/movie_20240101000000.parquet"
ROWS = """insert into movie
values (1, 'a', '2024-01-01', 1), (2, 'b', '2024-02-01', 1), (3, 'c', '2024-03-01', 1), (4, 'd', null, 1)"""


@pytest.fixture
def lake(database, bucket):
    database.execute(MOVIE)
    database.execute(ROWS)
    with database.connect() as connection:
        yield Lake(database, bucket.store(), control=Control(connection))


def their_object(lake: Lake, key: str = THEIRS) -> str:
    buffer = io.BytesIO()
    pl.DataFrame({"movie_id": [1, 2]}).write_parquet(buffer)
    assert lake.store.create(key, buffer.getvalue())
    return key


def their_row(database, value: str = "2024-02-01 00:00:00+00", column: str = "updated_at") -> None:
    database.execute(
        "create table etl_control (table_name varchar(255) primary key, last_extracted_value varchar(255), "
        "last_extracted_at timestamp default current_timestamp, tracking_column varchar(255));"
        f"insert into etl_control values ('movie', '{value}', default, '{column}')"
    )


def test_their_objects_without_ours_stop_the_table_and_name_both_ways(lake):
    """Copied from the start, rows would be there twice; continued from a guess, some never."""
    their_object(lake)

    with pytest.raises(TakeoverUndecided) as caught:
        lake.tick()

    for part in (THEIRS, "adopt-seed", "fresh", "PG_BRONZE_TAKEOVER"):
        assert part in str(caught.value)
    assert lake.all_keys() == [THEIRS]


def test_a_control_row_before_an_empty_bucket_stops_the_table(lake, database):
    """Most likely the bucket's name is wrong."""
    their_row(database)

    with pytest.raises(TakeoverUndecided, match=r"etl_control has a row.*MINIO_BUCKET.*fresh.*adopt-seed"):
        lake.tick()

    assert lake.all_keys() == []


def test_an_empty_control_row_is_no_trace(lake, database):
    their_row(database)
    database.execute("update etl_control set last_extracted_value = null")

    assert lake.tick().row_counts == [4]


def test_fresh_copies_the_whole_table_beside_their_objects(lake, database):
    their_object(lake)
    their_row(database)

    lake.tick(takeover="fresh")
    database.execute(fill(10, 11))
    lake.tick(takeover="fresh")

    assert lake.compare() == SAME
    assert THEIRS in lake.all_keys()
    assert lake.keys()[0] == THEIRS


def test_adopt_seed_leaves_out_what_lies_at_or_below_the_control_rows_value(lake, database):
    their_object(lake)
    their_row(database)

    outcome = lake.tick(takeover="adopt-seed")

    assert outcome.row_count == 2
    assert lake.column() == [3, 4]  # above it, and NULL, which a cursor never copies


@pytest.mark.parametrize("forgotten", [False, True])
def test_after_a_seeded_load_late_and_old_rows_are_copied_as_ever(lake, database, forgotten):
    """The seed bounds the first load only: it must not go on filtering."""
    their_row(database)
    lake.tick(takeover="adopt-seed")
    database.execute(
        "insert into movie values (5, 'e', '1999-01-01', 1); update movie set title = 'A' where movie_id = 1"
    )
    if forgotten:
        lake.forget()

    lake.drain(takeover="adopt-seed")

    assert lake.column() == [1, 3, 4, 5]


@pytest.mark.parametrize("step", ["claim", "unclaim"])
@pytest.mark.parametrize("forgotten", [False, True])
def test_a_crash_in_a_seeded_load_of_many_slices_keeps_the_seed(lake, database, step, forgotten):
    """Forgetting it in the middle would copy rows the original system has copied."""
    database.execute(
        "insert into movie select i, 'f', timestamptz '2025-01-01' + i * interval '1 minute', 1 "
        "from generate_series(10, 4000) i"
    )
    their_row(database, "2025-01-02 00:00:00+00")
    lake.crash(step, slice_rows=500, takeover="adopt-seed")
    if forgotten:
        lake.forget()
    database.execute("update etl_control set last_extracted_value = '2025-01-01 12:00:00+00'")

    lake.drain(slice_rows=500, takeover="adopt-seed")

    wanted = database.execute(
        "select movie_id from movie where (updated_at <= '2025-01-02 00:00:00+00') is not true order by 1"
    )
    assert lake.column() == [movie_id for (movie_id,) in wanted]


@pytest.mark.parametrize("takeover", ["fresh", "adopt-seed"])
@pytest.mark.parametrize("forgotten", [False, True])
def test_the_original_system_still_running_beside_us_stops_the_table_with_the_reason(
    lake, database, takeover, forgotten
):
    """Both would copy what is new from now on, and whoever reads the folder gets every row twice."""
    their_row(database)
    lake.tick(takeover=takeover, now=clock())
    ours = lake.all_keys()
    theirs = their_object(lake, "movie/movie_20260102000100.parquet")
    database.execute(fill(10, 11))
    if forgotten:
        lake.forget()

    with pytest.raises(LakeDamaged, match=rf"{theirs} is not an object of pg_bronze.*the original system.*Stop it"):
        lake.tick(takeover=takeover, now=clock())

    assert lake.all_keys() == [*ours, theirs]


class Clocked(Store):
    """A bucket whose server writes at the times in ``written``; a real server's clock cannot be set."""

    written: ClassVar[dict[str, datetime]] = {}

    def list(self, prefix, start_after=""):
        for item in super().list(prefix, start_after):
            yield dataclasses.replace(item, modified=self.written.get(item.key, item.modified))


NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


@pytest.fixture
def clocked(lake, monkeypatch):
    """A lake where ``write_at`` and ``their_object_at`` say how many hours after noon ours and theirs are written."""
    lake.store = Clocked(lake.store.client, lake.store.bucket)
    monkeypatch.setattr(Clocked, "written", {})
    return lake


def write_at(lake: Lake, hours: float, late: float = 0) -> None:
    """A tick at that time; what it writes is there ``late`` hours later."""
    before = lake.all_keys()
    at = NOON + timedelta(hours=hours)
    lake.tick(takeover="fresh", now=lambda: at)
    lake.store.written.update(dict.fromkeys(set(lake.all_keys()) - set(before), at + timedelta(hours=late)))


def their_object_at(lake: Lake, hours: float, west: float) -> str:
    at = NOON + timedelta(hours=hours)
    key = their_object(lake, f"movie/movie_{at - timedelta(hours=west):%Y%m%d%H%M%S}.parquet")
    lake.store.written[key] = at
    return key


@pytest.mark.parametrize("forgotten", [False, True])
@pytest.mark.parametrize("west", [0.5, 12])
def test_the_original_system_beside_us_is_seen_wherever_its_clock_is(clocked, database, west, forgotten):
    """It names its objects in local time: west of UTC they look older than ours, and every row would be there twice."""
    their_object_at(clocked, -0.01, west)
    write_at(clocked, 0)
    database.execute(fill(10, 11))
    write_at(clocked, 1)
    theirs = their_object_at(clocked, 1.01, west)
    ours = clocked.all_keys()
    assert clocked.tick(takeover="fresh", now=lambda: NOON + timedelta(hours=1.2)).quiet, "nothing to write, no look"
    database.execute(fill(12, 13))
    if forgotten:
        clocked.forget()

    with pytest.raises(LakeDamaged, match=rf"{theirs} is not an object of pg_bronze.*the original system.*Stop it"):
        write_at(clocked, 1.4)

    assert clocked.all_keys() == ours


def test_what_was_there_before_us_or_is_late_is_nobody_beside_us(clocked, database):
    """Names and times differ where the original had just ended, where a slice was done again, and between clocks."""
    for hours in (-3, -0.1, -0.01):
        their_object_at(clocked, hours, west=5)
    for hours, late in ((0, 0), (1, 0.1), (2, 0.7), (3, 0.1), (20, 0)):
        database.execute(fill(100 + 10 * hours, 101 + 10 * hours))
        write_at(clocked, hours, late)

    assert len(clocked.keys()) == 5 + 3
    assert clocked.compare() == SAME


def test_a_reset_after_a_seeded_load_copies_the_whole_table(lake, database):
    """Somebody who doubts the seed resets the table; with the seed kept, the same rows would be missing again."""
    their_row(database)
    lake.tick(takeover="adopt-seed")

    lake.tick(act=state_changes.reset, takeover="adopt-seed")
    lake.drain(takeover="adopt-seed")

    assert lake.compare() == SAME


def test_adopt_seed_works_for_numbers_too(lake, database):
    their_row(database, "2", "movie_id")

    lake.tick(takeover="adopt-seed")

    assert lake.column() == [3, 4]


@pytest.mark.parametrize(
    "value, column, found",
    [
        ("not a time", "updated_at", "the value in etl_control is not a timestamp with time zone"),
        ("2024-01-01", "gone", "etl_control has no value and column of this table"),
    ],
    ids=["no time", "no such column"],
)
def test_a_control_row_that_fits_no_column_is_an_error(lake, database, value, column, found):
    their_row(database, value, column)

    with pytest.raises(SettingsError, match=found):
        lake.tick(takeover="adopt-seed")


def test_adopt_seed_without_a_control_row_is_an_error(lake):
    their_object(lake)

    with pytest.raises(SettingsError, match="Set takeover to fresh"):
        lake.tick(takeover="adopt-seed")


def test_a_value_in_the_control_row_is_text_and_never_sql(lake, database):
    their_row(database, "2024-01-01'' or true --")

    with pytest.raises(SettingsError):
        lake.tick(takeover="adopt-seed")

    assert lake.all_keys() == []
