"""The source database: one kept psycopg connection for questions, connectorx for slices known to have rows."""

import contextlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import psycopg

from pg_bronze import window
from pg_bronze.errors import (
    AccessDenied,
    DataError,
    PgBronzeError,
    SourceNotFit,
    SourceUnavailable,
    StaleSnapshot,
    TableChanged,
)
from pg_bronze.watermark import Place

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
# Makes the text of every type canonical, whatever the server, database or role sets.
_SESSION = {
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "row_security": "off",
    "client_encoding": "UTF8",
}


@dataclass(frozen=True)
class Activity:
    """What the cluster looks like to a probe: horizon, next transaction id, and the database's tables right now.

    ``oids`` maps ``(schema, name)`` to an oid, ``children`` a partitioned table's oid to its partitions', ``tuples`` an
    oid to the row versions inserted and updated so far, as far as the statistics know.
    """

    horizon: int
    next_xid: int
    standby: bool
    oids: Mapping[tuple[str, str], int]
    children: Mapping[int, tuple[int, ...]]
    tuples: Mapping[int, int]

    def leaves(self, oid: int) -> tuple[int, ...]:
        """The physical tables behind a table, in ascending order."""
        below = self.children.get(oid)
        if below is None:
            return (oid,)
        return tuple(sorted(leaf for child in below for leaf in self.leaves(child)))


class Source:
    """The source database behind one psycopg connection, plus the URL that connectorx reads slices from.

    Raises SourceUnavailable (the next tick may cure it), AccessDenied or SourceNotFit (a person must).
    """

    def __init__(self, conninfo: Mapping[str, Any], url: str, statement_timeout_s: float) -> None:
        self._conninfo = dict(conninfo)
        self._url = url
        self._statement_timeout_s = statement_timeout_s
        self._connection: psycopg.Connection | None = None
        self.standby = False
        self.server_version = 0
        self._place: Place | None = None
        self._horizon: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        """``database@host``, for messages."""
        return f"{self._conninfo.get('dbname')}@{self._conninfo.get('host')}"

    @property
    def connection(self) -> psycopg.Connection:
        """The kept connection (autocommit), opened on first use and again after it broke."""
        if self._connection is None or self._connection.closed or self._connection.broken:
            self._connection = self._connect()
        return self._connection

    def close(self) -> None:
        """Close the connection; locks held by it are released."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> psycopg.Connection:
        try:
            connection = psycopg.connect(**self._conninfo, autocommit=True)
        except psycopg.OperationalError as error:
            raise explain_connection(error, self.name) from error
        self.server_version = connection.info.server_version
        if self.server_version < OLDEST_SERVER:
            connection.close()
            raise SourceNotFit(
                f"{self.name}: PostgreSQL {self.server_version // 10000} is too old; 14 is the oldest that works."
            )
        # Compiling the catalog query takes longer than running it.
        settings = {**_SESSION, "statement_timeout": f"{int(self._statement_timeout_s * 1000)}ms", "jit": "off"}
        wanted = ", ".join("set_config(%s, %s, false)" for _ in settings)
        connection.execute(f"select {wanted}".encode(), [text for pair in settings.items() for text in pair])
        return connection

    def ask(self, query: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run one statement on the kept connection; errors of the server become ours."""
        try:
            return self.connection.execute(query.encode(), parameters).fetchall()
        except psycopg.Error as error:
            raise explain(error, self.name) from error

    def place(self, bucket: str) -> Place:
        """Which database at which moment of its history; ``bucket`` completes it."""
        system_id, timeline, lsn, database, self.standby = self.ask(_FACTS)[0]
        return Place(system_id, timeline, lsn, database, bucket)

    def horizon(self, at_least: int | None = None) -> int:
        """A horizon below which every transaction has finished, and which no crash of the server can take back.

        The last one is given again while it is not below ``at_least``. On a primary this waits until the
        write-ahead log is flushed up to where it stood; raises SourceUnavailable if that takes over 2 s.
        """
        if self._horizon is not None and self._horizon >= (at_least or 0):
            return self._horizon
        found = self.ask(f"{window.HORIZON}, pg_is_in_recovery()")[0]
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
        """Whether a session of that application name is connected to the server."""
        query = "select exists (select 1 from pg_stat_activity where application_name = %(name)s)"
        return bool(self.ask(query, {"name": application_name})[0][0])

    def try_lock(self, table_oid: int) -> bool:
        """Take the advisory lock of a table for as long as this connection lives; False if somebody else has it.

        It keeps order among runs on one server; the claim keeps truth.
        """
        return bool(self.ask("select pg_try_advisory_lock(%(space)s, %(oid)s)", _lock_key(table_oid))[0][0])

    def unlock(self, table_oid: int) -> None:
        """Give the lock back; nothing happens if the connection that held it is gone."""
        if self._connection is not None and not self._connection.closed:
            self.ask("select pg_advisory_unlock(%(space)s, %(oid)s)", _lock_key(table_oid))

    def measure(self, query: str) -> tuple[int, int]:
        """Rows and bytes, as ``window.measure`` asks for them, from a snapshot of its own."""
        rows, size_bytes = self.ask(query)[0]
        return rows, size_bytes

    def read(self, query: str, label: str) -> "pl.DataFrame":
        """Read one slice through connectorx in a read-only snapshot of its own.

        Raises StaleSnapshot, TableChanged, AccessDenied, SourceNotFit, DataError or SourceUnavailable, naming the
        table.
        """
        import connectorx

        settings = ", ".join(
            f"set_config('{name}', '{value}', true)"
            for name, value in {**_SESSION, "statement_timeout": f"{int(self._statement_timeout_s * 1000)}ms"}.items()
        )
        try:
            frame: pl.DataFrame = connectorx.read_sql(
                self._url,
                query,
                return_type="polars",
                protocol="binary",  # the csv protocol drops rows, simple and cursor cannot read all types
                pre_execution_query=["begin isolation level repeatable read read only", f"select {settings}"],
            )
            return frame
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # connectorx panics with a class derived from BaseException
            raise explain_read(error, label) from error


