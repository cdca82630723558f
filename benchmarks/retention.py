"""Dagster's storage after days of ten busy tables: its size with the retention, what stays, and the retention's cost.

    python -m benchmarks.retention --days 7
    python -m benchmarks.retention --days 7 --storage postgres

One run that copies ten tables is executed for real. It is then stored again every 10 simulated seconds: its rows in all
tables, its event file, its compute logs and the tick that requested it, with new ids and times. The retention runs
every simulated minute, as its sensor does. 7 days are 60,480 runs.
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
from pg_bronze_tests.harness.servers import Database, fresh_database, new_bucket, start_postgres, until_killed

TABLES = [f"busy_{number}" for number in range(10)]
KEYS = [key(table) for table in TABLES]
STEP_S = 10
YAML = """
storage: STORAGE
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
        # The retention removes the originals.
        self.logs = home.with_name("logs")
        if (home / "compute_logs" / run_id).exists():
            shutil.copytree(home / "compute_logs" / run_id, self.logs)

    def store(self, at: datetime) -> None:
        """Store the run, and the tick that requested it, as of this time."""
        new_id = str(uuid.uuid4())
        self.insert(new_id, at)
        if self.logs.exists():
            shutil.copytree(self.logs, self.home / "compute_logs" / new_id)

    def insert(self, new_id: str, at: datetime) -> None:
        raise NotImplementedError

    def size_mb(self) -> float:
        """The disk space of all files."""
        return size_mb(self.home)

    def report(self) -> None:
        """Print what takes the space."""

    def renewed(self, name: str, value: object, new_id: str, at: datetime) -> object:
        if name in {"timestamp", "create_timestamp", "update_timestamp"}:
            return at.strftime("%Y-%m-%d %H:%M:%S.%f")
        if name in {"start_time", "end_time"}:
            return at.timestamp()
        if not isinstance(value, str):
            return value
        return value.replace(self.run_id, new_id).replace(self.day, at.date().isoformat())


class SqliteTemplate(Template):
    """A run in SQLite: rows in three files, and a file of its own."""

    TABLES = (
        ("history/runs.db", "runs", "run_id"),
        ("history/runs.db", "run_tags", "run_id"),
        ("history/runs/index.db", "event_logs", "run_id"),
        ("schedules/schedules.db", "job_ticks", None),
    )

    def __init__(self, home: Path, run_id: str) -> None:
        super().__init__(home, run_id)
        self.storage = home / "storage"
        self.rows = [(file, table, self._rows(file, table, column)) for file, table, column in self.TABLES]
        self.file = (self.storage / f"history/runs/{run_id}.db").read_bytes()

    def _rows(self, file: str, table: str, column: str | None) -> list[dict[str, object]]:
        with closing(sqlite3.connect(self.storage / file)) as connection:
            connection.row_factory = sqlite3.Row
            where = f"where {column} = ?" if column else ""
            found = connection.execute(f"select * from {table} {where} order by id", (self.run_id,) if column else ())
            return [dict(row) for row in found]

    def insert(self, new_id: str, at: datetime) -> None:
        for file, table, rows in self.rows:
            names = [name for name in rows[0] if name != "id"]
            values = [[self.renewed(name, row[name], new_id, at) for name in names] for row in rows]
            columns, marks = ", ".join(f'"{name}"' for name in names), ", ".join("?" * len(names))
            with closing(sqlite3.connect(self.storage / file)) as connection:
                connection.execute("pragma synchronous = off")
                connection.executemany(f"insert into {table} ({columns}) values ({marks})", values)
                connection.commit()
        (self.storage / f"history/runs/{new_id}.db").write_bytes(self.file)

    def report(self) -> None:
        for file in sorted(self.home.rglob("*.db"), key=lambda path: -path.stat().st_size)[:4]:
            print(f"{file.relative_to(self.home)}: {file.stat().st_size / 1e6:.1f} MB")


class PostgresTemplate(Template):
    """A run in PostgreSQL: rows in four tables."""

    TABLES = ("runs", "run_tags", "event_logs", "job_ticks")

    def __init__(self, home: Path, run_id: str, database: Database) -> None:
        super().__init__(home, run_id)
        self.connection = database.connect()
        self.statements = [self._statement(table) for table in self.TABLES]

    def _statement(self, table: str) -> str:
        where = "" if table == "job_ticks" else f"where run_id = '{self.run_id}'"
        self.connection.execute(f"create unlogged table template_{table} as select * from {table} {where} order by id")
        found = self.connection.execute(
            "select attname, atttypid in ('text'::regtype, 'varchar'::regtype) from pg_attribute "
            "where attrelid = %s::regclass and attnum > 0 and not attisdropped and attname <> 'id'",
            [table],
        )
        values = {name: self._value(name, is_text) for name, is_text in found}
        names = ", ".join(f'"{name}"' for name in values)
        return f"insert into {table} ({names}) select {', '.join(values.values())} from template_{table} order by id"

    def _value(self, name: str, is_text: bool) -> str:
        if name in {"timestamp", "create_timestamp", "update_timestamp"}:
            return "%(stamp)s::timestamp"
        if name in {"start_time", "end_time"}:
            return "%(seconds)s::float"
        if not is_text:
            return f'"{name}"'
        return f"replace(replace(\"{name}\", '{self.run_id}', %(run)s), '{self.day}', %(day)s)"

    def insert(self, new_id: str, at: datetime) -> None:
        values = {
            "stamp": at.replace(tzinfo=None),
            "seconds": at.timestamp(),
            "run": new_id,
            "day": at.date().isoformat(),
        }
        with self.connection.transaction():
            for statement in self.statements:
                self.connection.execute(statement, values)

    def size_mb(self) -> float:
        (found,) = self.connection.execute("select pg_database_size(current_database())").fetchone() or (0,)
        return super().size_mb() + float(found) / 1e6

    def report(self) -> None:
        found = self.connection.execute(
            "select relname, pg_total_relation_size(oid) / 1e6 from pg_class where relkind = 'r' "
            "order by 2 desc limit 5"
        )
        for name, megabytes in found:
            print(f"{name}: {megabytes:.1f} MB")


