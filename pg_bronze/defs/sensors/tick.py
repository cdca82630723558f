"""The tick sensor: every few seconds, one run for all tables that are due, or a few if there are many."""

import os
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from pg_bronze.core.table import SourceTable
from pg_bronze.defs import checks, metadata, run_tags, run_watchdog
from pg_bronze.defs.catalog_state import CatalogState
from pg_bronze.defs.connections import open_source
from pg_bronze.defs.due_tables import Check, check
from pg_bronze.defs.source_names import SourceNames
from pg_bronze.defs.table_facts import Process, free_slots
from pg_bronze.defs.tick_events import TickEvents, new_tick
from pg_bronze.postgres.connection import Source
from pg_bronze.scheduling import batches, tick_report
from pg_bronze.scheduling.memory import Memory
from pg_bronze.settings.model import Settings

LoadSettings = Callable[[], Settings]
_CLOSE_WAIT_S = 5.0


class _Kept:
    """The connection of a source's sensor, kept between ticks. One evaluation at a time has it."""

    def __init__(self) -> None:
        self.in_use = threading.RLock()
        self._source: Source | None = None
        self._fingerprint = ""

    def open(self, settings: Settings) -> Source:
        """Return the connection for these settings; an earlier one with others is closed."""
        if self._source is None or self._fingerprint != settings.fingerprint():
            self.close()
            self._fingerprint = settings.fingerprint()
            self._source = open_source(settings, "pg_bronze sensor", "sensor", lock_timeout_s=batches.ASK_WAIT_S)
        return self._source

    def close(self) -> None:
        """Close the connection; a tick that uses it for longer than 5 s keeps it."""
        if not self.in_use.acquire(timeout=_CLOSE_WAIT_S):
            return
        try:
            if self._source is not None:
                self._source.close()
            self._source = None
        finally:
            self.in_use.release()


# By the name of the source.
_kept: defaultdict[str | None, _Kept] = defaultdict(_Kept)


def build_tick(
    tables: Sequence[SourceTable],
    settings: Settings | None,
    state: CatalogState,
    load: LoadSettings,
    run_config: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> dg.SensorDefinition:
    """Return the sensor that requests runs of all due tables, and reports what it checked if no table is due.

    Args:
        tables: All tables that are copied.
        settings: The settings when the definitions were loaded; None if they were invalid.
        load: Loads the settings for each tick.
        run_config: The configuration of the requested runs.
        notes: Sentences about the settings that each tick ends with.
    """
    # Dagster evaluates sensors every 5 s: an interval of 10 means 10 to 15 s, one of 9 means 10.
    interval = max(1, int(settings.interval_s) - 1) if settings else 30
    process, names, recorded = Process(settings), SourceNames(settings), TickEvents(settings, state)
    keys, kept = names.bronze_keys(tables), _kept[names.source]
    former = checks.Former(state.former, names)

    @dg.sensor(
        name=names.of("bronze_tick"),
        **({"job_name": names.of("bronze")} if tables else {"target": dg.AssetSelection.groups(names.of("bronze"))}),
        minimum_interval_seconds=interval,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=_description(settings),
    )
    def bronze_tick(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        current = load()  # a SettingsError names the setting that is invalid now
        if settings is None:
            return dg.SensorResult(
                skip_reason="The settings are valid now. The definitions are reloaded within a minute."
            )
        now = datetime.now(UTC)
        memory = Memory.from_cursor(context.cursor)
        with kept.in_use:
            source = kept.open(current)
            if not tables:
                source.activity()
                return dg.SensorResult(skip_reason=state.error or f"{source.name} has no table to copy.")
            run_watchdog.end_abandoned_runs(context.instance, source, keys, now.timestamp())
            free = free_slots(context.instance, current, source, keys)
            result = check(context.instance, tables, current, source, memory, process, now.timestamp(), free_slots=free)
        sentence = ". ".join([tick_report.line([state.remembered], result.sentence), *notes])
        remembered = replace(former.remembered(result.memory, memory), tick=new_tick())
        cursor = remembered.to_cursor()
        states = [*checks.states(result), *former.states(context.instance, remembered, now.timestamp())]
        events = recorded.due(context.instance, memory.tick, remembered.tick, result, states, now)
        if not result.due:
            return dg.SensorResult(skip_reason=sentence, cursor=cursor, asset_events=events)
        if (result.failing or result.blocked or state.remembered) and recorded.is_log_due(now.timestamp()):
            # A tick that requests runs has no reason to show. Its log is a file of its own, so not in every tick.
            context.log.warning(sentence)
        requests = _requests(result, current, now, free, run_config, source.server)
        return dg.SensorResult(requests, cursor=cursor, asset_events=events)

    return bronze_tick


def close_kept() -> None:
    """Close the connections that are kept between ticks."""
    for kept in list(_kept.values()):
        kept.close()


def _description(settings: Settings | None) -> str:
    """Return what the sensor does; the UI shows it as plain text."""
    every = f"Every {settings.interval_s:g} s: c" if settings else "C"
    return (
        f"{every}ompares the change counters of all tables with what was copied, and requests a run of those that may "
        "have new rows. A tick without a run has one line, trouble first: what blocks or fails, then how many tables "
        "were checked with which result. Stop the sensor to stop all copies."
    )


def _requests(
    result: Check, settings: Settings, now: datetime, free: int | None, run_config: Mapping[str, Any], server: str
) -> list[dg.RunRequest]:
    """Return the runs of all due tables: separate ones for slow tables and, of low priority, for large first loads.

    Args:
        free: How many more runs get a connection; None without a limit.
        server: The server of the sensor's connection; see ``run_watchdog``.
    """
    names = SourceNames(settings)
    tags = {metadata.BATCH_TAG: "tick", "dagster/max_runtime": str(settings.max_run_s), **names.tags}
    tags[run_watchdog.SERVER_TAG] = server
    if result.large_tables:
        tags[metadata.LARGE_TABLES_TAG] = str(result.large_tables)
    first = {item.label for item in result.health if item.state == "loading"}
    loads = [[item.table] for item in result.due if item.large]
    fast = [item.table for item in result.due if not item.large and not item.slow]
    slow = [item.table for item in result.due if not item.large and item.slow]
    left = None if free is None else free - len(loads)
    together, apart = batches.apart(fast, slow, left)
    wanted = settings.runs or min(os.cpu_count() or 1, batches.MOST_RUNS)
    most = wanted if left is None else min(wanted, left - len(apart))
    groups = [(group, tags) for group in batches.divide(together, most)]
    groups += [(group, tags | {metadata.SLOW_TAG: "true"}) for group in apart]
    groups += [(group, tags | {metadata.FIRST_LOAD_TAG: "true", "dagster/priority": "-1"}) for group in loads]
    return [
        dg.RunRequest(
            asset_selection=names.bronze_keys(group),
            asset_check_keys=[],  # the sensor evaluates them
            run_config=run_config,
            partition_key=now.date().isoformat(),
            tags=group_tags | run_tags.requested([table.label for table in group], first),
        )
        for group, group_tags in groups
    ]
