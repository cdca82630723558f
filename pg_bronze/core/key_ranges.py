"""Key ranges: the parts of a large table that are compared one a day, the SQL of a range, and its checksum.

A range is one of the first column of the primary key. A row is represented by its key and its transaction, which both
sides have exactly, so no other value is read. No I/O and no clock.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pg_bronze.core import column_types, window_sql
from pg_bronze.core.region import Region
from pg_bronze.core.table import Column, SourceTable, literal, quote

if TYPE_CHECKING:
    import polars as pl

_INTEGERS = frozenset({"int2", "int4", "int8"})
_TEXTS = frozenset({"text", "varchar"})
_BYTE_ORDERS = frozenset({"C", "POSIX"})
# The checksum of a row. Every intermediate result is below 2^63, and the sum of a million rows as well.
_FACTOR, _PRIME, _MODULUS, _LOW = 1540483477, 4294967291, 1099511627689, 4294967295


@dataclass(frozen=True)
class Bound:
    """One end of a range of keys. The text is a value of a row: it is in no message, log or metadata."""

    text: str
    inclusive: bool


@dataclass(frozen=True)
class KeyRange:
    """The rows whose first key column is between two bounds; None for no bound."""

    lower: Bound | None = None
    upper: Bound | None = None


def part_count(size_bytes: int, budget_bytes: int, bounds: Sequence[str]) -> int:
    """Return into how many parts a table is divided, so that one part is within a budget.

    Args:
        bounds: The bounds of the planner's histogram. A part has at least one of its buckets.
    """
    return max(1, min(math.ceil(size_bytes / max(1, budget_bytes)), len(bounds) - 1))


def number_on(day: int, count: int) -> int:
    """Return the number of the part that is compared on a day, from 0: of ``count`` days, each has another part.

    New keys move the bounds up, so that a key comes to be in a lower part. The parts are compared from the highest on,
    so no key escapes a round.

    Args:
        day: The day as an ordinal number.
        count: The number of parts.
    """
    return count - 1 - day % count


def part(bounds: Sequence[str], count: int, number: int, early: int = 1) -> KeyRange:
    """Return the range of one part, which begins one bucket early: each ``analyze`` moves the bounds a little.

    Args:
        bounds: The bounds of the planner's histogram, lowest first.
        count: The number of parts, at most that of the buckets.
        number: The number of the part, from 0.
        early: How many buckets of the part before it has; 0 if all parts have the same bounds.
    """
    buckets = len(bounds) - 1
    first, last = number * buckets // count, (number + 1) * buckets // count
    lower = None if first <= early else Bound(bounds[first - early], True)
    return KeyRange(lower, None if number == count - 1 else Bound(bounds[last], False))


def no_ranges(table: SourceTable, locale: str) -> str | None:
    """Return why a table cannot be divided into ranges of keys that both sides order alike; None if it can.

    Args:
        locale: The locale of the database.
    """
    if not table.primary_key:
        return "it has no primary key"
    column = _named(table, table.primary_key[0])
    collation = (column.collation or locale).rpartition(".")[2]
    ordered = column.base in (*_INTEGERS, "uuid") or (column.base in _TEXTS and collation in _BYTE_ORDERS)
    if ordered and not column.mask:
        return None
    how = "masked" if column.mask else "ordered by the database alone"
    return f"the first column of its primary key, {column.name!r} ({column.declared}), is {how}"


def key_columns(table: SourceTable) -> tuple[Column, ...]:
    """Return the columns of the primary key, in key order."""
    return tuple(_named(table, name) for name in table.primary_key)


def _named(table: SourceTable, name: str) -> Column:
    return next(column for column in table.columns if column.name == name)


def has_checksum(columns: Sequence[Column]) -> bool:
    """Return whether the checksum of a range can be computed on both sides: if all key columns are integers."""
    return all(column.base in _INTEGERS and not column.mask for column in columns)


def summary(region: Region, columns: Sequence[Column], keys: KeyRange, row_limit: int) -> str:
    """Return the query for the summary of the first rows of a range, in the order of the first key column.

    It returns the number of rows, the number and the checksum of those below ``region.end``, and the last value of the
    column as text. Rows with equal values are not divided. The checksum is 0 for keys that have none.
    """
    name = f"t.{quote(columns[0].name)}"
    mixed = _mixed_sql(columns, region.end) if has_checksum(columns) else "0"
    # There is no max(uuid) before PostgreSQL 18. Its text has the same order, as any text under the collation "C".
    last = "max(s.key)" if columns[0].base in _INTEGERS else 'max(s.key::text collate "C")'
    return (
        "select count(*), count(*) filter (where s.copied),\n"
        f"  coalesce(sum(s.mixed) filter (where s.copied), 0)::text, ({last})::text\n"
        f"from (select {name} as key, {window_sql.written(None, region.end)} as copied, {mixed} as mixed\n"
        f"  from {window_sql.relation(region)}\n  where {_where(region, name, keys)}\n"
        f"  order by {name}\n  fetch first {row_limit} rows with ties) s"
    )


def pairs(region: Region, columns: Sequence[Column], keys: KeyRange) -> str:
    """Return the query for all live rows of a range: the key, and the transaction if that is below ``region.end``."""
    copied = f"case when {window_sql.written(None, region.end)} then {window_sql.transaction_id(region.end)} end"
    name = f"t.{quote(columns[0].name)}"
    return (
        f"select {column_types.projection(columns)},\n"
        f"  ({copied})::pg_catalog.int8 as {quote(column_types.xid_column(columns))}\n"
        f"from {window_sql.relation(region)}\nwhere {_where(region, name, keys)}\n"
    )


def _where(region: Region, name: str, keys: KeyRange) -> str:
    return "\n  and ".join(_conditions(region, name, keys))


def _conditions(region: Region, name: str, keys: KeyRange) -> Iterator[str]:
    if keys.lower:
        yield f"{name} >{'=' if keys.lower.inclusive else ''} {literal(keys.lower.text)}"
    if keys.upper:
        yield f"{name} <{'=' if keys.upper.inclusive else ''} {literal(keys.upper.text)}"
    if not region.only:
        oids = ", ".join(f"'{oid}'::pg_catalog.oid" for oid in region.leaves)
        yield f"t.tableoid in ({oids})"
    yield window_sql.guard(region.end)


def _mixed_sql(columns: Sequence[Column], end: int) -> str:
    mixed = "0::int8"
    halves = [
        *(half for column in columns for half in _halves_sql(column)),
        f"{window_sql.transaction_id(end)} & {_LOW}",
    ]
    for half in halves:
        mixed = f"((({mixed} * {_FACTOR}) % {_PRIME}) # ({half}))"
    return f"({mixed} * {_FACTOR}) % {_MODULUS}"


def _halves_sql(column: Column) -> Iterator[str]:
    value = f"t.{quote(column.name)}::int8"
    yield f"{value} & {_LOW}"
    if column.base == "int8":
        yield f"({value} >> 32) & {_LOW}"


def mixed(columns: Sequence[Column], xid: str) -> "pl.Expr":
    """Return the checksum of a row of the lake, which the sum in ``summary`` is compared with."""
    import polars as pl

    halves = [half for column in columns for half in _halves(column)]
    found = pl.lit(0, pl.Int64)
    for half in [*halves, pl.col(xid) & _LOW]:
        found = ((found * _FACTOR) % _PRIME) ^ half
    return found * _FACTOR % _MODULUS


def _halves(column: Column) -> "Iterator[pl.Expr]":
    import polars as pl

    value = pl.col(column.name).cast(pl.Int64)
    yield value & _LOW
    if column.base == "int8":
        yield (value // 2**32) & _LOW


def within(keys: KeyRange, column: Column, values: "pl.Expr") -> "pl.Expr":
    """Return the condition that stored values of the first key column are in a range."""
    import polars as pl

    def value(bound: Bound) -> int | str:
        return int(bound.text) if column.base in _INTEGERS else bound.text

    found = pl.lit(True)
    if lower := keys.lower:
        found &= values >= value(lower) if lower.inclusive else values > value(lower)
    if upper := keys.upper:
        found &= values <= value(upper) if upper.inclusive else values < value(upper)
    return found
