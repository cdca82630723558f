"""Redo: write the slice of a claim that another writer left open, under the same key."""

import dataclasses
import time
from typing import TYPE_CHECKING

from pg_bronze.core.leaf import Leaf
from pg_bronze.core.region import Region
from pg_bronze.core.table import Relation, SourceTable
from pg_bronze.errors import TableChanged
from pg_bronze.lake.claim import Claim
from pg_bronze.lake.commit import Slice
from pg_bronze.sync import slice_reader

if TYPE_CHECKING:
    from pg_bronze.sync.slice_source import SliceSource


def slice_of(slices: "SliceSource", claim: Claim) -> Slice:
    """Read a claimed region again and return its slice: same region, same key, and an object even without rows.

    The object has the table's current columns, and its watermark describes those, not the columns of the claim.
    Where the region cannot be read any more, the slice opens a new generation instead.

    Raises:
        TableChanged: The table was altered during the read.
    """
    table = slices.table
    snapshot = slices.describe(claim.before, claim.after, table)
    claim = dataclasses.replace(claim, after=snapshot.add_to(claim.after, claim.before))
    if claim.region is None:
        return slices.slice_of(claim, slices.no_rows(), snapshot, redo=True)
    leaves = {item.oid: item for item in table.relations}
    if _is_gone(claim, table, leaves):
        return _new_generation(slices, claim, "the table was rewritten, dropped or detached since")
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
    return slices.slice_of(claim, frame, snapshot, redo=True, seconds=seconds, policy_counts=policy_counts)


def _is_gone(claim: Claim, table: SourceTable, leaves: dict[int, Relation]) -> bool:
    """Return whether the rows of a claim cannot be found any more."""
    if claim.region is None or table.oid != claim.after.table:
        return claim.region is not None
    oids = claim.region.leaves
    if any(oid not in leaves for oid in oids):
        return True
    marks = (claim.before, claim.after)
    if not all(_order_holds(mark.leaf(oid), leaves[oid], table) for oid in oids for mark in marks):
        return True
    # A rewrite moves every row, so block ranges contain other rows than they did.
    return claim.region.blocks is not None and any(
        oid not in leaves or leaves[oid].relfilenode != node for oid, node in claim.relfilenodes.items()
    )


def _order_holds(leaf: Leaf, relation: Relation, table: SourceTable) -> bool:
    """Return whether the column or the blocks that divide the rows of a state still do."""
    types = {column.attnum: column.base for column in table.columns}
    return leaf.order is None or leaf.order.holds(relation.relfilenode, types)


def _current_region(region: Region, table: SourceTable, leaves: dict[int, Relation]) -> Region:
    """Return the region under the current name of its leaf or table: a renamed leaf is the same leaf."""
    named = leaves[region.leaves[0]] if region.only else table
    return dataclasses.replace(region, schema=named.schema, name=named.name)


def _new_generation(slices: "SliceSource", claim: Claim, why: str) -> Slice:
    """Return an empty slice under the claim's key that opens a new generation; a new first load follows."""
    seq, key = claim.after.seq, claim.after.key
    after = dataclasses.replace(slices.new_generation(claim.before), seq=seq, key=key, first_key=key)
    snapshot = slices.describe(claim.before, after, slices.table)
    reason = f"a claimed slice cannot be read again: {why}"
    claim = dataclasses.replace(claim, after=snapshot.add_to(after, claim.before), region=None, reason=reason)
    return slices.slice_of(claim, slices.no_rows(), snapshot, redo=True)
