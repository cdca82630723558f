"""Windows: which row versions of a table a slice holds, and the SQL that reads them.

A row version carries the id of the transaction that wrote it (``xmin``, 32 bits) and keeps it. Horizons are the
64-bit ids of PostgreSQL's snapshots. ``age()`` bridges the two: it counts back from the next id of the reading
transaction, so a window stays exact across the wrap-around as long as it is narrower than 2^31.

No connection, no clock, no Dagster: everything here is tested with literals.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pg_bronze.core.table import literal, quote
from pg_bronze.core.watermark import Box, Seed

MASK = 4294967295
MAX_WIDTH = 2**31 - 10**6
# The next transaction id as the reading transaction sees it, modulo 2^32: 3 is the first id ever handed out.
NEXT = "(age('3'::xid)::bigint + 3)"
TOO_LARGE = "pg_bronze: larger than a slice"
HORIZON = "select pg_snapshot_xmin(pg_current_snapshot())::text::bigint"


@dataclass(frozen=True)
class Region:
    """The row versions one slice holds, of the physical tables ``leaves``.

    Written by transactions in ``[start, end)``; ``start`` None is the first load, which leaves out only ``end`` and
    later. ``blocks`` is a half-open range of heap blocks, its second end None for "to the end of the table". ``lines``
    are the line pointers at which it begins in its first block and ends in the second: both 0 for whole blocks.
    ``schema`` and ``name`` say what to read from: one leaf alone (``only``), or the root of them all.
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
        """Plain JSON, for claims and footers."""
        data = dataclasses.asdict(self)
        if self.lines == (0, 0):  # as it was written before blocks could be divided
            del data["lines"]
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of ``to_json``."""
        given = dict(data)
        given["leaves"] = tuple(given["leaves"])
        given["blocks"] = tuple(given["blocks"]) if given["blocks"] else None
        given["lines"] = tuple(given.get("lines", (0, 0)))
        given["box"] = Box(**given["box"]) if given["box"] else None
        given["seed"] = Seed(**given["seed"]) if given["seed"] else None
        return cls(**given)


def in_words(region: Region) -> str:
    """Say what a region holds, for a person who has nothing but the file."""
    if region.start is None:
        text = f"the row versions written by transactions before {region.end} (the first load)"
    else:
        text = f"the row versions written by transactions in [{region.start}, {region.end})"
    if region.blocks is not None:
        text += _blocks_in_words(region.blocks, region.lines)
    if region.seed is not None:
        text += ", without those the original system had copied"
    return f"{text}, that were current when they were read"


def _blocks_in_words(blocks: tuple[int, int | None], lines: tuple[int, int]) -> str:
    first, end = blocks
    if lines != (0, 0):
        upto = "" if end is None else f" and before ({end},{lines[1]})"
        return f", at ({first},{lines[0]}) or later{upto} by their ctid"
    return f", in blocks [{first}, {end}) of the table" if end is not None else f", from block {first} on"


def written(start: int | None, end: int) -> str:
    """SQL: the row version was written by a transaction in ``[start, end)``, or by any before ``end``."""
    # The scalar sub-selects are computed once per query; without them age() arithmetic runs for every row.
    if start is None:
        return f"not age(t.xmin) between 0 and (select ({NEXT} - {end}) & {MASK})"
    return f"age(t.xmin) between (select (({NEXT} - {end}) & {MASK}) + 1) and (select ({NEXT} - {start}) & {MASK})"


def guard(end: int) -> str:
    """SQL: true, or an error when the reading snapshot is older than the horizon ``end``.

    A lagging standby, a pooler or a stale transaction would otherwise miss rows in silence. The cast fails before any
    row is read, on an empty table too: the sub-select is an initialisation plan.
    """
    return (
        "(select (case when pg_snapshot_xmin(pg_current_snapshot())::text::bigint >= "
        f"{end} and (({NEXT} - {end}) & {MASK}) < 2147483648 "
        f"then '1' else 'pg_bronze: this snapshot is older than horizon {end}' end)::int) = 1"
    )


def transaction_id(end: int) -> str:
    """SQL: the 64-bit id of the transaction that wrote the row version, given that it lies below ``end``."""
    return f"({end - 1} - (({end - 1} - t.xmin::text::bigint) & {MASK}))::bigint"


def where(region: Region, column_names: Mapping[int, str]) -> str:
    """The complete condition of a region, guard included.

    ``column_names`` maps attnum to name; a box or seed whose column is gone raises KeyError.
    """
    window = written(region.start, region.end)
    if region.box is not None and region.box.floor is not None:
        column = quote(column_names[region.box.attnum])
        # "is not true" and not its opposite: a NULL cursor belongs to the part below the floor.
        above = f"(t.{column} > {literal(region.box.floor)})"
        fresh = f"({above} and {written(region.box.upto, region.end)})"
        window = f"({fresh} or ({above} is not true and {window}))"
    parts = [window]
    if not region.only:
        # A partition attached since the plan was made is not this slice's.
        parts.append(f"t.tableoid in ({', '.join(str(oid) for oid in region.leaves)})")
    if region.blocks is not None:
        first, last = region.blocks
        parts.append(f"t.ctid >= '({first},{region.lines[0]})'::tid")
        if last is not None:
            parts.append(f"t.ctid < '({last},{region.lines[1]})'::tid")
    if region.seed is not None:
        column = quote(column_names[region.seed.attnum])
        parts.append(f"(t.{column} <= {literal(region.seed.value)}) is not true")
    return "\n  and ".join([*parts, guard(region.end)])


def relation(region: Region) -> str:
    """What a region is read from, quoted: ``only "public"."movie" t``."""
    return f"{'only ' if region.only else ''}{quote(region.schema)}.{quote(region.name)} t"


@dataclass(frozen=True)
class Bound:
    """The most bytes a query may give, counted as ``widths`` add up; its first row comes whatever it holds."""

    size_bytes: int
    widths: Sequence[str]


def select(
    region: Region,
    projection: str,
    xid_column: str,
    column_names: Mapping[int, str],
    row_limit: int | None,
    bound: Bound | None = None,
) -> str:
    """The query of one slice: the projected columns, the transaction id last, at most ``row_limit`` rows.

    With a ``bound`` it fails as soon as its rows are larger. That takes one look at the table, where asking ``measure``
    first takes two, but a third more time for every row that is found: right for windows that are mostly empty.
    """
    xid = f"{transaction_id(region.end)} as {quote(xid_column)}"
    found, condition = relation(region), where(region, column_names)
    if bound is not None:
        columns = ", ".join(f"t.{quote(name)}" for name in column_names.values())
        width, total = (quote(_free(name, column_names)) for name in ("_pg_width", "_pg_total"))
        inner = (
            f"select {columns}, t.xmin, w.width as {width},\n"
            f"    sum(w.width) over (rows unbounded preceding) as {total}\n  from {found}\n"
            f"  cross join lateral (select {_added(bound.widths)} as width) w\n  where {condition}"
        )
        found = f"({inner}) t"
        condition = (
            f"(case when t.{total} <= {bound.size_bytes} or t.{total} = t.{width} then '1' else '{TOO_LARGE}' end)::int"
            " = 1"
        )
    listed = f"{projection},\n  {xid}" if projection else xid  # a table may have rows and no column
    query = f"select {listed}\nfrom {found}\nwhere {condition}\n"
    return query if row_limit is None else f"{query}limit {row_limit}\n"


def measure(region: Region, widths: Sequence[str], column_names: Mapping[int, str]) -> str:
    """The query that counts a region's rows and adds up the bytes of its columns that may be wide."""
    return (
        f"select count(*), coalesce(sum({_added(widths)}), 0)::bigint\nfrom {relation(region)}\n"
        f"where {where(region, column_names)}\n"
    )


