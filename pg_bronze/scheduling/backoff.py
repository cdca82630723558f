"""Backoff: when the copy of a failing table is retried, and the sentence that reports it.

Belongs here: the pauses, and the sentences for the sensor and the command line. Does not belong here: clocks, and
where a failure is stored. The pause depends on what a retry requires: an error that is retried automatically is retried
at each of the next ticks and then every two minutes; any other after 1, 2, 4 … 30 minutes, and at once when the
settings or the definition of the table changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pg_bronze.errors import Retry

# Most network faults and restarts are over within three ticks.
IMMEDIATE_RETRIES = 3
_FIRST_PAUSE_S: Mapping[Retry, float] = {"automatic": 15.0, "after_fix": 60.0, "never": 60.0}
_LONGEST_PAUSE_S: Mapping[Retry, float] = {"automatic": 120.0, "after_fix": 1800.0, "never": 1800.0}
_NAMES_SHOWN = 3


@dataclass(frozen=True)
class Failure:
    """The failures of one table since its last success.

    Attributes:
        sentence: The text of the last error.
        retry: What a successful retry requires.
        count: The number of failures in a row; counted from 1 again after a change or a manual attempt.
        since: The time of the first failure, in seconds since 1970.
        last: The time of the last failure, in seconds since 1970.
        state: A text that changes with the settings and the definition of the table, as of the last failure.
    """

    sentence: str
    retry: Retry
    count: int
    since: float
    last: float
    state: str = ""


def pause_s(retry: Retry, count: int) -> float:
    """Return the seconds between failure number ``count`` in a row and the next retry; 0 for the next tick."""
    step = count - IMMEDIATE_RETRIES if retry == "automatic" else count
    if step <= 0:
        return 0.0
    # 2**20 exceeds every limit; larger exponents, after years of failures, overflow.
    return min(_LONGEST_PAUSE_S[retry], _FIRST_PAUSE_S[retry] * 2.0 ** min(step - 1, 20))


def record_failure(
    previous: Failure | None, sentence: str, retry: Retry, now: float, state: str = "", manual: bool = False
) -> Failure:
    """Return the failures of a table after one more.

    Args:
        previous: The earlier failures since the last success.
        sentence: The text of the error.
        retry: What a successful retry requires.
        now: The time of the failure, in seconds since 1970.
        state: The current state of the settings and the definition of the table.
        manual: Whether a person started this attempt. The pauses start again, because another attempt may follow.
    """
    if previous is None:
        return Failure(sentence, retry, 1, now, now, state)
    starts_again = manual or previous.state != state or previous.retry != retry
    return Failure(sentence, retry, 1 if starts_again else previous.count + 1, min(previous.since, now), now, state)


def next_retry_at(failure: Failure, state: str, process_started_at: float = 0.0) -> float:
    """Return the time of the next retry in seconds since 1970; a time in the past means now.

    Args:
        failure: The failures of the table.
        state: The current state of the settings and the definition of the table.
        process_started_at: When the current process started, in seconds since 1970. A password may have changed with
            a restart, which no state shows, so the pause after it is the one after a first failure.
    """
    if state != failure.state:
        return failure.last
    count = 1 if process_started_at > failure.last else failure.count
    return failure.last + pause_s(failure.retry, count)


def sentences(failures_by_table: Mapping[str, tuple[Failure, float]], now: float) -> list[str]:
    """Return one sentence per cause: the tables, since when they fail, the next retry, and the error.

    Args:
        failures_by_table: The failures and the time of the next retry of each table, by its label.
        now: The current time in seconds since 1970.
    """
    by_cause: dict[str, list[str]] = {}
    for name, (failure, _) in sorted(failures_by_table.items(), key=lambda item: (item[1][0].since, item[0])):
        by_cause.setdefault(failure.sentence, []).append(name)
    return [_sentence(cause, names, failures_by_table, now) for cause, names in by_cause.items()]


def _sentence(cause: str, names: list[str], failures_by_table: Mapping[str, tuple[Failure, float]], now: float) -> str:
    failures = [failures_by_table[name][0] for name in names]
    retry_at = min(failures_by_table[name][1] for name in names)
    since = clock(min(failure.since for failure in failures), now)
    count = max(failure.count for failure in failures)
    attempts = f"{count} attempts" if count > 1 else "1 attempt"
    retry = f"next retry at {clock(retry_at, now)}, or at once by `pg-bronze tick` or Materialize in the UI"
    if retry_at <= now:
        retry = "due for a retry now"
    return f"{name_list(names)} failing since {since} ({attempts}); {retry}: {cause}"


def name_list(names: list[str]) -> str:
    """Return up to three names; of more, their number and the first three."""
    shown = ", ".join(names[:_NAMES_SHOWN])
    return shown if len(names) <= _NAMES_SHOWN else f"{len(names)} tables ({shown}, …)"


def clock(moment: float, now: float) -> str:
    """Return a time in UTC, with the date if it is not today. Both are in seconds since 1970."""
    at, today = datetime.fromtimestamp(moment, UTC), datetime.fromtimestamp(now, UTC).date()
    return f"{at:%H:%M:%S} UTC" if at.date() == today else f"{at:%Y-%m-%d %H:%M} UTC"
