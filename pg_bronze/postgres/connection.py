"""The connection to the source database: one kept session for questions, and a reader for slices.

Opens, checks and replaces connections, pins their settings, chooses the reader, and holds the advisory locks. The
statements are elsewhere: ``activity`` probes the server, ``catalog`` reads definitions, ``core.window_sql`` renders
reads.
"""

import contextlib
import math
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import psycopg

from pg_bronze.core.row_counts import Poll
from pg_bronze.core.watermark import Origin
from pg_bronze.errors import PgBronzeError, SourceNotFit
from pg_bronze.postgres import activity as probe
from pg_bronze.postgres import catalog, catalog_query, login, missing_rights, table_lock, time_limit
from pg_bronze.postgres.activity import Activity
from pg_bronze.postgres.connection_limit import ConnectionLimit
from pg_bronze.postgres.error_mapping import explain, explain_sqlstate, shown_cause
from pg_bronze.postgres.login import Idle
from pg_bronze.postgres.passwords import Password
from pg_bronze.postgres.read_session import ReadSessions
from pg_bronze.postgres.readers.binary_copy import CopyReader
from pg_bronze.postgres.readers.connectorx import ConnectorxReader
from pg_bronze.postgres.readers.reading import Reader, pinned
from pg_bronze.postgres.readers.sent_rows import SentRows
from pg_bronze.postgres.session_settings import NOTICE_LOSS, PRINTING, settings_list

if TYPE_CHECKING:
    import polars as pl

_NOT_BY_INDEX = ("seqscan", "bitmapscan", "sort")