def _lock_key(table_oid: int) -> dict[str, int]:
    # Two 32-bit keys, both signed: a constant of our own, and the oid.
    return {"space": 0x70676272, "oid": table_oid - 2**32 if table_oid >= 2**31 else table_oid}


def explain_connection(error: psycopg.OperationalError, name: str) -> PgBronzeError:
    """Our error for a connection that could not be made; libpq's text is used to tell cases apart, not repeated."""
    text = str(error)
    if "password authentication failed" in text or "no password supplied" in text:
        return AccessDenied(f"{name}: the server refused the user or password. Check PG_USER and PG_PASS.")
    if re.search(r'database ".*" does not exist', text):
        return AccessDenied(f"{name}: there is no such database. Check PG_DB.")
    if re.search(r'role ".*" does not exist', text):
        return AccessDenied(f"{name}: there is no such role. Check PG_USER.")
    if "pg_hba.conf" in text:
        return AccessDenied(
            f"{name}: the server's pg_hba.conf does not let this user in from here. Add a line for it, or "
            "check PG_SSLMODE."
        )
    if "certificate" in text or "SSL" in text:
        return AccessDenied(f"{name}: the encrypted connection could not be made. Check PG_SSLMODE and PG_SSLROOTCERT.")
    if "too many clients" in text or "remaining connection slots" in text:
        return SourceUnavailable(f"{name}: the server has no free connection. The next tick tries again.")
    if "name or service not known" in text.lower() or "name resolution" in text.lower() or "translate host" in text:
        return SourceUnavailable(f"{name}: the host name cannot be resolved. Check PG_HOST; the next tick tries again.")
    if "starting up" in text or "shutting down" in text or "recovery" in text:
        return SourceUnavailable(f"{name}: the server is starting or stopping. The next tick tries again.")
    return SourceUnavailable(
        f"{name}: no connection to PostgreSQL. Check that it is up and that PG_HOST and PG_PORT are right; "
        "the next tick tries again."
    )


