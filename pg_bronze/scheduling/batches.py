"""Batches: how the due tables of a tick are divided into runs.

Belongs here: the division. Does not belong here: which tables are due (``scheduling.due``), and the requests for runs
(``defs.sensors.tick``).
"""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

# A run takes about two CPU seconds to start, and a small table 0.06 to 0.1 s in it: with fewer tables, a second run
# would cost more than it saves.
LEAST_TABLES = 50
# As many as dagster.yaml allows at once.
MOST_RUNS = 4


def divide(tables: Sequence[T], cores: int) -> list[list[T]]:
    """Return groups of tables of nearly the same size, one for each run; none without tables.

    Args:
        cores: The processors of this machine: more runs would only wait for each other.
    """
    groups = min(max(1, cores), MOST_RUNS, -(-len(tables) // LEAST_TABLES))
    return [list(tables[number::groups]) for number in range(groups)]
