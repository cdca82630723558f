"""The SQL of windows: the queries that read the row versions of a slice.

A row version carries the id of the transaction that wrote it (``xmin``, 32 bits); horizons have 64 bits. ``age()``
counts back from the next id, so a window narrower than 2^31 is exact across a wraparound of ids.

Belongs here: regions, and every query over one. Does not belong here: choosing a region (``planning``), the select
list (``column_types``) and running a query (``postgres``).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pg_bronze.core.table import literal, quote
from pg_bronze.core.watermark import Box, Seed

MASK = 4294967295
MAX_WIDTH = 2**31 - 10**6
# The next transaction id of the reading transaction, modulo 2^32: 3 is the first normal transaction id.
# Names are qualified, and text becomes a number by an input function instead of a cast: connectorx has a query
# described before its session is set up, and a database may have casts of its own, from text to integer for example.
NEXT = "(pg_catalog.age('3'::pg_catalog.xid)::pg_catalog.int8 + 3)"
TOO_LARGE = "pg_bronze: larger than a slice"  # the error text by which the readers recognize it
STALE = "pg_bronze: this snapshot is older than horizon"  # likewise
_SNAPSHOT_XMIN = "pg_catalog.int8in(pg_catalog.xid8out(pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())))"
HORIZON = f"select {_SNAPSHOT_XMIN}"
_XMIN = "pg_catalog.int8in(pg_catalog.xidout(t.xmin))"


@dataclass(frozen=True)
class Region:
    """The row versions of one slice.

    Attributes:
        schema: The schema of the relation that is read.
        name: The name of the relation: one leaf, or the root of a partitioned table.
        only: Whether that relation is read alone, without its partitions.
        leaves: The oids of the leaves whose rows the slice contains.
        start: The first transaction of the window ``[start, end)``; None for a first load, which has no lower bound.
        end: The first transaction after the window.
        box: What fresh reads delivered beyond ``start``.
        blocks: The half-open range of heap blocks, its end None for the end of the table; None for all blocks.
        seed: What a first load excludes.
        lines: The line pointers at which the range starts and ends in these blocks; both 0 for whole blocks.
    """

    schema: str
    name: str
    only: bool
    leaves: tuple[int, ...]
    start: int | None
    end: int
    box: Box | None = None
    blocks: tuple[int, int | None] | None = None
    seed: Seed | None = None
    lines: tuple[int, int] = (0, 0)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON, for claims and footers."""
        data = dataclasses.asdict(self)
        if self.lines == (0, 0):  # as in objects written before ranges could start inside a block
            del data["lines"]
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Return the region that ``to_json`` wrote."""
        values = dict(data)
        values["leaves"] = tuple(values["leaves"])
        values["blocks"] = tuple(values["blocks"]) if values["blocks"] else None
        values["lines"] = tuple(values.get("lines", (0, 0)))
        values["box"] = Box(**values["box"]) if values["box"] else None
        values["seed"] = Seed(**values["seed"]) if values["seed"] else None
        return cls(**values)


def describe_region(region: Region) -> str:
    """Describe the rows of a region in words, for the footer of an object."""
    if region.start is None:
        text = f"the row versions written by transactions before {region.end} (the first load)"
    else:
        text = f"the row versions written by transactions in [{region.start}, {region.end})"
    if region.blocks is not None:
        text += _describe_blocks(region.blocks, region.lines)
    if region.seed is not None:
        text += ", without those that the original system had copied"
    return f"{text}, that were current when they were read"


def _describe_blocks(blocks: tuple[int, int | None], lines: tuple[int, int]) -> str:
    first, end = blocks
    if lines != (0, 0):
        upper = "" if end is None else f" and before ({end},{lines[1]})"
        return f", with a ctid at or after ({first},{lines[0]}){upper}"
    return f", in blocks [{first}, {end}) of the table" if end is not None else f", in blocks from {first} on"


def written(start: int | None, end: int) -> str:
    """Return the condition that a row version was written by a transaction in ``[start, end)``.

    Without a ``start`` there is no lower bound, because the age of a row frozen long ago is not meaningful.
    """
    # Each scalar sub-select is computed once per query; without it the arithmetic runs for every row.
    if start is None:
        return f"not pg_catalog.age(t.xmin) between 0 and (select ({NEXT} - {end}) & {MASK})"
    lowest, highest = f"(({NEXT} - {end}) & {MASK}) + 1", f"({NEXT} - {start}) & {MASK}"
    return f"pg_catalog.age(t.xmin) between (select {lowest}) and (select {highest})"


def guard(end: int) -> str:
    """Return the condition that fails with an error if the reading snapshot is older than the horizon ``end``.

    A lagging standby, a pooler or an old transaction would otherwise miss rows without an error. The cast fails before
    any row is read, also on an empty table: the sub-select is an init plan.
    """
    fresh = f"{_SNAPSHOT_XMIN} >= {end} and (({NEXT} - {end}) & {MASK}) < 2147483648"
    return f"(select {_failing(fresh, f'{STALE} {end}')}) = 1"


def _failing(condition: str, text: str) -> str:
    """Return an expression that is 1 if the condition is true, and fails with an error that quotes the text if not."""
    return f"pg_catalog.int4in(pg_catalog.textout(case when {condition} then '1' else '{text}' end))"


def transaction_id(end: int) -> str:
    """Return the expression for the 64-bit id of the transaction that wrote a row version, which is below ``end``."""
    return f"({end - 1} - (({end - 1} - {_XMIN}) & {MASK}))::pg_catalog.int8"


def where(region: Region, names_by_attnum: Mapping[int, str]) -> str:
    """Return the complete condition of a region, including the guard.

    Raises:
        KeyError: The column of the box or the seed does not exist. A query without it would read other rows.
    """
    conditions = [_window(region, names_by_attnum)]
    if not region.only:
        # Excludes partitions that were attached after the plan was made.
        oids = ", ".join(f"'{oid}'::pg_catalog.oid" for oid in region.leaves)
        conditions.append(f"t.tableoid in ({oids})")
    if region.blocks is not None:
        first, end = region.blocks
        conditions.append(f"t.ctid >= '({first},{region.lines[0]})'::pg_catalog.tid")
        if end is not None:
            conditions.append(f"t.ctid < '({end},{region.lines[1]})'::pg_catalog.tid")
    if region.seed is not None:
        column = quote(names_by_attnum[region.seed.attnum])
        conditions.append(f"(t.{column} <= {literal(region.seed.value)}) is not true")
    return "\n  and ".join([*conditions, guard(region.end)])


def _window(region: Region, names_by_attnum: Mapping[int, str]) -> str:
    swept = written(region.start, region.end)
    if region.box is None or region.box.floor is None:
        return swept
    column = quote(names_by_attnum[region.box.attnum])
    # "is not true" instead of "<=", because a NULL cursor value belongs to the part below the floor.
    above = f"(t.{column} > {literal(region.box.floor)})"
    return f"(({above} and {written(region.box.upto, region.end)}) or ({above} is not true and {swept}))"


def relation(region: Region) -> str:
    """Return the FROM item of a region: ``only "public"."movie" t``."""
    return f"{'only ' if region.only else ''}{quote(region.schema)}.{quote(region.name)} t"


@dataclass(frozen=True)
class ByteLimit:
    """The most bytes that a query may return, as the sum of ``widths``; its first row is returned at any size."""

    size_bytes: int
    widths: Sequence[str]


def select(
    region: Region,
    projection: str,
    xid_column: str,
    names_by_attnum: Mapping[int, str],
    row_limit: int | None,
    byte_limit: ByteLimit | None = None,
) -> str:
    """Return the query of one slice: the projected columns, and the transaction id as the last column.

    Args:
        region: The rows to read.
        projection: The select list; empty for a table without columns.
        xid_column: The name of the transaction id column.
        names_by_attnum: The columns of the table.
        row_limit: The most rows to return; None for all.
        byte_limit: Makes the query fail with ``TOO_LARGE`` once its rows exceed the limit. That takes one scan, where
            ``measure`` before the read takes two, but a third more time per row: faster for mostly empty windows.
    """
    source, condition = relation(region), where(region, names_by_attnum)
    if byte_limit is not None:
        source, condition = _limited(source, condition, list(names_by_attnum.values()), byte_limit)
    xid = f"{transaction_id(region.end)} as {quote(xid_column)}"
    columns = f"{projection},\n  {xid}" if projection else xid
    query = f"select {columns}\nfrom {source}\nwhere {condition}\n"
    return query if row_limit is None else f"{query}limit {row_limit}\n"


def _limited(source: str, condition: str, names: Sequence[str], limit: ByteLimit) -> tuple[str, str]:
    """Return the FROM item and the condition that add up the width of the rows and fail beyond the limit."""
    columns = ", ".join(f"t.{quote(name)}" for name in names)
    width, total = (quote(_unused_name(name, names)) for name in ("_pg_width", "_pg_total"))
    inner = (
        f"select {columns}, t.xmin, w.width as {width},\n"
        f"    pg_catalog.sum(w.width) over (rows unbounded preceding) as {total}\n  from {source}\n"
        f"  cross join lateral (select {_sum(limit.widths)} as width) w\n  where {condition}"
    )
    within = f"t.{total} <= {limit.size_bytes}::pg_catalog.numeric or t.{total} = t.{width}::pg_catalog.numeric"
    return f"({inner}) t", f"{_failing(within, TOO_LARGE)} = 1"


def measure(region: Region, widths: Sequence[str], names_by_attnum: Mapping[int, str]) -> str:
    """Return the query for the number of rows of a region, and the sum of their ``widths`` in bytes."""
    total = f"coalesce(pg_catalog.sum({_sum(widths)}), 0)::pg_catalog.int8"
    return f"select pg_catalog.count(*), {total}\nfrom {relation(region)}\nwhere {where(region, names_by_attnum)}\n"


def _sum(widths: Sequence[str]) -> str:
    return (
        "(" + (" + ".join(f"coalesce({width}, 0)::pg_catalog.int8" for width in widths) or "0::pg_catalog.int8") + ")"
    )


def _unused_name(name: str, taken: Sequence[str]) -> str:
    while name in taken:
        name += "_"
    return name


# Matches the hexadecimal digits of valid UTF-8, as defined in RFC 3629.
_UTF8 = (
    "^([0-7].|(c[2-9a-f]|d.)[89ab].|e0[ab].[89ab].|(e[1-9abcef][89ab].|ed[89].)[89ab]."
    "|(f0[9ab].|f[1-3][89ab].|f48.)([89ab].){2})*$"
)


def is_utf8(expression: str) -> str:
    """Return the condition that a text can be sent as UTF-8; only SQL_ASCII can contain others."""
    return f"(pg_catalog.getdatabaseencoding() <> 'SQL_ASCII' or {_hexadecimal(expression)} ~ '{_UTF8}')"


def _hexadecimal(expression: str) -> str:
    return f"pg_catalog.encode(pg_catalog.convert_to({expression}, 'SQL_ASCII'), 'hex')"


def not_utf8(region: Region, text_columns: Sequence[str], names_by_attnum: Mapping[int, str]) -> str:
    """Return the query for the number of rows of a region with invalid UTF-8, for each of the text columns.

    Only a database with the encoding SQL_ASCII can contain such rows; in any other the counts are 0.
    """
    texts = (_hexadecimal(f"pg_catalog.concat(t.{quote(name)})") for name in text_columns)
    counts = ",\n  ".join(f"pg_catalog.count(*) filter (where {text} !~ '{_UTF8}')" for text in texts)
    return (
        f"select {counts}\nfrom {relation(region)}\n"
        f"where pg_catalog.getdatabaseencoding() = 'SQL_ASCII' and {where(region, names_by_attnum)}\n"
    )


def evaluate(region: Region, projection: str, names_by_attnum: Mapping[int, str]) -> str:
    """Return the query that evaluates a select list for every row of a region and returns the number of rows."""
    inner = f"select {projection} from {relation(region)} where {where(region, names_by_attnum)}"
    return f"select pg_catalog.count(s) from ({inner}) s"  # the whole row, so that no expression is left out


def exists(region: Region, names_by_attnum: Mapping[int, str]) -> str:
    """Return the query for whether a region contains any row."""
    return f"select exists (select 1 from {relation(region)} where {where(region, names_by_attnum)})"
