"""The tables of ``docs/types.md``, rendered from the rules in ``column_types`` and ``value_policies``.

Belongs here: one entry per documented type, and the wording of each policy. Does not belong here: the rules. A test
compares the page with these tables.
"""

from typing import TYPE_CHECKING, NamedTuple

from pg_bronze.core.column_types import rule
from pg_bronze.core.table import Column
from pg_bronze.core.value_policies import DEFAULT_POLICIES, Policies

if TYPE_CHECKING:
    import polars as pl


_DATED = "`±infinity` and dates beyond the year 262142: see below"


class Entry(NamedTuple):
    """One row of the table of types: the declared type, its base type and typmod, and a note."""

    declared: str
    base: str
    note: str = ""
    typmod: int = -1

    @property
    def column(self) -> Column:
        """A column of this type with the default policies."""
        return Column(1, "c", self.declared, self.base, self.typmod, not_null=False)


def _numeric(precision: int, scale: int) -> int:
    return (precision << 16 | scale) + 4


ENTRIES = (
    Entry("`boolean`", "bool"),
    Entry("`smallint`", "int2"),
    Entry("`integer`", "int4"),
    Entry("`bigint`", "int8", "also `serial` types"),
    Entry("`oid`", "oid"),
    Entry("`real`", "float4", "`NaN`, `±Infinity` and `-0` are kept"),
    Entry("`double precision`", "float8", "`NaN`, `±Infinity` and `-0` are kept"),
    Entry("`numeric(p,s)` up to 9 digits", "numeric", "`NaN`: see below; a scale may be negative", _numeric(9, 2)),
    Entry("`numeric(p,s)` up to 18 digits", "numeric", "`NaN`: see below", _numeric(18, 4)),
    Entry("`numeric(p,s)` up to 38 digits", "numeric", "`NaN`: see below", _numeric(38, 10)),
    Entry("`numeric`, and `numeric(p,s)` beyond 38 digits", "numeric", "every digit, `NaN` and `±Infinity` are kept"),
    Entry(
        "`money`",
        "money",
        "a number with two decimals, as with `lc_monetary` C, whatever the server, database or role set",
    ),
    Entry("`money[]`", "_money", "an array of such numbers"),
    Entry("`text`", "text"),
    Entry("`varchar(n)`", "varchar"),
    Entry("`char(n)`", "bpchar", "padded with spaces, as PostgreSQL prints it"),
    Entry("`name`", "name"),
    Entry("`uuid`", "uuid"),
    Entry("`bytea`", "bytea"),
    Entry("`date`", "date", _DATED),
    Entry("`timestamp`", "timestamp", _DATED),
    Entry("`timestamptz`", "timestamptz", f"in UTC; {_DATED}"),
    Entry("`xml`", "xml", "with its declaration, which the output function omits"),
    Entry(
        "every other type",
        "pg_catalog.other",
        "`json`, `jsonb`, `time`, `timetz`, `interval`, enums, composites, arrays, ranges, geometry, network, text "
        "search, types of extensions, …: what the type's output function prints, and its input function accepts",
    ),
)
_PARQUET = {
    "Boolean": "BOOLEAN",
    "Int16": "INT32, integer of 16 bits",
    "Int32": "INT32",
    "Int64": "INT64",
    "UInt32": "INT32, unsigned integer of 32 bits",
    "Float32": "FLOAT",
    "Float64": "DOUBLE",
    "String": "BYTE_ARRAY, string",
    "Binary": "BYTE_ARRAY",
    "Date": "INT32, date",
}
_MEANING: dict[str, dict[str, str]] = {
    "infinity": {
        "sentinel": "the last day or microsecond of the year 262142, or the first of the year -262143. They sort where "
        "infinity sorts, and no finite value is stored as one of them",
        "text": "all date and timestamp columns of the table are stored as text",
        "null": "NULL",
        "error": "the table stops",
    },
    "late_dates": {
        "error": "the table stops",
        "text": "all date and timestamp columns of the table are stored as text",
        "null": "NULL",
    },
    "nan": {
        "error": "the table stops",
        "text": "all `numeric(p,s)` columns of the table are stored as text",
        "null": "NULL",
    },
}
_VALUES: dict[str, str] = {
    "infinity": "`infinity` and `-infinity` in a date or timestamp",
    "late_dates": "a date from 262142-12-30, a timestamp from 262142-12-31 23:59:59.999998",
    "nan": "`NaN` in `numeric(p,s)` of at most 38 digits",
}


def types_table() -> str:
    """Render the table of types: PostgreSQL type, expression, Polars type, Parquet type, note."""
    lines = ["| PostgreSQL | read as | Polars | Parquet | note |", "|---|---|---|---|---|"]
    for entry in ENTRIES:
        expression, stored = rule(entry.column).expression.format(c="c"), rule(entry.column).stored
        expression = expression.replace("operator(pg_catalog.<)", "<").replace("pg_catalog.", "")
        types = f"`{_polars_type(stored)}` | {parquet_type(stored)}"
        lines.append(f"| {entry.declared} | `{expression}` | {types} | {entry.note} |")
    return "\n".join(lines) + "\n"


def policies_table() -> str:
    """Render the table of policies: setting, values, and what is stored; the default is first and in bold."""
    lines = ["| setting | applies to | value | what is stored |", "|---|---|---|---|"]
    for kind in Policies._fields:
        for value, meaning in _MEANING[kind].items():
            shown = f"**`{value}`**" if value == getattr(DEFAULT_POLICIES, kind) else f"`{value}`"
            lines.append(f"| `PG_BRONZE_{kind.upper()}` | {_VALUES[kind]} | {shown} | {meaning} |")
    return "\n".join(lines) + "\n"


def parquet_type(stored: "pl.DataType") -> str:
    """Return the physical and the logical Parquet type in which Polars writes one of its types."""
    import polars as pl

    if isinstance(stored, pl.Datetime):
        return f"INT64, timestamp in microseconds{', UTC' if stored.time_zone else ', no zone'}"
    if isinstance(stored, pl.Decimal):
        physical = "INT32" if stored.precision <= 9 else "INT64" if stored.precision <= 18 else "FIXED_LEN_BYTE_ARRAY"
        return f"{physical}, decimal of (p,s)"
    return _PARQUET[str(stored)]


def _polars_type(stored: "pl.DataType") -> str:
    import polars as pl

    return "Decimal(p, s)" if isinstance(stored, pl.Decimal) else str(stored)
