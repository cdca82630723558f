"""States of tables, and what a scrape of them returns, for the tests of the monitor."""

import os
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pg_bronze.cli.monitor.metrics import Metrics, Snapshot
from pg_bronze.defs.status import Status, TableStatus
from pg_bronze.scheduling.backoff import Failure
from pg_bronze.scheduling.health import Severity, State, TableHealth
from pg_bronze.scheduling.memory import Memory
from pg_bronze_tests.harness.servers import ROOT

START = 1_800_000_000.0
Samples = list[tuple[dict[str, str], float]]


@dataclass
class Clock:
    """A clock that a test moves."""

    now: float = START

    def __call__(self) -> float:
        return self.now


def table(
    label: str, state: State = "up_to_date", lag_s: float = 0.0, error: str = "", at: float = START, **known: Any
) -> TableStatus:
    """A table in a state. ``known`` has what its last materialization recorded."""
    severity: Severity = "ok" if state == "up_to_date" else "error"
    failure = Failure(error, "after_fix", 4, at, at) if error else None
    health = TableHealth(
        label, state, severity, error or state, at, at - lag_s, known.pop("sweep_age_s", None), failure
    )
    health = replace(health, lag_target_s=100.0)
    return TableStatus(health, **known)


def status(*tables: TableStatus, blocked: str | None = None, blocked_s: float = 0.0, at: float = START) -> Status:
    """The state of some tables at one moment."""
    later = [
        replace(item, health=replace(item.health, checked_at=at, covered_at=item.health.covered_at + at - START))
        for item in tables
    ]
    return Status(later, f"{len(tables)} tables checked", blocked, blocked_s, at, Memory())


def text_of(snapshot: Snapshot, now: float) -> str:
    """The answer to a scrape."""
    registry = CollectorRegistry()
    registry.register(Metrics(lambda: snapshot, lambda: now))
    return generate_latest(registry).decode()


def scrape(snapshot: Snapshot, now: float) -> dict[str, Samples]:
    """The samples of each metric in the answer to a scrape."""
    found: dict[str, Samples] = {}
    for family in text_string_to_metric_families(text_of(snapshot, now)):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def promtool(*arguments: str, text: str = "", folder: Path = ROOT) -> str:
    """Run promtool, which has to end with 0; return what it prints."""
    own = ROOT / ".cache" / "promtool" / "promtool"
    program = own if own.exists() else shutil.which("promtool")
    if program is None:
        # In continuous integration a skipped test is a failure.
        pytest.skip("promtool is not installed; .ci/promtool unpacks it from Debian's package of Prometheus")
    environment = {**os.environ, "GOMAXPROCS": "1"}
    done = subprocess.run(
        [program, *arguments], cwd=folder, env=environment, input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
