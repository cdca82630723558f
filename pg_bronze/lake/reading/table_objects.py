"""The objects of a table that a scan reads, grouped into column eras.

Not every footer is read: the newest one names the first object that has its columns, the footer before that one names
the first object of its own era, and so on.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime
from difflib import get_close_matches
from itertools import groupby
from typing import TYPE_CHECKING, TypeAlias

from pg_bronze.core.table import Column, label, shell_argument
from pg_bronze.errors import NothingCopied
from pg_bronze.lake.footer import Footer
from pg_bronze.lake.keys import OWN, Layout, search_starts, table_of
from pg_bronze.lake.ledger import Ledger
from pg_bronze.lake.object_store import ObjectInfo, Store
from pg_bronze.lake.reading.schema_union import ColumnEra

if TYPE_CHECKING:
    import polars as pl


Part: TypeAlias = Sequence[tuple[ColumnEra, Sequence[str]]]
_FOOTER_THREADS = 16
_MAX_FOREIGN_OBJECTS = 100
_MAX_NAMED_TABLES = 20


@dataclass(frozen=True)
class TableObjects:
    """The objects of a table that are to be read, in column eras, oldest first.

    The last era may have no keys: it only defines the newest names of the columns. ``sizes`` maps keys to bytes.
    """

    store: Store
    eras: tuple[ColumnEra, ...]
    sizes: Mapping[str, int]

    def parts(self, size_bytes: int) -> list[Part]:
        """Divide the objects into parts of about this size; at least one part."""
        parts: list[list[tuple[ColumnEra, Sequence[str]]]] = [[]]
        part_bytes = 0
        for era in self.eras:
            keys: list[str] = []
            for key in era.keys:
                if part_bytes and part_bytes + self.sizes[key] > size_bytes:
                    parts[-1].append((era, keys))
                    parts.append([])
                    keys, part_bytes = [], 0
                keys.append(key)
                part_bytes += self.sizes[key]
            parts[-1].append((era, keys))
        return list(parts)


def find(
    store: Store, layout: Layout, days: Collection[date] | None = None, as_of: date | int | None = None
) -> TableObjects:
    """Find the objects of a table's newest generation: one request for each era and each 1,000 objects.

    Raises:
        NothingCopied: There is no object of the table, or none of its newest generation up to ``as_of``.
    """
    ledger = Ledger(store, layout)
    items = list_objects(store, layout) if days is None else _objects_of_days(store, layout, days)
    newest = _newest_footer(ledger, items if days is None else _recent_objects(store, layout))
    if newest is None:
        raise NothingCopied(_nothing_copied(store, layout))
    beginning = layout.time(newest.after.first_key)
    keys = [item.key for item in items]
    keys = keys[_count_before(layout, keys, beginning) :]
    if isinstance(as_of, int):
        keys = _below_horizon(ledger, keys, newest, as_of)
    elif as_of is not None:
        keys = keys[: _count_before(layout, keys, datetime.combine(as_of, datetime.max.time(), UTC))]
        if not keys and newest.after.generation:
            raise NothingCopied(
                f"{layout.label}: its newest generation, number {newest.after.generation}, began on "
                f"{beginning.date() if beginning else 'a later day'}. The objects of {as_of} are in "
                f"{store.uri(layout.old('', newest.after.generation - 1))} and the folders beside it."
            )
    eras = _eras(ledger, keys, newest, names_from_newest=days is not None or not keys)
    return TableObjects(store, eras, {item.key: item.size_bytes for item in items})


def list_objects(
    store: Store, layout: Layout, first: datetime | None = None, last: date | None = None
) -> list[ObjectInfo]:
    """Return the table's objects from a time on and up to the end of a UTC day, oldest first."""
    timed: list[tuple[datetime, ObjectInfo]] = []
    for prefix, start_after in layout.listings(first):
        for item in store.list(prefix, start_after):
            time = layout.time(item.key)
            if time is not None and last is not None and time.date() > last:
                break  # a listing is ordered by time
            if time is not None:
                timed.append((time, item))
    return [item for _, item in sorted(timed, key=lambda pair: (pair[0], pair[1].key))]


def _objects_of_days(store: Store, layout: Layout, days: Collection[date]) -> list[ObjectInfo]:
    if not days:
        return []
    first = datetime.combine(min(days), datetime.min.time(), UTC)
    return [item for item in list_objects(store, layout, first, max(days)) if layout.day(item.key) in days]


def _recent_objects(store: Store, layout: Layout) -> list[ObjectInfo]:
    """Return objects among which the newest one is, without listing all; empty if there are none."""
    starts = search_starts(datetime.now(UTC))
    return next((items for start in starts if (items := list_objects(store, layout, start))), [])


def _newest_footer(ledger: Ledger, items: Sequence[ObjectInfo]) -> Footer | None:
    # Copying stops at an object of another program that is newer than ours, so there are never many of them.
    newest = [item.key for item in items[-_MAX_FOREIGN_OBJECTS:]]
    return next((footer for key in reversed(newest) if (footer := ledger.footer(key))), None)


def _count_before(layout: Layout, keys: Sequence[str], moment: datetime | None) -> int:
    """Return how many of the keys, oldest first, are from before a moment; 0 if it is None."""
    if moment is None:
        return 0
    return bisect_left(keys, moment, key=lambda key: layout.time(key) or moment)


