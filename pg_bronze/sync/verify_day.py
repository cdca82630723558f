"""Verifying a day: compare its objects with the chain of footers, and write missing objects again.

A repaired object contains the row versions of its window that are still current. Versions overwritten or deleted since
are not in the database any more, so it never claims to be complete.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from pg_bronze.core import column_choices, column_types, drift, window_sql
from pg_bronze.core.drift import Description
from pg_bronze.core.region import Region, describe_region, with_difference
from pg_bronze.core.value_policies import ExceptionalCount
from pg_bronze.core.watermark import Watermark
from pg_bronze.lake import listing
from pg_bronze.lake.claim import Claim
from pg_bronze.lake.footer import footer_of
from pg_bronze.lake.keys import search_starts
from pg_bronze.lake.parquet import encode
from pg_bronze.sync import gaps
from pg_bronze.sync.gaps import Gap
from pg_bronze.sync.state_changes import require_lock
from pg_bronze.sync.table_sync import TableSync

if TYPE_CHECKING:
    import polars as pl

    Rows = tuple[pl.DataFrame, tuple[ExceptionalCount, ...]]


@dataclass(frozen=True)
class DayReport:
    """What the verification of one day found and repaired.

    Attributes:
        object_count: Objects of the day that were present.
        repaired: Keys of missing objects that were written again.
        lost: Keys of missing objects whose rows cannot be read again.
        row_count: Rows in the repaired objects.
    """

    day: date
    object_count: int
    repaired: tuple[str, ...]
    lost: tuple[str, ...]
    row_count: int
    label: str

    @property
    def sentence(self) -> str:
        """Return the report as a log line."""
        text = f"verified {self.label} for {self.day}: {self.object_count} objects present"
        if self.repaired:
            text += (
                f", {len(self.repaired)} missing and written again with {self.row_count} rows that are still current"
            )
        if self.lost:
            text += f", {len(self.lost)} missing and cannot be read again"
        return text

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Return the report as entries of an observation."""
        return {
            "pg_bronze/verified_objects": self.object_count,
            "pg_bronze/repaired_objects": len(self.repaired),
            "pg_bronze/lost_objects": len(self.lost),
        }


def verify_day(sync: TableSync, recorded: Watermark | None, day: date) -> DayReport:
    """Verify the objects of a UTC day and repair what is missing. The watermark is never moved.

    The footers are read without the table's lock, so that copies of the table continue. The lock is taken only for a
    repair.

    Args:
        sync: The sync of the table, not entered.
        recorded: The watermark of the latest materialization, or None if it has none.
        day: The day to verify.

    Raises:
        TableBusy: An object is missing, and another run held the lock for a minute.
        PgBronzeError: An object is missing, and the database or the bucket does not continue the watermark.
    """
    object_count, found = gaps.find(sync.ledger, day)
    repaired: list[str] = []
    lost: list[str] = []
    rows = 0
    if found:
        with sync:
            require_lock(sync)
            sync.check(recorded)
            for gap in found:
                if gap.missing.generation != sync.generation:
                    continue  # a new generation began since, and the objects around it were moved away
                count = _repair(sync, gap)
                rows += count or 0
                (lost if count is None else repaired).append(gap.missing.key)
    return DayReport(day, object_count, tuple(repaired), tuple(lost), rows, sync.label)


def _watermark_before(sync: TableSync, missing: Watermark) -> Watermark | None:
    """Return the watermark after the newest object before a missing one; None if there is no such object.

    Before the first object of a table, that is the watermark of a table that was not copied yet.
    """
    if missing.seq == 1:
        return dataclasses.replace(missing, seq=0, key="", cursor=None, leaves={})
    limit = sync.layout.time(missing.key)
    if limit is None:
        return None
    for start in search_starts(limit):
        key = listing.last_before(sync.store, sync.layout, start, limit)
        if key is not None:
            footer = sync.ledger.footer(key)
            return footer.after if footer else None
    return None


def _columns_of(sync: TableSync, gap: Gap) -> Description | None:
    """Return the columns of a missing object, from another object that has the same ones according to the watermarks.

    That is the first object with these columns, or the one after the missing object. None if there is neither: the
    missing object was the only one with its columns. None also if values of it are excluded or masked now.
    """
    first = gap.missing.columns_key
    if not first:
        return None
    same = gap.following if gap.following.after.columns_key == first else sync.ledger.footer(first)
    if same is None or column_choices.uncovers(same.described, sync.table):
        return None
    return same.described


def _repair(sync: TableSync, gap: Gap) -> int | None:
    """Write the missing object of a gap.

    It gets the columns that it had, so that the watermarks after it stay right. If they are not known, it gets the
    table's current columns, and its own watermark describes these.

    Returns:
        The number of rows in it, or None if its window cannot be read any more.
    """
    before, after = gap.before or _watermark_before(sync, gap.missing), gap.missing
    columns = _columns_of(sync, gap)
    regions = _regions_between(sync, before, after)
    if before is None or regions is None:
        return None
    described = columns or drift.describe_table(sync.table)
    if columns is None:
        after = dataclasses.replace(after, columns_digest=described.digest)
    rows = _read(sync, regions, described)
    if rows is None:
        return None
    frame, policy_counts = rows
    before = dataclasses.replace(before, seq=after.seq - 1)
    claim = Claim("repaired", before, after, None, {}, "written again by verification")
    source = sync.source
    footer = footer_of(claim, frame.height, described, source.server_version, source.database(), policy_counts)
    window = "; ".join(describe_region(region) for region in regions) or None
    body = encode(frame, dataclasses.replace(footer, repaired=True, window=window), sync.options.codec)
    sync.store.create(after.key, body)
    return frame.height


def _read(sync: TableSync, regions: Sequence[Region], described: Description) -> "Rows | None":
    """Read regions in the columns of a description; None if a column that bounds one of them was dropped."""
    import polars as pl

    columns, names = described.source_columns, sync.table.names_by_attnum
    projection = column_types.former_projection(columns, sync.table.columns)
    frames = [column_types.empty_slice(columns)]
    policy_counts: tuple[ExceptionalCount, ...] = ()
    for region in regions:
        try:
            query = window_sql.select(region, projection, described.xid_column, names, None)
        except KeyError:
            return None
        frame = sync.source.read(query, sync.label)
        frame, counts = column_types.conform(frame, columns, sync.label, former=True)
        frames.append(frame)
        policy_counts += counts
    return pl.concat(frames), policy_counts


def _regions_between(sync: TableSync, before: Watermark | None, after: Watermark) -> list[Region] | None:
    """Return what was read between two watermarks; None if a part of it cannot be read any more."""
    if before is None or before.generation != after.generation or after.table != sync.table.oid:
        return None
    present = {relation.oid: relation for relation in sync.table.relations}
    types = sync.table.types_by_attnum
    regions: list[Region] = []
    for oid, leaf in after.leaves.items():
        known, relation = before.leaf(oid), present.get(oid)
        if known == leaf:
            continue
        if relation is None or not all(state.holds(relation, types) for state in (known, leaf)):
            return None
        seed = before.seed if known.swept is None else None  # it bounds first loads only
        region = Region(relation.schema, relation.name, True, (oid,), None, 0, seed=seed)
        try:
            regions += filter(None, [with_difference(region, known, leaf)])
        except ValueError:
            return None  # the rows were divided by two columns
    return regions
