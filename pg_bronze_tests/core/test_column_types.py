import dataclasses
import json
import shlex

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pg_bronze.core.column_types import conform, projection, projection_as, read_schema, rule, stored_schema, xid_column
from pg_bronze.core.drift import changes, describe, description, drift
from pg_bronze.core.table import Column, Relation, SourceTable, argument, label, literal, quote, split_label
from pg_bronze.core.value_policies import Policies
from pg_bronze.errors import DataError, SettingsError, TableChanged
from pg_bronze_tests.harness.names import TABLES


def numeric(precision: int, scale: int) -> int:
    return (precision << 16 | scale & 0x7FF) + 4


def column(name="c", base="int4", typmod=-1, attnum=1, declared=None):
    return Column(attnum, name, declared or base, base, typmod, not_null=False)


def table(schema="public", name="movie", columns=()):
    leaf = Relation(7, schema, name, 7, 3, 0)
    return SourceTable(7, schema, name, False, "films", columns or (column(),), ("c",), (leaf,), 5.0, None, "f")


identifiers = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@given(identifiers, identifiers)
def test_different_identifiers_are_quoted_differently(a, b):
    assert (quote(a) == quote(b)) == (a == b)


@given(identifiers)
def test_a_quoted_identifier_ends_where_it_should(name):
    """An inner quote that is not doubled would let a column's name go on as SQL."""
    inner = quote(name)[1:-1]
    assert inner.replace('""', "").count('"') == 0
    assert inner.replace('""', '"') == name


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_what_postgresql_cannot_name_is_refused(name):
    with pytest.raises(SettingsError):
        quote(name)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_a_literal_holds_its_text_and_nothing_else(text):
    inner = literal(text)[1:-1]
    assert inner.replace("''", "").count("'") == 0
    assert inner.replace("''", "'") == text


def test_a_literal_with_nul_is_refused_without_showing_it():
    with pytest.raises(DataError) as error:
        literal("secret\0")
    assert "secret" not in str(error.value)


parts = st.text('ab."', min_size=1, max_size=4) | st.just("public")


@given(parts, parts, parts, parts)
def test_no_two_tables_share_a_label(schema, name, other_schema, other_name):
    """The label is the primary key of etl_control: two tables with one would overwrite each other's row."""
    one, other = table(schema, name), table(other_schema, other_name)
    assert (one.label == other.label) == ((schema, name) == (other_schema, other_name))


def test_a_label_names_the_schema_only_outside_public():
    assert table().label == "movie"
    assert table("sales").label == "sales.movie"
    assert table(name="sales.movie").label == '"sales.movie"'


def test_a_table_survives_a_turn_through_json():
    before = table(columns=(column("ñ"), column("d", "numeric", numeric(10, 2), 3)))
    assert SourceTable.from_json(json.loads(json.dumps(before.to_json()))) == before


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
def test_a_numeric_becomes_the_decimal_that_holds_all_its_values(precision, scale, expected):
    assert rule(column(base="numeric", typmod=numeric(precision, scale))).stored == expected


def test_a_numeric_without_precision_stays_text():
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
        '"x"."a""b"::int4 as "a""b"',
        '"x"."when"::uuid as "when"',
        '"x"."m"::text as "m"',
        '"x"."n"::text as "n"',
        '"x"."{c}"::numeric::text as "{c}"',
        'abbrev("x"."i"::inet) as "i"',
    ]


def test_a_late_date_is_sent_as_the_last_day_that_can_be_read():
    assert rule(column(base="date")).expression == (
        "case when {c}::date < '262142-12-30'::date then {c}::date "
        "when isfinite({c}::date) then '262142-12-30'::date else {c}::date end"
    )


def test_a_policy_of_text_decides_what_is_stored_and_described():
    columns = table(columns=(PRICE, column("born", "date"), column("id"))).under(Policies(nan="text")).columns
    assert stored_schema(columns) == {"price": pl.String(), "born": pl.Date(), "id": pl.Int32()}
    assert [said.get("policy") for said in describe(columns)] == [
        {"nan": "text"},
        {"infinity": "sentinel", "late_dates": "error"},
        None,
    ]


