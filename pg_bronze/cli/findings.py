"""Findings of `pg-bronze doctor`: what was found, how severe it is, and what mends it. No I/O, no clock."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from pg_bronze.cli.terminal import of_a_command
from pg_bronze.core import risky_values
from pg_bronze.core.risky_values import RiskyColumn
from pg_bronze.core.table import SourceTable
from pg_bronze.postgres.activity import STALLED_AFTER_S, OldestTransaction

Severity = Literal["ok", "advice", "warn", "error"]
SEVERITIES: tuple[Severity, ...] = ("error", "warn", "advice", "ok")
# The key of an object has the second of its write, and S3 rejects requests that are 15 minutes off.
SKEW_S, WRONG_SKEW_S = 5.0, 600.0
_NAMES_SHOWN = 3
_STATEMENT = re.compile(r"; (?=grant |alter role )")
_ALTERNATIVE = re.compile(r", or (?=grant |read )")


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        severity: ``error``: a table is not copied, or not safely. ``warn``: something keeps rows back or is about to
            go wrong. ``advice``: the copy is right and could be better. ``ok``: nothing to do.
        subject: A table as messages name it, or what was examined, such as ``bucket``.
        sentence: What was found, without a period.
        remedy: A statement or command that can be pasted; None if there is none.
    """

    severity: Severity
    subject: str
    sentence: str
    remedy: str | None = None

    @property
    def lines(self) -> list[str]:
        """The finding as lines of a terminal."""
        first = f"{self.severity:<6}  {self.subject}: {self.sentence}"
        return [first, *([f"        {self.remedy}"] if self.remedy else [])]


def exit_code(findings: Sequence[Finding]) -> int:
    """Return 1 if something is wrong, otherwise 0. Advice is not wrong."""
    return int(any(finding.severity in ("error", "warn") for finding in findings))


def summary(findings: Sequence[Finding]) -> str:
    """Return how many findings of each severity there are, as a sentence."""
    counts = {severity: sum(item.severity == severity for item in findings) for severity in SEVERITIES}
    if not counts["error"] + counts["warn"] + counts["advice"]:
        return "Nothing to do."
    parts = (f"{counts['error']:,} wrong", f"{counts['warn']:,} with a warning", f"{counts['advice']:,} to improve")
    return f"{', '.join(parts)}, {counts['ok']:,} ok."


def of_clock(subject: str, ahead_s: float) -> Finding:
    """Return the finding about the clock of a server.

    Args:
        subject: The server.
        ahead_s: The seconds by which the clock of this machine is ahead; negative if it is behind.
    """
    text = f"its clock and that of this machine differ by {abs(ahead_s):.1f} s"
    if abs(ahead_s) <= SKEW_S:
        return Finding("ok", subject, text)
    severity: Severity = "error" if abs(ahead_s) > WRONG_SKEW_S else "warn"
    direction = "ahead" if ahead_s > 0 else "behind"
    advice = "The days and times of objects are those of this machine. Synchronize both clocks"
    return Finding(severity, subject, f"{text}, and this machine is {direction}. {advice}")


def of_bucket_error(sentence: str, name: str, unfenced: bool) -> Finding:
    """Return the finding about a bucket that cannot be used as it is.

    Args:
        name: The bucket.
        unfenced: The settings accept that several writers create the same object.
    """
    if "does not exist on" in sentence:
        return Finding("advice", "bucket", f"{name} does not exist. The first run creates it, if the keys allow that")
    accepted = unfenced and "simultaneous writers created" in sentence
    return Finding("warn" if accepted else "error", "bucket", of_a_command(sentence))


def of_transaction(found: OldestTransaction | None, behind: int) -> Finding:
    """Return the finding about the oldest open transaction.

    Args:
        behind: How many transaction ids the horizon is behind the next one.
    """
    if found is None:
        if behind:
            return Finding("ok", "transactions", f"the horizon is {behind:,} ids behind; this role sees no holder")
        return Finding("ok", "transactions", "none with an id is open")
    if (found.open_s or 0.0) < STALLED_AFTER_S:
        return Finding("ok", "transactions", f"the oldest: {found.sentence(STALLED_AFTER_S)}")
    sentence = f"{found.sentence(float('inf'))}; rows of all later transactions are not copied until it ends"
    return Finding("warn", "transactions", sentence, found.remedy)


