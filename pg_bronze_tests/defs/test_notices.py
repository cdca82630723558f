"""The checks `drift` and `skipped`: on the assets that they concern, recorded by the sensor, and healing."""

from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest

from pg_bronze_tests.harness.project import Project, key, load_as_worker, settle


@pytest.fixture
def quiet(cinema: Project) -> Project:
    """Both tables are copied, and no table is due."""
    cinema.set(PG_BRONZE_START_DATE=datetime.now(UTC).date().isoformat())
    settle(cinema)
    return cinema


def noticed(project: Project, check: str) -> list[dg.AssetCheckEvaluation]:
    """What the next tick records; it is stored, as the daemon does."""
    events = [event for event in project.evaluate().asset_events if isinstance(event, dg.AssetCheckEvaluation)]
    for event in events:
        project.instance.report_runless_asset_event(event)
    return [event for event in events if event.check_name == check]


def checks_of(definitions: dg.Definitions, name: str) -> set[str]:
    keys = definitions.resolve_asset_graph().asset_check_keys
    return {item.asset_key.path[-1] for item in keys if item.name == name}


def test_an_added_column_warns_on_its_asset_alone_and_heals(quiet: Project, monkeypatch: Any) -> None:
    assert checks_of(quiet.definitions, "drift") == set()
    quiet.database.execute("alter table movie add column seats int")
    quiet.reload()
    assert checks_of(quiet.definitions, "drift") == {"movie"}

    (warned,) = noticed(quiet, "drift")

    assert (warned.asset_key, warned.passed, warned.severity) == (key("movie"), False, dg.AssetCheckSeverity.WARN)
    assert "column 'seats' (integer) was added" in warned.description
    assert "`pg-bronze reset movie`" in warned.description
    assert noticed(quiet, "drift") == []
    quiet.reload()
    assert noticed(quiet, "drift") == [], "a new process reads the last result"
    quiet.set(PG_BRONZE_DRIFT_WARN_H="0.0000001")
    quiet.reload()
    assert [event.passed for event in noticed(quiet, "drift")] == [True]
    quiet.set(PG_BRONZE_DRIFT_WARN_H="0")
    assert checks_of(quiet.reload(), "drift") == set()


def test_the_worker_of_a_run_has_the_checks_of_the_code_server(quiet: Project) -> None:
    """A run of the asset by hand executes its checks: a worker without them would fail it."""
    quiet.database.execute("alter table movie add column seats int")
    quiet.reload()
    assert checks_of(load_as_worker(quiet.state or ""), "drift") == {"movie"}


def test_a_table_that_may_not_be_read_warns_on_its_source_asset_and_a_view_does_not(quiet: Project) -> None:
    quiet.database.execute(
        "create role clerk login password 'clerk'; grant select on movie, person to clerk;"
        "create table vault (id int); create view films as select * from movie; grant create on schema public to clerk"
    )
    try:
        quiet.set(PG_USER="clerk", PG_PASS="clerk")
        quiet.reload()
        (warned,) = noticed(quiet, "skipped")
        assert (warned.asset_key.path[0], warned.asset_key.path[-1], warned.passed) == ("postgres", "vault", False)
        assert 'grant select on "public"."vault" to "clerk"' in warned.description
        assert noticed(quiet, "skipped") == []
        quiet.database.execute("grant select on vault to clerk")
        assert checks_of(quiet.reload(), "skipped") == set()
    finally:
        quiet.database.execute("drop owned by clerk; drop role clerk")
