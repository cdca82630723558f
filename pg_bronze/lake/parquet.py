"""Parquet: how a frame is stored, with a field id for each column.

A field id is the column's attnum. It stays the same when the column is renamed and is never used again, so Iceberg,
DuckLake and DuckDB can match the columns of old and new objects by it. Readers without field ids match names.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pg_bronze.lake.footer import ENTRY, Footer

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa


# An attnum has 16 bits, so no source column can have this id. 65537 is reserved for `_pg_deleted`: docs/format.md.
XID_FIELD_ID = 65536
# A reader skips whole row groups by their statistics: benchmarks/parquet.py on 400,000 order lines reads 500 of them
# in 0.64 of the time of Polars' own grouping, for 0.8 % more bytes and 3 % more writing time.
ROW_GROUP_ROWS = 32_768
HUGE_ROW_BYTES = 4 * 2**20
# More than any slice takes in memory.
MOST_BYTES = 2**34
# The default of Polars is 3, which takes 1.2 to 1.9 times the CPU time for objects of 0.96 to 1.05 times the size:
# benchmarks/first_load.py. With 1, narrow rows take 1.45 times the space.
ZSTD_LEVEL = 2


class Sized(Protocol):
    """Rows in memory: a frame, or what a reader received."""

    @property
    def width(self) -> int:
        """The number of columns."""

    @property
    def height(self) -> int:
        """The number of rows."""

    def estimated_size(self) -> int | float:
        """Return the bytes in memory."""


@dataclass(frozen=True)
class Codec:
    """The compression of an object; ``level`` None is 2 for zstd, and the default of any other codec."""

    compression: Any = "zstd"
    level: int | None = None


def has_larger_rows(rows: Sized, row_bytes: int) -> bool:
    """Return whether rows take more than ``row_bytes`` bytes on average."""
    # Adding up the lengths of all texts takes 9 ns a row.
    if rows.height * row_bytes > MOST_BYTES:
        return False
    return rows.estimated_size() > row_bytes * max(1, rows.height)


def encode(frame: "pl.DataFrame", footer: Footer, codec: Codec) -> bytes:
    """Return the Parquet bytes of a slice."""
    buffer = io.BytesIO()
    level = ZSTD_LEVEL if codec.level is None and codec.compression == "zstd" else codec.level
    # With a few huge rows, minimum and maximum help no reader, and each costs a copy of the largest value.
    has_ranges = not has_larger_rows(frame, HUGE_ROW_BYTES)
    frame.write_parquet(
        buffer,
        compression=codec.compression,
        compression_level=level,
        statistics=True if has_ranges else {"min": False, "max": False, "distinct_count": False, "null_count": True},
        row_group_size=ROW_GROUP_ROWS,
        metadata={ENTRY: footer.to_text()},
        arrow_schema=arrow_schema(frame.schema, field_ids(footer)),
    )
    return buffer.getvalue()


def field_ids(footer: Footer) -> dict[str, int]:
    """Return the field id of each column of an object, by name."""
    return {column["name"]: column["attnum"] for column in footer.columns} | {footer.xid_column: XID_FIELD_ID}


def arrow_schema(schema: "pl.Schema", ids: Mapping[str, int]) -> "pa.Schema":
    """Return the Arrow schema that makes Polars write field ids. It changes no type.

    A column that is not in ``ids`` gets no field id.
    """
    import polars as pl
    import pyarrow as pa

    fields = pl.DataFrame(schema=schema).to_arrow().schema
    return pa.schema(
        field.with_metadata({"PARQUET:field_id": str(ids[field.name])}) if field.name in ids else field
        for field in fields
    )
