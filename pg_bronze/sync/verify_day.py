"""Verifying a past day: compare its objects with the chain of footers, and write missing objects again.

A repaired object contains the row versions of its window that are still current. Versions overwritten or deleted since
are not in the database any more, so it never claims to be complete.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pg_bronze.core import column_types, drift, window_sql
from pg_bronze.core.drift import Description
from pg_bronze.core.region import Region, describe_region, with_difference
from pg_bronze.core.value_policies import ExceptionalCount
from pg_bronze.core.watermark import Watermark
from pg_bronze.lake.claim import Claim
from pg_bronze.lake.footer import Footer, footer_of
from pg_bronze.lake.keys import search_starts
from pg_bronze.lake.parquet import encode
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
        """Return the report as entries of the materialization."""
        return {
            "pg_bronze/verified_objects": self.object_count,
            "pg_bronze/repaired_objects": len(self.repaired),
            "pg_bronze/lost_objects": len(self.lost),
        }


def verify_day(sync: TableSync, day: date) -> DayReport:
    """Verify the objects of a UTC day and repair what is missing. The watermark is never moved."""
    footers = _footers_around(sync, day)
    present = sorted(footers, key=lambda key: footers[key].after.seq)
    repaired: list[str] = []
    lost: list[str] = []
    rows = 0
    for index, key in enumerate(present):
        missing = footers[key].before
        if missing.key in footers or missing.seq == 0 or sync.layout.day(missing.key) != day:
            continue
        before = footers[present[index - 1]].after if index else _watermark_before(sync, missing)
        count = _repair(sync, before, missing, _columns_of(sync, footers, footers[key], missing))
        if count is None:
            lost.append(missing.key)
        else:
            repaired.append(missing.key)
            rows += count
    of_day = [key for key in present if sync.layout.day(key) == day]
    return DayReport(day, len(of_day), tuple(repaired), tuple(lost), rows, sync.label)


def _footers_around(sync: TableSync, day: date) -> dict[str, Footer]:
    """Return the footers of a day and of the day before, by key.

    The first object of a later day is included, because its footer names the last object of this day.
    """
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    footers: dict[str, Footer] = {}
    for item in sync.ledger.since(sync.layout.key(start - timedelta(days=1))):
        footer = sync.ledger.footer(item.key)
        if footer is not None:
            footers[item.key] = footer
        item_day = sync.layout.day(item.key)
        if item_day is not None and item_day > day:
            break
    return footers


def _watermark_before(sync: TableSync, missing: Watermark) -> Watermark | None:
    """Return the watermark after the newest object before a missing one; None if there is no such object.

    Before the first object of a table, that is the watermark of a table that was not copied yet.
    """
    if missing.seq == 1:
        return dataclasses.replace(missing, seq=0, key="", cursor=None, leaves={})
    limit = sync.layout.time(missing.key)
    for start in search_starts(limit) if limit else ():
        keys = [item.key for item in sync.ledger.since(sync.layout.key(start) if start else "")]
        older = [key for key in keys if (time := sync.layout.time(key)) and limit and time < limit]
        if older:
            footer = sync.ledger.footer(older[-1])
            return footer.after if footer else None
    return None


def _columns_of(
    sync: TableSync, footers: Mapping[str, Footer], following: Footer, missing: Watermark
) -> Description | None:
    """Return the columns of a missing object, from another object that has the same ones according to the watermarks.

    That is the first object with these columns, or the one after the missing object. None if there is neither: the
    missing object was the only one with its columns.
    """
    first = missing.columns_key
    if not first:
        return None
    same = following if following.after.columns_key == first else footers.get(first) or sync.ledger.footer(first)
    return same.described if same else None


def _repair(sync: TableSync, before: Watermark | None, after: Watermark, columns: Description | None) -> int | None:
    """Write the object that led from one watermark to the next.

    Args:
        before: None if the object before it is unknown.
        columns: The columns that it had, so that the watermarks after it stay right. With None it gets the table's
            current columns, and its own watermark describes these.

    Returns:
        The number of rows in it, or None if its window cannot be read any more.
    """
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
        frame, counts = column_types.conform(sync.source.read(query, sync.label), columns, sync.label)
        frames.append(frame)
        policy_counts += counts
    return pl.concat(frames), policy_counts


def _regions_between(sync: TableSync, before: Watermark | None, after: Watermark) -> list[Region] | None:
    """Return what was read between two watermarks; None if a part of it cannot be read any more."""
    if before is None or before.generation != after.generation or after.table != sync.table.oid:
        return None
    present = {relation.oid: relation for relation in sync.table.relations}
    types = {column.attnum: column.base for column in sync.table.columns}
    regions: list[Region] = []
    for oid, leaf in after.leaves.items():
        known, relation = before.leaf(oid), present.get(oid)
        if known == leaf:
            continue
        if relation is None or not all(state.holds(relation.relfilenode, types) for state in (known, leaf)):
            return None
        seed = before.seed if known.swept is None else None  # it bounds first loads only
        region = Region(relation.schema, relation.name, True, (oid,), None, 0, seed=seed)
        try:
            regions += filter(None, [with_difference(region, known, leaf)])
        except ValueError:
            return None  # the rows were divided by two columns
    return regions
