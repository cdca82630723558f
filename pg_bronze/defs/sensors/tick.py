"""Sensors: every few seconds which tables are due, every half minute whether tables came or went."""

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter
from dagster._core.storage.event_log.base import AssetEntry

from pg_bronze.core import window_sql
from pg_bronze.core.slice_size import BLOCK_BYTES
from pg_bronze.core.table import SourceTable
from pg_bronze.core.watermark import Watermark
from pg_bronze.defs import asset_keys, failures, metadata, run_watchdog
from pg_bronze.defs.catalog_state import CatalogState
from pg_bronze.defs.resources import open_source
from pg_bronze.errors import PgBronzeError
from pg_bronze.postgres.activity import Activity
from pg_bronze.postgres.connection import Source
from pg_bronze.scheduling import backoff, due
from pg_bronze.settings.load import load_settings
from pg_bronze.settings.model import Settings

# A sweep of 8 MB takes about 5 ms in shared buffers; asking first then saves a run of several CPU seconds.
PEEK_PAGES = 1000
STALL_S = 60.0
_UNFINISHED = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]
_kept: dict[str, Source] = {}
# What each table's last run said of it, by the run's id: asked once for each run that materialized nothing.
_outcomes: dict[str, tuple[str, failures.Outcome]] = {}
_SILENT = "its last run ended without a word about it. Look at that run's page for the reason."


@dataclass(frozen=True)
class Memory:
    """What the sensor's cursor holds: hints only, so that resetting it in the UI is harmless.

    ``horizon`` has not moved since ``horizon_since`` (seconds since 1970).
    """

    hints: Mapping[str, due.Hint]
    horizon: int = 0
    horizon_since: float = 0.0

    @classmethod
    def from_cursor(cls, text: str | None) -> "Memory":
        """Read a cursor; anything that cannot be read counts as none."""
        try:
            data = json.loads(text or "")
            hints = {key: due.Hint(**hint) for key, hint in data["hints"].items()}
            memory = cls(hints, data["horizon"], data["horizon_since"])
            items: list[Memory | due.Hint] = [memory, *hints.values()]
            return memory if all(_is_typed(item) for item in items) else cls({})
        except (ValueError, KeyError, TypeError, AttributeError):
            return cls({})

    def to_cursor(self) -> str:
        """The cursor's text."""
        return json.dumps(asdict(self))


def _is_typed(item: "Memory | due.Hint") -> bool:
    """Whether every field with a default holds a value of its kind; a cursor can be typed in by anybody."""
    return all(
        isinstance(getattr(item, field.name), (int, float) if isinstance(field.default, float) else type(field.default))
        for field in dataclasses.fields(item)
        if field.default is not dataclasses.MISSING
    )


