"""Taking over from the original system, which left objects or a control row."""

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
from pg_bronze_tests.harness.repetitions import combinations

FOREIGN = "movie/movie_20240101000000.parquet"
ROWS = """insert into movie
values (1, 'a', '2024-01-01', 1), (2, 'b', '2024-02-01', 1), (3, 'c', '2024-03-01', 1), (4, 'd', null, 1)"""


@pytest.fixture
def lake(database, bucket):
    database.execute(MOVIE)
    database.execute(ROWS)
    with database.connect() as connection:
        yield Lake(database, bucket.store(), control=Control(connection))


def foreign_object(lake: Lake, key: str = FOREIGN) -> str:
    buffer = io.BytesIO()
    pl.DataFrame({"movie_id": [1, 2]}).write_parquet(buffer)
    assert lake.store.create(key, buffer.getvalue())
    return key


def control_row(database, value: str = "2024-02-01 00:00:00+00", column: str = "updated_at") -> None:
    database.execute(
        "create table etl_control (table_name varchar(255) primary key, last_extracted_value varchar(255), "
        "last_extracted_at timestamp default current_timestamp, tracking_column varchar(255));"
        f"insert into etl_control values ('movie', '{value}', default, '{column}')"
    )


def test_objects_of_the_original_system_stop_the_table_and_both_settings_are_named(lake):
    """A full copy would double rows; a guess where to continue would lose some."""
    foreign_object(lake)

    with pytest.raises(TakeoverUndecided) as caught:
        lake.tick()

    for part in (FOREIGN, "adopt-seed", "fresh", "PG_BRONZE_TAKEOVER"):
        assert part in str(caught.value)
    assert lake.all_keys() == [FOREIGN]


def test_a_control_row_and_an_empty_bucket_stop_the_table(lake, database):
    """The bucket's name is probably wrong."""
    control_row(database)

    with pytest.raises(TakeoverUndecided, match=r"etl_control has a row.*MINIO_BUCKET.*fresh.*adopt-seed"):
        lake.tick()

    assert lake.all_keys() == []


def test_a_control_row_without_a_value_does_not_stop_the_table(lake, database):
    control_row(database)
    database.execute("update etl_control set last_extracted_value = null")

    assert lake.tick().row_counts == [4]


def test_fresh_copies_the_whole_table_beside_foreign_objects(lake, database):
    foreign_object(lake)
    control_row(database)

    lake.tick(takeover="fresh")
    database.execute(fill(10, 11))
    lake.tick(takeover="fresh")

    assert lake.compare() == SAME
    assert FOREIGN in lake.all_keys()
    assert lake.keys()[0] == FOREIGN


def test_adopt_seed_leaves_out_rows_up_to_the_control_rows_value(lake, database):
    foreign_object(lake)
    control_row(database)

    outcome = lake.tick(takeover="adopt-seed")

    assert outcome.row_count == 2
    assert lake.column() == [3, 4]  # above the value, and NULL, which a cursor never copies


@pytest.mark.parametrize("forgotten", [False, True])
def test_after_a_seeded_load_late_and_updated_rows_are_copied(lake, database, forgotten):
    """The seed bounds the first load only. If it filtered later windows, rows would be lost."""
    control_row(database)
    lake.tick(takeover="adopt-seed")
    database.execute(
        "insert into movie values (5, 'e', '1999-01-01', 1); update movie set title = 'A' where movie_id = 1"
    )
    if forgotten:
        lake.forget()

    lake.drain(takeover="adopt-seed")

    assert lake.column() == [1, 3, 4, 5]


@pytest.mark.parametrize("step, forgotten", combinations(["claim", "unclaim"], [False, True]))
def test_a_crash_in_a_seeded_load_of_several_slices_keeps_the_seed(lake, database, step, forgotten):
    """Without the seed, rows that the original system has copied would be copied again."""
    database.execute(
        "insert into movie select i, 'f', timestamptz '2025-01-01' + i * interval '1 minute', 1 "
        "from generate_series(10, 4000) i"
    )
    control_row(database, "2025-01-02 00:00:00+00")
    lake.crash(step, slice_rows=500, takeover="adopt-seed")
    if forgotten:
        lake.forget()
    database.execute("update etl_control set last_extracted_value = '2025-01-01 12:00:00+00'")

    lake.drain(slice_rows=500, takeover="adopt-seed")

    expected = database.execute(
        "select movie_id from movie where (updated_at <= '2025-01-02 00:00:00+00') is not true order by 1"
    )
    assert lake.column() == [movie_id for (movie_id,) in expected]


