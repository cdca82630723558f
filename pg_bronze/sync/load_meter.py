"""The meter of a first load: what its slices add up to, across the runs that it takes."""

import time
from typing import TYPE_CHECKING

from pg_bronze.core import load_progress
from pg_bronze.core.load_progress import LoadProgress
from pg_bronze.core.watermark import Watermark
from pg_bronze.lake.ledger import Committed

if TYPE_CHECKING:
    from pg_bronze.sync.slice_source import SliceSource


class LoadMeter:
    """Counts the slices of one run of a table whose first load is not complete.

    Attributes:
        progress: How far the load is after the last slice; None if the table was not loading before any slice.
    """

    def __init__(self, slices: "SliceSource", watermark: Watermark, row_count: int = 0, size_bytes: int = 0) -> None:
        """Begin a run.

        Args:
            slices: Has the table as it is now.
            watermark: How far the table is copied before the run.
            row_count: The rows that the load copied before the run.
            size_bytes: The bytes of their objects.
        """
        self._slices = slices
        self._watermark = watermark
        self._row_count, self._size_bytes = row_count, size_bytes
        self._share = load_progress.share_of(watermark, slices.table)
        self._began = time.monotonic()
        self.progress: LoadProgress | None = None

    @property
    def is_loading(self) -> bool:
        """Whether the load is not complete after the last slice."""
        return load_progress.is_loading(self._watermark, self._slices.table)

    def add(self, committed: Committed) -> LoadProgress | None:
        """Count a slice, and return how far the load is; None if the slice is no part of a first load."""
        before, self._watermark = self._watermark, committed.watermark
        if before.generation != committed.watermark.generation:
            self._row_count = self._size_bytes = 0
            self._share, self._began = 0.0, time.monotonic()
        elif not load_progress.is_loading(before, self._slices.table):
            return None
        self._row_count += committed.row_count
        self._size_bytes += committed.size_bytes
        share = load_progress.share_of(committed.watermark, self._slices.table)
        left_s = load_progress.left_s(share, self._share, time.monotonic() - self._began)
        self.progress = LoadProgress(self._row_count, self._size_bytes, share, left_s)
        return self.progress
