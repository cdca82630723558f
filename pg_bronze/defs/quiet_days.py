"""Quiet days: the partition of a day on which a table had no new rows is materialized after the day has ended.

So are those before it, back to the last day with rows. Without that, the days of a table that is rarely written to look
as if they were never copied.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta

import dagster as dg

from pg_bronze.defs import metadata
from pg_bronze.defs.due_tables import Check, TableCheck
from pg_bronze.errors import PgBronzeError
from pg_bronze.scheduling.health import TableHealth

# Of one tick. Each takes some milliseconds, once a day.
MOST = 50
# After a pause of the whole project.
MOST_DAYS = 31


class QuietDays:
    """The tables whose last day is not complete yet, as far as this process knows."""

    def __init__(self, first_day: date) -> None:
        self._first_day = first_day
        self._day: date | None = None
        self._left: set[str] = set()

    def due(self, instance: dg.DagsterInstance, found: Check, now: datetime) -> list[dg.AssetMaterialization]:
        """Return the materializations of yesterday for tables that are known to be covered past its end."""
        yesterday = now.astimezone(UTC).date() - timedelta(days=1)
        if self._day != yesterday:
            self._day = yesterday
            self._left = {item.table.label for item in found.tables} if yesterday >= self._first_day else set()
        ended = datetime.combine(yesterday + timedelta(days=1), time(), UTC).timestamp()
        chosen = _covered(found, self._left, ended)[:MOST]
        self._left -= {item.table.label for item in chosen}
        return [event for item in chosen for event in _events(instance, item, yesterday)]


def _covered(found: Check, labels: set[str], ended: float) -> Sequence[TableCheck]:
    """Return the tables whose changes of the day are all copied, and that no run is copying now."""

    def is_covered(item: TableCheck, state: TableHealth) -> bool:
        return not item.decision.due and state.state == "up_to_date" and state.covered_at >= ended

    pairs = zip(found.tables, found.health, strict=True)
    return [item for item, state in pairs if item.table.label in labels and is_covered(item, state)]


def _events(instance: dg.DagsterInstance, item: TableCheck, yesterday: date) -> list[dg.AssetMaterialization]:
    """Return the materializations of days without rows since the last one with some; none before the first copy."""
    key = item.key
    known = {date.fromisoformat(day) for day in instance.get_materialized_partitions(key)}
    first = max((day for day in known if day <= yesterday), default=None)
    if first is None:
        return []  # it was first copied today
    missing = [first + timedelta(days=number) for number in range(1, (yesterday - first).days + 1)][-MOST_DAYS:]
    try:
        watermark = metadata.watermark_of(instance.get_latest_materialization_event(key)) if missing else None
    except PgBronzeError:
        return []  # the next run of the table reports it
    if watermark is None:
        return []
    # The newest materialization of an asset has its watermark, so each needs it too.
    totals = metadata.of_totals(watermark, 0, with_late=True)
    entries = {metadata.ROWS: 0, **totals, **metadata.of_watermark(watermark)}
    return [dg.AssetMaterialization(key, partition=day.isoformat(), metadata=entries) for day in missing]
