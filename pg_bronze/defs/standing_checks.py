"""Standing checks: `reconcile` and `mirror` of each bronze asset, in a run of their own once a day.

They read the tables, so they are never part of a tick. Their run has a low priority and copies nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from pg_bronze.core.table import SourceTable
from pg_bronze.defs import asset_keys, job_names, metadata
from pg_bronze.defs.resources import SourceDatabase
from pg_bronze.errors import PgBronzeError
from pg_bronze.settings.model import Settings
from pg_bronze.sync import standing_check
from pg_bronze.sync.standing_check import Checked

RECONCILE, MIRROR = "reconcile", "mirror"
_TAGS = {metadata.BATCH_TAG: "checks", "dagster/priority": "-2"}
_DESCRIPTIONS = {
    RECONCILE: "Whether every live row that was copied is in the lake with its values. Compares both sides completely, "
    "within PG_BRONZE_RECONCILE_MB.",
    MIRROR: "Whether the row of the table in etl_control is the copied cursor value.",
}


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
    checks = _build_checks({asset_keys.bronze_key(table): table for table in tables})
    job = dg.define_asset_job(
        job_names.CHECKS,
        selection=dg.AssetSelection.checks(checks),
        tags=_TAGS,
        description="Compares tables with their objects, and the rows of etl_control. Copies nothing.",
    )
    if (cron := settings.checks_cron) is None:
        return StandingChecks([checks], [job])
    running = dg.DefaultScheduleStatus.RUNNING
    schedule = dg.ScheduleDefinition(job=job, cron_schedule=cron, execution_timezone="UTC", default_status=running)
    return StandingChecks([checks], [job], [schedule])


def _build_checks(by_key: dict[dg.AssetKey, SourceTable]) -> dg.AssetChecksDefinition:
    @dg.multi_asset_check(
        name="bronze_standing_checks",
        specs=[
            dg.AssetCheckSpec(name, asset=key, description=text)
            for key in by_key
            for name, text in _DESCRIPTIONS.items()
        ],
        can_subset=True,
    )
    def standing_checks(
        context: dg.AssetCheckExecutionContext, source_database: SourceDatabase
    ) -> Iterator[dg.AssetCheckResult]:
        wanted = context.selected_asset_check_keys
        for key, table in by_key.items():
            names = [name for name in _DESCRIPTIONS if dg.AssetCheckKey(key, name) in wanted]
            if names:
                yield from _results(context.instance, source_database, key, table, names)

    return standing_checks


def _results(
    instance: dg.DagsterInstance,
    source_database: SourceDatabase,
    key: dg.AssetKey,
    table: SourceTable,
    names: Sequence[str],
) -> Iterator[dg.AssetCheckResult]:
    settings = source_database.settings
    budget = int(settings.reconcile_mb * 1e6) if RECONCILE in names else 0
    try:
        watermark = metadata.watermark_of(instance.get_latest_materialization_event(key))
        with source_database.unlocked_sync(table) as sync:
            found = standing_check.check(sync, watermark, settings.s3, budget)
    except PgBronzeError as error:
        # One table's error must not leave those after it without a result.
        found = None
        sentence = str(error)
    for name in names:
        if found is None:
            yield dg.AssetCheckResult(asset_key=key, check_name=name, passed=False, description=sentence)
        else:
            yield _reconcile(key, found) if name == RECONCILE else _mirror(key, found)


def _reconcile(key: dg.AssetKey, found: Checked) -> dg.AssetCheckResult:
    entries: dict[str, Any] = {"pg_bronze/compared": found.comparison is not None}
    if found.comparison is not None:
        entries |= {
            "pg_bronze/compared_rows": found.comparison.row_count - found.comparison.not_copied,
            "pg_bronze/missing_rows": found.comparison.missing,
            "pg_bronze/rows_ahead": found.comparison.ahead,
            "pg_bronze/deleted_keys": found.comparison.only_in_lake,
        }
    return dg.AssetCheckResult(
        asset_key=key, check_name=RECONCILE, passed=found.passed, description=found.sentence, metadata=entries
    )


def _mirror(key: dg.AssetKey, found: Checked) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=MIRROR,
        passed=found.mirror is None,
        severity=dg.AssetCheckSeverity.WARN,
        description=found.mirror or "The row is the copied cursor value, or etl_control is off.",
    )
