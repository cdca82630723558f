"""Verifying a past day: missing objects are found, and written again with the rows that are still current."""

import dataclasses
import io
import itertools
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from pg_bronze.errors import HistoryChanged
from pg_bronze.lake import footer_reader
from pg_bronze.postgres.control_table import Control
from pg_bronze.sync.state_changes import reset
from pg_bronze.sync.verify_day import verify_day
from pg_bronze_tests.harness.lake import MOVIE, SAME, Lake, fill
from pg_bronze_tests.harness.repetitions import combinations

FIRST = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
DAYS = [(FIRST + timedelta(days=number)) for number in range(4)]


@pytest.fixture
def lake(database, bucket) -> Lake:
    """Four days with two objects each."""
    database.execute(MOVIE)
    made = Lake(database, bucket.store())
    for number, day in enumerate(DAYS):
        for half in range(2):
            first = 20 * number + 10 * half + 1
            database.execute(fill(first, first + 9))
            made.tick(now=lambda day=day: day)
    return made


def verify(lake: Lake, day: date, table: str = "movie"):
    with lake.source() as source:
        return verify_day(lake.open(source, table), lake.recorded[table], day)


def of_day(lake: Lake, day: datetime) -> list[str]:
    keys = lake.keys()
    return [key for key in keys if f"_{day:%Y%m%d}" in key]


def test_a_complete_day_is_reported_as_complete(lake):
    report = verify(lake, DAYS[1].date())

    assert (report.object_count, report.repaired, report.lost) == (2, (), ())
    assert report.sentence == "verified movie for 2026-01-03: 2 objects present"


@pytest.mark.parametrize("which, day", combinations([0, 1], [1, 2]))
def test_a_missing_object_is_written_again(lake, day, which):
    key = of_day(lake, DAYS[day])[which]
    lake.store.delete(key)
    before = dict(lake.recorded)

    report = verify(lake, DAYS[day].date())

    assert (report.repaired, report.lost, report.row_count) == ((key,), (), 10)
    assert lake.compare() == SAME
    footer = lake.footers()[lake.keys().index(key)]
    assert footer.repaired
    assert footer.after.key == key
    assert lake.recorded == before
    assert verify(lake, DAYS[day].date()).repaired == ()


def test_the_chain_of_footers_continues_through_a_repaired_object(lake, database):
    """The watermark must be found from the footers, or the table stops."""
    key = of_day(lake, DAYS[2])[1]
    lake.store.delete(key)
    verify(lake, DAYS[2].date())
    lake.forget()
    database.execute(fill(200, 201))

    lake.drain()

    assert lake.compare() == SAME


def test_two_missing_objects_in_a_row_are_written_as_one(lake):
    for key in of_day(lake, DAYS[1]):
        lake.store.delete(key)

    report = verify(lake, DAYS[1].date())

    assert report.row_count == 20
    assert lake.compare() == SAME
    assert [footer.before.seq + 1 for footer in lake.footers()] == [footer.after.seq for footer in lake.footers()]


def test_a_missing_first_object_is_written_again(lake):
    key = of_day(lake, DAYS[0])[0]
    lake.store.delete(key)

    report = verify(lake, DAYS[0].date())

    assert report.repaired == (key,)
    assert lake.compare() == SAME


def test_a_missing_object_a_month_after_the_one_before_is_written_again(database, bucket):
    """The object before is in no listing of the days around it."""
    database.execute(MOVIE)
    lake = Lake(database, bucket.store())
    days = [FIRST + timedelta(days=day) for day in (0, 1, 40, 80)]
    for number, day in enumerate(days):
        database.execute(fill(10 * number, 10 * number + 9))
        lake.tick(now=lambda day=day: day)
    lake.store.delete(lake.keys()[2])

    report = verify(lake, days[2].date())

    assert report.row_count == 10
    assert lake.compare() == SAME


def test_overwritten_and_deleted_versions_are_not_counted_as_repaired(lake, database):
    key = of_day(lake, DAYS[1])[0]  # films 21 to 30
    lake.store.delete(key)
    database.execute("update movie set title = 'later' where movie_id = 21; delete from movie where movie_id = 22")
    lake.drain(now=lambda: DAYS[3])

    report = verify(lake, DAYS[1].date())

    assert report.row_count == 8
    assert lake.compare() == SAME


def test_a_missing_object_of_a_table_created_again_is_reported_lost(lake, database):
    key = of_day(lake, DAYS[1])[0]
    lake.store.delete(key)
    lake.database.execute("alter table movie rename to former;" + MOVIE)

    report = verify(lake, DAYS[1].date())

    assert (report.repaired, report.lost) == ((), (key,))
    assert "1 missing and cannot be read again" in report.sentence


