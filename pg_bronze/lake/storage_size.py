"""The size of the bucket: bytes and objects of each table, by one listing of everything below the prefix."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from pg_bronze.lake import keys
from pg_bronze.lake.object_store import Store

# A page has 1,000 objects and takes about 50 ms of CPU time.
MOST_OBJECTS = 5_000_000


@dataclass(frozen=True)
class StorageSize:
    """What a listing found.

    Attributes:
        size_bytes: The bytes of the current objects of each table, by the folder of the table.
        object_count: Their number, by the same folder.
        old_bytes: The bytes of objects of earlier generations, of all tables.
        other_bytes: The bytes of everything else below the prefix: what pg_bronze keeps for itself, dropped tables, and
            objects of other programs.
        complete: False if there were more than ``MOST_OBJECTS``; the others are in no number.
    """

    size_bytes: Mapping[str, int] = field(default_factory=dict)
    object_count: Mapping[str, int] = field(default_factory=dict)
    old_bytes: int = 0
    other_bytes: int = 0
    complete: bool = True


def measure(store: Store, folders: Collection[str], most: int = MOST_OBJECTS) -> StorageSize:
    """List the bucket below the prefix, 1,000 objects with each request, and add up what is found.

    Args:
        store: The bucket.
        folders: The folders of the tables, without the prefix.
        most: The number of objects after which the listing ends.

    Raises:
        PgBronzeError: The bucket did not answer.
    """
    prefix = f"{store.prefix}/" if store.prefix else ""
    sizes: dict[str, int] = dict.fromkeys(folders, 0)
    counts: dict[str, int] = dict.fromkeys(folders, 0)
    old = other = 0
    for number, item in enumerate(store.list(prefix)):
        if number >= most:
            return StorageSize(sizes, counts, old, other, complete=False)
        folder, _, rest = item.key.removeprefix(prefix).partition("/")
        if folder in sizes:
            sizes[folder] += item.size_bytes
            counts[folder] += 1
        elif folder == keys.OWN and rest.startswith("old/"):
            old += item.size_bytes
        else:
            other += item.size_bytes
    return StorageSize(sizes, counts, old, other)
