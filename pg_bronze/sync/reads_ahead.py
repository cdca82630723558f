"""Reads ahead: block ranges of first loads that are read before each has its turn to be committed.

The next range is read while the values of the one before are converted and written; with ``PG_BRONZE_LOAD_PARALLEL``,
several are read at once. A read ahead is a guess. Each slice is planned after the commit of the one before it, as
without reads ahead; a read is used if that plan asks for exactly its region, and the table is still the one that was
read. Otherwise it is dropped.
"""

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from pg_bronze.core import planning
from pg_bronze.core.next_read import Plan, Read
from pg_bronze.core.slice_size import SliceSize
from pg_bronze.core.table import SourceTable
from pg_bronze.errors import PgBronzeError
from pg_bronze.lake.commit import is_bulky
from pg_bronze.postgres.connection import Source
from pg_bronze.postgres.read_session import ReadSession
from pg_bronze.postgres.readers.sent_rows import SentRows
from pg_bronze.sync import slice_reader

STOP_WITHIN_S = 10.0
INTERRUPTED_WITHIN_S = 0.5
OutcomeT = TypeVar("OutcomeT")
# The rows, as ``slice_reader.read`` returns them, and the seconds that the read took.
TimedRows: TypeAlias = "tuple[slice_reader.Rows | None, float]"
# The same, with the rows as they are sent.
_TimedSent: TypeAlias = tuple[SentRows | None, float]


@dataclass(frozen=True)
class _Ahead:
    """The read of ``step``, which began while the table was ``table``."""

    step: Read
    table: SourceTable
    session: ReadSession
    outcome: "Future[_TimedSent]"