def add_tick(instance: dg.DagsterInstance, cursor: str) -> None:
    """Store the tick that requested the run."""
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
    instance.add_instigator_state(state)
    instance.create_tick(
        TickData(
            state.instigator_origin_id, "bronze_tick", InstigatorType.SENSOR, TickStatus.SUCCESS,
            datetime.now(UTC).timestamp(), run_ids=[str(uuid.uuid4())], run_keys=[], cursor=cursor,
            selector_id=state.selector_id,
        )
    )  # fmt: skip


def simulate(project: Project, make: Callable[[str], Template], days: float, settings: HistorySettings) -> None:
    """Copy once, store the run again and again, and print size and cost each day."""
    instance = project.instance
    project.reload()
    for number in range(3):
        project.database.execute(";".join(f"insert into {table} values ({number}, 'new')" for table in TABLES))
        result = project.copy(tags={metadata.BATCH_TAG: "tick", "dagster/max_runtime": "3600"})
        assert result.success
    project.evaluate()
    assert project.cursor
    print(f"the cursor of a tick: {len(project.cursor):,} characters")
    add_tick(instance, project.cursor)
    template = make(result.run_id)
    before = template.size_mb()
    print(f"the empty storage, with three runs: {before:.1f} MB", flush=True)
    start = datetime.now(UTC)
    cpu, worst = 0.0, 0.0
    for count, second in enumerate(range(0, int(days * 86400), STEP_S), 1):
        at = start + timedelta(seconds=second)
        template.store(at)
        if count == 40:
            print(f"one run before anything is removed: {(template.size_mb() - before) / 0.04:.0f} kB", flush=True)
        if second % 60 == 0 and count > 40:
            began, wall = time.process_time(), time.perf_counter()
            retention.prune(instance, KEYS, settings, at.timestamp())
            cpu += time.process_time() - began
            worst = max(worst, time.perf_counter() - wall)
        if second % 21600 == 21600 - STEP_S:
            hours = (second + STEP_S) / 3600
            percent = 100 * cpu / (second + STEP_S)
            print(
                f"after {hours:.0f} h, {count:,} runs: {template.size_mb():.1f} MB, retention {percent:.2f} % of a "
                f"core, longest pass {worst:.2f} s",
                flush=True,
            )
    template.report()
    report(project)


def report(project: Project) -> None:
    """Print what is left, and how long the queries of the main pages take."""
    instance = project.instance
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
    parser.add_argument("--storage", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--keep", default="{}", help='settings as JSON, such as {"keep_runs_mb": 40}')
    arguments = parser.parse_args()
    settings = HistorySettings(**json.loads(arguments.keep))
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        home = folder / "home"
        for part in ("home", "project", "postgres", "seaweed"):
            (folder / part).mkdir()
        os.environ.pop("DAGSTER_HOME", None)
        with (
            start_postgres(folder / "postgres", None) as server,
            fresh_database(server) as database,
            fresh_database(server) as history,
            until_killed(SeaweedServer(folder / "seaweed")) as s3,
        ):
            storage = f"{{sqlite: {{base_dir: {home / 'storage'}}}}}"
            if arguments.storage == "postgres":
                storage = f"{{postgres: {{postgres_url: '{history.url.replace('sql://', 'sql+psycopg2://')}'}}}}"
                # The simulation is about a hundred times faster than the days it simulates.
                history.execute("alter system set autovacuum_naptime = '1s'")
                history.execute("alter system set autovacuum_vacuum_cost_delay = 0")
                history.execute("select pg_reload_conf()")
            (folder / "dagster.yaml").write_text(YAML.replace("STORAGE", storage).replace("HOME", str(home)))

            def template(run_id: str) -> Template:
                if arguments.storage == "postgres":
                    return PostgresTemplate(home, run_id, history)
                return SqliteTemplate(home, run_id)

            with (
                opened(database, new_bucket(s3), folder / "project", patch) as project,
                dg.DagsterInstance.from_config(str(folder)) as instance,
            ):
                project.instance = instance
                for table in TABLES:
                    database.execute(f"create table {table} (id int primary key, name text)")
                simulate(project, template, arguments.days, settings)


if __name__ == "__main__":
    main()
