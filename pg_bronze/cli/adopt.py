"""`pg-bronze adopt`: continue the copy of all tables in another bucket, after their objects were moved."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pg_bronze.cli.opened import Opened, opened
from pg_bronze.cli.progress_bars import counted
from pg_bronze.cli.rebuild import chosen
from pg_bronze.cli.state_changes import record, table_syncs
from pg_bronze.cli.terminal import of_a_command, terminal
from pg_bronze.errors import PgBronzeError

if TYPE_CHECKING:
    from pg_bronze.core.table import SourceTable
    from pg_bronze.lake.ledger import Committed
    from pg_bronze.sync.table_sync import TableSync


def run_adopt(labels: Sequence[str], as_json: bool) -> int:
    """Adopt the named tables or all, print what was done, and return the exit code."""
    done: list[dict[str, Any]] = []
    with opened() as of_project, table_syncs(of_project) as sync_of:
        for table in counted(chosen(of_project, labels), "adopting"):
            try:
                committed = _adopt(of_project, sync_of(table), table)
            except PgBronzeError as error:
                sentence = f"{table.label}: {str(error).removeprefix(f'{table.label}: ')}"
                terminal.complain(sentence)
                done.append({"table": table.label, "adopted": False, "error": of_a_command(sentence)})
                continue
            found = (
                f"continues in this bucket with object number {committed.watermark.seq}"
                if committed
                else "nothing to adopt"
            )
            terminal.print(f"{table.label}: {found}")
            done.append({"table": table.label, "adopted": committed is not None, "error": None})
    if as_json:
        terminal.document({"tables": done})
    return int(any(item["error"] for item in done))


def _adopt(of_project: Opened, sync: "TableSync", table: "SourceTable") -> "Committed | None":
    from pg_bronze.defs import metadata
    from pg_bronze.defs.source_names import SourceNames
    from pg_bronze.lake.commit import SliceWriter
    from pg_bronze.sync import state_changes

    key = SourceNames(of_project.settings).bronze_key(table)
    recorded = metadata.watermark_of(of_project.instance.get_latest_materialization_event(key))
    with sync:
        committed = state_changes.adopt(sync, recorded, SliceWriter(sync.ledger, sync.options.codec))
    if committed is not None:
        record(of_project, key, committed)
    return committed
