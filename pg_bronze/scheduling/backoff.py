"""Retries: when a table that failed is tried again, and what is said of it meanwhile.

Who can retry an error decides: what the next tick may retry is tried at the next ticks and then every two minutes, what
only a person can retry after 1, 2, 4 … 30 minutes, and at once when something changed that could be the retry.
No clock, no Dagster.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pg_bronze.errors import Retry

# Most faults of a network or a restart are over within three ticks.
PROMPT_TRIES = 3
_FIRST_S: Mapping[Retry, float] = {"automatic": 15.0, "after_fix": 60.0, "never": 60.0}
_LONGEST_S: Mapping[Retry, float] = {"automatic": 120.0, "after_fix": 1800.0, "never": 1800.0}
_NAMES_SHOWN = 3


@dataclass(frozen=True)
class Failure:
    """What is known of a table that failed ``count`` times in a row; times are seconds since 1970.

    ``sentence`` is its last error, ``since`` its first failure, ``last`` the latest one. ``state`` stands for the
    settings and the table's definition as they were then.
    """

    sentence: str
    retry: Retry
    count: int
    since: float
    last: float
    state: str = ""


def pause_s(retry: Retry, count: int) -> float:
    """Seconds from the ``count``-th failure in a row to the next try; 0 is the next tick."""
    grown = count - PROMPT_TRIES if retry == "automatic" else count
    if grown <= 0:
        return 0.0
    # 2**20 is beyond every limit; the power of a table that has failed for years is not computed.
    return min(_LONGEST_S[retry], _FIRST_S[retry] * 2.0 ** min(grown - 1, 20))


def after(
    before: Failure | None, sentence: str, retry: Retry, now: float, state: str = "", by_hand: bool = False
) -> Failure:
    """The failure_state after one more failure.

    ``by_hand``: a person asked for this try, and may be about to ask again; the pauses begin anew, as they do when
    ``state`` is not what it was.
    """
    if before is None:
        return Failure(sentence, retry, 1, now, now, state)
    anew = by_hand or before.state != state or before.retry != retry
    return Failure(sentence, retry, 1 if anew else before.count + 1, min(before.since, now), now, state)


def next_try(failure_state: Failure, state: str, restarted: float = 0.0) -> float:
    """When the table is to be tried again, in seconds since 1970; a time in the past means now.

    ``state`` stands for settings and definition as they are now. ``restarted`` is when the present process took up
    work: it may have been given another password, which no state shows, so it waits only as after a first failure.
    """
    if state != failure_state.state:
        return failure_state.last
    count = 1 if restarted > failure_state.last else failure_state.count
    return failure_state.last + pause_s(failure_state.retry, count)


def said(failures_by_table: Mapping[str, tuple[Failure, float]], now: float) -> list[str]:
    """One sentence for each cause: which tables, since when, why, and when they are tried next.

    ``failures_by_table`` gives the failure_state and the time of the next try of each table by its name.
    """
    by_cause: dict[str, list[str]] = {}
    for name, (failure_state, _) in sorted(failures_by_table.items(), key=lambda item: (item[1][0].since, item[0])):
        by_cause.setdefault(failure_state.sentence, []).append(name)
    sentences = []
    for sentence, names in by_cause.items():
        since = min(failures_by_table[name][0].since for name in names)
        then = min(failures_by_table[name][1] for name in names)
        again = f"tried again at {_clock(then, now)}, or when it is materialized by hand" if then > now else "due now"
        failed = max(failures_by_table[name][0].count for name in names)
        tries = f"{failed} tries" if failed > 1 else "1 try"
        sentences.append(f"{listed(names)} stuck since {_clock(since, now)} ({tries}; {again}): {sentence}")
    return sentences


def listed(names: list[str]) -> str:
    """Up to three names, or how many there are and the first three."""
    shown = ", ".join(names[:_NAMES_SHOWN])
    return shown if len(names) <= _NAMES_SHOWN else f"{len(names)} tables ({shown}, …)"


def _clock(moment: float, now: float) -> str:
    """A time in UTC, with its day unless that is today."""
    there, here = datetime.fromtimestamp(moment, UTC), datetime.fromtimestamp(now, UTC)
    return f"{there:%H:%M:%S} UTC" if there.date() == here.date() else f"{there:%Y-%m-%d %H:%M} UTC"
