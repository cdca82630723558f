"""Batches: how the due tables of a tick are divided into runs.

Belongs here: the division. Does not belong here: which tables are due (``scheduling.due``), the large first loads
(``scheduling.first_loads``), and the requests for runs (``defs.sensors.tick``).
"""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

# A run worker takes about 0.2 CPU seconds to begin and end a run, and a small table 0.03 to 0.1 s in it: with fewer
# tables, a second run would cost more than it saves.
LEAST_TABLES = 25
# As many as dagster.yaml allows at once, without those of slow tables.
MOST_RUNS = 4
# A table whose last copy took longer is copied apart from the others of its tick: they would wait for it.
SLOW_AFTER_S = 5.0
# A question for new rows waits so long for a lock; then the table counts as one that may have some.
ASK_WAIT_S = 0.1
# Runs of slow tables in a tick, and in dagster.yaml at once. More would take the place of first loads.
SLOW_RUNS = 2
# A run of several tables waits so long for a lock; then the table is left to a run apart from the others.
LOCK_WAIT_S = 2.0
# It copies so much of one table, in seconds, and leaves the rest to such a run.
SHARE_S = 10.0


def divide(tables: Sequence[T], runs: int, least: int | None = None) -> list[list[T]]:
    """Return groups of tables of nearly the same size, one for each run; none without tables.

    Args:
        runs: The most groups: more runs than processors of one machine would only wait for each other.
        least: The tables for which one more group is worth its run; None for ``LEAST_TABLES``.
    """
    groups = min(max(1, runs), -(-len(tables) // (least or LEAST_TABLES)))
    return [list(tables[number::groups]) for number in range(groups)]


def apart(fast: Sequence[T], slow: Sequence[T], free: int | None) -> tuple[list[T], list[list[T]]]:
    """Return the tables that are copied together, and the groups of slow tables that are copied apart from them.

    Args:
        free: How many more runs get a connection; None without a limit. Without a second one, all are copied together.
    """
    runs = SLOW_RUNS if free is None else min(SLOW_RUNS, free - bool(fast))
    return ([*fast, *slow], []) if runs < 1 else (list(fast), divide(slow, runs, least=1))
