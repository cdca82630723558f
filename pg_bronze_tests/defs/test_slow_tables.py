"""A slow or locked table does not hold up the other tables of its tick."""

import time
from collections.abc import Iterator

import dagster as dg
import psycopg
import pytest

from pg_bronze.defs import metadata
from pg_bronze.lake.commit import SliceWriter
from pg_bronze.postgres.connection import Source
from pg_bronze.postgres.readers.binary_copy import CopyReader
from pg_bronze.scheduling import batches
from pg_bronze.sync.slice_source import SliceSource
from pg_bronze.sync.slice_stream import SliceStream
from pg_bronze_tests.harness.lake import SAME, Lake
from pg_bronze_tests.harness.project import Project, key, messages, requested, settle, values

TABLES = ["movie", "person"]


@pytest.fixture
def copied(cinema: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Both tables are copied. A run of several tables waits 50 ms for a lock."""
    settle(cinema)
    monkeypatch.setattr(batches, "LOCK_WAIT_S", 0.05)
    cinema.database.execute("insert into movie values (6, 'new', now()); insert into person values (4, 'new')")
    return cinema


@pytest.fixture
def other(copied: Project) -> Iterator[psycopg.Connection]:
    with copied.database.connect(autocommit=False) as connection:
        yield connection
        connection.rollback()


def due(project: Project, *tables: str):
    """Tick until all of these tables are due: PostgreSQL counts the writes of a session when it has ended."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        data = project.evaluate()
        if set(tables or TABLES) <= {table for group in requested(data) for table in group}:
            return data
    raise AssertionError(f"not due: {tables or TABLES}")


def run(project: Project, data) -> list[dg.ExecuteInProcessResult]:
    """Execute the runs that a tick requested, each with its tags."""
    return [
        project.copy(*[".".join(item.path[1:]) for item in request.asset_selection], tags=dict(request.tags))
        for request in data.run_requests
    ]


def slow(data) -> list[bool]:
    """Return of each requested run whether it is one of slow tables."""
    return [metadata.SLOW_TAG in request.tags for request in data.run_requests]


def compared(project: Project, *tables: str) -> list:
    lake = Lake(project.database, project.bucket.store())
    return [lake.compare(table, "id") for table in tables or TABLES]


def test_a_locked_table_is_left_to_a_run_of_its_own(copied: Project, other: psycopg.Connection):
    """ALTER TABLE of an hour would otherwise hold up every table of the same run for the statement timeout."""
    data = due(copied)
    other.execute("lock table movie in access exclusive mode")

    (result,) = run(copied, data)

    assert result.success
    assert "another session holds or waits for a lock" in "".join(messages(copied, result))
    assert compared(copied, "person") == [SAME]
    again = due(copied, "movie")
    assert requested(again) == [{"movie"}]
    assert slow(again) == [True]
    other.rollback()
    assert all(result.success for result in run(copied, again))
    assert compared(copied) == [SAME, SAME]


def test_a_table_that_is_locked_between_its_slices_keeps_what_is_committed(
    copied: Project, other: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
):
    copied.set(PG_BRONZE_SLICE_ROWS="100")
    copied.database.execute("insert into movie select i, 'many', now() from generate_series(100, 1000) i")
    read, reads = SliceSource._read, []

    def then_locked(self, *arguments):
        if reads:
            other.execute("lock table movie in access exclusive mode")
        reads.append(arguments)
        return read(self, *arguments)

    monkeypatch.setattr(SliceSource, "_read", then_locked)

    assert all(result.success for result in run(copied, due(copied)))

    assert compared(copied, "person") == [SAME]
    monkeypatch.setattr(SliceSource, "_read", read)
    other.rollback()
    settle(copied)
    assert compared(copied) == [SAME, SAME]


def test_a_table_with_much_to_copy_is_continued_in_a_run_of_its_own(copied: Project, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batches, "SHARE_S", 0.0)
    copied.set(PG_BRONZE_SLICE_ROWS="100")
    copied.database.execute("insert into movie select i, 'many', now() from generate_series(100, 1000) i")

    assert all(result.success for result in run(copied, due(copied)))
    monkeypatch.setattr(batches, "SLOW_AFTER_S", 0.0)

    assert "objects" not in values(copied.latest("movie"))["pg_bronze/copied_up_to"]
    assert compared(copied, "person") == [SAME]
    again = due(copied, "movie")
    assert requested(again) == [{"movie"}]
    assert slow(again) == [True]
    run(copied, again)
    assert compared(copied) == [SAME, SAME]


def test_a_table_that_was_slow_once_returns_to_the_others(copied: Project):
    """One slow copy would otherwise cost a run in every later tick."""
    entries = metadata.of_watermark(copied.watermark("movie")) | metadata.of_duration(batches.SLOW_AFTER_S + 1)
    copied.instance.report_runless_asset_event(dg.AssetMaterialization(key("movie"), metadata=entries))

    first = due(copied)
    assert requested(first) == [{"person"}, {"movie"}]
    run(copied, first)
    copied.database.execute("insert into movie values (7, 'newer', now()); insert into person values (5, 'newer')")

    assert requested(due(copied)) == [set(TABLES)]


def test_a_table_whose_failure_took_long_is_retried_apart_from_the_others(
    copied: Project, monkeypatch: pytest.MonkeyPatch
):
    """A read that is canceled after ten minutes would otherwise hold up the others at each retry."""
    monkeypatch.setattr(batches, "SLOW_AFTER_S", -1.0)
    with monkeypatch.context() as patch:
        patch.setattr(SliceWriter, "write", lambda *_: 1 / 0)
        run(copied, due(copied))
    copied.set(PG_BRONZE_SLICE_ROWS="1000")  # other settings: failing tables are retried at once

    assert slow(due(copied)) == [True, True]


@pytest.mark.parametrize("reader", ["connectorx", "copy"])
def test_a_lock_that_ends_while_the_reason_is_sought_fails_no_table(
    copied: Project, other: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, reader: str
):
    """connectorx reports no reason, so its read is repeated; the table would fail as one whose read was interrupted."""
    copied.set(PG_BRONZE_READER=reader)
    read, again = SliceSource._read, CopyReader.read

    def locked(self, *arguments):
        other.execute("lock table movie in access exclusive mode")
        return read(self, *arguments)

    def released(self, *arguments):
        if reader == "connectorx":
            other.rollback()
        return again(self, *arguments)

    monkeypatch.setattr(CopyReader, "read", released)
    data = due(copied)
    with monkeypatch.context() as patch:
        patch.setattr(
            SliceSource, "_read", lambda self, *rest: (locked if self.table.name == "movie" else read)(self, *rest)
        )
        assert all(result.success for result in run(copied, data))
    other.rollback()
    settle(copied)
    assert compared(copied) == [SAME, SAME]


def test_a_table_that_is_locked_during_a_recovery_is_left_to_a_later_tick(
    copied: Project, other: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
):
    outdated = copied.watermark("movie")
    Lake(copied.database, copied.bucket.store(), {"movie": outdated}).tick("movie")
    copied.database.execute("insert into movie values (7, 'newer', now())")
    recover = SliceStream._recover

    def locked(self):
        other.execute("lock table movie in access exclusive mode")
        return recover(self)

    data = due(copied)
    with monkeypatch.context() as patch:
        patch.setattr(SliceStream, "_recover", locked)
        assert all(result.success for result in run(copied, data))
    other.rollback()
    settle(copied)
    assert compared(copied) == [SAME, SAME]


def test_a_locked_table_that_was_copied_lately_and_not_written_to_since_needs_no_run(
    copied: Project, other: psycopg.Connection
):
    """It is asked for rows that the server has not counted, and a run would wait for the lock in vain."""
    settle(copied)
    copied.database.execute("create table noise ()")
    other.execute("lock table person in access exclusive mode")

    assert [requested(copied.evaluate()) for _ in range(3)] == [[], [], []]


def test_a_tick_waits_for_many_locked_tables_once(copied: Project, other: psycopg.Connection, monkeypatch):
    """A tick with 300 of them would take a minute, and then Dagster ends it."""
    names = [f"t{number}" for number in range(30)]
    copied.database.execute("; ".join(f"create table {name} (id int primary key)" for name in names))
    copied.reload()
    settle(copied)
    copied.database.execute("; ".join(f"insert into {name} values (1)" for name in names))
    for name in names[:20]:
        other.execute(f"lock table {name} in access exclusive mode".encode())
    due(copied, *names)
    asked, ask = [], Source.ask
    monkeypatch.setattr(Source, "ask", lambda self, query, *rest: asked.append(query) or ask(self, query, *rest))

    data = copied.evaluate()

    assert {table for group in requested(data) for table in group} == set(names)
    assert sum(query.startswith("select 0, (") for query in asked) == 2
    assert sum("relation::bigint from pg_locks" in query for query in asked) == 1
