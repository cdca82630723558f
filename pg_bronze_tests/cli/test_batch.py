"""Batches of `pg-bronze run`: the tables that the sensor would request, with the retry state that the sensor uses."""

import contextlib
import time
from collections.abc import Callable

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from pg_bronze.cli import batch
from pg_bronze.cli.batch import Batches, run_batch
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.project import Project, key, requested

TICK = {"pg_bronze/batch": "tick"}
STRAY = "movie/movie_stray.parquet"


@pytest.fixture
def shared(cinema: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose Dagster instance the commands use too."""
    monkeypatch.setattr(batch, "open_instance", lambda: contextlib.nullcontext(cinema.instance))
    return cinema


@pytest.fixture
def batches() -> Batches:
    return Batches(unattended=True)


def copied_by(project: Project, act: Callable[[], object]) -> list[set[str]]:
    """The tables of each run that ``act`` starts."""
    before = {record.dagster_run.run_id for record in project.instance.get_run_records()}
    act()
    runs = [record.dagster_run for record in project.instance.get_run_records()]
    return [{item.path[-1] for item in run.asset_selection or ()} for run in runs if run.run_id not in before]


def tick(project: Project) -> None:
    for tables in requested(project.evaluate()):
        project.copy(*tables, tags=TICK)


def failures_in_a_row(project: Project, table: str) -> list[int]:
    """The count in each observation of a failure, newest first."""
    records = project.instance.fetch_observations(key(table), limit=20).records
    entries = [record.event_log_entry.asset_observation.metadata for record in records]
    return [found["pg_bronze/failures_in_a_row"].value for found in entries if "pg_bronze/failures_in_a_row" in found]


def settle(batches: Batches, project: Project) -> None:
    """Run batches until one starts no run: the statistics of PostgreSQL may arrive late."""
    for _ in range(8):
        if not copied_by(project, lambda: run_batch([], batches)):
            return
    raise AssertionError("every batch starts a run")


def test_an_unchanged_table_costs_no_run(shared: Project, batches: Batches, capsys: pytest.CaptureFixture[str]):
    """A run of all tables every ten seconds would take most of a core, with nothing to copy."""
    assert copied_by(shared, lambda: run_batch([], batches)) == [{"movie", "person"}]
    settle(batches, shared)
    shared.database.execute("insert into person values (4, 'new')")

    started: list[set[str]] = []
    deadline = time.monotonic() + 20
    while 4 not in lake.ids(shared.bucket, "person") and time.monotonic() < deadline:
        started += copied_by(shared, lambda: run_batch([], batches))

    assert started == [{"person"}]
    settle(batches, shared)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("2 tables checked up to transaction ")
    assert ": 2 unchanged. The last batch copied 1 row" in last


def test_a_table_that_a_run_is_copying_is_not_copied_beside_it(shared: Project, batches: Batches):
    """The batch would wait for the claim of the other run, or read the same rows for nothing."""
    create_run_for_test(
        shared.instance,
        job_name="bronze",
        asset_selection=frozenset([key("movie")]),
        status=dg.DagsterRunStatus.STARTED,
    )

    assert copied_by(shared, lambda: run_batch([], batches)) == [{"person"}]


def test_a_batch_does_not_try_a_table_right_after_it_failed_in_a_run_of_the_sensor(
    shared: Project, batches: Batches, capsys: pytest.CaptureFixture[str]
):
    """Sensor and command would otherwise fail in turn, twice as often as each of them is allowed to."""
    shared.bucket.store().create(STRAY, b"")
    tick(shared)
    assert failures_in_a_row(shared, "movie") == [1]
    shared.database.execute("insert into person values (4, 'new')")

    started = copied_by(shared, lambda: run_batch([], batches))

    assert not any("movie" in tables for tables in started)
    assert failures_in_a_row(shared, "movie") == [1]
    assert f"{STRAY}" in next(line for line in capsys.readouterr().out.splitlines() if line.startswith("pg-bronze: "))


def test_the_sensor_does_not_request_a_table_right_after_it_failed_in_a_batch(shared: Project, batches: Batches):
    shared.bucket.store().create(STRAY, b"")
    assert not run_batch([], batches)
    assert failures_in_a_row(shared, "movie") == [1]

    data = shared.evaluate()

    assert not any("movie" in tables for tables in requested(data))
    while requested(data):
        shared.copy("person", tags=TICK)
        data = shared.evaluate()
    assert "1 failing" in data.skip_message
    assert STRAY in data.skip_message
    assert failures_in_a_row(shared, "movie") == [1]


def test_a_batch_and_the_sensor_retry_a_table_as_soon_as_a_setting_changes(shared: Project, batches: Batches):
    """The person who mends a setting looks at the next batch for the result."""
    shared.bucket.store().create(STRAY, b"")
    tick(shared)
    shared.bucket.store().delete(STRAY)
    shared.set(PG_BRONZE_COMPRESSION="snappy")

    assert run_batch([], batches)

    assert lake.ids(shared.bucket, "movie") == [1, 2, 3, 4, 5]


def test_a_batch_of_tick_copies_every_table_and_tries_a_failing_one(shared: Project):
    """A person who calls it expects an attempt, whatever the pauses of the sensor are."""
    shared.bucket.store().create(STRAY, b"")
    tick(shared)

    started = copied_by(shared, lambda: run_batch([], Batches()))

    assert started == [{"movie", "person"}]
    assert failures_in_a_row(shared, "movie") == [1, 1], "an attempt by a person starts the pauses again"
