"""connectorx: the fast reader, a Rust library that runs a binary COPY and returns Arrow arrays.

Each read opens a connection of its own. A read cannot be interrupted from inside the process: another connection
terminates its session. Errors arrive as text without a SQLSTATE, in the server's language, or as a panic, which is a
BaseException. The text is not interpreted: a failed read is repeated through psycopg, whose error has the SQLSTATE.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from urllib.parse import quote

import psycopg

from pg_bronze.core.watermark import Origin
from pg_bronze.errors import PgBronzeError, SourceUnavailable, TableChanged
from pg_bronze.postgres.error_mapping import canceled, explain_marker, interrupted, locked, shown_cause, undecodable
from pg_bronze.postgres.readers.binary_copy import CopyReader
from pg_bronze.postgres.readers.reading import opening
from pg_bronze.postgres.readers.sent_rows import SentRows

# A read that failed after a time t should fail again within it; a little more for a server that is busy.
_AGAIN_S = 5.0


# Decides what a query means; everything else is set before it runs.
_DESCRIBED_WITH = "-c search_path=pg_catalog,pg_temp -c standard_conforming_strings=on"


class ConnectorxReader:
    """Reads slices with connectorx.

    Args:
        url: Connection URL; it holds the password. A function if that may change; called before each read.
        name: ``application_name`` of its sessions, by which ``stop`` finds them.
        connect: Opens another connection to the same server.
        encrypted: Whether the server answers the URL's ``sslmode`` with TLS.
        address: The IP address of the server that ``connect`` reaches; empty for a Unix socket.
        direct: Whether no pooler is in between.
        ending: What is held while ``stop`` has a connection.
        lock_timeout_s: As in ``opening``.
    """

    def __init__(
        self,
        url: str | Callable[[], str],
        name: str,
        connect: Callable[[], psycopg.Connection],
        encrypted: bool,
        address: str = "",
        direct: bool = True,
        ending: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
        lock_timeout_s: float = 0.0,
    ) -> None:
        self._url = url
        self._parameters = f"application_name={quote(name, safe='')}"
        if address:
            # One name may resolve to several servers. The name in the URL is still the one of TLS.
            self._parameters += f"&hostaddr={quote(address, safe='')}"
        if not encrypted:
            # With any other mode connectorx reads the system's root certificates in every read, before it asks the
            # server for TLS: 15 of 19 ms of CPU. The last value of a repeated parameter counts.
            self._parameters += "&sslmode=disable"
        if direct:
            # connectorx has the query described before it runs the statements of ``opening``. Not through a pooler:
            # pgbouncer refuses options in the startup message.
            waits = f" -c lock_timeout={lock_timeout_s * 1000:.0f}ms" if lock_timeout_s else ""
            self._parameters += f"&options={quote(_DESCRIBED_WITH + waits)}"
        self._name = name
        self._connect = connect
        self._ending = ending
        self._lock_timeout_s = lock_timeout_s
        self._stopped = threading.Event()
        self._again: CopyReader | None = None

    def read(self, query: str, label: str, timeout_s: float, place: Origin) -> SentRows:
        """Read one slice; see ``Reader.read``."""
        import connectorx

        url = self._current_url(label)
        started = time.monotonic()
        self._stopped = stopped = threading.Event()
        try:
            rows = connectorx.read_sql(
                url,
                query,
                return_type="arrow",  # as for "polars", which is made of it
                protocol="binary",  # csv drops rows with NULL; simple and cursor cannot read all types
                pre_execution_query=opening(timeout_s, place, self._lock_timeout_s),
            )
            return SentRows(rows)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001  # connectorx panics with a class derived from BaseException
            cause = shown_cause(error) if isinstance(error, Exception) else error
            if (found := explain_marker(error, label)) is not None:
                raise found from cause
            if stopped.is_set():
                raise interrupted(label) from cause
            spent_s = time.monotonic() - started
            limit_s = min(timeout_s - spent_s, spent_s * 2 + _AGAIN_S)
            found = self._reason(error, query, label, limit_s, place)
            if self._may_have_been_locked(error, spent_s) and str(found) == str(interrupted(label)):
                found = locked(label)  # the lock was released before the read was repeated
            raise found from cause or found.__cause__

    def _current_url(self, label: str) -> str:
        try:
            url = self._url if isinstance(self._url, str) else self._url()
        except PgBronzeError as error:
            raise type(error)(f"{label}: {error}") from error.__cause__
        return f"{url}{'&' if '?' in url else '?'}{self._parameters}"

    def _may_have_been_locked(self, error: BaseException, spent_s: float) -> bool:
        return isinstance(error, Exception) and 0 < self._lock_timeout_s <= spent_s

    def _reason(self, error: BaseException, query: str, label: str, limit_s: float, place: Origin) -> PgBronzeError:
        """Return why a read failed, from the same read through psycopg; its rows are dropped."""
        self._again = again = CopyReader(self._connect, self._lock_timeout_s)
        try:
            if limit_s <= 0:
                self._connect().close()
                return canceled(label)
            again.read(query, label, limit_s, place)
        except PgBronzeError as found:
            # Its own shorter time limit has no meaning for the first read.
            if isinstance(found.__cause__, psycopg.errors.QueryCanceled):
                return interrupted(label)
            # A panic at a type that psycopg's reader does not decode either; the server reported nothing.
            panic = not isinstance(error, Exception) and isinstance(found, TableChanged) and found.__cause__ is None
            return undecodable(label) if panic else found
        finally:
            again.close()
            self._again = None
        return interrupted(label) if isinstance(error, Exception) else undecodable(label)

    def stop(self) -> None:
        """Terminate the session: connectorx offers no way to cancel its statement."""
        self._stopped.set()
        if (again := self._again) is not None:
            again.stop()
        with contextlib.suppress(psycopg.Error, SourceUnavailable), self._ending(), self._connect() as connection:
            connection.execute(
                "select pg_catalog.pg_terminate_backend(pid) from pg_catalog.pg_stat_activity "
                "where application_name operator(pg_catalog.=) %s",
                (self._name,),
            )

    def close(self) -> None:
        """Do nothing: no connection is kept."""