def test_policies_are_no_part_of_the_catalog():
    """A table handed to another process must not bring the settings of this one along."""
    before = table(columns=(PRICE,))
    assert SourceTable.from_json(json.loads(json.dumps(before.under(Policies(nan="text")).to_json()))) == before


def test_a_user_type_called_int4_is_not_taken_for_the_builtin_one():
    assert rule(column(base="public.int4")).expression == "{c}::text"


def test_the_added_column_steps_aside_for_the_source():
    assert xid_column([column("a")]) == "_pg_xid"
    assert xid_column([column("_pg_xid"), column("_pg_xid_1")]) == "_pg_xid_2"


PRICE = column("price", "numeric", numeric(10, 2), declared="numeric(10,2)")


def test_numbers_become_decimals_and_the_added_column_stays():
    frame = pl.DataFrame({"price": ["1.50", None, "-99999999.99"], "_pg_xid": [1, 2, 3]})

    done, exceptional = conform(frame, [PRICE], "movie")

    assert exceptional == ()
    assert done.schema == {"price": pl.Decimal(10, 2), "_pg_xid": pl.Int64}
    assert done["price"].cast(pl.String).to_list() == ["1.50", None, "-99999999.99"]


def test_an_empty_slice_has_the_stored_schema():
    frame = pl.DataFrame(schema=read_schema([PRICE, column("id")]))
    assert conform(frame, [PRICE, column("id")], "movie")[0].schema == stored_schema([PRICE, column("id")])


@pytest.mark.parametrize("value", ["1.555", "1.5", "123456789.00", "1e2"])
def test_a_number_that_only_an_alter_can_bring_is_refused_without_showing_it(value):
    """Polars alone would round 1.555 to 1.56 and say nothing; its error for the others quotes the value."""
    with pytest.raises(TableChanged, match=r"movie: column 'price' \(numeric\(10,2\)\)") as error:
        conform(pl.DataFrame({"price": ["1.00", value]}), [PRICE], "movie")
    assert value not in str(error.value)
    assert error.value.__cause__ is None
    assert error.value.__context__ is None


@pytest.mark.parametrize(
    "frame",
    [
        pl.DataFrame({"price": [1.5]}),
        pl.DataFrame({"other": ["1.50"]}),
        pl.DataFrame({"price": ["1.50"], "x": [1]}),
        pl.DataFrame({"price": ["1.50"], "_pg_xid": ["1"]}),
        pl.DataFrame({"_pg_xid": [1], "price": ["1.50"]}),
    ],
)
def test_other_columns_than_asked_for_are_refused(frame):
    """Two types of one width would otherwise be stored as each other's bytes."""
    with pytest.raises(DataError, match="not the columns asked for"):
        conform(frame, [PRICE], "movie")


def test_columns_are_described_in_plain_json():
    mood = dataclasses.replace(column("m", "public.mood"), labels=("sad", "happy"))
    price, said = json.loads(json.dumps(describe([PRICE, mood])))
    assert {name: value for name, value in price.items() if value is not None} == {
        "attnum": 1,
        "name": "price",
        "declared": "numeric(10,2)",
        "base": "numeric",
        "typmod": numeric(10, 2),
        "not_null": False,
        "stored": "Decimal(precision=10, scale=2)",
        "policy": {"nan": "error"},
    }
    assert said["labels"] == ["sad", "happy"]
    assert Column.from_description(said) == mood


def test_a_column_comes_back_from_its_description_and_from_a_later_versions():
    [said] = describe([PRICE])
    assert Column.from_description({**said, "something": "new"}) == PRICE
    assert Column.from_description({key: said[key] for key in said if key != "missing"}) == PRICE


def digest(*columns, **changed):
    return dataclasses.replace(description(table(columns=columns)), **changed).digest


@pytest.mark.parametrize(
    "changed",
    [
        digest(column("b")),
        digest(column(base="int8")),
        digest(column(typmod=5)),
        digest(column(attnum=2)),
        digest(dataclasses.replace(column(), missing="7")),
        digest(dataclasses.replace(column(), labels=("sad",))),
        digest(dataclasses.replace(column(), generated="virtual", generated_as="1")),
        digest(column(), column("b", attnum=2)),
        digest(column(), primary_key=()),
        digest(column(), xid_column="_pg_xid_1"),
    ],
)
def test_whatever_a_reader_has_to_know_changes_the_digest(changed):
    assert changed != digest(column())


