"""Listing: the objects of one table in the order of their times, of both layouts. Page by page, so it may end early."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from heapq import merge

from pg_bronze.errors import LakeDamaged
from pg_bronze.lake.keys import Layout
from pg_bronze.lake.object_store import ObjectInfo, Store


def objects_from(store: Store, layout: Layout, start: datetime | None) -> Iterator[ObjectInfo]:
    """Yield the objects at or after a time (None: all), oldest first."""
    return objects_in(store, layout, layout.listings(start))


def objects_in(store: Store, layout: Layout, pairs: Sequence[tuple[str, str]]) -> Iterator[ObjectInfo]:
    """Yield the objects of some ``(prefix, start_after)`` pairs, oldest first."""
    listings = (_timed(store, layout, prefix, start_after) for prefix, start_after in pairs)
    # Each listing is in the order of the times, which have a fixed number of digits.
    return (item for _, item in merge(*listings, key=lambda pair: (pair[0], pair[1].key)))


def last_before(store: Store, layout: Layout, start: datetime | None, end: datetime) -> str | None:
    """Return the key of the newest object at or after ``start`` and before ``end``; None if there is none."""
    last = None
    for item in objects_from(store, layout, start):
        time = layout.time(item.key)
        if time is None or time >= end:
            break
        last = item.key
    return last


def _timed(store: Store, layout: Layout, prefix: str, start_after: str) -> Iterator[tuple[datetime, ObjectInfo]]:
    for item in store.list(prefix, start_after):
        time = layout.time(item.key)
        if time is not None:
            yield time, item
        elif item.key.endswith(".parquet"):
            raise LakeDamaged(
                f"{store.uri(item.key)} is among the objects of {layout.label}, but its name is not one of theirs. "
                "Move it out of the folder. Nothing of the table is copied until then."
            )