def _added(widths: Sequence[str]) -> str:
    return "(" + (" + ".join(f"coalesce({width}, 0)::bigint" for width in widths) or "0::bigint") + ")"


def _free(name: str, column_names: Mapping[int, str]) -> str:
    while name in column_names.values():
        name += "_"
    return name


# The hexadecimal digits of a valid UTF-8 text, as RFC 3629 has it.
_UTF8 = (
    "^([0-7].|(c[2-9a-f]|d.)[89ab].|e0[ab].[89ab].|(e[1-9abcef][89ab].|ed[89].)[89ab]."
    "|(f0[9ab].|f[1-3][89ab].|f48.)([89ab].){2})*$"
)


def not_utf8(region: Region, text_columns: Sequence[str], column_names: Mapping[int, str]) -> str:
    """The query that counts, for each column, the rows of a region whose text is not UTF-8 in a SQL_ASCII database."""
    counts = ",\n  ".join(
        f"count(*) filter (where encode(convert_to(t.{quote(name)}::text, 'SQL_ASCII'), 'hex') !~ '{_UTF8}')"
        for name in text_columns
    )
    return (
        f"select {counts}\nfrom {relation(region)}\n"
        f"where getdatabaseencoding() = 'SQL_ASCII' and {where(region, column_names)}\n"
    )


def exists(region: Region, column_names: Mapping[int, str]) -> str:
    """The query that says whether a region holds any row at all."""
    return f"select exists (select 1 from {relation(region)} where {where(region, column_names)})"
