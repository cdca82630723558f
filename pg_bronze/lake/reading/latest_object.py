"""The newest row versions of a table, kept as one Parquet object that is replaced as a whole."""

from typing import TYPE_CHECKING

from pg_bronze.lake import parquet
from pg_bronze.lake.keys import Layout
from pg_bronze.lake.object_store import Store
from pg_bronze.lake.reading import scan
from pg_bronze.lake.reading.polars_options import polars_options
from pg_bronze.settings.bucket import S3Connection

if TYPE_CHECKING:
    import polars as pl


def write(versions: "pl.LazyFrame", store: Store, layout: Layout, connection: S3Connection) -> int:
    """Write the rows in pieces and return how many there are.

    The previous object stays in place until all rows are written. ``versions`` must be what ``scan.frame`` returns.
    """
    import polars as pl

    schema = parquet.arrow_schema(versions.collect_schema(), scan.field_ids(store, layout))
    versions.sink_parquet(store.uri(layout.latest), arrow_schema=schema, **polars_options(connection, write=True))
    return int(read(store, layout, connection).select(pl.len()).collect().item())


def read(store: Store, layout: Layout, connection: S3Connection) -> "pl.LazyFrame":
    """Return the object as it was last written."""
    import polars as pl

    uri = store.uri(layout.latest)
    return pl.scan_parquet([uri], glob=False, hive_partitioning=False, **polars_options(connection))
