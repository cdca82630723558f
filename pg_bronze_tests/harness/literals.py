"""Columns, tables and watermarks as literals, for tests of the core that need no server."""

from pg_bronze.core.table import Column, Relation, SourceTable
from pg_bronze.core.watermark import Origin, Watermark

ORIGIN = Origin("7", 1, "0/FF", 5, "bronze")


def numeric(precision: int, scale: int) -> int:
    """Return the typmod of a ``numeric(p,s)``."""
    return (precision << 16 | scale & 0x7FF) + 4


def column(name="c", base="int4", typmod=-1, attnum=1, declared=None) -> Column:
    return Column(attnum, name, declared or base, base, typmod, not_null=False)


PRICE = column("price", "numeric", numeric(10, 2), declared="numeric(10,2)")


def table(schema="public", name="movie", columns=()) -> SourceTable:
    leaf = Relation(7, schema, name, 7, 3, 0)
    return SourceTable(7, schema, name, False, "films", columns or (column(),), ("c",), (leaf,), 5.0, None, "f")


def sized_table(*pages, oid=9, partitioned=None, rows=0.0, node=1) -> SourceTable:
    """Return a table with one relation of each number of blocks: itself, or its leaves with the oids 10, 11, …"""
    partitioned = len(pages) != 1 if partitioned is None else partitioned
    relations = tuple(
        Relation(10 + n if partitioned else oid, "public", f"movie_{n}" if partitioned else "movie", node, size, 0)
        for n, size in enumerate(pages)
    )
    key = Column(1, "movie_id", "integer", "int4", -1, not_null=True)
    return SourceTable(oid, "public", "movie", partitioned, None, (key,), (), relations, rows, None, "f")


def mark(leaves=None, **more) -> Watermark:
    """Return a watermark of ``sized_table``."""
    return Watermark(ORIGIN, 9, **more).with_leaves(leaves or {})
