"""Assets: one source asset and one bronze asset for each table. The factory only connects parts."""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

import dagster as dg

from pg_bronze.core import load_progress
from pg_bronze.core.former_tables import FormerTable
from pg_bronze.core.planning import Quiet
from pg_bronze.core.table import SourceTable
from pg_bronze.core.watermark import Watermark
from pg_bronze.defs import bronze_specs, control_mirror, descriptions, failures, metadata
from pg_bronze.defs.resources import SOURCE_DATABASE, SourceDatabase
from pg_bronze.defs.source_names import BRONZE, SOURCE, SourceNames
from pg_bronze.errors import NoConnectionFree, TableLocked
from pg_bronze.lake.commit import Slices
from pg_bronze.sync.load_meter import LoadMeter
from pg_bronze.sync.report import SyncReport
from pg_bronze.sync.slice_stream import SliceStream
from pg_bronze.sync.table_sync import TableSync

IO_MANAGER = "bronze_io_manager"
# Of the kinds of an asset, which Dagster keeps among its tags.
KIND_PREFIX = "dagster/kind/"
_REBUILT = (
    "Dagster's storage has no watermark: it is new, was wiped, or the run that began the table was killed. It was "
    "rebuilt from the objects in the bucket."
)


@dataclass(frozen=True)
class BronzeOutput:
    """The output of a bronze asset, which its IO manager writes.

    Attributes:
        slices: The slices to write, for ``lake.commit.write_all``.
        label: The table as messages name it.
        state: ``failures.state_of`` the table, recorded if writing fails.
        load: Counts the slices of a first load.
        started: The ``time.monotonic`` at which the copy of the table began.
        failed: The tables of the run whose copy failed, to which the IO manager adds.
    """

    slices: Slices[SyncReport]
    label: str
    state: str
    load: LoadMeter
    started: float
    failed: list[str]


def build_source(table: SourceTable, names: SourceNames, database: str, skipped: str | None) -> dg.AssetSpec:
    """Return a source table as an external asset.

    Args:
        database: The name of the database.
        skipped: Why the table has no bronze asset; None if it has one.
    """
    return dg.AssetSpec(
        names.source_key(table, database),
        description=descriptions.of_source(table, skipped),
        group_name=names.of(SOURCE),
        kinds={"postgres", "table"},
        tags={"pg_bronze/status": "skipped" if skipped else "copied"},
        metadata=metadata.of_definition(table, database),
    )


def build_former(
    former: FormerTable, names: SourceNames, database: str, days: dg.PartitionsDefinition, description: str, uri: str
) -> dg.AssetSpec:
    """Return the asset of a table that was copied and is not copied any more.

    Args:
        description: In Markdown.
        uri: The address of the folder with its objects.
    """
    return dg.AssetSpec(
        names.bronze_key(former.table),
        deps=[names.source_key(former.table, database)],
        description=description,
        group_name=names.of(BRONZE),
        kinds=bronze_specs.KINDS,
        tags={"pg_bronze/status": "not_copied"},
        metadata={"dagster/uri": uri},
        partitions_def=days,
    )


def build_problem(error: str) -> dg.AssetSpec:
    """Return an external asset that stands for all tables while the settings are invalid.

    Args:
        error: What to set.
    """
    return dg.AssetSpec(
        ["pg_bronze", "settings"],
        description=descriptions.of_problem(error),
        group_name="not_configured",
    )


def build_bronze(
    table: SourceTable, spec: dg.AssetSpec, names: SourceNames, days: dg.PartitionsDefinition
) -> dg.AssetsDefinition:
    """Return the bronze asset of one table.

    Every run copies new rows. The day that it is a partition of, and the day on which it starts, decide nothing: a run
    that was requested before midnight may start after it. ``defs.verification`` verifies past days.

    Args:
        spec: ``bronze_specs.of_table``, or what a project has changed of it.
        names: The names of the table's source.
    """
    with warnings.catch_warnings():
        # backfill_policy is beta, and the warning would be repeated for every table in every process.
        warnings.simplefilter("ignore", dg.BetaWarning)
        return _bronze(table, spec, names, days)


def _bronze(
    table: SourceTable, spec: dg.AssetSpec, names: SourceNames, days: dg.PartitionsDefinition
) -> dg.AssetsDefinition:
    resource = names.of(SOURCE_DATABASE)

    @dg.asset(
        key=spec.key,
        deps=list(spec.deps),
        partitions_def=days,
        backfill_policy=dg.BackfillPolicy.single_run(),
        output_required=False,
        io_manager_key=names.of(IO_MANAGER),
        required_resource_keys={resource},
        group_name=spec.group_name,
        kinds=spec.kinds,
        owners=list(spec.owners),
        tags={name: value for name, value in spec.tags.items() if not name.startswith(KIND_PREFIX)},
        automation_condition=spec.automation_condition,
        pool=names.pool(table),
        description=spec.description,
        metadata=spec.metadata,
    )
    def bronze(context: dg.AssetExecutionContext) -> Iterator[dg.Output[Any]]:
        source_database: SourceDatabase = getattr(context.resources, resource)
        state, started = failures.state_of(source_database.settings.fingerprint(), table), time.monotonic()
        with (
            failures.recorded(
                context.instance, context.run, context.asset_key, table.label, state, source_database.failed
            ),
            _left_to_a_later_tick(context, source_database, table.label),
            source_database.table_sync(table) as sync,
        ):
            latest = context.instance.get_latest_materialization_event(context.asset_key)
            stream = _start(context, sync, metadata.watermark_of(latest), started)
            if stream is None:
                source_database.count_without_rows(table.label, busy=not sync.locked)
                return
            for sentence in (_REBUILT if stream.rebuilt else None, source_database.reader_note):
                if sentence and source_database.first_time(sentence):
                    context.log.info(sentence)
            meter, failed = _meter(latest, sync, stream), source_database.failed
            yield dg.Output(BronzeOutput(stream.slices(), table.label, state, meter, started, failed))
            # Dagster has stored the materialization when the generator is resumed.
            source_database.count(table.label, stream.report.row_count)
            if entries := metadata.of_progress(sync.slices.progress_after(stream.watermark)):
                context.log_event(dg.AssetObservation(context.asset_key, metadata=entries))
            _record_other_days(context, stream.report, sync.layout.day)
            _mirror(context, source_database, sync, stream)

    return bronze


