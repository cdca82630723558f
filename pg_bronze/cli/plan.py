"""`pg-bronze plan`: what the next tick would read, table by table, with the reason. Requests and changes nothing."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pg_bronze.cli import kept_memory
from pg_bronze.cli.opened import copied, opened
from pg_bronze.cli.tables import print_table
from pg_bronze.cli.terminal import of_a_command, terminal
from pg_bronze.errors import SettingsError

if TYPE_CHECKING:
    from pg_bronze.defs.due_tables import Check, TableCheck


def run_plan(as_json: bool) -> None:
    """Print what the next tick of the sensor, or the next batch of `pg-bronze run`, would read."""
    from pg_bronze.defs import catalog_state, due_tables, status, table_facts
    from pg_bronze.defs.connections import open_source
    from pg_bronze.defs.source_names import SourceNames
    from pg_bronze.scheduling import batches

    with opened() as of_project:
        settings, now = of_project.settings, datetime.now(UTC)
        state = catalog_state.read(settings, now, of_project.store)
        if state.catalog is None:
            raise SettingsError(state.error or "The catalog cannot be read.")
        tables, skipped = copied(list(state.catalog.tables), settings)
        process, names = table_facts.Process(settings), SourceNames(settings)
        kept = kept_memory.load(of_project.instance, settings)
        with open_source(settings, "pg_bronze plan", "short", lock_timeout_s=batches.ASK_WAIT_S) as source:
            checked = due_tables.check(
                of_project.instance,
                tables,
                settings,
                source,
                status.last_known(of_project.instance, names.of(status.TICK_SENSOR), kept),
                process,
                now.timestamp(),
                free_slots=table_facts.free_slots(of_project.instance, settings, source, names.bronze_keys(tables)),
            )
    if as_json:
        terminal.document(document(checked, skipped, now))
        return
    print_table(["table", "read", "reason"], rows(checked.tables, skipped))
    terminal.print(f"{checked.sentence.rstrip('.')}.")


def document(checked: "Check", skipped: Mapping[str, str], now: datetime) -> dict[str, Any]:
    """Return the plan as JSON."""
    return {
        "checked_at": now.isoformat(timespec="seconds"),
        "tables": [_entry(item) for item in checked.tables],
        "skipped": dict(skipped),
        "blocked": checked.blocked,
        "summary": checked.summary,
    }


def _entry(item: "TableCheck") -> dict[str, Any]:
    failure = None
    if item.failure is not None:
        failure = {
            "sentence": of_a_command(item.failure.sentence),
            "retry": item.failure.retry,
            "since": _time(item.failure.since),
            "next_retry": _time(item.next_retry),
        }
    decision = item.decision
    return {
        "table": item.table.label,
        "due": decision.due,
        "reason": decision.reason,
        "run": _run(item) if decision.due else None,
        "failure": failure,
    }


def rows(tables: "Sequence[TableCheck]", skipped: Mapping[str, str]) -> list[list[str]]:
    """Return the cells of each table: those that are read first, those that are never copied last."""
    ordered = sorted(tables, key=lambda item: not item.decision.due)
    found = [
        [
            item.table.label,
            {"shared": "yes"}.get(_run(item), f"yes, {_run(item)}") if item.decision.due else "no",
            item.decision.reason
            + (f", next retry at {_time(item.next_retry)}" if item.failure and not item.decision.due else ""),
        ]
        for item in ordered
    ]
    return [*found, *([label, "no", f"skipped: {reason}"] for label, reason in skipped.items())]


def _run(item: "TableCheck") -> str:
    """Return in which run a table is copied."""
    if item.large:
        return "first load"
    return "apart" if item.slow else "shared"


def _time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")
