"""Questions to SQLite that had no answer: not asked again before a commit, and asked again after each."""

import contextlib
import shutil
import sqlite3
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test, instance_for_test

from pg_bronze.defs.known_empty import KnownEmpty


class Things:
    """A database in the mode of Dagster's, and how often it was asked."""

    def __init__(self, folder: Path) -> None:
        self.file, self.read_count = folder / "things.db", 0
        self.execute("pragma journal_mode = wal", "create table things (name text)")
        self.known = KnownEmpty(str(self.file))

    def execute(self, *statements: str) -> None:
        with contextlib.closing(sqlite3.connect(self.file)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()

    def named(self, name: str) -> list[str]:
        def read() -> list[str]:
            self.read_count += 1
            with contextlib.closing(sqlite3.connect(self.file)) as connection:
                return [row[0] for row in connection.execute("select name from things where name = ?", [name])]

        return list(self.known.ask(name, read))


@pytest.fixture
def things(tmp_path: Path) -> Things:
    return Things(tmp_path)


def test_a_question_without_answer_is_not_repeated_before_a_commit(things: Things):
    assert [things.named("run") for _ in range(5)] == [[]] * 5
    assert things.read_count == 1


def test_each_commit_of_another_connection_is_seen(things: Things):
    """A run would stay in the queue, or two runs would copy a table, otherwise."""
    for number in range(20):
        assert things.named(f"run {number}") == []
        things.execute(f"insert into things values ('run {number}')")
        assert things.named(f"run {number}") == [f"run {number}"]


def test_an_answer_is_asked_for_again(things: Things):
    """The state of a run changes."""
    things.execute("insert into things values ('run')")
    assert [things.named("run") for _ in range(3)] == [["run"]] * 3
    assert things.read_count == 3


def test_a_commit_while_the_question_is_asked_is_seen_by_the_next_one(things: Things):
    def read() -> list[str]:
        things.execute("insert into things values ('run')")
        return []

    assert things.known.ask("run", read) == []
    assert things.named("run") == ["run"]


def test_a_database_that_was_replaced_is_asked(things: Things, tmp_path: Path):
    """A person may delete Dagster's storage while the daemon runs."""
    assert things.named("run") == []
    (tmp_path / "other").mkdir()
    other = Things(tmp_path / "other")
    other.execute("insert into things values ('run')")
    for file in tmp_path.glob("things.db*"):
        file.unlink()
    shutil.copy(other.file, things.file)

    assert things.named("run") == ["run"]


def test_without_a_database_each_question_is_asked(things: Things):
    for file in things.file.parent.glob("things.db*"):
        file.unlink()

    assert things.known.ask("run", list) == []
    assert things.known.ask("run", lambda: ["run"]) == ["run"]


def test_a_run_of_another_process_is_found_after_none_was(tmp_path: Path):
    """The daemon looks for runs; a sensor, the web server or a command creates them."""
    storage = {"module": "pg_bronze.defs.sqlite_storage", "class": "PooledSqliteStorage"}
    custom = {"storage": {"custom": storage | {"config": {"base_dir": str(tmp_path / "storage")}}}}
    stock = {"storage": {"sqlite": {"base_dir": str(tmp_path / "storage")}}}
    unfinished = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])
    with (
        instance_for_test(custom, temp_dir=str(tmp_path)) as ours,
        instance_for_test(stock, temp_dir=str(tmp_path)) as other,
    ):
        assert [ours.get_runs(unfinished), ours.get_runs(unfinished), ours.get_run_records(unfinished)] == [[], [], []]

        run = create_run_for_test(other, status=dg.DagsterRunStatus.STARTED)

        assert [found.run_id for found in ours.get_runs(unfinished)] == [run.run_id]
        assert [found.dagster_run.run_id for found in ours.get_run_records(unfinished)] == [run.run_id]
        other.delete_run(run.run_id)
        assert ours.get_runs(unfinished) == []
