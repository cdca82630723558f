"""Gaps: the objects of a day that are missing, found by walking the chain of footers. Writes nothing."""

from dataclasses import dataclass
from datetime import UTC, date, datetime

from pg_bronze.core.watermark import Watermark
from pg_bronze.lake.footer import Footer
from pg_bronze.lake.ledger import Ledger


@dataclass(frozen=True)
class Gap:
    """Objects that are missing between two others. They are written again as one.

    Attributes:
        missing: The watermark after the last of them.
        before: The watermark after the object before them; None if that object is of an earlier day.
        following: The footer of the object after them.
    """

    missing: Watermark
    before: Watermark | None
    following: Footer


def find(ledger: Ledger, day: date) -> tuple[int, list[Gap]]:
    """Return the number of objects of a day, and what is missing among them.

    The first object of a later day is read too, because its footer names the last object of this day. Footers are
    compared as they arrive, and not kept.
    """
    count = 0
    gaps: list[Gap] = []
    previous: Footer | None = None
    for key, footer in ledger.footers_from(datetime(day.year, day.month, day.day, tzinfo=UTC)):
        if footer is None:
            continue
        missing = footer.before
        # The objects of a former generation were moved away; they are not missing.
        follows = previous is not None and previous.after.key == missing.key
        if not follows and ledger.layout.day(missing.key) == day and missing.generation == footer.after.generation:
            gaps.append(Gap(missing, previous.after if previous else None, footer))
        item_day = ledger.layout.day(key)
        if item_day is not None and item_day > day:
            break
        count += 1
        previous = footer
    return count, gaps
