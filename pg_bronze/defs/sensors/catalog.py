"""TODO defs.sensors.catalog."""

import dagster as dg
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin

from pg_bronze.defs import catalog_state
from pg_bronze.defs.catalog_state import CatalogState
from pg_bronze.settings.load import load_settings
from pg_bronze.settings.model import Settings

CATALOG_INTERVAL_S = 30


def build_catalog(state: CatalogState, settings: Settings | None) -> dg.SensorDefinition:
    """The sensor that reloads this code location when tables came, went or changed."""

    @dg.sensor(
        name="bronze_catalog",
        target=dg.AssetSelection.groups("bronze"),
        minimum_interval_seconds=CATALOG_INTERVAL_S - 1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Looks for new, dropped and altered tables, and reloads the definitions when there are any.",
    )
    def bronze_catalog(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        if settings is None:
            load_settings()
            reload(context)
            return dg.SensorResult(skip_reason="the settings are right now: the definitions are being loaded")
        live = catalog_state.live(settings).fingerprint
        loaded = state.catalog.fingerprint if state.catalog else None
        if live == loaded:
            return dg.SensorResult(skip_reason="the catalog has not changed", cursor=live)
        if context.cursor == f"asked {live}":
            # Asked before and still not loaded: once is enough, or a table that cannot load reloads for ever.
            return dg.SensorResult(skip_reason="the catalog changed and a reload was asked for", cursor=context.cursor)
        reload(context)
        return dg.SensorResult(
            skip_reason="the catalog changed: the definitions are being reloaded", cursor=f"asked {live}"
        )

    return bronze_catalog


def reload(context: dg.SensorEvaluationContext) -> None:
    """Reload this code location in web server and daemon alike; runs in flight survive."""
    # The client is Dagster's own way from daemon to code server; it has no public name yet (1.13).
    origin = context.code_location_origin
    if isinstance(origin, GrpcServerCodeLocationOrigin):
        origin.create_client().reload_code(timeout=60)
