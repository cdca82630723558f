"""The stream of one table's slices. Each is read and encoded while the one before is written. A report ends it."""

import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, TypeAlias

from pg_bronze.core.watermark import Watermark
from pg_bronze.errors import TableLocked
from pg_bronze.lake.commit import Slice, Slices
from pg_bronze.lake.ledger import Committed, Recovered
from pg_bronze.sync.reads_ahead import STOP_WITHIN_S, settled
from pg_bronze.sync.report import SyncReport

if TYPE_CHECKING:
    from pg_bronze.sync.table_sync import TableSync

ReadAhead: TypeAlias = "Future[Slice | None]"


class SliceStream:
    """The slices of one table in one run.

    ``lake.commit.write_all`` consumes ``slices()``: it writes each slice and sends back the outcome.

    Attributes:
        watermark: How far the table is copied after the last outcome.
        rebuilt: The watermark came from a footer, because none was recorded.
        reason: Why the first object exists, if not for its rows; None otherwise.
    """

    def __init__(
        self,
        sync: "TableSync",
        recovered: Recovered,
        watermark: Watermark,
        first: Slice | None,
        proven: bool = True,
    ) -> None:
        self._sync = sync
        self._first = first
        # False: no listing and no claim has shown yet that the watermark is current.
        self._proven = proven
        self._adopted = recovered.adopted
        self._committed: list[Committed] = []
        self._superseded = False
        self.watermark = watermark
        self.rebuilt = recovered.rebuilt
        self.reason = first.claim.reason if first else None

    @property
    def report(self) -> SyncReport:
        """Return what was adopted and committed so far."""
        return SyncReport(
            label=self._sync.label,
            watermark=self.watermark,
            adopted=self._adopted,
            committed=tuple(self._committed),
            cursor_column=self._sync.slices.cursor_column,
            superseded=self._superseded,
            unfenced=self._sync.options.unfenced,
            control_off=self._sync.control.off,
            bands=self._sync.slices.notes(self.watermark),
        )

    def slices(self) -> Slices[SyncReport]:
        """Yield each slice; receive what was committed for it, or None if another writer committed first."""
        current = self._first
        reading: ReadAhead | None = None
        pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead")
        try:
            while current is not None:
                reading = None
                if not current.bulky:
                    reading = pool.submit(self._next_encoded, current.claim.after)
                committed = yield current
                try:
                    current = self._after(current, committed, reading)
                except TableLocked as error:
                    # What is committed is reported; the next run waits for the lock or leaves the table as well.
                    self._sync.slices.waiting, current = str(error), None
            return self.report
        except BaseException:
            # An interrupt, or the writer stopped: the read ahead must not continue without a writer.
            self._stop(reading)
            raise
        finally:
            self._sync.slices.close()
            pool.shutdown(wait=False)

    def _next_encoded(self, watermark: Watermark) -> Slice | None:
        """Return the slice after a watermark, encoded; it is discarded if the watermark is not committed."""
        piece = self._sync.slices.next_slice(watermark)
        if piece is not None and not piece.bulky:
            piece.encode_ahead(self._sync.options.codec)
        return piece

    def _after(self, written: Slice, committed: Committed | None, reading: "ReadAhead | None") -> Slice | None:
        """Note the outcome of a slice and return the next one; None after the last one, or after another writer's."""
        if committed is None and not self._proven:
            _discard(reading)
            return self._recover()
        self._record(written, committed)
        if committed is None:
            _discard(reading)
            return None
        return self._following(written, reading)

    def _following(self, written: Slice, reading: "ReadAhead | None") -> Slice | None:
        if reading is not None and self.watermark == written.claim.after:
            return settled(reading).result()
        # An object of another writer ended elsewhere than planned: the slice read ahead does not continue it.
        _discard(reading)
        return self._sync.slices.next_slice(self.watermark)

    def _record(self, written: Slice, committed: Committed | None) -> None:
        if committed is None:
            recovered = self._sync.recover_after_conflict(self.watermark)
            self._adopted = (*self._adopted, *recovered.adopted)
            self.watermark = recovered.watermark or self.watermark
            self._superseded = True
            return
        self._proven = True
        self._committed.append(committed)
        self.watermark = committed.watermark
        if committed.watermark.generation != written.claim.before.generation:
            self._sync.ledger.move_old(committed.watermark)

    def _recover(self) -> Slice | None:
        """Continue after what the bucket contains, because the recorded watermark was not current."""
        recovered, self.watermark, following = self._sync.recover_again(self.watermark)
        self._proven = True
        self._adopted = recovered.adopted
        return following

    def _stop(self, reading: "ReadAhead | None") -> None:
        """End a read ahead on the server, and wait for its thread."""
        if reading is None or reading.cancel():
            return
        deadline = time.monotonic() + STOP_WITHIN_S
        while not reading.done() and time.monotonic() < deadline:
            self._sync.slices.stop()
            wait([reading], 0.1)


def _discard(reading: "ReadAhead | None") -> None:
    if reading is not None and not reading.cancel():
        settled(reading)
