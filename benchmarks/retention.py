"""Dagster's storage after days of ten busy tables: its size with the retention, what stays, and the retention's cost.

    python -m benchmarks.retention --days 7

One run that copies ten tables is executed for real, with SQLite as storage. It is then stored again every 10
simulated seconds: its rows in all tables, its event file, its compute logs and the tick that requested it, with new ids
and times. The retention runs every simulated minute, as its sensor does. 7 days are 60,480 runs.
"""

import argparse
import json
import os
import shutil
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from pg_bronze.defs import metadata, retention
from pg_bronze.demo.s3 import SeaweedServer
from pg_bronze.settings.history import HistorySettings
from pg_bronze_tests.harness.project import Project, key, opened
from pg_bronze_tests.harness.servers import fresh_database, new_bucket, start_postgres, until_killed

TABLES = [f"busy_{number}" for number in range(10)]
KEYS = [key(table) for table in TABLES]
STEP_S = 10
YAML = """
storage: {sqlite: {base_dir: STORAGE}}
telemetry: {enabled: false}
local_artifact_storage: {module: dagster._core.storage.root, class: LocalArtifactStorage, config: {base_dir: HOME}}
compute_logs:
  module: dagster._core.storage.local_compute_log_manager
  class: LocalComputeLogManager
  config: {base_dir: HOME/compute_logs}
"""


