"""New tables: a job that copies tables which were created after the definitions were loaded.

A daemon that starts its own code server loads the definitions once a minute and cannot be asked to do it earlier, and a
reload may fail. The run worker reads the catalog again, and copies the tables in a run of their own inside of the run.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import dagster as dg
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from pydantic import Field

from pg_bronze.core.table import SourceTable
from pg_bronze.defs import catalog_state, metadata, skipped_tables
from pg_bronze.defs.catalog_state import CatalogState
from pg_bronze.defs.run_console import RUN_CONFIG
from pg_bronze.defs.source_names import SourceNames
from pg_bronze.postgres.catalog import Catalog
from pg_bronze.settings.model import Settings

JOB = "bronze_new_tables"
# The smallest ones first; the others are copied after a reload. The run holds all their definitions.
TABLES_PER_RUN = 100
_OP = "copy_new_tables"
Build = Callable[..., dg.Definitions]


class NewTables(dg.Config):
    """Which tables a run copies."""

    tables: list[str] = Field(description="Tables as messages name them, such as `movie` or `sales.movie`.")


def copied_since(loaded: Catalog | None, live: Catalog, settings: Settings) -> list[SourceTable]:
    """Return the tables to copy that the loaded definitions do not have, smallest first."""
    known = {table.label for table in loaded.tables} if loaded else set()
    new = [
        table
        for table in live.tables
        if table.label not in known and settings.wants(table.label) and skipped_tables.reason(table, settings) is None
    ]
    return sorted(new, key=lambda table: sum(relation.page_count for relation in table.relations))


def request(tables: Sequence[SourceTable], settings: Settings) -> dg.RunRequest:
    """Return the request for a run of the job that copies tables."""
    labels = [table.label for table in tables[:TABLES_PER_RUN]]
    return dg.RunRequest(
        job_name=SourceNames(settings).of(JOB),
        run_config={"ops": {SourceNames(settings).of(_OP): {"config": {"tables": labels}}}},
        tags=_tags("new", settings),
    )


def in_progress(instance: dg.DagsterInstance, settings: Settings) -> bool:
    """Return whether a run of the job has not ended. Another one would wait for the same tables."""
    job = SourceNames(settings).of(JOB)
    return bool(instance.get_run_records(dg.RunsFilter(job_name=job, statuses=NOT_FINISHED_STATUSES), limit=1))


def build_job(settings: Settings, state: CatalogState, build: Build) -> dg.JobDefinition:
    """Return the job.

    Args:
        settings: The settings when the definitions were loaded; a run worker loads them when it starts.
        state: The state that the definitions were built from.
        build: Returns the definitions of a state.
    """

    @dg.op(name=SourceNames(settings).of(_OP))
    def copy_new_tables(context: dg.OpExecutionContext, config: NewTables) -> None:
        catalog = catalog_state.live(settings)
        tables = [table for table in copied_since(None, catalog, settings) if table.label in config.tables]
        if tables:
            now = CatalogState(catalog, state.first_day).with_tables(tables)
            _copy(context.instance, build(settings, now, with_checks=False), tables, settings)

    @dg.job(
        name=SourceNames(settings).of(JOB),
        executor_def=dg.in_process_executor,
        tags=dict(SourceNames(settings).tags),
        description="Copies tables that were created after the definitions were loaded.",
    )
    def bronze_new_tables() -> None:
        copy_new_tables()

    return bronze_new_tables


def _copy(
    instance: dg.DagsterInstance, definitions: dg.Definitions, tables: Sequence[SourceTable], settings: Settings
) -> None:
    result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        asset_selection=SourceNames(settings).bronze_keys(tables),
        partition_key=datetime.now(UTC).date().isoformat(),
        run_config=RUN_CONFIG,
        raise_on_error=False,
        tags=_tags("tick", settings),
    )
    if not result.success:
        raise dg.Failure(
            f"Run {result.run_id}, which copied the tables, failed. The asset of each failing table has the cause and "
            "the time of the next retry.",
            allow_retries=False,
        )


def _tags(kind: str, settings: Settings) -> dict[str, str]:
    tags = SourceNames(settings).tags
    return {metadata.BATCH_TAG: kind, "dagster/max_runtime": str(settings.max_run_s), **tags}
