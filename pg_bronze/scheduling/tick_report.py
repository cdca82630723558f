"""Tick report: the one line that an operator reads about a tick, trouble first.

Belongs here: sentences, made from what a check found. Does not belong here: clocks, and where the line is shown.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pg_bronze.scheduling import backoff, due

# Reasons of ``due`` that a person may have to act on. They precede the others, of which the most frequent is first.
_TROUBLE = (
    "failing",
    due.OTHER_HISTORY,
    "copied further than this database",
    "copied further than this standby",
    due.BLOCKED,
)


@dataclass(frozen=True)
class LastBatch:
    """The last batch that no person requested.

    Attributes:
        row_count: The rows that it copied.
        ended_at: When it ended, in seconds since 1970; None if not known.
    """

    row_count: int
    ended_at: float | None


def summary(reasons: Sequence[str], horizon: int, seconds: float, last: LastBatch | None, now: float) -> str:
    """Return how many tables were checked, with which results, and what the last batch copied.

    Args:
        reasons: The reason of the decision about each table.
        horizon: The transaction up to which the tables were checked.
        seconds: How long the check took.
        last: None if there was no batch yet.
        now: The current time in seconds since 1970.
    """
    counted = Counter(reasons)
    order = [*(reason for reason in _TROUBLE if reason in counted)]
    order += [reason for reason, _ in counted.most_common() if reason not in _TROUBLE]
    counts = ", ".join(f"{counted[reason]:,} {reason}" for reason in order) or "all were dropped"
    text = f"{_of(len(reasons), 'table')} checked up to transaction {horizon} in {_duration(seconds)}: {counts}"
    if last is None:
        return text
    at = "" if last.ended_at is None else f" at {backoff.clock(last.ended_at, now)}"
    return f"{text}; last batch {_of(last.row_count, 'row')}{at}"


def line(trouble: Sequence[str | None], summarized: str) -> str:
    """Return the line of a tick: what a person may have to act on, then the summary.

    Args:
        trouble: Sentences with or without a period, the most urgent one first. None stands for no trouble.
    """
    return ". ".join(part.rstrip(".") for part in (*trouble, summarized) if part)


def _of(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
