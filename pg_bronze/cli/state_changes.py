"""`reset`, `continue` and `reconcile`: commit a change of a table's watermark, and record it in Dagster's storage."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from pg_bronze.cli.instance import open_instance
from pg_bronze.cli.terminal import terminal
from pg_bronze.errors import SettingsError

if TYPE_CHECKING:
    from pg_bronze.core.table import SourceTable
    from pg_bronze.core.watermark import Watermark
    from pg_bronze.lake.commit import SliceWriter
    from pg_bronze.lake.ledger import Committed
    from pg_bronze.settings.model import Settings
    from pg_bronze.sync.table_sync import TableSync

    Change = Callable[[TableSync, Watermark | None, SliceWriter, Settings], tuple[Committed, str | None]]


def change(label: str, act: "Change") -> None:
    """Commit a change of a table's watermark, record it as a materialization, and print it."""
    import dagster as dg

    from pg_bronze.defs import asset_keys, metadata
    from pg_bronze.settings.load import load_settings
    from pg_bronze.settings.process import tune_process

    tune_process()
    with open_instance() as instance:  # which changes to the folder that holds .env
        settings = load_settings()
        table = _table(settings, label)
        key = asset_keys.bronze_key(table)
        recorded = metadata.watermark_of(instance.get_latest_materialization_event(key))
        committed, sentence = _commit(settings, table, recorded, act)
        entries = metadata.of_watermark(committed.watermark)
        day = committed.key.rpartition("_")[2][:8]
        partition = f"{day[:4]}-{day[4:6]}-{day[6:]}"
        instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=partition, metadata=entries))
    if sentence:
        terminal.print(f"{label}: {sentence}")
    terminal.print(f"{label}: generation {committed.watermark.generation}, object number {committed.watermark.seq}")


def _table(settings: "Settings", label: str) -> "SourceTable":
    from pg_bronze.defs import catalog_state

    tables = {table.label: table for table in catalog_state.live(settings).tables}
    if label not in tables:
        raise SettingsError(f"There is no table {label!r}. The tables are: {', '.join(sorted(tables)) or 'none'}.")
    return tables[label]


def _commit(
    settings: "Settings", table: "SourceTable", recorded: "Watermark | None", act: "Change"
) -> "tuple[Committed, str | None]":
    from pg_bronze.defs.connections import open_bucket, open_control, open_source
    from pg_bronze.defs.resources import sync_options
    from pg_bronze.lake.commit import SliceWriter
    from pg_bronze.sync.table_sync import TableSync

    store = open_bucket(settings)
    store.prepare(settings.unfenced)
    options = sync_options(settings, table.label)
    with (
        open_source(settings, "pg_bronze command") as source,
        TableSync(source, store, table, options, open_control(settings, source)) as sync,
    ):
        return act(sync, recorded, SliceWriter(sync.ledger, options.codec), settings)
