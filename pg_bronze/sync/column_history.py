"""Column history: how an object's columns differ from those of the object before it, and what older rows contain.

Knows the watermarks of one table and the objects behind them. It is told which columns the table has.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pg_bronze.core import column_choices, column_types, cursor_column, window_sql
from pg_bronze.core import drift as column_drift
from pg_bronze.core.cursor_column import CursorColumn
from pg_bronze.core.drift import Description
from pg_bronze.core.region import Region
from pg_bronze.core.table import Column, SourceTable
from pg_bronze.core.watermark import Watermark
from pg_bronze.errors import SettingsError
from pg_bronze.lake.ledger import Ledger
from pg_bronze.postgres.connection import Source

# Blocks that are searched, from the start and from the middle, for a row copied before a column was added. After a
# rewrite that made a new version of every row there is none, and the table may be a terabyte.
SAMPLED_BLOCKS = 2000


@dataclass(frozen=True)
class ColumnSnapshot:
    """The columns of one object, and how they differ from those of the object before it.

    Attributes:
        description: The columns as the object's footer describes them.
        drift: One sentence for each difference.
        cursor_moved: Another column shows progress than in the object before.
        leaves: The oids of the physical tables behind the table.
    """

    description: Description
    drift: tuple[str, ...] = ()
    cursor_moved: bool = False
    leaves: frozenset[int] = frozenset()

    def add_to(self, after: Watermark, before: Watermark) -> Watermark:
        """Return ``after``, which follows ``before``, with these columns and the leaves that are detached now."""
        detached = frozenset(after.leaves.keys() - self.leaves)
        return dataclasses.replace(after.with_columns(self.description.digest, before), detached=detached)


class ColumnHistory:
    """Describes the objects of one table one after the other; reads from the bucket only after a change."""

    def __init__(self, source: Source, ledger: Ledger, cursor_names: Sequence[str], configured: str | None) -> None:
        self._source = source
        self._ledger = ledger
        self._cursor_names = cursor_names
        self._configured_cursor = configured
        self._known: dict[str, Description] = {}

    def describe(self, before: Watermark, after: Watermark, table: SourceTable) -> ColumnSnapshot:
        """Describe the object that leads from one watermark to the next and has the columns of ``table``.

        A new generation is not compared with the one before.
        """
        snapshot = self._compare(before, after, table)
        self._known[snapshot.description.digest] = snapshot.description
        drift = (*snapshot.drift, *_partition_changes(before, after, table))
        leaves = frozenset(relation.oid for relation in table.relations)
        return dataclasses.replace(snapshot, drift=drift, leaves=leaves)

    def _compare(self, before: Watermark, after: Watermark, table: SourceTable) -> ColumnSnapshot:
        described = column_drift.describe_table(table)
        if not before.seq or before.generation != after.generation or described.digest == before.columns_digest:
            return ColumnSnapshot(described)
        previous = self._description_of(before)
        if previous is None:
            return ColumnSnapshot(described)
        if problem := column_choices.uncovered_by_rename(previous, table):
            raise SettingsError(problem)
        described = _with_missing_values(described, self._missing_values(before, previous, table))
        drift = column_drift.drift(previous, described)
        old, new = self._previous_cursor(previous, table), self._cursor(table)
        moved = (old.attnum if old else None) != (new.attnum if new else None)
        if moved:
            drift += (f"progress is shown by {_name(new)} now, before by {_name(old)}",)
        return ColumnSnapshot(described, drift, moved)

    def _description_of(self, watermark: Watermark) -> Description | None:
        """Return the columns of the object that committed a watermark; None if it is missing or was moved away."""
        known = self._known.get(watermark.columns_digest)
        if known is not None:
            return known
        footer = self._ledger.footer(watermark.key) if watermark.key else None
        return footer.described if footer else None

    def _previous_cursor(self, previous: Description, table: SourceTable) -> CursorColumn | None:
        columns, key = previous.source_columns, previous.primary_key
        return self._cursor(dataclasses.replace(table, columns=columns, primary_key=key))

    def _cursor(self, table: SourceTable) -> CursorColumn | None:
        try:
            return cursor_column.choose(table, self._cursor_names, self._configured_cursor)
        except SettingsError:
            return None  # the setting is wrong on one side of the change only; choosing it for the copy raises

    def _missing_values(self, before: Watermark, previous: Description, table: SourceTable) -> dict[int, str]:
        """Return by attnum the value that older rows have in columns added since, where the catalog does not keep it.

        The catalog drops a default once VACUUM FULL or CLUSTER has put it into every row, and such rows are not copied
        again. For a partitioned table it keeps the default of each partition only. A row that was copied before and is
        still current has the value: a change of the row would have made a new version.
        """
        # A column that was excluded has other values in other rows.
        old = {column["attnum"] for column in previous.columns} | previous.excluded.keys()
        added = [column for column in table.columns if column.attnum not in old]
        unknown = [column for column in added if column.missing is None and column.generated is None]
        if not unknown:
            return {}
        rows = (self._sample_row(region, unknown, table) for region in _copied_regions(before, table))
        row = next(filter(None, rows), ())
        return {column.attnum: value for column, value in zip(unknown, row, strict=False) if value is not None}

    def _sample_row(self, region: Region, columns: Sequence[Column], table: SourceTable) -> tuple[str | None, ...]:
        names = {column.attnum: column.name for column in table.columns}
        texts = column_types.projection(columns, as_text=True)
        query = window_sql.select(region, texts, column_types.xid_column(table.columns), names, 1)
        rows = self._source.ask(query)
        return rows[0][:-1] if rows else ()


def _with_missing_values(described: Description, values: dict[int, str]) -> Description:
    if not values:
        return described
    columns = tuple(
        {**column, "missing": values[column["attnum"]]} if column["attnum"] in values else column
        for column in described.columns
    )
    return dataclasses.replace(described, columns=columns)


def _partition_changes(before: Watermark, after: Watermark, table: SourceTable) -> Iterator[str]:
    """Yield one sentence for each partition that was attached or detached since the object before."""
    known = [leaf.highest for leaf in before.leaves.values() if leaf.highest is not None]
    if not table.partitioned or before.generation != after.generation or not known:
        return
    present = {relation.oid: relation for relation in table.relations}
    for oid in sorted(present):
        # All partitions of a first load are read up to the same transaction.
        upto = after.leaf(oid).highest or 0
        if oid not in before.leaves and upto > max(known):
            yield f"partition {present[oid].name!r} is new, and is copied completely"
        if oid in before.detached:
            yield f"partition {present[oid].name!r} is attached again"
    for oid in sorted(before.leaves.keys() - present.keys() - before.detached):
        yield f"a partition (oid {oid}) was detached or dropped; its rows copied before remain"


def _name(column: CursorColumn | None) -> str:
    return repr(column.name) if column else "no column"


def _copied_regions(watermark: Watermark, table: SourceTable) -> Iterator[Region]:
    """Yield parts of the table that contain rows copied up to a watermark, if there are any left."""
    for relation in table.relations:
        leaf = watermark.leaf(relation.oid)
        end, last = leaf.swept, relation.page_count
        if leaf.swept is None and leaf.sweep is not None:
            end, last = leaf.sweep.upto, leaf.sweep.block
        if end is None:
            continue
        for first in dict.fromkeys((0, last // 2)):
            blocks = (first, min(first + SAMPLED_BLOCKS, last))
            yield Region(relation.schema, relation.name, True, (relation.oid,), None, end, blocks=blocks)
