"""The storage meter: measures the size of the bucket at most once an hour, beside the evaluations."""

import threading
from collections.abc import Callable, Iterable

from pg_bronze.errors import PgBronzeError
from pg_bronze.lake import storage_size
from pg_bronze.lake.object_store import Store
from pg_bronze.lake.storage_size import StorageSize

SHORTEST_PAUSE_S = 3600.0
# A listing of a large bucket takes longer, and at most this part of the time.
SHARE = 0.01


class StorageMeter:
    """The latest size of the bucket, measured by a thread so that no evaluation waits for it.

    Args:
        store: The bucket.
        clock: Returns the time in seconds since 1970.

    Attributes:
        size: What the last complete measurement found; None before the first one.
        measured_at: When it ended, in seconds since 1970.
    """

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._next_at = 0.0
        self._thread: threading.Thread | None = None
        self.size: StorageSize | None = None
        self.measured_at = 0.0

    def measure_if_due(self, folders: Iterable[str]) -> None:
        """Start a measurement, unless one is running or the last one was too recent.

        Args:
            folders: The folders of the tables, without the prefix.
        """
        if self._clock() < self._next_at or (self._thread and self._thread.is_alive()):
            return
        self._thread = threading.Thread(target=self._measure, args=(tuple(folders),), daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Return when no measurement is running."""
        if self._thread:
            self._thread.join()

    def _measure(self, folders: tuple[str, ...]) -> None:
        began = self._clock()
        try:
            self.size = storage_size.measure(self._store, folders)
            self.measured_at = self._clock()
        except PgBronzeError:
            pass  # the evaluations report a bucket that does not answer; its last size remains with its time
        ended = self._clock()
        self._next_at = ended + max(SHORTEST_PAUSE_S, (ended - began) / SHARE)
