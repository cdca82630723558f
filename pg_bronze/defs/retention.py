"""Retention: one pass removes what is too old from Dagster's storage, in a bounded number of steps.

Recent runs are complete. Older ones are removed with their logs, and of the events of an asset the last one an hour is
kept, later the last one a day; so watermark, partitions and plots stay. Failed runs are kept longer. Runs and assets
that are not those of pg_bronze are left alone.
"""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from pg_bronze.defs import metadata
from pg_bronze.defs.dagster_history import STORAGE_ERRORS, DagsterHistory
from pg_bronze.scheduling.retention import DAY_S, HOUR_S, thin
from pg_bronze.settings.history import HistorySettings

KEY = "pg_bronze/retention"
RUNS_PER_PASS = 200
EVENTS_PER_PASS = 5000
TICKS_KEPT_S = 6 * HOUR_S
# Ten tables add 1.2 MB a day while one event an hour is kept.
DAILY_AFTER_DAYS = 14
THINNED = ("ASSET_MATERIALIZATION", "ASSET_OBSERVATION")
BATCHES = ["tick", "run", "command", "silver", "verify"]
SENSORS = {"bronze_tick", "bronze_catalog", "bronze_retention", "silver_latest"}


@dataclass
class _State:
    """What one pass remembers for the next. Losing it costs one read of all events of assets.

    Attributes:
        resume: The id of the first event to read, by type of event and step.
        hour: When the hourly work was last done, in seconds since 1970.
        unused: The snapshots that no run named then.
    """

    resume: dict[str, int] = field(default_factory=dict)
    hour: float = 0.0
    unused: list[str] = field(default_factory=list)


def prune(instance: dg.DagsterInstance, keys: Collection[dg.AssetKey], settings: HistorySettings, now: float) -> str:
    """Remove what is too old, and return a sentence about it.

    Args:
        instance: The instance whose storage is pruned.
        keys: The assets of pg_bronze.
        settings: What is kept.
        now: Seconds since 1970.
    """
    history = DagsterHistory(instance)
    if not settings.retention:
        return "PG_BRONZE_RETENTION is false: nothing is removed from Dagster's storage."
    if history.unsupported:
        return history.unsupported
    try:
        return _prune(history, {key.to_string() for key in keys}, settings, now)
    except STORAGE_ERRORS as error:
        # A file that another process locks, or two removals of the same rows. The rest waits for the next pass.
        return f"Dagster's storage could not be pruned ({type(error).__name__}). It is retried in a minute."


def _prune(history: DagsterHistory, keys: set[str], settings: HistorySettings, now: float) -> str:
    instance = history.instance
    state = _load(instance)
    since = _kept_since(history, settings, now)
    runs = _remove_runs(history, settings, since, now)
    events = _thin_all(history, keys, state, (since, now - DAILY_AFTER_DAYS * DAY_S))
    history.purge_ticks(SENSORS, now - min(TICKS_KEPT_S, settings.keep_runs_h * HOUR_S))
    if now - state.hour >= HOUR_S:
        _hourly(history, state, now)
    instance.daemon_cursor_storage.set_cursor_values({KEY: json.dumps(asdict(state))})
    kept = f"runs are kept since {datetime.fromtimestamp(since, UTC):%Y-%m-%d %H:%M} UTC"
    return f"Removed {runs:,} runs and {events:,} events from Dagster's storage; {kept}."


def _load(instance: dg.DagsterInstance) -> _State:
    text = instance.daemon_cursor_storage.get_cursor_values({KEY}).get(KEY, "")
    try:
        return _State(**json.loads(text))
    except (ValueError, TypeError):
        return _State()


def _filter(*statuses: DagsterRunStatus, before: float | None = None) -> RunsFilter:
    created_before = None if before is None else datetime.fromtimestamp(before, UTC)
    return RunsFilter(tags={metadata.BATCH_TAG: BATCHES}, statuses=statuses, created_before=created_before)


def _kept_since(history: DagsterHistory, settings: HistorySettings, now: float) -> float:
    """Return the time since which runs and events are complete: that of the oldest run to keep, at most a day ago."""
    newest = history.runs(_filter(DagsterRunStatus.SUCCESS), settings.keep_runs, oldest_first=False)
    oldest = newest[-1][1] if len(newest) == settings.keep_runs else 0.0
    return max(oldest, now - settings.keep_runs_h * HOUR_S)


def _remove_runs(history: DagsterHistory, settings: HistorySettings, since: float, now: float) -> int:
    failed_since = now - settings.keep_failed_days * DAY_S
    old = [
        *history.runs(_filter(DagsterRunStatus.SUCCESS, before=since), RUNS_PER_PASS, oldest_first=True),
        *history.runs(
            _filter(DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED, before=failed_since),
            RUNS_PER_PASS,
            oldest_first=True,
        ),
    ]
    history.remove_runs([run_id for run_id, _ in old])
    return len(old)


def _thin_all(history: DagsterHistory, keys: set[str], state: _State, until: tuple[float, float]) -> int:
    """Keep one event an hour before the first time, and one a day before the second; return how many were removed."""
    removed = 0
    for kind in THINNED:
        for step_s, time in zip((HOUR_S, DAY_S), until, strict=True):
            name = f"{kind}/{step_s:.0f}"
            resume = state.resume.get(name, 0)
            found = history.asset_events(kind, resume, max(EVENTS_PER_PASS, 4 * len(keys)))
            thinning = thin(found, resume, time, step_s)
            ours = {event.number for event in found if event.asset in keys}
            remove = [number for number in thinning.remove if number in ours]
            history.remove_events(remove)
            state.resume[name] = thinning.resume
            removed += len(remove)
    return removed


def _hourly(history: DagsterHistory, state: _State, now: float) -> None:
    # A run that is being created names a snapshot that was stored just before. Two passes apart, it has its row.
    unused = history.unused_snapshots()
    history.remove_snapshots(unused & set(state.unused))
    history.remove_orphaned_files(now)
    history.remove_copies_outside_runs(now - HOUR_S)
    history.shrink()
    state.unused, state.hour = sorted(unused), now
