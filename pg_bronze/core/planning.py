"""Planning: what a tick reads of one table next, decided from its watermark and a look at the table.

Reads nothing, writes nothing. The asset, the sensor and the command line all ask here.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pg_bronze.core.column_types import memory_bytes
from pg_bronze.core.table import Relation, SourceTable, argument
from pg_bronze.core.watermark import Leaf, Pending, Place, Watermark
from pg_bronze.core.window_sql import MAX_WIDTH, Region
from pg_bronze.errors import HistoryChanged, OperatorError, PgBronzeError, StaleSnapshot

BLOCK_BYTES = 8192
EMPTY_BLOCKS_PER_COMMIT = 1000
# Line pointers in a block of 8 KB: each row takes its pointer and a header, 28 bytes at least. In the larger blocks
# that PostgreSQL may be built with, those beyond come with the last range of a block.
LINES_PER_BLOCK = BLOCK_BYTES // 28
# lz4 makes at most 255 bytes of one, pglz 91.
EXPANSION = 255
# A quiet table's window is closed by an empty object long before it could reach 2^31 transactions.
HEARTBEAT_WIDTH = 2**30


@dataclass(frozen=True)
class Sizing:
    """How much one slice may hold: ``row_limit`` rows, and about ``byte_limit`` bytes as PostgreSQL's COPY sends them.

    ``blocks`` is how many heap blocks the next range of a window takes; at least 1. Where even one block holds too much
    (its rows point to values out of line), ``lines`` is how many line pointers of it; 0 for whole blocks.
    """

    row_limit: int
    byte_limit: int
    blocks: int
    lines: int = 0

    @property
    def smallest(self) -> bool:
        """Whether a range is one row, which cannot be divided."""
        return self.blocks == 1 and self.lines == 1

    def halved(self, page_count: int) -> "Sizing":
        """After a read of at most ``page_count`` blocks that held too much."""
        blocks = min(self.blocks, page_count)
        if blocks > 1:
            return dataclasses.replace(self, blocks=blocks // 2)
        return dataclasses.replace(self, blocks=1, lines=max(1, (self.lines or LINES_PER_BLOCK) // 2))

    def after(self, rows: int, size_bytes: int) -> "Sizing":
        """After a range that fitted: ranges grow while they come back less than a quarter full."""
        if rows * 4 >= self.row_limit or size_bytes * 4 >= self.byte_limit:
            return self
        if self.lines:
            return dataclasses.replace(self, lines=self.lines * 2 if self.lines * 2 < LINES_PER_BLOCK else 0)
        return dataclasses.replace(self, blocks=min(self.blocks * 2, EMPTY_BLOCKS_PER_COMMIT * 64))


def sizing(table: SourceTable, slice_rows: int | None, slice_bytes: int) -> Sizing:
    """The first guess for a table, from its size; the reads themselves correct it.

    Rows are counted as at least 24 bytes, the size of a row header, and as no less than their columns take in memory
    even when they are NULL: an estimate from stale statistics may be wrong by any factor, and the limit it leads to is
    checked against what arrives.
    """
    pages = sum(relation.page_count for relation in table.relations)
    row_bytes = 100.0
    if table.row_estimate > 0 and pages > 0:
        row_bytes = min(float(BLOCK_BYTES), max(24.0, pages * BLOCK_BYTES / table.row_estimate))
    rows_per_block = BLOCK_BYTES / row_bytes
    row_limit = slice_rows or max(1000, int(slice_bytes / max(row_bytes, memory_bytes(table.columns))))
    # What lies out of line comes along with its block.
    out_of_line = sum(relation.toast_page_count for relation in table.relations) / max(pages, 1)
    blocks = min(int(slice_bytes / BLOCK_BYTES / (1 + out_of_line)), math.ceil(row_limit / rows_per_block))
    return Sizing(row_limit=row_limit, byte_limit=slice_bytes, blocks=max(1, blocks))


def certain(table: SourceTable, region: Region, byte_limit: int) -> bool:
    """Whether a region cannot hold more bytes than that, however well its values are compressed."""
    relations = [item for item in table.relations if item.oid in region.leaves]
    if any(item.toast_page_count for item in relations):
        return False
    return sum(item.page_count for item in relations) * BLOCK_BYTES * EXPANSION <= byte_limit


@dataclass(frozen=True)
class Read:
    """Read ``region``; if its rows fit, what is delivered becomes ``after``.

    ``must_commit``: even without a row this outcome has to be committed (it ends or carries on a pending window).
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
    """What was copied no longer describes the table; a new first load follows. ``reason`` is a sentence."""

    reason: str


Plan = Read | Quiet | NewGeneration


@dataclass(frozen=True)
class Outlook:
    """What planning must remember within one tick, besides the watermark.

    ``by_blocks``: leaves whose window held too many rows for one read. ``uncommitted_blocks``: blocks read since the
    last commit and found empty. ``bound``: a cursor value taken over from the original system, for first loads.
    """

    by_blocks: frozenset[int] = field(default_factory=frozenset)
    uncommitted_blocks: int = 0


