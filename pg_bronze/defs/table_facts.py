"""The facts about tables that ``scheduling.due`` decides from.

They come from one probe of the database and one query to Dagster's storage. A run that materialized nothing of some
tables costs one more query for all of them, once for each process. Each failing table costs another query.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from pg_bronze.core import band_rules
from pg_bronze.core.slice_size import BLOCK_BYTES
from pg_bronze.core.table import SourceTable
from pg_bronze.core.watermark import Watermark
from pg_bronze.defs import failures, metadata, run_watchdog
from pg_bronze.defs.known_records import AssetFacts, KnownRecords, facts_of
from pg_bronze.defs.source_names import SourceNames
from pg_bronze.errors import PgBronzeError
from pg_bronze.postgres import activity as probe
from pg_bronze.postgres import connection_limit
from pg_bronze.postgres.activity import Activity
from pg_bronze.postgres.connection import Source
from pg_bronze.postgres.control_rows import ControlRows
from pg_bronze.scheduling import due, first_loads, run_slots
from pg_bronze.settings.model import Settings
from pg_bronze.settings.table_options import SWEEP_BUDGET_MIN

# A sweep of 8 MB takes about 5 ms in shared buffers. Asking first saves a run of several CPU seconds.
SMALL_PAGES, SMALL_LEAVES = 1000, 20
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
        control_rows: Reads the versions of the control rows.
        watermarks: The watermark of each asset, with the text that it was read from: it is parsed once.
    """

    settings: Settings | None = None
    started: float = 0.0
    changed: float = 0.0
    last_runs: dict[str, tuple[str, failures.LastRun]] = field(default_factory=dict)
    control_rows: ControlRows = field(default_factory=ControlRows)
    watermarks: dict[dg.AssetKey, tuple[object, Watermark | None]] = field(default_factory=dict)

    def start_tick(self, settings: Settings, now: float) -> None:
        """Start a tick with these settings."""
        self.started = self.started or now
        if self.settings is not None and settings != self.settings:
            self.changed = now
        self.settings = settings

    def read_watermark(self, key: dg.AssetKey, values: Mapping[str, object]) -> Watermark | None:
        """Return the watermark in the last materialization of an asset; None if there is none that can be read."""
        stored = values.get(metadata.WATERMARK)
        known = self.watermarks.get(key)
        if known is None or known[0] != stored:
            known = self.watermarks[key] = stored, _watermark(key, values)
        return known[1]

    def read_last_runs(
        self, instance: dg.DagsterInstance, entries: Mapping[dg.AssetKey, AssetFacts], running: set[dg.AssetKey] | None
    ) -> dict[dg.AssetKey, failures.LastRun]:
        """Return what the last run reported about each table; reads the storage once for each run that has ended.

        Args:
            running: The tables that unfinished runs copy, which may still report something; None for all.
        """
        unread: dict[str, list[dg.AssetKey]] = {}
        for key, entry in entries.items():
            run_id, known = entry.last_run_id, self.last_runs.get(key.to_user_string())
            if run_id and _materialized_by(entry) != run_id and (known is None or known[0] != run_id):
                unread.setdefault(run_id, []).append(key)
        for run_id, keys in unread.items():
            quiet = failures.quiet_in_run(instance, run_id) if len(keys) > 1 else {}
            for key in keys:
                found = quiet.get(key) or failures.last_run(instance, key, run_id)
                has_ended = running is not None and key not in running
                self.last_runs[key.to_user_string()] = (run_id if has_ended else "", found)
        return {
            key: self.last_runs[key.to_user_string()][1]
            for key, entry in entries.items()
            if entry.last_run_id and _materialized_by(entry) != entry.last_run_id
        }


def collect(
    instance: dg.DagsterInstance,
    tables: Sequence[SourceTable],
    activity: Activity,
    process: Process,
    settings: Settings,
) -> list[tuple[SourceTable, due.Facts]]:
    """Return the facts about each table that exists in the database now.

    A table that was dropped or renamed is left out: the catalog sensor reloads the definitions.
    """
    names = SourceNames(settings)
    running = _running(instance, names)
    keys = {names.bronze_key(table): table for table in tables}
    entries = _asset_facts(instance, list(keys))
    last_runs = process.read_last_runs(instance, entries, running)
    found = []
    for key, table in keys.items():
        oid = activity.oids.get((table.schema, table.name))
        if oid is None:
            continue
        entry = entries.get(key)
        last = last_runs.get(key, failures.LastRun())
        is_running = running is None or key in running
        values = entry.last.values if entry and entry.last else {}
        watermark = metadata.with_progress(process.read_watermark(key, values), last.progress)
        if key not in last_runs:
            last = failures.LastRun(slow=metadata.is_slow(values))
        copied_at = entry.last.timestamp if entry and entry.last else None
        found.append((table, _facts(table, oid, activity, watermark, last, is_running, copied_at)))
    return _with_rules(found, settings)


def _asset_facts(instance: dg.DagsterInstance, keys: Sequence[dg.AssetKey]) -> dict[dg.AssetKey, AssetFacts]:
    """Return what Dagster's storage has about the last run and materialization of each asset."""
    storage = instance.event_log_storage
    if isinstance(storage, KnownRecords):
        return storage.get_asset_facts(keys, metadata.OF_A_TICK)
    entries = [record.asset_entry for record in instance.get_asset_records(keys)]
    return {entry.asset_key: facts_of(entry, metadata.OF_A_TICK) for entry in entries}


