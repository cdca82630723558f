"""Status: the state of all tables now, for `pg-bronze status` and `pg-bronze monitor`.

It asks the source the question of a tick and reads Dagster's storage. It requests no run and changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType

from pg_bronze.core.former_tables import FormerTable
from pg_bronze.core.table import SourceTable
from pg_bronze.defs import checks, due_tables, metadata
from pg_bronze.defs.source_names import SourceNames
from pg_bronze.defs.table_facts import Process
from pg_bronze.postgres.connection import Source
from pg_bronze.scheduling.health import TableHealth
from pg_bronze.scheduling.memory import Memory
from pg_bronze.settings.model import Settings

TICK_SENSOR = "bronze_tick"


@dataclass(frozen=True)
class TableStatus:
    """The state of one table, and what its last materialization recorded.

    Attributes:
        health: Its state.
        copied_at: When its last materialization was recorded, in seconds since 1970; None before the first one.
        uri: The newest object.
        row_count: Rows in the lake in this generation; None if not known.
        late_rows: Of these, the rows that a copy by ``cursor column > last value`` would have lost; None if not known.
        order: What divides the rows of a large table, and why.
        cursor_column: The column that shows progress.
        cursor_value: Its highest copied value.
        cursor_age_s: The age of that value in seconds.
        load_share: How much of a first load is done, from 0 to 1; None if there is none.
    """

    health: TableHealth
    copied_at: float | None = None
    uri: str | None = None
    row_count: int | None = None
    late_rows: int | None = None
    order: str | None = None
    cursor_column: str | None = None
    cursor_value: str | None = None
    cursor_age_s: float | None = None
    load_share: float | None = None


@dataclass(frozen=True)
class Status:
    """The state of all tables of one database.

    Attributes:
        tables: In the order of the catalog.
        summary: How many tables were checked with which result, as in the tick.
        blocked: Which transaction keeps new rows from being copied; None if there is none.
        blocked_s: How long the horizon has not moved, in seconds.
        checked_at: Seconds since 1970.
        memory: What to pass to the next call.
    """

    tables: Sequence[TableStatus]
    summary: str
    blocked: str | None
    blocked_s: float
    checked_at: float
    memory: Memory


def read(
    instance: dg.DagsterInstance,
    tables: Sequence[SourceTable],
    settings: Settings,
    source: Source,
    kept: Memory,
    process: Process,
    now: float,
    own: Memory | None = None,
) -> Status:
    """Return the state of all tables.

    Args:
        tables: All tables that are copied.
        kept: What the last batch of the command line remembered.
        process: What the process keeps between calls.
        now: Seconds since 1970.
        own: The ``memory`` of the last call.

    Raises:
        PgBronzeError: The database did not answer.
    """
    sensor = SourceNames(settings).of(TICK_SENSOR)
    memory = last_known(instance, sensor, kept, own)
    found = due_tables.check(instance, tables, settings, source, memory, process, now)
    keys = {item.key: item.table.label for item in found.tables}
    records = instance.get_asset_records(list(keys))
    events = {keys[record.asset_entry.asset_key]: record.asset_entry.last_materialization for record in records}
    return Status(
        [_table(health, events.get(health.label)) for health in found.health],
        found.summary,
        found.blocked,
        now - found.memory.horizon_since,
        now,
        found.memory.keeping(memory.hints, memory),
    )


def with_former(
    instance: dg.DagsterInstance, status: Status, former: Sequence[FormerTable], names: SourceNames
) -> Status:
    """Return the status with the tables that were copied and are not copied any more, at the end."""
    known = {table.health.label for table in status.tables}
    left = [item for item in former if item.table.label not in known]
    copied = checks.former_copied(instance, left, names)
    states = [state for _, state in checks.former_states(left, names, status.checked_at, status.memory, copied)]
    return replace(status, tables=[*status.tables, *map(TableStatus, states)])


def last_known(instance: dg.DagsterInstance, sensor: str, kept: Memory, own: Memory | None = None) -> Memory:
    """Return what was last known: the newest samples of all, and the hints of the newest tick of a sensor or batch.

    A call here requests no run, so hints that it returned would postpone a read that nobody made.
    """
    ticks = [kept, *(Memory.from_cursor(cursor) for cursor in _cursors(instance, sensor))]
    return replace(max([*ticks, *([own] if own else [])], key=_sampled_at), hints=max(ticks, key=_sampled_at).hints)


def _sampled_at(memory: Memory) -> float:
    return memory.coverage.samples[-1].at if memory.coverage.samples else 0.0


def _cursors(instance: dg.DagsterInstance, sensor: str) -> list[str]:
    if instance.schedule_storage is None:
        return []  # an instance in memory
    states = instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
    found = [getattr(state.instigator_data, "cursor", None) for state in states if state.instigator_name == sensor]
    return [cursor for cursor in found if cursor]


def _table(health: TableHealth, event: dg.EventLogEntry | None) -> TableStatus:
    materialization = event.asset_materialization if event else None
    if event is None or materialization is None:
        return TableStatus(health)
    entries: dict[str, Any] = {name: entry.value for name, entry in materialization.metadata.items()}
    cursor_column, cursor_value = metadata.cursor_of(entries)
    return TableStatus(
        health=health,
        copied_at=event.timestamp,
        uri=entries.get("dagster/uri"),
        row_count=entries.get(metadata.ROW_COUNT),
        late_rows=entries.get(metadata.LATE_ROWS_TOTAL),
        order=entries.get(metadata.ORDER),
        cursor_column=cursor_column,
        cursor_value=cursor_value,
        cursor_age_s=entries.get(metadata.CURSOR_AGE),
        load_share=entries.get(metadata.LOAD_SHARE) if health.state == "loading" else None,
    )
