"""New tables: copied before the definitions contain them, where these cannot be loaded again in time."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from unittest.mock import Mock

import dagster as dg
import pytest
from dagster import DagsterRunStatus
from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin
from dagster._core.test_utils import create_run_for_test

from pg_bronze.defs import catalog_state, new_tables
from pg_bronze.defs.sensors import catalog
from pg_bronze.errors import SourceUnavailable
from pg_bronze.sync.table_sync import TableSync
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.project import Project

AWARD = "create table award (id int primary key); insert into award values (1), (2)"


@pytest.fixture
def own_server(cinema: Project) -> Project:
    """The project as the sensor of a daemon that starts its own code server evaluates it."""
    origin = Mock(spec=ManagedGrpcPythonEnvCodeLocationOrigin)
    cinema.monkeypatch.setattr(dg.SensorEvaluationContext, "code_location_origin", origin)
    return cinema


def copy(project: Project, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
    """Execute a requested run with the definitions that were loaded before the table was created."""
    job = project.definitions.resolve_job_def(request.job_name)
    return job.execute_in_process(
        run_config=request.run_config, tags=request.tags, instance=project.instance, raise_on_error=False
    )


def test_a_new_table_is_copied_and_recorded_although_the_definitions_do_not_have_it(own_server: Project):
    own_server.database.execute(AWARD)

    (request,) = own_server.evaluate("bronze_catalog").run_requests
    assert copy(own_server, request).success

    assert lake.compare(own_server.database, own_server.bucket, "award") == lake.SAME
    assert own_server.watermark("award") is not None
    own_server.reload()
    own_server.copy("award")
    assert len(lake.keys(own_server.bucket, "award")) == 1, "the next run continues after it"


def test_a_new_table_is_copied_after_a_reload_had_no_effect(cinema: Project):
    cinema.monkeypatch.setattr(catalog, "reload", lambda _context: None)
    cinema.database.execute(AWARD)
    assert cinema.evaluate("bronze_catalog").run_requests == []

    later = datetime.now(UTC) + timedelta(seconds=15)
    cinema.monkeypatch.setattr(catalog, "datetime", SimpleNamespace(now=lambda _zone: later, fromtimestamp=None))
    (request,) = cinema.evaluate("bronze_catalog").run_requests

    assert request.run_config["ops"]["copy_new_tables"]["config"] == {"tables": ["award"]}


def test_no_second_run_is_requested_while_one_copies_new_tables(own_server: Project):
    """It would wait for the same tables."""
    create_run_for_test(own_server.instance, new_tables.JOB, status=DagsterRunStatus.STARTED)
    own_server.database.execute(AWARD)

    assert own_server.evaluate("bronze_catalog").run_requests == []


@pytest.mark.parametrize(
    "change", ["create table excluded (id int)", "create view award as select 1 as id", "drop table person"]
)
def test_nothing_is_requested_for_a_change_without_a_new_table_to_copy(own_server: Project, change: str):
    own_server.set(PG_BRONZE_EXCLUDE="excluded")
    own_server.database.execute(change)

    data = own_server.evaluate("bronze_catalog")

    assert data.run_requests == []
    assert data.skip_message == "The catalog changed. The daemon loads the definitions again within a minute."


def test_a_failure_is_recorded_for_the_table_and_fails_the_run(own_server: Project):
    own_server.database.execute(AWARD)
    (request,) = own_server.evaluate("bronze_catalog").run_requests
    own_server.monkeypatch.setattr(TableSync, "start", Mock(side_effect=SourceUnavailable("award: down.")))

    result = copy(own_server, request)

    (failed,) = (event for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_FAILURE)
    assert "The asset of each failing table has the cause" in failed.step_failure_data.user_failure_data.description
    (observation,) = own_server.instance.fetch_observations(dg.AssetKey(["bronze", "award"]), 1).records
    assert "down" in str(observation.asset_event.metadata)


def test_a_new_table_is_noticed_between_two_reads_of_the_whole_catalog(cinema: Project):
    """The whole catalog of 1,000 tables takes 0.3 s, so it is read every 30 s."""
    read = Mock(wraps=catalog_state.live)
    cinema.monkeypatch.setattr(catalog_state, "live", read)
    cinema.monkeypatch.setattr(catalog, "reload", lambda _context: None)
    for _ in range(3):
        cinema.database.execute("insert into movie values (100 + random() * 1e8, 'new')")
        cinema.evaluate("bronze_catalog")
    assert read.call_count == 1

    cinema.database.execute(AWARD)

    assert cinema.evaluate("bronze_catalog").skip_message == "The catalog changed. The definitions are being reloaded."
