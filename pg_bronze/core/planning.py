"""Planning: which rows of a table the next slice reads.

Belongs here: the decision, made from the watermark, the table as it is now and the horizon. Does not belong here:
reads and writes, the SQL of a window (``window_sql``), how much one slice may contain (``slice_size``), and whether the
watermark still belongs to this database (``history_check``). ``sync`` calls ``plan`` once per slice.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field

from pg_bronze.core import band_steps
from pg_bronze.core.history_check import horizon_below_watermark
from pg_bronze.core.leaf import Leaf, Sweep
from pg_bronze.core.region import Region, with_difference
from pg_bronze.core.slice_size import EMPTY_BLOCKS_PER_COMMIT, SliceSize
from pg_bronze.core.table import Relation, SourceTable, shell_argument
from pg_bronze.core.watermark import Watermark
from pg_bronze.core.window_sql import MAX_WIDTH
from pg_bronze.errors import OperatorError

# An empty object closes the window of a quiet table long before it reaches 2^31 transactions.
HEARTBEAT_WIDTH = 2**30


@dataclass(frozen=True)
class Read:
    """Read ``region``; once its rows are committed, the watermark is ``after``.

    ``must_commit``: commit an object even if the region has no rows, because it ends or advances a pending window.
    """

    region: Region
    after: Watermark
    must_commit: bool = False


@dataclass(frozen=True)
class Quiet:
    """There is nothing to read; ``reason`` is a sentence for an operator."""

    reason: str


@dataclass(frozen=True)
class NewGeneration:
    """The copied rows no longer describe the table, so a new first load follows; ``reason`` is a sentence."""

    reason: str


Plan = Read | Quiet | NewGeneration


@dataclass(frozen=True)
class TickState:
    """What the earlier reads of this tick found, in addition to the watermark.

    Attributes:
        by_blocks: The oids of leaves whose window exceeded the size of a slice, and is read in block ranges.
        uncommitted_blocks: The number of blocks read since the last commit and found empty.
    """

    by_blocks: frozenset[int] = field(default_factory=frozenset)
    uncommitted_blocks: int = 0


def plan(
    watermark: Watermark, table: SourceTable, horizon: int, standby: bool, size: SliceSize, tick: TickState
) -> Plan:
    """Return the next step for a table at a horizon.

    Pending windows come first, then leaves that were never read, then all others. Leaves with the same state are read
    together through the root of the partitioned table.

    Raises:
        HistoryChanged: The horizon of a primary is below what was already delivered.
        StaleSnapshot: The horizon of a standby is. It is retried at the next tick.
        OperatorError: A window is wider than transaction ids can tell apart.
    """
    if watermark.table != table.oid:
        return NewGeneration(
            f"the name now refers to another table (oid {table.oid}, previously {watermark.table}): "
            "the table was dropped and created again, or swapped by a rename"
        )
    types = {column.attnum: column.base for column in table.columns}
    for relation in table.relations:
        leaf = watermark.leaf(relation.oid)
        if leaf.sweep and leaf.sweep.relfilenode != relation.relfilenode:
            return NewGeneration(f"{relation.name} was rewritten while it was being read in block ranges")
        if not leaf.holds(relation.relfilenode, types):
            return NewGeneration(f"{relation.name} lost the column or the blocks that divided its rows into bands")
        if leaf.top is not None and horizon < leaf.top:
            raise horizon_below_watermark(table.label, horizon, leaf.top, standby)
    planner = _Planner(watermark, table, horizon, size, tick)
    reason = f"no transaction finished since {horizon}" if table.relations else "it has no partitions yet"
    return planner.continued() or planner.first_load() or planner.window() or Quiet(reason)


def due_for_heartbeat(watermark: Watermark, table: SourceTable, horizon: int) -> bool:
    """Return whether an empty object must close the window of a quiet table because of the window's width."""
    leaves = [watermark.leaf(relation.oid) for relation in table.relations]
    return any(leaf.swept is not None and horizon - leaf.swept > HEARTBEAT_WIDTH for leaf in leaves)


