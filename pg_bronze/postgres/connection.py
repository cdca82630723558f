"""The source database: one kept psycopg connection for questions, and a reader for slices known to have rows."""

import contextlib
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

import psycopg

from pg_bronze.core import window_sql
from pg_bronze.core.watermark import Place
from pg_bronze.errors import SourceNotFit, SourceUnavailable
from pg_bronze.postgres.activity import Activity
from pg_bronze.postgres.error_mapping import explain, explain_connection, explain_state
from pg_bronze.postgres.readers.binary_copy import CopyReader
from pg_bronze.postgres.readers.connectorx import ConnectorxReader
from pg_bronze.postgres.readers.reading import SESSION, Reader, Reading, pinned

if TYPE_CHECKING:
    import polars as pl


OLDEST_SERVER = 140000
FLUSH_WAIT_S = 2.0
NUDGE_AFTER_S = 0.02
# A flush position can stand at the start of a page while the insert position already counts that page's header.
PAGE_BYTES, HEADER_BYTES = 8192, 40
_FACTS = """select (select system_identifier::text from pg_control_system()),
  case when pg_is_in_recovery() then (select timeline_id from pg_control_checkpoint())
       else ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int end,
  (case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end)::text,
  (select oid::bigint from pg_database where datname = current_database()),
  pg_is_in_recovery()"""
_FLUSHED = """select pg_current_wal_flush_lsn() >= %(lsn)s::pg_lsn
  or (mod(pg_current_wal_flush_lsn() - '0/0'::pg_lsn, %(page)s) = 0
      and %(lsn)s::pg_lsn - pg_current_wal_flush_lsn() <= %(header)s)"""
_HOLDERS = """select 'session ' || pid || coalesce(' of ' || nullif(application_name, ''), '')
    || ' (' || coalesce(state, 'state hidden from this role') || ')',
  extract(epoch from clock_timestamp() - xact_start)::float8, 'select pg_terminate_backend(' || pid || ')'
from pg_stat_activity where backend_xid is not null and pid <> pg_backend_pid()
  and age(backend_xid) >= (select max(age(backend_xid)) from pg_stat_activity)
union all
select 'prepared transaction ' || quote_literal(gid), extract(epoch from clock_timestamp() - prepared)::float8,
  'rollback prepared ' || quote_literal(gid) || ' in database ' || database
from pg_prepared_xacts
order by 2 desc nulls last limit 1"""
_RELATIONS = """select c.oid::bigint, n.nspname, c.relname,
  (select inhparent::bigint from pg_inherits where inhrelid = c.oid and c.relispartition),
  pg_stat_get_tuples_inserted(c.oid) + pg_stat_get_tuples_updated(c.oid)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'"""
# Seconds that a read may take beyond its statement's: connectorx tries to log in for 30 s.
LOGIN_S = 35.0
# Less is not worth a read: the next tick begins with all of its time.
SHORTEST_READ_S = 2.0
_DATABASE = """select to_jsonb(d) || jsonb_build_object('encoding', pg_encoding_to_char(d.encoding))
from pg_database d where datname = current_database()"""
_PROVIDERS = {"b": "builtin", "c": "libc", "i": "icu"}
_PRINTING = ("TimeZone", "DateStyle", "IntervalStyle", "bytea_output", "extra_float_digits", "client_encoding")


