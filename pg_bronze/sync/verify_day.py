"""Verifying a past day: compare its objects with the chain of footers, and write a missing one again.

A repaired object holds the row versions of its window that are still current; those overwritten or deleted since are
not in the database any more, so it never claims to be complete.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from pg_bronze.core import column_types, drift, window_sql
from pg_bronze.core.drift import Description
from pg_bronze.core.table import Relation
from pg_bronze.core.value_policies import ExceptionalCount
from pg_bronze.core.watermark import Leaf, Watermark
from pg_bronze.lake.claim import Claim
from pg_bronze.lake.footer import Footer, footer_of
from pg_bronze.lake.keys import search_starts
from pg_bronze.lake.parquet import encode
from pg_bronze.sync.table_sync import TableSync


@dataclass(frozen=True)
class DayReport:
    """What verification found of one day and did about it."""

    day: date
    object_count: int
    repaired: tuple[str, ...]
    lost: tuple[str, ...]
    row_count: int
    label: str

    @property
    def sentence(self) -> str:
        """For the log."""
        text = f"verified {self.label} of {self.day}: {self.object_count} objects"
        if self.repaired:
            text += f", {len(self.repaired)} missing and written again with {self.row_count} rows still current"
        if self.lost:
            text += f", {len(self.lost)} missing that cannot be read again"
        return text

    @property
    def metadata(self) -> Mapping[str, Any]:
        """For the materialization."""
        return {
            "pg_bronze/verified_objects": self.object_count,
            "pg_bronze/repaired_objects": len(self.repaired),
            "pg_bronze/lost_objects": len(self.lost),
        }


def verify_day(sync: TableSync, day: date) -> DayReport:
    """Verify the objects of a UTC day and repair what is missing. Never moves the watermark.

    The first object of a later day is looked at too: it names the last one of this day.
    """
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    items = sync.ledger.since(sync.layout.key(start - timedelta(days=1)))
    footers: dict[str, Footer] = {}
    for item in items:
        footer = sync.ledger.footer(item.key)
        if footer is not None:
            footers[item.key] = footer
        item_day = sync.layout.day(item.key)
        if item_day is not None and item_day > day:
            break
    present = sorted(footers, key=lambda key: footers[key].after.seq)
    repaired: list[str] = []
    lost: list[str] = []
    rows = 0
    for index, key in enumerate(present):
        missing = footers[key].before
        if missing.key in footers or missing.seq == 0 or sync.layout.day(missing.key) != day:
            continue
        earlier = footers[present[index - 1]].after if index else _earlier(sync, missing)
        count = _write_again(sync, earlier, missing, _promised(sync, footers, footers[key], missing))
        if count is None:
            lost.append(missing.key)
        else:
            repaired.append(missing.key)
            rows += count
    of_day = [key for key in present if sync.layout.day(key) == day]
    return DayReport(day, len(of_day), tuple(repaired), tuple(lost), rows, sync.label)


def _earlier(sync: TableSync, missing: Watermark) -> Watermark | None:
    """The watermark after the newest object that is left before a missing one; that of nothing before the first."""
    if missing.seq == 1:
        return dataclasses.replace(missing, seq=0, key="", cursor=None, leaves={})
    limit = sync.layout.time(missing.key)
    for start in search_starts(limit) if limit else ():
        keys = [item.key for item in sync.ledger.since(sync.layout.key(start) if start else "")]
        older = [found for found in keys if (time := sync.layout.time(found)) and limit and time < limit]
        if older:
            footer = sync.ledger.footer(older[-1])
            return footer.after if footer else None
    return None


def _promised(
    sync: TableSync, footers: Mapping[str, Footer], following: Footer, missing: Watermark
) -> Description | None:
    """The columns a missing object had, from another object of which the watermarks say that it has the same.

    That is the one before it or the one after. None if neither is: it was the only one with its columns, as far as
    anybody knows.
    """
    first = missing.columns_key
    if not first:
        return None
    found = following if following.after.columns_key == first else footers.get(first) or sync.ledger.footer(first)
    return found.described if found else None


def _write_again(
    sync: TableSync, before: Watermark | None, after: Watermark, promised: Description | None
) -> int | None:
    """Write the object that led from one watermark to the next; None if its window cannot be read any more.

    ``before`` None means that the earlier object is unknown. It gets the columns ``promised``, so that it stays what
    the watermarks around it say; without a promise those of now, and then its own watermark says which.
    """
    if before is None or before.generation != after.generation or after.table != sync.table.oid:
        return None
    differing = {oid: leaf for oid, leaf in after.leaves.items() if before.leaf(oid) != leaf}
    present = {relation.oid: relation for relation in sync.table.relations}
    regions = [_difference(before, oid, leaf, present.get(oid)) for oid, leaf in differing.items()]
    import polars as pl

    described = promised or drift.describe_table(sync.table)
    columns = described.source_columns
    if promised is None:
        after = dataclasses.replace(after, columns_digest=described.digest)
    names = sync.table.names_by_attnum
    projection = column_types.former_projection(columns, sync.table.columns)
    frames = [column_types.empty_slice(columns)]
    exceptional: tuple[ExceptionalCount, ...] = ()
    for region in regions:
        if region is None:
            return None
        query = window_sql.select(region, projection, described.xid_column, names, None)
        found, counted = column_types.conform(sync.source.read(query, sync.label), columns, sync.label)
        frames.append(found)
        exceptional += counted
    frame = pl.concat(frames)
    claim = Claim(
        "repaired", dataclasses.replace(before, seq=after.seq - 1), after, None, {}, "written again by verification"
    )
    footer = footer_of(claim, frame.height, described, sync.source.server_version, sync.source.database(), exceptional)
    said = "; ".join(window_sql.describe_region(region) for region in regions if region)
    body = encode(frame, dataclasses.replace(footer, repaired=True, window=said or None), sync.options.codec)
    sync.store.create(after.key, body)
    return frame.height


def _difference(before: Watermark, oid: int, after: Leaf, relation: Relation | None) -> window_sql.Region | None:
    """What lies between two states of a leaf; None if it cannot be read any more.

    That is a whole window, or block ranges of one that was read piece by piece, as long as the table's blocks are
    the same.
    """
    leaf = before.leaf(oid)
    pending = after.pending or leaf.pending
    if relation is None or leaf.box is not None or after.box is not None:
        return None
    if pending is not None and pending.relfilenode != relation.relfilenode:
        return None
    blocks: tuple[int, int | None] | None = None
    lines = (0, 0)
    if pending is not None:
        end_of_it = leaf.swept if after.pending else pending.upto
        if after.swept != end_of_it or (leaf.pending and leaf.pending.upto != pending.upto):
            return None  # more than one window lies between
        first = leaf.pending.position if leaf.pending else (0, 0)
        last = after.pending.position if after.pending else (None, 0)
        blocks, lines = (first[0], last[0]), (first[1], last[1])
    end = pending.upto if pending is not None else after.swept
    if end is None:
        return None
    seed = before.seed if leaf.swept is None else None  # it bounds first loads only
    return window_sql.Region(relation.schema, relation.name, True, (oid,), leaf.swept, end, None, blocks, seed, lines)
