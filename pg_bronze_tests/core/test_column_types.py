import polars as pl
import pytest

from pg_bronze.core.column_types import (
    conform,
    former_projection,
    projection,
    read_schema,
    rule,
    stored_schema,
    xid_column,
)
from pg_bronze.core.drift import describe_columns
from pg_bronze.core.value_policies import Policies
from pg_bronze.errors import DataError, TableChanged
from pg_bronze_tests.harness.literals import PRICE, column, numeric, table


@pytest.mark.parametrize(
    "precision, scale, expected",
    [
        (10, 2, pl.Decimal(10, 2)),
        (38, 10, pl.Decimal(38, 10)),
        (5, -2, pl.Decimal(7, 0)),
        (2, 4, pl.Decimal(4, 4)),
        (5, 0, pl.Decimal(5, 0)),
        (38, 38, pl.Decimal(38, 38)),
        (39, 2, pl.String()),
        (37, -2, pl.String()),
        (1, 1000, pl.String()),
        (10, -1000, pl.String()),
    ],
)
def test_a_numeric_becomes_the_decimal_that_contains_all_its_values(precision, scale, expected):
    assert rule(column(base="numeric", typmod=numeric(precision, scale))).stored == expected


def test_a_numeric_without_precision_is_stored_as_text():
    assert rule(column(base="numeric")).stored == pl.String()


def test_every_column_is_cast_and_named():
    columns = [
        column('a"b', "int4"),
        column("when", "uuid"),
        column("m", "public.mood"),
        column("n", "numeric", numeric(10, 2)),
        column("{c}", "money"),
        column("i", "inet"),
    ]
    assert projection(columns, "x").split(", ") == [
        '"x"."a""b"::pg_catalog.int4 as "a""b"',
        '"x"."when"::pg_catalog.uuid as "when"',
        'case when "x"."m" is distinct from null then pg_catalog.concat("x"."m") end as "m"',
        (
            'case when "x"."n"::pg_catalog.numeric operator(pg_catalog.=) \'NaN\'::pg_catalog.numeric '
            "then '-9223372036854775808'::pg_catalog.int8 "
            'else pg_catalog.int8("x"."n"::pg_catalog.numeric operator(pg_catalog.*) \'100\'::pg_catalog.numeric) end '
            'as "n"'
        ),
        (
            'case when "x"."{c}"::pg_catalog.numeric is distinct from null '
            'then pg_catalog.concat("x"."{c}"::pg_catalog.numeric) end as "{c}"'
        ),
        'case when "x"."i" is distinct from null then pg_catalog.concat("x"."i") end as "i"',
    ]


def test_a_late_date_is_read_as_the_last_day_of_the_readers_calendar():
    assert rule(column(base="date")).expression == (
        "case when {c}::pg_catalog.date operator(pg_catalog.<) '262142-12-30'::pg_catalog.date "
        "then {c}::pg_catalog.date "
        "when pg_catalog.isfinite({c}::pg_catalog.date) then '262142-12-30'::pg_catalog.date "
        "else {c}::pg_catalog.date end"
    )


def test_the_policy_text_changes_the_stored_type_and_the_description():
    columns = table(columns=(PRICE, column("born", "date"), column("id"))).with_policies(Policies(nan="text")).columns
    assert stored_schema(columns) == {"price": pl.String(), "born": pl.Date(), "id": pl.Int32()}
    assert [described.get("policy") for described in describe_columns(columns)] == [
        {"nan": "text"},
        {"infinity": "sentinel", "late_dates": "error"},
        None,
    ]


def test_a_user_type_called_int4_is_not_the_builtin_type():
    assert (
        rule(column(base="public.int4")).expression
        == "case when {c} is distinct from null then pg_catalog.concat({c}) end"
    )


def test_the_added_column_gets_another_name_if_the_source_has_that_column():
    assert xid_column([column("a")]) == "_pg_xid"
    assert xid_column([column("_pg_xid"), column("_pg_xid_1")]) == "_pg_xid_2"


