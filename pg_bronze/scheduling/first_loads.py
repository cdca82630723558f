"""First loads: which tables get a run of their own, which of these runs start in this tick, and how long they take.

Belongs here: the decision, from what a tick found about the tables. Does not belong here: where a load stops
(``core.planning``) and the requests for runs (``defs.sensors.tick``, ``cli.batch``).
"""

import dataclasses
from collections.abc import Mapping, Sequence

from pg_bronze.core.slice_size import BLOCK_BYTES
from pg_bronze.scheduling.due import Decision, Facts

# Runs of first loads at once, of the six that dagster.yaml allows: two are for slow tables, and two for all others.
SLOTS = 2
# Each one that starts takes several CPU seconds, while the run of the tables with new rows starts too.
PER_TICK = 1
# A run costs several CPU seconds to start, a tenth of this. New rows of a loading table arrive once in a turn.
TURN_S = 60.0
# In a process that copies other tables too: `pg-bronze run`, or a table that grew since the run was planned.
SHARED_TURN_S = 10.0
WAITING = "waiting for other first loads"


def unread(facts: Facts) -> list[int]:
    """Return the leaves of a table of which a part was never read."""
    watermark = facts.watermark if facts.watermark and facts.watermark.table == facts.oid else None
    return [oid for oid in facts.leaves if watermark is None or watermark.leaf(oid).swept is None]


def blocks_left(facts: Facts, sizes: Mapping[int, int]) -> int:
    """Return the number of blocks that the first load of a table still has to read; 0 if it is complete.

    Args:
        sizes: The blocks of each leaf.
    """
    return sum(max(0, sizes.get(oid, 0) - _loaded(facts, oid)) for oid in unread(facts))


def _loaded(facts: Facts, oid: int) -> int:
    watermark = facts.watermark if facts.watermark and facts.watermark.table == facts.oid else None
    sweep = watermark.leaf(oid).sweep if watermark else None
    return sweep.block if sweep else 0


def is_large(blocks: int, slice_bytes: int) -> bool:
    """Return whether a first load gets a run of its own: it takes more than two slices."""
    return blocks > slice_bytes // BLOCK_BYTES * 2


def chosen(waiting: Sequence[tuple[float, int]], running: int, slots: int) -> set[int]:
    """Return the place of the first load whose run starts now: the one that was not requested for the longest time.

    Args:
        waiting: When each of them was last requested, in seconds since 1970, or 0 for never; and the blocks that are
            left, of which more come first.
        running: How many runs of first loads are not finished.
        slots: How many may run at once.

    Returns:
        The empty set if no slot is free.
    """
    free = min(PER_TICK, max(0, slots - running))
    return set(sorted(range(len(waiting)), key=lambda place: (waiting[place][0], -waiting[place][1]))[:free])


def postponed(decision: Decision, due_at: float, reason: str = WAITING) -> Decision:
    """Return the decision about a table that is due and is left to a later tick.

    Args:
        due_at: When it was last requested.
    """
    hint = dataclasses.replace(decision.hint, due_at=due_at, asked=max(0, decision.hint.asked - 1))
    return Decision(False, reason, hint, decision.swept)


def turn_s(attended: bool, alone: bool) -> float | None:
    """Return the seconds after which the first loads of a run stop; None to load to the end.

    Args:
        attended: A person requested the run.
        alone: A run of the sensor that copies only this table.
    """
    if attended:
        return None
    return TURN_S if alone else SHARED_TURN_S
