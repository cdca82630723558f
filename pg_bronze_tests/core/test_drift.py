import dataclasses
import json

import pytest

from pg_bronze.core.drift import catalog_changes, describe_columns, describe_table, drift
from pg_bronze.core.table import Column
from pg_bronze_tests.harness.literals import PRICE, column, numeric, table


def test_columns_are_described_in_plain_json():
    mood = dataclasses.replace(column("m", "public.mood"), labels=("sad", "happy"))
    price, mood_described = json.loads(json.dumps(describe_columns([PRICE, mood])))
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
    assert mood_described["labels"] == ["sad", "happy"]
    assert Column.from_description(mood_described) == mood


def test_a_column_is_restored_from_its_description_also_of_another_version():
    [described] = describe_columns([PRICE])
    assert Column.from_description({**described, "something": "new"}) == PRICE
    assert Column.from_description({key: described[key] for key in described if key != "missing"}) == PRICE


def digest(*columns, **changed):
    return dataclasses.replace(describe_table(table(columns=columns)), **changed).digest


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
        digest(dataclasses.replace(column(), collation="public.ci", deterministic=False)),
        digest(dataclasses.replace(column(), extension="citext")),
        digest(column(), column("b", attnum=2)),
        digest(column(), primary_key=()),
        digest(column(), xid_column="_pg_xid_1"),
    ],
)
def test_a_change_that_matters_to_readers_changes_the_digest(changed):
    assert changed != digest(column())


def test_a_deterministic_collation_does_not_change_the_digest():
    """Every table would have another era of columns since the version that records it."""
    assert digest(dataclasses.replace(column(), collation="public.c", deterministic=True)) == digest(column())


def test_a_comment_or_a_constraint_does_not_change_the_digest():
    commented = dataclasses.replace(column(), comment="new", not_null=True)
    assert digest(commented) == digest(column())


def drifted(before, after, **changed):
    now = dataclasses.replace(describe_table(table(columns=tuple(after))), **changed)
    return drift(describe_table(table(columns=tuple(before))), now)


def test_a_rename_is_distinguished_from_a_drop_and_an_add():
    before = [column("a"), column("b", attnum=2), column("c", attnum=3)]
    after = [column("a", "int8"), column("bb", attnum=2), column("c", attnum=4)]
    assert drifted(before, after) == (
        "column 'c' (int4) was dropped",
        "column 'c' (int4) was added; rows copied earlier have NULL until they are copied again",
        "column 'a' changed its type from int4 to int8",
        "column 'a' is now stored as Int64, previously as Int32",
        "column 'b' was renamed to 'bb'",
    )
    assert drifted(before, before) == ()


def test_a_type_of_the_same_name_in_another_schema_is_drift():
    assert drifted([column(base="a.mood", declared="mood")], [column(base="b.mood", declared="mood")])


MOOD = dataclasses.replace(column("m", "public.mood"), labels=("sad", "happy"))


@pytest.mark.parametrize(
    "after, sentence",
    [
        (dataclasses.replace(MOOD, labels=("sad", "so so", "happy")), "column 'm' now also allows 'so so'"),
        (
            dataclasses.replace(MOOD, labels=("sad", "glad")),
            "column 'm' no longer allows 'happy'; rows copied earlier keep the old text",
        ),
        (
            dataclasses.replace(MOOD, generated="virtual", generated_as="f(x)"),
            "column 'm' is now computed as f(x); rows copied earlier keep their values",
        ),
    ],
)
def test_drift_states_what_rows_copied_earlier_have(after, sentence):
    assert sentence in drifted([MOOD], [after])


def test_drift_states_what_rows_copied_earlier_have_in_an_added_column():
    new = column("n", attnum=2)
    [defaulted] = drifted([MOOD], [MOOD, dataclasses.replace(new, missing="7")])
    [computed] = drifted([MOOD], [MOOD, dataclasses.replace(new, generated="virtual", generated_as="1")])
    assert (
        defaulted
        == "column 'n' (int4) was added; rows copied earlier have its default, which is in this object's footer"
    )
    assert computed == "column 'n' (int4) was added; rows copied earlier do not have its computed values"


def test_a_default_that_the_catalog_no_longer_has_is_not_drift():
    assert drifted([dataclasses.replace(MOOD, missing="sad")], [MOOD]) == ()


def test_a_changed_key_or_added_column_is_drift():
    assert drifted([MOOD], [MOOD], primary_key=()) == ("the primary key changed from (c) to none",)
    assert drifted([MOOD], [MOOD], xid_column="_pg_xid_1") == (
        "the added column was renamed from '_pg_xid' to '_pg_xid_1'",
    )


def test_catalog_changes_do_not_mention_copied_rows():
    """The catalog has no defaults, and the code server must not import Polars."""
    before = table(columns=(column("a"), column("b", attnum=2)))
    after = table(columns=(column("a", "int8"), column("c", attnum=3)))
    assert catalog_changes(before, after) == (
        "column 'b' (int4) was dropped",
        "column 'c' (int4) was added",
        "column 'a' changed its type from int4 to int8",
    )
    assert catalog_changes(before, before) == ()


def test_a_schema_that_an_older_object_omitted_is_not_drift():
    """Types were described without the schema if the role's search_path contained it."""
    assert not drifted([column(base="a.mood", declared="mood")], [column(base="a.mood", declared="a.mood")])
    assert drifted([column(base="a.mood", declared="mood")], [column(base="a.mood", declared="a.face")])
