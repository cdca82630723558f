"""Ranges: reads of all rows of some leaves, in one statement or in block ranges.

Belongs here: what every read is planned from, and the reads of tables without bands. Does not belong here: the reads of
tables with bands (``band_planning``).
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pg_bronze.core import band_rules, band_steps
from pg_bronze.core.leaf import Leaf
from pg_bronze.core.next_read import COMMIT_AFTER_S, Read, Run, TickState
from pg_bronze.core.region import Region, with_difference
from pg_bronze.core.slice_size import SliceSize
from pg_bronze.core.table import Relation, SourceTable, shell_argument
from pg_bronze.core.watermark import Watermark
from pg_bronze.core.window_sql import MAX_WIDTH
from pg_bronze.errors import OperatorError

# An empty object closes the window of a quiet table long before it reaches 2^31 transactions.
HEARTBEAT_WIDTH = 2**30


@dataclass(frozen=True)
class Situation:
    """What the next read is planned from.

    Attributes:
        watermark: How far the table is copied, without what was lost.
        table: The table as it is now.
        horizon: Every transaction below it has finished.
        size: How much one slice may contain.
        tick: What the earlier reads of this run found.
        run: What is the same for all reads of this run.
    """

    watermark: Watermark
    table: SourceTable
    horizon: int
    size: SliceSize
    tick: TickState
    run: Run

    @property
    def sweep_s(self) -> float:
        """The expected seconds of a sweep of all leaves."""
        return band_rules.sweep_s(self.table, self.watermark.sweeps)

    @property
    def scheduled(self) -> bool:
        """Whether the table is too large to be read completely in every tick."""
        return band_rules.is_scheduled(self.table, self.watermark.sweeps, self.run.bands)

    @property
    def swept_at(self) -> str | None:
        """The time of this horizon, for tables that are swept by schedule."""
        return self.run.now.isoformat(timespec="seconds") if self.scheduled else None

    def needs_ranges(self, relations: Sequence[Relation]) -> bool:
        """Return whether one statement for all blocks of some leaves would take too long."""
        return self.scheduled and sum(item.page_count for item in relations) > self.chunk_blocks

    @property
    def chunk_blocks(self) -> int:
        """The most blocks of one statement."""
        bands, sweeps = self.run.bands, self.watermark.sweeps or band_rules.Sweeps()
        if bands is None:
            return self.size.blocks
        return max(1, min(bands.chunk_blocks, int(bands.chunk_s * 1e6 / sweeps.block_us)))


def next_step(at: Situation) -> Read | None:
    """Return the next read of a table that is read completely in every tick; None if it is copied up to the horizon.

    Sweeps in progress come first, then leaves that were never read, then all others.
    """
    return continued(at) or first_load(at) or window(at)


def continued(at: Situation) -> Read | None:
    """Continue the window of the first leaf that is being read in block ranges."""
    for relation in at.table.relations:
        if at.watermark.leaf(relation.oid).sweep:
            return block_range(at, relation)
    return None


def first_load(at: Situation) -> Read | None:
    """Read the leaves that were never read: as many small ones as fit into one slice, or the first one alone."""
    unread = [item for item in at.table.relations if at.watermark.leaf(item.oid) == Leaf()]
    if not unread:
        return None
    fitting = list(_fitting(at, unread))
    if not fitting:
        return block_range(at, unread[0])
    alone = fitting[0] if len(fitting) == 1 else None
    oids = [item.oid for item in fitting]
    region = region_of(at, alone, Leaf(), oids, at.horizon)
    after = at.watermark.with_leaves(dict.fromkeys(oids, Leaf(swept=at.horizon, swept_at=at.swept_at)))
    return Read(dataclasses.replace(region, seed=at.watermark.seed), after)


def _fitting(at: Situation, unread: list[Relation]) -> Iterator[Relation]:
    """The leading leaves that fit into one slice together: hundreds of small partitions become one object."""
    blocks = 0
    for relation in unread:
        blocks += max(1, relation.page_count)
        if blocks > at.size.blocks or relation.oid in at.tick.by_blocks:
            return
        yield relation


def window(at: Situation) -> Read | None:
    """Read what was written since the last sweep, in the first group of leaves with the same state."""
    groups: dict[Leaf, list[Relation]] = {}
    for relation in at.table.relations:
        leaf = at.watermark.leaf(relation.oid)
        if leaf.swept != at.horizon and leaf.sweep is None:
            groups.setdefault(dataclasses.replace(leaf, swept_at=None), []).append(relation)
    for leaf, relations in groups.items():
        check_width(at, leaf.swept)
        for relation in relations:
            if relation.oid in at.tick.by_blocks or at.needs_ranges([relation]):
                return block_range(at, relation)
        if at.needs_ranges(relations):
            relations = relations[:1]
        after = Leaf(at.horizon, swept_at=at.swept_at)
        oids = [item.oid for item in relations]
        region = between(region_of(at, None, leaf, oids, at.horizon), leaf, after)
        blocks = sum(item.page_count for item in relations)
        after_all = at.watermark.with_leaves(dict.fromkeys(oids, after))
        return Read(region, after_all, begins=True, ends=True, blocks=blocks)
    return None


def block_range(at: Situation, relation: Relation, began: Leaf | None = None) -> Read:
    """Read the next block range of one leaf. Its window keeps the horizon it started with until its last block.

    Args:
        began: The leaf with a sweep that begins with this range; None continues a sweep, or begins one of all rows.
    """
    leaf = at.watermark.leaf(relation.oid)
    sweeping = began or (leaf if leaf.sweep else _began(at, relation, leaf))
    sweep = sweeping.sweep
    if sweep is None:
        raise ValueError("there is no sweep")
    check_width(at, sweep.upto if leaf.swept is None else leaf.swept)
    size = _range_size(at, relation, leaf)
    end_block, end_line = size.range_end(sweep.block, sweep.line)
    is_last = band_steps.is_last(sweeping, end_block, relation.page_count)
    after = band_steps.ended(sweeping) if is_last else band_steps.advance(sweeping, end_block, end_line)
    region = dataclasses.replace(
        between(region_of(at, relation, leaf, [relation.oid], sweep.upto), leaf, after),
        # The last range is open-ended: the table may have grown since.
        blocks=(sweep.block, None if is_last else end_block),
        lines=(sweep.line, 0 if is_last else end_line),
        seed=at.watermark.seed if leaf.swept is None else None,
    )
    return Read(
        region,
        at.watermark.with_leaves({relation.oid: after}),
        # The end of a sweep that already has objects is committed even if its last range is empty.
        must_commit=(is_last and sweep.position > (0, 0)) or at.tick.uncommitted_s >= COMMIT_AFTER_S,
        kind="sweep",
        begins=leaf.sweep is None,
        ends=is_last,
        blocks=0 if size.lines else size.blocks,
    )


def _began(at: Situation, relation: Relation, leaf: Leaf) -> Leaf:
    """Return a leaf with a sweep of all its rows. That of a table that grows meanwhile ends where the table ended."""
    end = relation.page_count if at.scheduled else None
    return band_steps.begin_everything(leaf, at.horizon, relation.relfilenode, end, at.swept_at)


def _range_size(at: Situation, relation: Relation, leaf: Leaf) -> SliceSize:
    """Return the size of the next range. That of a sweep depends on its time, because it contains few rows."""
    if leaf.swept is None and at.tick.range_blocks is not None:
        return dataclasses.replace(at.size, blocks=at.tick.range_blocks, lines=0)
    full = leaf.swept is None or relation.oid in at.tick.by_blocks or not at.scheduled
    return dataclasses.replace(at.size, blocks=min(at.size.blocks, at.chunk_blocks) if full else at.chunk_blocks)


def region_of(at: Situation, relation: Relation | None, leaf: Leaf, oids: list[int], end: int) -> Region:
    """Return a region of ``relation`` alone, or of the root if it is None; an ordinary table is its only leaf."""
    alone = relation or (None if at.table.partitioned else at.table.relations[0])
    source = alone or at.table
    return Region(source.schema, source.name, alone is not None, tuple(oids), leaf.swept, end)


def between(region: Region, before: Leaf, after: Leaf) -> Region:
    """Return the region of what one state delivers and another does not; without rows if that is nothing."""
    return with_difference(region, before, after) or dataclasses.replace(region, start=region.end)


def check_width(at: Situation, start: int | None) -> None:
    """Check that a window is narrower than transaction ids can tell apart.

    Raises:
        OperatorError: It is not.
    """
    # Ages count back from the next id, so both ends of a window must be near it.
    if start is not None and at.horizon - start >= MAX_WIDTH:
        label = at.table.label
        raise OperatorError(
            f"{label}: {at.horizon - start} transactions have finished since the table was last copied. A window "
            f"must be narrower than {MAX_WIDTH}, because PostgreSQL reuses transaction ids after that. "
            f"Run `pg-bronze reset {shell_argument(label)}` to copy the table again."
        )
