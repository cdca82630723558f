import io
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from pg_bronze.core.column_types import _native_types, rule
from pg_bronze.core.type_docs import ENTRIES, parquet_type, policies_table, types_table
from pg_bronze.core.value_policies import DEFAULT_POLICIES, Policies
from pg_bronze.settings.model import Settings, TableOptions

PAGE = Path(__file__).parents[2] / "docs" / "types.md"


def test_the_page_contains_the_tables_rendered_from_the_code():
    """To update it: python -c "from pg_bronze.core.type_docs import *; print(types_table(), policies_table())"."""
    page = PAGE.read_text(encoding="utf-8")
    assert types_table() in page
    assert policies_table() in page


def test_every_type_with_a_rule_is_on_the_page():
    assert _native_types().keys() <= {entry.base for entry in ENTRIES}


def test_every_setting_and_value_is_on_the_page():
    for kind, default in DEFAULT_POLICIES._asdict().items():
        assert f"`PG_BRONZE_{kind.upper()}`" in policies_table()
        assert Settings.model_fields[kind].default == TableOptions.model_fields[kind].default == default
        values = Settings.model_json_schema()["properties"][f"PG_BRONZE_{kind.upper()}"]["enum"]
        rows = [row for row in policies_table().splitlines() if f"`PG_BRONZE_{kind.upper()}`" in row]
        assert {value for value in values if any(f"`{value}`" in row for row in rows)} == set(values)
        assert len(rows) == len(values)
        assert f"**`{default}`**" in rows[0]


def words(column) -> str:
    """Return the type of a Parquet column as the page names it."""
    logical = str(column.logical_type)
    for found, name in {
        "None": "",
        "String": ", string",
        "Date": ", date",
        "Int(bitWidth=16, isSigned=true)": ", integer of 16 bits",
        "Int(bitWidth=32, isSigned=false)": ", unsigned integer of 32 bits",
        "Timestamp(isAdjustedToUTC=true, timeUnit=microseconds": ", timestamp in microseconds, UTC",
        "Timestamp(isAdjustedToUTC=false, timeUnit=microseconds": ", timestamp in microseconds, no zone",
        "Decimal(": ", decimal of (p,s)",
    }.items():
        if logical.startswith(found):
            return column.physical_type + name
    raise AssertionError(f"the page has no name for {logical}")


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.declared)
def test_a_file_is_written_as_documented(entry):
    stored, file = rule(entry.column).stored, io.BytesIO()
    pl.DataFrame(schema={"c": stored}).write_parquet(file)
    assert words(pq.ParquetFile(file).schema.column(0)) == parquet_type(stored)


def test_every_policy_has_a_kind():
    assert Policies._fields == ("infinity", "late_dates", "nan")
