"""`pg-bronze status`: the state of all tables, as a table for people and as JSON for programs."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pg_bronze.cli import kept_memory
from pg_bronze.cli.instance import open_instance
from pg_bronze.cli.terminal import terminal
from pg_bronze.errors import SettingsError

if TYPE_CHECKING:
    import dagster as dg

    from pg_bronze.defs.status import Status, TableStatus

_HEADINGS = ("table", "state", "lag", "rows", "late rows", "sweep age", "last copied")
_MARKS = {"ok": "", "warn": "!", "error": "!!"}


def show(as_json: bool) -> bool:
    """Print the state of all tables; return whether none has the severity ``error``."""
    with open_instance() as instance:
        status = _read(instance)
    if as_json:
        terminal.document(document(status))
    else:
        for line in lines(status):
            terminal.print(line)
    return all(table.health.severity != "error" for table in status.tables)


def _read(instance: "dg.DagsterInstance") -> "Status":
    from pg_bronze.defs import catalog_state, skipped_tables, status
    from pg_bronze.defs.connections import open_source
    from pg_bronze.defs.source_names import SourceNames
    from pg_bronze.defs.table_facts import Process
    from pg_bronze.scheduling import batches
    from pg_bronze.settings.load import load_settings

    settings, now = load_settings(), datetime.now(UTC)
    state = catalog_state.read(settings, now)
    if state.catalog is None or state.remembered:
        raise SettingsError(state.remembered or state.error or "The catalog cannot be read.")
    tables = [table for table in state.catalog.tables if settings.wants(table.label)]
    copied = [table for table in tables if skipped_tables.reason(table, settings) is None]
    kept = kept_memory.load(instance, settings)
    with open_source(settings, "pg_bronze status", "short", lock_timeout_s=batches.ASK_WAIT_S) as source:
        found = status.read(instance, copied, settings, source, kept, Process(settings), now.timestamp())
    return status.with_former(instance, found, state.former, SourceNames(settings))


def document(status: "Status") -> dict[str, Any]:
    """Return the state of all tables as JSON values. Times are ISO 8601 in UTC, durations seconds."""
    return {
        "checked_at": _iso(status.checked_at),
        "summary": status.summary,
        "blocked": status.blocked,
        "blocked_s": round(status.blocked_s, 1),
        "tables": [_entry(table) for table in status.tables],
    }


def _entry(table: "TableStatus") -> dict[str, Any]:
    health, failure = table.health, table.health.failure
    return {
        "table": health.label,
        "state": health.state,
        "severity": health.severity,
        "sentence": health.sentence,
        "lag_s": round(health.lag_s, 1),
        "covered_at": _iso(health.covered_at),
        "sweep_age_s": None if health.sweep_age_s is None else round(health.sweep_age_s, 1),
        "failure": None if failure is None else {**asdict(failure), "since": _iso(failure.since)},
        "next_retry": _iso(health.next_retry),
        "copied_at": _iso(table.copied_at),
        "object": table.uri,
        "rows": table.row_count,
        "late_rows": table.late_rows,
        "order": table.order,
        "cursor_column": table.cursor_column,
        "cursor_value": table.cursor_value,
        "cursor_age_s": table.cursor_age_s,
        "load_share": table.load_share,
    }


def lines(status: "Status") -> list[str]:
    """Return the state of all tables for people: a line for each table, then a sentence for each that needs one."""
    rows = [_HEADINGS, *(_row(table, status.checked_at) for table in status.tables)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_HEADINGS))]
    found = [_line(row, widths) for row in rows]
    sentences = [f"{table.health.label}: {table.health.sentence}" for table in status.tables if _needs_words(table)]
    return [*found, status.summary + ".", *sentences]


def _needs_words(table: "TableStatus") -> bool:
    return table.health.severity != "ok"


def _row(table: "TableStatus", now: float) -> tuple[str, ...]:
    health = table.health
    share = "" if table.load_share is None else f" {table.load_share:.0%}"
    return (
        health.label,
        f"{health.state.replace('_', ' ')}{share} {_MARKS[health.severity]}".rstrip(),
        _seconds(health.lag_s),
        "" if table.row_count is None else f"{table.row_count:,}",
        "" if table.late_rows is None else f"{table.late_rows:,}",
        "" if health.sweep_age_s is None else _seconds(health.sweep_age_s),
        "never" if table.copied_at is None else f"{_seconds(now - table.copied_at)} ago",
    )


def _line(row: "tuple[str, ...]", widths: list[int]) -> str:
    cells = [
        cell.ljust(width) if place < 2 else cell.rjust(width)
        for place, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def _seconds(seconds: float) -> str:
    from pg_bronze.core.load_progress import duration

    return duration(max(0.0, seconds))


def _iso(moment: float | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
