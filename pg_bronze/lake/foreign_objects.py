"""The search for objects that another program wrote under names older than the table's last object.

The original system names its objects in its local time. West of UTC these keys sort before pg_bronze's, so the listing
of a recovery, which starts at the last object, does not contain them.
"""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from pg_bronze.core.watermark import Watermark

if TYPE_CHECKING:
    from pg_bronze.lake.ledger import Ledger


FURTHEST_WEST = timedelta(hours=12)
# One day's folder may contain thousands of objects, so they are not listed at every tick.
CHECK_INTERVAL = timedelta(minutes=10)


class _Written(NamedTuple):
    """When an object was written, and how long after the time in its key."""

    modified: datetime
    delay: timedelta


def check(ledger: "Ledger", watermark: Watermark, now: datetime) -> None:
    """Raise LakeDamaged if another program has written an object since this generation began.

    Lists only if the table's last object was written in an earlier interval of ten minutes than ``now``.
    """
    last = ledger.layout.time(watermark.key)
    if last is None or same_interval(last, now):
        return
    written = _written_until(ledger, last)
    # pg_bronze names an object by the time of the write, so its delay is the difference between the two clocks.
    clock_difference = written[watermark.key].delay if watermark.key in written else timedelta()
    suspects = {
        key: item.modified for key, item in written.items() if abs(item.delay - clock_difference) > CHECK_INTERVAL
    }
    beginning = _beginning(ledger, watermark, [key for key in written if key not in suspects]) or last
    for key, modified in suspects.items():
        if modified - clock_difference > beginning + CHECK_INTERVAL:
            ledger.own_footer(key)


def same_interval(one: datetime, other: datetime) -> bool:
    """Return whether two times are in the same interval of ten minutes."""
    return _interval(one) == _interval(other)


def _interval(at: datetime) -> int:
    return int(at.timestamp() // CHECK_INTERVAL.total_seconds())


def _written_until(ledger: "Ledger", last: datetime) -> dict[str, _Written]:
    """Return the objects with a time up to the last one's, from where a key in another time zone could be."""
    written = {}
    for prefix, start_after in ledger.layout.listings(last - FURTHEST_WEST - CHECK_INTERVAL):
        for item in ledger.store.list(prefix, start_after):
            time = ledger.layout.time(item.key)
            if time is not None and time <= last:
                written[item.key] = _Written(item.modified, item.modified - time)
    return written


def _beginning(ledger: "Ledger", watermark: Watermark, own: list[str]) -> datetime | None:
    """Return the time of the oldest known object of this generation."""
    if watermark.first_key:
        own = [watermark.first_key]
    elif own == [watermark.key] and watermark.seq > 1 and (footer := ledger.footer(watermark.key)):
        own = [watermark.key, footer.before.key]
    return min((time for key in own if (time := ledger.layout.time(key))), default=None)
