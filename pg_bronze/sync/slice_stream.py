"""The stream of one table's slices: read one ahead of the one being written, and turned into a report at the end."""

import contextlib
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from pg_bronze.core.watermark import Watermark
from pg_bronze.lake.commit import Slice, Slices
from pg_bronze.lake.ledger import Committed, Recovered
from pg_bronze.sync.report import SyncReport

if TYPE_CHECKING:
    from pg_bronze.sync.table_sync import TableSync

END_AHEAD_S = 10.0
INTERRUPTED_WITHIN_S = 0.5


class SliceStream:
    """The slices of one table in one run.

    ``slices()`` is to be consumed by ``lake.commit.write_all``, which writes each slice and sends back the outcome.
    ``watermark`` is the state after the last outcome, ``report`` what became of it all.

    Attributes:
        rebuilt: The watermark came from a footer, because none was recorded.
        reason: Why the first object exists, if not for its rows; None otherwise.
    """

    def __init__(
        self, sync: "TableSync", recovered: Recovered, watermark: Watermark, first: Slice | None, read_on: bool = True
    ) -> None:
        self._sync = sync
        self._first = first
        self._read_on = read_on
        self._adopted = recovered.adopted
        self._committed: list[Committed] = []
        self._superseded = False
        self.watermark = watermark
        self.rebuilt = recovered.rebuilt
        self.reason = first.claim.reason if first else None

    @property
    def report(self) -> SyncReport:
        """What was adopted and committed so far."""
        return SyncReport(
            label=self._sync.label,
            watermark=self.watermark,
            adopted=self._adopted,
            committed=tuple(self._committed),
            cursor_column=self._sync.cursor_column,
            superseded=self._superseded,
            unfenced=self._sync.options.unfenced,
            control_off=self._sync.control.off,
        )

    def slices(self) -> Slices[SyncReport]:
        """Yield each slice; receive what was committed for it, or None if another writer committed first."""
        current = self._first
        ahead: Future[Slice | None] | None = None
        pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead")
        try:
            while current is not None:
                ahead = None
                if self._read_on and not current.bulky:
                    ahead = pool.submit(self._sync.next_slice, current.claim.after)
                committed = yield current
                self._record(current, committed)
                if committed is None or not self._read_on:
                    _discard(ahead)
                    break
                current = self._following(current, ahead)
            return self.report
        except BaseException:
            # An interrupt, or the writer stopped: the read ahead must not continue without a writer.
            self._end(ahead)
            raise
        finally:
            pool.shutdown(wait=False)

    def _following(self, current: Slice, ahead: "Future[Slice | None] | None") -> Slice | None:
        if ahead is not None and self.watermark == current.claim.after:
            return _settled(ahead).result()
        # An object of another writer ended elsewhere than planned: the slice read ahead does not continue it.
        _discard(ahead)
        return self._sync.next_slice(self.watermark)

    def _record(self, piece: Slice, committed: Committed | None) -> None:
        if committed is None:
            recovered = self._sync.recover_after_conflict(self.watermark)
            self._adopted = (*self._adopted, *recovered.adopted)
            self.watermark = recovered.watermark or self.watermark
            self._superseded = True
            return
        self._committed.append(committed)
        self.watermark = committed.watermark
        if committed.watermark.generation != piece.claim.before.generation:
            self._sync.ledger.move_old(committed.watermark)

    def _end(self, ahead: "Future[Slice | None] | None") -> None:
        if ahead is None or ahead.cancel():
            return
        deadline = time.monotonic() + END_AHEAD_S
        while not ahead.done() and time.monotonic() < deadline:
            self._sync.source.stop_reading()
            wait([ahead], 0.1)


def _discard(ahead: "Future[Slice | None] | None") -> None:
    if ahead is not None and not ahead.cancel():
        _settled(ahead)


def _settled(ahead: "Future[Slice | None]") -> "Future[Slice | None]":
    """Wait until a read ahead has ended, with or without an error, and notice an interrupt while waiting.

    Polars makes signals restart the call they interrupt, so a wait without a time limit would end with the read only.
    """
    while True:
        with contextlib.suppress(TimeoutError):
            ahead.exception(INTERRUPTED_WITHIN_S)
            return ahead
