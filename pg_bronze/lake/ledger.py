"""The ledger: the objects and claims of one table, and how far the table has been copied according to them.

Lists, adopts what was written and not recorded, finds a claim to redo, and moves old generations away. Writing a slice
is ``lake.commit``.
"""

import bisect
import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pg_bronze.core.table import argument
from pg_bronze.core.value_policies import Exceptional
from pg_bronze.core.watermark import Watermark
from pg_bronze.errors import LakeDamaged, Superseded
from pg_bronze.lake.claim import Claim
from pg_bronze.lake.footer import ENTRY, Footer
from pg_bronze.lake.keys import Layout, search_starts
from pg_bronze.lake.object_store import ObjectInfo, Store

if TYPE_CHECKING:
    import polars as pl


# Footers of a few hundred columns fit; a larger one costs a second request.
TAIL_BYTES = 65536
# From here on adopting looks at the newest object only; walking the whole chain is verification's work.
ADOPT_BY_WALKING = 1000
RECOVER_TRIES = 5
# The original system names its objects in its local time: west of UTC they sort before ours. A day's folder may hold
# thousands, so they are looked for in every ten minutes in which something is copied, and not in every tick.
FURTHEST_WEST = timedelta(hours=12)
LOOK_BACK_EVERY = timedelta(minutes=10)


@dataclass(frozen=True)
class Committed:
    """One object that is in the lake, and the watermark after it. ``own`` is False for one another writer put there.

    ``drift`` says what changed in the table since the object before.
    """

    key: str
    watermark: Watermark
    row_count: int
    size_bytes: int
    own: bool = True
    exceptional: Sequence[Exceptional] = ()
    drift: Sequence[str] = ()


@dataclass(frozen=True)
class Recovered:
    """Where a table stands: its watermark (None: nothing of ours in the bucket), what was adopted, what to do again.

    ``rebuilt``: the watermark came from a footer, because none was recorded. ``foreign_key`` is the newest object that
    is not ours, looked for only while there is no watermark.
    """

    watermark: Watermark | None
    adopted: tuple[Committed, ...] = ()
    redo: Claim | None = None
    rebuilt: bool = False
    foreign_key: str = ""