def _with_rules(found: list[tuple[SourceTable, due.Facts]], settings: Settings) -> list[tuple[SourceTable, due.Facts]]:
    """Add to each table when it is swept: the sweeps of all large tables without a budget of their own share one."""
    rules = band_rules.rules_of(settings.interval_s, 0)
    least = rules.with_budget(SWEEP_BUDGET_MIN)
    costs: dict[int, tuple[float, float | None]] = {}
    for place, (table, facts) in enumerate(found):
        cost = band_rules.sweep_s(table, facts.watermark.sweeps if facts.watermark else None)
        # The options of a table are validated at each call, and few tables are large.
        options = settings.table_options(table.label) if least.period_s(cost) > 0 else None
        if options and options.bands == "auto" and rules.with_budget(options.sweep_budget).period_s(cost) > 0:
            costs[place] = cost, options.sweep_budget
    rules = band_rules.rules_of(settings.interval_s, sum(budget is None for _, budget in costs.values()))
    return [
        (table, replace(facts, rules=rules.with_budget(costs[place][1]), sweep_s=costs[place][0]))
        if place in costs
        else (table, facts)
        for place, (table, facts) in enumerate(found)
    ]


def _facts(
    table: SourceTable,
    oid: int,
    activity: Activity,
    watermark: Watermark | None,
    last: failures.LastRun,
    running: bool,
    copied_at: float | None,
) -> due.Facts:
    leaves = activity.leaves(oid)
    return due.Facts(
        oid=oid,
        leaves=leaves,
        counters=[activity.tuples.get(leaf, 0) for leaf in leaves],
        watermark=watermark,
        running=running,
        quiet=last.quiet,
        silent=last.silent,
        failure=last.failure,
        counted_since=activity.counted_since,
        small=not table.partitioned and is_small(table),
        nodes=[activity.nodes.get(leaf, 0) for leaf in leaves],
        slow=last.slow,
        copied_at=copied_at,
    )


def is_small(table: SourceTable) -> bool:
    """Return whether asking a table for new rows takes milliseconds."""
    return sum(item.page_count for item in table.relations) <= SMALL_PAGES and len(table.relations) <= SMALL_LEAVES


def _running(instance: dg.DagsterInstance, names: SourceNames) -> set[dg.AssetKey] | None:
    """Return the asset keys of unfinished runs; None if one of them copies all assets."""
    keys: set[dg.AssetKey] = set()
    for record in instance.get_run_records(RunsFilter(statuses=_UNFINISHED), limit=200):
        selection = record.dagster_run.asset_selection
        if selection is None:
            if record.dagster_run.job_name in names.copy_jobs:
                return None
            continue
        keys |= set(selection)
    return keys


def first_loads_running(instance: dg.DagsterInstance, names: SourceNames) -> int:
    """Return how many runs of first loads are not finished."""
    tags = {metadata.FIRST_LOAD_TAG: "true", **names.tags}
    return instance.get_runs_count(RunsFilter(tags=tags, statuses=_UNFINISHED))


def free_slots(
    instance: dg.DagsterInstance, settings: Settings, source: Source, keys: Collection[dg.AssetKey]
) -> int | None:
    """Return how many more runs get a connection to the source; None without a limit.

    Args:
        keys: The bronze assets of the source.
    """
    if settings.run_slots is None:
        return None
    runs = (record.dagster_run for record in instance.get_run_records(RunsFilter(statuses=_UNFINISHED), limit=200))
    names, known = SourceNames(settings), set(keys)
    sessions = {run_watchdog.session_name(run.run_id) for run in runs if _connects(run, names, known)}
    return run_slots.free(settings.run_slots, sessions, connection_limit.holders(source))


def _connects(run: dg.DagsterRun, names: SourceNames, keys: Collection[dg.AssetKey]) -> bool:
    """Return whether a run connects to the source."""
    if run.asset_selection:
        return any(key in keys or names.has_bronze_key(key) for key in run.asset_selection)
    return run.job_name in names.jobs | names.copy_jobs


def sizes(source: Source, tables: Sequence[tuple[SourceTable, due.Facts]]) -> dict[int, int]:
    """Return the blocks of the leaves that were never read, as they are now: one statement for all tables.

    A table may have been created and filled since the catalog was read. What cannot be read now counts as it did then.
    """
    known = {item.oid: item.page_count + item.toast_page_count for table, _ in tables for item in table.relations}
    oids = [oid for _, facts in tables for oid in first_loads.unread(facts)]
    try:
        found = probe.sizes(source, oids) if oids else {}
    except PgBronzeError:
        found = {}
    return known | {oid: size // BLOCK_BYTES for oid, size in found.items()}


def _materialized_by(entry: AssetFacts) -> str | None:
    return entry.last.run_id if entry.last else None


def _watermark(key: dg.AssetKey, values: Mapping[str, object]) -> Watermark | None:
    try:
        return metadata.watermark_in(key, values)
    except PgBronzeError:
        return None  # the table is due then, and its run reports the error
