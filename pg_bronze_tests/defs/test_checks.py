"""Checks: the states of tables as Dagster shows them, recorded when they change and not in every tick."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import dagster as dg
import psycopg
import pytest

from pg_bronze.defs import catalog_state, checks, due_tables, retention
from pg_bronze.defs.sensors import tick
from pg_bronze.scheduling.health import Targets
from pg_bronze.settings.history import HistorySettings
from pg_bronze.settings.load import load_settings
from pg_bronze_tests.e2e.conftest import wait_until
from pg_bronze_tests.harness.project import Project, key, requested, settle


@pytest.fixture
def quiet(cinema: Project) -> Project:
    """Both tables are copied, and no table is due."""
    settle(cinema)
    return cinema


@pytest.fixture(autouse=True)
def _first_day(project: Project) -> None:
    """No earlier day is materialized by the sensor, which would make the results of checks older than that."""
    project.set(PG_BRONZE_START_DATE=datetime.now(UTC).date().isoformat())


@pytest.fixture
def narrow(quiet: Project) -> Iterator[Project]:
    """The same, copied by a role whose rights can be revoked."""
    quiet.database.execute(
        "create role narrow login password 'narrow'; grant select on movie, person to narrow;"
        "grant create on schema public to narrow"
    )
    quiet.set(PG_USER="narrow", PG_PASS="narrow")
    quiet.reload()
    settle(quiet)
    yield quiet
    quiet.database.execute("drop owned by narrow; drop role narrow")


def results(data: Any) -> dict[str, dg.AssetCheckEvaluation]:
    found = [event for event in data.asset_events if isinstance(event, dg.AssetCheckEvaluation)]
    return {event.asset_key.path[-1]: event for event in found}


def record(project: Project, data: Any) -> None:
    """Store what a sensor returned, as the daemon does."""
    for event in data.asset_events:
        project.instance.report_runless_asset_event(event)


def after_counting(project: Project, table: str) -> dict[str, dg.AssetCheckEvaluation]:
    """The first results that contain the table: the server counts rows some time after they are committed."""
    for _ in range(200):
        if table in (found := results(project.evaluate())):
            return found
    raise AssertionError(f"no result for {table}")


def test_a_quiet_table_has_one_result_and_then_none_for_an_hour(cinema: Project) -> None:
    first = results(cinema.evaluate())
    assert set(first) == {"movie", "person"}
    settle(cinema)
    cinema.reload()

    again = cinema.evaluate()

    assert set(results(again)) == {"movie", "person"}, "a new process has no result in the storage"
    assert all(event.passed for event in results(again).values())
    assert results(again)["movie"].description.startswith("Every change before 20")
    record(cinema, again)

    def has_no_result_left() -> bool:
        found = cinema.evaluate()
        record(cinema, found)
        return results(found) == {}

    wait_until(has_no_result_left, "the end of the second of the copies", 10)
    cinema.reload()
    assert results(cinema.evaluate()) == {}, "a new process reads the results of the last one"


def test_rows_behind_an_open_transaction_fail_the_check_and_name_the_session(
    quiet: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a table looked green: nothing is copied, and no run fails."""
    monkeypatch.setattr(due_tables, "targets", lambda settings: Targets(0, 0))
    monkeypatch.setattr(due_tables, "STALLED_AFTER_S", 0.0)
    with psycopg.connect(quiet.database.url, application_name="nightly_report") as holder:
        holder.execute("insert into person values (77, 'open')")
        quiet.database.execute("insert into movie values (77, 'behind', now())")
        failed = after_counting(quiet, "movie")["movie"]
        assert not failed.passed
        assert failed.severity == dg.AssetCheckSeverity.ERROR
        assert "nightly_report" in failed.description
        assert "pg_terminate_backend" in failed.description
        assert failed.metadata[checks.STATE].value == "blocked"
    for _ in range(200):
        data = quiet.evaluate()
        for tables in requested(data):
            assert quiet.copy(*tables).success
        if (found := results(data).get("movie")) and found.passed:
            return
    raise AssertionError("the check did not pass after the transaction ended")


