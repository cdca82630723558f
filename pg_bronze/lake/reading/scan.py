"""Scan: the objects of one table as one Polars LazyFrame, although the table was altered between them.

Polars receives the columns and reads each object with one request.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pg_bronze.core.key_identity import KeyIdentity, key_identity
from pg_bronze.core.table import split_label
from pg_bronze.errors import SettingsError
from pg_bronze.lake import parquet, s3_client
from pg_bronze.lake.keys import Layout
from pg_bronze.lake.object_store import Store
from pg_bronze.lake.reading import table_objects
from pg_bronze.lake.reading.latest_versions import newest_versions
from pg_bronze.lake.reading.polars_options import polars_options
from pg_bronze.lake.reading.schema_union import XID, ColumnEra, UnionSchema, union_schema
from pg_bronze.lake.reading.table_objects import Part, TableObjects
from pg_bronze.settings.bucket import S3Connection
from pg_bronze.settings.load import load_settings
from pg_bronze.settings.model import Settings

if TYPE_CHECKING:
    import polars as pl


Versions = Literal["all", "latest"]
Types: TypeAlias = "Mapping[str, pl.DataType | type[pl.DataType]] | None"
# The newest versions are computed in parts of this size. Rows of PostgreSQL need four to ten times as much in memory.
PART_BYTES = 32 * 2**20


def scan(
    table: str,
    *,
    versions: Versions = "all",
    by: Sequence[str] | None = None,
    as_of: date | int | None = None,
    days: Collection[date] | None = None,
    cast: Types = None,
    settings: Settings | None = None,
) -> "pl.LazyFrame":
    """Return the copied row versions of a table's newest generation as a Polars LazyFrame.

    The columns are those of the newest object, followed by dropped ones (``name_2`` for a dropped column whose name is
    in use again; 2 is its attnum). The last column is ``_pg_xid``, the transaction that wrote the row version. A
    renamed column has its newest name, a widened one its widest type. Rows copied before a column was added contain
    NULL, or the constant default it was added with.

    Args:
        table: ``movie``, or ``sales.movie`` outside the schema ``public``.
        versions: ``"all"``, or ``"latest"`` for one row per primary key, the version written last. Memory is bounded
            by the keys. Deleted rows are included, and a row whose primary key was updated is included under both
            keys, because a copy by transaction ids sees neither.
        by: Columns to use instead of the primary key, with ``versions="latest"``.
        as_of: A day: what was ingested up to its end (UTC). A number: row versions written by transactions below this
            horizon, as far as they have been copied.
        days: What was ingested on these days (UTC). Days without objects contain no rows.
        cast: The types of columns whose types have nothing in common, by name.
        settings: Replaces the environment and ``.env``. Only the settings of the bucket are used.

    Raises:
        NothingCopied: There is no object of the table.
        DataError: The types of a column have nothing in common.
        SettingsError: An argument or a setting is invalid, or only the server can compare the values of a key column.
        AccessDenied: The server rejected the keys.
        StoreUnavailable: The server did not respond. Errors while the frame is collected are those of Polars.
    """
    _check_arguments(versions, by, as_of, days)
    settings = settings or load_settings(lake_only=True)
    store = Store(s3_client.connect_to(settings.s3), settings.minio_bucket, settings.prefix, settings.s3)
    layout = Layout(settings.prefix, *split_label(table))
    return frame(store, layout, settings.s3, versions, by, as_of, days, cast)


def _check_arguments(versions: Any, by: Any, as_of: Any, days: Any) -> None:
    if versions not in ("all", "latest"):
        raise SettingsError(f'scan: versions is {versions!r}; it must be "all" or "latest".')
    if by is not None and versions != "latest":
        raise SettingsError('scan: by requires versions="latest".')
    if isinstance(by, str):
        raise SettingsError(f"scan: by must be a list of columns, such as by=[{by!r}].")
    if isinstance(days, date) or any(type(day) is not date for day in days or ()):
        raise SettingsError("scan: days must be a list of days, such as days=[date(2026, 1, 2)].")
    if isinstance(as_of, datetime) or not isinstance(as_of, date | int | None):
        raise SettingsError("scan: as_of must be a day, such as date(2026, 1, 2), or the number of a transaction.")


def frame(
    store: Store,
    layout: Layout,
    connection: S3Connection,
    versions: Versions = "all",
    by: Sequence[str] | None = None,
    as_of: date | int | None = None,
    days: Collection[date] | None = None,
    cast: Types = None,
) -> "pl.LazyFrame":
    """Return what ``scan`` returns, from a bucket that is already open."""
    objects = table_objects.find(store, layout, None if days is None else set(days), as_of)
    union = union_schema(objects.eras, {name: _dtype(dtype) for name, dtype in (cast or {}).items()})
    horizon = as_of if isinstance(as_of, int) else None

    def read(part: Part) -> "pl.LazyFrame":
        return _read(objects, union, part, polars_options(connection), horizon)

    if versions == "all":
        return read([(era, era.keys) for era in objects.eras])
    key = tuple(by) if by is not None else union.primary_key(objects.eras[-1])
    _check_key(key, union, layout.label)
    identities = _identities(key, union, objects.eras, layout.label)
    parts = [read(part) for part in objects.parts(PART_BYTES)]
    return newest_versions(parts, union.schema, identities, union.xid_column, layout.label)


def in_parts(objects: TableObjects, connection: S3Connection) -> "list[pl.LazyFrame]":
    """Return all row versions of a table's newest generation in parts, so that one after the other can be read."""
    union, options = union_schema(objects.eras), polars_options(connection)
    return [_read(objects, union, part, options, None) for part in objects.parts(PART_BYTES)]


