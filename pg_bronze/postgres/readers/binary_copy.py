"""Binary COPY: the reader over psycopg's ``copy … to stdout (format binary)``.

Replaces connectorx where that cannot connect as configured: host name verification, a pooler, several hosts, a password
file, a client certificate. ``copy_format`` decodes what the server sends.
"""

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import psycopg

from pg_bronze.core.watermark import Origin
from pg_bronze.errors import PgBronzeError, SourceUnavailable
from pg_bronze.postgres.error_mapping import explain_sqlstate, shown_cause
from pg_bronze.postgres.login import Idle
from pg_bronze.postgres.readers.copy_format import Decoder
from pg_bronze.postgres.readers.reading import opening
from pg_bronze.postgres.readers.sent_rows import SentRows

if TYPE_CHECKING:
    import polars as pl

# Messages are decoded in batches of this size: larger ones take more memory, smaller ones more calls to Polars.
DECODE_BYTES = 8 * 2**20


class CopyReader:
    """Reads slices with psycopg's COPY, over every connection that libpq can make. A read can be canceled.

    One connection is kept from read to read. Every setting holds for one transaction only, because a pooler may run
    the next one in another session.

    Args:
        connect: Opens a connection to the server.
        lock_timeout_s: As in ``opening``.
    """

    def __init__(self, connect: Callable[[], psycopg.Connection], lock_timeout_s: float = 0.0) -> None:
        self._connect = connect
        self._lock_timeout_s = lock_timeout_s
        self._connection: psycopg.Connection | None = None
        self._idle = Idle()

    def read(self, query: str, label: str, timeout_s: float, place: Origin) -> SentRows:
        """Read one slice; see ``Reader.read``."""
        connection = self._open()
        try:
            frame = _copy(connection, query, opening(timeout_s, place, self._lock_timeout_s))
            connection.execute("commit")
            return SentRows(frame)
        except PgBronzeError as error:
            self.close()
            raise type(error)(f"{label}: {error}") from error.__cause__
        except psycopg.Error as error:
            self.close()
            raise explain_sqlstate(error, label) from shown_cause(error)
        except BaseException:
            self.stop()
            self.close()
            raise

    def stop(self) -> None:
        """Cancel the current statement."""
        connection = self._connection
        if connection is not None and not connection.closed:
            with contextlib.suppress(psycopg.Error):
                connection.cancel_safe(timeout=2)

    def close(self) -> None:
        """Close the kept connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> psycopg.Connection:
        if self._connection is None or not self._idle.is_usable(self._connection):
            self._connection = self._connect()
            # Prepared statements belong to a session, and a pooler may run each transaction in another one.
            self._connection.prepare_threshold = None
        return self._connection


def _copy(connection: psycopg.Connection, query: str, opening: list[str]) -> "pl.DataFrame":
    import polars as pl

    for statement in opening:
        connection.execute(statement.encode())
    # Describes the columns without running the query. Its lock keeps the types until the rows have arrived.
    cursor = connection.execute(f"select * from (\n{query}\n) as slice limit 0".encode())
    decoder = Decoder([(column.name, column.type_code) for column in cursor.description or ()])
    frames: list[pl.DataFrame] = []
    messages: list[bytes] = []
    size_bytes = 0
    with cursor.copy(f"copy (\n{query}\n) to stdout (format binary)".encode()) as stream:
        for message in stream:
            messages.append(bytes(message))
            size_bytes += len(message)
            if size_bytes >= DECODE_BYTES:
                frames.append(decoder.rows(messages))
                messages, size_bytes = [], 0
    frames.append(decoder.rows(messages))
    if not decoder.complete:
        raise SourceUnavailable("the rows ended without the trailer of a COPY. It is retried at the next tick.")
    return pl.concat(frames)
