"""Which tables and columns a storage of events has, asked for once in a process.

Older versions of Dagster did not have all of them. So Dagster asks the database, with several statements and for SQLite
over a new connection, whenever it reads the row of an asset or stores a materialization: 6 % of the time of a run. What
exists is never removed. This module is loaded by the web server and the daemon, so it imports nothing of pg_bronze.
"""

from collections.abc import Callable
from typing import Any

from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from sqlalchemy import Connection

# By the place of the storage, the kind of what was found, and its name.
_found: set[tuple[str, str, str]] = set()


class KnownSchema(SqlEventLogStorage):
    """Remembers each table, each column and each completed migration that was found."""

    @property
    def place(self) -> str:
        """What distinguishes this storage from others that the process opens."""
        raise NotImplementedError

    def has_table(self, table_name: str) -> bool:
        """Return whether a table exists."""
        storage: Any = super()  # abstract here, and not in the storages
        return self._remembered("table", table_name, lambda: storage.has_table(table_name))

    def has_secondary_index(self, name: str) -> bool:
        """Return whether a migration of the data is complete."""
        return self._remembered("migration", name, lambda: super(KnownSchema, self).has_secondary_index(name))

    def has_asset_key_col(self, column_name: str) -> bool:
        """Return whether the table of assets has a column."""
        return self._remembered("column", column_name, lambda: super(KnownSchema, self).has_asset_key_col(column_name))

    def _has_asset_key_col_on_connection(self, conn: Connection, column_name: str) -> bool:
        return self._remembered(
            "column", column_name, lambda: super(KnownSchema, self)._has_asset_key_col_on_connection(conn, column_name)
        )

    def _remembered(self, kind: str, name: str, ask: Callable[[], bool]) -> bool:
        what = (self.place, kind, name)
        if what not in _found and ask():
            _found.add(what)
        return what in _found
