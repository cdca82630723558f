"""Retention: which events of Dagster's history are removed, and where the next pass continues.

No connection, no clock, no Dagster.
"""

from collections.abc import Sequence
from dataclasses import dataclass

HOUR_S = 3600.0
DAY_S = 86400.0


@dataclass(frozen=True)
class Event:
    """One stored event of an asset. Later events have higher ids.

    Attributes:
        number: Its id in Dagster's storage.
        asset: The key of the asset, as text.
        partition: The partition, or None.
        time: When it was recorded, in seconds since 1970.
    """

    number: int
    asset: str
    partition: str | None
    time: float


@dataclass(frozen=True)
class Thinning:
    """What one pass removes.

    Attributes:
        remove: The ids of events to remove.
        resume: The id of the first event that the next pass reads.
    """

    remove: Sequence[int]
    resume: int


def thin(events: Sequence[Event], resume: int, until: float, step_s: float) -> Thinning:
    """Keep the last event of each asset and partition in every step, and remove those before it.

    The last event of a partition is the last one of its step, so it is always kept.

    Args:
        events: The events from id ``resume`` on, in the order of their ids.
        until: Seconds since 1970; later events are kept.
        step_s: The length of a step: an hour or a day.
    """
    last: dict[tuple[str, str | None, float], int] = {}
    remove: list[int] = []
    step = 0.0
    for event in events:
        if event.time >= until:
            continue  # not the end: older events may follow one of a clock that was ahead
        if event.time // step_s != step:
            # The next pass begins with this step, because later events of it may follow.
            step, resume = event.time // step_s, event.number
        group = (event.asset, event.partition, step)
        if group in last:
            remove.append(last[group])
        last[group] = event.number
    return Thinning(remove, resume)