class Source:
    """The source database behind one kept connection, and the reader of its slices.

    Connections are opened on first use. Use as a context manager, or call ``close``.

    Args:
        conninfo: psycopg's keyword arguments.
        url: The same server for connectorx; None if connectorx is not to be used.
        statement_timeout_s: Seconds before the server cancels a statement.
        reader: ``auto`` is connectorx where it can connect, else COPY.
        ends_at: The ``time.monotonic`` by which every read has to end; None for no such time.
        limitation: Why there is no URL for connectorx, as a predicate, unless COPY was chosen.
        limit: What bounds the connections; None for nothing.
        lock_timeout_s: Seconds before the server cancels a statement that waits for a lock; 0 for no such limit.
        password: The password for ``conninfo`` and ``url``, if it may change.
        connected: Called with ``server`` before a new kept connection is used.

    Attributes:
        server: Which server process accepted the kept connection: the moment of its start. A replica, a promoted
            standby and a restarted server have others. Empty behind a pooler, which may lead to several.
        limitation: Why ``auto`` reads with COPY, as a predicate; after the first read also what its login requires.
        sessions: What reads slices beside the kept connection.

    Raises:
        SourceUnavailable: The server does not answer, or the limit is reached. Retried at the next tick.
        AccessDenied: The server rejects the login. Retried after the fix.
        TableLocked: A statement waited for a lock for too long.
        SourceNotFit: The server is older than PostgreSQL 14. Retried after the fix.
    """

    def __init__(
        self,
        conninfo: Mapping[str, Any],
        url: str | None,
        statement_timeout_s: float,
        reader: Literal["auto", "connectorx", "copy"] = "auto",
        ends_at: float | None = None,
        limitation: str | None = None,
        limit: ConnectionLimit | None = None,
        lock_timeout_s: float = 0.0,
        password: Password | None = None,
        connected: Callable[[str], None] | None = None,
    ) -> None:
        self._password = password
        self._conninfo = dict(conninfo)
        self._url = url
        self._statement_timeout_s = statement_timeout_s
        self._lock_timeout_s = lock_timeout_s
        self._choice = reader
        self._ends_at = ends_at
        self._limit = limit or ConnectionLimit()
        self._connection: psycopg.Connection | None = None
        self._idle, self._accepted = Idle(), login.Accepted()
        self._asking = threading.RLock()
        self.sessions = ReadSessions(self, self._limit)
        self._connected = connected
        self.standby = False
        self.pooled = False
        self.server = ""
        self.limitation = limitation
        self.server_version = 0
        self._horizon: int | None = None
        self._next_xid = 0
        self.poll: Poll | None = None
        self._held_back: str | None = None
        self._place: Origin | None = None
        self._database: Mapping[str, Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        """``database@host:port``, for messages."""
        return f"{self._conninfo.get('dbname')}@{self._conninfo.get('host')}:{self._conninfo.get('port', 5432)}"

    @property
    def connection(self) -> psycopg.Connection:
        """The kept connection, in autocommit mode. It is opened on first use, and again after it was lost."""
        with self._asking:
            if self._connection is None or not self._idle.is_usable(self._connection):
                self._connection = self._connect()
            return self._connection

    def close(self) -> None:
        """End the current read and close all connections, which releases their locks."""
        self.stop_reading()
        self.sessions.close()
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._limit.release()

    def check(self) -> None:
        """Open a connection in place of the reader's, because the kept one may be the last that the server accepts."""
        self.sessions.disconnect()
        self._log_in(self._conninfo).close()

    @contextlib.contextmanager
    def session(self) -> Iterator[psycopg.Connection]:
        """Yield the kept connection with the session settings in force; behind a pooler, inside a transaction."""
        connection = self.connection
        if not self.pooled:
            yield connection
            return
        # The thread that reads ahead asks too. psycopg serializes statements; the lock serializes transactions.
        with self._asking, connection.transaction():
            connection.execute(f"select {self._settings(local=True)}".encode())
            yield connection

    def ask(self, query: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run one statement on the kept connection and return its rows. Raises a PgBronzeError."""
        try:
            with self.session() as connection:
                return connection.execute(query.encode(), parameters).fetchall()
        except psycopg.Error as error:
            raise self.explain(error, query, self.name) from shown_cause(error)

    def explain(self, error: psycopg.Error, query: str, name: str) -> PgBronzeError:
        """Return our error for a ``query`` that failed on the kept connection; see ``error_mapping.explain``."""
        return self._revoked(error, query) or explain(error, name)

    def measure(self, query: str, label: str, limit_s: float = math.inf, by_index: bool = False) -> tuple[Any, ...]:
        """Run an aggregate over many rows and return its one row.

        It has the time limit and the errors of ``read``, and ``stop_reading`` ends it.

        Args:
            limit_s: Seconds before the server cancels it, if that is less.
            by_index: Read the rows in the order of an index, and neither sort nor scan the table.
        """
        timeout = f"select set_config('statement_timeout', '{min(self.time_left(label), limit_s) * 1000:.0f}ms', true)"
        if by_index:
            timeout += "".join(f", set_config('enable_{way}', 'off', true)" for way in _NOT_BY_INDEX)
        try:
            with self.session() as connection, connection.transaction():
                connection.execute(timeout.encode())
                return connection.execute(query.encode()).fetchall()[0]
        except psycopg.Error as error:
            raise self._revoked(error, query) or explain_sqlstate(error, label) from shown_cause(error)

    def read(self, query: str, label: str) -> "pl.DataFrame":
        """Read one slice as a frame; see ``read_sent``."""
        return self.read_sent(query, label).frame()

    def read_sent(self, query: str, label: str) -> SentRows:
        """Read one slice in a read-only snapshot; an interrupt ends it on the server too.

        Raises:
            PgBronzeError: StaleSnapshot, TableChanged, SliceTooLarge, AccessDenied, SourceNotFit, SourceDamaged,
                DataError or SourceUnavailable; its text begins with ``label``.
        """
        return self.sessions.first.read(query, label)

    def stop_reading(self) -> None:
        """End the current reads, or the ``measure``, of any thread; does nothing if there is none."""
        kept = self._connection
        if self.sessions.stop() or kept is None:
            return
        if kept.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
            with contextlib.suppress(psycopg.Error):
                kept.cancel_safe(timeout=2)

    def try_lock(self, table_oid: int) -> bool:
        """Take the advisory lock of a table for the life of the kept connection; False if another session holds it.

        It keeps order among the runs on one server; correctness depends on the claim alone. Behind a pooler nothing is
        locked and the result is True: the lock would stay with a session that the pooler reuses.
        """
        self.connection  # noqa: B018  (connecting detects a pooler)
        if self.pooled:
            return True
        return bool(self.ask("select pg_try_advisory_lock(%(space)s, %(oid)s)", table_lock.key(table_oid))[0][0])

    def lock(self, table_oid: int, wait_s: float) -> bool:
        """Take the advisory lock of a table as ``try_lock`` does, waiting for it up to ``wait_s``."""
        if self.try_lock(table_oid):
            return True
        try:
            with self.connection.transaction():
                # A statement timeout of the same length would end the wait first, as an error.
                limits = {"lock_timeout": f"{wait_s * 1000:.0f}ms", "statement_timeout": "0"}
                settings = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in limits.items())
                self.connection.execute(f"select {settings}".encode())
                self.connection.execute(table_lock.WAIT, table_lock.key(table_oid))
        except psycopg.errors.LockNotAvailable:
            return False
        except psycopg.Error as error:
            raise self.explain(error, f"{settings} {table_lock.WAIT}", self.name) from error
        return True

    def unlock(self, table_oid: int) -> None:
        """Release the lock; does nothing if the connection that held it is closed."""
        if self._connection is not None and not self._connection.closed and not self.pooled:
            self.ask("select pg_advisory_unlock(%(space)s, %(oid)s)", table_lock.key(table_oid))

    def activity(self) -> Activity:
        """Probe the database; see ``activity.read``."""
        found = probe.read(self)
        self.standby = found.standby
        return found

    def place(self, bucket: str) -> Origin:
        """Return the database and the point of its history that rows are read from; see ``activity.place``."""
        self._place, self.standby = probe.place(self, bucket)
        return self._place

    def horizon(self, at_least: int | None = None) -> int:
        """Return the horizon of this tick, or a new one if that is below ``at_least``; see ``durable_horizon``."""
        if self._horizon is None or self._horizon < (at_least or 0):
            self._horizon, self._next_xid, self.standby, self.poll = probe.durable_horizon(self)
            self._held_back = None
        return self._horizon

    def forget_horizon(self) -> None:
        """Begin a new tick: the next call of ``horizon`` reads a new one."""
        self._horizon = None

    def counter(self, oids: Sequence[int]) -> tuple[int, str] | None:
        """Return how many row versions were written to some relations, and since when that is counted.

        Returns:
            None on a standby, or if the server does not count.
        """
        counted = None if self.standby else probe.counter(self, oids)
        return counted if counted and counted[1] else None

    @property
    def is_idle(self) -> bool:
        """Whether no transaction with an id was open when the horizon of this tick was read."""
        return self._horizon is not None and self._horizon == self._next_xid

    def holder(self, remedy_after_s: float = 0.0) -> str | None:
        """Describe the transaction that holds the horizon back, or return None; see ``activity.holder``."""
        return probe.holder(self, remedy_after_s)

    def held_back(self) -> str:
        """Return what holds the horizon of this tick back, for the end of a sentence; empty if nothing did.

        It takes one statement for each horizon, and none if no transaction was open. A standby does not know.
        """
        if self._held_back is None:
            self._held_back = ""
            if self._horizon is not None and self._horizon < self._next_xid and not self.standby:
                found = None
                with contextlib.suppress(PgBronzeError):  # a name that cannot be read
                    found = probe.holder(self, probe.STALLED_AFTER_S)
                found = found or "a transaction was open when the horizon was read"
                self._held_back = f". Rows of later transactions are blocked: {found}"
        return self._held_back

    def has_session(self, application_name: str) -> bool:
        """Return whether a session of that application name is connected to ``server``, or one that reads for it."""
        return probe.has_session(self, application_name)

    def database(self) -> Mapping[str, Any]:
        """Return the encoding, locale and session settings that a footer records."""
        if self._database is None:
            found = catalog.describe_database(self.ask(catalog_query.DATABASE)[0][0])
            self._database = {**found, "session": dict(PRINTING)}
        return self._database

    def _connect(self) -> psycopg.Connection:
        with self._limit.opening(self.name):
            connection = self._log_in(self._conninfo)
            try:
                self._configure(connection)
                self._limit.admit(connection, self.pooled, self.name)
                if self._connected is not None:
                    self._connected(self.server)
            except BaseException:
                connection.close()
                raise
        return connection

    def _log_in(self, conninfo: Mapping[str, Any]) -> psycopg.Connection:
        return login.connect(conninfo, self.name, self._password, self._accepted)

    def _configure(self, connection: psycopg.Connection) -> None:
        """Check the version, detect a pooler, and set what holds for the whole session."""
        self.server_version = login.version_of(connection, self.name)
        # A pooler reports a process id of its own. Behind it, a setting that outlasts the transaction would stay in a
        # session that another client gets next.
        direct = f"(pg_catalog.pg_backend_pid() operator(pg_catalog.=) {connection.info.backend_pid})"
        settings = f"pg_catalog.concat({self._settings(local=False)}, {NOTICE_LOSS})"
        server = "extract(epoch from pg_catalog.pg_postmaster_start_time())"
        query = f"select not {direct}, case when {direct} then {server} end, case when {direct} then {settings} end"
        try:
            self.pooled, began, _ = connection.execute(query.encode()).fetchall()[0]
        except psycopg.Error as error:
            raise self._revoked(error, query, connection) or explain(error, self.name) from error
        self.server = "" if began is None else str(began)
        if self.pooled:
            connection.prepare_threshold = None  # a statement would be prepared in one session and run in another

    def _revoked(
        self, error: psycopg.Error, query: str, connection: psycopg.Connection | None = None
    ) -> PgBronzeError | None:
        """Return the error of a statement that needs functions which the role may not execute, else None."""
        if error.sqlstate != missing_rights.FORBIDDEN:
            return None
        return missing_rights.error_of(connection or self.connection, query, self.name)

    def _settings(self, local: bool) -> str:
        return settings_list(self._statement_timeout_s, local, self._lock_timeout_s)

    def time_left(self, label: str) -> float:
        """Return the seconds that a statement over many rows may take now."""
        return time_limit.seconds_left(self._ends_at, self._statement_timeout_s, label)

    @property
    def current_place(self) -> Origin:
        """The place that rows are read from; see ``place``."""
        return self._place or self.place("")

    def is_kept(self, connection: psycopg.Connection | None) -> bool:
        """Return whether a connection is the kept one, which is replaced after it was lost."""
        return connection is self._connection

    def choose_reader(self) -> tuple[Reader, psycopg.Connection]:
        """Return a new reader, and the kept connection whose server it connects to."""
        kept = self.connection
        return self._reader_beside(kept), kept

    def _reader_beside(self, kept: psycopg.Connection) -> Reader:
        name = f"{self._conninfo.get('application_name', 'pg_bronze')} {secrets.token_hex(3)}"
        conninfo = pinned({**self._conninfo, "application_name": name}, kept)
        if self._url is None or not self._may_use_connectorx(kept):
            return CopyReader(lambda: self._log_in(conninfo), self._lock_timeout_s)
        url, password, pin = self._url, self._password, pinned(self._conninfo, kept)
        return ConnectorxReader(
            lambda: login.accepted_url(url, pin, self.name, password, self._accepted),
            name,
            lambda: self._log_in(pin),
            encrypted=kept.pgconn.ssl_in_use,
            address=kept.info.hostaddr,
            direct=not self.pooled,
            ending=lambda: self._limit.ending(self.name),
            lock_timeout_s=self._lock_timeout_s,
        )

    def _may_use_connectorx(self, kept: psycopg.Connection) -> bool:
        if self._choice == "copy":
            return False
        # What the server knows behind a pooler is the pooler's own login.
        certificate, gss = (False, False) if self.pooled else self.ask(login.METHODS)[0]
        found = login.limitation(self._conninfo, kept, bool(certificate), bool(gss), self._password is not None)
        if found and self._choice == "connectorx":
            raise SourceNotFit(
                f"{self.name}: PG_BRONZE_READER is connectorx, which {found}. Set it to auto or copy. It is retried "
                "after the fix."
            )
        if self.pooled and self._choice == "auto":
            found = found or "uses sessions, and a pooler is in front of the server"
        self.limitation = found
        return found is None
