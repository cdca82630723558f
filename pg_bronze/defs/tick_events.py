"""Tick events: what the tick sensor records besides its runs, and what a process remembers of it.

The daemon stores the events of a tick first and its cursor last. So the events of the last tick are recorded if this
one has its cursor. If not, the daemon gave up waiting or was restarted, the storage failed, or a person previewed the
tick in the UI: what is recorded is then read from the storage again, and what was lost is returned again.
"""

import threading
import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import TypeAlias

import dagster as dg

from pg_bronze.defs import checks, notices
from pg_bronze.defs.catalog_state import CatalogState
from pg_bronze.defs.checks import States
from pg_bronze.defs.due_tables import Check
from pg_bronze.defs.quiet_days import QuietDays
from pg_bronze.settings.model import Settings

Event: TypeAlias = dg.AssetObservation | dg.AssetMaterialization | dg.AssetCheckEvaluation
LOG_EVERY_S = 600.0


def new_tick() -> str:
    """Return what distinguishes a tick from all others, for its cursor: two ticks may find the same."""
    return uuid.uuid4().hex[:12]


class TickEvents:
    """The events of the ticks of one sensor.

    Args:
        settings: The settings when the definitions were loaded; None if they were invalid.
        state: The state that the definitions were built from.
    """

    def __init__(self, settings: Settings | None, state: CatalogState) -> None:
        self._notices = notices.find(settings, state) if settings else []
        self._first_day = state.first_day
        # An evaluation that the daemon does not wait for any more may still run while the next one begins.
        self._lock = threading.Lock()
        self._last_tick: str | None = None
        self._logged = 0.0
        self._forget()

    def due(
        self, instance: dg.DagsterInstance, before: str, tick: str, found: Check, states: States, now: datetime
    ) -> Sequence[Event]:
        """Return the events to record now; they count as recorded if the next tick has the cursor of this one.

        Args:
            before: The tick that returned the cursor of this one; "" if that is not known.
            tick: This tick, as ``new_tick`` named it.
            found: The result of the tick.
            states: The states of all tables, also of those that are not copied any more.
            now: The time of the tick.
        """
        with self._lock:
            if before != self._last_tick:
                self._forget()
            self._last_tick = None  # an error below loses what was returned until then
            events: list[Event] = [
                *self._reports.due(instance, states, now.timestamp()),
                *self._days.due(instance, found, now),
                *self._results.due(instance, now.timestamp()),
            ]
            self._last_tick = tick
        return events

    def is_log_due(self, now: float) -> bool:
        """Return whether a tick writes its sentence to a log now: at most once in ten minutes."""
        if now - self._logged < LOG_EVERY_S:
            return False
        self._logged = now
        return True

    def _forget(self) -> None:
        """Forget what was recorded. It is read from the storage when it is needed."""
        self._reports, self._days = checks.Reports(), QuietDays(self._first_day)
        self._results = notices.Notices(self._notices)
        self._logged = 0.0
