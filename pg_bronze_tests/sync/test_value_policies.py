"""Values that the Parquet type of their column cannot hold, copied from a real table."""

import json

import polars as pl
import pytest

import pg_bronze
from pg_bronze.core.value_policies import DATE_INFINITY, TIMESTAMP_INFINITY, ExceptionalCount, Policies
from pg_bronze.errors import DataError
from pg_bronze.settings.load import load_settings
from pg_bronze.sync import slice_reader, state_changes
from pg_bronze_tests.harness.lake import Lake

PRICES = """create table movie (
  movie_id int primary key, price numeric(10,2), born date, seen timestamptz, rated float8
);
insert into movie values (1, 1.50, '2024-02-29', '2024-02-29 12:00+00', 'NaN')"""


@pytest.fixture
def lake(database, bucket) -> Lake:
    database.execute(PRICES)
    return Lake(database, bucket.store())


def values(lake: Lake, name: str) -> list:
    return lake.rows().sort("movie_id")[name].to_list()


def described(lake: Lake, name: str) -> dict:
    return next(column for column in lake.footers()[-1].columns if column["name"] == name)


def test_infinity_becomes_the_end_of_the_calendar_and_the_footer_counts_it(lake, database):
    database.execute(
        "insert into movie (movie_id, born, seen) values (2, 'infinity', '-infinity'), (3, '-infinity', 'infinity')"
    )

    outcome = lake.tick()

    frame = lake.rows().sort("movie_id")
    assert frame["born"].to_physical().to_list()[1:] == [DATE_INFINITY[1], DATE_INFINITY[0]]
    assert frame["seen"].to_physical().to_list()[1:] == list(TIMESTAMP_INFINITY)
    found = (ExceptionalCount("born", "infinity", "sentinel", 2), ExceptionalCount("seen", "infinity", "sentinel", 2))
    assert lake.footers()[0].exceptional == found
    assert outcome.committed[0].exceptional == found


@pytest.mark.parametrize(
    "column, value",
    [
        ("born", "262142-12-31"),
        ("born", "262142-12-30"),
        ("born", "5874897-12-31"),
        ("seen", "262142-12-31 23:59:59.999999+00"),
        ("seen", "294276-12-31 23:59:59.999999+00"),
    ],
)
def test_a_date_that_cannot_be_stored_exactly_stops_the_table(lake, database, column, value):
    """The last value of the calendar represents infinity, so a finite date must not be stored as it."""
    lake.tick()
    database.execute(f"insert into movie (movie_id, {column}) values (2, '{value}')")

    with pytest.raises(DataError, match=f"^movie: column '{column}' .*PG_BRONZE_LATE_DATES to text") as error:
        lake.tick()

    assert value[:10] not in str(error.value)
    assert values(lake, "movie_id") == [1]


def test_the_last_date_that_can_be_stored_is_exact(lake, database):
    database.execute(
        "insert into movie (movie_id, born, seen) values (2, '262142-12-29', '262142-12-31 23:59:59.999997+00')"
    )
    lake.tick()
    frame = lake.rows().sort("movie_id")
    assert frame["born"].to_physical()[1] == DATE_INFINITY[1] - 2
    assert frame["seen"].to_physical()[1] == TIMESTAMP_INFINITY[1] - 2
    assert lake.footers()[0].exceptional == ()


def test_the_text_policy_that_the_error_names_copies_the_rows_that_stopped_the_table(lake, database):
    """One setting must be enough, without a correction in the source."""
    lake.tick()
    database.execute("insert into movie values (2, 'NaN', '5874897-12-31', '294276-12-31 23:59:59.999999+00', 1)")
    with pytest.raises(DataError, match="PG_BRONZE_NAN"):
        lake.tick()
    with pytest.raises(DataError, match="PG_BRONZE_LATE_DATES"):
        lake.tick(policies=Policies(nan="text"))

    lake.tick(policies=Policies(nan="text", late_dates="text"))

    newest = lake.frames()[-1]
    assert newest.select("price", "born", "seen").rows() == [
        ("NaN", "5874897-12-31", "294276-12-31 23:59:59.999999+00")
    ]
    assert {item[1:3] for item in lake.footers()[-1].exceptional} == {("nan", "text"), ("late_dates", "text")}
    assert (described(lake, "price")["stored"], described(lake, "price")["policy"]) == ("String", {"nan": "text"})


