"""Abandoned runs are ended, so that their tables are copied again. Runs with a worker are not."""

import time

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from pg_bronze.defs import run_watchdog
from pg_bronze.defs.connections import open_source
from pg_bronze.settings.load import load_settings
from pg_bronze_tests.harness.project import Project, key, requested

OURS = [key("movie"), key("person")]


@pytest.fixture
def started(cinema: Project) -> dg.DagsterRun:
    selection = frozenset([key("movie")])
    return create_run_for_test(
        cinema.instance, job_name="bronze", asset_selection=selection, status=dg.DagsterRunStatus.STARTED
    )


def status(project: Project, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = project.instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status


def test_a_run_without_session_and_event_is_ended_and_its_table_is_due(cinema: Project, started: dg.DagsterRun):
    """A killed worker would block its tables until the maximum run time has passed."""
    with open_source(load_settings(), "pg_bronze test") as source:
        ended = run_watchdog.end_abandoned_runs(cinema.instance, source, OURS, time.time() + run_watchdog.SILENT_S + 1)

    assert ended == [started.run_id]
    assert status(cinema, started) == dg.DagsterRunStatus.FAILURE
    assert {"movie"} <= set().union(*requested(cinema.evaluate()))


def test_the_session_of_a_run_has_the_name_that_the_watchdog_searches(cinema: Project, monkeypatch: pytest.MonkeyPatch):
    """With another name, every long run would be ended during its work."""
    seen = []
    session_name = run_watchdog.session_name
    monkeypatch.setattr(run_watchdog, "session_name", lambda run_id: seen.append(run_id) or session_name(run_id))

    run = cinema.copy("movie")

    assert seen == [run.run_id]


def test_a_run_that_reads_for_minutes_without_an_event_is_not_ended(cinema: Project, started: dg.DagsterRun):
    """Ending it would start a second copy of the same table."""
    settings = load_settings()
    with open_source(settings, run_watchdog.session_name(started.run_id)) as worker:
        worker.ask("select 1")
        with open_source(settings, "pg_bronze test") as source:
            source.activity()  # as the sensor did; without a connection no run is ended
            ended = run_watchdog.end_abandoned_runs(
                cinema.instance, source, OURS, time.time() + run_watchdog.SILENT_S + 1
            )

    assert ended == []
    assert status(cinema, started) == dg.DagsterRunStatus.STARTED


def test_a_run_that_has_just_started_is_not_ended(cinema: Project, started: dg.DagsterRun):
    """It opens its session with its first table."""
    with open_source(load_settings(), "pg_bronze test") as source:
        assert run_watchdog.end_abandoned_runs(cinema.instance, source, OURS, time.time() + 30) == []


def test_a_run_that_reads_from_another_server_is_not_ended(cinema: Project, started: dg.DagsterRun):
    """The server that is asked cannot know its sessions: a replica, a promoted standby, another one of a balancer."""
    cinema.instance.add_run_tags(started.run_id, {run_watchdog.SERVER_TAG: "1764547200.5"})

    with open_source(load_settings(), "pg_bronze test") as source:
        ended = run_watchdog.end_abandoned_runs(cinema.instance, source, OURS, time.time() + run_watchdog.SILENT_S + 1)

    assert ended == []
    assert status(cinema, started) == dg.DagsterRunStatus.STARTED


def test_a_run_has_the_tag_of_the_server_that_it_reads_from(cinema: Project):
    """One that was requested by a sensor on another server would be ended there during its work."""
    with open_source(load_settings(), "pg_bronze test") as source:
        source.activity()
        here = source.server
    (request,) = cinema.evaluate().run_requests
    runs = [cinema.copy("movie", tags=tags) for tags in ({run_watchdog.SERVER_TAG: "1764547200.5"}, {})]

    assert here
    assert request.tags[run_watchdog.SERVER_TAG] == here
    assert [cinema.instance.get_run_by_id(run.run_id).tags[run_watchdog.SERVER_TAG] for run in runs] == [here, here]


def test_the_server_ends_a_session_whose_client_is_gone_within_a_minute(cinema: Project):
    """The lock of a table would be held for the two hours of the system by a worker whose machine is gone."""
    with open_source(load_settings(), "pg_bronze test") as source:
        names = ("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count", "tcp_user_timeout")
        found = [source.ask(f"show {name}")[0][0] for name in names]

    assert found == ["30", "10", "3", "60000"]


def test_a_run_of_other_assets_is_not_ended(cinema: Project):
    run = create_run_for_test(
        cinema.instance, asset_selection=frozenset([dg.AssetKey("silver")]), status=dg.DagsterRunStatus.STARTED
    )
    with open_source(load_settings(), "pg_bronze test") as source:
        assert run_watchdog.end_abandoned_runs(cinema.instance, source, OURS, time.time() + 1000) == []
    assert status(cinema, run) == dg.DagsterRunStatus.STARTED
