"""Definitions: everything that Dagster loads, built from the settings and the catalog."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from pg_bronze.core.table import SourceTable
from pg_bronze.defs import (
    asset_keys,
    assets,
    bronze_specs,
    catalog_state,
    checks,
    descriptions,
    new_tables,
    notices,
    run_console,
    silver,
    skipped_tables,
    standing_checks,
    verification,
)
from pg_bronze.defs.catalog_state import CatalogState
from pg_bronze.defs.io_managers import NewestParquetIOManager, S3ParquetIOManager, Watch
from pg_bronze.defs.resources import SOURCE_DATABASE, Bucket, SourceDatabase, resource_of
from pg_bronze.defs.run_workers.settings_mark import SETTINGS_MARK
from pg_bronze.defs.sensors import catalog, retention, tick
from pg_bronze.defs.sensors import silver as silver_sensor
from pg_bronze.defs.sensors.tick import LoadSettings
from pg_bronze.defs.source_names import SourceNames
from pg_bronze.settings.load import load_settings
from pg_bronze.settings.model import Settings

Translate = Callable[[SourceTable, dg.AssetSpec], dg.AssetSpec]
# What this process built last for a run, by the name of the source: the reference of the catalog, the settings, and the
# definitions.
_built: dict[str | None, tuple[str, Settings, dg.Definitions]] = {}


@dataclass(frozen=True)
class Project:
    """What the definitions of a source are part of.

    Attributes:
        load: Loads the settings for each evaluation of a sensor.
        alone: They are all definitions of the code location, with its executor and its loggers.
        translate: Returns the spec of a bronze asset, changed as the project wants it; None changes nothing.
    """

    load: LoadSettings
    alone: bool = True
    translate: Translate | None = None


ALONE = Project(load_settings)


def for_run(reference: str, settings: Settings, project: Project = ALONE) -> dg.Definitions:
    """Return the definitions that a run needs.

    A run worker executes many runs with the same definitions, and building those of 500 tables takes 2 CPU seconds. So
    they are kept, as long as the settings are the same, and the catalog is the one that the code server has loaded.

    Args:
        reference: ``catalog_state.reference`` of the code server's catalog.
    """
    known = _built.get(settings.name)
    if known is not None and known[:2] == (reference, settings):
        return known[2]
    state = catalog_state.resolve(reference, settings)
    definitions = build_definitions(settings, state, project=project)
    _built.pop(settings.name, None)
    if catalog_state.is_named(reference, state):
        _built[settings.name] = (reference, settings, definitions)
    return definitions


def build_definitions(
    settings: Settings | None,
    state: CatalogState,
    console: dg.LoggerDefinition | None = None,
    watch: Watch | None = None,
    with_checks: bool = True,
    project: Project = ALONE,
) -> dg.Definitions:
    """Return assets, sensors and resources for a catalog.

    Args:
        settings: None returns an asset that describes what to set, and the sensors, which report the same.
        console: Replaces the logger that prints the log of a run on the terminal; None for that of ``dagster dev``.
        watch: Called after each slice of a first load, with the table's label and the progress.
        with_checks: Whether the assets have checks, which a run of the assets executes as well.
        project: What they are part of.
    """
    run_config = run_console.RUN_CONFIG if project.alone else {}
    if settings is None:
        return dg.Definitions(
            assets=[assets.build_problem(state.error or "")],
            sensors=[
                tick.build_tick([], None, state, project.load, run_config),
                catalog.build_catalog(state, None, None, project.load),
            ],
        )
    tables, settings = _table_assets(settings, state, project)
    names = SourceNames(settings)
    load = project.load if project.alone else partial(_same, settings)
    new = new_tables.build_job(settings, state, partial(build_definitions, project=project))
    latest, left_out = _latest_tables(tables.copied, settings)
    standing = standing_checks.build(tables.copied if with_checks else [], settings)
    keys = [*names.bronze_keys(tables.copied), *map(names.latest_key, latest)]
    return dg.Definitions(
        assets=[
            *tables.sources,
            *tables.bronze,
            *tables.former,
            *(silver.build_latest(table, names, descriptions.latest_uri(table, settings)) for table in latest),
        ],
        asset_checks=[
            *(checks.build_up_to_date(tables.copied, names, state.former) if with_checks else []),
            *(notices.build(notices.find(settings, state), names) if with_checks else []),
            *standing.checks,
        ],
        jobs=[new, *_jobs(tables, names, state), *standing.jobs],
        schedules=standing.schedules,
        sensors=[
            tick.build_tick(tables.copied, settings, state, load, run_config, _unknown_tables(settings, state)),
            catalog.build_catalog(state, settings, new, load),
            *([silver_sensor.build_sensor(latest, names, left_out)] if latest else []),
            *([retention.build_retention(keys, settings)] if keys else []),
        ],
        resources=_resources(settings, watch),
        executor=dg.in_process_executor if project.alone else None,
        loggers={"console": console or run_console.run_console} if project.alone or console else None,
        metadata={names.of(SETTINGS_MARK): settings.mark()},
    )


def _same(settings: Settings) -> Settings:
    """Return the settings of a component, which change with a reload of the code location only."""
    return settings


def _unknown_tables(settings: Settings, state: CatalogState) -> list[str]:
    return settings.unknown_tables([table.label for table in state.catalog.tables]) if state.catalog else []


def _jobs(
    tables: "_TableAssets", names: SourceNames, state: CatalogState
) -> list[dg.JobDefinition | UnresolvedAssetJobDefinition]:
    if not tables.bronze:
        return []
    selection = dg.AssetSelection.assets(*tables.bronze).without_checks()
    return [
        dg.define_asset_job(
            names.of("bronze"), selection=selection, executor_def=dg.in_process_executor, tags=dict(names.tags)
        ),
        verification.build_job(tables.copied, names, asset_keys.daily(state.first_day)),
    ]


@dataclass
class _TableAssets:
    """The source asset of each table, the bronze asset of each copied one, the copied tables, and the former assets."""

    sources: list[dg.AssetSpec] = field(default_factory=list)
    bronze: list[dg.AssetsDefinition] = field(default_factory=list)
    copied: list[SourceTable] = field(default_factory=list)
    former: list[dg.AssetSpec] = field(default_factory=list)


def _table_assets(settings: Settings, state: CatalogState, project: Project) -> tuple[_TableAssets, Settings]:
    """Return the assets of all tables, and the settings with the keys that the project gives them."""
    found, specs = _TableAssets(), dict[str, dg.AssetSpec]()
    skipped: dict[str, str] = {}
    wanted = [table for table in (state.catalog.tables if state.catalog else ()) if settings.wants(table.label)]
    for table in wanted:
        if reason := skipped_tables.reason(table, settings):
            skipped[table.label] = reason
            continue
        spec = bronze_specs.of_table(table, settings, state.changes.get(table.label))
        specs[table.label] = project.translate(table, spec) if project.translate else spec
        found.copied.append(table)
    if project.translate:
        settings = settings.with_asset_keys({label: "/".join(spec.key.path) for label, spec in specs.items()})
    names, days = SourceNames(settings), asset_keys.daily(state.first_day)
    found.sources = [assets.build_source(table, names, settings.pg_db, skipped.get(table.label)) for table in wanted]
    found.bronze = [assets.build_bronze(table, specs[table.label], names, days) for table in found.copied]
    former = [item for item in state.former if item.table.label not in specs]
    for item in former:
        description = descriptions.of_former(item.table, item.reason, settings)
        uri = descriptions.folder_uri(item.table, settings)
        found.former.append(assets.build_former(item, names, settings.pg_db, days, description, uri))
    return found, settings


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
    bucket, names = Bucket.from_settings(settings), SourceNames(settings)
    return {
        names.of(assets.IO_MANAGER): S3ParquetIOManager(
            bucket=bucket, settings=resource_of(settings), watch=dg.ResourceDefinition.hardcoded_resource(watch)
        ),
        names.of(silver.IO_MANAGER): NewestParquetIOManager(bucket=bucket, settings=resource_of(settings)),
        names.of(SOURCE_DATABASE): SourceDatabase.from_settings(settings, bucket),
    }
