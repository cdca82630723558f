"""The union of the columns of a table's objects."""

from dataclasses import replace
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pg_bronze.core.column_types import rule, stored_schema
from pg_bronze.core.table import Column, label, split_label
from pg_bronze.core.value_policies import DATE_INFINITY, TIMESTAMP_INFINITY, Policies
from pg_bronze.errors import DataError, SettingsError
from pg_bronze.lake.reading.schema_union import ColumnEra, union_schema

TYPES = {
    "int2": (-1, pl.Int16()),
    "int4": (-1, pl.Int32()),
    "int8": (-1, pl.Int64()),
    "float4": (-1, pl.Float32()),
    "float8": (-1, pl.Float64()),
    "numeric(10,2)": ((10 << 16 | 2) + 4, pl.Decimal(10, 2)),
    "numeric(12,4)": ((12 << 16 | 4) + 4, pl.Decimal(12, 4)),
    "numeric": (-1, pl.String()),
    "text": (-1, pl.String()),
    "oid": (-1, pl.UInt32()),
    "bool": (-1, pl.Boolean()),
    "date": (-1, pl.Date()),
    "timestamp": (-1, pl.Datetime("us")),
    "timestamptz": (-1, pl.Datetime("us", "UTC")),
}


def column(attnum: int, name: str, declared: str = "text", missing: str | None = None) -> Column:
    return Column(attnum, name, declared, declared.partition("(")[0], TYPES[declared][0], False, missing=missing)


def era(*columns: Column, xid: str = "_pg_xid", example: str = "s3://b/k") -> ColumnEra:
    schema = pl.Schema({**{c.name: rule(c).stored for c in columns}, xid: pl.Int64()})
    assert dict(stored_schema(columns)).items() <= dict(schema).items()
    return ColumnEra(("k",), columns, schema, xid, example)


def read(eras: list[ColumnEra], rows: list[list[tuple]], **options) -> pl.DataFrame:
    """Return the rows of each era, given in its own columns, in the union of all."""
    union = union_schema(eras, **options)
    frames = []
    for one, values in zip(eras, rows, strict=True):
        frame = pl.DataFrame(values, schema=one.schema, orient="row")
        expressions = union.expressions(one)
        frames.append(frame if expressions is None else frame.select(expressions))
    return pl.concat(frames)


@pytest.mark.parametrize(
    "before,after,wide",
    [
        ("int2", "int4", pl.Int32()),
        ("int8", "int2", pl.Int64()),
        ("oid", "int4", pl.Int64()),
        ("float4", "float8", pl.Float64()),
        ("int4", "float8", pl.Float64()),
        ("int2", "float4", pl.Float32()),
        ("numeric(10,2)", "numeric(12,4)", pl.Decimal(12, 4)),
        ("int4", "numeric(10,2)", pl.Decimal(12, 2)),
        ("numeric(10,2)", "numeric", pl.String()),
        ("int8", "numeric", pl.String()),
        ("date", "timestamp", pl.Datetime("us")),
        ("text", "text", pl.String()),
    ],
)
def test_the_wider_type_stores_the_values_of_both(before, after, wide):
    for one, other in ((before, after), (after, before)):
        assert union_schema([era(column(1, "c", one)), era(column(1, "c", other))]).schema["c"] == wide


@pytest.mark.parametrize(
    "before,after",
    [("int4", "text"), ("bool", "int4"), ("date", "timestamptz"), ("timestamp", "timestamptz"), ("int8", "float8"),
     ("text", "numeric(10,2)"), ("float8", "numeric")],
)  # fmt: skip
def test_types_without_a_common_type_are_an_error_that_names_both_objects(before, after):
    """A cast that rounds, or that assumes a time zone, would change values silently."""
    eras = [era(column(1, "c", before), example="s3://b/one"), era(column(1, "c", after), example="s3://b/two")]

    with pytest.raises(DataError, match=f"'c' was {before[:4]}.*s3://b/one.*{after[:4]}.*s3://b/two.*cast="):
        union_schema(eras)

    assert union_schema(eras, {"c": pl.String()}).schema["c"] == pl.String()


def test_a_widened_number_keeps_its_digits():
    eras = [era(column(1, "c", "numeric(10,2)")), era(column(1, "c", "numeric"))]

    assert read(eras, [[(Decimal("1.50"), 1)], [("NaN", 2)]])["c"].to_list() == ["1.50", "NaN"]