def test_a_table_whose_copy_fails_until_a_person_acts_fails_the_check_at_the_next_tick(narrow: Project) -> None:
    narrow.database.execute("revoke select on movie from narrow; insert into movie values (78, 'new', now())")
    assert not narrow.copy("movie").success

    failed = results(narrow.evaluate())["movie"]

    assert not failed.passed
    assert failed.metadata[checks.STATE].value == "stuck"
    assert "grant select" in failed.description.lower()
    narrow.database.execute("grant select on movie to narrow")
    assert narrow.copy("movie").success
    assert results(narrow.evaluate())["movie"].passed


def test_a_person_can_execute_the_checks_of_some_tables(quiet: Project) -> None:
    job = quiet.definitions.resolve_implicit_global_asset_job_def()
    subset = job.get_subset(asset_selection=set(), asset_check_selection={dg.AssetCheckKey(key("movie"), "up_to_date")})
    result = subset.execute_in_process(instance=quiet.instance)
    (found,) = result.get_asset_check_evaluations()
    assert (found.asset_key, found.passed) == (key("movie"), True)


def test_a_run_of_the_sensor_executes_no_check(cinema: Project) -> None:
    """A step of checks in every tick would cost more than the copy."""
    (request,) = cinema.evaluate().run_requests
    assert request.asset_check_keys == []


def test_of_many_results_the_last_one_of_each_check_stays(cinema: Project) -> None:
    for number in range(5):
        for name in ("up_to_date", "other"):
            cinema.instance.report_runless_asset_event(
                dg.AssetCheckEvaluation(key("movie"), name, passed=True, description=f"number {number}")
            )
    storage = cinema.instance.event_log_storage
    keys = [dg.AssetCheckKey(key("movie"), name) for name in ("up_to_date", "other")]

    retention.prune(cinema.instance, [key("movie")], HistorySettings(), 90_000.0 + _newest(cinema, keys[0]))

    for check in keys:
        records = storage.get_asset_check_execution_history(check, limit=10)
        assert [record.evaluation.description for record in records if record.evaluation] == ["number 4"]


def _newest(project: Project, check: dg.AssetCheckKey) -> float:
    records = project.instance.event_log_storage.get_asset_check_execution_history(check, limit=1)
    return records[0].create_timestamp


def test_a_renamed_table_stays_an_asset_that_fails_its_check_until_it_is_forgotten(quiet: Project) -> None:
    """Its asset disappeared from the UI with its last state, which was green."""
    quiet.database.execute("alter table movie rename to films")
    quiet.reload()

    failed = results(quiet.evaluate())["movie"]

    assert not failed.passed
    assert "renamed to films" in failed.description
    spec = quiet.definitions.resolve_asset_graph().get(key("movie"))
    assert "Not copied any more" in (spec.description or "")
    assert "s3://" in (spec.description or "")
    assert key("films") in quiet.definitions.resolve_asset_graph().get_all_asset_keys()
    catalog_state.forget(load_settings(), "movie")
    quiet.reload()
    assert key("movie") not in quiet.definitions.resolve_asset_graph().get_all_asset_keys()


def test_the_lag_of_a_revoked_table_begins_when_it_was_last_covered(
    narrow: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It began when the catalog sensor noticed it, up to half a minute later, or after days without the project."""
    began = datetime.now(UTC)
    narrow.evaluate()
    narrow.database.execute("insert into movie values (79, 'new', now()); revoke select on movie from narrow")
    later = SimpleNamespace(now=lambda _zone: began + timedelta(hours=2))
    monkeypatch.setattr(catalog_state, "datetime", later)
    narrow.reload()

    monkeypatch.setattr(tick, "datetime", later)
    lag = results(narrow.evaluate())["movie"].metadata[checks.LAG].value

    assert 7200 - 60 <= lag <= 7200 + 60


def test_a_revoked_table_stays_an_asset_that_names_the_right(narrow: Project) -> None:
    narrow.database.execute("revoke select on movie from narrow")
    narrow.reload()

    failed = results(narrow.evaluate())["movie"]

    assert failed.metadata[checks.STATE].value == "not_copied"
    assert "grant select" in failed.description.lower()
    narrow.database.execute("grant select on movie to narrow")
    narrow.reload()
    assert results(narrow.evaluate())["movie"].passed