def of_place(standby: bool, pooled: bool, counted: bool, encoding: str = "UTF8") -> list[Finding]:
    """Return the findings about what is between pg_bronze and the tables.

    Args:
        standby: The server is a standby.
        pooled: A pooler is in front of it.
        counted: The server counts row versions.
        encoding: The encoding of the database.
    """
    found = []
    if standby:
        text = "it is a standby: rows arrive when it has replayed them, and its counters do not show changed tables"
        found.append(Finding("advice", "database", f"{text}. Set PG_HOST to the primary if that may be read"))
    if pooled:
        text = "a pooler is in front of it: slices are read with COPY, and locks of runs are not shared"
        found.append(Finding("advice", "database", f"{text}. Set PG_HOST and PG_PORT to the server itself"))
    if not counted and not standby:
        text = "it does not count changed rows (track_counts is off), so every tick reads all tables"
        found.append(Finding("warn", "database", text, "alter system set track_counts = on; select pg_reload_conf()"))
    if encoding == "SQL_ASCII":
        text = "its encoding is SQL_ASCII, which accepts any bytes: a text that is not valid UTF-8 stops its table"
        found.append(Finding("advice", "database", text))
    return found


def of_skipped(label: str, reason: str, forbidden: bool, revoked: bool) -> Finding:
    """Return the finding about a table that is not copied, with the statement that grants a missing right.

    Args:
        revoked: It was copied before.
    """
    if not forbidden:
        return Finding("ok", label, f"it is not copied: {reason}")
    what, *statements = _STATEMENT.split(reason, maxsplit=1)
    first, *others = _ALTERNATIVE.split(statements[0]) if statements else [""]
    rest = f" (or {', or '.join(others)})" if others else ""
    remedy = f"{first};" if first else None
    if revoked:
        return Finding("error", label, f"it was copied before, and is not any more: {what}{rest}", remedy)
    text = f"it is not copied: {what}{rest}. If that is intended, add it to PG_BRONZE_EXCLUDE"
    return Finding("warn", label, text, remedy)


def of_index(label: str, statement: str | None, order: str | None) -> Finding | None:
    """Return the finding about an index that would find new rows of a large table; None if none is missing."""
    if statement is None:
        return None
    found = f"new rows are found by {order}" if order else "no index finds its new rows, so they arrive with a sweep"
    return Finding("advice", label, f"{found}. An index on a column that every update sets is better", f"{statement};")


def of_small(count: int, total: int, read_s: float) -> Finding | None:
    """Return why indexes of small tables are not judged; None without such a table.

    Args:
        count: The number of tables that are read completely in each tick.
        total: The number of all tables.
        read_s: The seconds that such a read takes at most.
    """
    if not count:
        return None
    text = (
        f"a table that is read completely in at most {read_s:g} s, 1 % of the interval of ticks, needs none: "
        f"{count:,} of {total:,} tables. A missing one is listed for larger tables alone"
    )
    return Finding("ok", "indexes", text)


def of_untriggered(names: Sequence[str], large: Collection[str]) -> list[Finding]:
    """Return the findings about columns that are named for the time of an update and set by no trigger.

    Args:
        names: The columns, as ``movie.updated_at``.
        large: Those that find the new rows of a large table.
    """
    found = [
        Finding(
            "advice",
            "triggers",
            f"no trigger sets {name}, which finds the changed rows of a large table. An update that does not set it "
            "arrives with the next sweep",
        )
        for name in names
        if name in large
    ]
    if small := [name for name in names if name not in large]:
        text = f"no trigger sets {listed(small)}. Every update is copied, but readers that compare it may miss some"
        found.append(Finding("advice", "triggers", text))
    return found


def of_values(label: str, risks: Sequence[RiskyColumn], exceptional: Collection[str]) -> list[Finding]:
    """Return the findings about columns of which the statistics contain a value that stops the table.

    Args:
        exceptional: The columns of the table whose statistics contain infinity or NaN.
    """
    return [
        Finding(
            "warn",
            label,
            f"the statistics of column {risk.column.name} ({risk.column.declared}) contain "
            f"{risky_values.SHOWN[risk.kind]}, and {risky_values.SETTINGS[risk.kind]} is error: such a value stops the "
            "table",
            f"{risky_values.SETTINGS[risk.kind]}=text",
        )
        for risk in risks
        if risk.kind in risky_values.SHOWN and risk.column.name in exceptional
    ]


def of_risks(risks: Sequence[tuple[SourceTable, RiskyColumn]]) -> Finding:
    """Return the finding about all columns that can contain a value which stops their table."""
    columns = {f"{table.label}.{risk.column.name}" for table, risk in risks}
    if not columns:
        return Finding("ok", "values", "every value of every column can be stored")
    kinds = {risk.kind for _, risk in risks}
    settings = ", ".join(setting for kind, setting in risky_values.SETTINGS.items() if kind in kinds)
    text = f"{len(columns):,} columns have types with values that stop their table ({settings}: error)"
    return Finding("ok", "values", f"{text}: {listed(sorted(columns))}")


def listed(names: Sequence[str]) -> str:
    """Return up to three names, and the number of the others."""
    shown = ", ".join(names[:_NAMES_SHOWN])
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} and {len(names) - _NAMES_SHOWN:,} more"
