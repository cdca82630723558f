"""Schema: what a source table looks like, and how each of its columns travels into Parquet.

No connection, no clock, no Dagster, no psycopg: the catalog fills these values in, and all of it is tested
with literals. Polars is imported only by what touches data: every process that knows the catalog imports this module.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, count
from typing import TYPE_CHECKING

from pg_bronze.core import value_policies
from pg_bronze.core.table import Column, quote
from pg_bronze.core.value_policies import Exceptional
from pg_bronze.errors import DataError, TableChanged

if TYPE_CHECKING:
    import polars as pl


XID_NAME = "_pg_xid"


@dataclass(frozen=True)
class Rule:
    """How one column travels: the SQL that reads it, what connectorx makes of that, and what is stored.

    ``{c}`` stands for the column in ``expression``.
    """

    expression: str
    read: "pl.DataType"
    stored: "pl.DataType"


_TEXT: dict[str, str] = {
    "money": "{c}::numeric::text",  # money's own text depends on lc_monetary
    "_money": "{c}::numeric[]::text",
    "inet": "abbrev({c}::inet)",  # what psql prints; ::text would add /32 to a host
}


@cache
def _native() -> "dict[str, pl.DataType]":
    # Only types that connectorx 0.4.6 reads exactly under the binary protocol. It rounds numeric to ten decimals,
    # sends json through float64, turns time 24:00 into 00:00 and panics on 51 further types: those travel as text.
    import polars as pl

    return {
        "bool": pl.Boolean(),
        "int2": pl.Int16(),
        "int4": pl.Int32(),
        "int8": pl.Int64(),
        "oid": pl.UInt32(),
        "float4": pl.Float32(),
        "float8": pl.Float64(),
        "text": pl.String(),
        "varchar": pl.String(),
        "bpchar": pl.String(),
        "name": pl.String(),
        "uuid": pl.String(),
        "bytea": pl.Binary(),
        "date": pl.Date(),
        "timestamp": pl.Datetime("us"),
        "timestamptz": pl.Datetime("us", "UTC"),
    }


def rule(column: Column) -> Rule:
    """Decide how a column travels.

    Every expression casts to the type it expects, even where the column already has it: connectorx asks for
    the types first and for the rows later, and an ALTER TYPE in between would be read as the old type's bytes.
    """
    import polars as pl

    if "text" in policy(column).values():
        return Rule("{c}::text", pl.String(), pl.String())
    if last := value_policies.FIRST_LATE.get(column.base):
        cast, moment = f"{{c}}::{column.base}", f"'{last}'::{column.base}"
        # What connectorx could not decode or would take for infinity is sent as the last value before that: 25 ns a
        # value on the server. NULL falls through to the end.
        bounded = f"case when {cast} < {moment} then {cast} when isfinite({cast}) then {moment} else {cast} end"
        return Rule(bounded, _native()[column.base], _native()[column.base])
    if native := _native().get(column.base):
        return Rule(f"{{c}}::{column.base}", native, native)
    if decimal := _decimal(column):
        return Rule("{c}::text", pl.String(), decimal)
    return Rule(_TEXT.get(column.base, "{c}::text"), pl.String(), pl.String())


def policy(column: Column) -> dict[value_policies.Kind, value_policies.Policy]:
    """What is done with each kind of value that the column can hold and its own Parquet type cannot."""
    kinds = value_policies.kinds(column.base, _decimal(column) is not None)
    return {kind: getattr(column.policies, kind) for kind in kinds}


def _decimal(column: Column) -> "pl.Decimal | None":
    """Give the type that holds every number of a numeric(p,s); None without p, beyond 38 digits or for other types."""
    import polars as pl

    typmod = column.typmod
    if column.base != "numeric" or typmod < 4:
        return None
    precision = (typmod - 4) >> 16 & 0xFFFF
    scale = ((typmod - 4 & 0x7FF) ^ 1024) - 1024  # signed since PostgreSQL 15, and the same bits before
    digits = max(precision, scale) if scale >= 0 else precision - scale
    return pl.Decimal(digits, max(scale, 0)) if digits <= 38 else None


def projection(columns: Sequence[Column], relation_alias: str = "t", as_text: bool = False) -> str:
    """Write the select list for the columns, each cast and named: ``t."c"::int4 as "c"``.

    ``as_text`` gives the text of what would be stored instead.
    """
    alias = quote(relation_alias) if relation_alias != "t" else "t"
    cast = "({})::text" if as_text else "{}"
    return ", ".join(
        f"{cast.format(rule(column).expression.format(c=f'{alias}.{quote(column.name)}'))} as {quote(column.name)}"
        for column in columns
    )


def projection_as(wanted: Sequence[Column], present: Sequence[Column]) -> str:
    """Write the select list that gives the columns as they once were, from those the table has now.

    They are told apart by attnum. A dropped column is NULL; one whose type has changed goes through its text, which
    every type has a cast from.
    """
    now = {column.attnum: column for column in present}
    return ", ".join(
        f"{rule(column).expression.format(c=_as_before(column, now.get(column.attnum)))} as {quote(column.name)}"
        for column in wanted
    )


def _as_before(column: Column, now: Column | None) -> str:
    if now is None:
        return "null::text"
    return f"t.{quote(now.name)}" if now.base == column.base else f"t.{quote(now.name)}::text"


_FIXED_BYTES = {
    "bool": 1, "int2": 2, "int4": 4, "oid": 4, "float4": 4, "date": 4, "int8": 8, "float8": 8, "timestamp": 8,
    "timestamptz": 8, "time": 8, "timetz": 12, "interval": 16, "uuid": 16, "money": 8, "macaddr": 6, "macaddr8": 8,
    "point": 16, "lseg": 32, "box": 32, "line": 24, "circle": 24, "name": 64, "char": 1, "xid": 4, "xid8": 8, "cid": 4,
    "tid": 6, "pg_lsn": 8,
}  # fmt: skip
_SHORT_TYPMOD = 64


def memory_bytes(columns: Sequence[Column]) -> int:
    """Bytes that one row takes at least, in a frame or on its way, whatever is NULL or empty in it."""
    return sum(4 + _FIXED_BYTES.get(column.base, 12) for column in columns)


def widths(columns: Sequence[Column]) -> list[str]:
    """SQL for the bytes of each column that can hold a value of any size, NULL for NULL."""
    return [_width(column) for column in columns if not _is_narrow(column)]


def _is_narrow(column: Column) -> bool:
    if column.base in {"varchar", "bpchar"}:
        return 0 <= column.typmod - 4 <= _SHORT_TYPMOD
    return column.base in _FIXED_BYTES or (column.base == "numeric" and column.typmod >= 0)


def _width(column: Column) -> str:
    name = f"t.{quote(column.name)}"
    if column.base in {"text", "varchar", "bpchar", "bytea"}:
        return f"octet_length({name})"  # known without fetching or decompressing the value
    return f"octet_length(({rule(column).expression.format(c=name)})::text)"


def read_schema(columns: Sequence[Column]) -> "pl.Schema":
    """Give the schema in which connectorx returns the projection."""
    import polars as pl

    return pl.Schema([(column.name, rule(column).read) for column in columns])


def stored_schema(columns: Sequence[Column]) -> "pl.Schema":
    """Give the schema in which the columns are written to Parquet."""
    import polars as pl

    return pl.Schema([(column.name, rule(column).stored) for column in columns])


def xid_column(columns: Sequence[Column]) -> str:
    """Name the transaction id column added to every row: ``_pg_xid``, or ``_pg_xid_1`` if the source has that one."""
    taken = {column.name for column in columns}
    names = chain([XID_NAME], (f"{XID_NAME}_{number}" for number in count(1)))
    return next(name for name in names if name not in taken)


def no_rows(columns: Sequence[Column]) -> "pl.DataFrame":
    """Give a slice of these columns without a row."""
    import polars as pl

    return pl.DataFrame(schema={**stored_schema(columns), xid_column(columns): pl.Int64()})


def conform(
    frame: "pl.DataFrame", columns: Sequence[Column], label: str
) -> "tuple[pl.DataFrame, tuple[Exceptional, ...]]":
    """Turn what was read into what is stored; the second part counts values that a policy was applied to.

    The frame holds exactly the columns of the projection, and after them perhaps the transaction id column. Raises
    DataError for values that the policy refuses, TableChanged for what only an ALTER during the read can bring about;
    both name the table ``label`` and the column.
    """
    import polars as pl

    expected = list(read_schema(columns).items())
    if frame.width == len(expected) + 1:
        expected.append((xid_column(columns), pl.Int64()))
    found = list(frame.schema.items())
    if found != expected:
        names = ", ".join(repr(name) for name, dtype in found if (name, dtype) not in expected) or "the order"
        raise DataError(
            f"{label}: the columns read are not the columns asked for (different: {names}). "
            "The table was altered during the read, or the reader was given another projection."
        )
    stored: list[pl.Series] = []
    counted: list[Exceptional] = []
    for column in columns:
        if policy(column):
            values, exceptional = _stored(frame[column.name], column, label)
            stored.append(values)
            counted += exceptional
    return frame.with_columns(stored), tuple(counted)


def _stored(values: "pl.Series", column: Column, label: str) -> "tuple[pl.Series, tuple[Exceptional, ...]]":
    wanted = rule(column).stored
    if values.dtype == wanted:
        return value_policies.settle(values, column.base, column.policies, label, column.declared)
    if (number := _number(values, wanted)) is not None:
        return number, ()
    values, exceptional = value_policies.settle(values, column.base, column.policies, label, column.declared)
    if (number := _number(values, wanted)) is not None:
        return number, exceptional
    # The server keeps every number within a column's precision, so this is not about the data.
    raise TableChanged(
        f"{label}: column {column.name!r} ({column.declared}) was given more digits by an ALTER TABLE while it was "
        "read; the next tick looks again."
    )


def _number(text: "pl.Series", wanted: "pl.DataType") -> "pl.Series | None":
    """The text as decimals, None if one of them is not exactly that."""
    import polars as pl

    try:
        number = text.cast(wanted, strict=True)
    except pl.exceptions.InvalidOperationError:
        return None
    # Polars rounds surplus decimals away in silence, so compare with what the server printed.
    return number if (number.cast(pl.String) == text).all() else None