@pytest.mark.parametrize("takeover", ["fresh", "adopt-seed"])
@pytest.mark.parametrize("forgotten", [False, True])
def test_objects_that_the_original_system_still_writes_stop_the_table(lake, database, takeover, forgotten):
    """Both systems would copy new rows, and a reader of the folder would receive every row twice."""
    control_row(database)
    lake.tick(takeover=takeover, now=clock())
    own = lake.all_keys()
    foreign = foreign_object(lake, "movie/movie_20260102000100.parquet")
    database.execute(fill(10, 11))
    if forgotten:
        lake.forget()

    with pytest.raises(LakeDamaged, match=rf"{foreign} is not an object of pg_bronze.*the original system.*Stop it"):
        lake.tick(takeover=takeover, now=clock())

    assert lake.all_keys() == [*own, foreign]


class Clocked(Store):
    """A bucket whose objects were written at the times in ``written``; the clock of a real server cannot be set."""

    written: ClassVar[dict[str, datetime]] = {}

    def list(self, prefix, start_after=""):
        for item in super().list(prefix, start_after):
            yield dataclasses.replace(item, modified=self.written.get(item.key, item.modified))


NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


@pytest.fixture
def clocked(lake, monkeypatch):
    """A lake in which ``write_at`` and ``foreign_object_at`` set when objects are written, in hours after noon."""
    lake.store = Clocked(lake.store.client, lake.store.bucket)
    monkeypatch.setattr(Clocked, "written", {})
    return lake


def write_at(lake: Lake, hours: float, late: float = 0) -> None:
    """Run a tick at a time; its objects are written ``late`` hours later."""
    before = lake.all_keys()
    at = NOON + timedelta(hours=hours)
    lake.tick(takeover="fresh", now=lambda: at)
    lake.store.written.update(dict.fromkeys(set(lake.all_keys()) - set(before), at + timedelta(hours=late)))


def foreign_object_at(lake: Lake, hours: float, west: float) -> str:
    at = NOON + timedelta(hours=hours)
    key = foreign_object(lake, f"movie/movie_{at - timedelta(hours=west):%Y%m%d%H%M%S}.parquet")
    lake.store.written[key] = at
    return key


@pytest.mark.parametrize("forgotten", [False, True])
@pytest.mark.parametrize("west", [0.5, 12])
def test_the_original_system_is_noticed_in_any_time_zone(clocked, database, west, forgotten):
    """It names its objects in local time. West of UTC they sort before new objects, and every row would be doubled."""
    foreign_object_at(clocked, -0.01, west)
    write_at(clocked, 0)
    database.execute(fill(10, 11))
    write_at(clocked, 1)
    foreign = foreign_object_at(clocked, 1.01, west)
    own = clocked.all_keys()
    assert clocked.tick(takeover="fresh", now=lambda: NOON + timedelta(hours=1.2)).quiet, "older keys are not listed"
    database.execute(fill(12, 13))
    if forgotten:
        clocked.forget()

    with pytest.raises(LakeDamaged, match=rf"{foreign} is not an object of pg_bronze.*the original system.*Stop it"):
        write_at(clocked, 1.4)

    assert clocked.all_keys() == own


def test_old_foreign_objects_and_late_own_objects_stop_nothing(clocked, database):
    """Key and modification time also differ after a takeover, after a redo, and between two clocks."""
    for hours in (-3, -0.1, -0.01):
        foreign_object_at(clocked, hours, west=5)
    for hours, late in ((0, 0), (1, 0.1), (2, 0.7), (3, 0.1), (20, 0)):
        database.execute(fill(100 + 10 * hours, 101 + 10 * hours))
        write_at(clocked, hours, late)

    assert len(clocked.keys()) == 5 + 3
    assert clocked.compare() == SAME


def test_a_reset_after_a_seeded_load_copies_the_whole_table(lake, database):
    """A reset is the remedy for a wrong seed. If the seed remained, the same rows would be missing again."""
    control_row(database)
    lake.tick(takeover="adopt-seed")

    lake.tick(act=state_changes.reset, takeover="adopt-seed")
    lake.drain(takeover="adopt-seed")

    assert lake.compare() == SAME


def test_adopt_seed_accepts_a_number(lake, database):
    control_row(database, "2", "movie_id")

    lake.tick(takeover="adopt-seed")

    assert lake.column() == [3, 4]


@pytest.mark.parametrize(
    "value, column, found",
    [
        ("not a time", "updated_at", "the value in etl_control is not a timestamp with time zone"),
        ("2024-01-01", "gone", "etl_control has no row with a value and a column of this table"),
    ],
    ids=["no time", "no such column"],
)
def test_a_control_row_that_fits_no_column_stops_the_table(lake, database, value, column, found):
    control_row(database, value, column)

    with pytest.raises(SettingsError, match=found):
        lake.tick(takeover="adopt-seed")


def test_adopt_seed_without_a_control_row_stops_the_table(lake):
    foreign_object(lake)

    with pytest.raises(SettingsError, match="Set it to fresh"):
        lake.tick(takeover="adopt-seed")


def test_the_value_of_a_control_row_is_never_executed_as_sql(lake, database):
    control_row(database, "2024-01-01'' or true --")

    with pytest.raises(SettingsError):
        lake.tick(takeover="adopt-seed")

    assert lake.all_keys() == []
