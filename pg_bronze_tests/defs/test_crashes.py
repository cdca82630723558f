"""Crashes at every place of a run, and Dagster's own retries, with the assets and the IO manager that run for users."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import dagster as dg
from dagster._core.definitions.reconstruct import ReconstructableRepository

from pg_bronze.defs import io_managers, resources
from pg_bronze.lake.commit import SliceWriter
from pg_bronze.lake.keys import Layout
from pg_bronze.lake.ledger import Ledger
from pg_bronze.postgres.control_table import Control
from pg_bronze.sync.table_sync import TableSync
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.lake import STEPS, Crash
from pg_bronze_tests.harness.project import Project, key, messages, sentences

# After the IO manager has written and before Dagster has recorded it; then before etl_control is written.
PLACES = (*STEPS, "record", "mirror")
WRITTEN = ("put", "unclaim", "record", "mirror")


def write(project: Project, *tables: str) -> None:
    """New rows, and a new version of one that is there."""
    for table in tables:
        project.database.execute(
            f"insert into {table} select max(id) + i, 'new' from {table}, generate_series(1, 3) i group by i;"
            f"update {table} set title = title || ', changed', updated_at = clock_timestamp() where id = 2"
        )


def made(project: Project, *tables: str) -> Project:
    """These tables, copied, with new rows waiting in each."""
    for table in tables:
        project.database.execute(
            f"create table {table} (id int primary key, title text, updated_at timestamptz default clock_timestamp());"
            f"insert into {table} select i, 'film ' || i from generate_series(1, 5) i"
        )
    project.reload()
    assert project.copy().success
    write(project, *tables)
    return project


@contextmanager
def stepping(project: Project, act: Callable[[str, str], None]) -> Iterator[None]:
    """Inside, ``act`` is called with a table and the name of each step of its commit that is done."""

    def copier(source, store, table, *arguments, **options) -> TableSync:
        return TableSync(source, store, table, *arguments, on_step=functools.partial(act, table.label), **options)

    def writer(ledger, codec) -> SliceWriter:
        return SliceWriter(ledger, codec, functools.partial(act, ledger.layout.label))

    with project.monkeypatch.context() as patch:
        patch.setattr(resources, "TableSync", copier)
        patch.setattr(io_managers, "SliceWriter", writer)
        yield


@contextmanager
def dying(project: Project) -> Iterator[None]:
    """Inside, the copy of the table ``at_…`` dies at that place."""
    storage, mirror = project.instance.event_log_storage, Control.mirror
    store_event = storage.store_event

    def die(table: str, place: str) -> None:
        if table == f"at_{place}":
            raise Crash(place)

    def store(entry) -> None:
        if entry.dagster_event_type == dg.DagsterEventType.ASSET_MATERIALIZATION:
            die(entry.get_dagster_event().asset_key.path[-1], "record")
        store_event(entry)

    def write_row(self, row, before):
        die(row.table, "mirror")
        return mirror(self, row, before)

    with project.monkeypatch.context() as patch, stepping(project, die):
        patch.setattr(storage, "store_event", store)
        patch.setattr(Control, "mirror", write_row)
        yield


def agrees(project: Project, table: str) -> bool:
    """Whether the recorded watermark and etl_control say what the newest object's footer says."""
    footer = Ledger(project.bucket.store(), Layout("", "public", table)).footer(lake.keys(project.bucket, table)[-1])
    assert footer is not None
    query = f"select last_extracted_value from etl_control where table_name = '{table}'"
    return project.watermark(table) == footer.after and project.database.execute(query) == [(footer.after.cursor,)]


def failed(result: dg.ExecuteInProcessResult) -> set[str]:
    """The tables whose step failed."""
    kind = dg.DagsterEventType.STEP_FAILURE
    return {event.step_key.removeprefix("bronze__") for event in result.all_events if event.event_type == kind}


