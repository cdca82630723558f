"""Changes of a table's watermark on request: reset and continue. Each one is a commit like any other.

A change waits for the run that is copying the table, and is reported only if the bucket contains it.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from pg_bronze.core.history_check import check_origin
from pg_bronze.core.table import shell_argument
from pg_bronze.core.watermark import Watermark
from pg_bronze.errors import LakeDamaged, SettingsError, Superseded, TableBusy
from pg_bronze.lake.commit import Slice, SliceWriter
from pg_bronze.lake.ledger import Committed, Recovered
from pg_bronze.sync.table_sync import TableSync

LOCK_WAIT_S = 60.0
TRIES = 5
Change = Callable[[Watermark], Watermark]


@dataclass(frozen=True)
class ResetPreview:
    """What a reset of a table does.

    Attributes:
        object_count: Objects that move out of its folder.
        size_bytes: Their bytes.
        destination: Where they move to.
        row_estimate: The planner's estimate of the rows that are copied again; 0 if it has none.
    """

    label: str
    object_count: int
    size_bytes: int
    destination: str
    row_estimate: float

    @property
    def sentence(self) -> str:
        """What will happen, as a line of a terminal."""
        objects = f"{self.object_count:,} object{'' if self.object_count == 1 else 's'}"
        rows = f"about {self.row_estimate:,.0f} rows" if self.row_estimate else "all rows of the table"
        moved = f"{objects}, {self.size_bytes / 1e6:,.1f} MB, move to {self.destination}"
        return f"{self.label}: {moved}; {rows} are copied again"


def preview_reset(sync: TableSync, recorded: Watermark | None) -> ResetPreview:
    """Return what ``reset`` would do. Takes no lock; ``sync`` is not entered.

    Raises:
        SettingsError: Nothing of the table was copied.
    """
    _, watermark = current(sync, recorded)
    if watermark is None:
        raise _nothing_copied(sync)
    objects = sync.ledger.since("")
    destination = sync.store.uri(sync.layout.old(f"{sync.layout.folder}/", watermark.generation))
    size_bytes = sum(item.size_bytes for item in objects)
    return ResetPreview(sync.label, len(objects), size_bytes, destination, sync.table.row_estimate)


def reset(sync: TableSync, recorded: Watermark | None, writer: SliceWriter) -> Committed:
    """Forget how far the table was copied: the next tick copies all of it into a new generation."""
    return _commit(sync, recorded, writer, "reset on request", sync.slices.new_generation)


def resume(sync: TableSync, recorded: Watermark | None, writer: SliceWriter) -> Committed:
    """Accept the current database and bucket as the continuation of those that the watermark belongs to."""
    return _commit(sync, recorded, writer, "continued on request", lambda watermark: watermark)


def adopt(sync: TableSync, recorded: Watermark | None, writer: SliceWriter) -> Committed | None:
    """Accept the bucket as the continuation of the one that the watermark belongs to, after a move of all objects.

    Returns:
        None if the watermark belongs to this bucket already, or if nothing of the table was copied.

    Raises:
        LakeDamaged: The newest object is not in this bucket.
        HistoryChanged: The database is not the one that the watermark belongs to.
    """
    if recorded is None or recorded.origin.bucket == sync.store.place:
        return None
    found = sync.ledger.recover(None, sync.now(), allow_gaps=True).watermark
    if found is None or (found.generation, found.seq) != (recorded.generation, recorded.seq):
        newest = f"the newest object is number {found.seq} of generation {found.generation}" if found else "no object"
        raise LakeDamaged(
            f"{sync.label}: {sync.store.place} has {newest}, and the last one that was written is "
            f"number {recorded.seq} of generation {recorded.generation}. Nothing was changed. Copy all objects of "
            f"{recorded.origin.bucket}, including those in _pg_bronze/, and run the command again."
        )
    place = sync.source.place(sync.store.place)
    moved = dataclasses.replace(recorded, origin=dataclasses.replace(recorded.origin, bucket=place.bucket))
    check_origin(moved, place, sync.label, sync.source.activity().standby)
    return _commit(sync, recorded, writer, "adopted on request", lambda watermark: watermark)


def resume_compared(
    sync: TableSync, recorded: Watermark | None, writer: SliceWriter, compared: Watermark, reason: str
) -> Committed:
    """Accept the current database, given that the lake contains all rows copied below the horizon of ``sync``.

    Where transaction ids went back, those that are handed out again are read again.

    Args:
        compared: The watermark whose objects were compared with the database.

    Raises:
        TableBusy: Another writer committed an object since. The comparison does not cover its rows.
    """

    def bounded(watermark: Watermark) -> Watermark:
        if (watermark.generation, watermark.seq, watermark.key) != (compared.generation, compared.seq, compared.key):
            raise TableBusy(
                f"{sync.label}: another writer committed an object during the comparison. Nothing was changed. Stop "
                "the run that is copying the table, and run the command again."
            )
        return watermark.with_leaves({oid: leaf.capped(sync.horizon) for oid, leaf in watermark.leaves.items()})

    return _commit(sync, recorded, writer, reason, bounded)


def require_lock(sync: TableSync) -> None:
    """Take the table's lock, waiting for the run that holds it.

    Raises:
        TableBusy: The lock was not released within a minute.
    """
    if not sync.locked:
        sync.locked = sync.source.lock(sync.table.oid, LOCK_WAIT_S)
    if not sync.locked:
        raise TableBusy(
            f"{sync.label}: another run is still copying the table after {LOCK_WAIT_S:.0f} s. Nothing was changed. Run "
            "the command again when that run has ended, or stop it."
        )


def current(sync: TableSync, recorded: Watermark | None) -> tuple[Recovered, Watermark | None]:
    """Return what the bucket contains of a table, and the watermark that a change applies to.

    Gaps between objects are allowed: a change is how an operator accepts them.

    Returns:
        None for the watermark if nothing of the table was copied.
    """
    elsewhere = recorded is not None and recorded.origin.bucket != sync.store.place
    recovered = sync.ledger.recover(None if elsewhere else recorded, sync.now(), allow_gaps=True)
    sync.on_step("recover")
    watermark = recovered.watermark or recorded or (recovered.redo.before if recovered.redo else None)
    if watermark is not None and elsewhere and recovered.watermark is None:
        # Its objects are in the other bucket, so nothing here can be compared with them.
        watermark = dataclasses.replace(watermark, key="", columns_key="", columns_digest="")
    return recovered, watermark


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
            continue  # another writer committed first: the change is applied to the watermark that it left
        # An object under this key with another nonce is the slice of an open claim, not this change.
        if committed.own and sync.ledger.footer(committed.key) is not None:
            if committed.watermark.generation:
                sync.ledger.move_old(committed.watermark)
            return committed
    raise Superseded(
        f"{sync.label}: other writers committed {TRIES} times while the change was made. Nothing was changed. Stop the "
        "run that is copying the table, and run the command again."
    )


def _slice(sync: TableSync, recorded: Watermark | None, reason: str, change: Change) -> Slice:
    """Return the empty slice that commits a change of the watermark as the bucket has it now."""
    recovered, watermark = current(sync, recorded)
    if watermark is None:
        raise _nothing_copied(sync)
    # The watermark first, the place second, as in every run: the other order would take what another writer committed
    # in between for a restored database.
    sync.slices.builder.place = place = sync.source.place(sync.store.place)
    sync.slices.refresh_table()
    after = change(dataclasses.replace(watermark, origin=place))
    sync.sign_control()
    # An open claim has taken the next number. The change takes its key, and the claimed rows are read later.
    key = recovered.redo.after.key if recovered.redo else None
    return sync.slices.empty_slice(watermark, after, reason, key)


def _nothing_copied(sync: TableSync) -> SettingsError:
    return SettingsError(
        f"{sync.label}: nothing of the table was copied yet, so there is nothing to change. "
        f"`pg-bronze tick {shell_argument(sync.label)}` copies it."
    )
