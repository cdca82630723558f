"""The retention sensor: removes old runs and events from Dagster's storage, a bounded number in each evaluation."""

from collections.abc import Sequence
from datetime import UTC, datetime

import dagster as dg
from dagster._core.remote_origin import RemoteRepositoryOrigin

from pg_bronze.defs import retention
from pg_bronze.defs.source_names import SourceNames
from pg_bronze.settings.model import Settings

INTERVAL_S = 59


def build_retention(keys: Sequence[dg.AssetKey], settings: Settings) -> dg.SensorDefinition:
    """Return the sensor that prunes Dagster's storage. It requests no runs.

    Args:
        keys: The bronze and silver assets. The events of other assets are kept.
        settings: The settings when the definitions were loaded.
    """

    names = SourceNames(settings)

    @dg.sensor(
        name=names.of("bronze_retention"),
        target=dg.AssetSelection.assets(*keys),
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Removes old runs, logs, events and ticks from Dagster's storage.",
    )
    def bronze_retention(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        origin, repository = context.code_location_origin, context.repository_def
        location = RemoteRepositoryOrigin(origin, repository.name).get_label() if origin and repository else None
        now = datetime.now(UTC).timestamp()
        return dg.SkipReason(retention.prune(context.instance, keys, settings, now, location, names=names))

    return bronze_retention
