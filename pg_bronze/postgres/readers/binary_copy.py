"""Wire: rows as PostgreSQL sends them in ``copy … to stdout (format binary)``, turned into a frame.

No connection and no SQL: messages come in, columns go out, with the same types and the same bits as connectorx gives
for the same query. A type that is not in the rule table of ``schema`` is refused, never guessed.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import psycopg

from pg_bronze.core.value_policies import DATE_INFINITY, TIMESTAMP_INFINITY
from pg_bronze.errors import DataError, PgBronzeError, SourceUnavailable, TableChanged
from pg_bronze.postgres.error_mapping import explain_state
from pg_bronze.postgres.readers.reading import BEGIN, session_settings

if TYPE_CHECKING:
    import polars as pl


DECODE_BYTES = 8 * 2**20


class CopyReader:
    """psycopg's COPY in binary: everything libpq can connect to, and it can be interrupted.

    It keeps one connection from read to read; every setting holds for one transaction only, so that a pooler may give
    each transaction another session.
    """

    def __init__(self, connect: Callable[[], psycopg.Connection]) -> None:
        self._connect = connect
        self._connection: psycopg.Connection | None = None

    def read(self, query: str, label: str, timeout_s: float) -> "pl.DataFrame":
        """Read one slice."""
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
            # Prepared statements belong to a session, and a pooler may give each transaction another.
            self._connection.prepare_threshold = None
        connection = self._connection
        try:
            frame = _copy(connection, query, timeout_s)
            connection.execute("commit")
            return frame
        except PgBronzeError as error:
            self.close()
            raise type(error)(f"{label}: {error}") from error.__cause__
        except psycopg.Error as error:
            self.close()
            raise explain_state(error, label) from error
        except BaseException:
            self.stop()
            self.close()
            raise

    def stop(self) -> None:
        """Cancel the statement under way."""
        connection = self._connection
        if connection is not None and not connection.closed:
            with contextlib.suppress(psycopg.Error):
                connection.cancel_safe(timeout=2)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _copy(connection: psycopg.Connection, query: str, timeout_s: float) -> "pl.DataFrame":
    import polars as pl

    connection.execute(BEGIN.encode())
    connection.execute(session_settings(timeout_s).encode())
    # What the columns are, without running the query. The lock taken here keeps the types until the rows have come.
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
        raise SourceUnavailable("the rows ended before the server said so; the next tick tries again.")
    return pl.concat(frames)


SIGNATURE = b"PGCOPY\n\xff\r\n\0"
TRAILER = b"\xff\xff"
_LENGTHS_BYTES = 4
# PostgreSQL counts days and microseconds from 2000-01-01, Polars from 1970-01-01.
_EPOCH_DAYS = 10957
_EPOCH_US = _EPOCH_DAYS * 86_400_000_000
# Polars has no fixed numbers for PostgreSQL's types; PostgreSQL's never change (pg_type.dat).
_TYPES = {
    16: "bool", 17: "bytea", 19: "name", 20: "int8", 21: "int2", 23: "int4", 25: "text", 26: "oid", 700: "float4",
    701: "float8", 1042: "bpchar", 1043: "varchar", 1082: "date", 1114: "timestamp", 1184: "timestamptz", 2950: "uuid",
}  # fmt: skip


class Decoder:
    """Makes frames of the messages of one COPY; ``columns`` are names and type oids as the server describes them.

    Raises TableChanged for a type or value that no rule asks for, DataError for a text that is not UTF-8.
    """

    def __init__(self, columns: Sequence[tuple[str, int]]) -> None:
        for name, oid in columns:
            if oid not in _TYPES:
                raise TableChanged(
                    f"Column {name!r} arrived as a type that was not asked for ({oid}); the next tick looks again."
                )
        self.columns = [(name, _TYPES[oid]) for name, oid in columns]
        self.complete = False
        self._begun = False

    def rows(self, messages: Sequence[bytes]) -> "pl.DataFrame":
        """Decode whole messages, in order. The header and the trailer are taken off; ``complete`` tells of the latter.

        PostgreSQL sends one row in each message. Nothing relies on it in silence: every row is checked to its last
        byte.
        """
        import polars as pl

        rows = list(messages)
        if rows and not self._begun:
            first = self._without_header(rows[0])
            rows[:1] = [first] if first else []
            self._begun = True
        if rows and rows[-1] == TRAILER:
            self.complete = True
            rows.pop()
        return _frame(pl.Series("row", rows, dtype=pl.Binary()), self.columns)

    def _without_header(self, message: bytes) -> bytes:
        start = len(SIGNATURE) + 2 * _LENGTHS_BYTES
        if not message.startswith(SIGNATURE) or message[len(SIGNATURE) : start] != bytes(2 * _LENGTHS_BYTES):
            raise _garbled()
        return message[start:]


def _garbled() -> SourceUnavailable:
    return SourceUnavailable("What the server sent is not its binary COPY format; the next tick tries again.")


def _frame(rows: "pl.Series", columns: Sequence[tuple[str, str]]) -> "pl.DataFrame":
    import polars as pl

    row, at, length = pl.col("row"), pl.col("at"), pl.col("length")
    # Where the field of the present column begins, in each row.
    place = pl.DataFrame({"row": rows}).with_columns(at=pl.lit(2, pl.Int64()))
    number = row.bin.slice(0, 2).bin.reinterpret(dtype=pl.Int16(), endianness="big")
    if not place.select((number == len(columns)).fill_null(False).all()).item():
        raise _garbled()
    found = []
    for name, kind in columns:
        sized = row.bin.slice(at, _LENGTHS_BYTES).bin.reinterpret(dtype=pl.Int32(), endianness="big")
        place = place.with_columns(length=sized.cast(pl.Int64()))
        value = row.bin.slice(at + _LENGTHS_BYTES, length.clip(lower_bound=0))
        # -1 is NULL. Without a length a slice goes on to the end of the row.
        field = place.select(pl.when(length >= 0).then(value).alias(name))[name]
        found.append(_column(field, kind))
        place = place.with_columns(at=at + _LENGTHS_BYTES + length.clip(lower_bound=0))
    if not place.select((at == row.bin.size()).fill_null(False).all()).item():
        raise _garbled()
    return pl.DataFrame(found)


def _column(field: "pl.Series", kind: str) -> "pl.Series":
    import polars as pl

    numbers = {
        "int2": pl.Int16(), "int4": pl.Int32(), "int8": pl.Int64(), "oid": pl.UInt32(), "float4": pl.Float32(),
        "float8": pl.Float64(), "date": pl.Int32(), "timestamp": pl.Int64(), "timestamptz": pl.Int64(),
    }  # fmt: skip
    if kind == "bytea":
        return field
    if kind == "bool":
        return _same_nulls(field, field.bin.reinterpret(dtype=pl.Int8(), endianness="big")) != 0
    if kind == "uuid":
        return _uuid(field)
    if kind not in numbers:
        return _text(field)
    values = _same_nulls(field, field.bin.reinterpret(dtype=numbers[kind], endianness="big"))
    if kind == "date":
        return _since_1970(values, _EPOCH_DAYS, 32, DATE_INFINITY).cast(pl.Int32()).cast(pl.Date())
    if kind in {"timestamp", "timestamptz"}:
        zone = "UTC" if kind == "timestamptz" else None
        return _since_1970(values, _EPOCH_US, 64, TIMESTAMP_INFINITY).cast(pl.Datetime("us", zone))
    return values


def _same_nulls(field: "pl.Series", values: "pl.Series") -> "pl.Series":
    # Bytes that are too few or too many for a number become NULL.
    if values.null_count() != field.null_count():
        raise _garbled()
    return values


def _text(field: "pl.Series") -> "pl.Series":
    import polars as pl

    try:
        return field.cast(pl.String())
    except pl.exceptions.PolarsError:
        # Not `from error`: the message may quote the value.
        raise DataError(
            f"Column {field.name!r} holds a text that is not valid UTF-8. Correct it in the source, or exclude "
            "the table (PG_BRONZE_EXCLUDE)."
        ) from None


def _uuid(field: "pl.Series") -> "pl.Series":
    import polars as pl

    if not bool((field.bin.size() == 16).all()):
        raise _garbled()
    digits = pl.col("digits").str
    groups = [digits.slice(start, length) for start, length in ((0, 8), (8, 4), (12, 4), (16, 4), (20, 12))]
    text = pl.DataFrame({"digits": field.bin.encode("hex")}).select(pl.concat_str(groups, separator="-"))
    return text.to_series().alias(field.name)


def _since_1970(values: "pl.Series", shift: int, bits: int, infinity: tuple[int, int]) -> "pl.Series":
    """Shift the epoch; the server's ±infinity become ``infinity``, and what lies beyond the latter is refused."""
    import polars as pl

    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    value = pl.col("value")
    finite = value.is_between(low, high, closed="none")
    frame = pl.DataFrame({"value": values.cast(pl.Int64())})
    if frame.select((finite & (value > infinity[1] - shift)).any()).item():
        # The rule table sends no such value: only a column altered between two looks does.
        raise TableChanged(f"Column {values.name!r} was altered while it was read; the next tick looks again.")
    mapped = pl.when(value == low).then(infinity[0]).when(value == high).then(infinity[1]).otherwise(value + shift)
    return frame.select(mapped.cast(pl.Int64()).alias(values.name)).to_series()