@pytest.fixture
def seeded(database, bucket):
    """Three days of a table that was taken over: film 1 is below the seed, and each day brings a late row."""
    database.execute(MOVIE)
    with database.connect() as connection:
        lake = Lake(database, bucket.store(), control=Control(connection))
        database.execute("insert into movie values (1, 'a', '2024-01-01', 1), (2, 'b', '2024-03-01', 1)")
        database.execute(
            "create table etl_control (table_name varchar(255) primary key, last_extracted_value varchar(255), "
            "last_extracted_at timestamp, tracking_column varchar(255));"
            "insert into etl_control values ('movie', '2024-02-01', now(), 'updated_at')"
        )
        for number, day in enumerate(DAYS[:3]):
            lake.tick(now=lambda day=day: day, takeover="adopt-seed")
            database.execute(f"insert into movie values ({10 + number}, 'late', '2020-01-01', 1)")
        yield lake


def test_a_repair_in_a_seeded_table_is_not_bounded_by_the_seed(seeded):
    """The seed bounds the first load only; a late row with an old time belongs to a later window."""
    key = of_day(seeded, DAYS[1])[0]
    seeded.store.delete(key)

    report = verify(seeded, DAYS[1].date())

    assert report.row_count == 1
    assert seeded.column() == [2, 10, 11]


def test_a_first_load_bounded_by_a_dropped_column_is_reported_lost(seeded, database):
    """Verification of the day would otherwise fail with an unexpected KeyError at every attempt."""
    key = of_day(seeded, DAYS[0])[0]
    seeded.store.delete(key)
    database.execute("alter table movie drop updated_at")

    report = verify(seeded, DAYS[0].date())

    assert (report.repaired, report.lost) == ((), (key,))


def test_a_missing_object_of_a_partitioned_table_is_written_again(database, bucket):
    database.execute(
        "create table sale (sale_id int, region int) partition by list (region);"
        "create table sale_1 partition of sale for values in (1);"
        "create table sale_2 partition of sale for values in (2)"
    )
    lake = Lake(database, bucket.store())
    for number, day in enumerate(DAYS):
        database.execute(f"insert into sale select {10 * number} + i, 1 + i % 2 from generate_series(1, 6) i")
        lake.tick("sale", now=lambda day=day: day)
    key = next(key for key in lake.keys("sale") if "20260104" in key)
    lake.store.delete(key)

    report = verify(lake, DAYS[2].date(), "sale")

    assert report.row_count == 6
    assert lake.compare("sale", key="sale_id") == SAME


@pytest.mark.parametrize("which", [0, 1, -1])
def test_a_missing_block_range_of_a_first_load_is_written_again(database, bucket, which):
    """Most objects of a large table's first day are block ranges."""
    database.execute(MOVIE + ";" + fill(1, 3000))
    lake = Lake(database, bucket.store())
    lake.drain(now=lambda: FIRST, slice_rows=1000)
    database.execute(fill(3001, 3010))
    lake.tick(now=lambda: FIRST + timedelta(days=1))
    keys = of_day(lake, FIRST)
    assert len(keys) >= 3
    lake.store.delete(keys[which])

    report = verify(lake, FIRST.date())

    assert (report.repaired, report.lost) == ((keys[which],), ())
    assert lake.compare() == SAME


def test_a_missing_block_range_of_a_rewritten_table_is_reported_lost(database, bucket):
    """Its blocks contain other rows now, and those would be in the lake twice."""
    database.execute(f"{MOVIE}; {fill(1, 3000)}")
    lake = Lake(database, bucket.store())
    lake.drain(now=lambda: FIRST, slice_rows=1000)
    database.execute(fill(3001, 3010))
    lake.tick(now=lambda: FIRST + timedelta(days=1))
    key = of_day(lake, FIRST)[1]
    lake.store.delete(key)
    database.execute("delete from movie where movie_id < 500")
    database.execute("vacuum full movie")

    report = verify(lake, FIRST.date())

    assert (report.repaired, report.lost) == ((), (key,))


COLUMNS = ["movie_id", "title", "updated_at", "price", "_pg_xid"]


def frame_at(lake: Lake, key: str) -> pl.DataFrame:
    return pl.read_parquet(io.BytesIO(lake.store.get(key)))


