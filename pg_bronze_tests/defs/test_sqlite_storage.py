"""The pooled SQLite storage: the same files as Dagster's, and few connections."""

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier

import dagster as dg
import pytest
from alembic.script import ScriptDirectory
from dagster._core.test_utils import create_run_for_test, instance_for_test
from sqlalchemy import Inspector
from sqlalchemy.dialects.sqlite.base import SQLiteDialect

from pg_bronze.defs.sqlite_storage import PooledSqliteStorage
from pg_bronze_tests.harness.connections import asked_tables, counted_connections
from pg_bronze_tests.harness.project import Project, copy_a_new_row, key

POOLED = {"module": "pg_bronze.defs.sqlite_storage", "class": "PooledSqliteStorage"}


@contextmanager
def pooled(folder: Path) -> Iterator[dg.DagsterInstance]:
    folder.mkdir(exist_ok=True)
    storage = {"custom": POOLED | {"config": {"base_dir": str(folder / "storage")}}}
    with instance_for_test({"storage": storage}, temp_dir=str(folder)) as instance:
        yield instance


@contextmanager
def stock(folder: Path) -> Iterator[dg.DagsterInstance]:
    storage = {"sqlite": {"base_dir": str(folder / "storage")}}
    with instance_for_test({"storage": storage}, temp_dir=str(folder)) as instance:
        yield instance


def test_a_run_opens_a_few_connections_and_not_one_for_each_statement(cinema: Project, tmp_path: Path):
    """It also fails if Dagster opens its connections elsewhere, and the storage has no effect any more."""
    with pooled(tmp_path / "home") as cinema.instance, counted_connections() as opened:
        assert cinema.copy().success
        first = len(opened)
        cinema.database.execute("insert into movie select max(id) + 1, 'new', now() from movie")
        assert cinema.copy("movie").success
    assert first < 40
    assert len(opened) - first < 10


def test_dagsters_own_storage_continues_the_same_files_and_the_other_way_round(cinema: Project, tmp_path: Path):
    """So that the lines in ``dagster.yaml`` can be removed or added at any time."""
    for kind in (pooled, stock, pooled):
        with kind(tmp_path / "home") as cinema.instance:
            cinema.database.execute("insert into movie select max(id) + 1, 'new', now() from movie")
            assert cinema.copy("movie").success
            found = cinema.instance.get_latest_materialization_event(key("movie"))
            assert found is not None
            assert found.run_id == cinema.instance.get_runs(limit=1)[0].run_id
    with stock(tmp_path / "home") as instance:
        assert len(instance.get_runs()) == 3
        assert all(instance.all_logs(run.run_id) for run in instance.get_runs())


def test_opening_existing_files_reads_no_migrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It also fails if Dagster asks for them elsewhere. They are a hundred files, read in every process."""
    with pooled(tmp_path / "home") as instance:
        run = create_run_for_test(instance)
        instance.report_engine_event("created", run)
    asked: list[object] = []
    monkeypatch.setattr(ScriptDirectory, "from_config", asked.append)

    with pooled(tmp_path / "home") as instance:
        assert [entry.message for entry in instance.all_logs(run.run_id)] == ["created"]
        assert instance.all_instigator_state() == []

    assert asked == []


def test_a_run_does_not_ask_again_which_tables_and_columns_there_are(
    cinema: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Dagster does before each read of an asset and each stored materialization, for tables over a new connection."""
    with pooled(tmp_path / "home") as cinema.instance:
        assert cinema.copy("movie").success
        asked = asked_tables(monkeypatch, SQLiteDialect)
        copy_a_new_row(cinema)

    assert asked & {"asset_keys", "asset_event_tags"} == set()


def test_a_storage_that_is_created_again_in_the_same_process_has_complete_migrations(tmp_path: Path):
    """A person removes the folder while `dagster dev` runs; the code server opens the storage for each evaluation."""
    index = tmp_path / "history/runs/index.db"

    def complete() -> set[str]:
        with contextlib.closing(sqlite3.connect(index)) as connection:
            query = "select name from secondary_indexes where migration_completed is not null"
            return {name for (name,) in connection.execute(query)}

    first = PooledSqliteStorage(str(tmp_path))
    before = complete()
    for name in before:
        assert first.event_log_storage.has_secondary_index(name)
    shutil.rmtree(tmp_path / "history")
    PooledSqliteStorage(str(tmp_path))

    assert before
    assert complete() == before


def test_the_daemon_asks_once_which_migrations_are_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Dagster lists the tables of the database in each query for the states of sensors: three quarters of its time."""
    with pooled(tmp_path / "home") as instance:
        assert instance.all_instigator_state() == []
        monkeypatch.delattr(Inspector, "get_table_names")

        assert instance.all_instigator_state() == []
        assert instance.get_instigator_state("origin", "selector") is None


@pytest.mark.parametrize("table", ["alembic_version", "instance_info"])
def test_files_that_an_older_dagster_left_incomplete_are_completed(tmp_path: Path, table: str):
    """As Dagster's own storage does."""
    with pooled(tmp_path / "home") as instance:
        run = create_run_for_test(instance)
    file = tmp_path / "home/storage/history/runs.db"
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute(f"drop table {table}")

    with pooled(tmp_path / "home") as instance:
        assert instance.has_run(run.run_id)

    with contextlib.closing(sqlite3.connect(file)) as connection:
        assert connection.execute("select 1 from sqlite_master where name = ?", (table,)).fetchall() == [(1,)]


def test_processes_that_start_at_the_same_time_in_a_new_folder_share_it(tmp_path: Path):
    """The daemon and the web server do. One of them ended with "table already exists", and no table was copied."""
    start = Barrier(8)

    def open_storage(folder: Path) -> bool:
        start.wait()
        return PooledSqliteStorage.from_local(str(folder)).run_storage.get_runs_count() == 0

    for number in range(3):
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(open_storage, [tmp_path / str(number)] * 8)) == [True] * 8


def test_many_threads_and_more_runs_than_stay_open_read_their_own_events(tmp_path: Path):
    with pooled(tmp_path / "home") as instance:
        runs = [create_run_for_test(instance) for _ in range(12)]

        def write(run: dg.DagsterRun) -> None:
            for number in range(5):
                instance.report_engine_event(f"{run.run_id} {number}", run)

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(write, runs))

        for run in runs:
            messages = [entry.message for entry in instance.all_logs(run.run_id)]
            assert messages == [f"{run.run_id} {number}" for number in range(5)]
