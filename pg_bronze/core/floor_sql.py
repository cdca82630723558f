"""The SQL of floors: the value below the newest rows of a table, in the order that divides them.

Belongs here: the queries for a floor. Does not belong here: when a floor is set or moved (``band_planning``), and the
reads above it (``window_sql``).
"""

from pg_bronze.core.leaf import Order
from pg_bronze.core.table import SourceTable, quote

_INTEGERS = frozenset({"int2", "int4", "int8"})


def at_rank(table: SourceTable, order: Order, rank: int) -> str:
    """Return the query for the value below about ``rank`` of the newest finite values; no row if there are fewer.

    A date is the same for all rows of a day, so the floor is the day before that of the ranked row: otherwise the rows
    of today would be below it.
    """
    value = f"select t.{_column(table, order)} as value\n  {_newest_first(table, order)}\n  offset {rank} limit 1"
    if order.type != "date":
        return f"select pg_catalog.concat(v.value)\nfrom ({value}) v"
    return (
        f"select pg_catalog.concat(b.value)\nfrom ({value}) v, lateral (\n"
        f"  select t.{_column(table, order)} as value\n  from {_source(table)}\n"
        f"  where t.{_column(table, order)} < v.value{_finite(table, order, 'and')}\n"
        f"  order by t.{_column(table, order)} desc limit 1) b"
    )


def newest(table: SourceTable, order: Order) -> str:
    """Return the query for the newest finite value; no row if there is none."""
    value = f"select t.{_column(table, order)} as value\n  {_newest_first(table, order)}\n  limit 1"
    return f"select pg_catalog.concat(v.value)\nfrom ({value}) v"


def _newest_first(table: SourceTable, order: Order) -> str:
    condition = _finite(table, order, "where")
    present = condition or f"\n  where t.{_column(table, order)} is not null"
    return f"from {_source(table)}{present}\n  order by t.{_column(table, order)} desc"


def _finite(table: SourceTable, order: Order, word: str) -> str:
    """Return the condition that excludes NULL, NaN and infinite values, which no floor may be."""
    if order.type in _INTEGERS:
        return ""
    column = f"t.{_column(table, order)}"
    return f"\n  {word} {column} < 'infinity' and {column} > '-infinity'"


def _column(table: SourceTable, order: Order) -> str:
    if order.attnum is None:
        raise ValueError("block numbers need no query")
    return quote(table.names_by_attnum[order.attnum])


def _source(table: SourceTable) -> str:
    return f"{'' if table.partitioned else 'only '}{table.sql} t"
