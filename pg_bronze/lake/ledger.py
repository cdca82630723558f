"""The ledger: the objects and claims of one table, and how far the table has been copied according to them.

It lists objects, adopts those that were written and not recorded, finds a claim to redo, and moves earlier generations
away. ``lake.commit`` writes the slices.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pg_bronze.core import late_rows
from pg_bronze.core.table import shell_argument
from pg_bronze.core.value_policies import ExceptionalCount
from pg_bronze.core.watermark import Watermark
from pg_bronze.errors import LakeDamaged, Superseded
from pg_bronze.lake import footer_reader, foreign_objects, generations, listing, stop
from pg_bronze.lake.claim import Claim
from pg_bronze.lake.footer import Footer
from pg_bronze.lake.keys import Layout, search_starts
from pg_bronze.lake.object_store import ObjectInfo, Store

if TYPE_CHECKING:
    import polars as pl


# With more objects than this, only the newest is adopted; verification walks the whole chain.
ADOPT_BY_WALKING = 1000
RECOVER_TRIES = 5


@dataclass(frozen=True)
class Committed:
    """One object in the lake, and the watermark after it.

    Attributes:
        key: The object's key.
        watermark: How far the table has been copied with it.
        row_count: Rows in the object.
        size_bytes: Its size; 0 if another writer wrote it and the size is not known.
        own: False if another writer wrote the object.
        exceptional: Values that a policy was applied to.
        drift: What changed in the table since the object before, one sentence each.
        late_row_count: Its late rows; 0 if they were not counted.
    """

    key: str
    watermark: Watermark
    row_count: int
    size_bytes: int
    own: bool = True
    exceptional: Sequence[ExceptionalCount] = ()
    drift: Sequence[str] = ()
    late_row_count: int = 0


@dataclass(frozen=True)
class Recovered:
    """How far a table has been copied according to the bucket.

    Attributes:
        watermark: The watermark of the last object; None if pg_bronze has written no object.
        adopted: Objects that were written and not recorded.
        redo: A claim without an object, to be redone.
        rebuilt: The watermark was read from a footer, because none was recorded.
        foreign_key: The newest object that pg_bronze did not write. Searched only while there is no watermark.
        stopped: Why the table is stopped at this watermark; None if it is not.
    """

    watermark: Watermark | None
    adopted: tuple[Committed, ...] = ()
    redo: Claim | None = None
    rebuilt: bool = False
    foreign_key: str = ""
    stopped: str | None = None


class Ledger:
    """The objects and claims of one table in one bucket."""

    def __init__(self, store: Store, layout: Layout) -> None:
        self.store = store
        self.layout = layout
        self._stop_listed = False

    def since(self, key: str) -> list[ObjectInfo]:
        """Return the objects at or after a key of this table (``""``: all), oldest first, of both layouts."""
        return list(self._objects_from(self.layout.time(key) if key else None))

    def newer(self, key: str) -> list[ObjectInfo]:
        """Return the objects after a key of this table, oldest first."""
        return [item for item in self.since(key) if item.key != key]

    def footers_from(self, start: datetime | None) -> Iterator[tuple[str, Footer | None]]:
        """Yield the objects at or after a time (None: all) with their footers, oldest first; see ``read_many``."""
        return footer_reader.read_many(self.store, (item.key for item in self._objects_from(start)))

    def _objects_from(self, start: datetime | None) -> Iterator[ObjectInfo]:
        return listing.objects_from(self.store, self.layout, start)

    def is_recent(self, watermark: Watermark, now: datetime) -> bool:
        """Return whether the claim and the listing after it are enough to find out if a recorded watermark is current.

        It is false once in ten minutes, and for tables without an object since then. They are recovered by listings,
        which also finish a move of old objects, and find foreign objects.
        """
        last = self.layout.time(watermark.key)
        return watermark.seq > 0 and last is not None and foreign_objects.same_interval(last, now)

    def is_last(self, watermark: Watermark, must_exist: bool) -> bool:
        """Return whether no object follows the one of a watermark, and, if ``must_exist``, that one exists.

        One request if it must exist, unless the layout was changed with the last object. The next object appears in it
        whoever writes it. A watermark of an earlier generation is noticed because its object was moved away before all
        later ones. If it need not exist, both layouts are listed: the object that announced the other one may have been
        moved away.
        """
        if not must_exist or not watermark.seq:
            return not self.newer(watermark.key)
        listed = listing.objects_in(self.store, self.layout, self.layout.listings_after(watermark))
        return [item.key for item in listed] == [watermark.key]

    def footer(self, key: str) -> Footer | None:
        """Return the footer of an object, or None if the object is missing or was not written by pg_bronze."""
        return footer_reader.read(self.store, key)

    def footer_and_schema(self, key: str) -> "tuple[Footer, pl.Schema] | None":
        """Return the footer of an object and its Parquet columns, or None as ``footer`` does."""
        return footer_reader.read_with_schema(self.store, key)

    def own_footer(self, key: str) -> Footer:
        """Return the footer of an object that pg_bronze must have written.

        Raises:
            Superseded: The object is missing.
            LakeDamaged: Another program wrote the object.
        """
        footer = self.footer(key)
        if footer is None and self.store.tail(key, 8) is None:
            raise Superseded(
                f"{self.layout.label}: another writer moved {self.store.uri(key)} during recovery. It is retried at "
                "the next tick."
            )
        if footer is None:
            raise LakeDamaged(
                f"{self.store.uri(key)} is not an object of pg_bronze, and was written after the first one of "
                "pg_bronze. Another program, perhaps the original system, writes to this folder. Stop it and move its "
                "objects out of the folder. Nothing of the table is copied until then."
            )
        return footer

    def check_foreign_objects(self, watermark: Watermark, now: datetime) -> None:
        """Raise LakeDamaged if another program has written objects since this generation began.

        Called before a write. See ``lake.foreign_objects``.
        """
        foreign_objects.check(self, watermark, now)

    def recover(self, recorded: Watermark | None, now: datetime, allow_gaps: bool = False) -> Recovered:
        """Find the table's watermark: adopt objects that were not recorded, and find a claim to redo.

        Args:
            recorded: The watermark of the latest materialization, or None if it has none.
            now: The current time, UTC.
            allow_gaps: Accept that objects are missing: the last one, or one before another object or a claim.

        Raises:
            LakeDamaged: An object was not written by pg_bronze, or objects are missing.
            Superseded: Other writers committed during every attempt.
        """
        for attempt in range(RECOVER_TRIES):
            try:
                adopted = self._adopt(recorded, now, allow_gaps)
            except Superseded:
                if attempt == RECOVER_TRIES - 1:
                    raise
                continue
            recovered = self._with_open_claim(adopted, recorded.seq if recorded else 0, allow_gaps)
            if recovered is not None:
                return recovered
        raise Superseded(
            f"{self.layout.label}: other writers committed faster than this one could follow. It is retried at the "
            "next tick."
        )

    def _adopt(self, recorded: Watermark | None, now: datetime, allow_gaps: bool) -> Recovered:
        watermark = recorded
        if watermark is None:
            newest, foreign_key = self._newest(now)
            if newest is None:
                return Recovered(None, foreign_key=foreign_key)
            watermark = newest.after
            self._check_prefix(watermark)
        items = self.since(watermark.key)
        if watermark.seq and (not items or items[0].key != watermark.key):
            if self._was_moved(watermark):
                # Recorded before a new generation began: the newest footer has the watermark.
                return self._adopt(None, now, allow_gaps)
            if not allow_gaps:
                raise self._last_object_missing(watermark)
        later = [item for item in items if item.key != watermark.key]
        if len(later) > ADOPT_BY_WALKING:
            footer = self.own_footer(later[-1].key)
            return Recovered(footer.after, (committed_by(footer, later[-1].key, later[-1].size_bytes),))
        adopted = []
        for item in later:
            footer = self.own_footer(item.key)
            if not footer.continues(watermark):
                if allow_gaps:
                    return self._adopt(None, now, allow_gaps)
                raise self._chain_broken(item.key, footer, watermark)
            watermark = footer.after
            adopted.append(committed_by(footer, item.key, item.size_bytes))
        return Recovered(watermark, tuple(adopted), rebuilt=recorded is None)

    def _check_prefix(self, watermark: Watermark) -> None:
        if not watermark.key.startswith(f"{self.layout.folder}/"):
            raise LakeDamaged(
                f"{self.layout.label}: the newest object in {self.store.uri(self.layout.folder)}/ was written as "
                f"{watermark.key!r}. It was moved from another prefix, and the objects name each other with their "
                "prefix. Move them to a bucket with their former prefix, and set PG_BRONZE_PREFIX to it; or run "
                f"`pg-bronze reset {shell_argument(self.layout.label)}` to copy the table again. Nothing of the table "
                "is copied until then."
            )

    def _was_moved(self, watermark: Watermark) -> bool:
        return self.store.tail(self.layout.old(watermark.key, watermark.generation), 8) is not None

    def _last_object_missing(self, watermark: Watermark) -> LakeDamaged:
        return LakeDamaged(
            f"{self.layout.label}: its last object {self.store.uri(watermark.key)} is missing (deleted or expired). "
            f"Rows may be missing from the lake. {self._remedies('without it')}"
        )

    def _chain_broken(self, key: str, footer: Footer, watermark: Watermark) -> LakeDamaged:
        return LakeDamaged(
            f"{self.store.uri(key)} does not continue the watermark of {self.layout.label}: it is number "
            f"{footer.after.seq} and follows {footer.before.key or 'no object'!r}, but the last known object is number "
            f"{watermark.seq}, {watermark.key!r}. Move it out of the folder if it does not belong there. Otherwise: "
            f"{self._remedies('after the newest object')}"
        )

    def _remedies(self, where: str) -> str:
        """Return what helps if objects are missing; ``where`` completes "`continue` continues …"."""
        label = shell_argument(self.layout.label)
        return (
            f"`pg-bronze reset {label}` copies the table again; `pg-bronze continue {label}` continues {where}. "
            "Nothing of the table is copied until then."
        )

    def _newest(self, now: datetime) -> tuple[Footer | None, str]:
        """Return the footer of the newest object, or else the key of the newest one that pg_bronze did not write."""
        # Most tables without a watermark are new: one request instead of two for each start.
        if next(iter(self.store.list(f"{self.layout.folder}/")), None) is None:
            return None, ""
        for start in search_starts(now):
            foreign_key = ""
            for item in reversed(list(self._objects_from(start))):
                footer = self.footer(item.key)
                if footer is not None:
                    if foreign_key:
                        self.own_footer(foreign_key)  # raises: another program wrote after pg_bronze
                    return footer, ""
                foreign_key = foreign_key or item.key
            if foreign_key and start is None:
                return None, foreign_key
        return None, ""

    def _with_open_claim(self, recovered: Recovered, recorded_seq: int, allow_gaps: bool) -> Recovered | None:
        """Add the claim to redo; None if another object was committed since, so that recovery has to start again."""
        watermark = recovered.watermark
        last_key, seq = (watermark.key, watermark.seq) if watermark else (recovered.foreign_key, 0)
        start_seq = min(recorded_seq, seq)
        try:
            claim = self._open_claim(seq, start_seq)
        except LakeDamaged:
            if self.newer(last_key):
                return None  # the claim may be for the object after it
            if not allow_gaps:
                raise
            claim = self._open_claim(seq, start_seq, delete_later=True)
        if claim is not None and claim.before.key != last_key:
            self._check_foreign_claim(claim, seq + 1, last_key, allow_gaps)
            claim = None
        # The writer of the claim may have finished since the first LIST. A redo would then write its rows twice.
        if claim is not None and self.newer(last_key):
            return None
        stopped = stop.read(self.store, self.layout, watermark) if self._stop_listed else None
        return dataclasses.replace(recovered, redo=claim, stopped=stopped)

    def _check_foreign_claim(self, claim: Claim, number: int, last_key: str, allow_gaps: bool) -> None:
        """Delete a claim that follows another object than the last one, or raise LakeDamaged without ``allow_gaps``."""
        key = self.layout.claim(number)
        if not allow_gaps:
            raise LakeDamaged(
                f"{self.store.uri(key)} claims object number {number} after {claim.before.key!r}, but the last known "
                f"object is {last_key!r}: objects in between are missing. {self._remedies('without them')}"
            )
        self.store.delete(key)

    def _open_claim(self, seq: int, start_seq: int = 0, delete_later: bool = False) -> Claim | None:
        """Return the claim of object ``seq + 1``; delete claims up to ``seq``, and later ones if ``delete_later``.

        The listing starts at claim ``start_seq``, which is at most ``seq``: on a versioned bucket it would otherwise
        read a delete marker for every object ever written. A claim before ``start_seq`` can exist only if the server
        executed a request late, or if a writer with an outdated watermark ended. It is harmless, because its number
        has an object and is never claimed again. It is deleted when a watermark is rebuilt (``start_seq`` 0).
        """
        claim = None
        self._stop_listed = False
        for item in self.store.list(self.layout.claims, self.layout.claim(max(0, start_seq - 1))):
            self._stop_listed |= item.key == self.layout.stop
            number = self.layout.claim_seq(item.key)
            if number is None:
                continue
            if number <= seq or (delete_later and number > seq + 1):
                self.store.delete(item.key)
            elif number == seq + 1:
                text = self.store.get(item.key)
                claim = None if text is None else Claim.from_text(text, item.key)
            else:
                raise LakeDamaged(
                    f"{self.store.uri(item.key)} claims object number {number}, but the last known object has number "
                    f"{seq}: objects in between are missing. {self._remedies('without them')}"
                )
        return claim

    def move_old(self, watermark: Watermark) -> int:
        """Move the objects of earlier generations out of the folder and return how many were moved."""
        return generations.move_old(self, watermark)


def committed_by(footer: Footer, key: str, size_bytes: int, own: bool = False) -> Committed:
    """Return what an object with this footer committed."""
    late = late_rows.late_between(footer.before, footer.after)
    return Committed(key, footer.after, footer.row_count, size_bytes, own, footer.exceptional, footer.drift, late)
