"""Reading: the slices of one table as one Polars LazyFrame, whatever was altered between them.

Objects need no footer read each: the newest one says since when all have its columns, the one before that says the same
of its own, and so on. Polars is told the columns and reads each object with one request.
"""

from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime
from difflib import get_close_matches
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pg_bronze.core.table import Column, argument, label, split_label
from pg_bronze.errors import NothingCopied, SettingsError
from pg_bronze.lake import parquet, s3_client
from pg_bronze.lake.footer import Footer
from pg_bronze.lake.keys import OWN, Layout, search_starts, table_of
from pg_bronze.lake.ledger import Ledger
from pg_bronze.lake.object_store import ObjectInfo, Store
from pg_bronze.lake.reading import schema_union
from pg_bronze.lake.reading.latest_versions import newest_versions
from pg_bronze.lake.reading.schema_union import Run, Shape
from pg_bronze.settings.bucket import S3Connection
from pg_bronze.settings.load import load_settings
from pg_bronze.settings.model import Settings

if TYPE_CHECKING:
    import polars as pl


Versions = Literal["all", "latest"]
Types: TypeAlias = "Mapping[str, pl.DataType | type[pl.DataType]] | None"
# Newest versions are found in parts of this size; Parquet of PostgreSQL's rows is four to ten times as large in memory.
PART_BYTES = 32 * 2**20
_FOOTERS_AT_ONCE = 16
_FOREIGN_AT_MOST = 100
_NAMED_AT_MOST = 20


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
    """Everything copied of a table, of its newest generation, as a Polars LazyFrame.

    ``table`` is ``movie``, or ``sales.movie`` outside ``public``. Bucket and keys come from the environment and
    ``.env``, as everywhere in pg_bronze; about the database nothing needs to be set. ``settings`` stands in for both.

    ``versions="latest"`` gives one row for each primary key, the version written last, in memory bounded by the keys;
    ``by`` names other columns than the primary key's. Deleted rows still stand in it, and a row whose primary key was
    updated stands there under the old key too: copying by transaction ids sees neither.

    ``as_of`` a day: what was ingested up to its end (UTC). ``as_of`` a number: row versions written by transactions
    below it, a *horizon*; one that was not reached yet gives what is there. ``days``: what was ingested on these UTC
    days, also none.

    Columns are those of the newest object, and after them those dropped before it (``name_2`` for a dropped one whose
    name is taken again; 2 is its attnum); ``_pg_xid``, the transaction that wrote the version, comes last. A renamed
    column has its newest name, a widened one its widest type. Rows copied before a column was added have NULL in it,
    or the constant default it was added with. ``cast`` sets the type of a column whose types have nothing in common.

    Raises NothingCopied if there is nothing of the table, DataError if types do not fit, SettingsError for a wrong
    argument or setting, AccessDenied or StoreUnavailable from the server. Collecting raises what Polars raises.
    """
    if versions not in ("all", "latest"):
        raise SettingsError(f'scan: versions is {versions!r}; it must be "all" or "latest".')
    if by is not None and versions != "latest":
        raise SettingsError('scan: by says which rows are versions of each other; it needs versions="latest".')
    if isinstance(by, str):
        raise SettingsError(f"scan: by is a list of columns, such as by=[{by!r}].")
    given: Any = days
    if isinstance(given, date) or any(type(day) is not date for day in given or ()):
        raise SettingsError("scan: days is a list of days, such as days=[date(2026, 1, 2)].")
    if isinstance(as_of, datetime) or not isinstance(as_of, date | int | None):
        raise SettingsError(
            "scan: as_of is a day, such as date(2026, 1, 2), or the number of a transaction; no moment."
        )
    settings = settings or load_settings(lake_only=True)
    opened = Store(connect(settings.s3), settings.minio_bucket, settings.prefix)
    layout = Layout(settings.prefix, *split_label(table))
    return frame(opened, layout, settings.s3, versions, by, as_of, days, cast)