def _identities(
    key: Sequence[str], union: UnionSchema, eras: Sequence[ColumnEra], label: str
) -> dict[str, KeyIdentity]:
    by_name = {column.name: column for column in union.columns}
    found = {}
    for name in key:
        attnum = by_name[name].attnum
        declared = [era.by_attnum[attnum] for era in eras if attnum in era.by_attnum]
        identity = key_identity(declared, eras[-1].locale, by_name[name].dtype, name)
        if isinstance(identity, str):
            raise SettingsError(
                f'{label}: {identity}. Name other columns that identify a row, as in scan("{label}", '
                'versions="latest", by=["…"]), or read all versions and compare them as the data requires.'
            )
        found[name] = identity
    return found


def _check_key(key: Sequence[str], union: UnionSchema, label: str) -> None:
    if not key:
        raise SettingsError(
            f"{label} has no primary key. Name the columns that identify a row: "
            f'scan("{label}", versions="latest", by=["…"]).'
        )
    if unknown := [column for column in key if column not in union.schema]:
        raise SettingsError(
            f"scan: by contains {', '.join(map(repr, unknown))}, but the columns of {label} are "
            f"{', '.join(map(repr, union.schema))}."
        )


def _read(
    objects: TableObjects, union: UnionSchema, part: Part, options: Mapping[str, Any], horizon: int | None
) -> "pl.LazyFrame":
    import polars as pl
    from polars.selectors import by_name

    frames = [_read_era(objects, union, era, keys, options) for era, keys in part if keys]
    rows = pl.concat(frames) if frames else pl.LazyFrame(schema=union.schema)
    return rows if horizon is None else rows.filter(by_name(union.xid_column) < horizon)


def _read_era(
    objects: TableObjects, union: UnionSchema, era: ColumnEra, keys: Sequence[str], options: Mapping[str, Any]
) -> "pl.LazyFrame":
    import polars as pl

    # No globs and no hive partitions: a table's name may contain such characters, and the date folders repeat the key.
    rows = pl.scan_parquet(
        [objects.store.uri(key) for key in keys], schema=era.schema, glob=False, hive_partitioning=False, **options
    )
    expressions = union.expressions(era)
    return rows if expressions is None else rows.select(expressions)


def field_ids(store: Store, layout: Layout) -> dict[str, int]:
    """Return the Parquet field id of each column that ``scan`` returns, by name."""
    columns = union_schema(table_objects.find(store, layout).eras).columns
    return {item.name: parquet.XID_FIELD_ID if item.attnum == XID else item.attnum for item in columns}


def keys(store: Store, layout: Layout) -> list[str]:
    """Return the keys of a table's objects, oldest first, of all generations that are in its folder."""
    return [item.key for item in table_objects.list_objects(store, layout)]


def _dtype(dtype: Any) -> "pl.DataType":
    import polars as pl

    return pl.Series(dtype=dtype).dtype
