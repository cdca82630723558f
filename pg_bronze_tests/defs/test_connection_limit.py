"""The limit on connections, through sensor, asset and run: what gets none is copied later, and nothing fails."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from unittest.mock import create_autospec

import dagster as dg
import psycopg
import pytest
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.test_utils import create_run_for_test

from pg_bronze.defs import metadata, run_watchdog
from pg_bronze.defs.connections import open_source
from pg_bronze.defs.sensors import catalog
from pg_bronze.scheduling import batches
from pg_bronze.settings.load import load_settings
from pg_bronze.settings.model import Settings
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.project import Project, key, messages, requested
from pg_bronze_tests.harness.sessions import Sessions

TICK = {"pg_bronze/batch": "tick"}
NO_ROOM = "2 waiting for a connection (PG_BRONZE_MAX_CONNECTIONS)"


@pytest.fixture
def limited(cinema: Project) -> Project:
    """A project whose limit allows one run at a time."""
    cinema.set(PG_BRONZE_MAX_CONNECTIONS="4")
    cinema.reload()
    return cinema


# The server ends a session some milliseconds after its client has closed it.
HELD = "select from pg_locks where locktype = 'advisory' and classid = x'70676273'::int::oid"


@contextmanager
def holder(name: str = "pg_bronze command") -> Iterator[None]:
    """Hold the slot of a run."""
    settings = load_settings()
    with open_source(settings, name) as source:
        source.connection  # noqa: B018
        yield
    _until_free(settings)


def _until_free(settings: Settings) -> None:
    with psycopg.connect(**settings.source_conninfo("test"), autocommit=True) as connection:
        deadline = time.monotonic() + 30
        while connection.execute(f"select exists ({HELD})").fetchone() != (False,):
            assert time.monotonic() < deadline, "the slot is not free 30 s after its session was closed"


def test_a_table_left_for_lack_of_a_connection_is_copied_by_the_next_tick(limited: Project):
    """A failure would postpone it by minutes, and alarm somebody for nothing."""
    with holder():
        result = limited.copy(tags=TICK)
    assert result.success
    found = [line for line in messages(limited, result) if "PG_BRONZE_MAX_CONNECTIONS is 4" in line]
    assert len(found) == 1
    assert found[0].startswith("The tables of this run are left to a later tick. ")
    assert "batch: 0 new rows in 0 tables, 2 left to a later tick" in messages(limited, result)
    assert lake.keys(limited.bucket, "movie") == []

    data = limited.evaluate()
    assert requested(data) == [{"movie", "person"}]
    assert limited.copy(tags=TICK).success

    for table in ("movie", "person"):
        assert lake.compare(limited.database, limited.bucket, table) == lake.SAME


def test_no_run_is_requested_while_a_command_has_the_connections(limited: Project):
    """A run worker takes several CPU seconds to start and would leave its tables to the next one."""
    with holder():
        data = limited.evaluate()
        assert data.run_requests in (None, [])
        assert NO_ROOM in data.skip_message
    assert requested(limited.evaluate()) == [{"movie", "person"}]


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTED])
def test_no_run_is_requested_beside_one_that_has_or_will_take_the_connections(limited: Project, status):
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "__repository__"), "bronze")
    run = create_run_for_test(
        limited.instance, job_name="bronze", asset_selection=frozenset([key("gone")]), tags=TICK, status=status,
        remote_job_origin=origin,
    )  # fmt: skip
    data = limited.evaluate()
    assert data.run_requests in (None, [])
    assert NO_ROOM in data.skip_message
    limited.instance.report_run_failed(run)
    assert requested(limited.evaluate()) == [{"movie", "person"}]


def test_a_run_of_other_assets_takes_no_connection(limited: Project):
    """Tables would not be copied while a slow asset of the same project is materialized."""
    create_run_for_test(
        limited.instance, job_name="__ASSET_JOB", asset_selection=frozenset([dg.AssetKey("report")]),
        status=dg.DagsterRunStatus.STARTED,
    )  # fmt: skip
    assert requested(limited.evaluate()) == [{"movie", "person"}]


def test_a_run_that_holds_its_slot_counts_once(limited: Project):
    limited.set(PG_BRONZE_MAX_CONNECTIONS="6")
    run = create_run_for_test(
        limited.instance, job_name="bronze", asset_selection=frozenset([key("gone")]), tags=TICK,
        status=dg.DagsterRunStatus.STARTED,
    )  # fmt: skip
    with holder(run_watchdog.session_name(run.run_id)):
        assert requested(limited.evaluate()) == [{"movie", "person"}]


@pytest.mark.parametrize("most, runs", [("4", 1), ("6", 2), ("12", 3)])
def test_many_due_tables_are_divided_into_no_more_runs_than_get_a_connection(limited: Project, monkeypatch, most, runs):
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    monkeypatch.setattr(batches, "LEAST_TABLES", 1)
    limited.set(PG_BRONZE_MAX_CONNECTIONS=most)
    limited.database.execute("create table genre (id int)")
    limited.reload()
    assert len(requested(limited.evaluate())) == runs


def test_one_run_at_a_time_loads_in_turn_with_the_other_tables(limited: Project):
    """First loads would otherwise hold up the tables with new rows for hours, or never begin."""
    limited.set(PG_BRONZE_SLICE_BYTES="64KiB")
    limited.database.execute("create table load (id int, filler text); analyze load")
    limited.reload()
    limited.database.execute("insert into load select i, repeat('x', 500) from generate_series(1, 1500) i")

    data = limited.evaluate()

    assert requested(data) == [{"load"}]
    assert metadata.FIRST_LOAD_TAG in data.run_requests[0].tags
    assert requested(limited.evaluate()) == [{"movie", "person"}]


def test_a_verification_without_a_connection_says_so(limited: Project):
    assert limited.copy(tags=TICK).success
    _until_free(load_settings())
    with holder():
        job = limited.definitions.resolve_job_def("bronze_verify")
        result = job.execute_in_process(
            instance=limited.instance, partition_key=limited.latest("movie").partition, raise_on_error=False
        )
    assert not result.success
    assert any("PG_BRONZE_MAX_CONNECTIONS is 4" in line for line in messages(limited, result))


def test_a_code_server_that_was_replaced_has_no_connection(limited: Project):
    """It runs for a while yet, and the connection of the new one would be the fifth of four."""
    reloaded = []
    origin = create_autospec(GrpcServerCodeLocationOrigin, instance=True)
    origin.create_client.return_value.reload_code.side_effect = lambda timeout: reloaded.append(timeout)
    with Sessions(limited.database) as sessions:
        limited.evaluate()
        while "pg_bronze sensor" not in sessions.now:
            pass
        catalog.reload(SimpleNamespace(code_location_origin=origin))
        while sessions.now:
            pass
    assert reloaded
    assert requested(limited.evaluate()) == [{"movie", "person"}]
