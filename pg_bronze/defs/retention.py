"""Retention: one pass removes what is too old from Dagster's storage, in a bounded number of steps.

Recent runs are complete. Older ones are removed with their logs, and of the events of an asset the last one in ten
minutes is kept, later the last one an hour and a day; so watermark, partitions and plots stay. Failed runs, and those
that a person launched, are kept longer. Runs and assets that are not those of pg_bronze are left alone.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.storage.tags import REPOSITORY_LABEL_TAG

from pg_bronze.defs import metadata
from pg_bronze.defs.dagster_history import CHECK_RESULT, STORAGE_ERRORS, DagsterHistory
from pg_bronze.defs.source_names import SourceNames
from pg_bronze.scheduling.retention import DAY_S, HOUR_S, thin
from pg_bronze.settings.history import HistorySettings

KEY = "pg_bronze/retention"
RUNS_PER_PASS = 200
RUNS_MEASURED = 100
EVENTS_PER_PASS = 5000
TICKS_KEPT_S = 3 * HOUR_S
SHORT_S = 600.0
DAILY_AFTER_DAYS = 14
SUCCEEDED = (DagsterRunStatus.SUCCESS,)
FAILED = (DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED)
THINNED = ("ASSET_MATERIALIZATION", "ASSET_OBSERVATION")
ONLY_SOURCE = SourceNames()
BATCHES = ["tick", "run", "command", "silver", "verify", "new", "checks"]


@dataclass
class _State:
    """What one pass remembers for the next. Losing it costs one read of all events of assets.

    Attributes:
        resume: The id of the first event to read, by type of event and step.
        hour: When the hourly work was last done, in seconds since 1970.
        unused: The snapshots that no run named then.
        launched: When the last run was created that was looked at among those that a person launched.
        at: When the last pass ended, in seconds since 1970.
    """

    resume: dict[str, int] = field(default_factory=dict)
    hour: float = 0.0
    unused: list[str] = field(default_factory=list)
    launched: float = 0.0
    at: float = 0.0


def prune(
    instance: dg.DagsterInstance,
    keys: Collection[dg.AssetKey],
    settings: HistorySettings,
    now: float,
    location: str | None = None,
    names: SourceNames = ONLY_SOURCE,
) -> str:
    """Remove what is too old, and return a sentence about it.

    Args:
        instance: The instance whose storage is pruned.
        keys: The assets of pg_bronze.
        settings: What is kept.
        now: Seconds since 1970.
        location: The label of the code location, whose runs without a tag of pg_bronze a person launched.
        names: The names of the source, whose ticks are removed, and the runs of persons. Other runs are those of all
            sources.
    """
    history = DagsterHistory(instance)
    if not settings.retention:
        return "PG_BRONZE_RETENTION is false: nothing is removed from Dagster's storage."
    if history.unsupported:
        return history.unsupported
    try:
        return _prune(history, keys, settings, now, location, names)
    except STORAGE_ERRORS as error:
        # A file that another process locks, or two removals of the same rows. The rest waits for the next pass.
        return f"Dagster's storage could not be pruned ({type(error).__name__}). It is retried in a minute."


def last_at(instance: dg.DagsterInstance, source: SourceNames) -> float:
    """Return when the storage was last pruned, by any process, in seconds since 1970; 0 if that is not known."""
    return _load(instance, source).at


def _prune(
    history: DagsterHistory,
    keys: Collection[dg.AssetKey],
    settings: HistorySettings,
    now: float,
    location: str | None,
    source: SourceNames,
) -> str:
    instance = history.instance
    state = _load(instance, source)
    before = now - settings.keep_days * DAY_S
    since = _kept_since(history, SUCCEEDED, settings.keep_runs_mb, now - settings.keep_runs_h * HOUR_S)
    failed_since = _kept_since(history, FAILED, settings.keep_runs_mb, before)
    old = [*_old_runs(history, SUCCEEDED, since), *_old_runs(history, FAILED, failed_since)]
    if location:
        old += _launched(history, keys, source, state, location, before)
    history.remove_runs(old)
    names = {key.to_string() for key in keys}
    events, _ = _thin(history, names, state, SHORT_S, since)
    history.purge_ticks(source.sensors, now - min(TICKS_KEPT_S, settings.keep_runs_h * HOUR_S), now - DAY_S)
    if now - state.hour >= HOUR_S:
        events += _hourly(history, names, state, now)
    state.at = now
    instance.daemon_cursor_storage.set_cursor_values({source.of(KEY): json.dumps(asdict(state))})
    kept = f"runs are kept since {datetime.fromtimestamp(since, UTC):%Y-%m-%d %H:%M} UTC"
    return f"Removed {len(old):,} runs and {events:,} events from Dagster's storage; {kept}."


def _load(instance: dg.DagsterInstance, source: SourceNames) -> _State:
    key = source.of(KEY)
    text = instance.daemon_cursor_storage.get_cursor_values({key}).get(key, "")
    try:
        return _State(**json.loads(text))
    except (ValueError, TypeError):
        return _State()


def _filter(*statuses: DagsterRunStatus, before: float | None = None) -> RunsFilter:
    created_before = None if before is None else datetime.fromtimestamp(before, UTC)
    return RunsFilter(tags={metadata.BATCH_TAG: BATCHES}, statuses=statuses, created_before=created_before)


def _kept_since(history: DagsterHistory, kind: Sequence[DagsterRunStatus], megabytes: float, since: float) -> float:
    """Return the time since which runs that ended so are kept: a given one, or a later one if they take too much."""
    newest = history.instance.get_run_ids(_filter(*kind), limit=RUNS_MEASURED)
    if not newest:
        return since
    mean = max(1.0, history.size_of(newest) / len(newest))
    fit = max(1, int(megabytes * 1e6 / mean))
    oldest = history.created_at(metadata.BATCH_TAG, BATCHES, kind, fit - 1)
    return since if oldest is None else max(since, oldest)


def _old_runs(history: DagsterHistory, kind: Sequence[DagsterRunStatus], before: float) -> list[str]:
    """Return the oldest runs that no person launched and that ended so before a time."""
    records = history.instance.get_run_records(_filter(*kind, before=before), limit=RUNS_PER_PASS, ascending=True)
    return [record.dagster_run.run_id for record in records]


def _launched(
    history: DagsterHistory,
    keys: Collection[dg.AssetKey],
    source: SourceNames,
    state: _State,
    location: str,
    before: float,
) -> list[str]:
    """Return the oldest runs that a person launched, in the UI for example, among the next ones that have ended."""
    filters = RunsFilter(
        tags={REPOSITORY_LABEL_TAG: location},
        statuses=FINISHED_STATUSES,
        created_after=datetime.fromtimestamp(state.launched, UTC),
        created_before=datetime.fromtimestamp(before, UTC),
    )
    records = history.instance.get_run_records(filters, limit=RUNS_PER_PASS, ascending=True)
    # A location with other jobs and assets beside those of pg_bronze may have many old runs of these.
    complete = len(records) < RUNS_PER_PASS
    state.launched = 0.0 if complete else records[-1].create_timestamp.timestamp()
    runs = [record.dagster_run for record in records]
    return [run.run_id for run in runs if metadata.BATCH_TAG not in run.tags and _is_ours(run, keys, source)]


def _is_ours(run: dg.DagsterRun, keys: Collection[dg.AssetKey], source: SourceNames) -> bool:
    if run.job_name in source.jobs:
        return True
    return bool(run.asset_selection) and all(
        key in keys or source.has_bronze_key(key) for key in run.asset_selection or ()
    )


def _thin(history: DagsterHistory, keys: set[str], state: _State, step_s: float, time: float) -> tuple[int, bool]:
    """Keep the last event of each asset and partition in every step before a time.

    Returns:
        How many events were removed, and whether there are more to look at.
    """
    removed, more = 0, False
    for kind in (*THINNED, CHECK_RESULT):
        name = f"{kind}/{step_s:.0f}"
        resume = state.resume.get(name, 0)
        limit = max(EVENTS_PER_PASS, 4 * len(keys))
        is_check = kind == CHECK_RESULT
        found = history.check_results(resume, limit) if is_check else history.asset_events(kind, resume, limit)
        thinning = thin(found, resume, time, step_s)
        ours = {event.number for event in found if event.asset.partition("\n")[0] in keys}
        remove = [number for number in thinning.remove if number in ours]
        (history.remove_check_results if is_check else history.remove_events)(remove)
        state.resume[name] = thinning.resume
        removed += len(remove)
        more |= len(found) == limit and found[-1].time < time
    return removed, more


def _hourly(history: DagsterHistory, keys: set[str], state: _State, now: float) -> int:
    """Do what one pass in an hour is enough for, and return how many events were removed."""
    hours, more_hours = _thin(history, keys, state, HOUR_S, now - DAY_S)
    days, more_days = _thin(history, keys, state, DAY_S, now - DAILY_AFTER_DAYS * DAY_S)
    if more_hours or more_days:
        return hours + days  # the next pass continues
    # A run that is being created names a snapshot that was stored just before. Two passes apart, it has its row.
    unused = history.unused_snapshots()
    history.remove_snapshots(unused & set(state.unused))
    history.remove_orphaned_files(now)
    history.remove_copies_outside_runs(now - HOUR_S)
    history.remove_copies_of_check_results(now - HOUR_S)
    history.shrink()
    state.unused, state.hour = sorted(unused), now
    return hours + days
