"""`pg-bronze status`: three situations in which no rows are copied are named, and a quiet table is not one of them."""

import contextlib
import json
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner, Result

from pg_bronze.cli import status
from pg_bronze.cli.app import app
from pg_bronze_tests.harness.project import Project


@pytest.fixture
def shared(cinema: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose tables are copied, and whose Dagster instance the command uses too."""
    monkeypatch.setattr(status, "open_instance", lambda: contextlib.nullcontext(cinema.instance))
    cinema.copy("movie", "person")
    return cinema


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["status", *arguments])


def of(table: str) -> dict[str, Any]:
    document = json.loads(run("--json").stdout)
    return next(item for item in document["tables"] if item["table"] == table)


def until(table: str, state: str) -> dict[str, Any]:
    """The table when it has the state: the server counts rows some time after they are committed."""
    for _ in range(200):
        if (found := of(table))["state"] == state:
            return found
    raise AssertionError(f"{table} is {found['state']}: {found['sentence']}")


def test_a_copied_table_has_no_lag_and_the_exit_status_is_0(shared: Project) -> None:
    shared.evaluate()
    result = run()
    assert result.exit_code == 0, result.output
    heading, *_ = result.stdout.splitlines()
    assert heading.split("  ")[0] == "table"
    assert [line.split()[:3] for line in result.stdout.splitlines() if line.startswith("movie")] == [
        ["movie", "up", "to"]
    ]
    assert of("movie")["severity"] == "ok"
    assert "%" not in result.stdout, "the last part of a first load recorded that all of it is done"


def test_rows_behind_an_open_transaction_are_blocked_and_its_session_is_named(shared: Project) -> None:
    shared.evaluate()
    with psycopg.connect(shared.database.url, application_name="nightly_report") as holder:
        holder.execute("insert into person values (77, 'open')")
        shared.database.execute("insert into movie values (77, 'late', now())")
        blocked = until("movie", "blocked")
        assert blocked["lag_s"] > 0
    assert until("movie", "up_to_date")["lag_s"] >= 0


def test_a_failing_table_is_stuck_until_it_is_fixed(shared: Project) -> None:
    shared.database.execute("insert into movie values (78, 'new', '294000-01-01')")
    assert not shared.copy("movie").success
    found = of("movie")
    assert (found["state"], found["severity"]) == ("stuck", "error")
    assert found["failure"]["retry"] in ("after_fix", "never")
    assert found["next_retry"]
    assert run().exit_code == 1
    assert "movie failing since" in run().stdout


def test_a_renamed_table_is_listed_with_its_new_name(shared: Project) -> None:
    shared.database.execute("alter table movie rename to films")
    found = of("movie")
    assert (found["state"], found["severity"]) == ("not_copied", "error")
    assert "renamed to films" in found["sentence"]
