"""The SQL of windows: the queries that read the row versions of a slice.

A row version carries the id of the transaction that wrote it (``xmin``, 32 bits); horizons have 64 bits. ``age()``
counts back from the next id, so a window narrower than 2^31 is exact across a wraparound of ids.

Belongs here: every query over a region. Does not belong here: regions as values (``region``), choosing one
(``planning``), the select list (``column_types``) and running a query (``postgres``).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pg_bronze.core.cells import Cell
from pg_bronze.core.region import Region
from pg_bronze.core.table import literal, quote
from pg_bronze.core.watermark import Seed

MASK = 4294967295
MAX_WIDTH = 2**31 - 10**6
# The next transaction id of the reading transaction, modulo 2^32: 3 is the first normal transaction id.
# Names are qualified, and text becomes a number by an input function instead of a cast: connectorx has a query
# described before its session is set up, and a database may have casts of its own, from text to integer for example.
NEXT = "(pg_catalog.age('3'::pg_catalog.xid)::pg_catalog.int8 + 3)"
TOO_LARGE = "pg_bronze: larger than a slice"  # the error text by which the readers recognize it
STALE = "pg_bronze: this snapshot is older than horizon"  # likewise
_SNAPSHOT_XMIN = "pg_catalog.int8in(pg_catalog.xid8out(pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())))"
_AGE = "pg_catalog.age(t.xmin)"
_XMIN = "pg_catalog.int8in(pg_catalog.xidout(t.xmin))"


def written(start: int | None, end: int) -> str:
    """Return the condition that a row version was written by a transaction in ``[start, end)``.

    Without a ``start`` there is no lower bound, because the age of a row frozen long ago is not meaningful. The upper
    age is tested first: almost all rows of a table are older, and "between" would test the other bound before it.
    """
    if start is None:
        return f"not ({_AGE} <= (select {_age_of(end)}) and {_AGE} >= 0)"
    return f"{_not_before(start)} and {_before(end)}"


def _age_of(xid: int) -> str:
    return f"({NEXT} - {xid}) & {MASK}"


# Each scalar sub-select is computed once per query; without it the arithmetic runs for every row.
def _not_before(start: int) -> str:
    return f"{_AGE} <= (select {_age_of(start)})"


def _before(end: int) -> str:
    return f"{_AGE} >= (select ({_age_of(end)}) + 1)"


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
        KeyError: The column of the bands or the seed does not exist. A query without it would read other rows.
    """
    conditions = [written(region.start, region.end)]
    if region.cells:
        conditions += _in_cells(region, names_by_attnum)
    if not region.only:
        # Excludes partitions that were attached after the plan was made.
        oids = ", ".join(f"'{oid}'::pg_catalog.oid" for oid in region.leaves)
        conditions.append(f"t.tableoid in ({oids})")
    if region.blocks is not None:
        first, end = region.blocks
        conditions += _places((first, region.lines[0]), None if end is None else (end, region.lines[1]))
    if region.seed is not None and not region.cells:
        conditions.append(_not_seeded(region.seed, names_by_attnum))
    return "\n  and ".join([*conditions, guard(region.end)])


def _not_seeded(seed: Seed, names_by_attnum: Mapping[int, str]) -> str:
    return f"(t.{quote(names_by_attnum[seed.attnum])} <= {literal(seed.value)}) is not true"


def _places(first: tuple[int, int], last: tuple[int, int] | None) -> Iterator[str]:
    yield f"t.ctid >= '({first[0]},{first[1]})'::pg_catalog.tid"
    if last is not None:
        yield f"t.ctid < '({last[0]},{last[1]})'::pg_catalog.tid"


def _in_cells(region: Region, names_by_attnum: Mapping[int, str]) -> Iterator[str]:
    """Yield what else holds for the rows of a region whose bands were delivered differently far.

    The bands are told apart in one case, highest first: NULL and NaN are above a floor exactly if PostgreSQL says so,
    and a row that is above none belongs to the lowest band. Conditions outside the case let an index find the rows.
    """
    order = region.order
    if order is None:
        raise ValueError("bands without an order")
    column = None if order.attnum is None else quote(names_by_attnum[order.attnum])

    def above(floor: str) -> str:
        if column is None:
            return f"t.ctid >= '({floor},0)'::pg_catalog.tid"
        return f"t.{column} > {literal(floor)}"

    edges = sorted({edge for cell in region.cells for edge in (cell.floor, cell.ceiling) if edge}, key=order.key)
    floors = [cell.floor for cell in region.cells if cell.floor is not None]
    ceilings = [cell.ceiling for cell in region.cells if cell.ceiling is not None]
    if len(floors) == len(region.cells):
        yield above(min(floors, key=order.key))
        edges = [edge for edge in edges if order.key(edge) > min(map(order.key, floors))]
    if column is None and len(ceilings) == len(region.cells):
        last = max(ceilings, key=order.key)
        yield f"t.ctid < '({last},0)'::pg_catalog.tid"
        edges = [edge for edge in edges if order.key(edge) < order.key(last)]

    def bounds_at(floor: str | None) -> str:
        return _bounds(region, _cells_at(region, floor, order.key), names_by_attnum)

    arms = [(above(edge), bounds_at(edge)) for edge in reversed(edges)]
    rest = bounds_at(min(floors, key=order.key) if len(floors) == len(region.cells) else None)
    if any(bounds != rest for _, bounds in arms):
        whens = " ".join(f"when {condition} then {bounds}" for condition, bounds in arms)
        yield f"case {whens} else {rest} end"
    elif rest != "true":
        yield rest


def _cells_at(region: Region, floor: str | None, key: Callable[[str], object]) -> list[Cell]:
    """Return the cells of the band just above a floor; of the lowest band for None."""

    def contains(cell: Cell) -> bool:
        if floor is None:
            return cell.floor is None
        starts = cell.floor is None or not key(floor) < key(cell.floor)  # type: ignore[operator]  # keys of one order
        return starts and (cell.ceiling is None or key(floor) < key(cell.ceiling))  # type: ignore[operator]  # the same

    return [cell for cell in region.cells if contains(cell)]


def _bounds(region: Region, cells: Sequence[Cell], names_by_attnum: Mapping[int, str]) -> str:
    """Return the condition of the cells of one band, as far as the window and places of the region do not imply it."""
    alternatives = [" and ".join(_bounds_of_cell(region, cell, names_by_attnum)) or "true" for cell in cells]
    return " or ".join(f"({text})" for text in alternatives) if len(cells) > 1 else next(iter(alternatives), "false")


def _bounds_of_cell(region: Region, cell: Cell, names_by_attnum: Mapping[int, str]) -> Iterator[str]:
    if region.seed is not None and cell.start is None:
        # What was copied before is bounded by a transaction; the seed excludes rows of the first load only.
        yield _not_seeded(region.seed, names_by_attnum)
    if (region.start is None and cell.start is not None) or (cell.start is None and cell.end != region.end):
        yield written(cell.start, cell.end)
    elif region.start is not None and cell.start is not None:
        if cell.start != region.start:
            yield _not_before(cell.start)
        if cell.end != region.end:
            yield _before(cell.end)
    first = (0, 0) if region.blocks is None else (region.blocks[0], region.lines[0])
    last = None if region.blocks is None or region.blocks[1] is None else (region.blocks[1], region.lines[1])
    if (cell.first, cell.last) != (first, last):
        yield from _places(cell.first, cell.last)


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
