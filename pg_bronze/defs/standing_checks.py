"""Standing checks: `reconcile` of each bronze asset, in a run of its own once a day.

It reads the tables, so it is never part of a tick. The run has a low priority and copies nothing. One check has the
comparison of the rows and of the control row: each more adds a second to the load of 1,000 tables.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from pg_bronze.core.table import SourceTable
from pg_bronze.defs import metadata
from pg_bronze.defs.resources import SOURCE_DATABASE, SourceDatabase
from pg_bronze.defs.source_names import SourceNames
from pg_bronze.errors import PgBronzeError
from pg_bronze.settings.model import Settings
from pg_bronze.sync import standing_check
from pg_bronze.sync.range_check import Part
from pg_bronze.sync.standing_check import Checked

RECONCILE = "reconcile"
JOB = "bronze_checks"
_PART, _PARTS = "pg_bronze/part", "pg_bronze/parts"
_TAGS = {metadata.BATCH_TAG: "checks", "dagster/priority": "-2"}
_DESCRIPTION = (
    "Whether every live row that was copied is in the lake (of a large table, one part a day), and etl_control has "
    "the cursor value."
)


@dataclass(frozen=True)
class StandingChecks:
    """The checks of all tables, the job that executes them, and the schedule of the job; nothing without a table."""

    checks: Sequence[dg.AssetChecksDefinition] = ()
    jobs: Sequence[Any] = ()
    schedules: Sequence[dg.ScheduleDefinition] = ()


def build(tables: Sequence[SourceTable], settings: Settings) -> StandingChecks:
    """Return the checks of all tables that are copied."""
    if not tables:
        return StandingChecks()
    names = SourceNames(settings)
    checks = _build_checks({names.bronze_key(table): table for table in tables}, names)
    job = dg.define_asset_job(
        names.of(JOB),
        selection=dg.AssetSelection.checks(checks),
        executor_def=dg.in_process_executor,
        tags={**_TAGS, **names.tags},
        description="Compares tables with their objects, and the rows of etl_control. Copies nothing.",
    )
    if (cron := settings.checks_cron) is None:
        return StandingChecks([checks], [job])
    running = dg.DefaultScheduleStatus.RUNNING
    schedule = dg.ScheduleDefinition(job=job, cron_schedule=cron, execution_timezone="UTC", default_status=running)
    return StandingChecks([checks], [job], [schedule])


def _build_checks(by_key: dict[dg.AssetKey, SourceTable], names: SourceNames) -> dg.AssetChecksDefinition:
    resource = names.of(SOURCE_DATABASE)

    @dg.multi_asset_check(
        name=names.of("bronze_reconcile"),
        specs=[dg.AssetCheckSpec(RECONCILE, asset=key, description=_DESCRIPTION) for key in by_key],
        can_subset=True,
        required_resource_keys={resource},
    )
    def reconcile(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        source_database: SourceDatabase = getattr(context.resources, resource)
        wanted = {item.asset_key for item in context.selected_asset_check_keys}
        for key in (key for key in by_key if key in wanted):
            yield _result(context.instance, source_database, key, by_key[key])

    return reconcile


def _result(
    instance: dg.DagsterInstance, source_database: SourceDatabase, key: dg.AssetKey, table: SourceTable
) -> dg.AssetCheckResult:
    settings = source_database.settings
    try:
        watermark = metadata.watermark_of(instance.get_latest_materialization_event(key))
        with source_database.unlocked_sync(table) as sync:
            again = _failed_part(instance, key)
            found = standing_check.check(sync, watermark, settings.s3, int(settings.reconcile_mb * 1e6), again)
    except PgBronzeError as error:
        # One table's error must not leave those after it without a result.
        return dg.AssetCheckResult(asset_key=key, check_name=RECONCILE, passed=False, description=str(error))
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=RECONCILE,
        passed=found.passed and found.mirror is None,
        severity=dg.AssetCheckSeverity.WARN if found.passed else dg.AssetCheckSeverity.ERROR,
        description=" ".join(part for part in (found.sentence, found.mirror) if part),
        metadata=_entries(found),
    )


def _failed_part(instance: dg.DagsterInstance, key: dg.AssetKey) -> Part | None:
    """Return the part of a large table that differed when a part was last compared; None if it did not."""
    # Some have no result: that of this run, and those of runs and comparisons that ended with an error.
    records = instance.event_log_storage.get_asset_check_execution_history(dg.AssetCheckKey(key, RECONCILE), limit=10)
    results = (record.evaluation for record in records)
    for evaluation in (item for item in results if isinstance(item, dg.AssetCheckEvaluation)):
        number, count = (getattr(evaluation.metadata.get(name), "value", None) for name in (_PART, _PARTS))
        if isinstance(number, int) and isinstance(count, int):
            same = evaluation.passed or evaluation.severity == dg.AssetCheckSeverity.WARN
            return None if same else Part(number - 1, count)
        if evaluation.passed:
            return None  # it was compared completely, or could not be divided
    return None


def _entries(found: Checked) -> dict[str, Any]:
    if found.comparison is None:
        return {"pg_bronze/compared": False}
    part = {_PART: found.part.number + 1, _PARTS: found.part.count} if found.part else {}
    return {
        "pg_bronze/compared": True,
        **part,
        "pg_bronze/compared_rows": found.comparison.row_count - found.comparison.not_copied,
        "pg_bronze/missing_rows": found.comparison.missing,
        "pg_bronze/rows_ahead": found.comparison.ahead,
        "pg_bronze/deleted_keys": found.comparison.only_in_lake,
    }
