"""The catalog sensor: reloads this code location when tables are created, dropped or altered."""

from datetime import UTC, datetime

import dagster as dg
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin

from pg_bronze.defs import catalog_state
from pg_bronze.defs.catalog_state import CatalogState
from pg_bronze.errors import PgBronzeError
from pg_bronze.scheduling.reloads import ReloadRequest
from pg_bronze.settings.load import load_settings
from pg_bronze.settings.model import Settings

CATALOG_INTERVAL_S = 30


def build_catalog(state: CatalogState, settings: Settings | None) -> dg.SensorDefinition:
    """Return the sensor that reloads the definitions when the catalog has changed, and stores the loaded catalog.

    Args:
        settings: The settings when the definitions were loaded; None if they were invalid.
    """
    store = _Store(state)

    @dg.sensor(
        name="bronze_catalog",
        target=dg.AssetSelection.groups("bronze"),
        minimum_interval_seconds=CATALOG_INTERVAL_S - 1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Reloads the definitions after tables were created, dropped or altered.",
    )
    def bronze_catalog(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        current = load_settings()  # a SettingsError names the setting that is invalid now
        if settings is None:
            reload(context)
            return dg.SensorResult(skip_reason="The settings are valid now. The definitions are being reloaded.")
        live = catalog_state.live(current).fingerprint
        loaded = state.catalog.fingerprint if state.catalog else None
        stale = live != loaded or state.remembered is not None or store.needs_reload(current)
        if not stale:
            return dg.SensorResult(skip_reason=store.problem or "The catalog is unchanged.", cursor=live)
        sentence, cursor = _request(context, live, datetime.now(UTC).timestamp())
        return dg.SensorResult(skip_reason=sentence, cursor=cursor)

    return bronze_catalog


def _request(context: dg.SensorEvaluationContext, live: str, now: float) -> tuple[str, str]:
    """Reload the definitions unless they were reloaded in vain just before; return a sentence and the cursor.

    The database may have been down during a reload. A table that cannot be loaded would be reloaded every 30 s.
    """
    last = ReloadRequest.from_cursor(context.cursor, live)
    if now < last.next_at:
        sentence = (
            f"The catalog changed. Reloads of the definitions without effect so far: {last.count}. The next one is at "
            f"{datetime.fromtimestamp(last.next_at, UTC):%H:%M:%S} UTC. If this continues, restart the code location."
        )
        return sentence, last.to_cursor()
    reload(context)
    return "The catalog changed. The definitions are being reloaded.", last.again(now).to_cursor()


class _Store:
    """Stores the loaded catalog in the bucket, once for each load of the definitions."""

    def __init__(self, state: CatalogState) -> None:
        self._state = state
        self._done = False
        self.problem: str | None = None

    def needs_reload(self, settings: Settings) -> bool:
        """Store the catalog if it is not stored yet, and return whether the definitions should be loaded again."""
        if self._done:
            return False
        try:
            reload_wanted = catalog_state.store_in_bucket(settings, self._state)
        except PgBronzeError as error:
            # Not an error of this sensor: the runs fail with it. Only a start without the database needs the copy.
            self.problem = f"The catalog is unchanged, but could not be stored: {error}"
            return False
        self._done, self.problem = True, None
        return reload_wanted


def reload(context: dg.SensorEvaluationContext) -> None:
    """Reload this code location for the web server and the daemon. Unfinished runs continue."""
    # Dagster 1.13 has no public name for the connection from the daemon to the code server.
    origin = context.code_location_origin
    if isinstance(origin, GrpcServerCodeLocationOrigin):
        origin.create_client().reload_code(timeout=60)