def check_place(watermark: Watermark, place: Place, label: str, standby: bool = False) -> None:
    """Raises HistoryChanged if the watermark was made in another database, history or bucket.

    A standby that has not replayed as far as the watermark raises StaleSnapshot: it may catch up.
    """
    then = watermark.place
    named = argument(label)
    remedy = (
        f"Run `pg-bronze reconcile {named}`, which compares both sides and goes on if nothing was lost, `pg-bronze "
        f"continue {named}` if you know that this is the same data further on (a move with pg_upgrade, a failover that "
        f"lost nothing), or `pg-bronze reset {named}` to copy it again; until then nothing of it is copied."
    )
    if then.bucket != place.bucket:
        raise other_bucket(watermark, place.bucket, label)
    if then.system_id != place.system_id:
        raise HistoryChanged(
            f"{label}: its watermark belongs to the database cluster {then.system_id}, and this one is "
            f"{place.system_id}. {remedy}"
        )
    if then.database != place.database:
        raise HistoryChanged(
            f"{label}: its watermark belongs to another database of this cluster (oid {then.database}, this one is "
            f"{place.database}). Point PG_DB back, or run `pg-bronze reset {argument(label)}`."
        )
    if then.timeline != place.timeline:
        raise HistoryChanged(
            f"{label}: the database went from timeline {then.timeline} to {place.timeline}: a failover or a restore, "
            f"after which transactions already copied may be gone. {remedy}"
        )
    if _lsn(place.lsn) < _lsn(then.lsn) and standby:
        raise StaleSnapshot(
            f"{label}: this standby has replayed the log up to {place.lsn}, and the watermark was made at {then.lsn}. "
            "It lags behind the server read before; the next tick tries again."
        )
    if _lsn(place.lsn) < _lsn(then.lsn):
        raise HistoryChanged(
            f"{label}: the database is at log position {place.lsn}, before {then.lsn} where the watermark was made: "
            f"an older state was restored. {remedy}"
        )


def other_bucket(watermark: Watermark, bucket: str, label: str) -> HistoryChanged:
    """The error for a watermark that was made for another bucket than this one (``bucket/prefix``)."""
    return HistoryChanged(
        f"{label}: its watermark was made for bucket {watermark.place.bucket!r}, and this one is {bucket!r}. "
        f"Point MINIO_BUCKET back, or run `pg-bronze reset {argument(label)}` to start over in the new one."
    )


def behind(label: str, horizon: int, swept: int, standby: bool) -> PgBronzeError:
    """The error for a horizon below what is already delivered: alarming on a primary, a lag on a standby."""
    found = f"{label}: the horizon is {horizon}, below {swept} up to which it is already copied."
    if standby:
        return StaleSnapshot(f"{found} This standby lags behind the one read before; the next tick tries again.")
    return HistoryChanged(
        f"{found} A primary's horizon never goes back: the database was restored or its transaction ids were set "
        f"back. Run `pg-bronze reset {argument(label)}` to copy it again; until then nothing of it is copied."
    )


def plan(watermark: Watermark, table: SourceTable, horizon: int, standby: bool, size: Sizing, outlook: Outlook) -> Plan:
    """Decide the next read of a table at a horizon.

    Pending windows come first, then leaves never read, then all others: those of equal state in one read through the
    root. Raises HistoryChanged or StaleSnapshot when the horizon lies below what is delivered.
    """
    if watermark.table != table.oid:
        return NewGeneration(
            f"the name now stands for another table (oid {table.oid}, before {watermark.table}): "
            "it was dropped and made again, or swapped by rename"
        )
    relations = {relation.oid: relation for relation in table.relations}
    for oid, relation in relations.items():
        leaf = watermark.leaf(oid)
        if leaf.pending and leaf.pending.relfilenode != relation.relfilenode:
            return NewGeneration(f"{relation.name} was rewritten while it was being read in block ranges")
        if leaf.swept is not None and horizon < leaf.swept:
            raise behind(table.label, horizon, leaf.swept, standby)

    for oid, relation in relations.items():
        if watermark.leaf(oid).pending:
            return _by_blocks(watermark, table, relation, horizon, size, outlook)
    unread = [relation for oid, relation in relations.items() if watermark.leaf(oid).swept is None]
    if unread:
        together = _that_fit(unread, size, outlook) if table.partitioned else []
        if len(together) > 1:
            region = dataclasses.replace(_region(table, None, Leaf(), tuple(together), horizon), seed=watermark.seed)
            return Read(region, watermark.with_leaves(dict.fromkeys(together, Leaf(swept=horizon))))
        return _first_load(watermark, table, unread[0], horizon, size, outlook)
    groups: dict[Leaf, list[int]] = {}
    for oid in relations:
        leaf = watermark.leaf(oid)
        if leaf.swept != horizon:
            groups.setdefault(leaf, []).append(oid)
    for leaf, oids in groups.items():
        _check_width(table.label, leaf.swept, horizon)
        blocky = [oid for oid in oids if oid in outlook.by_blocks]
        if blocky:
            return _by_blocks(watermark, table, relations[blocky[0]], horizon, size, outlook)
        region = _region(table, None, leaf, tuple(oids), horizon)
        return Read(region, watermark.with_leaves(dict.fromkeys(oids, _swept(leaf, horizon))))
    if not relations:
        return Quiet("it has no partitions yet")
    return Quiet(f"no transaction finished since {horizon}")