def size_mb(folder: Path) -> float:
    """The disk space of all files below a folder."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file()) / 1e6


class Template:
    """One run, and how it is stored again under another id and at another time."""

    def __init__(self, home: Path, run_id: str) -> None:
        self.home, self.run_id = home, run_id
        self.day = datetime.now(UTC).date().isoformat()
        self.history = home / "storage/history"
        self.runs = self._rows("runs.db", "runs", "run_id")
        self.tags = self._rows("runs.db", "run_tags", "run_id")
        self.events = self._rows("runs/index.db", "event_logs", "run_id")
        self.file = (self.history / f"runs/{run_id}.db").read_bytes()
        # The retention removes the originals.
        self.logs = self.home.with_name("logs")
        if (home / "compute_logs" / run_id).exists():
            shutil.copytree(home / "compute_logs" / run_id, self.logs)
        self.cursor = "x" * 2200  # of ten tables

    def _rows(self, file: str, table: str, column: str) -> list[dict[str, object]]:
        with closing(sqlite3.connect(self.history / file)) as connection:
            connection.row_factory = sqlite3.Row
            found = connection.execute(f"select * from {table} where {column} = ? order by id", (self.run_id,))
            return [dict(row) for row in found]

    def store(self, at: datetime) -> None:
        """Store the run as one that was executed at this time."""
        new_id = str(uuid.uuid4())
        stamp = at.strftime("%Y-%m-%d %H:%M:%S.%f")
        self._insert("runs.db", {"runs": self.runs, "run_tags": self.tags}, new_id, stamp, at)
        self._insert("runs/index.db", {"event_logs": self.events}, new_id, stamp, at)
        (self.history / f"runs/{new_id}.db").write_bytes(self.file)
        if self.logs.exists():
            shutil.copytree(self.logs, self.home / "compute_logs" / new_id)

    def _insert(
        self, file: str, tables: dict[str, list[dict[str, object]]], new_id: str, stamp: str, at: datetime
    ) -> None:
        with closing(sqlite3.connect(self.history / file)) as connection, connection:
            for table, rows in tables.items():
                for row in rows:
                    values = {name: self._renewed(name, value, new_id, stamp, at) for name, value in row.items()}
                    del values["id"]
                    names, marks = ", ".join(values), ", ".join("?" * len(values))
                    columns = names.replace("partition,", '"partition",')
                    connection.execute(f"insert into {table} ({columns}) values ({marks})", list(values.values()))

    def _renewed(self, name: str, value: object, new_id: str, stamp: str, at: datetime) -> object:
        if name in {"timestamp", "create_timestamp", "update_timestamp"}:
            return stamp
        if name in {"start_time", "end_time"}:
            return at.timestamp()
        if not isinstance(value, str):
            return value
        return value.replace(self.run_id, new_id).replace(self.day, at.date().isoformat())


def add_tick(instance: dg.DagsterInstance, home: Path, at: datetime, cursor: str, rows: list[object]) -> None:
    """Store a tick with a cursor, as a copy of one that Dagster stored."""
    from dagster._core.definitions.run_request import InstigatorType
    from dagster._core.remote_origin import (
        RegisteredCodeLocationOrigin,
        RemoteInstigatorOrigin,
        RemoteRepositoryOrigin,
    )
    from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, TickData, TickStatus

    origin = RemoteInstigatorOrigin(
        RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("pg_bronze"), "__repository__"), "bronze_tick"
    )
    state = InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.RUNNING)
    if not rows:
        instance.add_instigator_state(state)
        instance.create_tick(
            TickData(
                state.instigator_origin_id, "bronze_tick", InstigatorType.SENSOR, TickStatus.SUCCESS, at.timestamp(),
                run_ids=[str(uuid.uuid4())], run_keys=[], cursor=cursor, selector_id=state.selector_id,
            )
        )  # fmt: skip
    with closing(sqlite3.connect(home / "storage/schedules/schedules.db")) as connection, connection:
        if not rows:
            found = "job_origin_id, status, type, timestamp, tick_body, selector_id"
            rows += connection.execute(f"select {found} from job_ticks").fetchone()
        rows[3] = at.strftime("%Y-%m-%d %H:%M:%S.%f")
        connection.execute(
            "insert into job_ticks (job_origin_id, status, type, timestamp, tick_body, selector_id) "
            "values (?, ?, ?, ?, ?, ?)",
            rows,
        )


def simulate(project: Project, home: Path, days: float, settings: HistorySettings) -> None:
    """Copy once, store the run again and again, and print size and cost each day."""
    instance = project.instance
    project.reload()
    for number in range(3):
        project.database.execute(";".join(f"insert into {table} values ({number}, 'new')" for table in TABLES))
        result = project.copy(tags={metadata.BATCH_TAG: "tick", "dagster/max_runtime": "3600"})
        assert result.success
    before = size_mb(home)
    template = Template(home, result.run_id)
    start = datetime.now(UTC)
    rows: list[object] = []
    cpu, worst = 0.0, 0.0
    for count, second in enumerate(range(0, int(days * 86400), STEP_S), 1):
        at = start + timedelta(seconds=second)
        template.store(at)
        add_tick(instance, home, at, template.cursor, rows)
        if count == 40:
            print(f"one run before anything is removed: {(size_mb(home) - before) / 0.04:.0f} kB", flush=True)
        if second % 60 == 0:
            began, wall = time.process_time(), time.perf_counter()
            retention.prune(instance, KEYS, settings, at.timestamp())
            cpu += time.process_time() - began
            worst = max(worst, time.perf_counter() - wall)
        if second % 43200 == 43200 - STEP_S:
            hours = (second + STEP_S) / 3600
            percent = 100 * cpu / (second + STEP_S)
            print(
                f"after {hours:.0f} h, {count:,} runs: {size_mb(home):.1f} MB, retention {percent:.2f} % of a core, "
                f"longest pass {worst:.2f} s",
                flush=True,
            )
    report(project, home)


def report(project: Project, home: Path) -> None:
    """Print what is left, and how long the queries of the main pages take."""
    instance = project.instance
    for file in sorted(home.rglob("*.db"), key=lambda path: -path.stat().st_size)[:4]:
        print(f"{file.relative_to(home)}: {file.stat().st_size / 1e6:.1f} MB")
    kept = instance.fetch_materializations(KEYS[0], 10_000).records
    assert project.watermark(TABLES[0]) is not None
    days = {item.partition_key for item in kept}
    assert days == instance.get_materialized_partitions(KEYS[0])
    runs = instance.get_run_records()
    print(f"runs: {len(runs)}; materializations of one table: {len(kept)}, of {len(days)} days")
    pages: dict[str, Callable[[], object]] = {
        "runs": lambda: instance.get_run_records(limit=25),
        "assets": lambda: instance.get_asset_records(KEYS),
        "materializations": lambda: instance.fetch_materializations(KEYS[0], 100),
        "partitions": lambda: instance.get_materialized_partitions(KEYS[0]),
    }
    for name, query in pages.items():
        began = time.perf_counter()
        query()
        print(f"query of {name}: {1000 * (time.perf_counter() - began):.0f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=float, default=7)
    parser.add_argument("--keep", default="{}", help='settings as JSON, such as {"keep_runs": 100}')
    arguments = parser.parse_args()
    settings = HistorySettings(**json.loads(arguments.keep))
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        home = folder / "home"
        for part in ("home", "project", "postgres", "seaweed"):
            (folder / part).mkdir()
        text = YAML.replace("STORAGE", str(home / "storage")).replace("HOME", str(home))
        (folder / "dagster.yaml").write_text(text)
        os.environ.pop("DAGSTER_HOME", None)
        with (
            start_postgres(folder / "postgres", None) as server,
            fresh_database(server) as database,
            until_killed(SeaweedServer(folder / "seaweed")) as s3,
            opened(database, new_bucket(s3), folder / "project", patch) as project,
            dg.DagsterInstance.from_config(str(folder)) as instance,
        ):
            project.instance = instance
            for table in TABLES:
                database.execute(f"create table {table} (id int primary key, name text)")
            simulate(project, home, arguments.days, settings)


if __name__ == "__main__":
    main()
