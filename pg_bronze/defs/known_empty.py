"""Questions to a SQLite database that nothing answered, and that need not be asked again before another commit.

Dagster's daemon looks for unfinished runs four times a second, and finds none while nothing is copied. This module is
loaded by the web server and the daemon, so it imports nothing of pg_bronze.
"""

import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TypeVar

from dagster import DagsterRun, RunRecord, RunsFilter
from dagster._core.storage.dagster_run import JobBucket, TagBucket
from dagster._core.storage.runs.sql_run_storage import SqlRunStorage

Answer = TypeVar("Answer")
# A process asks about a few statuses and tags. More are questions about single runs.
_MOST_KEPT = 100


class KnownEmpty:
    """The questions about one database that had no answer since its last commit, by any process.

    Args:
        file: The database. Its ``data_version`` changes with each commit of any other connection, so the connection
            that is asked for it here writes nothing.
    """

    def __init__(self, file: str) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._connection: sqlite3.Connection | None = None
        self._at: tuple[int, ...] = ()
        self._questions: set[str] = set()

    def ask(self, question: str, read: Callable[[], Sequence[Answer]]) -> Sequence[Answer]:
        """Return the answer of ``read``, without a call if it had none and nothing was committed since.

        Args:
            question: What distinguishes it from other questions about the database.
            read: Reads the answer; it depends on nothing but the database.
        """
        before = self._version()
        with self._lock:
            if before is not None and before == self._at and question in self._questions:
                return []
        found = read()
        if before is not None and not found:
            self._note(before, question)
        return found

    def _note(self, version: tuple[int, ...], question: str) -> None:
        with self._lock:
            if version != self._at or len(self._questions) >= _MOST_KEPT:
                self._at, self._questions = version, set()
            self._questions.add(question)

    def _version(self) -> tuple[int, ...] | None:
        """Return numbers that differ after a commit, or for another file of this name; None if that is not known."""
        with suppress(OSError, sqlite3.Error), self._lock:
            found = os.stat(self._file)
            identity = found.st_dev, found.st_ino
            if self._connection is None or self._process != os.getpid() or self._at[:2] != identity:
                self._connect(identity)
            rows = self._connection.execute("pragma data_version").fetchall() if self._connection else []
            return (*identity, int(rows[0][0])) if rows else None
        return None

    def _connect(self, identity: tuple[int, int]) -> None:
        # A connection of the parent process must not be used after a fork, nor closed.
        if self._connection is not None and self._process == os.getpid():
            self._connection.close()
        # No timeout: whoever asks waits for the lock of a writer anyway.
        place = f"{Path(self._file).absolute().as_uri()}?mode=rw"
        self._connection = sqlite3.connect(place, uri=True, timeout=0, isolation_level=None, check_same_thread=False)
        self._process, self._at, self._questions = os.getpid(), identity, set()


@cache
def _known(file: str) -> KnownEmpty:
    """Return what this process knows of a database, for all instances: a code server opens one for each tick."""
    return KnownEmpty(file)


class KnownEmptyRuns(SqlRunStorage):
    """Does not look for runs again that did not exist, before something else is stored."""

    @property
    def file(self) -> str:
        """The path of the database."""
        raise NotImplementedError

    def get_runs(
        self,
        filters: RunsFilter | None = None,
        cursor: str | None = None,
        limit: int | None = None,
        bucket_by: JobBucket | TagBucket | None = None,
        ascending: bool = False,
    ) -> Sequence[DagsterRun]:
        """Return runs, the newest ones first unless ``ascending``."""
        asked, read = (filters, cursor, limit, bucket_by, ascending), super().get_runs
        return _known(self.file).ask(f"runs {asked}", lambda: read(*asked))

    def get_run_records(
        self,
        filters: RunsFilter | None = None,
        limit: int | None = None,
        order_by: str | None = None,
        ascending: bool = False,
        cursor: str | None = None,
        bucket_by: JobBucket | TagBucket | None = None,
    ) -> Sequence[RunRecord]:
        """Return runs with their times, the newest ones first unless ``ascending``."""
        asked, read = (filters, limit, order_by, ascending, cursor, bucket_by), super().get_run_records
        return _known(self.file).ask(f"records {asked}", lambda: read(*asked))
