from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pg_bronze.core.cursor_column import CursorColumn, choose, later_value, newest_value
from pg_bronze.core.table import Column, SourceTable
from pg_bronze.core.value_policies import DATE_INFINITY, TIMESTAMP_INFINITY
from pg_bronze.errors import SettingsError


def table(*columns, key=()):
    made = tuple(Column(n, name, base, base, -1, not_null=False) for n, (name, base) in enumerate(columns, 1))
    return SourceTable(1, "public", "movie", False, None, made, key, (), 0.0, None, "f")


def cursor(base):
    kind = {"date": "date", "timestamp": "timestamp", "timestamptz": "timestamp"}.get(base, "number")
    return CursorColumn("c", 1, kind, base, "configured")


def top(values, dtype, base="int8"):
    return newest_value(pl.DataFrame({"c": pl.Series(values, dtype=dtype)}), cursor(base))


def name_of(chosen):
    return chosen and chosen.name


def test_a_time_by_name_comes_first_in_the_order_of_the_names():
    found = choose(table(("id", "int4"), ("updated_at", "timestamp"), ("created_at", "timestamptz"), key=("id",)))
    assert (found.name, found.kind, found.attnum, found.base) == ("created_at", "timestamp", 3, "timestamptz")


def test_a_usual_name_with_another_type_is_ignored():
    assert name_of(choose(table(("created_at", "text"), ("fecha", "date"), ("id", "int4")))) == "fecha"


def test_the_case_of_a_name_matters_only_where_both_exist():
    assert name_of(choose(table(("CREATED_AT", "timestamp")))) == "CREATED_AT"
    assert name_of(choose(table(("CREATED_AT", "timestamp"), ("created_at", "timestamp")))) == "created_at"


def test_a_numeric_key_comes_next_and_then_a_number_called_id():
    assert name_of(choose(table(("id", "int4"), ("movie_id", "int8"), key=("movie_id",)))) == "movie_id"
    assert name_of(choose(table(("id", "numeric"), ("code", "text"), key=("code",)))) == "id"
    assert name_of(choose(table(("id", "int4"), ("a", "int4"), ("b", "int4"), key=("a", "b")))) == "id"
    assert choose(table(("id", "uuid"), ("t", "time"), key=("id",))) is None


def test_names_are_configurable():
    assert name_of(choose(table(("alta", "date"), ("id", "int4")), names=("alta",))) == "alta"


def test_the_configured_column_wins():
    found = choose(table(("created_at", "timestamp"), ("n", "numeric")), configured="n")
    assert (found.name, found.kind) == ("n", "number")


@pytest.mark.parametrize("configured, problem", [("nope", "does not exist"), ("title", "not a date")])
def test_an_unusable_configured_column_is_refused_with_the_usable_ones(configured, problem):
    with pytest.raises(SettingsError, match=problem) as error:
        choose(table(("title", "text"), ("at", "date")), configured=configured)
    assert "at (date)" in str(error.value)


def test_times_are_printed_as_postgresql_does():
    at = datetime(2025, 12, 1, 23, 10, 35, 123000, tzinfo=UTC)
    assert top([at.replace(tzinfo=None), None], pl.Datetime("us"), "timestamp") == "2025-12-01 23:10:35.123"
    assert top([at], pl.Datetime("us", "UTC"), "timestamptz") == "2025-12-01 23:10:35.123+00"
    assert top([at.replace(microsecond=0, tzinfo=None)], pl.Datetime("us"), "timestamp") == "2025-12-01 23:10:35"
    assert top([date(2025, 12, 1), date(1969, 1, 1)], pl.Date, "date") == "2025-12-01"


def test_infinity_and_null_are_never_the_newest_value():
    """A cursor value of infinity would suggest that no row can be newer."""
    dates = pl.DataFrame({"c": pl.Series([*DATE_INFINITY, 0, None], dtype=pl.Int32).cast(pl.Date)})
    assert newest_value(dates, cursor("date")) == "1970-01-01"
    times = pl.DataFrame({"c": pl.Series([*TIMESTAMP_INFINITY, -1], dtype=pl.Int64).cast(pl.Datetime("us"))})
    assert newest_value(times, cursor("timestamp")) == "1969-12-31 23:59:59.999999"
    assert newest_value(times.head(2), cursor("timestamp")) is None
    assert top(["NaN", "Infinity", "9", "10", "-Infinity"], pl.String, "numeric") == "10"
    assert top([float("nan"), float("inf"), 1.5], pl.Float64, "float8") == "1.5"
    assert top([float("nan")], pl.Float64, "float8") is None
    assert top([None], pl.Int32) is None
    assert top([], pl.String, "numeric") is None


def test_numbers_as_text_are_compared_as_numbers():
    assert top(["9", "10.5", "10.25"], pl.String, "numeric") == "10.5"
    assert top(["12345678901234567890.2", "12345678901234567890.1"], pl.String, "numeric") == "12345678901234567890.2"
    assert top(["9" * 400, "8" * 400], pl.String, "numeric") == "9" * 400
    assert top(["-0.1", "-2"], pl.String, "numeric") == "-0.1"
    assert top([Decimal("0.0000000001")], pl.Decimal(38, 10), "numeric") == "0.0000000001"
    assert top([Decimal("1.50"), Decimal("-3.00")], pl.Decimal(10, 2), "numeric") == "1.50"


@given(st.dates())
def test_every_date_is_printed_correctly(day):
    assert top([day], pl.Date, "date") == day.isoformat()


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
moments = st.integers(-8_000_000_000_000_000_000, 8_000_000_000_000_000_000)  # microseconds, far into BC and past 9999


def printed(count, base="timestamp"):
    frame = pl.DataFrame({"c": pl.Series([count], dtype=pl.Int64).cast(pl.Datetime("us"))})
    return newest_value(frame, cursor(base))


@given(st.datetimes())
def test_every_time_up_to_the_year_9999_is_printed_as_python_does(at):
    text = at.isoformat(" ")
    assert printed((at.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)) == (
        text.rstrip("0") if "." in text else text
    )


@given(moments, moments)
def test_times_are_compared_correctly_in_bc_and_past_the_year_9999(a, b):
    """As text, the year 10000 sorts before 2025, and BC years sort in reverse."""
    assert later_value(printed(a), printed(b), cursor("timestamp")) == printed(max(a, b))


numbers = st.decimals(allow_nan=False, allow_infinity=False).map(str)


@given(numbers, numbers)
def test_numbers_are_compared_as_numbers(a, b):
    found = later_value(a, b, cursor("numeric"))
    assert found in {a, b}
    assert Decimal(found) >= max(Decimal(a), Decimal(b))


@given(numbers, numbers, numbers)
def test_the_order_of_comparisons_does_not_matter(a, b, c):
    one, other = (
        later_value(later_value(a, b, cursor("numeric")), c, cursor("numeric")),
        later_value(a, later_value(b, c, cursor("numeric")), cursor("numeric")),
    )
    assert Decimal(one) == Decimal(other)


def test_none_is_earlier_than_any_value():
    assert later_value(None, "5", cursor("int8")) == "5"
    assert later_value("5", None, cursor("int8")) == "5"
    assert later_value(None, None, cursor("int8")) is None


@pytest.mark.parametrize(
    "value, expected",
    [
        (0.0, "0"),
        (100000.0, "100000"),
        (1e15, "1e+15"),
        (123456789012345.0, "123456789012345"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (-1.25e-7, "-1.25e-07"),
        (5e-324, "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
    ],
)
def test_floats_are_printed_as_postgresql_does(value, expected):
    assert top([value], pl.Float64, "float8") == expected
