"""Changes of a table's watermark on request: reset and continue. Each one is a commit like any other.

A change waits for the run that is copying the table, and reports only what the bucket then contains.
"""

import dataclasses
from collections.abc import Callable

from pg_bronze.core.table import shell_argument
from pg_bronze.core.watermark import Leaf, Watermark
from pg_bronze.errors import SettingsError, Superseded, TableBusy
from pg_bronze.lake.commit import Slice, SliceWriter
from pg_bronze.lake.ledger import Committed
from pg_bronze.sync.table_sync import TableSync

LOCK_WAIT_S = 60.0
TRIES = 5
Change = Callable[[Watermark], Watermark]


def reset(sync: TableSync, recorded: Watermark | None, writer: SliceWriter) -> Committed:
    """Forget how far the table was copied: the next tick copies all of it into a new generation."""
    return _commit(sync, recorded, writer, "reset on request", sync.forgotten)


def resume(sync: TableSync, recorded: Watermark | None, writer: SliceWriter) -> Committed:
    """Accept the current database and bucket as the continuation of those that the watermark belongs to."""
    return _commit(sync, recorded, writer, "continued on request", lambda watermark: watermark)


def resume_below(
    sync: TableSync, recorded: Watermark | None, writer: SliceWriter, horizon: int, reason: str
) -> Committed:
    """Accept the current database, given that the lake contains all rows copied below a horizon.

    Where transaction ids went back, those that are handed out again are read again.
    """

    def bounded(watermark: Watermark) -> Watermark:
        swept = {oid: leaf.swept for oid, leaf in watermark.leaves.items() if leaf.swept is not None}
        return watermark.with_leaves({oid: Leaf(swept=min(upto, horizon)) for oid, upto in swept.items()})

    return _commit(sync, recorded, writer, reason, bounded)


def _commit(sync: TableSync, recorded: Watermark | None, writer: SliceWriter, reason: str, change: Change) -> Committed:
    """Commit a change and return it as the bucket contains it.

    Raises:
        TableBusy: Another run holds the table's lock for longer than a minute.
        Superseded: Other writers committed first several times in a row.
    """
    require_lock(sync)
    for _ in range(TRIES):
        try:
            committed = writer.write(_slice(sync, recorded, reason, change))
        except Superseded:
            continue  # another writer committed first: the change is applied to what it left
        # An object under our key that somebody else wrote is the slice of an open claim, not this change.
        if committed.own and sync.ledger.footer(committed.key) is not None:
            if committed.watermark.generation:
                sync.ledger.move_old(committed.watermark)
            return committed
    raise Superseded(
        f"{sync.label}: other writers committed {TRIES} times while the change was made. Nothing was changed. Stop the "
        "run that is copying the table, and run the command again."
    )


def require_lock(sync: TableSync) -> None:
    """Take the table's lock, waiting for the run that holds it. Raises TableBusy after a minute."""
    if not sync.locked:
        sync.locked = sync.source.lock(sync.table.oid, LOCK_WAIT_S)
    if not sync.locked:
        raise TableBusy(
            f"{sync.label}: another run is still copying the table after {LOCK_WAIT_S:.0f} s. Nothing was changed. Run "
            "the command again when that run has ended, or stop it."
        )


def _slice(sync: TableSync, recorded: Watermark | None, reason: str, change: Change) -> Slice:
    """Return the empty slice that commits a change of the watermark as the bucket has it now."""
    sync.place = place = sync.source.place(sync.store.place)
    elsewhere = recorded is not None and recorded.origin.bucket != place.bucket
    recovered = sync.ledger.recover(None if elsewhere else recorded, sync.now(), allow_gaps=True)
    claimed = recovered.redo.before if recovered.redo else None
    watermark = recovered.watermark or recorded or claimed
    if watermark is None:
        raise SettingsError(
            f"{sync.label}: nothing of the table was copied yet, so there is nothing to change. "
            f"`pg-bronze tick {shell_argument(sync.label)}` copies it."
        )
    if elsewhere and recovered.watermark is None:
        watermark = dataclasses.replace(watermark, key="", columns_key="", columns_digest="")
    sync.refresh_table()
    after = change(dataclasses.replace(watermark, origin=place))
    piece = sync.empty_slice(watermark, after, reason)
    return _under_key(sync, piece, recovered.redo.after.key, watermark) if recovered.redo else piece


def _under_key(sync: TableSync, piece: Slice, key: str, watermark: Watermark) -> Slice:
    """Return the change under the key of an open claim, which has taken its number; the claimed rows are read later."""
    numbered = piece.claim.after
    opens_generation = numbered.generation != watermark.generation
    after = dataclasses.replace(numbered, key=key, first_key=key if opens_generation else numbered.first_key)
    snapshot = sync.columns.look(watermark, after, sync.table)
    claim = dataclasses.replace(piece.claim, after=snapshot.onto(after, watermark))
    return sync.slice_of(claim, sync.no_rows(), snapshot, redo=True)