@pytest.mark.parametrize(
    "read, former",
    [([150, None, -9999999999], False), (["1.50", None, "-99999999.99"], True)],
    ids=["whole numbers", "text"],
)
def test_numbers_become_decimals_and_the_added_column_is_kept(read, former):
    frame = pl.DataFrame({"price": read, "_pg_xid": [1, 2, 3]})

    stored, exceptional = conform(frame, [PRICE], "movie", former)

    assert exceptional == ()
    assert stored.schema == {"price": pl.Decimal(10, 2), "_pg_xid": pl.Int64}
    assert stored["price"].cast(pl.String).to_list() == ["1.50", None, "-99999999.99"]


def test_an_empty_slice_has_the_stored_schema():
    frame = pl.DataFrame(schema=read_schema([PRICE, column("id")]))
    assert conform(frame, [PRICE, column("id")], "movie")[0].schema == stored_schema([PRICE, column("id")])


@pytest.mark.parametrize("value", ["1.555", "1.5", "123456789.00", "1e2"])
def test_a_number_that_requires_an_alter_is_refused_without_being_shown(value):
    """Polars rounds 1.555 to 1.56 without an error, and its error for the others contains the value."""
    with pytest.raises(TableChanged, match=r"movie: column 'price' \(numeric\(10,2\)\)") as error:
        conform(pl.DataFrame({"price": ["1.00", value]}), [PRICE], "movie", former=True)
    assert value not in str(error.value)
    assert error.value.__cause__ is None
    assert error.value.__context__ is None


@pytest.mark.parametrize("value", [10**10, -(10**10), 2**63 - 1, 1 - 2**63])
def test_a_whole_number_with_more_digits_than_the_column_is_refused(value):
    with pytest.raises(TableChanged, match=r"movie: column 'price' \(numeric\(10,2\)\)") as error:
        conform(pl.DataFrame({"price": [100, value]}), [PRICE], "movie")
    assert str(value) not in str(error.value)


@pytest.mark.parametrize("precision, scale, digits", [(18, 0, 18), (18, 18, 18), (16, -2, 18), (19, 0, 0), (17, -2, 0)])
def test_decimals_of_at_most_18_digits_are_read_as_whole_numbers(precision, scale, digits):
    """One digit more does not fit into 64 bits."""
    numbers = column("price", "numeric", numeric(precision, scale))
    assert read_schema([numbers])["price"] == (pl.Int64() if digits else pl.String())
    if digits:
        most = int("9" * digits)
        stored = conform(pl.DataFrame({"price": [most, -most, 0, None]}), [numbers], "movie")[0]["price"]
        texts = [None if number is None else str(abs(number)).replace("0.", "").replace(".", "") for number in stored]
        assert texts == [str(most), str(most), texts[2], None]


@pytest.mark.parametrize(
    "frame",
    [
        pl.DataFrame({"price": [1.5]}),
        pl.DataFrame({"price": ["1.50"]}),
        pl.DataFrame({"other": [150]}),
        pl.DataFrame({"price": [150], "x": [1]}),
        pl.DataFrame({"price": [150], "_pg_xid": ["1"]}),
        pl.DataFrame({"_pg_xid": [1], "price": [150]}),
    ],
)
def test_other_columns_than_requested_are_refused(frame):
    """Two types of the same width would otherwise be stored as each other's bytes."""
    with pytest.raises(DataError, match="not the columns requested"):
        conform(frame, [PRICE], "movie")


def test_a_projection_of_former_columns_matches_by_attnum():
    wanted = [column("a"), column("b", attnum=2), column("gone", "uuid", attnum=3)]
    present = [column("a", "int8"), column("renamed", attnum=2), column("gone", attnum=4)]
    assert former_projection(wanted, present).split(", ") == [
        '(case when t."a" is distinct from null then pg_catalog.concat(t."a") end)::pg_catalog.int4 as "a"',
        't."renamed"::pg_catalog.int4 as "b"',
        'null::pg_catalog.text::pg_catalog.uuid as "gone"',
    ]