def frame(
    opened: Store,
    layout: Layout,
    connection: S3Connection,
    versions: Versions = "all",
    by: Sequence[str] | None = None,
    as_of: date | int | None = None,
    days: Collection[date] | None = None,
    cast: Types = None,
) -> "pl.LazyFrame":
    """What ``scan`` gives, of a bucket that is open already."""
    found = Slices.find(opened, layout, None if days is None else set(days), as_of)
    options = storage(connection)
    shaped = schema_union.unite(found.runs, {name: _dtype(dtype) for name, dtype in (cast or {}).items()})
    if versions == "all":
        everything = _concat(found, shaped, [(run, run.keys) for run in found.runs], options)
        return everything if not isinstance(as_of, int) else _below(everything, shaped, as_of)
    key = tuple(by) if by is not None else shaped.primary_key(found.runs[-1])
    table = layout.label
    if not key:
        raise SettingsError(
            f"{table} has no primary key, so nothing says which rows are versions of each other. Say it: "
            f'scan("{table}", versions="latest", by=["…"]).'
        )
    if unknown := [column for column in key if column not in shaped.schema]:
        raise SettingsError(
            f"scan: by names {', '.join(map(repr, unknown))}, and the columns of {table} are "
            f"{', '.join(map(repr, shaped.schema))}."
        )
    parts = [_concat(found, shaped, part, options) for part in found.parts(PART_BYTES)]
    if isinstance(as_of, int):
        parts = [_below(part, shaped, as_of) for part in parts]
    return newest_versions(parts, shaped.schema, key, shaped.xid_column)


def field_ids(store: Store, layout: Layout) -> dict[str, int]:
    """Return the Parquet field id of each column that ``scan`` returns, by name."""
    columns = schema_union.unite(Slices.find(store, layout).runs).fields
    return {field.name: parquet.XID_FIELD_ID if field.attnum == schema_union.XID else field.attnum for field in columns}


def keys(opened: Store, layout: Layout) -> list[str]:
    """The object keys of a table's slices, oldest first, of whatever generation."""
    return [item.key for item in _listed(opened, layout)]


def connect(connection: S3Connection) -> Any:
    """A client for the server that holds the bucket."""
    return s3_client.connect(
        connection.endpoint_url,
        connection.region,
        connection.access_key.get_secret_value(),
        connection.secret_key.get_secret_value(),
        use_ssl=connection.use_ssl,
        verify=connection.verify,
    )


def storage(connection: S3Connection) -> dict[str, Any]:
    """The keyword arguments of ``pl.scan_parquet`` that say where the bucket is. They hold the keys: never log them."""
    login = {
        "aws_access_key_id": connection.access_key.get_secret_value(),
        "aws_secret_access_key": connection.secret_key.get_secret_value(),
    }
    options = {"aws_region": connection.region}
    if connection.endpoint_url:
        options["aws_endpoint_url"] = connection.endpoint_url
        options["aws_allow_http"] = "false" if connection.use_ssl else "true"
    # As a function: beside keys in the options, Polars would send an AWS_SESSION_TOKEN of the environment's.
    return {"storage_options": options, "credential_provider": lambda: (login, None)}


