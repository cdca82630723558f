"""Sessions that a test uses again: a new one takes longer than most statements, and than the catalog query of a tick.

They are kept for the statements of ``Database.execute``, and for the sources of a ``Lake``.
"""

import contextlib
import re
import select
import weakref
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from pg_bronze.demo.postgres import PostgresServer
from pg_bronze.postgres.connection import Source

# What a session leaves to the next user of it. One that ends reports its counters, and one that is kept has to report
# them too, which older versions cannot.
CLEAN = "discard temp; reset all; select pg_advisory_unlock_all(), pg_stat_force_next_flush()"
SINCE = 15

_Kept = defaultdict[tuple[str, str], list[psycopg.Connection]]
_of_servers: weakref.WeakKeyDictionary[PostgresServer, _Kept] = weakref.WeakKeyDictionary()


@contextmanager
def session(server: PostgresServer, conninfo: dict[str, Any]) -> Iterator[psycopg.Connection]:
    """Yield a session in autocommit mode that has no settings, temporary tables or locks.

    Two threads never have the same one, because a statement of one may wait for a statement of the other.
    """
    key = (conninfo["dbname"], "statements")
    connection = _take(server, key) or psycopg.connect(**conninfo, autocommit=True, prepare_threshold=None)
    try:
        yield connection
        connection.commit()
    except BaseException:
        connection.close()
        raise
    _keep(server, key, connection)


class KeptSource(Source):
    """A source that leaves its connection to the next one of the same database."""

    def __init__(self, server: PostgresServer, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._server = server
        self._key = (self._conninfo["dbname"], "source")

    def _connect(self) -> psycopg.Connection:
        connection = _take(self._server, self._key)
        if connection is None:
            connection = super()._connect()
            connection.prepare_threshold = 0  # with a plan for all parameters, see ``servers.start_postgres``
            return connection
        try:
            self._configure(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        connection = self._connection
        if kind is None and connection is not None and not self.pooled:
            self._connection = None
            self.close()
            _keep(self._server, self._key, connection)
        self.close()


def changes_settings(query: str) -> bool:
    """Return whether a statement may change the settings of sessions that begin later."""
    return re.search(r"\balter\s+(database|role|user|system)\b", query, re.IGNORECASE) is not None


def close(server: PostgresServer, dbname: str) -> None:
    """Close the sessions that are kept for a database."""
    kept = _of_servers.get(server, {})
    for key in [key for key in kept if key[0] == dbname]:
        for connection in kept.pop(key):
            connection.close()


def close_all(server: PostgresServer) -> None:
    """Close the sessions that are kept for all databases of a server."""
    for dbname, _ in list(_of_servers.get(server, ())):
        close(server, dbname)


def _take(server: PostgresServer, key: tuple[str, str]) -> psycopg.Connection | None:
    """Return a kept session that the server has not ended."""
    kept = _of_servers.setdefault(server, defaultdict(list))[key]
    while kept:
        with contextlib.suppress(IndexError):  # another thread has taken the last one
            connection = kept.pop()
            # It is readable if the server has closed it or sent anything else that was not requested.
            if not connection.closed and not select.select([connection], [], [], 0)[0]:
                return connection
            connection.close()
    return None


def _keep(server: PostgresServer, key: tuple[str, str], connection: psycopg.Connection) -> None:
    """Keep a session if none is kept, and close it otherwise."""
    kept = _of_servers.setdefault(server, defaultdict(list))[key]
    if server.version >= SINCE and not kept:
        with contextlib.suppress(psycopg.Error):  # a statement may have ended its own session
            connection.execute(CLEAN, prepare=False)
            kept.append(connection)
            return
    connection.close()
