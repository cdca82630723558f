"""Runs whose worker is gone: ended soon, so that their tables are copied again; never one that still works."""

import time

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from pg_bronze.defs import run_watchdog
from pg_bronze.defs.resources import open_source
from pg_bronze.settings.load import load_settings
from pg_bronze_tests.harness.project import Project, asked, key

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


def test_a_run_without_session_and_event_is_ended_and_its_table_is_due_again(cinema: Project, started: dg.DagsterRun):
    """A worker killed with its machine would otherwise block its tables until the longest run time has passed."""
    with open_source(load_settings(), "pg_bronze test") as source:
        ended = run_watchdog.end(cinema.instance, source, OURS, time.time() + run_watchdog.SILENT_S + 1)

    assert ended == [started.run_id]
    assert status(cinema, started) == dg.DagsterRunStatus.FAILURE
    assert {"movie"} <= set().union(*asked(cinema.look()))


def test_a_run_holds_a_session_under_the_name_that_is_looked_for(cinema: Project, monkeypatch: pytest.MonkeyPatch):
    """Were the two names different, every long run would be ended while it works."""
    seen = []
    looked = run_watchdog.session_name
    monkeypatch.setattr(run_watchdog, "session_name", lambda run_id: seen.append(run_id) or looked(run_id))

    run = cinema.copy("movie")

    assert seen == [run.run_id]


def test_a_run_that_reads_for_minutes_without_an_event_is_left_alone(cinema: Project, started: dg.DagsterRun):
    """Its session is there: ending it would start a second copy of the same table beside it."""
    settings = load_settings()
    with open_source(settings, run_watchdog.session_name(started.run_id)) as worker:
        worker.ask("select 1")
        with open_source(settings, "pg_bronze test") as source:
            ended = run_watchdog.end(cinema.instance, source, OURS, time.time() + run_watchdog.SILENT_S + 1)

    assert ended == []
    assert status(cinema, started) == dg.DagsterRunStatus.STARTED


def test_a_run_that_has_just_begun_is_left_alone(cinema: Project, started: dg.DagsterRun):
    """It opens its session only with its first table."""
    with open_source(load_settings(), "pg_bronze test") as source:
        assert run_watchdog.end(cinema.instance, source, OURS, time.time() + 30) == []


def test_a_run_of_other_assets_is_none_of_ours(cinema: Project):
    run = create_run_for_test(
        cinema.instance, asset_selection=frozenset([dg.AssetKey("silver")]), status=dg.DagsterRunStatus.STARTED
    )
    with open_source(load_settings(), "pg_bronze test") as source:
        assert run_watchdog.end(cinema.instance, source, OURS, time.time() + 1000) == []
    assert status(cinema, run) == dg.DagsterRunStatus.STARTED
