"""The pooled PostgreSQL storage: the same tables as Dagster's, few connections, and what happens if they are closed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.test_utils import instance_for_test
from sqlalchemy.dialects.postgresql.base import PGDialect

from pg_bronze_tests.harness.connections import asked_tables, counted_connections
from pg_bronze_tests.harness.project import Project, copy_a_new_row, key
from pg_bronze_tests.harness.servers import Database

POOLED = {"module": "pg_bronze.defs.postgres_storage", "class": "PooledPostgresStorage"}


@pytest.fixture
def storage(cinema: Project) -> Iterator[Database]:
    """A database for Dagster's storage."""
    name = f"dagster_{cinema.database.name}"
    cinema.database.execute(f'create database "{name}"')
    yield Database(cinema.database.server, name)
    cinema.database.execute(f'drop database "{name}" with (force)')


@contextmanager
def opened(storage: Database, folder: Path, *, pooled: bool = True) -> Iterator[dg.DagsterInstance]:
    server = storage.server
    config = {
        "postgres_db": {
            "scheme": "postgresql+psycopg2",
            "hostname": server.host,
            "port": server.port,
            "username": server.user,
            "password": server.password,
            "db_name": storage.name,
        }
    }
    chosen = {"custom": POOLED | {"config": config}} if pooled else {"postgres": config}
    with instance_for_test({"storage": chosen}, temp_dir=str(folder)) as instance:
        yield instance


def test_a_run_opens_a_few_connections_and_not_one_for_each_statement(cinema: Project, storage, tmp_path: Path):
    """It also fails if Dagster opens its connections elsewhere, and the storage has no effect any more."""
    with opened(storage, tmp_path) as cinema.instance, counted_connections() as made:
        assert cinema.copy().success
        first = len(made)
        cinema.database.execute("insert into movie select max(id) + 1, 'new', now() from movie")
        assert cinema.copy("movie").success
    assert first < 15
    assert len(made) - first < 5


def test_a_run_does_not_ask_again_which_tables_and_columns_there_are(
    cinema: Project, storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Dagster does before each read of an asset and each stored materialization."""
    with opened(storage, tmp_path) as cinema.instance:
        assert cinema.copy("movie").success
        asked = asked_tables(monkeypatch, PGDialect)
        copy_a_new_row(cinema)

    assert asked & {"asset_keys", "asset_event_tags"} == set()


def backends(storage: Database) -> set[int]:
    """Return the process ids of the sessions of Dagster."""
    query = "select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    with storage.connect() as connection:
        return {pid for (pid,) in connection.execute(query.encode()).fetchall()}


def test_dagsters_own_storage_continues_the_same_tables_and_the_other_way_round(cinema: Project, storage, tmp_path):
    """So that the lines in ``dagster.yaml`` can be removed or added at any time."""
    for pooled in (True, False, True):
        with opened(storage, tmp_path, pooled=pooled) as cinema.instance:
            cinema.database.execute("insert into movie select max(id) + 1, 'new', now() from movie")
            assert cinema.copy("movie").success
            found = cinema.instance.get_latest_materialization_event(key("movie"))
            assert found is not None
            assert found.run_id == cinema.instance.get_runs(limit=1)[0].run_id


def test_connections_that_the_server_has_closed_are_replaced(cinema: Project, storage, tmp_path: Path):
    """After a restart of the server, every process of Dagster would fail once or keep failing."""
    with opened(storage, tmp_path) as cinema.instance:
        assert cinema.copy().success
        closed = backends(storage)
        for pid in closed:
            cinema.database.execute(f"select pg_terminate_backend({pid}, 10000)")

        cinema.database.execute("insert into movie select max(id) + 1, 'new', now() from movie")
        assert cinema.copy("movie").success

        assert backends(storage) & closed == set()