class Source:
    """The source database behind one psycopg connection, and the reader of its slices.

    ``url`` is what connectorx reads from, None where it cannot do what was asked. ``reader`` chooses: ``auto`` takes
    connectorx where it can. ``ends_at`` is the moment of ``time.monotonic`` at which a read has to be over, whatever
    its own time limit. Raises SourceUnavailable (the next tick may retry it), AccessDenied or SourceNotFit (a person
    must).
    """

    def __init__(
        self,
        conninfo: Mapping[str, Any],
        url: str | None,
        statement_timeout_s: float,
        reader: Literal["auto", "connectorx", "copy"] = "auto",
        ends_at: float | None = None,
    ) -> None:
        self._conninfo = dict(conninfo)
        self._url = url
        self._statement_timeout_s = statement_timeout_s
        self._choice = reader
        self._ends_at = ends_at
        self._connection: psycopg.Connection | None = None
        self._asking = threading.RLock()
        self._reader: Reader | None = None
        self._reading: Reading | None = None
        self.standby = False
        self.pooled = False
        self.server_version = 0
        self._place: Place | None = None
        self._horizon: int | None = None
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
        """The kept connection (autocommit), opened on first use and again after it broke."""
        if self._connection is None or self._connection.closed or self._connection.broken:
            self._connection = self._connect()
        return self._connection

    def close(self) -> None:
        """Close the connections, and end the read that is still under way; locks held here are released."""
        self.stop_reading()
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> psycopg.Connection:
        connection = _open(self._conninfo, self.name)
        self.server_version = connection.info.server_version
        if self.server_version < OLDEST_SERVER:
            connection.close()
            raise SourceNotFit(
                f"{self.name}: PostgreSQL {self.server_version // 10000} is too old; 14 is the oldest that works."
            )
        try:
            # A pooler hands out a process number of its own. Behind it, settings that hold longer than a transaction
            # would stay with whoever gets the session next.
            direct = f"pg_backend_pid() = {connection.info.backend_pid}"
            settings = " || ".join(self._settings(local=False))
            found = connection.execute(f"select not {direct}, case when {direct} then {settings} end".encode())
            self.pooled = bool((found.fetchone() or (False,))[0])
            if self.pooled:
                connection.prepare_threshold = None  # a statement would be prepared in one session and run in another
        except psycopg.Error as error:
            connection.close()
            raise explain(error, self.name) from error
        return connection

    def _settings(self, local: bool) -> list[str]:
        # Compiling the catalog query takes longer than running it.
        wanted = {**SESSION, "statement_timeout": f"{int(self._statement_timeout_s * 1000)}ms", "jit": "off"}
        return [f"set_config('{name}', '{value}', {str(local).lower()})" for name, value in wanted.items()]

    @contextlib.contextmanager
    def session(self) -> Iterator[psycopg.Connection]:
        """The kept connection with our settings in force; behind a pooler, a transaction of its own."""
        connection = self.connection
        if not self.pooled:
            yield connection
            return
        # The thread that reads ahead asks too: one statement at a time is psycopg's care, one transaction is ours.
        with self._asking, connection.transaction():
            connection.execute(f"select {', '.join(self._settings(local=True))}".encode())
            yield connection

    def ask(self, query: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run one statement on the kept connection; errors of the server become ours."""
        try:
            with self.session() as connection:
                return connection.execute(query.encode(), parameters).fetchall()
        except psycopg.Error as error:
            raise explain(error, self.name) from error

    def place(self, bucket: str) -> Place:
        """Which database at which moment of its history; ``bucket`` completes it."""
        system_id, timeline, lsn, database, self.standby = self.ask(_FACTS)[0]
        return Place(system_id, timeline, lsn, database, bucket)

    def database(self) -> Mapping[str, Any]:
        """What a reader of the rows may need to know of the database: its encoding and locale, and how it printed text.

        Text arrives as UTF-8 whatever ``encoding`` the database has.
        """
        if self._database is None:
            found = self.ask(_DATABASE)[0][0]
            provider = found.get("datlocprovider")  # since PostgreSQL 15
            self._database = {
                "name": found["datname"],
                "encoding": found["encoding"],
                "collation": found["datcollate"],
                "character_type": found["datctype"],
                "locale_provider": _PROVIDERS.get(provider, provider),
                "locale": found.get("datlocale", found.get("daticulocale")),
                "collation_version": found.get("datcollversion"),
                "session": {name: SESSION[name] for name in _PRINTING},
            }
        return self._database

    def horizon(self, at_least: int | None = None) -> int:
        """A horizon below which every transaction has finished, and which no crash of the server can take back.

        The last one is given again while it is not below ``at_least``. On a primary this waits until the
        write-ahead log is flushed up to where it stood; raises SourceUnavailable if that takes over 2 s.
        """
        if self._horizon is not None and self._horizon >= (at_least or 0):
            return self._horizon
        found = self.ask(f"{window_sql.HORIZON}, pg_is_in_recovery()")[0]
        horizon: int = found[0]
        self.standby = found[1]
        if not self.standby:
            self._wait_until_durable()
        self._horizon = horizon
        return horizon

    def forget_horizon(self) -> None:
        """Begin a new tick: the next horizon is taken anew."""
        self._horizon = None

    def _wait_until_durable(self) -> None:
        # After a crash a primary hands out ids again that no flushed record mentions. Without this wait rows
        # written under such an id are below a horizon already passed: lost. Same connection, or it proves nothing.
        lsn = self.ask("select pg_current_wal_insert_lsn()::text")[0][0]
        started = time.monotonic()
        pause, nudged = 0.001, False
        while not self.ask(_FLUSHED, {"lsn": lsn, "page": PAGE_BYTES, "header": HEADER_BYTES})[0][0]:
            waited = time.monotonic() - started
            if waited > FLUSH_WAIT_S:
                raise SourceUnavailable(
                    f"{self.name}: the server has not flushed its log to {lsn} within {FLUSH_WAIT_S:.0f} s, so a crash "
                    "could still take transactions back; the next tick tries again."
                )
            if waited > NUDGE_AFTER_S and not nudged:
                nudged = True
                self._nudge_log()
            time.sleep(pause)  # the server offers no event to wait on
            pause = min(pause * 2, 0.05)

    def _nudge_log(self) -> None:
        # Records of a transaction still open, or of pruning in a read that was rolled back, are flushed by nobody but
        # the background writer, every 15 s. An empty message (no transaction id, 64 bytes) gets it done in 0.2 s:
        # test_an_open_transaction_on_an_idle_server_does_not_postpone_the_tick.
        with contextlib.suppress(psycopg.Error):
            self.connection.execute("select pg_logical_emit_message(false, 'pg_bronze', '')")

    def activity(self) -> Activity:
        """The facts the gates need, in two round trips."""
        oids: dict[tuple[str, str], int] = {}
        children: dict[int, list[int]] = {}
        tuples: dict[int, int] = {}
        # The counters first, the ids second: every change counted then lies below next_xid. The other order would pass
        # over a row counted between the two for good, because its counter never moves again.
        for oid, schema, name, parent, count in self.ask(_RELATIONS):
            oids[(schema, name)] = oid
            tuples[oid] = count
            if parent is not None:
                children.setdefault(parent, []).append(oid)
        horizon, next_xid, self.standby = self.ask(
            "select pg_snapshot_xmin(s)::text::bigint, pg_snapshot_xmax(s)::text::bigint, pg_is_in_recovery() "
            "from pg_current_snapshot() s"
        )[0]
        found = {oid: tuple(below) for oid, below in children.items()}
        return Activity(horizon, next_xid, self.standby, oids, found, tuples)

    def holder(self) -> str | None:
        """Who holds the horizon back, for how long and how to end it, as far as this role may see; None for nobody."""
        rows = self.ask(_HOLDERS)
        if not rows:
            return None
        who, seconds, remedy = rows[0]
        since = "" if seconds is None else f" for {seconds:.0f} s"
        return f"{who} has held the horizon{since}; to end it: {remedy}"

    def has_session(self, application_name: str) -> bool:
        """Whether a session of that application name, or one that reads for it, is connected to the server."""
        query = "select exists (select 1 from pg_stat_activity where starts_with(application_name, %(name)s))"
        return bool(self.ask(query, {"name": application_name})[0][0])

    def try_lock(self, table_oid: int) -> bool:
        """Take the advisory lock of a table for as long as this connection lives; False if somebody else has it.

        It keeps order among runs on one server; the claim keeps truth. Behind a pooler nothing is locked: the lock
        would stay with a session that somebody else gets next, and nobody could give it back.
        """
        self.connection  # noqa: B018  (which finds out whether there is a pooler)
        if self.pooled:
            return True
        return bool(self.ask("select pg_try_advisory_lock(%(space)s, %(oid)s)", _lock_key(table_oid))[0][0])

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
                self.connection.execute("select pg_advisory_lock(%(space)s, %(oid)s)", _lock_key(table_oid))
        except psycopg.errors.LockNotAvailable:
            return False
        except psycopg.Error as error:
            raise explain(error, self.name) from error
        return True

    def unlock(self, table_oid: int) -> None:
        """Give the lock back; nothing happens if the connection that held it is gone."""
        if self._connection is not None and not self._connection.closed and not self.pooled:
            self.ask("select pg_advisory_unlock(%(space)s, %(oid)s)", _lock_key(table_oid))

    def measure(self, query: str, label: str) -> tuple[int, ...]:
        """The one row of numbers that a query over many rows gives, in a snapshot of its own.

        It takes no longer than a read may, ``stop_reading`` ends it, and errors name the table as those of ``read``.
        """
        timeout = f"select set_config('statement_timeout', '{self._time_left(label) * 1000:.0f}ms', true)"
        try:
            with self.session() as connection, connection.transaction():
                connection.execute(timeout.encode())
                return connection.execute(query.encode()).fetchall()[0]
        except psycopg.Error as error:
            raise explain_state(error, label) from error

    def read(self, query: str, label: str) -> "pl.DataFrame":
        """Read one slice in a read-only snapshot of its own; an interrupt ends it on the server too.

        Raises StaleSnapshot, TableChanged, AccessDenied, SourceNotFit, SourceDamaged, DataError or SourceUnavailable,
        naming the table.
        """
        timeout_s = self._time_left(label)
        if self._reader is None:
            self._reader = self._choose_reader()
        self._reading = reading = Reading(self._reader, query, label, timeout_s)
        try:
            return reading.wait(timeout_s + LOGIN_S)
        finally:
            self._reading = None  # it holds the frame, which would stay in memory beside the next one

    def _time_left(self, label: str) -> float:
        """Seconds that a statement over many rows may take now."""
        if self._ends_at is None:
            return self._statement_timeout_s
        left_s = min(self._statement_timeout_s, self._ends_at - time.monotonic())
        if left_s < SHORTEST_READ_S:
            raise SourceUnavailable(
                f"{label}: the time of this run is up (PG_BRONZE_MAX_RUN_S, or max_runtime_seconds in dagster.yaml for "
                "a run that was not the sensor's); what was copied is committed, and the next tick goes on from there."
            )
        return left_s

    def check(self) -> None:
        """Make one more connection and close it: a kept one may be the last that the server gives. Raises as ever."""
        _open(self._conninfo, self.name).close()

    def stop_reading(self) -> None:
        """End the read or question under way, in whatever thread somebody waits for it; nothing happens if there is
        none."""
        kept = self._connection
        if self._reading is not None:
            self._reading.end()
        elif kept is not None and kept.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
            with contextlib.suppress(psycopg.Error):
                kept.cancel_safe(timeout=2)

    def _choose_reader(self) -> Reader:
        kept = self.connection
        # libpq took the password from a file of its own.
        from_file = kept.pgconn.used_password and not self._conninfo.get("password")
        fit = not self.pooled and not from_file
        name = f"{self._conninfo.get('application_name', 'pg_bronze')} {secrets.token_hex(3)}"
        conninfo = pinned({**self._conninfo, "application_name": name}, kept)
        if self._url is not None and self._choice != "copy" and (fit or self._choice == "connectorx"):
            return ConnectorxReader(
                self._url, name, lambda: _open(self._conninfo, self.name), encrypted=kept.pgconn.ssl_in_use
            )
        return CopyReader(lambda: _open(conninfo, self.name))


def _open(conninfo: Mapping[str, Any], name: str) -> psycopg.Connection:
    try:
        return psycopg.connect(**conninfo, autocommit=True)
    except psycopg.OperationalError as error:
        raise explain_connection(error, name) from error


def _lock_key(table_oid: int) -> dict[str, int]:
    # Two 32-bit keys, both signed: a constant of our own, and the oid.
    return {"space": 0x70676272, "oid": table_oid - 2**32 if table_oid >= 2**31 else table_oid}