@pytest.mark.parametrize("which", [0, 1])
def test_a_repaired_object_has_the_columns_of_the_missing_one(lake, database, which):
    """The watermarks around it refer to these columns. Others would be read wrongly."""
    key = of_day(lake, DAYS[1])[which]
    whole = frame_at(lake, key)
    lake.store.delete(key)
    database.execute(
        "alter table movie drop price; alter table movie rename title to name;"
        "alter table movie alter name type varchar; alter table movie add price int default 7"
    )
    database.execute("insert into movie values (100, 'a', now(), 1)")
    lake.drain(now=lambda: DAYS[3])

    report = verify(lake, DAYS[1].date())

    assert report.row_count == 10
    repaired = frame_at(lake, key)
    assert repaired.schema == whole.schema
    assert repaired.drop("price").equals(whole.drop("price"))
    assert repaired["price"].to_list() == [None] * 10
    footer = lake.footers()[lake.keys().index(key)]
    assert footer.after.columns_digest == footer.described.digest


def test_a_column_whose_type_cannot_be_cast_back_does_not_prevent_the_repair(lake, database):
    """All rows have new versions, so the window is empty, but the query must still be valid."""
    key = of_day(lake, DAYS[1])[0]
    lake.store.delete(key)
    database.execute("alter table movie alter updated_at drop default, alter updated_at type point using point(0, 0)")
    lake.drain(now=lambda: DAYS[3])

    assert verify(lake, DAYS[1].date()).row_count == 0
    assert frame_at(lake, key).columns == COLUMNS


def test_a_repaired_object_whose_columns_are_unknown_gets_the_current_ones(database, bucket):
    """The missing object was the only one with its columns. The footer must describe the columns that were written."""
    database.execute(MOVIE)
    lake = Lake(database, bucket.store())
    for number, day in enumerate(DAYS):
        database.execute(f"alter table movie add extra_{number} int; insert into movie (movie_id) values ({number})")
        lake.tick(now=lambda day=day: day)
    key = lake.keys()[1]
    lake.store.delete(key)
    database.execute("alter table movie rename extra_1 to one")

    report = verify(lake, DAYS[1].date())

    assert report.repaired == (key,)
    footer = lake.footers()[1]
    names = [*COLUMNS[:-1], "extra_0", "one", "extra_2", "extra_3"]
    assert [column["name"] for column in footer.columns] == names
    assert frame_at(lake, key).columns == [*names, "_pg_xid"]
    assert footer.after.columns_digest == footer.described.digest
    assert lake.column() == [0, 1, 2, 3]


@pytest.mark.parametrize("apart", [1, 2])
def test_two_missing_objects_with_the_same_columns_get_the_same_columns(database, bucket, apart):
    """If they are two days apart, the first object with these columns is not among the footers of the day."""
    database.execute(MOVIE)
    lake = Lake(database, bucket.store())
    days = [FIRST + timedelta(days=apart * number) for number in range(4)]
    for number, day in enumerate(days):
        if number in (1, 3):
            database.execute(f"alter table movie add extra_{number} int")
        database.execute(f"insert into movie (movie_id) values ({number})")
        lake.tick(now=lambda day=day: day)
    keys = lake.keys()
    first = lake.store.get(keys[1])
    for key in keys[1:3]:
        lake.store.delete(key)
    database.execute("alter table movie rename extra_1 to one")

    verify(lake, days[2].date())
    database.execute("alter table movie rename one to uno")
    lake.store.delete(keys[2])
    lake.store.create(keys[1], first)
    verify(lake, days[2].date())

    assert frame_at(lake, keys[2]).columns == frame_at(lake, keys[1]).columns == [*COLUMNS[:-1], "extra_1", "_pg_xid"]


def test_the_objects_of_a_former_generation_are_not_missing(lake):
    """They were moved away by the reset. Verification would report them as lost at every attempt."""
    lake.tick(act=reset, now=lambda: DAYS[3])
    lake.drain(now=lambda: DAYS[3])

    report = verify(lake, DAYS[3].date())

    assert (report.repaired, report.lost) == ((), ())


def test_a_missing_object_is_not_written_again_into_a_restored_database(lake):
    """Its window would be read from rows of another history."""
    lake.store.delete(of_day(lake, DAYS[1])[0])
    recorded = lake.recorded["movie"]
    lake.recorded["movie"] = dataclasses.replace(recorded, origin=dataclasses.replace(recorded.origin, timeline=9))

    with pytest.raises(HistoryChanged):
        verify(lake, DAYS[1].date())


def test_a_bounded_number_of_footers_is_read_ahead(lake):
    """A busy table has 8,640 objects a day, and their footers take hundreds of megabytes."""
    taken = []
    endless = (taken.append(key) or key for key in itertools.cycle(lake.keys()))

    (key, footer), *_ = itertools.islice(footer_reader.read_many(lake.store, endless), 1)

    assert (key, footer.after.key) == (lake.keys()[0], lake.keys()[0])
    assert len(taken) <= footer_reader.AHEAD