@dataclass(frozen=True)
class _Planner:
    """The arguments of ``plan``; each public method returns a read of its kind, or None if there is none."""

    watermark: Watermark
    table: SourceTable
    horizon: int
    size: SliceSize
    tick: TickState

    def continued(self) -> Read | None:
        """Continue the window of the first leaf that is being read in block ranges."""
        for relation in self.table.relations:
            if self.watermark.leaf(relation.oid).sweep:
                return self._block_range(relation)
        return None

    def first_load(self) -> Read | None:
        """Read the leaves that were never read: as many small ones as fit into one slice, or the first one alone."""
        unread = [item for item in self.table.relations if self.watermark.leaf(item.oid).top is None]
        if not unread:
            return None
        fitting = list(self._fitting(unread))
        if not fitting:
            return self._block_range(unread[0])
        alone = fitting[0] if len(fitting) == 1 else None
        region = self._region(alone, Leaf(), [item.oid for item in fitting], self.horizon)
        return self._read(dataclasses.replace(region, seed=self.watermark.seed), Leaf(swept=self.horizon))

    def window(self) -> Read | None:
        """Read what was written since the last sweep, in the first group of leaves with the same state."""
        groups: dict[Leaf, list[Relation]] = {}
        for relation in self.table.relations:
            leaf = self.watermark.leaf(relation.oid)
            if leaf.swept != self.horizon:
                groups.setdefault(leaf, []).append(relation)
        for leaf, relations in groups.items():
            self._check_width(leaf.swept)
            for relation in relations:
                if relation.oid in self.tick.by_blocks:
                    return self._block_range(relation)
            region, after = self._region(None, leaf, [item.oid for item in relations], self.horizon), Leaf(self.horizon)
            return self._read(_between(region, leaf, after), after)
        return None

    def _fitting(self, unread: list[Relation]) -> Iterator[Relation]:
        """The leading leaves that fit into one slice together: hundreds of small partitions become one object."""
        blocks = 0
        for relation in unread:
            blocks += max(1, relation.page_count)
            if blocks > self.size.blocks or relation.oid in self.tick.by_blocks:
                return
            yield relation

    def _block_range(self, relation: Relation) -> Read:
        """Read the next block range of one leaf. Its window keeps the horizon it started with until its last block."""
        leaf = self.watermark.leaf(relation.oid)
        sweep = leaf.sweep or Sweep(self.horizon, 0, relation.relfilenode)
        sweeping = dataclasses.replace(leaf, sweep=sweep)
        self._check_width(sweep.upto if leaf.swept is None else leaf.swept)
        end_block, end_line = self.size.range_end(sweep.block, sweep.line)
        is_last = band_steps.is_last(sweeping, end_block, relation.page_count)
        after = band_steps.ended(sweeping) if is_last else band_steps.advance(sweeping, end_block, end_line)
        region = dataclasses.replace(
            _between(self._region(relation, leaf, [relation.oid], sweep.upto), leaf, after),
            # The last range is open-ended: the table may have grown since.
            blocks=(sweep.block, None if is_last else end_block),
            lines=(sweep.line, 0 if is_last else end_line),
            seed=self.watermark.seed if leaf.swept is None else None,
        )
        # The end of a window that already has objects is committed even if its last range is empty.
        return self._read(region, after, must_commit=is_last and sweep.position > (0, 0))

    def _read(self, region: Region, after: Leaf, must_commit: bool = False) -> Read:
        if region.blocks is not None:
            # A crash after a long empty stretch would start the window again from its last commit.
            must_commit |= self.tick.uncommitted_blocks + self.size.blocks >= EMPTY_BLOCKS_PER_COMMIT
        return Read(region, self.watermark.with_leaves(dict.fromkeys(region.leaves, after)), must_commit)

    def _region(self, relation: Relation | None, leaf: Leaf, oids: list[int], end: int) -> Region:
        """Return a region of ``relation`` alone, or of the root if it is None; an ordinary table is its only leaf."""
        alone = relation or (None if self.table.partitioned else self.table.relations[0])
        source = alone or self.table
        return Region(source.schema, source.name, alone is not None, tuple(oids), leaf.swept, end)

    def _check_width(self, start: int | None) -> None:
        # Ages count back from the next id, so both ends of a window must be near it.
        if start is not None and self.horizon - start >= MAX_WIDTH:
            label = self.table.label
            raise OperatorError(
                f"{label}: {self.horizon - start} transactions have finished since the table was last copied. A window "
                f"must be narrower than {MAX_WIDTH}, because PostgreSQL reuses transaction ids after that. "
                f"Run `pg-bronze reset {shell_argument(label)}` to copy the table again."
            )


def _between(region: Region, before: Leaf, after: Leaf) -> Region:
    """Return the region of what one state delivers and another does not; without rows if that is nothing."""
    return with_difference(region, before, after) or dataclasses.replace(region, start=region.end)