def test_what_a_reader_need_not_know_leaves_the_digest():
    commented = dataclasses.replace(column(), comment="new", not_null=True)
    assert digest(commented) == digest(column())


def test_a_projection_of_former_columns_follows_their_numbers():
    wanted = [column("a"), column("b", attnum=2), column("gone", "uuid", attnum=3)]
    present = [column("a", "int8"), column("renamed", attnum=2), column("gone", attnum=4)]
    assert projection_as(wanted, present).split(", ") == [
        't."a"::text::int4 as "a"',
        't."renamed"::int4 as "b"',
        'null::text::uuid as "gone"',
    ]


def drifted(before, after, **changed):
    now = dataclasses.replace(description(table(columns=tuple(after))), **changed)
    return drift(description(table(columns=tuple(before))), now)


def test_drift_tells_a_rename_from_a_drop_and_an_add():
    before = [column("a"), column("b", attnum=2), column("c", attnum=3)]
    after = [column("a", "int8"), column("bb", attnum=2), column("c", attnum=4)]
    assert drifted(before, after) == (
        "column 'c' (int4) was dropped",
        "column 'c' (int4) was added; rows copied before hold NULL unless they come again",
        "column 'a' changed its type from int4 to int8",
        "column 'a' is stored as Int64 from here on, before as Int32",
        "column 'b' is now called 'bb'",
    )
    assert drifted(before, before) == ()


def test_drift_sees_a_type_of_the_same_name_in_another_place():
    assert drifted([column(base="a.mood", declared="mood")], [column(base="b.mood", declared="mood")])


MOOD = dataclasses.replace(column("m", "public.mood"), labels=("sad", "happy"))


@pytest.mark.parametrize(
    "after, sentence",
    [
        (dataclasses.replace(MOOD, labels=("sad", "so so", "happy")), "column 'm' may hold 'so so' now"),
        (
            dataclasses.replace(MOOD, labels=("sad", "glad")),
            "column 'm' has no value 'happy' any more; rows copied before keep the old text",
        ),
        (
            dataclasses.replace(MOOD, generated="virtual", generated_as="f(x)"),
            "column 'm' is now computed by f(x); rows copied before keep the values they had",
        ),
    ],
)
def test_drift_says_what_rows_copied_before_hold(after, sentence):
    assert sentence in drifted([MOOD], [after])


def test_drift_says_what_rows_hold_in_a_column_they_did_not_have():
    new = column("n", attnum=2)
    [defaulted] = drifted([MOOD], [MOOD, dataclasses.replace(new, missing="7")])
    [computed] = drifted([MOOD], [MOOD, dataclasses.replace(new, generated="virtual", generated_as="1")])
    assert (
        defaulted
        == "column 'n' (int4) was added; rows copied before hold its default, which this object's footer keeps"
    )
    assert computed == "column 'n' (int4) was added; rows copied before do not hold what it computes"


def test_a_default_forgotten_by_the_catalog_is_no_drift():
    assert drifted([dataclasses.replace(MOOD, missing="sad")], [MOOD]) == ()


def test_drift_says_how_rows_are_told_apart_now():
    assert drifted([MOOD], [MOOD], primary_key=()) == ("the primary key is now none, before (c)",)
    assert drifted([MOOD], [MOOD], xid_column="_pg_xid_1") == (
        "the added transaction id is now called '_pg_xid_1', before '_pg_xid'",
    )


def test_a_look_at_the_catalog_says_the_change_and_nothing_of_rows():
    """It knows no defaults, and must not load Polars in the code server."""
    before = table(columns=(column("a"), column("b", attnum=2)))
    after = table(columns=(column("a", "int8"), column("c", attnum=3)))
    assert changes(before, after) == (
        "column 'b' (int4) was dropped",
        "column 'c' (int4) was added",
        "column 'a' changed its type from int4 to int8",
    )
    assert changes(before, before) == ()


@pytest.mark.parametrize("table", TABLES)
def test_a_command_in_a_message_can_be_run_as_it_stands(table):
    """A shell would take quotes and blanks away, and the command a leading dash for an option."""
    words = shlex.split(argument(label(*table)))
    assert split_label(words[-1]) == table
    assert words[:-1] == (["--"] if label(*table).startswith("-") else [])
