"""The control table ``etl_control``: a mirror of every table's cursor value, for people and older tools.

It has the four columns of the original system. It is never read as state, because a cursor value cannot tell which
late, NULL or updated rows were copied. Only the takeover from the original system reads it (``last_value``).
"""

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import psycopg

from pg_bronze.core.table import quote
from pg_bronze.core.watermark import ControlVersion
from pg_bronze.postgres.session_settings import SCHEMAS, settings_list

_CREATE = """create table if not exists {table} (
  table_name varchar(255) primary key,
  last_extracted_value varchar(255),
  last_extracted_at timestamp default current_timestamp,
  tracking_column varchar(255)
)"""
_UPSERT = """insert into {table} (table_name, last_extracted_value, last_extracted_at, tracking_column)
values (%(table)s, %(value)s, (current_timestamp at time zone 'UTC'), %(column)s)
on conflict (table_name) do update
set last_extracted_value = excluded.last_extracted_value,
    last_extracted_at = excluded.last_extracted_at,
    tracking_column = excluded.tracking_column"""
_SELECT = "select table_name, last_extracted_value, tracking_column from {table} where table_name = %s"
_ROLES_PATH = "set local search_path to default"  # triggers may need the role's own
_PINNED_PATH = "set local search_path to pg_catalog, pg_temp"
# Without the flush, a crash could take back a version that a watermark names, and would look like a restore.
_FLUSHED = "select set_config('synchronous_commit', 'local', true)"
# Runs with the role's own search_path, which may have another operator of this name.
_SIGN = "update {table} set last_extracted_at = last_extracted_at where table_name operator(pg_catalog.=) %s"
_VERSION = """select (select concat(system_identifier) from pg_control_system()),
  (select oid::bigint from pg_database where datname = current_database()),
  tableoid::bigint, int8in(xidout(xmin))
from {table} where table_name = %s and not pg_is_in_recovery()"""
# Rights are asked for by column, as _SELECT and _UPSERT need them. A standby's transactions are read-only.
_STATE = f"""select current_database(), coalesce(c.schema, path[1]), c.oid is not null,
  current_setting('transaction_read_only') = 'on',
  coalesce(has_schema_privilege(path[1], 'create'), false),
  columns.count = 4, coalesce(columns.readable, false), coalesce(columns.writable, false),
  coalesce(has_table_privilege(c.oid, 'select'), false)
from (select {SCHEMAS} as path) as role
left join lateral (
  select c.oid, n.nspname as schema
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where c.relname = 'etl_control' and n.nspname = any (path)
  order by array_position(path, n.nspname)
  limit 1
) as c on true
cross join lateral (
  select count(*),
    bool_and(a.attname = 'last_extracted_at' or has_column_privilege(c.oid, a.attnum, 'select')) as readable,
    bool_and(has_column_privilege(c.oid, a.attnum, 'select') and has_column_privilege(c.oid, a.attnum, 'insert')
      and (a.attname = 'table_name' or has_column_privilege(c.oid, a.attnum, 'update'))) as writable
  from pg_attribute a
  where a.attrelid = c.oid and not a.attisdropped
    and a.attname in ('table_name', 'last_extracted_value', 'last_extracted_at', 'tracking_column')
) as columns"""
# A lock or a slow server must not delay the copies: the mirror is off for the run instead. Behind a pooler, and on the
# connection that the copies use, the limits must end with the transaction.
_LOCK_TIMEOUT_S, _STATEMENT_TIMEOUT_S = 2.0, 5.0
# psycopg raises a ValueError for what it cannot encode or decode, as in a database with the encoding SQL_ASCII.
_ERRORS = (psycopg.Error, ValueError)
# By SQLSTATE; the text ends as ``_ELSEWHERE`` continues.
_REMEDIES = {
    "42501": "A row security policy, a trigger, or a right was revoked. Allow the write,",
    "42P10": "Its column table_name has no unique key. Add a primary key on table_name,",
    "23502": "A column that pg_bronze does not fill is not null. Allow null in it, or give it a default,",
    "55P03": "Another session locks it. End that session,",
    "57014": "The statement took longer than 5 s. End what it waits for,",
}
_ELSEWHERE = "or set PG_CONTROL_URL to another database or to off."


