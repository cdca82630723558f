"""Definitions: everything that Dagster loads, built from the settings and the catalog."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from pg_bronze.core.table import SourceTable
from pg_bronze.defs import (
    asset_keys,
    assets,
    catalog_state,
    checks,
    descriptions,
    new_tables,
    silver,
    skipped_tables,
    standing_checks,
    table_choices,
    verification,
)
from pg_bronze.defs.catalog_state import CatalogState
from pg_bronze.defs.io_managers import NewestParquetIOManager, S3ParquetIOManager, Watch
from pg_bronze.defs.resources import Bucket, SourceDatabase, resource_of
from pg_bronze.defs.run_console import run_console
from pg_bronze.defs.run_workers.launcher import SETTINGS_MARK
from pg_bronze.defs.sensors import catalog, retention, tick
from pg_bronze.defs.sensors import silver as silver_sensor
from pg_bronze.errors import SettingsError
from pg_bronze.settings.load import load_settings
from pg_bronze.settings.model import Settings

# What this process built last for a run: the reference of the catalog, the settings, and the definitions.
_built: list[tuple[str, Settings, dg.Definitions]] = []


def load_definitions() -> dg.Definitions:
    """Load the settings and the catalog, and return the definitions. Changes neither the database nor the bucket.

    A run worker executes many runs with the same definitions, and building those of 500 tables takes 2 CPU seconds. So
    they are kept, as long as the settings are the same, and the catalog is the one that the code server has loaded.
    """
    try:
        settings = load_settings()
    except SettingsError as error:
        return build_definitions(None, CatalogState(None, datetime.now(UTC).date(), str(error)))
    reference = catalog_state.received_reference()
    for known, with_settings, definitions in _built:
        if (known, with_settings) == (reference, settings):
            return definitions
    state = catalog_state.load(settings)
    definitions = build_definitions(settings, state)
    _built[:] = [(reference, settings, definitions)] if reference and catalog_state.is_named(reference, state) else []
    return definitions


def build_definitions(
    settings: Settings | None,
    state: CatalogState,
    console: dg.LoggerDefinition | None = None,
    watch: Watch | None = None,
    with_checks: bool = True,
) -> dg.Definitions:
    """Return assets, sensors and resources for a catalog.

    Args:
        settings: None returns an asset that describes what to set, and the sensors, which report the same.
        console: Replaces the logger that prints the log of a run on the terminal; None for that of ``dagster dev``.
        watch: Called after each slice of a first load, with the table's label and the progress.
        with_checks: Whether the assets have checks, which a run of the assets executes as well.
    """
    if settings is None:
        return dg.Definitions(
            assets=[assets.build_problem(state.error or "")],
            sensors=[tick.build_tick([], None, state), catalog.build_catalog(state, None, None)],
        )
    tables = _table_assets(settings, state)
    new = new_tables.build_job(settings, state, build_definitions)
    latest, left_out = _latest_tables(tables.copied, settings)
    standing = standing_checks.build(tables.copied if with_checks else [], settings)
    keys = [*map(asset_keys.bronze_key, tables.copied), *map(asset_keys.latest_key, latest)]
    return dg.Definitions(
        assets=[
            *tables.sources,
            *tables.bronze,
            *tables.former,
            *(silver.build_latest(table, descriptions.latest_uri(table, settings)) for table in latest),
        ],
        asset_checks=[*(checks.build_up_to_date(tables.copied, state.former) if with_checks else []), *standing.checks],
        jobs=[new, *_jobs(tables, state), *standing.jobs],
        schedules=standing.schedules,
        sensors=[
            tick.build_tick(tables.copied, settings, state, _unknown_tables(settings, state)),
            catalog.build_catalog(state, settings, new),
            *([silver_sensor.build_sensor(latest, left_out)] if latest else []),
            *([retention.build_retention(keys, settings)] if keys else []),
        ],
        resources=_resources(settings, watch),
        executor=dg.in_process_executor,
        loggers={"console": console or run_console},
        metadata={SETTINGS_MARK: settings.mark()},
    )


def _unknown_tables(settings: Settings, state: CatalogState) -> list[str]:
    return settings.unknown_tables([table.label for table in state.catalog.tables]) if state.catalog else []


def _jobs(tables: "_TableAssets", state: CatalogState) -> list[dg.JobDefinition | UnresolvedAssetJobDefinition]:
    if not tables.bronze:
        return []
    return [
        dg.define_asset_job("bronze", selection=dg.AssetSelection.assets(*tables.bronze).without_checks()),
        verification.build_job(tables.copied, asset_keys.daily(state.first_day)),
    ]


@dataclass
class _TableAssets:
    """The source asset of each table, the bronze asset of each copied one, the copied tables, and the former assets."""

    sources: list[dg.AssetSpec] = field(default_factory=list)
    bronze: list[dg.AssetsDefinition] = field(default_factory=list)
    copied: list[SourceTable] = field(default_factory=list)
    former: list[dg.AssetSpec] = field(default_factory=list)


def _table_assets(settings: Settings, state: CatalogState) -> _TableAssets:
    days = asset_keys.daily(state.first_day)
    found = _TableAssets()
    for table in state.catalog.tables if state.catalog else ():
        if not settings.wants(table.label):
            continue
        reason = skipped_tables.reason(table, settings)
        found.sources.append(assets.build_source(table, settings.pg_db, reason))
        if reason is None:
            options, as_copied = settings.table_options(table.label), table_choices.as_copied(table, settings)
            description = descriptions.of_bronze(as_copied, settings, state.changes.get(table.label))
            chosen = assets.Chosen(as_copied, options.owners, options.tags)
            uri = descriptions.folder_uri(table, settings)
            found.bronze.append(assets.build_bronze(table, settings.pg_db, days, description, uri, chosen))
            found.copied.append(table)
    copied = {table.label for table in found.copied}
    former = [item for item in state.former if item.table.label not in copied]
    found.former = [assets.build_former(item, settings.pg_db, days) for item in former]
    return found


def _latest_tables(copied: Sequence[SourceTable], settings: Settings) -> tuple[list[SourceTable], list[str]]:
    """Return the tables of ``PG_BRONZE_LATEST`` with a primary key, and one sentence about each of the others."""
    known = {table.label: table for table in copied}
    latest = [known[label] for label in settings.latest if label in known and known[label].primary_key]
    left_out = [
        f"PG_BRONZE_LATEST contains {label}, which {'has no primary key' if label in known else 'is not copied'}"
        for label in settings.latest
        if label not in known or not known[label].primary_key
    ]
    return latest, left_out


def _resources(settings: Settings, watch: Watch | None) -> dict[str, object]:
    bucket = Bucket.from_settings(settings)
    return {
        assets.IO_MANAGER: S3ParquetIOManager(
            bucket=bucket, settings=resource_of(settings), watch=dg.ResourceDefinition.hardcoded_resource(watch)
        ),
        silver.IO_MANAGER: NewestParquetIOManager(bucket=bucket, settings=resource_of(settings)),
        "source_database": SourceDatabase.from_settings(settings, bucket),
    }
