"""Assets: one source asset and one bronze asset per table, made by a factory that only wires."""

import warnings
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg

from pg_bronze.core.planning import Quiet
from pg_bronze.core.table import SourceTable
from pg_bronze.defs import asset_keys, failures, metadata
from pg_bronze.defs.resources import SourceDatabase
from pg_bronze.errors import PgBronzeError
from pg_bronze.sync.table_sync import SliceStream, TableSync
from pg_bronze.sync.verify_day import verify_day

GROUP = "bronze"
IO_MANAGER = "bronze_io_manager"
_FROM_BUCKET = (
    "Dagster's storage does not know how far a table is copied (it is new or was wiped), and the bucket does: going on "
    "from the objects there"
)


def build_source(table: SourceTable, database: str, skipped: str | None) -> dg.AssetSpec:
    """The source table as an external asset of its bronze asset; ``skipped`` says why it has none."""
    description = table.comment or f"Table {table.label} of the source database."
    if skipped:
        description = f"{description}\n\n**Skipped**: {skipped}."
    return dg.AssetSpec(
        asset_keys.source_key(table, database),
        description=description,
        group_name="postgres",
        kinds={"postgres", "table"},
        tags={"pg_bronze/status": "skipped" if skipped else "copied"},
        metadata=metadata.of_definition(table, database),
    )


def build_bronze(table: SourceTable, database: str, days: dg.PartitionsDefinition, chosen: str) -> dg.AssetsDefinition:
    """The bronze asset of one table; ``chosen`` says which column shows its progress and why, and what changed last.

    Materializing today takes what is new; materializing a past day verifies that day's objects and repairs missing
    ones.
    """
    with warnings.catch_warnings():
        # backfill_policy is called beta, once for every table in every process.
        warnings.simplefilter("ignore", dg.BetaWarning)
        return _bronze(table, database, days, chosen)


def _bronze(table: SourceTable, database: str, days: dg.PartitionsDefinition, chosen: str) -> dg.AssetsDefinition:
    @dg.asset(
        key=asset_keys.bronze_key(table),
        deps=[asset_keys.source_key(table, database)],
        partitions_def=days,
        backfill_policy=dg.BackfillPolicy.single_run(),
        output_required=False,
        io_manager_key=IO_MANAGER,
        group_name=GROUP,
        kinds={"polars", "parquet", "s3"},
        pool=asset_keys.pool(table),
        description=f"{table.comment or f'Every row version of {table.label}.'}\n\n{chosen}",
        metadata={
            **metadata.of_definition(table, database),
            "pg_bronze/schema": table.schema,
            "pg_bronze/table": table.name,
        },
    )
    def bronze(context: dg.AssetExecutionContext, source_database: SourceDatabase) -> Iterator[dg.Output[Any]]:
        today = datetime.now(UTC).date()
        asked = [date.fromisoformat(key) for key in context.partition_keys]
        try:
            recorded = metadata.watermark_of(context.instance.get_latest_materialization_event(context.asset_key))
            with source_database.table_sync_of(table) as copy:
                wants_new = any(day >= today for day in asked)
                outcome = copy.start(recorded, wants_new)
                past = [day for day in asked if day < today]
                reports = [verify_day(copy, day) for day in past]
                for report in reports:
                    context.log.info(report.sentence)
                if isinstance(outcome, Quiet) and not past:
                    context.log.info("%s: %s", table.label, outcome.reason)
                    source_database.report(table.label, None)
                    yield from _note_quiet(context, copy, outcome.reason)
                    return
                stream = outcome if isinstance(outcome, SliceStream) else copy.nothing(recorded)
                if stream.rebuilt and source_database.first_time(_FROM_BUCKET):
                    context.log.info(_FROM_BUCKET)
                if not wants_new:
                    stream = stream.without_new()
                extra = {key: value for report in reports for key, value in report.metadata.items()}
                yield dg.Output(stream, metadata=extra)
                # Here the objects are written and the event is stored.
                yield from _other_days(context, stream, asked, copy.layout.day)
                source_database.report(table.label, stream.row_count)
                mirrored = copy.mirror(stream.watermark)
                if mirrored.edited:
                    context.log.info("etl_control: the row of %s was edited or deleted; written again", table.label)
                if mirrored.reason and source_database.first_time(mirrored.reason):
                    context.log.info(mirrored.reason)
        except Exception as error:
            state = failures.state_of(source_database.settings.fingerprint(), table.fingerprint)
            failures.note(context.instance, context.run, context.asset_key, error, state)
            if isinstance(error, PgBronzeError):
                source_database.recheck_connections(error)
                raise metadata.failure(error, table.label) from error
            raise

    return bronze


def _note_quiet(context: dg.AssetExecutionContext, copy: TableSync, reason: str) -> Iterator[dg.Output[Any]]:
    """Leave a hint for the sensor: up to here there is nothing new, although something was written.

    Without a horizon nobody looked; the next tick has to know that this run ended well all the same.
    """
    entries: dict[str, Any] = {metadata.QUIET: reason}
    if copy.horizon:
        entries = {metadata.QUIET_UPTO: copy.horizon, metadata.GENERATION: copy.generation}
    context.log_event(dg.AssetObservation(context.asset_key, metadata=entries))
    yield from ()


def _other_days(
    context: dg.AssetExecutionContext, stream: SliceStream, asked: list[date], day_of: Any
) -> Iterator[dg.Output[Any]]:
    """A materialization for each day that objects were written or adopted of, and the run was not asked for."""
    days = {day_of(item.key) for item in (*stream.adopted, *stream.committed)}
    for day in sorted(day for day in days if day is not None and day not in asked):
        context.log_event(
            dg.AssetMaterialization(
                context.asset_key, partition=day.isoformat(), metadata=metadata.of_watermark(stream.watermark)
            )
        )
    yield from ()
