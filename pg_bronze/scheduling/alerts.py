"""Alerts: which messages are due about what the monitor found, and their text.

A cause is reported once, again at growing intervals while it lasts, and once more when it is over. Many tables with one
cause are one message. No connection, no clock: the caller sends the messages and passes the time in.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pg_bronze.scheduling import backoff
from pg_bronze.scheduling.health import TableHealth

Kind = Literal["unreachable", "blocked", "stuck", "not_copied", "behind", "sweep_overdue"]
Event = Literal["started", "continues", "recovered"]
# A restart of the database or of the bucket is shorter; so is a blocked horizon that ends by itself.
PATIENCE_S = 120.0
# While a cause lasts, after each message. The last one is repeated.
REMINDERS_S = (3600.0, 4 * 3600.0, 24 * 3600.0)
# Between two messages about one cause that spreads to other tables, or that is over and returns.
SHORTEST_PAUSE_S = 900.0
# Of one evaluation; the others are due at the next one.
MOST_AT_ONCE = 10
_TABLES_LISTED = 100
_ERRORS: tuple[Kind, ...] = ("unreachable", "stuck", "not_copied")
_TITLES: Mapping[Kind, str] = {
    "unreachable": "not checked",
    "blocked": "blocked",
    "stuck": "stuck",
    "not_copied": "not copied",
    "behind": "behind",
    "sweep_overdue": "not swept",
}


@dataclass(frozen=True)
class Cause:
    """Why something is not copied in time.

    Attributes:
        key: The same text for the same cause, at each evaluation.
        sentence: What was found, and what to do.
        since: When it began, in seconds since 1970.
        tables: The labels of the tables that have it.
    """

    key: str
    kind: Kind
    sentence: str
    since: float
    tables: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sent:
    """What was last sent about a cause.

    Attributes:
        cause: The cause as it was then.
        at: When the message was sent, in seconds since 1970.
        count: How many messages were sent while the cause lasted.
        over: The last message reported that the cause was over.
    """

    cause: Cause
    at: float
    count: int = 1
    over: bool = False


@dataclass(frozen=True)
class Alert:
    """A message that is due."""

    event: Event
    cause: Cause


def causes(
    tables: Sequence[TableHealth],
    now: float,
    blocked: str | None = None,
    blocked_s: float = 0.0,
    unreachable: str | None = None,
    unreachable_since: float = 0.0,
) -> list[Cause]:
    """Return what is worth a message.

    Args:
        tables: The health of each table as it was last found. While nothing can be checked, it is that of before:
            what is not known to be over is not reported as over.
        now: The current time, in seconds since 1970.
        blocked: Which transaction blocks new rows; None if there is none.
        blocked_s: For how long.
        unreachable: Why the tables cannot be checked; None if they were checked just now.
        unreachable_since: Since when, in seconds since 1970.
    """
    found = []
    if unreachable and now - unreachable_since >= PATIENCE_S:
        found.append(Cause("unreachable", "unreachable", unreachable, unreachable_since))
    if blocked and blocked_s >= PATIENCE_S:
        labels = tuple(item.label for item in tables if item.state == "blocked")
        found.append(Cause("blocked", "blocked", blocked, now - blocked_s, labels))
    grouped: dict[str, list[Cause]] = {}
    for item in tables:
        if cause := _of_table(item):
            grouped.setdefault(cause.key, []).append(cause)
    return found + [_together(same) for same in grouped.values()]


def _of_table(item: TableHealth) -> Cause | None:
    """Return the cause of one table; None if there is none, or if it is reported for all tables together."""
    if item.state == "behind" or item.state == "sweep_overdue":
        return Cause(item.state, item.state, item.sentence, item.covered_at, (item.label,))
    if item.state != "stuck" and item.state != "not_copied":
        return None
    error, since = (item.failure.sentence, item.failure.since) if item.failure else (item.sentence, item.covered_at)
    return Cause(f"{item.state}: {_common(error, item.label)}", item.state, error, since, (item.label,))


def _common(sentence: str, label: str) -> str:
    """Return what an error of several tables has in common: without the table, and without numbers and times."""
    name = re.escape(label.rpartition(".")[2])
    return re.sub(r"\d+", "0", re.sub(rf"(?<!\w)({re.escape(label)}|{name})(?!\w)", "…", sentence))


def _together(same: Sequence[Cause]) -> Cause:
    """Return one cause for all tables that have it, with the sentence of the first of them."""
    first = min(same, key=lambda cause: (cause.since, cause.tables))
    labels = tuple(sorted(label for cause in same for label in cause.tables))
    return Cause(first.key, first.kind, first.sentence, first.since, labels)


def due(sent: Mapping[str, Sent], found: Sequence[Cause], now: float) -> list[Alert]:
    """Return the messages that are due now, at most ``MOST_AT_ONCE``.

    Args:
        sent: What was last sent about each cause, by its key.
        found: All causes at this moment.
        now: The current time, in seconds since 1970.
    """
    alerts = [Alert(event, cause) for cause in found if (event := _event(sent.get(cause.key), cause, now))]
    present = {cause.key for cause in found}
    over = [last.cause for key, last in sent.items() if key not in present and not last.over]
    return [*(Alert("recovered", cause) for cause in over), *alerts][:MOST_AT_ONCE]


def _event(last: Sent | None, cause: Cause, now: float) -> Event | None:
    if last is None:
        return "started"
    waited_s = now - last.at
    if last.over:
        return "started" if waited_s >= SHORTEST_PAUSE_S else None
    spreads = not set(cause.tables) <= set(last.cause.tables)
    pause_s = REMINDERS_S[min(last.count, len(REMINDERS_S)) - 1]
    return "continues" if waited_s >= (SHORTEST_PAUSE_S if spreads else pause_s) else None


def after(sent: Mapping[str, Sent], alert: Alert, now: float) -> dict[str, Sent]:
    """Return what was last sent about each cause, after a message. What was over long ago is forgotten."""
    last = sent.get(alert.cause.key)
    count = last.count + 1 if last and alert.event == "continues" else 1
    kept = {key: item for key, item in sent.items() if not item.over or now - item.at < SHORTEST_PAUSE_S}
    return kept | {alert.cause.key: Sent(alert.cause, now, count, alert.event == "recovered")}


def text(alert: Alert, source: str, now: float) -> str:
    """Return the message as a line: the source, the tables, what is the matter, and what to do."""
    cause = alert.cause
    names = f"{backoff.name_list(list(cause.tables))}: " if cause.tables else ""
    title, duration = _TITLES[cause.kind], _duration(now - cause.since)
    if alert.event == "recovered":
        return f"pg_bronze, {source}: {names}recovered after {duration} ({title})"
    state = f"still {title} after {duration}" if alert.event == "continues" else f"{title} for {duration}"
    return f"pg_bronze, {source}: {names}{state}. {cause.sentence}"


def payload(alert: Alert, source: str, now: float) -> dict[str, Any]:
    """Return the JSON object of a message: ``text`` for Slack and alike, and the same as fields for programs."""
    cause = alert.cause
    return {
        "text": _escaped(text(alert, source, now)),
        "event": alert.event,
        "kind": cause.kind,
        "severity": "ok" if alert.event == "recovered" else "error" if cause.kind in _ERRORS else "warn",
        "source": source,
        "sentence": cause.sentence,
        "tables": list(cause.tables[:_TABLES_LISTED]),
        "table_count": len(cause.tables),
        "since": _utc(cause.since),
        "at": _utc(now),
    }


def _duration(seconds: float) -> str:
    """Return a duration in the largest unit that has at least two of it."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _escaped(line: str) -> str:
    """Return the text without control sequences of Slack: a table may be named ``<!channel>``."""
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