def build_tick(tables: Sequence[SourceTable], settings: Settings | None, state: CatalogState) -> dg.SensorDefinition:
    """The sensor that asks for one run of all due tables; it says what it looked at when none is."""
    # Dagster's loop looks every 5 s: an interval of 10 gives 10 to 15 s, one of 9 gives 10.
    interval = max(1, int(settings.interval_s) - 1) if settings else 30
    process = _Process(settings)

    @dg.sensor(
        name="bronze_tick",
        **({"job_name": "bronze"} if tables else {"target": dg.AssetSelection.groups("bronze")}),
        minimum_interval_seconds=interval,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Looks for tables with new rows and asks for one run of them all.",
    )
    def bronze_tick(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        if settings is None:
            load_settings()  # says what is wrong now, which may differ from what was wrong at the start
            return dg.SensorResult(skip_reason="the settings are right now; the definitions are loaded within a minute")
        source = _source(settings)
        memory = Memory.from_cursor(context.cursor)
        now = datetime.now(UTC)
        activity = source.activity()
        if not tables:
            reason = state.error or f"{source.name} has no table to copy"
            return dg.SensorResult(skip_reason=reason)
        run_watchdog.end(context.instance, source, [asset_keys.bronze_key(table) for table in tables], now.timestamp())
        judged, busy = _judge(context.instance, tables, settings, source, activity, memory, now.timestamp(), process)
        since = memory.horizon_since if memory.horizon == activity.horizon else now.timestamp()
        verdicts = {name: item.verdict for name, item in judged.items()}
        remembered = Memory({key: verdict.hint for key, verdict in verdicts.items()}, activity.horizon, since)
        due = [table for table in tables if _name(table) in verdicts and verdicts[_name(table)].due]
        report = _report(context.instance, judged, busy, activity, source, now.timestamp(), since)
        context.log.info(report)
        if not due:
            return dg.SensorResult(skip_reason=report, cursor=remembered.to_cursor())
        return dg.SensorResult(run_requests=_requests(due, verdicts, settings, now), cursor=remembered.to_cursor())

    return bronze_tick


def _source(settings: Settings) -> Source:
    """The code server's own connection, kept from tick to tick."""
    key = settings.fingerprint()
    if key not in _kept:
        for other in _kept.values():
            other.close()
        _kept.clear()
        _kept[key] = open_source(settings, "pg_bronze sensor")
    return _kept[key]


def _name(table: SourceTable) -> str:
    return asset_keys.bronze_key(table).to_user_string()


@dataclass
class _Process:
    """What this process has seen of the settings: runs read them anew, so a retry may arrive without a reload.

    ``started``, ``changed`` and ``looked`` are seconds since 1970, 0 for not yet.
    """

    settings: Settings | None
    started: float = 0.0
    changed: float = 0.0
    looked: float = 0.0
    fingerprint: str = ""

    def look(self, now: float) -> str:
        """The fingerprint of the settings as they are in the tick of this moment; ``changed`` minds secrets too.

        Raises SettingsError if they are wrong now.
        """
        if now != self.looked:  # once a tick, however many tables are stuck
            found = load_settings()
            if found != self.settings:
                self.settings, self.changed = found, now
            self.looked, self.fingerprint = now, found.fingerprint()
        return self.fingerprint


@dataclass(frozen=True)
class _Judged:
    """The verdict on a table by its ``label``, and the failure_state it is in with the time of the next try."""

    label: str
    verdict: due.Verdict
    failure_state: tuple[backoff.Failure, float] | None = None


def _judge(
    instance: dg.DagsterInstance,
    tables: Sequence[SourceTable],
    settings: Settings,
    source: Source,
    activity: Activity,
    memory: Memory,
    now: float,
    process: _Process,
) -> tuple[dict[str, _Judged], list[str]]:
    """A verdict for each table that is not in flight, and the names of those that are."""
    keys = {_name(table): asset_keys.bronze_key(table) for table in tables}
    in_flight = _in_flight(instance)
    entries = {
        record.asset_entry.asset_key: record.asset_entry for record in instance.get_asset_records(list(keys.values()))
    }
    process.started = process.started or now
    judged: dict[str, _Judged] = {}
    busy: list[str] = []
    for table in tables:
        name = _name(table)
        if in_flight is None or keys[name] in in_flight:
            busy.append(name)
            if name in memory.hints:
                judged[name] = _Judged(table.label, due.Verdict(False, "in flight", memory.hints[name]))
            continue
        oid = activity.oids.get((table.schema, table.name))
        if oid is None:
            continue  # dropped or renamed; the catalog sensor reloads the definitions
        entry = entries.get(keys[name])
        event = entry.last_materialization if entry else None
        outcome = _outcome(instance, name, entry) if entry else failures.Outcome()
        try:
            watermark = metadata.watermark_of(event)
        except PgBronzeError:
            watermark = None  # the table is due then, and its run stops and says why
        hint = memory.hints.get(name, due.Hint())
        if not outcome.silent:
            hint = dataclasses.replace(hint, asked=0)
        verdict = _verdict(watermark, hint, activity, oid, now, settings)
        if verdict.due and hint.signature == verdict.hint.signature:
            generation, upto = outcome.quiet
            if generation == verdict.hint.generation and upto > verdict.hint.quiet_upto:
                hint = dataclasses.replace(hint, quiet_upto=upto, generation=generation)
                verdict = _verdict(watermark, hint, activity, oid, now, settings)
        verdict = _compared(verdict, hint, activity, now)
        failure_state = _trouble(outcome, hint)
        if failure_state is not None:
            then = _next_try(failure_state, outcome.silent, table, now, process)
            judged[name] = _Judged(table.label, _withheld(verdict, hint, then, now), (failure_state, then))
            continue
        if verdict.due and verdict.swept is not None and _is_small(table, verdict.swept, activity):
            verdict = _peek(source, table, verdict, activity, oid)
        judged[name] = _Judged(table.label, _asked(verdict, hint))
    return judged, busy


def _outcome(instance: dg.DagsterInstance, name: str, entry: AssetEntry) -> failures.Outcome:
    """What the last run said of a table; asks the storage at most once for each run."""
    run_id = entry.last_run_id
    if not run_id or (entry.last_materialization and entry.last_materialization.run_id == run_id):
        return failures.Outcome()
    if name not in _outcomes or _outcomes[name][0] != run_id:
        _outcomes[name] = (run_id, failures.outcome(instance, entry.asset_key, run_id))
    return _outcomes[name][1]


def _trouble(outcome: failures.Outcome, hint: due.Hint) -> backoff.Failure | None:
    if outcome.silent and hint.asked:
        return backoff.Failure(_SILENT, "automatic", hint.asked, hint.due_at, hint.due_at)
    return outcome.failure_state


def _next_try(failure_state: backoff.Failure, silent: bool, table: SourceTable, now: float, process: _Process) -> float:
    fingerprint = process.look(now)
    state = failure_state.state if silent else failures.state_of(fingerprint, table.fingerprint)
    if process.changed > failure_state.last:
        return failure_state.last  # a password is no part of the state
    return backoff.next_retry_at(failure_state, state, process.started)


def _withheld(verdict: due.Verdict, before: due.Hint, then: float, now: float) -> due.Verdict:
    """The verdict on a table in failure_state: it waits, and then it is tried whatever the gates say."""
    if then > now:
        hint = dataclasses.replace(verdict.hint, due_at=before.due_at)
        return due.Verdict(False, "stuck", hint, verdict.swept)
    hint = dataclasses.replace(verdict.hint, due_at=now)
    return _asked(due.Verdict(True, "tried again after a failure", hint, verdict.swept), before)


def _asked(verdict: due.Verdict, before: due.Hint) -> due.Verdict:
    if not verdict.due:
        return verdict
    return dataclasses.replace(verdict, hint=dataclasses.replace(verdict.hint, asked=before.asked + 1))


def _verdict(
    watermark: Watermark | None, hint: due.Hint, activity: Activity, oid: int, now: float, settings: Settings
) -> due.Verdict:
    leaves = activity.leaves(oid)
    signature = due.signature(leaves, [activity.tuples.get(leaf, 0) for leaf in leaves])
    if watermark is not None and watermark.table != oid:
        watermark = None
    if hint.quiet_upto > activity.next_xid and not activity.standby:
        hint = dataclasses.replace(hint, quiet_upto=0)  # another cluster's, or typed in: it would hide rows
    return due.judge(
        watermark, hint, leaves, signature, activity.next_xid, not activity.standby, now, settings.ungated_after_s
    )


def _compared(verdict: due.Verdict, before: due.Hint, activity: Activity, now: float) -> due.Verdict:
    """Correct a verdict by the horizon, which only rises on a primary: at ``swept`` there is nothing a run could
    read."""
    if activity.standby or verdict.swept is None or verdict.swept < activity.horizon:
        return verdict
    if verdict.swept > activity.horizon:
        # A restored or exchanged cluster: no counter says so, and only a run can stop the table and explain.
        hint = dataclasses.replace(verdict.hint, due_at=now)
        return due.Verdict(True, "the database is behind what was copied of it", hint, verdict.swept)
    if not verdict.due:
        return verdict
    hint = dataclasses.replace(verdict.hint, due_at=before.due_at)
    return due.Verdict(False, "what was written since waits for an open transaction", hint, verdict.swept)


def _in_flight(instance: dg.DagsterInstance) -> set[dg.AssetKey] | None:
    """Asset keys of unfinished runs; None if one of them stands for all assets."""
    keys: set[dg.AssetKey] = set()
    for record in instance.get_run_records(RunsFilter(statuses=_UNFINISHED), limit=200):
        selection = record.dagster_run.asset_selection
        if selection is None:
            if record.dagster_run.job_name in {"bronze", "__ASSET_JOB"}:
                return None
            continue
        keys |= set(selection)
    return keys


def _is_small(table: SourceTable, swept: int, activity: Activity) -> bool:
    pages = sum(relation.page_count for relation in table.relations)
    return not table.partitioned and pages <= PEEK_PAGES and activity.horizon > swept


def _peek(source: Source, table: SourceTable, verdict: due.Verdict, activity: Activity, oid: int) -> due.Verdict:
    """Ask a small table whether its window holds anything; a run is worth it only then."""
    region = window_sql.Region(table.schema, table.name, True, (oid,), verdict.swept, activity.horizon)
    try:
        found = source.ask(window_sql.exists(region, {}))[0][0]
    except PgBronzeError:
        return verdict  # the run will say what is wrong
    if found:
        return verdict
    hint = dataclasses.replace(verdict.hint, quiet_upto=activity.horizon)
    return due.Verdict(False, f"no new row up to transaction {activity.horizon}", hint, activity.horizon)


def _requests(
    due: Sequence[SourceTable], verdicts: Mapping[str, due.Verdict], settings: Settings, now: datetime
) -> list[dg.RunRequest]:
    """One run for all due tables; a table with a large backlog gets one of its own, so that others stay fresh."""
    big = settings.slice_bytes // BLOCK_BYTES * 2
    alone = [
        table
        for table in due
        if verdicts[_name(table)].swept is None and sum(relation.page_count for relation in table.relations) > big
    ]
    together = [table for table in due if table not in alone]
    return [
        dg.RunRequest(
            asset_selection=[asset_keys.bronze_key(table) for table in group],
            partition_key=now.date().isoformat(),
            tags={metadata.BATCH_TAG: "tick", "dagster/max_runtime": str(settings.max_run_s)},
        )
        for group in [together, *([table] for table in alone)]
        if group
    ]


def _report(
    instance: dg.DagsterInstance,
    judged: Mapping[str, _Judged],
    busy: Sequence[str],
    activity: Activity,
    source: Source,
    now: float,
    horizon_since: float,
) -> str:
    reasons = Counter(item.verdict.reason for name, item in judged.items() if name not in busy)
    parts = [f"{count} {reason}" for reason, count in reasons.most_common()]
    if busy:
        parts.append(f"{len(busy)} in flight")
    text = f"looked at {len(judged)} tables up to transaction {metadata.number(activity.horizon)}: {'; '.join(parts)}"
    last = instance.get_run_records(
        RunsFilter(tags={metadata.BATCH_TAG: "tick"}, statuses=[DagsterRunStatus.SUCCESS]), limit=1
    )
    if last:
        count = last[0].dagster_run.tags.get(metadata.ROWS_TAG, "0")
        text += f". Last batch: {metadata.number(int(count))} new rows"
    failures_by_table = {item.label: item.failure_state for item in judged.values() if item.failure_state is not None}
    text = ". ".join([text, *(sentence.rstrip(".") for sentence in backoff.sentences(failures_by_table, now))])
    if now - horizon_since > STALL_S and activity.next_xid > activity.horizon:
        text += f". Rows written since wait: {source.holder() or 'an open transaction holds the horizon'}"
    return text
