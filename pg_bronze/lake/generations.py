"""Generations: objects of earlier generations are moved out of the table's folder, so that it never contains two."""

import logging
from typing import TYPE_CHECKING

from pg_bronze.core.watermark import Watermark
from pg_bronze.errors import StoreNotFit
from pg_bronze.lake.keys import own_key

if TYPE_CHECKING:
    from pg_bronze.lake.ledger import Ledger
    from pg_bronze.lake.object_store import Store


def newest_old(store: "Store", prefix: str) -> dict[str, int]:
    """Return the newest generation whose objects were moved away, by the folder of the table.

    One request, and one more for each table that has such objects. Empty if the bucket does not exist yet.
    """
    old = own_key(prefix, "old/")
    try:
        found = {folder: store.folders(f"{old}{folder}/") for folder in store.folders(old)}
    except StoreNotFit:
        return {}
    numbers = {folder: [int(name[4:]) for name in names if name[4:].isdecimal()] for folder, names in found.items()}
    return {folder: max(generations) for folder, generations in numbers.items() if generations}


def move_old(ledger: "Ledger", watermark: Watermark) -> int:
    """Move the objects of earlier generations to ``_pg_bronze/old/`` and return how many were moved.

    It can be interrupted and repeated: objects older than the one that began the generation are still to be moved.
    """
    store, layout = ledger.store, ledger.layout
    beginning = layout.time(watermark.first_key)
    if beginning is None:
        return 0
    count = 0
    for prefix, _ in layout.listings(None):
        for item in store.list(prefix):
            time = layout.time(item.key)
            if time is not None and time >= beginning:
                break  # a listing is ordered by time
            if time is not None:
                footer = ledger.footer(item.key)
                generation = footer.after.generation if footer else watermark.generation - 1
                store.move(item.key, layout.old(item.key, generation))
                count += 1
    if count:
        logging.getLogger(__name__).info("%d objects of earlier generations of %s were moved", count, layout.label)
    return count
