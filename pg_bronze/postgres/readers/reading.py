"""The two readers of slices: connectorx, and psycopg's COPY where connectorx cannot do what was asked.

Both run the same query with the same session settings in a read-only snapshot of its own, one read a transaction, and
give the same frame bit for bit (test_readers). A reader knows no window and no table, only a query and what to call it.
"""

import contextlib
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol

import psycopg

from pg_bronze.errors import SourceUnavailable

if TYPE_CHECKING:
    import polars as pl


# Makes the text of every type canonical, whatever the server, database or role sets.
SESSION = {
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "row_security": "off",
    "client_encoding": "UTF8",
}
BEGIN = "begin isolation level repeatable read read only"
# A reader that was killed leaves its session waiting or sorting until it next sends a row; with this the server looks
# whether anybody is there. It needs PostgreSQL 14, and an operating system that can tell.
_NOTICE = (
    "case when version() like '%-linux-%' then set_config('client_connection_check_interval', '2s', true) end as notice"
)
GIVE_UP_S = 8.0


class Reader(Protocol):
    """Reads one slice at a time; ``stop`` may be called from another thread."""

    def read(self, query: str, label: str, timeout_s: float) -> "pl.DataFrame":
        """Read one slice. Raises a PgBronzeError that names ``label``."""

    def stop(self) -> None:
        """Ask the server to end the read under way; it may be too early for that, so ask again."""

    def close(self) -> None:
        """End the sessions it keeps."""


def session_settings(timeout_s: float) -> str:
    """SQL: the settings of one reading transaction, and of no other on that connection."""
    wanted = {**SESSION, "statement_timeout": f"{max(1, int(timeout_s * 1000))}ms"}
    settings = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in wanted.items())
    return f"select {settings}, {_NOTICE}"


class Reading:
    """One read in a thread of its own, so that whoever waits for it can be interrupted and waits no longer than wanted.

    The thread is a daemon: should a server hang so that nothing ends the read, the process can end all the same.
    """

    def __init__(self, reader: Reader, query: str, label: str, timeout_s: float) -> None:
        self._reader = reader
        self._label = label
        self._result: Future[pl.DataFrame] = Future()
        self._ended = threading.Event()
        work = threading.Thread(target=self._run, args=(query, timeout_s), name=f"read {label}", daemon=True)
        work.start()

    def _run(self, query: str, timeout_s: float) -> None:
        try:
            frame = self._reader.read(query, self._label, timeout_s)
        except BaseException as error:  # noqa: BLE001  (it is raised where somebody waits for it)
            self._ended.set()
            self._settle(error)
        else:
            self._ended.set()
            self._settle(frame)

    def _settle(self, outcome: "pl.DataFrame | BaseException") -> None:
        # Two may want to: the thread, and whoever gives up.
        with contextlib.suppress(Exception):
            if isinstance(outcome, BaseException):
                self._result.set_exception(outcome)
            else:
                self._result.set_result(outcome)

    def wait(self, limit_s: float) -> "pl.DataFrame":
        """Give the frame or raise what went wrong; after ``limit_s`` or an interrupt it is ended on the server."""
        try:
            return self._result.result(limit_s)
        except TimeoutError as error:
            self.end()
            raise SourceUnavailable(
                f"{self._label}: the server neither sent nor refused the rows within {limit_s:.0f} s; the next tick "
                "tries again."
            ) from error
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """End the read on the server and wait for that, at most 8 s; nothing happens if it has ended or was given
        up."""
        if self._result.done():
            return
        deadline = time.monotonic() + GIVE_UP_S
        while not self._ended.is_set() and time.monotonic() < deadline:
            # Between two statements there is nothing to cancel, so once is not enough.
            self._reader.stop()
            self._ended.wait(0.2)
        self._settle(SourceUnavailable(f"{self._label}: the read was given up, because its run ended."))


def pinned(conninfo: Mapping[str, Any], kept: psycopg.Connection) -> dict[str, Any]:
    """The same connection settings, bound to the server that ``kept`` reached: a name may stand for several."""
    info = kept.info
    return {**conninfo, "host": info.host, "port": info.port, **({"hostaddr": info.hostaddr} if info.hostaddr else {})}
