"""`pg-bronze verify`: the objects of a past day compared with the chain of footers; missing ones are written again."""

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from pg_bronze.cli.opened import Opened, opened
from pg_bronze.cli.progress_bars import counted
from pg_bronze.cli.rebuild import chosen
from pg_bronze.cli.state_changes import table_syncs
from pg_bronze.cli.terminal import of_a_command, terminal
from pg_bronze.errors import PgBronzeError

if TYPE_CHECKING:
    from pg_bronze.core.table import SourceTable
    from pg_bronze.sync.table_sync import TableSync
    from pg_bronze.sync.verify_day import DayReport


def run_verify(day: date, labels: Sequence[str], as_json: bool) -> int:
    """Verify a day of the named tables or of all, record and print the reports, and return the exit code."""
    reports: list[dict[str, Any]] = []
    with opened() as of_project, table_syncs(of_project) as sync_of:
        for table in counted(chosen(of_project, labels), "verifying"):
            try:
                report = _verify(of_project, sync_of(table), table, day)
            except PgBronzeError as error:
                sentence = f"{table.label}: {str(error).removeprefix(f'{table.label}: ')}"
                terminal.complain(sentence)
                reports.append({"table": table.label, "error": of_a_command(sentence)})
                continue
            (terminal.complain if report.lost else terminal.print)(report.sentence)
            reports.append(_entry(report))
    if as_json:
        terminal.document({"day": day.isoformat(), "tables": reports})
    return int(any(item.get("error") or item["lost"] for item in reports))


def _verify(of_project: Opened, sync: "TableSync", table: "SourceTable", day: date) -> "DayReport":
    import dagster as dg

    from pg_bronze.defs import metadata
    from pg_bronze.defs.source_names import SourceNames
    from pg_bronze.sync.verify_day import verify_day

    key = SourceNames(of_project.settings).bronze_key(table)
    recorded = metadata.watermark_of(of_project.instance.get_latest_materialization_event(key))
    report = verify_day(sync, recorded, day)
    observation = dg.AssetObservation(key, partition=day.isoformat(), metadata=report.metadata)
    of_project.instance.report_runless_asset_event(observation)
    return report


def _entry(report: "DayReport") -> dict[str, Any]:
    return {
        "table": report.label,
        "objects": report.object_count,
        "repaired": list(report.repaired),
        "lost": list(report.lost),
        "rows": report.row_count,
        "error": None,
    }