def due_for_heartbeat(watermark: Watermark, table: SourceTable, horizon: int) -> bool:
    """Whether a quiet table's window has grown so wide that an empty object must close it."""
    leaves = [watermark.leaf(relation.oid) for relation in table.relations]
    return any(leaf.swept is not None and horizon - leaf.swept > HEARTBEAT_WIDTH for leaf in leaves)


def _that_fit(unread: Sequence[Relation], size: Sizing, outlook: Outlook) -> list[int]:
    """The leading ones of some leaves never read that fit into one slice: hundreds of small ones are one object."""
    fitting: list[int] = []
    blocks = 0
    for relation in unread:
        blocks += max(1, relation.page_count)
        if blocks > size.blocks or relation.oid in outlook.by_blocks:
            break
        fitting.append(relation.oid)
    return fitting


def _first_load(
    watermark: Watermark, table: SourceTable, relation: Relation, horizon: int, size: Sizing, outlook: Outlook
) -> Read:
    small = relation.page_count <= size.blocks and relation.oid not in outlook.by_blocks
    if not small:
        return _by_blocks(watermark, table, relation, horizon, size, outlook)
    region = dataclasses.replace(_region(table, relation, Leaf(), (relation.oid,), horizon), seed=watermark.seed)
    return Read(region, watermark.with_leaves({relation.oid: Leaf(swept=horizon)}))


def _by_blocks(
    watermark: Watermark, table: SourceTable, relation: Relation, horizon: int, size: Sizing, outlook: Outlook
) -> Read:
    """The next block range of one leaf. Its window keeps the horizon it began with until its last block."""
    leaf = watermark.leaf(relation.oid)
    pending = leaf.pending or Pending(upto=horizon, block=0, relfilenode=relation.relfilenode)
    _check_width(table.label, pending.upto if leaf.swept is None else leaf.swept, horizon)
    end_block, end_line = pending.block + size.blocks, 0
    if size.lines and pending.line + size.lines < LINES_PER_BLOCK:
        end_block, end_line = pending.block, pending.line + size.lines
    last = end_block >= relation.page_count
    region = dataclasses.replace(
        _region(table, relation, leaf, (relation.oid,), pending.upto),
        blocks=(pending.block, None if last else end_block),
        lines=(pending.line, 0 if last else end_line),
        seed=watermark.seed if leaf.swept is None else None,
    )
    if last:
        after = _swept(leaf, pending.upto)
    else:
        after = dataclasses.replace(leaf, pending=dataclasses.replace(pending, block=end_block, line=end_line))
    read_since_commit = outlook.uncommitted_blocks + size.blocks
    return Read(
        region,
        watermark.with_leaves({relation.oid: after}),
        # The end of a window that already has objects, or a long empty stretch, is worth an empty one.
        must_commit=(last and pending.place > (0, 0)) or read_since_commit >= EMPTY_BLOCKS_PER_COMMIT,
    )


def _region(table: SourceTable, relation: Relation | None, leaf: Leaf, oids: tuple[int, ...], end: int) -> Region:
    """``relation`` None reads through the root; an ordinary table is always read alone."""
    alone = relation or (None if table.partitioned else table.relations[0])
    schema, name = (alone.schema, alone.name) if alone else (table.schema, table.name)
    return Region(
        schema=schema, name=name, only=alone is not None, leaves=oids, start=leaf.swept, end=end, box=leaf.box
    )


def _swept(leaf: Leaf, horizon: int) -> Leaf:
    """The leaf after a complete sweep: floor and upto of a box move only here, in the same commit as ``swept``."""
    box = leaf.box and dataclasses.replace(leaf.box, upto=horizon)
    return Leaf(swept=horizon, box=box, pending=None)


def _check_width(label: str, since: int | None, horizon: int) -> None:
    """Ages are counted from the next id: both ends of a window have to be near it, however old the window is."""
    if since is not None and horizon - since >= MAX_WIDTH:
        raise OperatorError(
            f"{label}: {horizon - since} transactions have passed since it was last copied, and a window cannot "
            f"be wider than {MAX_WIDTH}: PostgreSQL reuses ids after that. Run `pg-bronze reset {argument(label)}` to "
            "copy it again."
        )


def _lsn(text: str) -> int:
    """A log position ``X/Y`` as the number it stands for."""
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) | int(low, 16)


def names_by_attnum(table: SourceTable) -> Mapping[int, str]:
    """Column names by attnum, as ``window.where`` wants them."""
    return {column.attnum: column.name for column in table.columns}
