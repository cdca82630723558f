"""The monitor: evaluates the status at intervals, keeps the result for scrapes, and sends the alerts that are due.

An evaluation that fails changes what is known about no table. The monitor continues until it is ended.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from pg_bronze.cli.monitor.evaluation import Evaluated
from pg_bronze.cli.monitor.metrics import Snapshot
from pg_bronze.cli.terminal import terminal
from pg_bronze.errors import PgBronzeError
from pg_bronze.lake.storage_size import StorageSize
from pg_bronze.scheduling import alerts
from pg_bronze.scheduling.alerts import Alert, Sent

# Of the label of a metric, for errors of Dagster's storage and of its libraries.
_OTHER = "other"


class Hook(Protocol):
    """Where alerts are sent."""

    def send(self, message: Mapping[str, Any]) -> str | None:
        """Send one message. Return None, or what was found instead of an acknowledgment."""


class Kept(Protocol):
    """Where it is kept what was sent."""

    def load(self) -> dict[str, Sent]:
        """Return what was last sent about each cause, by its key."""

    def store(self, sent: Mapping[str, Sent]) -> None:
        """Replace it."""


class Monitor:
    """What the monitor knows, from one evaluation to the next.

    Args:
        evaluate: Evaluates all tables. Raises any error.
        first: The snapshot before the first evaluation.
        source: The name of the source database, for messages.
        hook: Where alerts are sent; None logs them only.
        clock: Returns the time in seconds since 1970.
        kept: Where it is kept what was sent, for the next process; None keeps it in this one alone.
    """

    def __init__(
        self,
        evaluate: Callable[[], Evaluated],
        first: Snapshot,
        source: str,
        hook: Hook | None,
        clock: Callable[[], float],
        kept: Kept | None = None,
    ) -> None:
        self._evaluate = evaluate
        self._source = source
        self._hook = hook
        self._clock = clock
        self._kept = kept
        self._sent: dict[str, Sent] = kept.load() if kept else {}
        self._unreachable: str | None = None
        self._unreachable_since = 0.0
        self._refused: str | None = None
        self.snapshot = first

    def turn(self) -> None:
        """Evaluate all tables once, log what changed, and send the alerts that are due."""
        began = self._clock()
        try:
            evaluated = self._evaluate()
        except Exception as error:  # noqa: BLE001  # a monitor that ends in an outage reports nothing of it
            problem: Exception | None = error
        else:
            problem = evaluated.problem
            self._keep(evaluated, self._clock() - began)
        self.snapshot = replace(self.snapshot, up=problem is None, evaluations=self.snapshot.evaluations + 1)
        if problem:
            self._note(problem, began)
        else:
            self._note_success()
        self._send_alerts()

    def measured(self, storage: StorageSize | None, at: float) -> None:
        """Keep the latest size of the bucket."""
        self.snapshot = replace(self.snapshot, storage=storage, storage_at=at)

    def _keep(self, evaluated: Evaluated, duration_s: float) -> None:
        self.snapshot = replace(
            self.snapshot,
            status=evaluated.status,
            folders=evaluated.folders,
            duration_s=duration_s,
            connections=evaluated.connections,
            last_tick=evaluated.last_tick,
            s3_requests=evaluated.s3_requests,
        )

    def _note(self, problem: Exception, began: float) -> None:
        """Count a problem, and log it unless the last evaluation had the same."""
        known = isinstance(problem, PgBronzeError)
        # Texts of other libraries may contain a URL with a password.
        sentence = str(problem) if known else f"{type(problem).__name__}, probably of Dagster's storage. It is retried."
        if self._unreachable is None:
            before = self._sent.get("unreachable")
            # The outage of a former process continues.
            self._unreachable_since = before.cause.since if before and not before.over else began
        if self._unreachable is None or _kind(self._unreachable) != _kind(sentence):
            terminal.complain(f"{self._source}: the check of all tables failed: {sentence}")
        self._unreachable = sentence
        name = type(problem).__name__ if known else _OTHER
        errors = {**self.snapshot.errors, name: self.snapshot.errors.get(name, 0) + 1}
        self.snapshot = replace(self.snapshot, errors=errors)

    def _note_success(self) -> None:
        if self._unreachable is not None:
            away_s = self._clock() - self._unreachable_since
            terminal.print(f"{self._source}: all tables are checked again after {away_s:.0f} s.")
            self._unreachable = None

    def _send_alerts(self) -> None:
        now, status = self._clock(), self.snapshot.status
        found = alerts.causes(
            [item.health for item in status.tables] if status else [],
            now,
            status.blocked if status else None,
            status.blocked_s if status else 0.0,
            self._unreachable,
            self._unreachable_since,
        )
        # Before the first evaluation of a process nothing is known to be over.
        sent = {key: item for key, item in self._sent.items() if status or key == "unreachable"}
        for alert in alerts.due(sent, found, now):
            if not self._send(alert, now):
                return  # the others are due at the next evaluation too
            self._sent = alerts.after(self._sent, alert, now)
            if self._kept:
                self._kept.store(self._sent)

    def _send(self, alert: Alert, now: float) -> bool:
        """Send one alert and log it; return whether it was received."""
        message = alerts.payload(alert, self._source, now)
        problem = self._hook.send(message) if self._hook else None
        if problem:
            if problem != self._refused:
                terminal.complain(
                    f"An alert could not be sent ({problem}). It is retried at the next evaluation; check that the "
                    "receiver of PG_BRONZE_ALERT_URL is running and accepts JSON."
                )
            self._refused = problem
            self.snapshot = replace(self.snapshot, not_sent=self.snapshot.not_sent + 1)
            return False
        self._refused = None
        if self._hook:
            self.snapshot = replace(self.snapshot, sent=self.snapshot.sent + 1)
        if alert.cause.kind != "unreachable":  # that was logged when it began
            terminal.print(alerts.text(alert, self._source, now))
        return True


def _kind(sentence: str) -> str:
    """Return what two texts of one error have in common."""
    return re.sub(r"\d+", "0", sentence)
