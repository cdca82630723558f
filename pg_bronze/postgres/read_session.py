"""Read sessions: each reads slices one after the other, over a connection beside the kept one.

Belongs here: a reader, its current read, their end, and several of them at once. Does not belong here: which reader is
used and how long a read may take (``connection``), and how many sessions a run may have (``connection_limit``).
"""

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import psycopg

from pg_bronze.errors import AccessDenied
from pg_bronze.postgres import missing_rights
from pg_bronze.postgres.connection_limit import ConnectionLimit
from pg_bronze.postgres.error_mapping import explain, shown_cause
from pg_bronze.postgres.readers.reading import Reader, Reading, opening
from pg_bronze.postgres.readers.sent_rows import SentRows

if TYPE_CHECKING:
    from pg_bronze.postgres.connection import Source

# Seconds that a read may take beyond its statement: connectorx tries to log in for 30 s.
LOGIN_S = 35.0


class ReadSession:
    """Reads slices of a source, one at a time. It connects on the first read, to the server of the kept connection.

    Attributes:
        reader: The reader of the last read; None before the first one.
    """

    def __init__(self, source: "Source") -> None:
        self._source = source
        self.reader: Reader | None = None
        self._beside: psycopg.Connection | None = None
        self._reading: Reading | None = None

    @property
    def is_reading(self) -> bool:
        """Whether a thread reads now."""
        return self._reading is not None

    def prepare(self) -> Reader:
        """Choose the reader of the next read with questions on the kept connection, which one thread may ask."""
        if self.reader is not None and not self._source.is_kept(self._beside):
            self._forget()  # it would connect to the host of the connection that was lost
        if self.reader is None:
            self.reader, self._beside = self._source.choose_reader()
        return self.reader

    def read(self, query: str, label: str) -> SentRows:
        """Read one slice; see ``Source.read_sent``."""
        source = self._source
        timeout_s, reader = source.time_left(label), self.prepare()
        place = source.current_place
        self._reading = reading = Reading(reader, query, label, timeout_s, place)
        try:
            return reading.wait(timeout_s + LOGIN_S)
        except AccessDenied as error:
            needed = "\n".join([*opening(timeout_s, place), query])
            raise missing_rights.error_of(source.connection, needed, source.name) or error from error.__cause__
        finally:
            self._reading = None  # it refers to the rows, which would stay in memory beside the next ones

    def stop(self) -> None:
        """End the current read of any thread; does nothing if there is none."""
        reading = self._reading
        if reading is not None:
            reading.end()

    def disconnect(self) -> None:
        """Close the connection of the reader, which connects again with the next read."""
        if self.reader is not None:
            self.reader.close()

    def close(self) -> None:
        """End the current read and close the connection."""
        self.stop()
        self._forget()

    def _forget(self) -> None:
        self.disconnect()
        self.reader = None


class ReadSessions:
    """The read sessions of a source. There is one; a first load in parallel has more of them.

    Attributes:
        first: The session of ``Source.read``.
    """

    def __init__(self, source: "Source", limit: ConnectionLimit) -> None:
        self.first = ReadSession(source)
        self._source = source
        self._limit = limit
        self._further: list[ReadSession] = []

    def at_once(self, most: int) -> Sequence[ReadSession]:
        """Return the sessions over which a run may read at once now, at most ``most``.

        With ``PG_BRONZE_MAX_CONNECTIONS`` they become fewer when other runs need connections. The read of a session
        that is closed for that ends with an error.
        """
        source, kept = self._source, self._source.connection
        try:
            further = self._limit.further(kept, source.pooled, most - 1)
            self._keep(further)
        except psycopg.Error as error:
            raise explain(error, source.name) from shown_cause(error)
        self._further += [ReadSession(source) for _ in range(further - len(self._further))]
        return [self.first, *self._further]

    def close_further(self) -> None:
        """Close all but the first one, and leave their connections to other runs."""
        with contextlib.suppress(psycopg.Error):  # a connection that was lost holds nothing
            self._keep(0)

    def stop(self) -> bool:
        """End the current reads, and return whether there were any."""
        reading = [session for session in (self.first, *self._further) if session.is_reading]
        for session in reading:
            session.stop()
        return bool(reading)

    def disconnect(self) -> None:
        """Close the connections of all sessions, which connect again with their next reads."""
        for session in (self.first, *self._further):
            session.disconnect()

    def close(self) -> None:
        """End the current reads and close all connections."""
        self.close_further()
        self.first.close()

    def _keep(self, count: int) -> None:
        closed, self._further = self._further[count:], self._further[:count]
        for session in closed:
            session.close()
        if closed:
            self._limit.give_back(count)
