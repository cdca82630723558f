"""Silver: the newest row versions of chosen tables as assets of their own, the layer after bronze.

A sensor of their own writes them again when something was copied since, at most every five minutes: a run reads every
object of its table. It asks once a minute with one question to Dagster's storage, so that the tick of every ten seconds
stays as cheap as it is without them.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster import RunsFilter
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

from pg_bronze import assets, metadata, partitions
from pg_bronze.schema import SourceTable

GROUP = "silver"
IO_MANAGER = "silver_io_manager"
ASK_EVERY_S = 59  # Dagster's loop looks every 5 s
WRITE_EVERY_S = 300
TAG = {"pg_bronze/batch": "silver"}


def build_latest(table: SourceTable) -> dg.AssetsDefinition:
    """The asset ``silver/<table>_latest``: one row for each primary key, as it was when it was last copied."""

    @dg.asset(
        key=partitions.latest_key(table),
        ins={
            "versions": dg.AssetIn(
                partitions.bronze_key(table),
                metadata={metadata.VERSIONS: "latest"},
                input_manager_key=assets.IO_MANAGER,
            )
        },
        io_manager_key=IO_MANAGER,
        group_name=GROUP,
        kinds={"polars", "parquet", "s3"},
        pool=f"{partitions.pool(table)}_latest",
        description=f"The newest version of each row of {table.label}, as one Parquet object. Deleted rows still stand "
        "in it, and a row whose primary key was updated stands there under the old key too.",
        metadata={
            **metadata.of_columns(table),
            "pg_bronze/schema": table.schema,
            "pg_bronze/table": table.name,
        },
    )
    def latest(versions: Any) -> Any:
        return versions

    return latest


def build_sensor(tables: Sequence[SourceTable], left_out: Sequence[str]) -> dg.SensorDefinition:
    """The sensor that has them written again when something was copied since; ``left_out`` says why others are not."""

    @dg.sensor(
        name="silver_latest",
        target=dg.AssetSelection.assets(*(partitions.latest_key(table) for table in tables)),
        minimum_interval_seconds=ASK_EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Writes the newest row versions again where something was copied since.",
    )
    def silver_latest(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        keys = [(partitions.bronze_key(table), partitions.latest_key(table)) for table in tables]
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
