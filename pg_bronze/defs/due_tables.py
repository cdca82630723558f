"""The check of one tick: collects the facts about all tables, asks ``scheduling.due``, and describes the result.

The sensor, `pg-bronze tick` and `pg-bronze run` call the same function.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from pg_bronze.core import band_notes, band_planning
from pg_bronze.core.region import Region
from pg_bronze.core.table import SourceTable
from pg_bronze.defs import failures, metadata, run_tags, table_facts
from pg_bronze.defs.source_names import SourceNames
from pg_bronze.defs.table_facts import Process
from pg_bronze.errors import PgBronzeError
from pg_bronze.lake import keys
from pg_bronze.postgres import control_table, new_rows
from pg_bronze.postgres.activity import STALLED_AFTER_S, Activity
from pg_bronze.postgres.connection import Source
from pg_bronze.scheduling import backoff, due, first_loads, health, run_slots, tick_report
from pg_bronze.scheduling.backoff import Failure
from pg_bronze.scheduling.health import Cause, Found, TableHealth, Targets
from pg_bronze.scheduling.memory import Memory, place_of
from pg_bronze.scheduling.tick_report import LastBatch
from pg_bronze.settings.model import Settings

# A batch in which some tables failed has copied the others.
# Runs of sources with a name that are passed over to find the last one of the source without a name.
_OTHERS = 25
_ENDED = [DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE]


@dataclass(frozen=True)
class TableCheck:
    """The decision about one table; for a failing one also its failure and the time of its next retry.

    Attributes:
        key: The key of its bronze asset.
        large: The rest of its first load is so large that it is copied in a separate run.
        slow: Its last copy took long, so that it is copied apart from the other tables.
    """

    table: SourceTable
    key: dg.AssetKey
    decision: due.Decision
    failure: Failure | None = None
    next_retry: float = 0.0
    large: bool = False
    slow: bool = False


@dataclass(frozen=True)
class Check:
    """The result of one tick.

    Attributes:
        tables: The decision about each table.
        memory: What to pass to the next tick.
        summary: How many tables were checked with which result, and what the last batch copied.
        failing: One sentence for each cause of failing tables.
        blocked: Which transaction keeps new rows from being copied; None if there is none.
        large_tables: The number of tables that are swept by a schedule and have no budget of their own.
        overdue: One sentence for each of them whose last sweep is too long ago.
        health: The state of each table.
    """

    tables: Sequence[TableCheck]
    memory: Memory
    summary: str
    failing: Sequence[str] = ()
    blocked: str | None = None
    large_tables: int = 0
    overdue: Sequence[str] = ()
    health: Sequence[TableHealth] = ()

    @property
    def due(self) -> list[TableCheck]:
        """The tables to copy now."""
        return [item for item in self.tables if item.decision.due]

    @property
    def sentence(self) -> str:
        """Everything that people should know about the tick, trouble first."""
        return tick_report.line([self.blocked, *self.failing, *self.overdue], self.summary)


def check(
    instance: dg.DagsterInstance,
    tables: Sequence[SourceTable],
    settings: Settings,
    source: Source,
    memory: Memory,
    process: Process,
    now: float,
    attended: bool = False,
    moved: Mapping[str, int] = MappingProxyType({}),
    slots: int = first_loads.SLOTS,
    free_slots: int | None = None,
) -> Check:
    """Decide which tables are due. Changes nothing, in the database or in Dagster's storage.

    Args:
        tables: All tables that are copied.
        memory: What the last tick returned.
        now: Seconds since 1970.
        attended: A person requested the tick: it finds every committed row, whether counted yet or not, retries
            failing tables at once, and does not leave tables to unfinished runs, which may be those of a dead worker.
        moved: The newest generation that was moved away, by folder. The watermark of such a generation is outdated.
        slots: The most large first loads at once; a person's are not limited.
        free_slots: How many more runs get a connection; None if the caller starts one at a time, or without a limit.

    Raises:
        PgBronzeError: The database did not answer.
    """
    begun = time.perf_counter()
    process.start_tick(settings, now)
    activity = source.activity()
    collected = table_facts.collect(instance, tables, activity, process, settings)
    # The watermarks first, the log position second: the other order would take a copy in between for a restore.
    origin = source.place(keys.place(settings.minio_bucket, settings.prefix))
    cluster = due.Cluster(activity.horizon, activity.next_xid, activity.standby, origin)
    if not cluster.standby:
        collected = _with_control(collected, source, activity, process, origin.database, settings.control_source)
    tick = _Tick(settings, source, memory, process, cluster, now, attended, moved)
    checked = _in_turn(instance, tick, tick.check_all(collected), collected, slots, free_slots)
    since = memory.horizon_since if memory.horizon == activity.horizon else now
    hints = {hint_key(item.key): due.remembered(item.decision, cluster) for item in checked}
    failing = {item.table.label: (item.failure, item.next_retry) for item in checked if item.failure is not None}
    coverage = memory.coverage.with_sample(now, activity.next_xid, activity.horizon)
    cause = Cause(now - since, _blocked(source, cluster, now - since, attended))
    aims = [targets_of(settings, table.label) for table, _ in collected]
    found = _found(checked, collected, aims, cluster, now)
    return Check(
        checked,
        Memory(hints, activity.horizon, since, coverage),
        _summary(instance, tick.names, checked, cluster.horizon, begun, now),
        backoff.sentences(failing, now),
        cause.blocked,
        sum(facts.scheduled and facts.rules.shared for _, facts in collected if facts.rules),
        [item.overdue for item in found if item.overdue],
        [health.of_table(item, coverage, cause, aim, now) for item, aim in zip(found, aims, strict=True)],
    )


def targets(settings: Settings) -> Targets:
    """Return the lag that is acceptable with these settings."""
    return Targets(max(settings.lag_target_s, 3 * settings.interval_s), STALLED_AFTER_S)


def targets_of(settings: Settings, label: str) -> Targets:
    """Return what is acceptable for one table."""
    common = targets(settings)
    if not settings.has_own_targets:
        return common
    own = settings.table_options(label)
    lag_s = common.lag_s if own.lag_target_s is None else max(own.lag_target_s, 3 * settings.interval_s)
    return replace(common, lag_s=lag_s, sweep_s=own.sweep_target_s, worst=own.severity)


@dataclass(frozen=True)
class _Tick:
    """The arguments of ``check`` that decide about each table."""

    settings: Settings
    source: Source
    memory: Memory
    process: Process
    cluster: due.Cluster
    now: float
    attended: bool
    moved: Mapping[str, int]

    @property
    def names(self) -> SourceNames:
        """The names of the source."""
        return SourceNames(self.settings)

    def check_all(self, collected: Sequence[tuple[SourceTable, due.Facts]]) -> list[TableCheck]:
        """Decide about all tables, with the answers of the database about those that are to be asked."""
        checked = [self._check(table, facts) for table, facts in collected]
        asked = [place for place, item in enumerate(checked) if item.decision.ask]
        # Each large table is asked in a separate statement, which has the whole time limit.
        small = [place for place in asked if table_facts.is_small(collected[place][0])]
        answers = dict(zip(small, self._have_rows([collected[place] for place in small]), strict=True))
        for place in asked:
            found = answers[place] if place in answers else self._have_rows([collected[place]])[0]
            decision = due.after_asking(checked[place].decision, found, self.cluster, self.now)
            checked[place] = replace(checked[place], decision=decision)
        return checked

    def _check(self, table: SourceTable, facts: due.Facts) -> TableCheck:
        if facts.running and self.attended:
            facts = replace(facts, running=False)
        if facts.watermark and facts.watermark.generation <= self.moved.get(keys.folder(table.schema, table.name), -1):
            facts = replace(facts, watermark=None)  # another Dagster instance started a generation
        key = self.names.bronze_key(table)
        hint = self.memory.hints.get(hint_key(key), due.Hint())
        failure = None if facts.running else due.failure_of(facts, hint)
        next_retry = self._next_retry(failure, facts.silent, table) if failure else None
        limit_s = self.settings.ungated_after_s
        decision = due.decide(facts, hint, self.cluster, self.now, limit_s, next_retry, exact=self.attended)
        return TableCheck(table, key, decision, failure, next_retry or 0.0, slow=facts.slow)

    def postpone(self, checked: list[TableCheck], place: int, reason: str) -> None:
        """Leave a table that is due to a later tick."""
        item = checked[place]
        due_at = self.memory.hints.get(hint_key(item.key), due.Hint()).due_at
        checked[place] = replace(item, decision=first_loads.postponed(item.decision, due_at, reason))

    def _have_rows(self, collected: Sequence[tuple[SourceTable, due.Facts]]) -> list[bool | None]:
        questions = [(self._region(table, facts), table.names_by_attnum) for table, facts in collected]
        return new_rows.exist(self.source, questions)

    def _region(self, table: SourceTable, facts: due.Facts) -> Region:
        upto, horizon = due.delivered_upto(facts), self.cluster.horizon
        whole = Region(table.schema, table.name, not table.partitioned, tuple(facts.leaves), upto, horizon)
        if facts.watermark is None or not due.asks_fresh(facts):
            return whole
        return band_planning.fresh_region(whole, facts.watermark.leaf(facts.leaves[0]), horizon) or whole

    def _next_retry(self, failure: Failure, silent: bool, table: SourceTable) -> float:
        if self.attended or self.process.changed > failure.last:
            return failure.last  # the state contains no secret, so a changed password is noticed here
        state = failure.state if silent else failures.state_of(self.settings.fingerprint(), table)
        return backoff.next_retry_at(failure, state, self.process.started)


def _in_turn(
    instance: dg.DagsterInstance,
    tick: "_Tick",
    checked: list[TableCheck],
    collected: Sequence[tuple[SourceTable, due.Facts]],
    slots: int,
    free_slots: int | None,
) -> list[TableCheck]:
    """Mark the large first loads among the tables that are due, and postpone what no run is free for."""
    facts = [facts for _, facts in collected]
    loading = [place for place, item in enumerate(checked) if item.decision.due and first_loads.unread(facts[place])]
    sizes = table_facts.sizes(tick.source, [collected[place] for place in loading])
    left = {place: first_loads.blocks_left(facts[place], sizes) for place in loading}
    large = [place for place in loading if first_loads.is_large(left[place], tick.settings.slice_bytes)]
    since = [tick.memory.hints.get(hint_key(checked[place].key), due.Hint()).due_at for place in large]
    waiting = list(zip(since, (left[place] for place in large), strict=True))
    small = [place for place, item in enumerate(checked) if item.decision.due and place not in large]
    room = run_slots.room(free_slots, bool(small), tick.now, since)
    now = set(range(len(large)))
    if large and not tick.attended:
        running = table_facts.first_loads_running(instance, tick.names)
        now = first_loads.chosen(waiting, running, min(slots, running + room.first_loads))
    for number, place in enumerate(large):
        checked[place] = replace(checked[place], large=True)
        if number not in now:
            tick.postpone(checked, place, first_loads.WAITING if room.first_loads else run_slots.WAITING)
    for place in () if room.together else small:
        tick.postpone(checked, place, run_slots.WAITING)
    return checked


def _with_control(
    collected: Sequence[tuple[SourceTable, due.Facts]],
    source: Source,
    activity: Activity,
    process: Process,
    database: int,
    owner: str | None,
) -> list[tuple[SourceTable, due.Facts]]:
    """Return the facts with the current version of each control row, which one statement reads."""
    written = {facts.watermark.origin.control for _, facts in collected if facts.watermark}
    names = {oid: name for name, oid in activity.oids.items()}
    found = process.control_rows.read(source, names, {item for item in written if item}, database)
    if not found:
        return list(collected)
    return [
        (table, replace(facts, control=found.get(control_table.key(table.label, owner)))) for table, facts in collected
    ]


def hint_key(key: dg.AssetKey) -> str:
    """Return the place of a table in the hints of a memory, by its asset."""
    return place_of(key.to_user_string())


def _summary(
    instance: dg.DagsterInstance,
    names: SourceNames,
    checked: Sequence[TableCheck],
    horizon: int,
    begun: float,
    now: float,
) -> str:
    """Return the summary; ``begun`` is the ``time.perf_counter`` at the beginning of the check."""
    tags = {metadata.BATCH_TAG: metadata.UNATTENDED, **names.tags}
    found = names.own(instance.get_run_records(RunsFilter(tags=tags, statuses=_ENDED), limit=1))
    if not found and not names.source:
        found = names.own(instance.get_run_records(RunsFilter(tags=tags, statuses=_ENDED), limit=_OTHERS))[:1]
    last = [LastBatch(int(item.dagster_run.tags.get(run_tags.ROWS, "0")), item.end_time) for item in found]
    reasons = [item.decision.reason for item in checked]
    return tick_report.summary(reasons, horizon, time.perf_counter() - begun, last[0] if last else None, now)


def _found(
    checked: Sequence[TableCheck],
    collected: Sequence[tuple[SourceTable, due.Facts]],
    aims: Sequence[Targets],
    cluster: due.Cluster,
    now: float,
) -> list[Found]:
    found = []
    for item, (table, facts), aim in zip(checked, collected, aims, strict=True):
        age_s, overdue = due.sweep_age_s(facts, cluster, now), None
        if facts.rules is not None and age_s is not None:
            overdue = band_notes.overdue(table.label, age_s, facts.rules.period_s(facts.sweep_s), aim.sweep_s)
        swept = item.decision.swept if item.decision.swept is not None else due.copied_upto(facts)
        found.append(
            Found(
                table.label,
                item.decision,
                swept,
                facts.copied_at,
                facts.running,
                item.failure,
                item.next_retry,
                age_s,
                overdue,
            )
        )
    return found


def _blocked(source: Source, cluster: due.Cluster, held_s: float, attended: bool) -> str | None:
    """Return which transaction keeps new rows from being copied; a person is told at once."""
    stalled = held_s > STALLED_AFTER_S
    if cluster.next_xid <= cluster.horizon or not (stalled or attended):
        return None
    try:
        holder = source.holder(0.0 if stalled else STALLED_AFTER_S)
    except PgBronzeError:
        holder = None  # its name cannot be read; that is no reason to copy nothing
    if holder is None and not stalled:
        return None
    return f"New rows are blocked: {holder or 'an open transaction holds the horizon'}"
