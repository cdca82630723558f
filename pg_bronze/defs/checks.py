"""Checks: `up_to_date` of each bronze asset, which the tick sensor evaluates without a run.

One step evaluates the checks of all tables when a person executes them; a step for each table would make the
definitions of 1,000 tables slow.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, TypeAlias

import dagster as dg

from pg_bronze.core.former_tables import FormerTable
from pg_bronze.core.table import SourceTable
from pg_bronze.defs import due_tables, metadata
from pg_bronze.defs.connections import open_source
from pg_bronze.defs.resources import SOURCE_DATABASE, SourceDatabase
from pg_bronze.defs.source_names import SourceNames
from pg_bronze.defs.table_facts import Process
from pg_bronze.errors import PgBronzeError
from pg_bronze.scheduling import check_reports, health
from pg_bronze.scheduling.check_reports import Report
from pg_bronze.scheduling.health import TableHealth
from pg_bronze.scheduling.memory import Memory
from pg_bronze.settings.model import Settings

_NOTHING: Mapping[str, int] = MappingProxyType({})
States: TypeAlias = Sequence[tuple[dg.AssetKey, TableHealth]]
UP_TO_DATE = "up_to_date"
STATE, LAG = "pg_bronze/state", "pg_bronze/lag_s"
_SEVERITIES = {
    "ok": dg.AssetCheckSeverity.ERROR,
    "warn": dg.AssetCheckSeverity.WARN,
    "error": dg.AssetCheckSeverity.ERROR,
}
_DESCRIPTION = (
    "Whether the changes of the source table are in the lake, within PG_BRONZE_LAG_TARGET_S. Evaluated by bronze_tick."
)


def build_up_to_date(
    tables: Sequence[SourceTable], names: SourceNames, former: Sequence[FormerTable]
) -> list[dg.AssetChecksDefinition]:
    """Return the checks of all tables, as one definition; none without a table.

    Args:
        tables: The tables that are copied.
        former: Those that were copied and are not copied any more.
    """
    by_key = {names.bronze_key(table): table for table in tables}
    gone = {key: state for key, state in former_states(former, names, 0.0) if key not in by_key}
    if not by_key and not gone:
        return []
    resource = names.of(SOURCE_DATABASE)

    @dg.multi_asset_check(
        name=names.of("bronze_up_to_date"),
        specs=[dg.AssetCheckSpec(UP_TO_DATE, asset=key, description=_DESCRIPTION) for key in [*by_key, *gone]],
        can_subset=True,
        required_resource_keys={resource},
    )
    def up_to_date(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        source_database: SourceDatabase = getattr(context.resources, resource)
        wanted = {key.asset_key for key in context.selected_asset_check_keys}
        found = _read(context.instance, source_database.settings, [by_key[key] for key in wanted if key in by_key])
        for key, state in [*found, *((key, gone[key]) for key in wanted if key in gone)]:
            yield dg.AssetCheckResult(**_result(key, state))

    return [up_to_date]


def _read(instance: dg.DagsterInstance, settings: Settings, tables: Sequence[SourceTable]) -> States:
    if not tables:
        return []
    now = datetime.now(UTC).timestamp()
    with open_source(settings, "pg_bronze checks", "short") as source:
        found = due_tables.check(instance, tables, settings, source, Memory(), Process(settings), now, attended=True)
    return states(found)


def states(found: due_tables.Check) -> States:
    """Return the state of each table with the key of its asset."""
    return [(item.key, state) for item, state in zip(found.tables, found.health, strict=True)]


def former_states(
    former: Sequence[FormerTable],
    names: SourceNames,
    now: float,
    memory: Memory | None = None,
    copied: Mapping[str, int] = _NOTHING,
) -> States:
    """Return the state of each table that is not copied any more.

    Args:
        memory: With the hints of the last ticks, and those of these tables from when they were last checked.
        copied: The transaction up to which each is copied, by label, as far as that is known.
    """
    keyed = [(names.bronze_key(item.table), item) for item in former]
    covered = {key: _covered_at(item, key, memory or Memory(), copied) for key, item in keyed}
    return [(key, health.not_copied(item.table.label, item.reason, now, covered[key])) for key, item in keyed]


class Former:
    """The tables that are not copied any more. A process reads once how far they were copied: that does not change."""

    def __init__(self, former: Sequence[FormerTable], names: SourceNames) -> None:
        self._former = former
        self._names = names
        self._copied: dict[str, int] | None = None

    def remembered(self, memory: Memory, before: Memory) -> Memory:
        """Return the memory of a tick with the hints of these tables, which it has not checked."""
        return memory.keeping(
            [due_tables.hint_key(self._names.bronze_key(item.table)) for item in self._former], before
        )

    def states(self, instance: dg.DagsterInstance, memory: Memory, now: float) -> States:
        """Return their states."""
        if self._copied is None:
            self._copied = former_copied(instance, self._former, self._names)
        return former_states(self._former, self._names, now, memory, self._copied)


def former_copied(instance: dg.DagsterInstance, former: Sequence[FormerTable], names: SourceNames) -> dict[str, int]:
    """Return the transaction up to which each of these tables was copied, by label, as far as it was recorded."""
    found = {}
    for item in former:
        event = instance.get_latest_materialization_event(names.bronze_key(item.table))
        try:
            watermark = metadata.watermark_of(event)
        except PgBronzeError:
            continue
        leaves = (
            [leaf.top for oid, leaf in watermark.leaves.items() if oid not in watermark.detached] if watermark else []
        )
        tops = [top for top in leaves if top is not None]
        if tops and len(tops) == len(leaves):
            found[item.table.label] = min(tops)
    return found


def _covered_at(item: FormerTable, key: dg.AssetKey, memory: Memory, copied: Mapping[str, int]) -> float:
    """Return up to when a table was covered: not when it was noticed that it is not copied any more."""
    hint, samples = memory.hints.get(due_tables.hint_key(key)), memory.coverage.samples
    upto = [hint.covered] if hint and samples and hint.covered <= samples[-1].next_xid else []
    known = memory.coverage.until(max([*upto, copied.get(item.table.label, 0)]))
    return item.since if known is None else min(item.since, known)


def _result(key: dg.AssetKey, table: TableHealth) -> dict[str, Any]:
    entries: dict[str, Any] = {STATE: table.state, LAG: round(table.lag_s, 1)}
    if table.sweep_age_s is not None:
        entries["pg_bronze/sweep_age_s"] = round(table.sweep_age_s, 1)
    return {
        "asset_key": key,
        "check_name": UP_TO_DATE,
        "passed": table.severity == "ok",
        "severity": _SEVERITIES[table.severity],
        "description": table.sentence,
        "metadata": entries,
    }


class Reports:
    """The last results of all tables, which a process reads from Dagster's storage once."""

    def __init__(self) -> None:
        self._last: dict[str, Report] | None = None

    def due(self, instance: dg.DagsterInstance, tables: States, now: float) -> list[dg.AssetCheckEvaluation]:
        """Return the results to record now; they count as recorded."""
        keys = {state.label: key for key, state in tables}
        if self._last is None:
            self._last = _recorded(instance, keys)
        found = check_reports.due([state for _, state in tables], self._last, now)
        self._last |= {table.label: Report(check_reports.mark_of(table), now) for table in found}
        return [dg.AssetCheckEvaluation(**_result(keys[table.label], table)) for table in found]


def _recorded(instance: dg.DagsterInstance, keys: Mapping[str, dg.AssetKey]) -> dict[str, Report]:
    checks = {dg.AssetCheckKey(key, UP_TO_DATE): label for label, key in keys.items()}
    records = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(checks))
    found = {}
    for key, record in records.items():
        result = record.evaluation
        # A check that a person executes now has no result yet.
        if not isinstance(result, dg.AssetCheckEvaluation) or record.event is None:
            continue
        severity = "warn" if result.severity == dg.AssetCheckSeverity.WARN else "error"
        state = result.metadata.get(STATE)
        mark = "ok" if result.passed else f"{severity} {state.value if state else ''}"
        found[checks[key]] = Report(mark, record.event.timestamp)
    return found
