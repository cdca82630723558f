"""The control table ``etl_control``: a mirror of every table's cursor value, for people and older tools.

Four columns as in the original system. It is never read as state: a cursor value cannot say which late, NULL or
updated rows were copied. The one exception is taking over from that system, which ``last_value`` serves.
"""

import contextlib
import hashlib
from dataclasses import dataclass

import psycopg

from pg_bronze.core.table import quote

_CREATE = """create table if not exists etl_control (
  table_name varchar(255) primary key,
  last_extracted_value varchar(255),
  last_extracted_at timestamp default current_timestamp,
  tracking_column varchar(255)
)"""
_UPSERT = """insert into etl_control (table_name, last_extracted_value, last_extracted_at, tracking_column)
values (%(table)s, %(value)s, (current_timestamp at time zone 'UTC'), %(column)s)
on conflict (table_name) do update
set last_extracted_value = excluded.last_extracted_value,
    last_extracted_at = excluded.last_extracted_at,
    tracking_column = excluded.tracking_column"""
# SQLSTATEs of a role or server that cannot write: insufficient privilege, read-only transaction, standby.
_READ_ONLY = {"42501", "25006"}


@dataclass(frozen=True)
class ControlRow:
    """One row of ``etl_control``; the value is PostgreSQL's text of the cursor value, times in UTC."""

    table: str
    value: str | None
    column: str | None


@dataclass(frozen=True)
class Mirrored:
    """What became of a control row: ``written``, or not with the ``reason``.

    ``edited``: the row was not as it had been mirrored before; somebody else changed or deleted it.
    """

    written: bool
    reason: str | None = None
    edited: bool = False


class Control:
    """``etl_control`` behind one connection; ``off`` gives the reason why nothing is mirrored, once known."""

    def __init__(self, connection: psycopg.Connection | None, off: str | None = None) -> None:
        self.connection = connection
        self.off = off if connection is not None or off else "PG_CONTROL_URL is off"

    @property
    def broken(self) -> bool:
        """Whether the connection has been cut, so that nothing can be mirrored over it any more."""
        return self.connection is not None and self.connection.closed

    def last_value(self, table: str) -> ControlRow | None:
        """The row of a table, if the control table exists and holds one."""
        if self.connection is None:
            return None
        with self.connection.cursor() as cursor:
            if cursor.execute("select to_regclass('etl_control') is not null").fetchone() != (True,):
                return None
            try:
                row = cursor.execute(
                    "select table_name, last_extracted_value, tracking_column from etl_control where table_name = %s",
                    (_held(table),),
                ).fetchone()
            except psycopg.Error as error:
                if error.sqlstate in _READ_ONLY | {"42703"}:
                    return None
                raise
        return ControlRow(*row) if row else None

    def mirror(self, row: ControlRow, before: str | None) -> Mirrored:
        """Create the control table if it is missing and write the row; ``before`` is the value mirrored last time.

        Order is the caller's: cursor values of one table never fall, and the table's lock is held. A role or server
        that may not write switches the mirror off for the life of this object; every other error is raised.
        """
        if self.connection is None or self.off:
            return Mirrored(False, self.off)
        try:
            found = self.last_value(row.table)
            if found is None:
                self._make()
            value = row.value and row.value[:255]
            self.connection.execute(
                _UPSERT, {"table": _held(row.table), "value": value, "column": row.column and row.column[:255]}
            )
            edited = before is not None and (found is None or found.value != before[:255])
            return Mirrored(True, edited=edited)
        except psycopg.Error as error:
            if error.sqlstate not in _READ_ONLY:
                raise
            self.off = self._advice(error.sqlstate)
            return Mirrored(False, self.off)

    def _advice(self, sqlstate: str | None) -> str:
        """Why nothing is mirrored, and a remedy that works as things are: a grant on a table needs the table."""
        if self.connection is None or sqlstate == "25006":
            return (
                "etl_control is not mirrored: this server or session is read-only. Set PG_CONTROL_URL to a database "
                "that can be written, or to off."
            )
        otherwise = "or set PG_CONTROL_URL to another database or to off."
        user = quote(self.connection.info.user)
        grant = f"grant select, insert, update on etl_control to {user}"
        found = self.connection.execute("select to_regclass('etl_control') is not null").fetchone()
        if found == (True,):
            return f"etl_control is not mirrored: this role may not write it. Run: {grant}; {otherwise}"
        create = " ".join(_CREATE.split())
        return (
            "etl_control is not mirrored: it does not exist, and this role may not create it. "
            f"Run as an owner of the schema: {create}; {grant}; {otherwise}"
        )

    def _make(self) -> None:
        """``create table if not exists`` needs the right to create even where the table exists, so look first."""
        if self.connection is None:
            return
        found = self.connection.execute("select to_regclass('etl_control') is not null").fetchone()
        if found != (True,):
            # Another session may make it between the two statements.
            with contextlib.suppress(psycopg.errors.UniqueViolation):
                self.connection.execute(_CREATE)


def _held(label: str) -> str:
    """What of a label fits into ``table_name``: all of it, unless schema and name are 63 characters of double quotes.

    Those doubled are up to 257; two such tables must not share a row.
    """
    return label if len(label) <= 255 else f"{label[:238]}…{hashlib.sha256(label.encode()).hexdigest()[:16]}"
