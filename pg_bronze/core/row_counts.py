"""Row counts: how many rows and late rows a table has in the lake, and what the late ones are compared with.

Belongs here: the values that a watermark carries along, and their JSON. Does not belong here: counting the rows of a
slice (``late_rows``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

# A poll with more open transactions says nothing about the ids from its horizon on.
MAX_OPEN = 32


@dataclass(frozen=True)
class Poll:
    """What a query of the whole table would have seen when a horizon was read.

    It saw the transactions below ``next_xid`` that are not in ``open``. Subtransactions that were open are not known.

    Attributes:
        horizon: Every transaction below it had finished.
        next_xid: The first id that was not assigned; ``horizon`` if nothing is known about the ids from there on.
        open: The transactions in ``[horizon, next_xid)`` that had not finished, ascending.
        highest: The highest cursor value among the copied rows that it saw; None if there is none.
    """

    horizon: int
    next_xid: int
    open: tuple[int, ...] = ()
    highest: str | None = None

    @classmethod
    def of_snapshot(cls, horizon: int, next_xid: int, unfinished: Sequence[int], standby: bool) -> Self:
        """Return the poll of a snapshot. A standby does not list the transactions that are open on its primary."""
        if standby or len(unfinished) > MAX_OPEN:
            return cls(horizon, horizon)
        return cls(horizon, next_xid, tuple(sorted(unfinished)))

    def to_json(self) -> list[Any]:
        """Return plain JSON: ``[horizon, highest]``, and ``next_xid`` and ``open`` if they add something."""
        rest = [self.next_xid, list(self.open)] if self.next_xid != self.horizon else []
        return [self.horizon, self.highest, *rest]

    @classmethod
    def from_json(cls, data: Sequence[Any]) -> Self:
        """Read the JSON of ``to_json``."""
        horizon, highest, *rest = data
        next_xid, unfinished = rest or (horizon, ())
        return cls(horizon, next_xid, tuple(unfinished), highest)


@dataclass(frozen=True)
class RowCounts:
    """What the objects of the current generation of a table add up to.

    Attributes:
        rows: Their rows; None if a version of pg_bronze that did not count wrote some of them.
        day_rows: The rows of those that were written on the same UTC day as the last one; None in the same case.
        late: Their late rows, as far as they were counted; None if the table never had a cursor column.
        polls: What the next rows are compared with, oldest first; empty if the watermark alone says it.
    """

    rows: int | None = 0
    day_rows: int | None = 0
    late: int | None = None
    polls: tuple[Poll, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON, without what is not known."""
        data = {"rows": self.rows, "day_rows": self.day_rows, "late": self.late}
        known: dict[str, Any] = {name: value for name, value in data.items() if value is not None}
        return {**known, "polls": [poll.to_json() for poll in self.polls]} if self.polls else known

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read the JSON of ``to_json``."""
        polls = tuple(Poll.from_json(poll) for poll in data.get("polls", ()))
        return cls(data.get("rows"), data.get("day_rows"), data.get("late"), polls)
