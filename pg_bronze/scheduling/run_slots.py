"""Run slots: how many runs a tick requests if the connections to the source are limited.

Belongs here: the decision. Does not belong here: the setting (``settings.source``), the locks that are the slots
(``postgres.connection_limit``), and which first load has its turn (``scheduling.first_loads``).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pg_bronze.scheduling.first_loads import TURN_S

WAITING = "waiting for a connection (PG_BRONZE_MAX_CONNECTIONS)"
# With one slot for all runs: a turn of a load, and as long for the tables with new rows.
LOAD_EVERY_S = 2 * TURN_S


@dataclass(frozen=True)
class Room:
    """What a tick may request.

    Attributes:
        together: Whether the run of all tables that are due, without the large first loads.
        first_loads: How many runs of large first loads.
    """

    together: bool
    first_loads: int


def free(slots: int, unfinished: Collection[str], holders: Sequence[str]) -> int:
    """Return how many more runs get a connection.

    Args:
        slots: How many runs may have connections at once.
        unfinished: The session name of each run of this Dagster instance that is queued, starting or started. One that
            holds no slot yet will take one.
        holders: The session name of the holder of each slot, those of commands and of other instances included.
    """
    # A run that reads block ranges in parallel holds several.
    of_runs = sum(max(1, holders.count(name)) for name in unfinished)
    return max(0, slots - of_runs - sum(name not in unfinished for name in holders))


def further(free_slots: int, held: int, wanted: int) -> int:
    """Return how many slots beside its own a run may hold to read in parallel: one stays free for another run.

    Args:
        free_slots: How many slots nobody holds.
        held: How many the run holds beside its own.
        wanted: How many it has use for.
    """
    return max(0, min(wanted, held + free_slots - 1))


def room(free_slots: int | None, has_small: bool, now: float, loads_requested: Sequence[float]) -> Room:
    """Return what a tick may request.

    Args:
        free_slots: How many more runs get a connection; None without a limit.
        has_small: Whether a table is due that is no large first load.
        now: Seconds since 1970.
        loads_requested: When each large first load that is due was last requested, in seconds since 1970; 0 for never.
    """
    if free_slots is None:
        return Room(True, len(loads_requested))
    if free_slots == 1 and has_small and loads_requested:
        loads = now - max(loads_requested) >= LOAD_EVERY_S
        return Room(not loads, int(loads))
    return Room(free_slots > 0, max(0, free_slots - has_small))