def explain(error: psycopg.Error, name: str) -> PgBronzeError:
    """Our error for a failed statement, from its SQLSTATE; the server's text may quote values and is not repeated."""
    state = error.sqlstate or ""
    if state == "42501":
        return AccessDenied(f"{name}: the role may not read this ({_first_words(error)}). Grant select to it.")
    if state in {"42P01", "42703", "42704", "XX001"}:
        return TableChanged(f"{name}: a table or column is not there any more ({state}); the next tick looks again.")
    if state == "57014":
        return SourceUnavailable(
            f"{name}: a statement was cancelled, by its time limit or an administrator. "
            "Raise PG_BRONZE_STATEMENT_TIMEOUT_S if it needs longer; the next tick tries again."
        )
    if "older than horizon" in str(error):
        return StaleSnapshot(
            f"{name}: a read saw an older state of the database than its horizon; the next tick tries again."
        )
    return SourceUnavailable(
        f"{name}: the server ended the statement ({state or type(error).__name__}); the next tick tries again."
    )


def explain_read(error: BaseException, label: str) -> PgBronzeError:
    """Our error for a slice that could not be read; connectorx gives text only, in which values may stand."""
    text = str(error)
    if "older than horizon" in text:
        return StaleSnapshot(
            f"{label}: the read saw an older state of the database than its horizon, as behind a pooler that spreads "
            "over replicas or on a standby that lags. Nothing was copied; the next tick tries again."
        )
    if "row-level security" in text or "row security" in text:
        return SourceNotFit(
            f"{label}: a row security policy would hide rows from this role. Grant it bypassrls, or exclude the table "
            "(PG_BRONZE_EXCLUDE)."
        )
    if "permission denied" in text:
        return AccessDenied(f"{label}: the role may not read it. Run: grant select on {label} to the role.")
    if "does not exist" in text:
        return TableChanged(
            f"{label}: it was dropped, renamed or altered while it was read; the next tick looks again."
        )
    if "too large to decode" in text or "decimal" in text:
        # The rule table sends no such value: only a column altered between two looks does.
        return TableChanged(f"{label}: it was altered while it was read; the next tick looks again.")
    if "statement timeout" in text or "canceling statement" in text:
        return SourceUnavailable(
            f"{label}: the read was cancelled, by its time limit or a conflict with recovery. Raise "
            "PG_BRONZE_STATEMENT_TIMEOUT_S if it needs longer; the next tick tries again."
        )
    if "invalid byte sequence" in text:
        return DataError(
            f"{label}: a text is not valid UTF-8, as a database in the encoding SQL_ASCII allows. Correct it in the "
            "source, or exclude the table (PG_BRONZE_EXCLUDE)."
        )
    if type(error).__name__ == "PanicException":
        return DataError(f"{label}: the reader gave up on a value it cannot decode. Exclude the table and report it.")
    return SourceUnavailable(
        f"{label}: the connection to PostgreSQL broke or could not be made while reading; the next tick tries again."
    )


def _first_words(error: psycopg.Error) -> str:
    """The part of a permission error that names the object: PostgreSQL puts no row value into it."""
    primary = error.diag.message_primary or "permission denied"
    return primary[:120]


def columns_that_may_be_wide(bases: Sequence[tuple[str, str]]) -> list[str]:
    """Names of the columns whose type can hold a value stored out of line, from ``(name, base type)`` pairs."""
    fixed = {
        "bool", "int2", "int4", "int8", "oid", "float4", "float8", "date", "time", "timetz", "timestamp", "timestamptz",
        "interval", "uuid", "money", "macaddr", "macaddr8", "point", "lseg", "box", "line", "circle", "name", "char",
        "xid", "xid8", "cid", "tid", "pg_lsn",
    }  # fmt: skip
    return [name for name, base in bases if base not in fixed]