def test_a_column_that_became_text_is_read_as_text_from_older_objects_too(lake, database, bucket):
    """Older objects keep their type. The watermark contains where the columns changed, and a reader unites them."""
    database.execute("insert into movie (movie_id, born) values (2, 'infinity')")
    lake.tick()
    database.execute("insert into movie values (3, 'NaN', '5874897-12-31', 'infinity')")
    lake.tick(policies=Policies(nan="text", late_dates="text"))

    settings = load_settings(bucket.environ, None, lake_only=True)
    frame = pg_bronze.scan("movie", settings=settings).collect().sort("movie_id")

    assert frame["price"].to_list() == ["1.50", None, "NaN"]
    assert frame["born"].to_list() == ["2024-02-29", "infinity", "5874897-12-31"]
    assert frame["seen"].to_list() == ["2024-02-29 12:00:00+00", None, "infinity"]
    digests = [footer.after.columns_digest for footer in lake.footers()]
    assert len(set(digests)) == len(digests) == 2


def test_policy_counts_of_an_adopted_object_are_read_from_its_footer(lake, database):
    """After a crash following the PUT, the next event would lack them."""
    lake.tick()
    database.execute("insert into movie (movie_id, born) values (2, 'infinity')")
    assert lake.crash("put")

    adopted = lake.tick().adopted

    assert [item.exceptional for item in adopted] == [(ExceptionalCount("born", "infinity", "sentinel", 1),)]


def test_the_null_policy_is_counted_and_changes_no_other_value(lake, database):
    database.execute("insert into movie values (2, 'NaN', 'infinity', '294276-12-31 00:00+00', 'NaN')")
    database.execute("insert into movie values (3)")

    lake.tick(policies=Policies("null", "null", "null"))

    frame = lake.rows().sort("movie_id")
    assert frame["price"].null_count() == frame["born"].null_count() == frame["seen"].null_count() == 2
    assert frame["price"].dtype == pl.Decimal(10, 2)
    assert frame["rated"].is_nan().to_list() == [True, True, None]
    assert lake.footers()[0].exceptional == (
        ExceptionalCount("price", "nan", "null", 1),
        ExceptionalCount("born", "infinity", "null", 1),
        ExceptionalCount("seen", "late_dates", "null", 1),
    )


def test_an_object_without_rows_has_the_types_of_the_policies(lake):
    """Otherwise the first object of a generation would have other types than the next."""
    lake.tick()
    lake.tick(act=state_changes.reset, policies=Policies(nan="text"))
    assert lake.footers()[-1].row_count == 0
    assert lake.frames()[-1].schema["price"] == pl.String()


@pytest.mark.parametrize("declared", ["numeric(12,4)", "numeric", "numeric(12,2)"])
def test_a_number_widened_during_a_read_is_copied_exactly(lake, database, declared, monkeypatch):
    """Rounded to the old scale it would be wrong; read as NaN it would stop the table."""

    read = slice_reader.read

    def alter_and_read(source, table, region, size):
        if "numeric(10,2)" in {column.declared for column in table.columns}:
            database.execute(f"alter table movie alter price type {declared}")
            database.execute("insert into movie values (2, 12345678901.5555)" if declared == "numeric" else "select")
        return read(source, table, region, size)

    monkeypatch.setattr(slice_reader, "read", alter_and_read)
    lake.tick()
    lake.drain()

    live = database.execute("select price::text from movie order by 1")
    assert sorted({str(value) for value in values(lake, "price")}) == [text for (text,) in live]


@pytest.mark.parametrize("name", ["a \"b\" {c} %s 'd'", "ñ" * 31, "select"])
def test_dates_in_columns_of_any_name_are_checked(database, bucket, name):
    quoted = '"' + name.replace('"', '""') + '"'
    database.execute(f"create table movie (movie_id int, {quoted} date)")
    database.execute("insert into movie values (1, 'infinity'), (2, '5874897-01-01')")
    lake = Lake(database, bucket.store())
    with pytest.raises(DataError) as error:
        lake.tick()
    assert repr(name) in str(error.value)
    lake.tick(policies=Policies(late_dates="text"))
    assert sorted(lake.rows()[name]) == ["5874897-01-01", "infinity"]
    assert json.loads(lake.footers()[0].to_text())["exceptional"][0]["column"] == name
