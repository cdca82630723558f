"""The state of one table as the bucket alone has it, for Dagster's storage that was lost, wiped or restored."""

from dataclasses import dataclass
from datetime import date, datetime

from pg_bronze.core.watermark import Watermark
from pg_bronze.lake.keys import Layout
from pg_bronze.lake.ledger import Ledger
from pg_bronze.lake.object_store import Store


@dataclass(frozen=True)
class BucketState:
    """What the bucket has of one table.

    Attributes:
        watermark: How far it is copied; None if pg_bronze has written no object of it.
        object_count: Objects of the newest generation.
        size_bytes: Their bytes.
        days: The days with objects, oldest first.
    """

    watermark: Watermark | None
    object_count: int = 0
    size_bytes: int = 0
    days: tuple[date, ...] = ()

    def is_behind(self, recorded: Watermark | None) -> bool:
        """Return whether a recorded watermark is later than the newest object, so that objects are missing."""
        if recorded is None or (not recorded.seq and not recorded.generation):
            return False
        if self.watermark is None:
            return True
        return (self.watermark.generation, self.watermark.seq) < (recorded.generation, recorded.seq)


def read(store: Store, layout: Layout, now: datetime) -> BucketState:
    """Find the newest object of a table, its watermark, and the days that have objects.

    Raises:
        PgBronzeError: The bucket does not answer, or the objects are damaged; see ``Ledger.recover``.
    """
    ledger = Ledger(store, layout)
    watermark = ledger.recover(None, now).watermark
    if watermark is None:
        return BucketState(None)
    objects = ledger.since(watermark.first_key)
    days = {layout.day(item.key) for item in objects}
    known = sorted(day for day in days if day is not None)
    return BucketState(watermark, len(objects), sum(item.size_bytes for item in objects), tuple(known))
