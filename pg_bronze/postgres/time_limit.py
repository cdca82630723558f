"""The time limit of a statement over many rows: its own, and the end of the run."""

import math
import time

from pg_bronze.errors import SourceUnavailable

# A read with less time than this is left to the next tick, which has all of its time.
SHORTEST_READ_S = 2.0


def seconds_left(ends_at: float | None, limit_s: float, label: str) -> float:
    """Return the seconds that a statement may take now.

    Args:
        ends_at: The ``time.monotonic`` by which every read has to end; None for no such time.
        limit_s: The time limit of one statement.
        label: The table, for the error.

    Raises:
        SourceUnavailable: The run ends in less than two seconds.
    """
    left_s = math.inf if ends_at is None else ends_at - time.monotonic()
    if left_s < SHORTEST_READ_S:
        raise SourceUnavailable(
            f"{label}: the time limit of this run is reached (PG_BRONZE_MAX_RUN_S, or max_runtime_seconds in "
            "dagster.yaml for a run that the sensor did not request). Committed slices are kept, and the next tick "
            "continues after them."
        )
    return min(limit_s, left_s)