@dataclass(frozen=True)
class Slices:
    """The objects of a table that are to be read, in runs of equal columns, oldest first.

    The last run may have no keys: it only says what the columns are called now.
    """

    store: Store
    runs: tuple[Run, ...]
    sizes: Mapping[str, int]

    @classmethod
    def find(
        cls,
        opened: Store,
        layout: Layout,
        days: Collection[date] | None = None,
        as_of: date | int | None = None,
    ) -> "Slices":
        """Find them with as many requests as there are runs, and one for every 1,000 objects listed.

        Raises NothingCopied if there is no object of the table in the bucket.
        """
        objects = Ledger(opened, layout)
        items = _listed(opened, layout) if days is None else _of_days(opened, layout, days)
        newest = _newest(objects, items if days is None else _recent(opened, layout))
        if newest is None:
            raise NothingCopied(_nothing(opened, layout))
        first = layout.time(newest.after.first_key)
        chosen = [item.key for item in items]
        chosen = chosen[_before(layout, chosen, first) :]
        if isinstance(as_of, int):
            chosen = _below_horizon(objects, chosen, newest, as_of)
        elif as_of is not None:
            chosen = chosen[: _before(layout, chosen, datetime.combine(as_of, datetime.max.time(), UTC))]
            if not chosen and newest.after.generation:
                raise NothingCopied(
                    f"{layout.label}: its newest generation, number {newest.after.generation}, begins on "
                    f"{first.date() if first else 'a later day'}. What there was on {as_of} lies in "
                    f"{opened.uri(layout.old('', newest.after.generation - 1))} and the folders beside it."
                )
        runs = _runs(objects, chosen, newest, named_by_newest=days is not None or not chosen)
        return cls(opened, runs, {item.key: item.size_bytes for item in items})

    def parts(self, size_bytes: int) -> list[list[tuple[Run, Sequence[str]]]]:
        """The objects cut into parts of about a size, at least one part."""
        parts: list[list[tuple[Run, Sequence[str]]]] = [[]]
        filled = 0
        for run in self.runs:
            taken: list[str] = []
            for key in run.keys:
                if filled and filled + self.sizes[key] > size_bytes:
                    parts[-1].append((run, taken))
                    parts.append([])
                    taken, filled = [], 0
                taken.append(key)
                filled += self.sizes[key]
            parts[-1].append((run, taken))
        return parts


def _concat(
    found: Slices, shaped: Shape, part: Sequence[tuple[Run, Sequence[str]]], options: Mapping[str, Any]
) -> "pl.LazyFrame":
    import polars as pl

    frames = []
    for run, chosen in part:
        if not chosen:
            continue
        # No globs and no key=value folders: what looks like one is part of a table's name, or says the day again.
        frame = pl.scan_parquet(
            [found.store.uri(key) for key in chosen],
            schema=run.schema,
            glob=False,
            hive_partitioning=False,
            **options,
        )
        expressions = shaped.expressions(run)
        frames.append(frame if expressions is None else frame.select(expressions))
    return pl.concat(frames) if frames else pl.LazyFrame(schema=shaped.schema)


def _below(frame: "pl.LazyFrame", shaped: Shape, horizon: int) -> "pl.LazyFrame":
    from polars.selectors import by_name

    return frame.filter(by_name(shaped.xid_column) < horizon)


def _dtype(dtype: Any) -> "pl.DataType":
    import polars as pl

    return pl.Series(dtype=dtype).dtype


def _before(layout: Layout, keys: Sequence[str], moment: datetime | None) -> int:
    """How many of the keys, oldest first, are of before a moment; 0 if it is None."""
    if moment is None:
        return 0
    return bisect_left(keys, moment, key=lambda key: layout.time(key) or moment)


def _listed(opened: Store, layout: Layout, first: datetime | None = None, last: date | None = None) -> list[ObjectInfo]:
    """The table's objects from a second on and up to the end of a UTC day, oldest first."""
    found: list[tuple[datetime, ObjectInfo]] = []
    for prefix, start_after in layout.listings(first):
        for item in opened.list(prefix, start_after):
            time = layout.time(item.key)
            if time is not None and last is not None and time.date() > last:
                break  # a listing is ordered by time
            if time is not None:
                found.append((time, item))
    return [item for _, item in sorted(found, key=lambda pair: (pair[0], pair[1].key))]


def _of_days(opened: Store, layout: Layout, days: Collection[date]) -> list[ObjectInfo]:
    if not days:
        return []
    first = datetime.combine(min(days), datetime.min.time(), UTC)
    return [item for item in _listed(opened, layout, first, max(days)) if layout.day(item.key) in days]


def _recent(opened: Store, layout: Layout) -> list[ObjectInfo]:
    """The newest objects and perhaps others, however many there are before them; none if there is none at all."""
    starts = search_starts(datetime.now(UTC))
    return next((found for start in starts if (found := _listed(opened, layout, start))), [])


