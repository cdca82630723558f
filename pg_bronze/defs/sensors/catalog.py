"""The catalog sensor: reloads this code location when tables are created, dropped or altered."""

from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, ManagedGrpcPythonEnvCodeLocationOrigin

from pg_bronze.defs import catalog_state, new_tables
from pg_bronze.defs.catalog_state import CatalogState
from pg_bronze.defs.sensors import tick
from pg_bronze.defs.sensors.tick import LoadSettings
from pg_bronze.defs.source_names import SourceNames
from pg_bronze.errors import PgBronzeError
from pg_bronze.scheduling.reloads import ReloadRequest
from pg_bronze.settings.model import Settings

CATALOG_INTERVAL_S = 15
# Between two reads of an unchanged catalog; in between, only new and dropped tables are looked for.
FULL_READ_S = 29.0


def build_catalog(
    state: CatalogState, settings: Settings | None, new: dg.JobDefinition | None, load: LoadSettings
) -> dg.SensorDefinition:
    """Return the sensor that reloads the definitions when the catalog has changed, and stores the loaded catalog.

    Args:
        settings: The settings when the definitions were loaded; None if they were invalid.
        new: The job that copies new tables if the definitions cannot be reloaded.
        load: Loads the settings for each evaluation.
    """
    store, known, names = _Store(state), _Known(), SourceNames(settings)

    @dg.sensor(
        name=names.of("bronze_catalog"),
        target=new or dg.AssetSelection.groups(names.of("bronze")),
        minimum_interval_seconds=CATALOG_INTERVAL_S - 1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Reloads the definitions after tables were created, dropped or altered, and after a change of a "
        "setting.",
    )
    def bronze_catalog(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        current = load()  # a SettingsError names the setting that is invalid now
        if settings is None:
            reload(context)
            return dg.SensorResult(skip_reason="The settings are valid now. The definitions are being reloaded.")
        now = datetime.now(UTC).timestamp()
        mark = catalog_state.tables_mark(current)
        # Descriptions, columns, owners and tags depend on the settings, and run workers compare the mark.
        changed = current.mark() != settings.mark()
        if not changed and known.unchanged(mark, now):
            return dg.SensorResult(skip_reason="No table was created or dropped.", cursor=context.cursor)
        catalog = catalog_state.live(current)
        live = catalog.fingerprint
        loaded = state.catalog.fingerprint if state.catalog else None
        stale = changed or live != loaded or state.remembered is not None or store.needs_reload(current)
        stale = stale or catalog_state.former_changed(current, state, datetime.fromtimestamp(now, UTC))
        if not stale:
            if store.problem is None:
                known.keep(mark, now)
            return dg.SensorResult(skip_reason=store.problem or "The catalog is unchanged.", cursor=live)
        reloaded = _request(context, live, now, "The settings" if changed and live == loaded else "The catalog")
        found = new_tables.copied_since(state.catalog, catalog, current) if reloaded.in_vain else []
        if found and not new_tables.in_progress(context.instance, current):
            return dg.SensorResult(run_requests=[new_tables.request(found, current)], cursor=reloaded.cursor)
        return dg.SensorResult(skip_reason=reloaded.sentence, cursor=reloaded.cursor)

    return bronze_catalog


@dataclass(frozen=True)
class _Reload:
    """What a request for a reload had as its result.

    Attributes:
        sentence: The reason of the skipped tick.
        cursor: The cursor of the sensor.
        in_vain: An earlier reload had no effect, or this code server cannot be reloaded.
    """

    sentence: str
    cursor: str
    in_vain: bool = False


def _request(context: dg.SensorEvaluationContext, live: str, now: float, changed: str) -> _Reload:
    """Reload the definitions unless they were reloaded in vain just before.

    The database may have been down during a reload. A table that cannot be loaded would be reloaded every 15 s.

    Args:
        live: The fingerprint of the catalog.
        changed: What has changed, for the sentence.
    """
    last = ReloadRequest.from_cursor(context.cursor, live)
    if now < last.next_at:
        sentence = (
            f"{changed} changed. Reloads of the definitions without effect so far: {last.count}. The next one is at "
            f"{datetime.fromtimestamp(last.next_at, UTC):%H:%M:%S} UTC. If this continues, restart the code location."
        )
        return _Reload(sentence, last.to_cursor())
    cursor = last.again(now).to_cursor()
    if isinstance(context.code_location_origin, ManagedGrpcPythonEnvCodeLocationOrigin):
        return _Reload(f"{changed} changed. The daemon loads the definitions again within a minute.", cursor, True)
    reload(context)
    return _Reload(f"{changed} changed. The definitions are being reloaded.", cursor, last.count > 0)


class _Known:
    """When the whole catalog was last read and found unchanged, and the mark of its tables before that."""

    def __init__(self) -> None:
        self._mark: tuple[int, int] | None = None
        self._at = 0.0

    def unchanged(self, mark: tuple[int, int], now: float) -> bool:
        """Return whether the whole catalog need not be read yet."""
        return mark == self._mark and 0 <= now - self._at < FULL_READ_S

    def keep(self, mark: tuple[int, int], now: float) -> None:
        """Keep that the whole catalog, read after the mark, was unchanged."""
        self._mark, self._at = mark, now


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
        # This code server continues for some seconds, and the new one opens a separate connection.
        tick.close_kept()