def _turn(at: datetime) -> int:
    return int(at.timestamp() // LOOK_BACK_EVERY.total_seconds())


class Ledger:
    """The objects and claims of one table: what is in the bucket, and how far the table has been copied."""

    def __init__(self, store: Store, layout: Layout) -> None:
        self.store = store
        self.layout = layout

    def since(self, key: str) -> list[ObjectInfo]:
        """Objects at or after a key of this table (``""``: all), oldest first, whatever their layout."""
        after = self.layout.time(key) if key else None
        return self._listed(after)

    def newer(self, key: str) -> list[ObjectInfo]:
        """Objects after a key of this table, oldest first."""
        return [item for item in self.since(key) if item.key != key]

    def _listed(self, after: datetime | None) -> list[ObjectInfo]:
        found: list[tuple[datetime, ObjectInfo]] = []
        for prefix, start_after in self.layout.listings(after):
            for item in self.store.list(prefix, start_after):
                time = self.layout.time(item.key)
                if time is not None:
                    found.append((time, item))
                elif item.key.endswith(".parquet"):
                    raise LakeDamaged(
                        f"{self.store.uri(item.key)} stands among the objects of {self.layout.label} and is not "
                        "named like "
                        "one of them. Move it out of the folder; nothing is copied meanwhile."
                    )
        return [item for _, item in sorted(found, key=lambda pair: (pair[0], pair[1].key))]

    def footer(self, key: str) -> Footer | None:
        """The footer of an object; None if it is gone, or not one of pg_bronze's."""
        import polars as pl

        tail = self._tail(key)
        try:
            text = pl.read_parquet_metadata(tail).get(ENTRY) if tail else None
        except pl.exceptions.PolarsError:
            return None
        return Footer.from_text(text, key) if text is not None else None

    def look(self, key: str) -> "tuple[Footer, pl.Schema] | None":
        """The footer of an object and the columns in its Parquet; None if it is gone, or not one of pg_bronze's."""
        import polars as pl

        tail = self._tail(key)
        try:
            text = pl.read_parquet_metadata(tail).get(ENTRY) if tail else None
            if tail is None or text is None:
                return None
            return Footer.from_text(text, key), pl.Schema(pl.read_parquet_schema(tail))
        except pl.exceptions.PolarsError:
            return None

    def _tail(self, key: str) -> io.BytesIO | None:
        """The end of an object with all of its Parquet footer; None if it is gone or no Parquet."""
        tail = self.store.tail(key, TAIL_BYTES)
        if tail is None or len(tail) < 12 or tail[-4:] != b"PAR1":
            return None
        size_bytes = int.from_bytes(tail[-8:-4], "little") + 8
        if size_bytes > len(tail):
            tail = self.store.tail(key, size_bytes) or b""
        return io.BytesIO(tail)

    def runs(self, keys: Sequence[str]) -> Iterator[Footer]:
        """The newest footer of each run of objects with the same columns, newest run first, in the newest generation.

        ``keys`` are the table's, oldest first. One footer is read for each run, and one more where an older generation
        has not been moved away yet. Objects that are gone are stepped over. A footer whose ``after.columns_key`` is
        ``""`` ends the walk: nobody noted where its run began.
        """
        times = [(time, key) for key in keys if (time := self.layout.time(key))]
        generation = None
        while times:
            footer = self.footer(times[-1][1])
            if footer is None:
                times.pop()
                continue
            if generation not in (None, footer.after.generation):
                return
            generation = footer.after.generation
            yield footer
            first = self.layout.time(footer.after.columns_key)
            if first is None:
                return
            times = times[: bisect.bisect_left(times, (first, ""))]

    def look_back(self, watermark: Watermark, now: datetime) -> None:
        """Look for objects that something else wrote since this generation began, under names older than our last.

        For whoever is about to write; once in ten minutes. Raises LakeDamaged if there is one.
        """
        last = self.layout.time(watermark.key)
        if last is None or _turn(last) == _turn(now):
            return
        late: dict[str, tuple[datetime, timedelta]] = {}
        for prefix, start_after in self.layout.listings(last - FURTHEST_WEST - LOOK_BACK_EVERY):
            for item in self.store.list(prefix, start_after):
                time = self.layout.time(item.key)
                if time is not None and time <= last:
                    late[item.key] = item.modified, item.modified - time
        # Our own are named by the time at which they were written, as far as the clocks of the two servers agree.
        usual = late[watermark.key][1] if watermark.key in late else timedelta()
        odd = {key: at for key, (at, lateness) in late.items() if abs(lateness - usual) > LOOK_BACK_EVERY}
        ours = [watermark.first_key] if watermark.first_key else [key for key in late if key not in odd]
        if ours == [watermark.key] and watermark.seq > 1 and (footer := self.footer(watermark.key)):
            ours.append(footer.before.key)
        opened = min((time for key in ours if (time := self.layout.time(key))), default=last)
        for key, at in odd.items():
            if at - usual > opened + LOOK_BACK_EVERY:
                self._own_footer(key)

    def recover(self, recorded: Watermark | None, now: datetime, allow_gaps: bool = False) -> Recovered:
        """Find out where the table stands: adopt what was written and not recorded, find a claim to redo.

        Raises LakeDamaged if an object is not ours, and unless ``allow_gaps`` if objects are gone: the last one, or one
        that another object or a claim is about to follow.
        """
        for attempt in range(RECOVER_TRIES):
            try:
                found = self._adopt(recorded, now, allow_gaps)
            except Superseded:
                if attempt < RECOVER_TRIES - 1:
                    continue
                raise
            last_key = found.watermark.key if found.watermark else found.foreign_key
            seq = found.watermark.seq if found.watermark else 0
            try:
                claim = self._open_claim(seq)
            except LakeDamaged:
                if self.newer(last_key):
                    continue  # written since the LIST, and the claim is for what follows it
                if not allow_gaps:
                    raise
                claim = self._open_claim(seq, alone=True)
            if claim is None:
                return found
            # Whoever holds a claim looks again after having it in hand: the slice may have been finished since our
            # first LIST, and doing it again would double it.
            if not self.newer(last_key):
                return Recovered(found.watermark, found.adopted, claim, found.rebuilt, found.foreign_key)
        raise Superseded(
            f"{self.layout.label}: other writers commit faster than this one can follow; the next tick tries again."
        )

    def _adopt(self, recorded: Watermark | None, now: datetime, allow_gaps: bool) -> Recovered:
        watermark, rebuilt = recorded, False
        if watermark is None:
            newest, foreign_key = self._newest(now)
            if newest is None:
                return Recovered(None, foreign_key=foreign_key)
            watermark, rebuilt = newest.after, True
        items = self.since(watermark.key)
        if watermark.seq and (not items or items[0].key != watermark.key) and self._was_moved(watermark):
            # Recorded before a new generation was opened: what counts now is said by the newest footer.
            return self._adopt(None, now, allow_gaps)
        if watermark.seq and not allow_gaps and (not items or items[0].key != watermark.key):
            raise LakeDamaged(
                f"{self.layout.label}: its last object {self.store.uri(watermark.key)} is gone, deleted or "
                f"expired. Rows may be missing from the lake: {self._ways_on('goes on without it')}"
            )
        later = [item for item in items if item.key != watermark.key]
        if len(later) > ADOPT_BY_WALKING:
            footer = self._own_footer(later[-1].key)
            return Recovered(footer.after, (committed_by(footer, later[-1].key, later[-1].size_bytes),))
        adopted = []
        for item in later:
            footer = self._own_footer(item.key)
            if not footer.continues(watermark):
                if allow_gaps:
                    return self._adopt(None, now, allow_gaps)  # the newest object says how far the table is copied
                raise LakeDamaged(
                    f"{self.store.uri(item.key)} does not continue the watermark of {self.layout.label}: it follows "
                    f"{footer.before.key or 'nothing'!r} as number {footer.after.seq}, and the last one known is "
                    f"{watermark.key!r}, number {watermark.seq}. Move it out of the folder if it does not belong "
                    f"there; {self._ways_on('goes on after the newest object')}"
                )
            watermark = footer.after
            adopted.append(committed_by(footer, item.key, item.size_bytes))
        return Recovered(watermark, tuple(adopted), rebuilt=rebuilt)

    def _was_moved(self, watermark: Watermark) -> bool:
        return self.store.tail(self.layout.old(watermark.key, watermark.generation), 8) is not None

    def _own_footer(self, key: str) -> Footer:
        footer = self.footer(key)
        if footer is None and self.store.tail(key, 8) is None:
            raise Superseded(f"{self.layout.label}: another writer moved {self.store.uri(key)} away meanwhile.")
        if footer is None:
            raise LakeDamaged(
                f"{self.store.uri(key)} is not an object of pg_bronze, and was written after its first one: something "
                "else writes "
                "into this folder (the original system?). Stop it and move its objects away; nothing is "
                "copied meanwhile."
            )
        return footer

    def _newest(self, now: datetime) -> tuple[Footer | None, str]:
        """The footer of our newest object, and the key of the newest object that is not ours and has none after it."""
        for start in search_starts(now):
            foreign_key = ""
            for item in reversed(self._listed(start)):
                footer = self.footer(item.key)
                if footer is not None:
                    if foreign_key:
                        self._own_footer(foreign_key)  # raises: somebody wrote after us
                    return footer, ""
                foreign_key = foreign_key or item.key
            if foreign_key and start is None:
                return None, foreign_key
        return None, ""

    def _ways_on(self, without: str) -> str:
        """What helps where objects are missing; ``without`` says what ``continue`` does."""
        label = argument(self.layout.label)
        return f"`pg-bronze reset {label}` copies the table again, `pg-bronze continue {label}` {without}."

    def _open_claim(self, seq: int, alone: bool = False) -> Claim | None:
        """The claim for the next object; claims up to ``seq`` are garbage and removed, and later ones if ``alone``."""
        claim = None
        for item in self.store.list(self.layout.claims):
            number = self.layout.claim_seq(item.key)
            if number is None:
                continue
            if number <= seq or (alone and number > seq + 1):
                self.store.delete(item.key)
            elif number == seq + 1:
                text = self.store.get(item.key)
                claim = None if text is None else Claim.from_text(text, item.key)
            else:
                raise LakeDamaged(
                    f"{self.store.uri(item.key)} claims object number {number}, and the last one known is "
                    f"number {seq}: objects in between are gone. {self._ways_on('goes on without them')}"
                )
        return claim

    def move_old(self, watermark: Watermark) -> int:
        """Move objects of earlier generations out of the folder, so that it never holds two; returns how many.

        Resumable: what is older than the object that opened the generation has not been moved yet.
        """
        opened = self.layout.time(watermark.first_key)
        if opened is None:
            return 0
        count = 0
        for prefix, _ in self.layout.listings(None):
            for item in self.store.list(prefix):
                time = self.layout.time(item.key)
                if time is not None and time >= opened:
                    break  # a listing is ordered by time
                if time is not None:
                    footer = self.footer(item.key)
                    generation = footer.after.generation if footer else watermark.generation - 1
                    self.store.move(item.key, self.layout.old(item.key, generation))
                    count += 1
        if count:
            logging.getLogger(__name__).info(
                "moved %d objects of earlier generations of %s away", count, self.layout.label
            )
        return count


def committed_by(footer: Footer, key: str, size_bytes: int, own: bool = False) -> Committed:
    """Return what an object with this footer committed."""
    return Committed(key, footer.after, footer.row_count, size_bytes, own, footer.exceptional, footer.drift)
