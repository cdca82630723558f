import json
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pg_bronze.core.table import SourceTable, label, literal, quote, shell_argument, split_label
from pg_bronze.core.value_policies import Policies
from pg_bronze.errors import DataError, SettingsError
from pg_bronze_tests.harness.literals import PRICE, column, numeric, table
from pg_bronze_tests.harness.names import TABLES

identifiers = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@given(identifiers, identifiers)
def test_different_identifiers_are_quoted_differently(a, b):
    assert (quote(a) == quote(b)) == (a == b)


@given(identifiers)
def test_an_identifier_is_quoted_completely(name):
    """If an inner quote is not doubled, the rest of a column name is executed as SQL."""
    inner = quote(name)[1:-1]
    assert inner.replace('""', "").count('"') == 0
    assert inner.replace('""', '"') == name


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_an_invalid_identifier_is_refused(name):
    with pytest.raises(SettingsError):
        quote(name)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_a_literal_contains_exactly_its_text(text):
    inner = literal(text)[1:-1]
    assert inner.replace("''", "").count("'") == 0
    assert inner.replace("''", "'") == text


def test_a_literal_with_nul_is_refused_without_being_shown():
    with pytest.raises(DataError) as error:
        literal("secret\0")
    assert "secret" not in str(error.value)


parts = st.text('ab."', min_size=1, max_size=4) | st.just("public")


@given(parts, parts, parts, parts)
def test_no_two_tables_share_a_label(schema, name, other_schema, other_name):
    """The label is the primary key of etl_control: two tables with one label would overwrite each other's row."""
    one, other = table(schema, name), table(other_schema, other_name)
    assert (one.label == other.label) == ((schema, name) == (other_schema, other_name))


def test_a_label_includes_the_schema_outside_public_only():
    assert table().label == "movie"
    assert table("sales").label == "sales.movie"
    assert table(name="sales.movie").label == '"sales.movie"'


def test_a_table_survives_a_round_trip_through_json():
    before = table(columns=(column("ñ"), column("d", "numeric", numeric(10, 2), 3)))
    assert SourceTable.from_json(json.loads(json.dumps(before.to_json()))) == before


def test_policies_are_not_part_of_the_catalog():
    """A table that is passed to another process must not carry the settings of this one."""
    before = table(columns=(PRICE,))
    assert SourceTable.from_json(json.loads(json.dumps(before.with_policies(Policies(nan="text")).to_json()))) == before


@pytest.mark.parametrize("table", TABLES)
def test_a_command_in_a_message_can_be_pasted_into_a_shell(table):
    """A shell removes quotes and spaces, and the command reads a leading dash as an option."""
    words = shlex.split(shell_argument(label(*table)))
    assert split_label(words[-1]) == table
    assert words[:-1] == (["--"] if label(*table).startswith("-") else [])
