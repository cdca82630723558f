"""Reading: what both readers share, and the thread in which a slice is read.

A reader runs one query in a read-only snapshot and returns its rows. It knows no window and no table, only the query
and a label for its errors. Which reader to use is decided in ``connection``.
"""

import contextlib
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, Protocol

import psycopg

from pg_bronze.core.watermark import Origin
from pg_bronze.errors import SourceUnavailable
from pg_bronze.postgres import server_identity
from pg_bronze.postgres.readers.sent_rows import SentRows
from pg_bronze.postgres.session_settings import ANSWERED, settings_list

BEGIN = "begin isolation level repeatable read read only"
# The session of a killed reader continues to sort or to wait for a lock until it next sends a row. With this setting
# the server checks the connection meanwhile; it needs PostgreSQL 14, and Linux.
_NOTICE = (
    "case when pg_catalog.version() operator(pg_catalog.~) '-linux-' "
    "then pg_catalog.set_config('client_connection_check_interval', '2s', true) end as notice, "
    f"{ANSWERED.format(local='true')} as answered"
)
GIVE_UP_S = 8.0


class Reader(Protocol):
    """Reads one slice at a time; ``stop`` may be called from another thread."""

    def read(self, query: str, label: str, timeout_s: float, place: Origin) -> SentRows:
        """Read one slice of the database at ``place``. Raises a PgBronzeError that names ``label``."""

    def stop(self) -> None:
        """Ask the server to end the current read. Has no effect between two statements, so it has to be repeated."""

    def close(self) -> None:
        """Close the connections that the reader keeps."""


def opening(timeout_s: float, place: Origin, lock_timeout_s: float = 0.0) -> list[str]:
    """Return the statements that open a reading transaction; no setting outlasts it.

    Args:
        timeout_s: Seconds before the server cancels a statement of the transaction.
        place: The database that the horizon was read from; the statements fail in a session of another one.
        lock_timeout_s: Seconds before the server cancels a statement that waits for a lock; 0 for no such limit.
    """
    # One statement: everything in it is qualified, because the settings are not in force while it is parsed.
    here = f"{server_identity.assertion(place)} as here"
    return [BEGIN, f"select {settings_list(timeout_s, True, lock_timeout_s)}, {_NOTICE}, {here}"]


class Reading:
    """One read in a thread of its own, so that an interrupt or a time limit ends the wait for it.

    The thread is a daemon: the process can exit even if the server hangs and nothing ends the read.
    """

    def __init__(self, reader: Reader, query: str, label: str, timeout_s: float, place: Origin) -> None:
        self._reader = reader
        self._label = label
        self._result: Future[SentRows] = Future()
        self._ended = threading.Event()
        work = threading.Thread(target=self._run, args=(query, timeout_s, place), name=f"read {label}", daemon=True)
        work.start()

    def wait(self, limit_s: float) -> SentRows:
        """Return the rows, or raise the error of the read.

        After ``limit_s`` seconds, or on an interrupt, the read is ended on the server.
        """
        try:
            return self._result.result(limit_s)
        except TimeoutError as error:
            self.end()
            raise SourceUnavailable(
                f"{self._label}: the server sent neither rows nor an error within {limit_s:.0f} s. "
                "It is retried at the next tick."
            ) from error
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """End the read on the server and wait for that, at most 8 s. Does nothing after the read has ended."""
        if self._result.done():
            return
        deadline = time.monotonic() + GIVE_UP_S
        while not self._ended.is_set() and time.monotonic() < deadline:
            # Between two statements there is nothing to cancel, so one attempt is not enough.
            self._reader.stop()
            self._ended.wait(0.2)
        self._settle(
            SourceUnavailable(f"{self._label}: the read was ended with its run. It is retried at the next tick.")
        )

    def _run(self, query: str, timeout_s: float, place: Origin) -> None:
        try:
            rows = self._reader.read(query, self._label, timeout_s, place)
        except BaseException as error:  # noqa: BLE001  (``wait`` raises it)
            self._ended.set()
            self._settle(error)
        else:
            self._ended.set()
            self._settle(rows)

    def _settle(self, outcome: SentRows | BaseException) -> None:
        # Both the thread and ``end`` may set the result; the first one counts.
        with contextlib.suppress(Exception):
            if isinstance(outcome, BaseException):
                self._result.set_exception(outcome)
            else:
                self._result.set_result(outcome)


def pinned(conninfo: Mapping[str, Any], kept: psycopg.Connection) -> dict[str, Any]:
    """Return ``conninfo`` bound to the server that ``kept`` is connected to; one name may resolve to several."""
    info = kept.info
    return {**conninfo, "host": info.host, "port": info.port, **({"hostaddr": info.hostaddr} if info.hostaddr else {})}
