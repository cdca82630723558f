"""Definitions: everything Dagster loads, built from the settings and the catalog."""

from datetime import UTC, datetime

import dagster as dg

from pg_bronze.core import cursor_column
from pg_bronze.core.table import SourceTable
from pg_bronze.defs import asset_keys, assets, catalog_state, silver
from pg_bronze.defs.catalog_state import CatalogState
from pg_bronze.defs.io_managers import NewestParquetIOManager, S3ParquetIOManager
from pg_bronze.defs.resources import Bucket, SourceDatabase, resource_of
from pg_bronze.defs.sensors import catalog, tick
from pg_bronze.defs.sensors import silver as silver_sensor
from pg_bronze.errors import SettingsError
from pg_bronze.settings.load import load_settings
from pg_bronze.settings.model import Settings


def load_definitions() -> dg.Definitions:
    """Load the settings and the catalog, and return everything that Dagster serves. Changes nothing anywhere."""
    try:
        settings = load_settings()
    except SettingsError as error:
        return build_definitions(None, CatalogState(None, datetime.now(UTC).date(), str(error)))
    return build_definitions(settings, catalog_state.load(settings))


def build_definitions(
    settings: Settings | None, state: CatalogState, console: dg.LoggerDefinition | None = None
) -> dg.Definitions:
    """Assets, sensors and resources for a catalog; without settings only the sensors, which say what is wrong.

    ``console`` replaces what prints a run's log on the terminal.
    """
    if settings is None:
        return dg.Definitions(sensors=[tick.build_tick([], None, state), catalog.build_catalog(state, None)])
    days = asset_keys.daily(state.first_day)
    bucket = Bucket.from_settings(settings)
    copied: list[SourceTable] = []
    specs: list[dg.AssetSpec] = []
    bronze: list[dg.AssetsDefinition] = []
    for table in state.catalog.tables if state.catalog else ():
        if not settings.wants(table.label):
            continue
        chosen, reason = _progress(table, settings)
        specs.append(assets.build_source(table, settings.pg_db, reason))
        if reason is None:
            copied.append(table)
            change = state.changes.get(table.label)
            changed = f"\n\n**Changed**, noticed {change.at}: {'; '.join(change.sentences)}." if change else ""
            bronze.append(assets.build_bronze(table, settings.pg_db, days, chosen + changed))
    newest, left_out = _newest(copied, settings)
    return dg.Definitions(
        assets=[*specs, *bronze, *(silver.build_latest(table) for table in newest)],
        jobs=[dg.define_asset_job("bronze", selection=dg.AssetSelection.assets(*bronze))] if bronze else [],
        sensors=[
            tick.build_tick(copied, settings, state),
            catalog.build_catalog(state, settings),
            *([silver_sensor.build_sensor(newest, left_out)] if newest else []),
        ],
        resources={
            assets.IO_MANAGER: S3ParquetIOManager(bucket=bucket, settings=resource_of(settings)),
            silver.IO_MANAGER: NewestParquetIOManager(bucket=bucket, settings=resource_of(settings)),
            "source_database": SourceDatabase.from_settings(settings, bucket),
        },
        executor=dg.in_process_executor,
        loggers={"console": console} if console else None,
    )


def _newest(copied: list[SourceTable], settings: Settings) -> tuple[list[SourceTable], list[str]]:
    """The tables of PG_BRONZE_LATEST whose newest row versions can be kept, and a sentence for each of the others."""
    known = {table.label: table for table in copied}
    chosen = [known[label] for label in settings.latest if label in known and known[label].primary_key]
    left_out = [
        f"PG_BRONZE_LATEST names {label}, which {'has no primary key' if label in known else 'is not copied'}"
        for label in settings.latest
        if label not in known or not known[label].primary_key
    ]
    return chosen, left_out


def skipped(table: SourceTable, settings: Settings) -> str | None:
    """Why a table that the settings want has no bronze asset; None if it has one."""
    return _progress(table, settings)[1]


def _progress(table: SourceTable, settings: Settings) -> tuple[str, str | None]:
    """A sentence about the cursor column, and the reason why the table is skipped, if it is."""
    if table.skipped:
        return "", table.skipped
    options = settings.table_options(table.label)
    try:
        column = cursor_column.choose(table, settings.cursor_names, options.cursor_column)
    except SettingsError as error:
        # The run says it again, red, every tick: the table is not copied until the setting is right.
        return f"**Faulty setting**: {error}", None
    if column is not None:
        return f"Progress is shown by `{column.name}`: {column.reason}.", None
    if options.untracked == "skip":
        return "", "it has no cursor column and PG_BRONZE_UNTRACKED is skip"
    return "It has no column that shows progress, so it is copied by transaction ids alone.", None
