"""Control rows: the versions of all rows of a control table, read in one round trip for a whole tick.

A cluster that was put back to an older state may show it in these rows alone. No row is written here, and no value of
one is read: ``control_table`` does both.
"""

import contextlib
from collections.abc import Mapping

import psycopg

from pg_bronze.core.table import quote
from pg_bronze.core.watermark import ControlVersion
from pg_bronze.postgres.connection import Source

# Two statements in one message, so in one transaction: a session that locks the table must not delay the tick.
_VERSIONS = """select pg_catalog.set_config('lock_timeout', '200ms', true);
select table_name, tableoid::pg_catalog.int8, pg_catalog.int8in(pg_catalog.xidout(xmin)) from {table}"""
# Locks, time limits and resources. The next tick asks again.
_PASSING = ("55P03", "57", "53", "40")


class ControlRows:
    """The control tables of one database, as the ticks of one process read them."""

    def __init__(self) -> None:
        self._refused: set[int] = set()

    def read(
        self, source: Source, names: Mapping[int, tuple[str, str]], written: set[ControlVersion], database: int
    ) -> dict[str, ControlVersion]:
        """Return the current version of each row by its ``table_name``.

        A table that the role may not read is asked once in the life of this object: the server logs each attempt.

        Args:
            source: The database.
            names: The schema and name of each of its tables by oid.
            written: The versions that the watermarks name.
            database: The oid of the database.
        """
        found: dict[str, ControlVersion] = {}
        for oid in {item.table for item in written if item.database == database} - self._refused:
            if oid not in names:
                continue
            try:
                found |= _versions(source, names[oid], database)
            except (psycopg.Error, UnicodeError) as error:
                if not (getattr(error, "sqlstate", None) or "").startswith(_PASSING):
                    self._refused.add(oid)
        return found


def _versions(source: Source, name: tuple[str, str], database: int) -> dict[str, ControlVersion]:
    statement = _VERSIONS.format(table=".".join(map(quote, name)))
    with source.session() as connection, contextlib.closing(connection.cursor()) as cursor:
        cursor.execute(statement.encode(), prepare=False)
        cursor.nextset()
        return {table: ControlVersion(database, oid, xid) for table, oid, xid in cursor.fetchall()}
