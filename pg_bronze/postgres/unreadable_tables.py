"""Tables whose definition cannot be read, which must not hide the other tables.

The server refuses a whole answer for one such table: a name, comment or label that cannot be sent as UTF-8 (a database
with the encoding SQL_ASCII accepts any bytes, and a character may have no equivalent in Unicode), or a damaged entry.
"""

from collections.abc import Callable
from typing import Any

import psycopg

from pg_bronze.core.table import SourceTable

_ROOTS = """select c.oid::bigint from pg_class c
where c.relkind in ('r', 'p', 'v', 'm', 'f') and not c.relispartition and c.relpersistence <> 't' order by c.oid"""
_NAMES = """select encode(convert_to(n.nspname, getdatabaseencoding()), 'hex'),
  encode(convert_to(c.relname, getdatabaseencoding()), 'hex'), c.relkind = 'p'
from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = %s"""
_NOT_UTF8 = (
    "it, or one of its partitions, columns or types, has a name, comment or label that is not valid UTF-8. The "
    "database's encoding accepts any bytes; rename it or set the comment again"
)
_UNREADABLE = (
    "the server fails to read its definition, or that of one of its partitions (SQLSTATE {state}). The server's log "
    "has the message; repair or recreate the table"
)


def tables(
    conn: psycopg.Connection[Any], read: Callable[[psycopg.Connection[Any], str], list[SourceTable]]
) -> list[SourceTable]:
    """Return all tables that ``read`` finds; one that cannot be read is skipped with the reason.

    Args:
        read: Reads the tables for which a condition on ``c``, a row of pg_class, is true.
    """
    try:
        with conn.transaction():  # a savepoint if the caller has a transaction, which an error would end
            return read(conn, "true")
    except psycopg.Error as error:
        if _concerns_all(error, conn):
            raise
        read(conn, "false")  # fails too if the cause is in no table, such as a right that is missing
        return _halves(conn, read, [oid for (oid,) in conn.execute(_ROOTS).fetchall()])


def _halves(
    conn: psycopg.Connection[Any],
    read: Callable[[psycopg.Connection[Any], str], list[SourceTable]],
    oids: list[int],
) -> list[SourceTable]:
    """Read the tables of these oids, divided until those that fail are alone."""
    if not oids:
        return []
    try:
        with conn.transaction():
            return read(conn, f"c.oid in ({', '.join(map(str, oids))})")
    except psycopg.Error as error:
        if _concerns_all(error, conn):
            raise
        if len(oids) == 1:
            return _skipped(conn, oids[0], error.sqlstate)
        middle = len(oids) // 2
        return _halves(conn, read, oids[:middle]) + _halves(conn, read, oids[middle:])


def _concerns_all(error: psycopg.Error, conn: psycopg.Connection[Any]) -> bool:
    """Return whether other tables would fail too: the connection is lost, or the statement was canceled."""
    return conn.closed or error.sqlstate is None or error.sqlstate[:2] in {"08", "53", "57"}


def _skipped(conn: psycopg.Connection[Any], oid: int, state: str | None) -> list[SourceTable]:
    reason = _NOT_UTF8 if state in {"22021", "22P05"} else _UNREADABLE.format(state=state)
    rows = conn.execute(_NAMES, (oid,)).fetchall()
    return [
        SourceTable(oid, _text(schema), _text(name), partitioned, None, (), (), (), 0.0, reason, str(oid))
        for schema, name, partitioned in rows
    ]


def _text(digits: str) -> str:
    """Return the text of bytes in hexadecimal digits, with an escape for each byte that is not UTF-8."""
    return bytes.fromhex(digits).decode("utf-8", "backslashreplace")