def _below_horizon(ledger: Ledger, keys: Sequence[str], newest: Footer, horizon: int) -> list[str]:
    """Return the objects that can contain row versions of transactions below a horizon.

    Once all leaves have been delivered up to the horizon, no later object can, because what is delivered of a leaf only
    grows. A leaf that was attached later makes every object before it necessary.
    """
    candidates = list(keys)
    low, high = 0, len(candidates)
    while low < high:
        middle = (low + high) // 2
        footer = ledger.footer(candidates[middle])
        if footer is None:
            del candidates[middle]
            high -= 1
            continue
        swept = [footer.before.leaf(oid).swept for oid in newest.after.leaves]
        is_first = footer.before.generation != newest.after.generation
        if is_first or any(xid is None or xid < horizon for xid in swept):
            low = middle + 1
        else:
            high = middle
    return candidates[:low]


def era_footers(ledger: Ledger, keys: Sequence[str]) -> Iterator[Footer]:
    """Yield the newest footer of each column era of the newest generation, newest first.

    One footer is read for each era, and one more where an earlier generation has not been moved yet. Missing objects
    are skipped. A footer whose ``after.columns_key`` is ``""`` is the last one: the beginning of its era is unknown.

    Args:
        ledger: The table's ledger.
        keys: The table's objects, oldest first.
    """
    times = [(time, key) for key in keys if (time := ledger.layout.time(key))]
    generation = None
    while times:
        footer = ledger.footer(times[-1][1])
        if footer is None:
            times.pop()
            continue
        if generation not in (None, footer.after.generation):
            return
        generation = footer.after.generation
        yield footer
        first = ledger.layout.time(footer.after.columns_key)
        if first is None:
            return
        times = times[: bisect_left(times, (first, ""))]


def _eras(ledger: Ledger, keys: Sequence[str], newest: Footer, names_from_newest: bool) -> tuple[ColumnEra, ...]:
    """Group objects into column eras, oldest first.

    Args:
        ledger: The table's ledger.
        keys: The objects, oldest first: of the newest generation, or not of pg_bronze.
        newest: The table's newest footer.
        names_from_newest: Add the era of the newest object even if that is not among ``keys``.
    """
    remaining = list(keys)
    newest_apart = names_from_newest and newest.after.key not in remaining
    eras: list[ColumnEra] = []
    for footer in era_footers(ledger, [*remaining, newest.after.key] if newest_apart else remaining):
        first = footer.after.columns_key
        if not first:  # written before watermarks contained it, so all footers are read
            if newest_apart and not eras:
                eras += _eras_by_reading_all(ledger, [newest.after.key], newest, with_keys=False)
            eras += reversed(_eras_by_reading_all(ledger, remaining, newest))
            break
        opening = ledger.footer_and_schema(first) or ledger.footer_and_schema(footer.after.key)
        if opening is None:
            continue
        older = _count_before(ledger.layout, remaining, ledger.layout.time(first))
        eras.append(_era(ledger, remaining[older:], footer, opening[1], first))
        remaining = remaining[:older]
        before, after = opening[0].before, opening[0].after
        if not remaining or before.seq == 0 or before.generation != after.generation:
            break  # older objects are of an earlier generation, or not of pg_bronze
    return tuple(reversed(eras))


def _eras_by_reading_all(
    ledger: Ledger, keys: Sequence[str], newest: Footer, with_keys: bool = True
) -> list[ColumnEra]:
    """Group objects of the newest generation by their columns; every footer is read."""
    with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
        described = zip(keys, pool.map(ledger.footer_and_schema, keys), strict=True)
        own = [(key, *pair) for key, pair in described if pair and pair[0].after.generation == newest.after.generation]
    eras = []
    for _, group in groupby(own, key=lambda item: item[1].described.digest):
        members = list(group)
        first, footer, schema = members[0]
        eras.append(_era(ledger, [key for key, _, _ in members] if with_keys else [], footer, schema, first))
    return eras


def _era(ledger: Ledger, keys: Sequence[str], footer: Footer, schema: "pl.Schema", example: str) -> ColumnEra:
    columns = tuple(Column.from_description(column) for column in footer.columns)
    uri = ledger.store.uri(example)
    locale = str(footer.database.get("locale") or footer.database.get("character_type") or "")
    excluded = frozenset(footer.described.excluded)
    return ColumnEra(tuple(keys), columns, schema, footer.xid_column, uri, tuple(footer.primary_key), locale, excluded)


def _nothing_copied(store: Store, layout: Layout) -> str:
    """Return the message for a table without objects, which names similar tables."""
    root = f"{store.prefix}/" if store.prefix else ""
    tables = sorted(label(*table_of(name)) for name in store.folders(root) if name != OWN)
    similar = get_close_matches(layout.label, tables, n=1)
    text = f"pg_bronze has not written any object of {layout.label} to {store.uri(root)}"
    if similar and similar[0] != layout.label:
        return f"{text}. Did you mean {similar[0]}?"
    more = f" and {len(tables) - _MAX_NAMED_TABLES} more" if len(tables) > _MAX_NAMED_TABLES else ""
    others = f"Tables in the bucket: {', '.join(tables[:_MAX_NAMED_TABLES])}{more}" if tables else "It has no tables"
    command = f"pg-bronze tick {shell_argument(layout.label)}"
    return f"{text}. {others}. A table without rows has no object yet. To copy a table now, run `{command}`."