class ReadsAhead:
    """The reads ahead of one table in one run, in the order of their turns.

    At most as many are held, under way or with their rows, as sessions may read at once.

    Args:
        most: How many sessions may read at once.
    """

    def __init__(self, source: Source, most: int) -> None:
        self._source = source
        self._most = most
        self._held: deque[_Ahead] = deque()
        self._pool: ThreadPoolExecutor | None = None
        self._stopped = False

    @property
    def next_blocks(self) -> int | None:
        """The number of blocks of the range whose turn is next; None if none is read ahead."""
        return self._held[0].step.blocks if self._held else None

    def keep(self, step: Plan, table: SourceTable) -> None:
        """Drop what is read ahead, unless it begins with the region of ``step`` in the table as it is now."""
        if not self._held:
            return
        first = self._held[0]
        same = isinstance(step, Read) and step.region == first.step.region
        if not same or first.table.fingerprint != table.fingerprint:
            self.drop()

    def read(
        self, step: Read, table: SourceTable, size: SliceSize, following: Callable[[Read], Iterable[Read]]
    ) -> "TimedRows | None":
        """Return the rows of a range, and begin to read those after it.

        Args:
            step: What ``keep`` was called with.
            following: Returns the ranges after one, as far as they can be planned.

        Returns:
            None if the step has to be read alone: it is no range of a first load, or it was read ahead and that failed,
            which is no reason to fail before a read alone does.
        """
        if self._most < 1 or not planning.is_load_range(step):
            return None
        sessions = self._sessions()
        if len(sessions) > 1:
            self._fill(step, sessions, table, size, following)
        was_begun, ahead = bool(self._held), None
        if was_begun and len(sessions) == 1:
            ahead = self._measured_after(step, table, size, following)  # while ``step`` is read
        taken = self._taken() if was_begun else self._read_alone(step, table, size)
        if taken is None:
            return None
        sent, seconds = taken
        if sent is None:
            return None, seconds
        # The next range is larger if this one was far from full.
        if not is_bulky(sent) and size.adjusted(sent.height, sent.estimated_size()) == size:
            if not was_begun:
                ahead = self._measured_after(step, table, size, following)
            with contextlib.suppress(PgBronzeError):  # it fails again if it still does when the range has its turn
                if len(sessions) > 1:
                    self._fill(step, sessions, table, size, following, begun=True)
                elif ahead is not None:
                    self._begin(*ahead, sessions[0], table, size)
        return slice_reader.conformed(sent, table), seconds

    def drop(self) -> None:
        """End what is read ahead, and forget its rows."""
        held, self._held = self._held, deque()
        running = [item for item in held if not item.outcome.cancel()]
        deadline = time.monotonic() + STOP_WITHIN_S
        for item in running:
            # Between two statements there is nothing to end, so one attempt is not enough.
            while not item.outcome.done() and time.monotonic() < deadline:
                item.session.stop()
                wait([item.outcome], 0.1)
            if not item.outcome.done():
                item.session.close()  # another read must not use the connection

    def give_up(self) -> None:
        """Read nothing ahead in the rest of this run, and close the further connections."""
        self._most = 0
        self.drop()
        self._source.sessions.close_further()

    def stop(self) -> None:
        """Let the current ``read``, in another thread, fail instead of reading alone; ends no read."""
        self._stopped = True

    def close(self) -> None:
        """End what is read ahead and close the further connections; does nothing if there was none."""
        if self._pool is not None:
            self.give_up()
            self._pool.shutdown(wait=False)

    def _sessions(self) -> Sequence[ReadSession]:
        """Return the sessions to read over, and drop what is read over others."""
        sessions = [self._source.sessions.first] if self._most == 1 else self._source.sessions.at_once(self._most)
        if any(item.session not in sessions for item in self._held):
            self.drop()
        return sessions

    def _measured_after(
        self, step: Read, table: SourceTable, size: SliceSize, following: Callable[[Read], Iterable[Read]]
    ) -> tuple[Read, str] | None:
        """Return the range after ``step`` and its query; None if there is none, or if it exceeds a slice."""
        with contextlib.suppress(PgBronzeError):  # as in ``read``
            for later in itertools.islice(following(step), 1):
                query = slice_reader.measured(self._source, table, later.region, size)
                return None if query is None else (later, query)
        return None

    def _read_alone(self, step: Read, table: SourceTable, size: SliceSize) -> _TimedSent:
        return _timed(lambda: slice_reader.read_sent(self._source, table, step.region, size))

    def _taken(self) -> "_TimedSent | None":
        """Return the rows whose turn it is; None if their read failed."""
        outcome = settled(self._held[0].outcome)
        error = outcome.exception()
        if error is None:
            self._held.popleft()
            return outcome.result()
        if self._stopped or not isinstance(error, Exception):
            raise error
        self.give_up()
        return None

    def _fill(
        self,
        step: Read,
        sessions: Iterable[ReadSession],
        table: SourceTable,
        size: SliceSize,
        following: Callable[[Read], Iterable[Read]],
        begun: bool = False,
    ) -> None:
        """Begin a read over each free session: ``step`` unless it is ``begun``, and the ranges after it."""
        used = [item.session for item in self._held]
        free = iter([session for session in sessions if session not in used])
        # Their sizes are not measured: those are questions on the kept connection, one after the other.
        steps = following(self._held[-1].step if self._held else step)
        if not self._held and not begun:
            steps = itertools.chain([step], steps)
        for session, later in zip(free, steps, strict=False):
            self._begin(later, slice_reader.bounded(table, later.region, size), session, table, size)

    def _begin(self, step: Read, query: str, session: ReadSession, table: SourceTable, size: SliceSize) -> None:
        session.prepare()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(max_workers=self._most, thread_name_prefix="read-range")
        outcome = self._pool.submit(
            _timed, lambda: slice_reader.fetch(session.read, step.region, size, query, table.label)
        )
        self._held.append(_Ahead(step, table, session, outcome))


def _timed(read: "Callable[[], SentRows | None]") -> "_TimedSent":
    started = time.monotonic()
    return read(), time.monotonic() - started


def settled(reading: "Future[OutcomeT]") -> "Future[OutcomeT]":
    """Wait until a read has ended, with or without an error, and notice an interrupt while waiting.

    Polars makes signals restart the call they interrupt, so a wait without a time limit would end with the read only.
    """
    while True:
        with contextlib.suppress(TimeoutError):
            reading.exception(INTERRUPTED_WITHIN_S)
            return reading
