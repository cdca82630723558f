"""TODO cli.state_changes."""

from typing import TYPE_CHECKING, Any

from pg_bronze.cli.instance import open_instance
from pg_bronze.cli.terminal import errors_as_sentences
from pg_bronze.errors import SettingsError

if TYPE_CHECKING:
    from pg_bronze.sync.table_sync import SliceStream


def change(label: str, act: "Any") -> None:
    """Commit a change of one table's watermark and record it where the next run looks."""
    import gc

    import dagster as dg

    from pg_bronze.defs import asset_keys, catalog_state, metadata
    from pg_bronze.defs.resources import Bucket, open_control, open_source, sync_options
    from pg_bronze.settings.load import load_settings

    gc.freeze()  # as pg_bronze.definitions does, and for the same reason
    with errors_as_sentences(), open_instance() as instance:
        settings = load_settings()
        found = {table.label: table for table in catalog_state.live(settings).tables}
        if label not in found:
            raise SettingsError(f"there is no table {label!r} (tables: {', '.join(sorted(found)) or 'none'}).")
        table = found[label]
        key = asset_keys.bronze_key(table)
        recorded = metadata.watermark_of(instance.get_latest_materialization_event(key))
        store = Bucket.from_settings(settings).open()
        store.prepare(settings.unfenced)
        from pg_bronze.sync.table_sync import TableSync

        with (
            open_source(settings, "pg_bronze command") as source,
            TableSync(source, store, table, sync_options(settings, label), open_control(settings, source)) as copy,
        ):
            stream: SliceStream = act(copy, recorded)
            for piece in stream.without_new(keep_first=True):
                stream.commit(piece)
            day = copy.layout.day(stream.watermark.key)
            instance.report_runless_asset_event(
                dg.AssetMaterialization(
                    key, partition=day.isoformat() if day else None, metadata=metadata.of_watermark(stream.watermark)
                )
            )
        print(f"{label}: generation {stream.watermark.generation}, object number {stream.watermark.seq}")