@contextmanager
def _left_to_a_later_tick(
    context: dg.AssetExecutionContext, source_database: SourceDatabase, label: str
) -> Iterator[None]:
    """End the step without a failure if this run gets no connection, or if another session locks the table."""
    try:
        yield
    except (NoConnectionFree, TableLocked) as error:
        entries = metadata.of_quiet(str(error), 0, -1)
        if isinstance(error, TableLocked):
            entries |= {metadata.LOCKED: True}
            context.log.info("%s The next tick gives it a run apart from the other tables.", error)
        elif source_database.first_time(str(error)):
            context.log.info("The tables of this run are left to a later tick. %s", error)
        # Without it, the table would count as one whose run ended without a report.
        context.log_event(dg.AssetObservation(context.asset_key, metadata=entries))
        source_database.count_left(label)


def _start(
    context: dg.AssetExecutionContext, sync: TableSync, recorded: Watermark | None, started: float
) -> SliceStream | None:
    """Start the copy after a watermark, and return the slices to write; None if there is nothing to record."""
    is_large = recorded is not None and recorded.sweeps is not None
    outcome = sync.start(recorded, failures.last_progress(context.instance, context.asset_key) if is_large else None)
    if not isinstance(outcome, Quiet):
        return outcome
    context.log.info("%s: %s", sync.label, outcome.reason)
    # Counters may show writes without new rows; this observation prevents another run for them.
    entries = metadata.of_quiet(outcome.reason, sync.horizon, sync.generation)
    entries |= metadata.of_duration(time.monotonic() - started)
    if sync.watermark is not None:
        entries |= metadata.of_progress(sync.slices.progress_after(sync.watermark))
    context.log_event(dg.AssetObservation(context.asset_key, metadata=entries))
    return None


def _meter(latest: dg.EventLogEntry | None, sync: TableSync, stream: SliceStream) -> LoadMeter:
    """Return the meter of the table's first load, which continues what its last materialization counted."""
    if not load_progress.is_loading(stream.watermark, sync.table):
        return LoadMeter(sync.slices, stream.watermark)
    row_count, size_bytes = metadata.loaded_before(latest)
    report = stream.report
    return LoadMeter(sync.slices, stream.watermark, row_count + report.row_count, size_bytes + report.size_bytes)


def _record_other_days(
    context: dg.AssetExecutionContext, report: SyncReport, day_of: Callable[[str], date | None]
) -> None:
    """Record a materialization of each day that has new objects and is not a partition of this run."""
    days = {day_of(item.key) for item in report.objects} - _days_of(context)
    for day in sorted(day for day in days if day is not None):
        rows = metadata.of_totals(report.watermark, report.day_row_count(day, day_of))
        entries = rows | metadata.of_watermark(report.watermark)
        context.log_event(dg.AssetMaterialization(context.asset_key, partition=day.isoformat(), metadata=entries))


def _days_of(context: dg.AssetExecutionContext) -> set[date]:
    """Return the days that are materialized; none in a run without a partition, which copies like any other."""
    if not (context.has_partition_key or context.has_partition_key_range):
        return set()
    return {date.fromisoformat(key) for key in context.partition_keys}


def _mirror(
    context: dg.AssetExecutionContext, source_database: SourceDatabase, sync: TableSync, stream: SliceStream
) -> None:
    was_off = sync.control.off
    mirrored = sync.mirror(stream.watermark)
    if mirrored.edited and control_mirror.was_on(context.instance, context.asset_key, context.run.run_id):
        context.log.info("etl_control: the row of %s was edited or deleted, and was written again", sync.label)
    if mirrored.reason and source_database.first_time(mirrored.reason):
        context.log.info(mirrored.reason)
    if mirrored.reason != was_off:
        # The materialization was recorded before the attempt.
        entries = {metadata.CONTROL_MIRROR: mirrored.reason}
        context.log_event(dg.AssetObservation(context.asset_key, metadata=entries))
    # Only after a table's first run: every line of a log is stored in Dagster's storage.
    is_first_run = stream.watermark.seq == len(stream.report.objects)
    if mirrored.written and is_first_run and source_database.first_time("etl_control"):
        context.log.info(sync.control.where())
