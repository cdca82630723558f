"""Drift: how an object's columns differ from those of the object before it, and what rows copied before hold instead.

Knows one table's watermarks and the objects behind them; which columns a table has it is told.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pg_bronze.core import column_types, cursor_column, window_sql
from pg_bronze.core import drift as column_drift
from pg_bronze.core.cursor_column import CursorColumn
from pg_bronze.core.drift import Description
from pg_bronze.core.table import Column, SourceTable
from pg_bronze.core.watermark import Watermark
from pg_bronze.errors import SettingsError
from pg_bronze.lake.ledger import Ledger
from pg_bronze.postgres.connection import Source

# Blocks looked through, from the beginning and from the middle, for a row copied before a column was there. After a
# rewrite that gave every row a new version there is none, and the table may be a terabyte.
SAMPLED_BLOCKS = 2000


@dataclass(frozen=True)
class ColumnSnapshot:
    """What an object says of its columns, and ``drift``: one sentence for each difference from the object before.

    ``cursor_moved``: the column that shows progress is another one than it was then. ``leaves`` are the physical tables
    behind the table.
    """

    description: Description
    drift: tuple[str, ...] = ()
    cursor_moved: bool = False
    leaves: frozenset[int] = frozenset()

    def onto(self, after: Watermark, before: Watermark) -> Watermark:
        """``after`` as the watermark of the object that was looked at, and which follows ``before``."""
        gone = frozenset(after.leaves.keys() - self.leaves)
        return dataclasses.replace(after.with_columns(self.description.digest, before), detached=gone)


class ColumnHistory:
    """Describes the objects of one table one after the other; asks the bucket only when something has changed."""

    def __init__(self, source: Source, ledger: Ledger, cursor_names: Sequence[str], wanted: str | None) -> None:
        self._source = source
        self._ledger = ledger
        self._cursor_names = cursor_names
        self._wanted_cursor = wanted
        self._known: dict[str, Description] = {}

    def look(self, before: Watermark, after: Watermark, table: SourceTable) -> ColumnSnapshot:
        """Describe the object that leads from one watermark to the next, and has the columns of ``table``.

        A new generation starts over: nothing of the one before is compared.
        """
        found = self._compared(before, after, table)
        self._known[found.description.digest] = found.description
        leaves = frozenset(relation.oid for relation in table.relations)
        return dataclasses.replace(found, drift=(*found.drift, *_partitions(before, after, table)), leaves=leaves)

    def _compared(self, before: Watermark, after: Watermark, table: SourceTable) -> ColumnSnapshot:
        described = column_drift.describe_table(table)
        if not before.seq or before.generation != after.generation or described.digest == before.columns_digest:
            return ColumnSnapshot(described)
        previous = self._before(before)
        if previous is None:
            return ColumnSnapshot(described)
        filled = self._fill(before, previous, table)
        if filled:
            columns = tuple(
                {**column, "missing": filled[column["attnum"]]} if column["attnum"] in filled else column
                for column in described.columns
            )
            described = dataclasses.replace(described, columns=columns)
        was, now = self._progress(previous, table), self._cursor(table)
        moved = (was.attnum if was else None) != (now.attnum if now else None)
        drift = column_drift.drift(previous, described)
        if moved:
            drift += (f"progress is shown by {_name(now)} now, before by {_name(was)}",)
        return ColumnSnapshot(described, drift, moved)

    def _before(self, watermark: Watermark) -> Description | None:
        """The columns of the object that committed a watermark; None if it is gone, or moved away."""
        known = self._known.get(watermark.columns_digest)
        if known is not None:
            return known
        footer = self._ledger.footer(watermark.key) if watermark.key else None
        return footer.described if footer else None

    def _progress(self, previous: Description, table: SourceTable) -> CursorColumn | None:
        columns, key = previous.source_columns, previous.primary_key
        return self._cursor(dataclasses.replace(table, columns=columns, primary_key=key))

    def _cursor(self, table: SourceTable) -> CursorColumn | None:
        try:
            return cursor_column.choose(table, self._cursor_names, self._wanted_cursor)
        except SettingsError:
            return None  # the setting became right or wrong with the change; copying says so by itself

    def _fill(self, before: Watermark, previous: Description, table: SourceTable) -> dict[int, str]:
        """The value that rows copied before hold in columns they did not have then, where the catalog does not say it.

        The catalog forgets a default once VACUUM FULL or CLUSTER has put it into every row, and such rows do not come
        again. It keeps it for each partition only, and not for the whole. A row copied before and still current shows
        it: whoever changed it since would have made a new version of it.
        """
        had = {column["attnum"] for column in previous.columns}
        new = [column for column in table.columns if column.attnum not in had]
        wanted = [column for column in new if column.missing is None and column.generated is None]
        if not wanted:
            return {}
        row = next((row for region in _delivered(before, table) if (row := self._row(region, wanted, table))), None)
        if row is None:
            return {}
        return {column.attnum: value for column, value in zip(wanted, row, strict=True) if value is not None}

    def _row(self, region: window_sql.Region, columns: Sequence[Column], table: SourceTable) -> tuple[str | None, ...]:
        names = {column.attnum: column.name for column in table.columns}
        texts = column_types.projection(columns, as_text=True)
        rows = self._source.ask(window_sql.select(region, texts, column_types.xid_column(table.columns), names, 1))
        return rows[0][:-1] if rows else ()


def _partitions(before: Watermark, after: Watermark, table: SourceTable) -> Iterator[str]:
    """Partitions that came since the object before, and those that went."""
    known = [leaf.swept for leaf in before.leaves.values() if leaf.swept is not None]
    if not table.partitioned or before.generation != after.generation or not known:
        return
    present = {relation.oid: relation for relation in table.relations}
    for oid in sorted(present):
        leaf = after.leaf(oid)
        # All partitions of a first load are read up to the same transaction.
        fresh = oid not in before.leaves and (leaf.swept or (leaf.pending and leaf.pending.upto) or 0) > max(known)
        if fresh:
            yield f"partition {present[oid].name!r} is new, and copied from its beginning"
        if oid in before.detached:
            yield f"partition {present[oid].name!r} is part of the table again"
    for oid in sorted(before.leaves.keys() - present.keys() - before.detached):
        yield f"a partition (oid {oid}) is not part of the table any more; its rows copied before stay"


def _name(column: CursorColumn | None) -> str:
    return repr(column.name) if column else "no column"


def _delivered(watermark: Watermark, table: SourceTable) -> Iterator[window_sql.Region]:
    """Parts of the table that hold rows copied up to a watermark, if any are left."""
    for relation in table.relations:
        leaf = watermark.leaf(relation.oid)
        end, last = leaf.swept, relation.page_count
        if leaf.swept is None and leaf.pending is not None:
            end, last = leaf.pending.upto, leaf.pending.block
        if end is None:
            continue
        for first in dict.fromkeys((0, last // 2)):
            blocks = (first, min(first + SAMPLED_BLOCKS, last))
            yield window_sql.Region(relation.schema, relation.name, True, (relation.oid,), None, end, blocks=blocks)
