"""Tables with a name, comment or label that cannot be sent as UTF-8, which must not hide the other tables.

The server refuses a whole answer for one such text: in a database with the encoding SQL_ASCII, which accepts any bytes,
or for a character without an equivalent in Unicode.
"""

from collections.abc import Callable
from typing import Any

import psycopg

from pg_bronze.core.table import SourceTable

_NOT_UTF8 = (psycopg.errors.CharacterNotInRepertoire, psycopg.errors.UntranslatableCharacter)
_ROOTS = """select c.oid::bigint from pg_class c
where c.relkind in ('r', 'p', 'v', 'm', 'f') and not c.relispartition and c.relpersistence <> 't' order by c.oid"""
_NAMES = """select encode(convert_to(n.nspname, getdatabaseencoding()), 'hex'),
  encode(convert_to(c.relname, getdatabaseencoding()), 'hex'), c.relkind = 'p'
from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = %s"""
_REASON = (
    "it, or one of its partitions, columns or types, has a name, comment or label that is not valid UTF-8. The "
    "database's encoding accepts any bytes; rename it or set the comment again"
)


def tables(
    conn: psycopg.Connection[Any], read: Callable[[psycopg.Connection[Any], str], list[SourceTable]]
) -> list[SourceTable]:
    """Return all tables that ``read`` finds; one that cannot be read for its text is skipped with the reason.

    Args:
        read: Reads the tables for which a condition on ``c``, a row of pg_class, is true.
    """
    try:
        return read(conn, "true")
    except _NOT_UTF8:
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
        return read(conn, f"c.oid in ({', '.join(map(str, oids))})")
    except _NOT_UTF8:
        if len(oids) == 1:
            return _skipped(conn, oids[0])
        middle = len(oids) // 2
        return _halves(conn, read, oids[:middle]) + _halves(conn, read, oids[middle:])


def _skipped(conn: psycopg.Connection[Any], oid: int) -> list[SourceTable]:
    rows = conn.execute(_NAMES, (oid,)).fetchall()
    return [
        SourceTable(oid, _text(schema), _text(name), partitioned, None, (), (), (), 0.0, _REASON, str(oid))
        for schema, name, partitioned in rows
    ]


def _text(digits: str) -> str:
    """Return the text of bytes in hexadecimal digits, with an escape for each byte that is not UTF-8."""
    return bytes.fromhex(digits).decode("utf-8", "backslashreplace")
