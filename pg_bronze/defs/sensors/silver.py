"""TODO defs.sensors.silver."""

from collections.abc import Sequence
from datetime import UTC, datetime

import dagster as dg
from dagster import RunsFilter
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

from pg_bronze.core.table import SourceTable
from pg_bronze.defs import asset_keys

ASK_EVERY_S = 59  # Dagster's loop looks every 5 s
WRITE_EVERY_S = 300
TAG = {"pg_bronze/batch": "silver"}


def build_sensor(tables: Sequence[SourceTable], left_out: Sequence[str]) -> dg.SensorDefinition:
    """The sensor that has them written again when something was copied since; ``left_out`` says why others are not."""

    @dg.sensor(
        name="silver_latest",
        target=dg.AssetSelection.assets(*(asset_keys.latest_key(table) for table in tables)),
        minimum_interval_seconds=ASK_EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Writes the newest row versions again where something was copied since.",
    )
    def silver_latest(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        keys = [(asset_keys.bronze_key(table), asset_keys.latest_key(table)) for table in tables]
        events = context.instance.get_latest_materialization_events([key for pair in keys for key in pair])
        now = datetime.now(UTC).timestamp()

        def written(key: dg.AssetKey) -> float:
            event = events.get(key)
            return event.timestamp if event else 0.0

        behind = [latest for bronze, latest in keys if written(bronze) > written(latest)]
        due = [latest for latest in behind if now - written(latest) >= WRITE_EVERY_S]
        if due and not context.instance.get_run_records(RunsFilter(statuses=NOT_FINISHED_STATUSES, tags=TAG), limit=1):
            return dg.SensorResult([dg.RunRequest(asset_selection=due, tags=TAG)])
        reason = "nothing was copied since the newest versions were written"
        if behind:
            reason = f"{len(behind)} to be written again within {WRITE_EVERY_S} s of the last time"
        return dg.SensorResult(skip_reason="; ".join([reason, *left_out]))

    return silver_latest
