"""COPY's binary format: messages of the server in, a frame out.

No connection and no SQL. The frames have the same types and the same bits as those of connectorx for the same query. A
type outside the rule table of ``core.column_types`` raises an error.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pg_bronze.core.value_policies import DATE_INFINITY, TIMESTAMP_INFINITY
from pg_bronze.errors import DataError, SourceUnavailable, TableChanged

if TYPE_CHECKING:
    import polars as pl

SIGNATURE = b"PGCOPY\n\xff\r\n\0"
TRAILER = b"\xff\xff"
_LENGTH_BYTES = 4
# PostgreSQL counts days and microseconds from 2000-01-01, Polars from 1970-01-01.
_EPOCH_DAYS = 10957
_EPOCH_US = _EPOCH_DAYS * 86_400_000_000
# Oids of built-in types never change (pg_type.dat).
_TYPES = {
    16: "bool", 17: "bytea", 19: "name", 20: "int8", 21: "int2", 23: "int4", 25: "text", 26: "oid", 700: "float4",
    701: "float8", 1042: "bpchar", 1043: "varchar", 1082: "date", 1114: "timestamp", 1184: "timestamptz", 2950: "uuid",
}  # fmt: skip
# By name, because Polars is imported on first use.
_NUMBERS = {
    "int2": "Int16", "int4": "Int32", "int8": "Int64", "oid": "UInt32", "float4": "Float32", "float8": "Float64",
    "date": "Int32", "timestamp": "Int64", "timestamptz": "Int64",
}  # fmt: skip


class Decoder:
    """Decodes the messages of one COPY into frames.

    Args:
        columns: Name and type oid of each column, as the server describes them.

    Attributes:
        complete: Whether the trailer has been decoded. Without it rows are missing.

    Raises:
        TableChanged: A type or value that the rule table never requests.
        DataError: A text that is not UTF-8.
        SourceUnavailable: Bytes that are not in COPY's binary format.
    """

    def __init__(self, columns: Sequence[tuple[str, int]]) -> None:
        for name, oid in columns:
            if oid not in _TYPES:
                raise TableChanged(
                    f"column {name!r} arrived with type oid {oid}, which was not requested. "
                    "It is retried at the next tick."
                )
        self.columns = [(name, _TYPES[oid]) for name, oid in columns]
        self.complete = False
        self._begun = False

    def rows(self, messages: Sequence[bytes]) -> "pl.DataFrame":
        """Decode whole messages, in order, without the header and the trailer.

        PostgreSQL sends one row in each message. A proxy might not, so every row is checked to its last byte.
        """
        import polars as pl

        rows = list(messages)
        if rows and not self._begun:
            first = _without_header(rows[0])
            rows[:1] = [first] if first else []
            self._begun = True
        if rows and rows[-1] == TRAILER:
            self.complete = True
            rows.pop()
        return _frame(pl.Series("row", rows, dtype=pl.Binary()), self.columns)


def _without_header(message: bytes) -> bytes:
    start = len(SIGNATURE) + 2 * _LENGTH_BYTES
    if not message.startswith(SIGNATURE) or message[len(SIGNATURE) : start] != bytes(2 * _LENGTH_BYTES):
        raise _garbled()
    return message[start:]


def _garbled() -> SourceUnavailable:
    return SourceUnavailable("the server's answer is not in COPY's binary format. It is retried at the next tick.")


def _altered(column: str) -> TableChanged:
    return TableChanged(f"column {column!r} was altered during the read. It is retried at the next tick.")


def _frame(rows: "pl.Series", columns: Sequence[tuple[str, str]]) -> "pl.DataFrame":
    import polars as pl

    row, at, length = pl.col("row"), pl.col("at"), pl.col("length")
    # ``at`` is the offset of the current column's field in each row.
    fields = pl.DataFrame({"row": rows}).with_columns(at=pl.lit(2, pl.Int64()))
    number = row.bin.slice(0, 2).bin.reinterpret(dtype=pl.Int16(), endianness="big")
    if not fields.select((number == len(columns)).fill_null(False).all()).item():
        raise _garbled()
    found = []
    for name, kind in columns:
        sized = row.bin.slice(at, _LENGTH_BYTES).bin.reinterpret(dtype=pl.Int32(), endianness="big")
        fields = fields.with_columns(length=sized.cast(pl.Int64()))
        value = row.bin.slice(at + _LENGTH_BYTES, length.clip(lower_bound=0))
        # A length of -1 is NULL. A slice of unknown length would extend to the end of the row.
        field = fields.select(pl.when(length >= 0).then(value).alias(name))[name]
        found.append(_column(field, kind))
        fields = fields.with_columns(at=at + _LENGTH_BYTES + length.clip(lower_bound=0))
    if not fields.select((at == row.bin.size()).fill_null(False).all()).item():
        raise _garbled()
    return pl.DataFrame(found)


def _column(field: "pl.Series", kind: str) -> "pl.Series":
    import polars as pl

    if kind == "bytea":
        return field
    if kind == "bool":
        return _number(field, "Int8") != 0
    if kind == "uuid":
        return _uuid(field)
    if kind not in _NUMBERS:
        return _text(field)
    values = _number(field, _NUMBERS[kind])
    if kind == "date":
        return _since_1970(values, _EPOCH_DAYS, 32, DATE_INFINITY).cast(pl.Int32()).cast(pl.Date())
    if kind in {"timestamp", "timestamptz"}:
        zone = "UTC" if kind == "timestamptz" else None
        return _since_1970(values, _EPOCH_US, 64, TIMESTAMP_INFINITY).cast(pl.Datetime("us", zone))
    return values


def _number(field: "pl.Series", dtype: str) -> "pl.Series":
    import polars as pl

    values = field.bin.reinterpret(dtype=getattr(pl, dtype)(), endianness="big")
    # A field with too few or too many bytes for a number becomes NULL.
    if values.null_count() != field.null_count():
        raise _garbled()
    return values


def _text(field: "pl.Series") -> "pl.Series":
    import polars as pl

    try:
        return field.cast(pl.String())
    except pl.exceptions.PolarsError:
        # Not `from error`: its message may quote the value.
        raise DataError(
            f"column {field.name!r} has a text that is not valid UTF-8. Correct it in the source, or exclude the table "
            "(PG_BRONZE_EXCLUDE). A retry fails until then."
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
    """Shift the epoch, and map the server's ±infinity to ``infinity``; a finite value beyond it raises TableChanged."""
    import polars as pl

    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    value = pl.col("value")
    finite = value.is_between(low, high, closed="none")
    frame = pl.DataFrame({"value": values.cast(pl.Int64())})
    if frame.select((finite & (value > infinity[1] - shift)).any()).item():
        # The rule table sends no such value, unless the column was altered after the catalog was read.
        raise _altered(values.name)
    mapped = pl.when(value == low).then(infinity[0]).when(value == high).then(infinity[1]).otherwise(value + shift)
    return frame.select(mapped.cast(pl.Int64()).alias(values.name)).to_series()