@dataclass(frozen=True)
class ControlRow:
    """One row of ``etl_control``; the value is PostgreSQL's text of the cursor value, times in UTC."""

    table: str
    value: str | None
    column: str | None


@dataclass(frozen=True)
class Mirrored:
    """The outcome for a control row: ``written``, or not with the ``reason``.

    ``edited`` means that the row is not the one of the value mirrored last. Somebody changed or deleted it, if that
    value was written; only the caller knows whether the mirror was on then.
    """

    written: bool
    reason: str | None = None
    edited: bool = False


class _State(NamedTuple):
    """The control table as one connection finds it, and what the role may do.

    ``schema`` is that of the table, or the one it would be created in; None if the search_path has none.
    """

    database: str
    schema: str | None
    exists: bool
    read_only: bool
    may_create: bool
    complete: bool
    readable: bool
    writable: bool
    system_columns: bool


class Control:
    """``etl_control`` behind one connection. ``off`` is the reason why nothing is mirrored, once it is known.

    The mirror is for people, so no error of it fails a copy: any error sets ``off`` for the life of this object. The
    next run has a new one and tries again.

    Args:
        source: The name of the source, if the control table may have the rows of several.
    """

    def __init__(
        self, connection: psycopg.Connection | None, off: str | None = None, source: str | None = None
    ) -> None:
        self.connection = connection
        self._source = source
        self.off = off if connection is not None or off else "etl_control is not mirrored: PG_CONTROL_URL is off"

    @property
    def broken(self) -> bool:
        """Whether the connection is closed, so that nothing can be mirrored over it."""
        return self.connection is not None and self.connection.closed

    def where(self) -> str:
        """Return one line: the database and schema of the control table, or why nothing is mirrored."""
        if self.connection is None or self.off:
            return str(self.off)
        try:
            with _session(self.connection) as state:
                pass
        except _ERRORS as error:
            self.off = _refused(error)
            return self.off
        place = f"database {state.database}, schema {state.schema}"
        return _obstacle(state, self.connection.info.user) or (
            f"etl_control is mirrored in {place}" if state.exists else f"etl_control will be created in {place}"
        )

    def last_value(self, table: str) -> ControlRow | None:
        """Return the row of a table; None if there is none, or no control table that can be read (then see ``off``)."""
        if self.connection is None or self.off:
            return None
        try:
            with _session(self.connection) as state:
                return _row(self.connection, self._key(table), state)
        except _ERRORS as error:
            self.off = _refused(error)
            return None

    def sign(self, table: str, system_id: str) -> ControlVersion | None:
        """Write a new version of a table's row that changes none of its values, and return it.

        Returns:
            None if there is no row, or the control table is not in the cluster ``system_id``, or cannot be written.
        """
        return self._version(table, system_id, new=True)

    def version(self, table: str, system_id: str) -> ControlVersion | None:
        """Return the current version of a table's row; None in the cases of ``sign``, and on a standby."""
        return self._version(table, system_id, new=False)

    def _version(self, table: str, system_id: str, *, new: bool) -> ControlVersion | None:
        if self.connection is None or self.off:
            return None
        # An error is not the mirror's: it is off only if the row itself cannot be written.
        with contextlib.suppress(*_ERRORS), _session(self.connection) as state:
            if not state.exists or not state.system_columns or _obstacle(state, self.connection.info.user):
                return None
            if new and not _renew(self.connection, self._key(table), state):
                return None
            found = self.connection.execute(_with_table(_VERSION, state), (self._key(table),)).fetchone()
            return ControlVersion(*found[1:]) if found and found[0] == system_id else None
        return None

    def _key(self, table: str) -> str:
        return key(table, self._source)

    def mirror(self, row: ControlRow, before: str | None) -> Mirrored:
        """Write the row of a table, after creating the control table if it is missing.

        The caller holds the table's lock, so cursor values never decrease. Without the rights there is no attempt that
        the server would log as an error.

        Args:
            before: The value mirrored last time, None if unknown.
        """
        if self.connection is None or self.off:
            return Mirrored(False, self.off)
        try:
            with _session(self.connection) as state:
                self.off = _obstacle(state, self.connection.info.user)
                found = None if self.off else _write(self.connection, self._key(row.table), row, state)
        except _ERRORS as error:
            self.off = _refused(error)
        if self.off:
            return Mirrored(False, self.off)
        return Mirrored(True, edited=before is not None and (found is None or found.value != before[:255]))


