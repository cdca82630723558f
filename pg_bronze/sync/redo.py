"""Redo: write the slice of a claim that another writer left open, under the same key."""

import dataclasses
import time
from typing import TYPE_CHECKING

from pg_bronze.core.region import Region
from pg_bronze.core.table import Relation, SourceTable
from pg_bronze.core.watermark import Watermark
from pg_bronze.errors import TableChanged
from pg_bronze.lake.claim import Claim
from pg_bronze.lake.commit import Slice
from pg_bronze.sync import slice_reader

if TYPE_CHECKING:
    from pg_bronze.sync.slice_source import SliceSource


def slice_of(slices: "SliceSource", claim: Claim) -> Slice:
    """Read a claimed region again and return its slice: same region, same key, and an object even without rows.

    The object has the table's current columns, and its watermark describes those, not the columns of the claim.
    Where places or floors of the region mean other rows now, the slice is empty and commits the state before it:
    nothing of it was delivered. Where its table is gone, the slice opens a new generation instead.

    Raises:
        TableChanged: The table was altered during the read.
    """
    table = slices.table
    snapshot = slices.builder.describe(claim.before, claim.after, table)
    claim = dataclasses.replace(claim, after=snapshot.add_to(claim.after, claim.before))
    if claim.region is None:
        return slices.builder.of_claim(claim, slices.no_rows(), snapshot, redo=True)
    leaves = {item.oid: item for item in table.relations}
    if table.oid != claim.after.table or any(oid not in leaves for oid in claim.region.leaves):
        return _new_generation(slices, claim, "the table was dropped or a partition of it was detached since")
    if _is_moved(claim, claim.region, table, leaves):
        return _withdrawn(slices, claim, "its rows were rewritten, or the column that divided them was dropped, since")
    region, started = _current_region(claim.region, table, leaves), time.monotonic()
    try:
        query = slice_reader.query(table, region)
    except KeyError:
        return _new_generation(slices, claim, "a column that bounds it was dropped since")
    frame, policy_counts = slice_reader.read_all(slices.source, table, region, query)
    if slices.refresh_table() != table.fingerprint:
        raise TableChanged(
            f"{table.label}: the table was altered while a claimed slice was read again. It is retried at the next "
            "tick."
        )
    seconds = time.monotonic() - started
    return slices.builder.of_claim(claim, frame, snapshot, redo=True, seconds=seconds, policy_counts=policy_counts)


def _is_moved(claim: Claim, region: Region, table: SourceTable, leaves: dict[int, Relation]) -> bool:
    """Return whether the places or floors that a claim was read by contain other rows now."""
    types = table.types_by_attnum
    for oid in region.leaves:
        for leaf in (claim.before.leaf(oid), claim.after.leaf(oid)):
            if leaf.order is not None and not leaf.order.holds(leaves[oid], types):
                return True
    # A rewrite moves every row, so block ranges contain other rows than they did.
    nodes = claim.relfilenodes
    return region.blocks is not None and any(leaves[oid].relfilenode != nodes.get(oid) for oid in region.leaves)


def _current_region(region: Region, table: SourceTable, leaves: dict[int, Relation]) -> Region:
    """Return the region under the current name of its leaf or table: a renamed leaf is the same leaf."""
    named = leaves[region.leaves[0]] if region.only else table
    return dataclasses.replace(region, schema=named.schema, name=named.name)


def _withdrawn(slices: "SliceSource", claim: Claim, why: str) -> Slice:
    """Return an empty slice under the claim's key that commits the state before it; the planner judges that state."""
    first_key = claim.before.first_key or claim.after.key
    after = dataclasses.replace(claim.before, seq=claim.after.seq, key=claim.after.key, first_key=first_key)
    return _empty(slices, claim, after, why)


def _new_generation(slices: "SliceSource", claim: Claim, why: str) -> Slice:
    """Return an empty slice under the claim's key that opens a new generation; a new first load follows."""
    seq, key = claim.after.seq, claim.after.key
    return _empty(
        slices, claim, dataclasses.replace(slices.new_generation(claim.before), seq=seq, key=key, first_key=key), why
    )


def _empty(slices: "SliceSource", claim: Claim, after: Watermark, why: str) -> Slice:
    snapshot = slices.builder.describe(claim.before, after, slices.table)
    reason = f"a claimed slice cannot be read again: {why}"
    claim = dataclasses.replace(claim, after=snapshot.add_to(after, claim.before), region=None, reason=reason)
    return slices.builder.of_claim(claim, slices.no_rows(), snapshot, redo=True)
