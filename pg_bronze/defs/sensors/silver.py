"""The silver sensor: requests runs for silver assets whose table was copied since they were written.

It evaluates once a minute with one query to Dagster's storage, so it adds nothing to the tick sensor.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import dagster as dg
from dagster import RunsFilter
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

from pg_bronze.core.table import SourceTable
from pg_bronze.defs import log_lines
from pg_bronze.defs.source_names import SourceNames

# Dagster evaluates sensors every 5 s: an interval of 60 means up to 65 s.
INTERVAL_S = 59
WRITE_EVERY_S = 300
TAG = {"pg_bronze/batch": "silver"}


def build_sensor(tables: Sequence[SourceTable], names: SourceNames, left_out: Sequence[str]) -> dg.SensorDefinition:
    """Return the sensor that requests a run for each silver asset that is older than its bronze asset.

    Args:
        left_out: A sentence for each table of ``PG_BRONZE_LATEST`` that has no silver asset.
    """

    tags = {**TAG, **names.tags}

    @dg.sensor(
        name=names.of("silver_latest"),
        target=dg.AssetSelection.assets(*(names.latest_key(table) for table in tables)),
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Requests a run for each silver asset whose table has newer rows, at most every 5 minutes.",
    )
    def silver_latest(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        written = _written(context.instance, tables, names)
        stale = [latest for latest, (copied_at, written_at) in written.items() if copied_at > written_at]
        now = datetime.now(UTC).timestamp()
        due = [latest for latest in stale if now - written[latest][1] >= WRITE_EVERY_S]
        if due and not context.instance.get_run_records(RunsFilter(statuses=NOT_FINISHED_STATUSES, tags=tags), limit=1):
            return dg.SensorResult([dg.RunRequest(asset_selection=due, tags=tags)])
        reason = "no table was copied since its newest versions were written"
        if stale:
            reason = (
                f"new rows in {log_lines.counted(len(stale), 'table')}; each is written at most every {WRITE_EVERY_S} s"
            )
        return dg.SensorResult(skip_reason="; ".join([reason, *left_out]))

    return silver_latest


def _written(
    instance: dg.DagsterInstance, tables: Sequence[SourceTable], names: SourceNames
) -> dict[dg.AssetKey, tuple[float, float]]:
    """Return when each table was last copied and its silver asset last written, in seconds since 1970; 0 for never."""
    keys = {names.latest_key(table): names.bronze_key(table) for table in tables}
    events = instance.get_latest_materialization_events([*keys, *keys.values()])
    times = {key: event.timestamp if event else 0.0 for key, event in events.items()}
    return {latest: (times.get(bronze, 0.0), times.get(latest, 0.0)) for latest, bronze in keys.items()}