def test_a_column_that_a_policy_stores_as_text_is_postgresqls_text_in_all_rows():
    """Otherwise a policy that was set later would make older objects unreadable."""
    times = {
        "date": [
            (-1, "1969-12-31"),
            (2932897, "10000-01-01"),
            (-719163, "0001-12-31 BC"),
            (DATE_INFINITY[1], "infinity"),
        ],
        "timestamp": [
            (0, "1970-01-01 00:00:00"),
            (1500000, "1970-01-01 00:00:01.5"),
            (TIMESTAMP_INFINITY[0], "-infinity"),
        ],
        "timestamptz": [(10, "1970-01-01 00:00:00.00001+00"), (TIMESTAMP_INFINITY[1], "infinity")],
    }
    for declared, values in times.items():
        before = era(column(1, "c", declared))
        after = era(replace(column(1, "c", declared), policies=Policies("text", "text", "text")))
        union = union_schema([before, after])
        numbers = pl.Series("c", [number for number, _ in values] + [None]).cast(before.schema["c"])
        frame = pl.DataFrame([numbers]).with_columns(pl.lit(1, pl.Int64).alias("_pg_xid"))

        assert frame.select(union.expressions(before))["c"].to_list() == [text for _, text in values] + [None]


def test_names_are_the_newest_ones_and_swapped_names_are_not_mixed_up():
    eras = [era(column(1, "a"), column(2, "b")), era(column(1, "b"), column(2, "a"))]

    assert read(eras, [[("first", "second", 1)], [("first", "second", 2)]]).rows() == [
        ("first", "second", 1),
        ("first", "second", 2),
    ]
    assert union_schema(eras).schema.names() == ["b", "a", "_pg_xid"]


def test_a_dropped_column_whose_name_is_in_use_again_gets_a_suffix():
    eras = [era(column(1, "a"), column(2, "a_1")), era(column(3, "a"))]

    assert union_schema(eras).schema.names() == ["a", "a_1", "a_1_2", "_pg_xid"]


def test_the_transaction_id_is_one_column_under_all_its_names():
    eras = [era(column(1, "id")), era(column(1, "id"), column(2, "_pg_xid"), xid="_pg_xid_1")]

    assert read(eras, [[("a", 5)], [("b", "own", 6)]]).rows() == [("a", None, 5), ("b", "own", 6)]
    assert union_schema(eras).xid_column == "_pg_xid_1"


def test_the_default_in_older_rows_is_parsed_as_the_type_it_was_added_with():
    eras = [
        era(column(1, "id")),
        era(column(1, "id"), column(2, "c", "int4", "7")),
        era(column(1, "id"), column(2, "c", "int8")),
    ]

    found = read(eras, [[("a", 1)], [("b", 7, 2)], [("c", None, 3)]])

    assert found["c"].to_list() == [7, 7, None]
    assert found.schema["c"] == pl.Int64()


def test_a_default_beyond_the_last_date_is_an_error_and_not_null():
    """The policy of late dates is ``error``: the table stops at such a value in a row."""
    eras = [era(column(1, "id")), era(column(1, "id"), column(2, "born", "date", "294000-03-15"))]

    with pytest.raises(DataError, match="'born' was added with a default"):
        union_schema(eras).expressions(eras[0])

    assert read(eras, [[("a", 1)], [("b", None, 2)]], cast={"born": pl.String()})["born"].to_list() == [
        "294000-03-15",
        None,
    ]


@pytest.mark.parametrize(
    "declared,missing,policy,value",
    [
        ("date", "0044-03-15 BC", Policies(), -735160),
        ("date", "0001-02-29 BC", Policies(), -719469),
        ("date", "10000-01-01", Policies(), 2932897),
        ("date", "262142-12-29", Policies(), DATE_INFINITY[1] - 2),
        ("date", "262142-12-30", Policies(late_dates="null"), None),
        ("timestamp", "4714-11-24 00:00:00 BC", Policies(), -210866803200000000),
        ("timestamp", "10000-01-01 00:00:00.5", Policies(), 253402300800500000),
        ("timestamptz", "0001-12-31 23:59:59.999999+00 BC", Policies(), -62135596800000001),
        ("timestamptz", "2026-01-02 03:04:05+00", Policies(), 1767323045000000),
        ("timestamptz", "262142-12-31 23:59:59.999998+00", Policies(late_dates="null"), None),
        ("date", "infinity", Policies(), DATE_INFINITY[1]),
        ("date", "infinity", Policies(infinity="null"), None),
        ("timestamptz", "-infinity", Policies(), TIMESTAMP_INFINITY[0]),
        ("numeric(10,2)", "NaN", Policies(nan="null"), None),
        ("numeric(10,2)", "NaN", Policies(nan="text"), "NaN"),
    ],
)
def test_a_default_in_older_rows_is_exact_or_follows_the_policy(declared, missing, policy, value):
    added = replace(column(2, "c", declared, missing), policies=policy)
    eras = [era(column(1, "id")), era(column(1, "id"), added)]

    assert read(eras, [[("a", 1)], []])["c"].to_physical().to_list() == [value]


def test_a_single_era_is_read_without_expressions():
    only = era(column(1, "id"))

    assert union_schema([only]).expressions(only) is None


def test_cast_of_an_unknown_column_is_refused():
    with pytest.raises(SettingsError, match="cast contains 'x', but the columns are 'id'"):
        union_schema([era(column(1, "id"))], {"x": pl.String()})


NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=8)


@given(st.one_of(st.just("public"), NAMES), NAMES)
def test_a_label_identifies_a_table(schema, name):
    assert split_label(label(schema, name)) == (schema, name)
