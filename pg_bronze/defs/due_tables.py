"""The check of one tick: collects the facts about all tables, asks ``scheduling.due``, and describes the result.

The sensor and `pg-bronze run` call the same function. Facts come from one probe of the database, one query to Dagster's
storage, and for each table whose last run materialized nothing one more query, once.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter
from dagster._core.storage.event_log.base import AssetEntry

from pg_bronze.core import window_sql
from pg_bronze.core.table import SourceTable
from pg_bronze.core.watermark import Watermark
from pg_bronze.defs import asset_keys, failures, metadata, run_watchdog
from pg_bronze.errors import PgBronzeError
from pg_bronze.postgres.activity import Activity
from pg_bronze.postgres.connection import Source
from pg_bronze.scheduling import backoff, due
from pg_bronze.scheduling.backoff import Failure
from pg_bronze.scheduling.memory import Memory
from pg_bronze.settings.model import Settings

# A sweep of 8 MB takes about 5 ms in shared buffers. Asking first saves a run of several CPU seconds.
SMALL_PAGES = 1000
STALLED_AFTER_S = 60.0
_UNFINISHED = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]


@dataclass
class Process:
    """What one process keeps between ticks.

    Attributes:
        settings: The settings of the last tick. Runs load them again, so a fix may take effect without a reload.
        started: The first tick of this process, in seconds since 1970; 0 before it.
        changed: The last tick at which the settings differed, secrets included; 0 for never.
        last_runs: What each table's last run reported, with the run's id: it is read once for each run.
    """

    settings: Settings | None = None
    started: float = 0.0
    changed: float = 0.0
    last_runs: dict[str, tuple[str, failures.LastRun]] = field(default_factory=dict)

    def note(self, settings: Settings, now: float) -> None:
        """Start a tick with these settings."""
        self.started = self.started or now
        if self.settings is not None and settings != self.settings:
            self.changed = now
        self.settings = settings


@dataclass(frozen=True)
class TableCheck:
    """The decision about one table; for a failing one also its failure and the time of its next retry."""

    table: SourceTable
    decision: due.Decision
    failure: Failure | None = None
    next_try: float = 0.0


@dataclass(frozen=True)
class Check:
    """The result of one tick.

    Attributes:
        tables: The decision about each table.
        memory: What to remember until the next tick.
        sentence: What was checked and what was found, for people.
    """

    tables: Sequence[TableCheck]
    memory: Memory
    sentence: str

    @property
    def due(self) -> list[TableCheck]:
        """The tables to copy now."""
        return [item for item in self.tables if item.decision.due]


def check(
    instance: dg.DagsterInstance,
    tables: Sequence[SourceTable],
    settings: Settings,
    source: Source,
    memory: Memory,
    process: Process,
    now: float,
) -> Check:
    """Decide which tables are due.

    Args:
        tables: All tables that are copied.
        memory: What the last tick returned.
        now: Seconds since 1970.

    Raises:
        PgBronzeError: The database did not answer.
    """
    process.note(settings, now)
    activity = source.activity()
    run_watchdog.end(instance, source, [asset_keys.bronze_key(table) for table in tables], now)
    cluster = due.Cluster(activity.horizon, activity.next_xid, activity.standby)
    checked: list[TableCheck] = []
    for table, facts in _facts(instance, tables, activity, process):
        hint = memory.hints.get(name_of(table), due.Hint())
        failure = None if facts.running else due.failure_of(facts, hint)
        next_try = _next_try(failure, facts.silent, table, settings, process) if failure else None
        decision = due.decide(facts, hint, cluster, now, settings.ungated_after_s, next_try)
        if decision.ask:
            decision = due.after_asking(decision, _has_rows(source, table, facts, decision, cluster), cluster.horizon)
        checked.append(TableCheck(table, decision, failure, next_try or 0.0))
    since = memory.horizon_since if memory.horizon == activity.horizon else now
    hints = {name_of(item.table): item.decision.hint for item in checked}
    sentence = _sentence(instance, checked, cluster, source, now, since)
    return Check(checked, Memory(hints, activity.horizon, since), sentence)


def name_of(table: SourceTable) -> str:
    """Return the name under which a table is remembered: its asset key."""
    return asset_keys.bronze_key(table).to_user_string()


def _facts(
    instance: dg.DagsterInstance, tables: Sequence[SourceTable], activity: Activity, process: Process
) -> list[tuple[SourceTable, due.Facts]]:
    """Return the facts about each table that exists in the database now."""
    running = _running(instance)
    keys = {asset_keys.bronze_key(table): table for table in tables}
    entries = {record.asset_entry.asset_key: record.asset_entry for record in instance.get_asset_records(list(keys))}
    found = []
    for key, table in keys.items():
        oid = activity.oids.get((table.schema, table.name))
        if oid is None:
            continue  # dropped or renamed: the catalog sensor reloads the definitions
        entry = entries.get(key)
        last = _last_run(instance, entry, process) if entry else failures.LastRun()
        leaves = activity.leaves(oid)
        found.append(
            (
                table,
                due.Facts(
                    oid=oid,
                    leaves=leaves,
                    counters=[activity.tuples.get(leaf, 0) for leaf in leaves],
                    watermark=_watermark(entry),
                    running=running is None or key in running,
                    quiet=last.quiet,
                    silent=last.silent,
                    failure=last.failure,
                    small=not table.partitioned and sum(item.page_count for item in table.relations) <= SMALL_PAGES,
                ),
            )
        )
    return found


def _running(instance: dg.DagsterInstance) -> set[dg.AssetKey] | None:
    """Return the asset keys of unfinished runs; None if one of them copies all assets."""
    keys: set[dg.AssetKey] = set()
    for record in instance.get_run_records(RunsFilter(statuses=_UNFINISHED), limit=200):
        selection = record.dagster_run.asset_selection
        if selection is None:
            if record.dagster_run.job_name in {"bronze", "__ASSET_JOB"}:
                return None
            continue
        keys |= set(selection)
    return keys


def _watermark(entry: AssetEntry | None) -> Watermark | None:
    try:
        return metadata.watermark_of(entry.last_materialization if entry else None)
    except PgBronzeError:
        return None  # the table is due then, and its run stops and explains


def _last_run(instance: dg.DagsterInstance, entry: AssetEntry, process: Process) -> failures.LastRun:
    """Return what the last run reported about a table; reads the storage at most once for each run."""
    run_id, name = entry.last_run_id, entry.asset_key.to_user_string()
    if not run_id or (entry.last_materialization and entry.last_materialization.run_id == run_id):
        return failures.LastRun()
    if name not in process.last_runs or process.last_runs[name][0] != run_id:
        process.last_runs[name] = (run_id, failures.last_run(instance, entry.asset_key, run_id))
    return process.last_runs[name][1]


def _next_try(failure: Failure, silent: bool, table: SourceTable, settings: Settings, process: Process) -> float:
    if process.changed > failure.last:
        return failure.last  # the state contains no secret, so a changed password is noticed here
    state = failure.state if silent else failures.state_of(settings.fingerprint(), table.fingerprint)
    return backoff.next_retry_at(failure, state, process.started)


def _has_rows(
    source: Source, table: SourceTable, facts: due.Facts, decision: due.Decision, cluster: due.Cluster
) -> bool:
    """Ask a small table whether its window has a row; a run is worth its cost only then."""
    region = window_sql.Region(table.schema, table.name, True, (facts.oid,), decision.swept, cluster.horizon)
    try:
        return bool(source.ask(window_sql.exists(region, {}))[0][0])
    except PgBronzeError:
        return True  # the run reports what is wrong


def _sentence(
    instance: dg.DagsterInstance,
    checked: Sequence[TableCheck],
    cluster: due.Cluster,
    source: Source,
    now: float,
    horizon_since: float,
) -> str:
    reasons = Counter(item.decision.reason for item in checked)
    counts = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())
    sentences = [f"{len(checked):,} tables checked up to transaction {cluster.horizon:,}: {counts or 'none exists'}"]
    last = instance.get_run_records(
        RunsFilter(tags={metadata.BATCH_TAG: "tick"}, statuses=[DagsterRunStatus.SUCCESS]), limit=1
    )
    if last:
        rows = int(last[0].dagster_run.tags.get(metadata.ROWS_TAG, "0"))
        sentences.append(f"The last batch copied {rows:,} rows")
    sentences += [sentence.rstrip(".") for sentence in failing(checked, now)]
    if now - horizon_since > STALLED_AFTER_S and cluster.next_xid > cluster.horizon:
        sentences.append(f"New rows are blocked: {source.holder() or 'an open transaction holds the horizon'}")
    return ". ".join(sentences)


def failing(checked: Sequence[TableCheck], now: float) -> list[str]:
    """Return one sentence for each cause of failing tables."""
    found: Mapping[str, tuple[Failure, float]] = {
        item.table.label: (item.failure, item.next_try) for item in checked if item.failure is not None
    }
    return backoff.sentences(found, now)
