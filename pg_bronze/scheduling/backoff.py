"""Retries: when a table that failed is tried again, and what is said of it meanwhile.

Who can cure an error decides: what the next tick may cure is tried at the next ticks and then every two minutes, what
only a person can cure after 1, 2, 4 … 30 minutes, and at once when something changed that could be the cure.
No clock, no Dagster.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pg_bronze.errors import Cure

# Most faults of a network or a restart are over within three ticks.
PROMPT_TRIES = 3
_FIRST_S: Mapping[Cure, float] = {"next tick": 15.0, "operator": 60.0, "never": 60.0}
_LONGEST_S: Mapping[Cure, float] = {"next tick": 120.0, "operator": 1800.0, "never": 1800.0}
_NAMES_SHOWN = 3


@dataclass(frozen=True)
class Trouble:
    """What is known of a table that failed ``count`` times in a row; times are seconds since 1970.

    ``sentence`` is its last error, ``since`` its first failure, ``last`` the latest one. ``state`` stands for the
    settings and the table's definition as they were then.
    """

    sentence: str
    cure: Cure
    count: int
    since: float
    last: float
    state: str = ""


def pause_s(cure: Cure, count: int) -> float:
    """Seconds from the ``count``-th failure in a row to the next try; 0 is the next tick."""
    grown = count - PROMPT_TRIES if cure == "next tick" else count
    if grown <= 0:
        return 0.0
    # 2**20 is beyond every limit; the power of a table that has failed for years is not computed.
    return min(_LONGEST_S[cure], _FIRST_S[cure] * 2.0 ** min(grown - 1, 20))


def after(
    before: Trouble | None, sentence: str, cure: Cure, now: float, state: str = "", by_hand: bool = False
) -> Trouble:
    """The trouble after one more failure.

    ``by_hand``: a person asked for this try, and may be about to ask again; the pauses begin anew, as they do when
    ``state`` is not what it was.
    """
    if before is None:
        return Trouble(sentence, cure, 1, now, now, state)
    anew = by_hand or before.state != state or before.cure != cure
    return Trouble(sentence, cure, 1 if anew else before.count + 1, min(before.since, now), now, state)


def next_try(trouble: Trouble, state: str, restarted: float = 0.0) -> float:
    """When the table is to be tried again, in seconds since 1970; a time in the past means now.

    ``state`` stands for settings and definition as they are now. ``restarted`` is when the present process took up
    work: it may have been given another password, which no state shows, so it waits only as after a first failure.
    """
    if state != trouble.state:
        return trouble.last
    count = 1 if restarted > trouble.last else trouble.count
    return trouble.last + pause_s(trouble.cure, count)


def said(troubles: Mapping[str, tuple[Trouble, float]], now: float) -> list[str]:
    """One sentence for each cause: which tables, since when, why, and when they are tried next.

    ``troubles`` gives the trouble and the time of the next try of each table by its name.
    """
    by_cause: dict[str, list[str]] = {}
    for name, (trouble, _) in sorted(troubles.items(), key=lambda item: (item[1][0].since, item[0])):
        by_cause.setdefault(trouble.sentence, []).append(name)
    sentences = []
    for sentence, names in by_cause.items():
        since = min(troubles[name][0].since for name in names)
        then = min(troubles[name][1] for name in names)
        again = f"tried again at {_clock(then, now)}, or when it is materialized by hand" if then > now else "due now"
        failed = max(troubles[name][0].count for name in names)
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
