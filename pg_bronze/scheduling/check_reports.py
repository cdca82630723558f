"""Check reports: which tables' states a tick records as results of their checks.

Recording all of 1,000 tables in each tick would cost seconds and megabytes. A changed state is recorded at once, a bad
one again while it lasts, and a good one after each copy and once an hour. No clock, no Dagster.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pg_bronze.scheduling.health import TableHealth

REPEAT_BAD_S = 300.0
REFRESH_GOOD_S = 3600.0
# Of one tick. A result costs 4 ms; a sensor may take a minute.
MOST_CHANGED = 200
MOST_REFRESHED = 20


@dataclass(frozen=True)
class Report:
    """The last result that was recorded for a table.

    Attributes:
        mark: What ``mark_of`` the state was.
        at: When it was recorded, in seconds since 1970.
    """

    mark: str
    at: float


def mark_of(health: TableHealth) -> str:
    """Return a text that changes with everything that is worth a new result."""
    return "ok" if health.severity == "ok" else f"{health.severity} {health.state}"


def due(
    tables: Sequence[TableHealth],
    reported: Mapping[str, Report],
    now: float,
) -> list[TableHealth]:
    """Return the tables whose state is recorded now: those that changed first, then those recorded longest ago.

    Args:
        tables: The state of each table.
        reported: The last result of each table, by label.
        now: Seconds since 1970.
    """
    changed = [table for table in tables if _is_changed(table, reported.get(table.label))]
    found = {table.label for table in changed}
    refreshed = [table for table in tables if table.label not in found and _is_old(table, reported[table.label], now)]
    changed.sort(key=lambda table: (table.severity == "ok", table.label in reported))
    refreshed.sort(key=lambda table: reported[table.label].at)
    return [*changed[:MOST_CHANGED], *refreshed[:MOST_REFRESHED]]


def _is_changed(table: TableHealth, last: Report | None) -> bool:
    return last is None or last.mark != mark_of(table)


def _is_old(table: TableHealth, last: Report, now: float) -> bool:
    if table.severity != "ok":
        return now - last.at >= REPEAT_BAD_S
    # Dagster shows the result of a check as missing if the asset was materialized since. It compares the time of the
    # materialization with that of the result in whole seconds, so one of the same second counts as later.
    return now - last.at >= REFRESH_GOOD_S or (table.copied_at is not None and table.copied_at >= math.floor(last.at))