@contextlib.contextmanager
def _session(connection: psycopg.Connection) -> Iterator[_State]:
    """Yield the control table of the role's search_path, in a transaction with the settings of every session.

    The settings and the time limits end with the transaction, so that an error leaves no trace in the session.
    """
    settings = settings_list(_STATEMENT_TIMEOUT_S, local=True, lock_timeout_s=_LOCK_TIMEOUT_S)
    with connection.transaction():
        connection.execute(f"select {settings}".encode())
        yield _State(*connection.execute(_STATE.encode()).fetchall()[0])


def _refused(error: Exception) -> str:
    """Return why nothing is mirrored after any error; the server's text may quote the value of a row."""
    state = getattr(error, "sqlstate", None)
    found = f"SQLSTATE {state}" if state else type(error).__name__
    remedy = _REMEDIES.get(state or "", "The server's log has the message. Remove the cause,")
    return f"etl_control is not mirrored: the server refused the statement ({found}). {remedy} {_ELSEWHERE}"


def _name(state: _State) -> str:
    return f"{quote(state.schema or '')}.etl_control"


def _obstacle(state: _State, user: str) -> str | None:
    """Return why nothing can be mirrored, with a remedy that works as it is; None if it can."""
    off = "etl_control is not mirrored:"
    if state.read_only:
        return (
            f"{off} this server or session is read-only. Set PG_CONTROL_URL to a database that can be written, or to "
            "off."
        )
    if state.schema is None:
        return f"{off} no schema of this role's search_path can be used. Set another search_path, {_ELSEWHERE}"
    table = _name(state)
    grant = f"grant select, insert, update on {table} to {quote(user)}"
    if not state.exists and not state.may_create:
        create = " ".join(_CREATE.format(table=table).split())
        return (
            f"{off} it does not exist, and this role may not create it. "
            f"Run as an owner of the schema: {create}; {grant}; {_ELSEWHERE}"
        )
    if state.exists and not state.complete:
        return f"{off} {table} lacks columns of a control table. Rename that table, {_ELSEWHERE}"
    if state.exists and not state.writable:
        return f"{off} this role may not write it. Run: {grant}; {_ELSEWHERE}"
    return None


def _row(connection: psycopg.Connection, name: str, state: _State) -> ControlRow | None:
    if not (state.exists and state.complete and state.readable):
        return None
    row = connection.execute(_with_table(_SELECT, state), (name,)).fetchone()
    return ControlRow(*row) if row else None


def _with_table(statement: str, state: _State) -> bytes:
    return statement.format(table=_name(state).replace("%", "%%")).encode()


def _renew(connection: psycopg.Connection, name: str, state: _State) -> bool:
    """Write a row again as it is; return False if there is none, or if a trigger prevents it."""
    connection.execute(_FLUSHED)
    connection.execute(_ROLES_PATH)
    rows = connection.execute(_with_table(_SIGN, state), (name,)).rowcount
    connection.execute(_PINNED_PATH)
    return rows == 1


def _write(connection: psycopg.Connection, name: str, row: ControlRow, state: _State) -> ControlRow | None:
    """Write a row and return what it replaced, as far as the role may read it."""
    found = _row(connection, name, state)
    connection.execute(_ROLES_PATH)
    if not state.exists:
        # Another session may create it at the same time.
        exists = (psycopg.errors.UniqueViolation, psycopg.errors.DuplicateTable)
        with contextlib.suppress(*exists), connection.transaction():
            connection.execute(_CREATE.format(table=_name(state)).encode())
    value, column = row.value and row.value[:255], row.column and row.column[:255]
    connection.execute(_with_table(_UPSERT, state), {"table": name, "value": value, "column": column})
    return found


def key(label: str, source: str | None = None) -> str:
    """Return the ``table_name`` of a label: the label itself, if it has at most 255 characters.

    Schema and name of 63 double quotes each make a label of 257; two such tables must not share a row.

    Args:
        source: The name of the source, if the control table may have the rows of several: ``shop:movie``.
    """
    label = f"{source}:{label}" if source else label
    return label if len(label) <= 255 else f"{label[:238]}…{hashlib.sha256(label.encode()).hexdigest()[:16]}"