def _newest(objects: Ledger, items: Sequence[ObjectInfo]) -> Footer | None:
    # Copying stops at an object that is not ours and newer than ours, so there are never many of them.
    newest = [item.key for item in items[-_FOREIGN_AT_MOST:]]
    return next((footer for key in reversed(newest) if (footer := objects.footer(key))), None)


def _below_horizon(objects: Ledger, keys: Sequence[str], newest: Footer, horizon: int) -> list[str]:
    """The objects that can hold row versions of transactions below a horizon.

    What is delivered of a leaf only grows, so once all of them are delivered up to the horizon no later object can. A
    leaf that was attached late makes every object before it needed.
    """
    left = list(keys)
    low, high = 0, len(left)
    while low < high:
        middle = (low + high) // 2
        footer = objects.footer(left[middle])
        if footer is None:
            del left[middle]
            high -= 1
            continue
        swept = [footer.before.leaf(oid).swept for oid in newest.after.leaves]
        opened = footer.before.generation != newest.after.generation
        if opened or any(upto is None or upto < horizon for upto in swept):
            low = middle + 1
        else:
            high = middle
    return left[:low]


def _runs(objects: Ledger, keys: Sequence[str], newest: Footer, named_by_newest: bool) -> tuple[Run, ...]:
    """The runs that the objects belong to, oldest first; ``keys`` are of the newest generation, or of none of ours."""
    left = list(keys)
    apart = named_by_newest and newest.after.key not in left
    runs: list[Run] = []
    for footer in objects.runs([*left, newest.after.key] if apart else left):
        first = footer.after.columns_key
        if not first:  # written before the watermark knew: every footer has to be asked
            if apart and not runs:
                runs += _each(objects, [newest.after.key], newest, read=False)
            runs += reversed(_each(objects, left, newest))
            break
        looked = objects.look(first) or objects.look(footer.after.key)
        if looked is None:
            continue
        opening, found = looked
        older = _before(objects.layout, left, objects.layout.time(first))
        runs.append(_run(objects, left[older:], footer, found, first))
        left = left[:older]
        if not left or opening.before.seq == 0 or opening.before.generation != opening.after.generation:
            break  # what is older is not ours, or of an older generation
    return tuple(reversed(runs))


def _each(objects: Ledger, keys: Sequence[str], newest: Footer, read: bool = True) -> list[Run]:
    """The runs of some objects, found by asking each of them; objects that are not of this generation are left out."""
    with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool:
        looked = zip(keys, pool.map(objects.look, keys), strict=True)
        own = [(key, *found) for key, found in looked if found and found[0].after.generation == newest.after.generation]
    runs = []
    for _, group in groupby(own, key=lambda item: item[1].described.digest):
        same = list(group)
        first, footer, found = same[0]
        runs.append(_run(objects, [key for key, _, _ in same] if read else [], footer, found, first))
    return runs


def _run(objects: Ledger, keys: Sequence[str], footer: Footer, found: "pl.Schema", example: str) -> Run:
    columns = tuple(Column.from_description(column) for column in footer.columns)
    uri = objects.store.uri(example)
    return Run(tuple(keys), columns, found, footer.xid_column, uri, tuple(footer.primary_key))


def _nothing(opened: Store, layout: Layout) -> str:
    """Why there is nothing to read of a table."""
    asked = layout.label
    own = f"{opened.prefix}/" if opened.prefix else ""
    known = sorted(label(*table_of(name)) for name in opened.folders(own) if name != OWN)
    near = get_close_matches(asked, known, n=1)
    text = f"nothing of {asked} by pg_bronze is in {opened.uri(own)}"
    if near and near[0] != asked:
        return f"{text}. Did you mean {near[0]}?"
    there = f"There is something of: {', '.join(known[:_NAMED_AT_MOST])}" if known else "There is no table at all"
    more = f" and {len(known) - _NAMED_AT_MOST} more" if len(known) > _NAMED_AT_MOST else ""
    command = f"pg-bronze tick {argument(asked)}"
    return f"{text}. {there}{more}. A table without a row has no object yet; `{command}` copies one now."