def test_a_copy_that_dies_at_any_place_loses_and_doubles_nothing(project: Project):
    """A table for each place, all in one run: what a death leaves behind is in the bucket alone."""
    tables = [f"at_{place}" for place in PLACES]
    made(project, *tables)

    with dying(project):
        result = project.copy()

    assert failed(result) == set(tables)
    left = {place for place in PLACES if len(lake.keys(project.bucket, f"at_{place}")) == 2}
    assert left == set(WRITTEN), "a copy died at another place than it was to"
    write(project, *tables)
    result = project.copy()
    assert result.success, sentences(result)
    assert {table: lake.compare(project.database, project.bucket, table) for table in tables} == dict.fromkeys(
        tables, lake.SAME
    )
    assert [table for table in tables if not agrees(project, table)] == []


class Planted(Exception):
    """A fault nobody foresaw: only those are retried within their run."""


def test_a_step_that_dagster_retries_goes_on_where_it_failed(project: Project):
    """The retry has the run's connection, its locks and its horizon, and the claim or the object of the first try."""
    made(project, "movie", "person")
    faults = {("movie", "claim"), ("person", "put")}
    # The claimed rows are read after movie 2 was changed once more; that version is beyond the horizon.
    expected = {"movie": [*range(1, 9)], "person": [1, 2, *range(2, 9)]}

    def fail_once(table: str, step: str) -> None:
        if (table, step) in faults:
            faults.remove((table, step))
            write(project, table)  # behind the horizon that the run has kept
            raise Planted(step)

    patient = dg.define_asset_job(
        "patient",
        selection=dg.AssetSelection.assets(key("movie"), key("person")),
        op_retry_policy=dg.RetryPolicy(max_retries=1),
    )
    job = dg.Definitions.merge(project.definitions, dg.Definitions(jobs=[patient])).resolve_job_def("patient")
    today = datetime.now(UTC).date().isoformat()
    with stepping(project, fail_once):
        result = job.execute_in_process(instance=project.instance, partition_key=today, raise_on_error=False)

    assert result.success
    assert faults == set()
    assert sum(event.is_step_up_for_retry for event in result.all_events) == 2
    assert [line for line in messages(project, result) if "edited or deleted" in line] == []
    for table in ("movie", "person"):
        assert lake.ids(project.bucket, table) == expected[table]
        assert agrees(project, table)
    assert project.copy().success
    for table in ("movie", "person"):
        assert lake.compare(project.database, project.bucket, table) == lake.SAME
        assert agrees(project, table)
    assert "failing" not in (project.look().skip_message or "")


def test_a_run_executed_again_from_its_failure_copies_the_failed_table_alone(project: Project):
    """The button "re-execute from failure": another run, which takes nothing over but the partition."""
    made(project, "movie", "person")
    today = datetime.now(UTC).date().isoformat()

    def fail(table: str, step: str) -> None:
        if (table, step) == ("movie", "put"):
            raise Planted(step)

    with stepping(project, fail):
        first = project.definitions.resolve_job_def("bronze").execute_in_process(
            instance=project.instance, partition_key=today, raise_on_error=False
        )
    assert failed(first) == {"movie"}
    assert lake.compare(project.database, project.bucket, "person") == lake.SAME
    write(project, "movie", "person")

    again = dg.execute_job(
        ReconstructableRepository.for_module("pg_bronze.definitions", "defs").get_reconstructable_job("bronze"),
        project.instance,
        tags={"dagster/partition": today},
        reexecution_options=dg.ReexecutionOptions.from_failure(first.run_id, project.instance),
    )

    assert again.success
    assert lake.compare(project.database, project.bucket, "movie") == lake.SAME
    assert agrees(project, "movie")
    assert len(lake.keys(project.bucket, "person")) == 2, "person had been copied"
    assert project.copy().success
    for table in ("movie", "person"):
        assert lake.compare(project.database, project.bucket, table) == lake.SAME
