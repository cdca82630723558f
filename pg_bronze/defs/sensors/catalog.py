"""The catalog sensor: reloads this code location when tables are created, dropped or altered."""

import dagster as dg
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin

from pg_bronze.defs import catalog_state
from pg_bronze.defs.catalog_state import CatalogState
from pg_bronze.errors import PgBronzeError
from pg_bronze.settings.load import load_settings
from pg_bronze.settings.model import Settings

CATALOG_INTERVAL_S = 30


def build_catalog(state: CatalogState, settings: Settings | None) -> dg.SensorDefinition:
    """Return the sensor that compares the live catalog with the loaded one, and stores the latter in the bucket.

    Args:
        settings: The settings when the definitions were loaded; None if they were invalid.
    """
    store = _Store(state)

    @dg.sensor(
        name="bronze_catalog",
        target=dg.AssetSelection.groups("bronze"),
        minimum_interval_seconds=CATALOG_INTERVAL_S - 1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Checks for new, dropped and altered tables, and reloads the definitions when there are any.",
    )
    def bronze_catalog(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        current = load_settings()  # raises SettingsError, which names what is wrong now
        if settings is None:
            reload(context)
            return dg.SensorResult(skip_reason="the settings are valid now; the definitions are being reloaded")
        live = catalog_state.live(current).fingerprint
        loaded = state.catalog.fingerprint if state.catalog else None
        asked = f"asked {live}"
        stale = live != loaded or store.ask_for_reload(current)
        if not stale:
            return dg.SensorResult(skip_reason=store.problem or "the catalog has not changed", cursor=live)
        if context.cursor == asked:
            # A reload that did not take effect is not repeated: a table that cannot be loaded would reload for ever.
            return dg.SensorResult(skip_reason="the catalog changed, and a reload was requested", cursor=asked)
        reload(context)
        return dg.SensorResult(skip_reason="the catalog changed; the definitions are being reloaded", cursor=asked)

    return bronze_catalog


class _Store:
    """Stores the loaded catalog in the bucket, once for each time the definitions were loaded."""

    def __init__(self, state: CatalogState) -> None:
        self._state = state
        self._done = False
        self.problem: str | None = None

    def ask_for_reload(self, settings: Settings) -> bool:
        """Store the catalog if that was not done yet; True if the definitions should be loaded again."""
        if self._done:
            return False
        try:
            reload_wanted = catalog_state.remember(settings, self._state)
        except PgBronzeError as error:
            # A start without the database would have no catalog; the runs report what is wrong with the bucket.
            self.problem = f"the catalog has not changed; it could not be stored: {error}"
            return False
        self._done, self.problem = True, None
        return reload_wanted


def reload(context: dg.SensorEvaluationContext) -> None:
    """Reload this code location in web server and daemon alike; unfinished runs continue."""
    # The client is Dagster's own connection from daemon to code server; it has no public name yet (1.13).
    origin = context.code_location_origin
    if isinstance(origin, GrpcServerCodeLocationOrigin):
        origin.create_client().reload_code(timeout=60)
