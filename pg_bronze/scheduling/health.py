"""Health: the state of each table in one tick, as the UI, the command line and the metrics show it.

Belongs here: which state a table is in, how severe that is, and the sentence about it. Does not belong here: where the
facts come from, and where a state is shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, get_args

from pg_bronze.core.table import shell_argument
from pg_bronze.scheduling import backoff, due
from pg_bronze.scheduling.backoff import Failure
from pg_bronze.scheduling.coverage import Coverage

State = Literal["up_to_date", "behind", "loading", "blocked", "sweep_overdue", "failing", "stuck", "not_copied"]
Severity = Literal["ok", "warn", "error"]
STATES: tuple[State, ...] = get_args(State)

_OTHER_HISTORY = (
    "The last copy belongs to another bucket, database or timeline than the settings, so the table is not copied. "
    "`pg-bronze tick {label}` says which, and what to do."
)


@dataclass(frozen=True)
class Targets:
    """What is acceptable for a table.

    Attributes:
        lag_s: The lag above which a table fails its check, in seconds.
        blocked_s: How long the horizon may be blocked before a table with new rows gets a warning, in seconds.
        sweep_s: The age of the oldest change of a large table above which its sweep is overdue, in seconds; None for
            one that follows from its schedule.
        worst: The most severe state that is reported.
    """

    lag_s: float
    blocked_s: float
    sweep_s: float | None = None
    worst: Literal["warn", "error"] = "error"


@dataclass(frozen=True)
class TableHealth:
    """The state of one table.

    Attributes:
        label: The table as messages name it.
        state: ``up_to_date``; ``behind`` its target; ``loading`` for the first time; ``blocked`` by an open
            transaction; ``sweep_overdue`` (changes of older rows of a large table); ``failing`` and retried
            automatically; ``stuck`` until somebody changes something; ``not_copied`` any more.
        severity: ``ok``, ``warn`` or ``error``.
        sentence: What a person should know, the remedy last.
        checked_at: When the table was checked, in seconds since 1970.
        covered_at: Every change that was committed before is in the lake, in seconds since 1970. Of a large table,
            that is true for its newest rows; ``sweep_age_s`` is the age of the others. It relies on the counters of the
            server, which may be late by 10 s.
        sweep_age_s: The age of the oldest change of a large table that may not be copied, in seconds; None for other
            tables, and if all changes are copied.
        failure: The failure of a failing or stuck table.
        next_retry: When such a table is retried, in seconds since 1970.
        copied_at: When its last copy was recorded, in seconds since 1970; None before the first one.
        lag_target_s: The lag above which it fails its check, in seconds; None for a table that is not copied any more.
    """

    label: str
    state: State
    severity: Severity
    sentence: str
    checked_at: float
    covered_at: float
    sweep_age_s: float | None = None
    failure: Failure | None = None
    next_retry: float | None = None
    copied_at: float | None = None
    lag_target_s: float | None = None

    @property
    def lag_s(self) -> float:
        """Seconds up to the check of which changes may not be in the lake; never negative."""
        return max(0.0, self.checked_at - self.covered_at)


@dataclass(frozen=True)
class Cause:
    """What keeps tables from being copied, the same for all of them.

    Attributes:
        blocked_s: How long the horizon has not moved, in seconds.
        blocked: Which transaction holds it, as a sentence; None if that is not known.
    """

    blocked_s: float = 0.0
    blocked: str | None = None


@dataclass(frozen=True)
class Found:
    """What a tick found about one table.

    Attributes:
        label: The table as messages name it.
        decision: Whether it is due, and why.
        swept: Every row below this transaction is copied, of a large table its newest rows; None if a leaf was never
            read completely.
        copied_at: When its last copy was recorded, in seconds since 1970.
        running: A run copies it now.
        failure: Why its last copy failed; None if it did not.
        next_retry: When it is retried, in seconds since 1970.
        sweep_age_s: As in ``TableHealth``.
        overdue: That its sweep is overdue, as a sentence; None if it is not.
    """

    label: str
    decision: due.Decision
    swept: int | None = None
    copied_at: float | None = None
    running: bool = False
    failure: Failure | None = None
    next_retry: float | None = None
    sweep_age_s: float | None = None
    overdue: str | None = None


def of_table(found: Found, coverage: Coverage, cause: Cause, targets: Targets, now: float) -> TableHealth:
    """Return the state of a table.

    Args:
        now: When the tick began, in seconds since 1970.
    """
    covered_at = _covered_at(found, coverage, now)
    state, severity, sentence = _state(found, cause, targets, now, now - covered_at)
    return TableHealth(
        found.label,
        state,
        targets.worst if severity == "error" else severity,
        sentence,
        now,
        covered_at,
        found.sweep_age_s,
        found.failure,
        found.next_retry if found.failure else None,
        found.copied_at,
        targets.lag_s,
    )


def not_copied(label: str, reason: str, now: float, covered_at: float) -> TableHealth:
    """Return the state of a table that was copied before and is not copied any more.

    Args:
        reason: Why, as a sentence with the remedy.
    """
    return TableHealth(label, "not_copied", "error", reason, now, min(now, covered_at))


def counts(tables: Sequence[TableHealth]) -> dict[State, int]:
    """Return how many tables are in each state, also those with none."""
    states = [table.state for table in tables]
    return {state: states.count(state) for state in STATES}


def _covered_at(found: Found, coverage: Coverage, now: float) -> float:
    if found.decision.reason == due.UNCHANGED and found.failure is None:
        return now
    known = None if found.swept is None else coverage.until(max(found.swept, _unchanged_upto(found, coverage)))
    if known is not None:
        return min(now, known)
    # It was copied before the first sample: the lag is at least the time since then, and since its last copy.
    bounds = (coverage.since, found.copied_at, now)
    return min(moment for moment in bounds if moment is not None)


def _unchanged_upto(found: Found, coverage: Coverage) -> int:
    """Return the transaction below which the last ticks found nothing missing; 0 after ids were used again."""
    upto = found.decision.hint.covered
    return upto if coverage.samples and upto <= coverage.samples[-1].next_xid else 0


def _state(found: Found, cause: Cause, targets: Targets, now: float, lag_s: float) -> tuple[State, Severity, str]:
    if found.failure is not None:
        return _failing(found, found.failure, now)
    if found.swept is None and not found.running:
        return "loading", "ok", "The first load has not copied all rows yet."
    if found.running:
        return _running(found, targets, lag_s)
    if found.decision.reason == due.OTHER_HISTORY:
        return "behind", "error", _OTHER_HISTORY.format(label=shell_argument(found.label))
    if found.decision.reason == due.BLOCKED:
        return _blocked(cause, targets, lag_s)
    if found.overdue:
        return "sweep_overdue", "warn", found.overdue.rstrip(".") + "."
    if lag_s > targets.lag_s:
        return "behind", "error", f"Changes of the last {lag_s:.0f} s may not be copied: the table is {_why(found)}."
    return "up_to_date", "ok", f"Every change before {_clock(now - lag_s)} is copied."


def _failing(found: Found, failure: Failure, now: float) -> tuple[State, Severity, str]:
    sentence = backoff.sentences({found.label: (failure, found.next_retry or failure.last)}, now)[0]
    retried = failure.retry == "automatic" and failure.count <= backoff.IMMEDIATE_RETRIES
    return ("failing", "warn", sentence) if retried else ("stuck", "error", sentence)


def _running(found: Found, targets: Targets, lag_s: float) -> tuple[State, Severity, str]:
    if found.swept is None:
        return "loading", "ok", "A run is copying the table."
    late = lag_s > targets.lag_s
    text = f"A run is copying the changes of the last {lag_s:.0f} s."
    return ("behind", "warn", text) if late else ("up_to_date", "ok", text)


def _blocked(cause: Cause, targets: Targets, lag_s: float) -> tuple[State, Severity, str]:
    holder = cause.blocked or "New rows are blocked by an open transaction"
    sentence = f"{holder.rstrip('.')}. Changes of the last {lag_s:.0f} s may not be copied."
    if lag_s > targets.lag_s:
        return "blocked", "error", sentence
    return "blocked", "warn" if cause.blocked_s > targets.blocked_s else "ok", sentence


def _why(found: Found) -> str:
    return "due, and no run has copied it yet" if found.decision.due else found.decision.reason


def _clock(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S} UTC"
