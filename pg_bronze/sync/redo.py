"""Redo: write the slice of a claim that another writer left open, under the same key."""

import dataclasses
import time
from typing import TYPE_CHECKING

from pg_bronze.core.table import Relation
from pg_bronze.core.window_sql import Region
from pg_bronze.errors import TableChanged
from pg_bronze.lake.claim import Claim
from pg_bronze.lake.commit import Slice
from pg_bronze.sync import slice_reader

if TYPE_CHECKING:
    from pg_bronze.sync.table_sync import TableSync


def slice_of(sync: "TableSync", claim: Claim) -> Slice:
    """Read a claimed region again and return its slice: same region, same key, and an object even without rows.

    The object has the table's current columns, and its watermark describes those, not the columns of the claim.
    Where the region cannot be read any more, the slice opens a new generation instead.
    """
    snapshot = sync.columns.look(claim.before, claim.after, sync.table)
    claim = dataclasses.replace(claim, after=snapshot.onto(claim.after, claim.before))
    if claim.region is None:
        return sync.slice_of(claim, sync.no_rows(), snapshot, redo=True)
    leaves = {item.oid: item for item in sync.table.relations}
    if _is_gone(claim, sync.table.oid, leaves):
        return _new_generation(sync, claim, "the table was rewritten, dropped or detached since")
    region = _current_region(claim.region, sync, leaves)
    started, fingerprint = time.monotonic(), sync.table.fingerprint
    try:
        query = slice_reader.query(sync.table, region)
    except KeyError:
        return _new_generation(sync, claim, "a column that bounds it was dropped since")
    frame, policy_counts = slice_reader.read_all(sync.source, sync.table, region, query)
    if sync.refresh_table() != fingerprint:
        raise TableChanged(
            f"{sync.label}: the table was altered while a claimed slice was read again. It is retried at the next tick."
        )
    seconds = time.monotonic() - started
    return sync.slice_of(claim, frame, snapshot, redo=True, seconds=seconds, policy_counts=policy_counts)


def _is_gone(claim: Claim, table_oid: int, leaves: dict[int, Relation]) -> bool:
    """Return whether the rows of a claim cannot be found any more."""
    if claim.region is None or table_oid != claim.after.table:
        return claim.region is not None
    if any(oid not in leaves for oid in claim.region.leaves):
        return True
    # A rewrite moves every row, so block ranges mean other rows than they did.
    return claim.region.blocks is not None and any(
        oid not in leaves or leaves[oid].relfilenode != node for oid, node in claim.relfilenodes.items()
    )


def _current_region(region: Region, sync: "TableSync", leaves: dict[int, Relation]) -> Region:
    """Return the region under the current name of its leaf or table: a renamed leaf is the same leaf."""
    named = leaves[region.leaves[0]] if region.only else sync.table
    return dataclasses.replace(region, schema=named.schema, name=named.name)


def _new_generation(sync: "TableSync", claim: Claim, why: str) -> Slice:
    """Return an empty slice under the claim's key that opens a new generation; a new first load follows."""
    seq, key = claim.after.seq, claim.after.key
    after = dataclasses.replace(sync.forgotten(claim.before), seq=seq, key=key, first_key=key)
    snapshot = sync.columns.look(claim.before, after, sync.table)
    after = snapshot.onto(after, claim.before)
    reason = f"a claimed slice cannot be read again: {why}"
    claim = dataclasses.replace(claim, after=after, region=None, reason=reason)
    return sync.slice_of(claim, sync.no_rows(), snapshot, redo=True)
