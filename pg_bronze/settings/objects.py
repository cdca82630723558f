"""Objects: how large a slice is, and how its Parquet object is encoded and named."""

from typing import Annotated

from pydantic import ByteSize, Field, ValidationInfo, field_validator

from pg_bronze.settings.choices import Compression, Infinity, LateDates, Layout, Nan
from pg_bronze.settings.compression import check_level
from pg_bronze.settings.section import Section
from pg_bronze.settings.table_options import SLICE_ROWS_MAX


class ObjectSettings(Section):
    """Slices and the Parquet objects that store them."""

    slice_bytes: Annotated[ByteSize, Field(ge=64 * 2**10, le=2**30)] = Field(
        default=ByteSize(32 * 2**20),
        description="Maximum size of a slice as PostgreSQL sends it (`COPY`), 64KiB to 1GiB. A number without a unit "
        "is bytes.",
    )
    slice_rows: int | None = Field(
        default=None,
        ge=1,
        le=SLICE_ROWS_MAX,
        description="Maximum number of rows in a slice, 1 to 1000000000. Not set: derived from "
        "`PG_BRONZE_SLICE_BYTES`.",
    )
    compression: Compression = Field(
        default="zstd", description="Parquet codec: `zstd`, `snappy`, `gzip`, `lz4` or `uncompressed`."
    )
    compression_level: int | None = Field(
        default=None,
        description="1 to 22 for `zstd`, 0 to 9 for `gzip`; the other codecs have no levels. Not set: 2 for "
        "`zstd`, the default of `gzip`.",
    )
    layout: Layout = Field(
        default="flat",
        description="`flat` stores all objects of a table in one folder, `date` in one folder `date=YYYY-MM-DD/` per "
        "day.",
    )
    infinity: Infinity = Field(
        default="sentinel",
        description="±infinity in dates and timestamps: `sentinel` stores the last day or microsecond of the year "
        "262142, or the first of -262143; `text` stores all date and timestamp columns of the table as text; `null` "
        "stores null; `error` stops copying the table. See [types](types.md).",
    )
    late_dates: LateDates = Field(
        default="error",
        description="Dates and timestamps after the year 262142: `error` stops copying the table; `text` stores all "
        "its date and timestamp columns as text; `null` stores null.",
    )
    nan: Nan = Field(
        default="error",
        description="`NaN` in `numeric(p,s)`: `error` stops copying the table; `text` stores all its `numeric(p,s)` "
        "columns as text; `null` stores null.",
    )

    @field_validator("compression_level")
    @classmethod
    def _validate_level(cls, value: int | None, info: ValidationInfo) -> int | None:
        codec = info.data.get("compression")
        if value is not None and codec is not None:
            check_level(codec, value)
        return value
