"""`reset`, `continue` and `reconcile`: commit a change of a table's watermark, and record it in Dagster's storage."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from pg_bronze.cli.opened import Opened, opened
from pg_bronze.cli.terminal import terminal
from pg_bronze.core.table import shell_argument
from pg_bronze.errors import SettingsError

if TYPE_CHECKING:
    import dagster as dg

    from pg_bronze.core.table import SourceTable
    from pg_bronze.core.watermark import Watermark
    from pg_bronze.lake.commit import SliceWriter
    from pg_bronze.lake.ledger import Committed
    from pg_bronze.settings.model import Settings
    from pg_bronze.sync.table_sync import TableSync

    Change = Callable[[TableSync, Watermark | None, SliceWriter, Settings], tuple[Committed, str | None]]
    Confirm = Callable[[TableSync, Watermark | None], None]


def run_reset(label: str, yes: bool) -> None:
    """Print what a reset does, ask, and do it.

    Raises:
        typer.Exit: With 2, nobody can be asked. With 1, the answer was no.
    """
    from pg_bronze.sync import state_changes

    def confirm(sync: "TableSync", recorded: "Watermark | None") -> None:
        terminal.print(f"{state_changes.preview_reset(sync, recorded).sentence}.")
        if not yes and not typer.confirm(f"Reset {label}?"):
            terminal.complain("nothing was changed.")
            raise typer.Exit(1)

    if not yes and not is_attended():
        terminal.complain(
            f"nobody can be asked, because standard input is no terminal. Nothing was changed. Run `pg-bronze reset "
            f"--yes {shell_argument(label)}` to copy the whole table again."
        )
        raise typer.Exit(2)
    change(label, lambda sync, recorded, writer, _: (state_changes.reset(sync, recorded, writer), None), confirm)


def is_attended() -> bool:
    """Return whether a person can answer a question."""
    return sys.stdin is not None and sys.stdin.isatty()


def change(label: str, act: "Change", confirm: "Confirm | None" = None) -> None:
    """Commit a change of a table's watermark, record it as a materialization, and print it.

    Args:
        confirm: Called before the change, without the lock of the table; it raises to change nothing.
    """
    from pg_bronze.defs import metadata
    from pg_bronze.defs.source_names import SourceNames
    from pg_bronze.lake.commit import SliceWriter

    with opened() as of_project:
        table = live_table(of_project.settings, label)
        key = SourceNames(of_project.settings).bronze_key(table)
        recorded = metadata.watermark_of(of_project.instance.get_latest_materialization_event(key))
        with table_syncs(of_project) as sync_of:
            sync = sync_of(table)
            if confirm is not None:
                confirm(sync, recorded)
            with sync:
                writer = SliceWriter(sync.ledger, sync.options.codec)
                committed, sentence = act(sync, recorded, writer, of_project.settings)
        record(of_project, key, committed)
    if sentence:
        terminal.print(f"{label}: {sentence}")
    terminal.print(f"{label}: generation {committed.watermark.generation}, object number {committed.watermark.seq}")


def record(of_project: Opened, key: "dg.AssetKey", committed: "Committed") -> None:
    """Record the commit of a change as a materialization, whose watermark the next tick continues."""
    import dagster as dg

    from pg_bronze.defs import metadata

    entries = metadata.of_watermark(committed.watermark)
    materialization = dg.AssetMaterialization(key, partition=_partition(committed.key), metadata=entries)
    of_project.instance.report_runless_asset_event(materialization)


def _partition(key: str) -> str:
    day = key.rpartition("_")[2][:8]
    return f"{day[:4]}-{day[4:6]}-{day[6:]}"


def live_table(settings: "Settings", label: str) -> "SourceTable":
    """Return a table of the database.

    Raises:
        SettingsError: There is no such table.
    """
    from pg_bronze.defs import catalog_state

    tables = {table.label: table for table in catalog_state.live(settings).tables}
    if label not in tables:
        raise SettingsError(f"There is no table {label!r}. The tables are: {', '.join(sorted(tables)) or 'none'}.")
    return tables[label]


@contextmanager
def table_syncs(of_project: Opened) -> "Iterator[Callable[[SourceTable], TableSync]]":
    """Connect, and yield what returns the sync of a table. It is not entered, so the lock is not taken."""
    from pg_bronze.defs.connections import open_control, open_source
    from pg_bronze.defs.resources import sync_options
    from pg_bronze.sync.table_sync import TableSync

    settings, store = of_project.settings, of_project.store
    store.prepare(settings.unfenced)
    with open_source(settings, "pg_bronze command") as source:
        control = open_control(settings, source)
        yield lambda table: TableSync(source, store, table, sync_options(settings, table.label), control)
