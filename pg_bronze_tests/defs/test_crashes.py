"""Crashes at every step of a run, and Dagster's retries, through the assets and the IO manager."""

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

# "record": before Dagster stores the materialization. "mirror": before the control row is written.
PLACES = (*STEPS, "record", "mirror")
WRITTEN = ("put", "unclaim", "record", "mirror")


def write(project: Project, *tables: str) -> None:
    """Insert rows and update one."""
    for table in tables:
        project.database.execute(
            f"insert into {table} select max(id) + i, 'new' from {table}, generate_series(1, 3) i group by i;"
            f"update {table} set title = title || ', changed', updated_at = clock_timestamp() where id = 2"
        )


def made(project: Project, *tables: str) -> Project:
    """Create the tables, copy them, and write new rows to each."""
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
    """Call ``act`` with the table and the name of each completed step of its copy."""

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
    """End the copy of each table ``at_<place>`` at that place."""
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
    """Return whether the recorded watermark and the control row agree with the newest footer."""
    footer = Ledger(project.bucket.store(), Layout("", "public", table)).footer(lake.keys(project.bucket, table)[-1])
    assert footer is not None
    query = f"select last_extracted_value from etl_control where table_name = '{table}'"
    return project.watermark(table) == footer.after and project.database.execute(query) == [(footer.after.cursor,)]


def failed(result: dg.ExecuteInProcessResult) -> set[str]:
    """Return the tables whose step failed."""
    kind = dg.DagsterEventType.STEP_FAILURE
    return {event.step_key.removeprefix("bronze__") for event in result.all_events if event.event_type == kind}


def test_a_crash_at_any_step_neither_loses_nor_duplicates_rows(project: Project):
    """One table for each place, all in one run. The next run finds what a crash left in the bucket."""
    tables = [f"at_{place}" for place in PLACES]
    made(project, *tables)

    with dying(project):
        result = project.copy()

    assert failed(result) == set(tables)
    left = {place for place in PLACES if len(lake.keys(project.bucket, f"at_{place}")) == 2}
    assert left == set(WRITTEN), "a copy crashed at another step than intended"
    write(project, *tables)
    result = project.copy()
    assert result.success, sentences(result)
    assert {table: lake.compare(project.database, project.bucket, table) for table in tables} == dict.fromkeys(
        tables, lake.SAME
    )
    assert [table for table in tables if not agrees(project, table)] == []


class Planted(Exception):
    """An unexpected error: Dagster retries only those within a run."""


def test_a_step_that_dagster_retries_continues_after_its_failure(project: Project):
    """The retry has the connection, locks and horizon of the run, and finds the object of the first attempt."""
    made(project, "movie", "person")
    faults = {("movie", "claim"), ("person", "put")}
    # The claimed rows are read after movie 2 was updated again; that version is above the horizon.
    expected = {"movie": [*range(1, 9)], "person": [1, 2, *range(2, 9)]}

    def fail_once(table: str, step: str) -> None:
        if (table, step) in faults:
            faults.remove((table, step))
            write(project, table)  # above the horizon of the run
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
    assert "failing" not in (project.evaluate().skip_message or "")


def test_a_run_re_executed_from_its_failure_copies_only_the_failed_table(project: Project):
    """The button "Re-execute from failure" starts another run with the same partition."""
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
    assert len(lake.keys(project.bucket, "person")) == 2, "person was copied by the first run"
    assert project.copy().success
    for table in ("movie", "person"):
        assert lake.compare(project.database, project.bucket, table) == lake.SAME
