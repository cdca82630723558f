"""Ticks: which tables the sensor requests, which it does not, and the sentence that it reports."""

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import dagster as dg
import psycopg
import pytest
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.test_utils import create_run_for_test

from pg_bronze.defs import metadata
from pg_bronze.defs.sensors import catalog
from pg_bronze.lake.commit import SliceWriter
from pg_bronze.scheduling.due import COUNTED_LATE_S, Hint
from pg_bronze.scheduling.memory import Memory
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.lake import SAME, Lake
from pg_bronze_tests.harness.project import Project, key, load, requested, sentences
from pg_bronze_tests.harness.repetitions import also


@pytest.fixture
def quiet(cinema: Project) -> Project:
    """Both tables are copied, and no table is due."""
    assert requested(cinema.evaluate()) == [{"movie", "person"}]
    assert cinema.copy().success
    settle(cinema)
    return cinema


def settle(project: Project) -> None:
    """Tick and copy until no table is due. Late counters and autovacuum may make a table due again."""
    for _ in range(5):
        due = requested(project.evaluate())
        if not due:
            return
        for tables in due:
            assert project.copy(*tables).success
    raise AssertionError(f"still due after five ticks: {due}")


def test_the_first_tick_requests_one_run_of_all_tables(cinema: Project):
    """A separate run for each table would cost seconds of CPU each."""
    data = cinema.evaluate()

    assert requested(data) == [{"movie", "person"}]
    (request,) = data.run_requests
    assert request.tags["pg_bronze/batch"] == "tick"
    assert request.tags["tables"] == request.tags["first_load"] == "movie, person"
    assert request.run_key is None, "Dagster never repeats a run key, also after a failed run"


def test_many_due_tables_are_requested_in_as_many_runs_as_there_are_cores(project: Project, monkeypatch):
    """One run copies them one after the other, and 500 small tables took 93 s."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    project.database.execute("".join(f"create table t{number} (id int); " for number in range(51)))
    project.reload()

    groups = requested(project.evaluate())

    assert sorted(map(len, groups)) == [25, 26]
    assert set().union(*groups) == {f"t{number}" for number in range(51)}

    project.set(PG_BRONZE_RUNS="3")
    project.cursor = None
    assert sorted(map(len, requested(project.evaluate()))) == [17, 17, 17]


@pytest.mark.parametrize(
    "status", [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
)
def test_a_table_is_not_requested_while_a_run_copies_it(cinema: Project, status: dg.DagsterRunStatus):
    """The queue of runs would grow by one every ten seconds."""
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "__repository__"), "bronze")
    create_run_for_test(
        cinema.instance, job_name="bronze", asset_selection=frozenset([key("movie")]), status=status,
        remote_job_origin=origin,
    )  # fmt: skip

    data = cinema.evaluate()

    assert requested(data) == [{"person"}]


def test_a_tick_reports_the_tables_that_are_running(cinema: Project):
    create_run_for_test(cinema.instance, job_name="bronze", status=dg.DagsterRunStatus.STARTED)

    data = cinema.evaluate()

    assert requested(data) == []
    assert "2 running" in data.skip_message


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED])
def test_a_failed_or_canceled_run_does_not_block_its_tables(cinema: Project, status: dg.DagsterRunStatus):
    create_run_for_test(
        cinema.instance, job_name="bronze", asset_selection=frozenset([key("movie"), key("person")]), status=status
    )
    cinema.evaluate()

    assert requested(cinema.evaluate()) == [{"movie", "person"}]


def test_a_run_of_another_job_blocks_no_table(cinema: Project):
    create_run_for_test(cinema.instance, job_name="their_own_job", status=dg.DagsterRunStatus.STARTED)

    assert requested(cinema.evaluate()) == [{"movie", "person"}]


def test_ticks_without_new_rows_request_no_run_and_report_what_they_checked(quiet: Project):
    for _ in range(3):
        data = quiet.evaluate()

        assert requested(data) == []
        assert data.skip_message.startswith("2 tables checked up to transaction ")


def test_an_insert_makes_only_its_table_due(quiet: Project):
    quiet.database.execute("insert into person values (4, 'new')")

    assert _due_soon(quiet) == [{"person"}]


def test_the_sensor_says_what_it_does(cinema: Project):
    """A person who sees it for the first time would have to find the documentation."""
    description = cinema.definitions.resolve_sensor_def("bronze_tick").description

    assert description is not None
    assert description.startswith("Every 10 s: compares the change counters of all tables")


def _due_soon(project: Project) -> list[set[str]]:
    """Tick until a table is due: PostgreSQL counts the writes of a session when it ends or is idle."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        due = requested(project.evaluate())
        if due:
            return due
    return []


@pytest.mark.parametrize("table", ["movie", "parted"])
def test_a_rewrite_by_alter_table_makes_its_table_due(quiet: Project, table: str):
    """It changes values of rows and counts none of them: the lake would have the old ones for 15 minutes."""
    quiet.database.execute(
        "create table parted (id int primary key, title text) partition by range (id); "
        "create table part_1 partition of parted for values from (0) to (100); insert into parted values (1, 'a')"
    )
    quiet.reload()
    settle(quiet)

    quiet.database.execute(f"alter table {table} alter title type varchar(99) using title || '!'")
    quiet.reload()

    assert requested(quiet.evaluate()) == [{table}]
    assert quiet.copy(table).success
    assert Lake(quiet.database, quiet.bucket.store()).compare(table, "id") == SAME


def test_an_update_makes_its_table_due(quiet: Project):
    quiet.database.execute("update movie set title = 'changed' where id = 3")

    assert _due_soon(quiet) == [{"movie"}]
    assert quiet.copy("movie").success
    assert lake.compare(quiet.database, quiet.bucket, "movie") == lake.SAME


def _counters(project: Project, table: str) -> tuple[int, ...]:
    return project.database.execute(
        "select pg_stat_get_tuples_inserted(oid), pg_stat_get_tuples_updated(oid), pg_stat_get_tuples_deleted(oid) "
        f"from pg_class where relname = '{table}'"
    )[0]


def _await_count(project: Project, table: str, before: tuple[int, ...]) -> None:
    deadline = time.monotonic() + 10
    while _counters(project, table) == before:
        assert time.monotonic() < deadline, f"the statistics of {table} did not move"


def test_deletes_alone_request_no_run(quiet: Project):
    before = _counters(quiet, "person")
    quiet.database.execute("delete from person where id = 1")
    _await_count(quiet, "person", before)

    data = quiet.evaluate()

    assert requested(data) == []


def test_an_insert_that_was_rolled_back_requests_no_run(quiet: Project):
    before = _counters(quiet, "person")
    with quiet.database.connect(autocommit=False) as connection:
        connection.execute("insert into person values (9, 'never')")
        connection.rollback()
    _await_count(quiet, "person", before)

    data = quiet.evaluate()

    assert requested(data) == []
    assert "2 unchanged" in data.skip_message


def test_an_empty_table_is_requested_only_once(project: Project):
    """Each empty table would cost a run of several CPU seconds every ten seconds."""
    project.database.execute("create table movie (id int)")
    project.reload()
    assert requested(project.evaluate()) == [{"movie"}]
    assert project.copy("movie").success

    settle(project)

    project.database.execute("insert into movie values (1)")
    assert _due_soon(project) == [{"movie"}]


def test_a_reset_cursor_is_harmless(quiet: Project):
    """The UI has a button for it."""
    quiet.cursor = None
    settle(quiet)

    assert lake.ids(quiet.bucket, "movie") == [1, 2, 3, 4, 5]
    quiet.database.execute("insert into movie values (6, 'new', now())")
    assert _due_soon(quiet) == [{"movie"}]


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        '{"hints": {"bronze/movie": {"colour": 1}}, "horizon": 1, "horizon_since": 2}',
        Memory({"0" * 8: Hint()}).to_cursor()[:-60] + '", "horizon": 1, "horizon_since": 2}',
        *also("{}", "[]", "null", '{"hints": [], "horizon": 1, "horizon_since": 2}'),
        *also('{"hints": "bronze/movie", "horizon": 1, "horizon_since": 2}'),
        *also('{"hints": 7, "horizon": 1, "horizon_since": 2}', Memory().to_cursor().replace("0.0", "null")),
    ],
)
def test_an_invalid_cursor_counts_as_empty(cinema: Project, text: str):
    """The cursor can be edited in the UI, and every tick would fail with it."""
    cinema.cursor = text

    assert requested(cinema.evaluate()) == [{"movie", "person"}]


def test_a_cursor_from_the_future_hides_no_row(quiet: Project):
    """The hints of another or a restored cluster may contain transaction ids of the future."""
    memory = Memory.from_cursor(quiet.cursor)
    assert len(memory.hints) == 2
    ahead = {place: dataclasses.replace(hint, quiet_upto=2**40, next_xid=0) for place, hint in memory.hints.items()}
    quiet.cursor = dataclasses.replace(memory, hints=ahead).to_cursor()
    quiet.database.execute("insert into movie values (6, 'new', now())")

    assert _due_soon(quiet) == [{"movie"}]


def test_a_table_whose_watermark_is_ahead_of_the_database_is_due(quiet: Project):
    """After a restore transaction ids are lower. If no table were due, no row would be copied and no run would fail."""
    watermark = quiet.watermark("movie")
    assert watermark is not None
    ahead = {oid: dataclasses.replace(leaf, swept=2**40) for oid, leaf in watermark.leaves.items()}
    quiet.instance.report_runless_asset_event(
        dg.AssetMaterialization(key("movie"), metadata=metadata.of_watermark(watermark.with_leaves(ahead)))
    )

    assert requested(quiet.evaluate()) == [{"movie"}]
    assert list(sentences(quiet.copy("movie"))) == ["bronze__movie"]
    assert lake.ids(quiet.bucket, "movie") == [1, 2, 3, 4, 5]


def test_a_large_first_load_is_a_separate_run(project: Project):
    """Small tables would otherwise wait hours for its end."""
    project.set(PG_BRONZE_SLICE_BYTES="64KiB")
    for statement in (
        "create table large (id int, filler text)",
        "create table small (id int)",
        "insert into large select i, repeat('x', 500) from generate_series(1, 2000) i",
        "insert into small values (1)",
        "vacuum analyze large",
    ):
        project.database.execute(statement)
    project.reload()

    assert sorted(requested(project.evaluate()), key=sorted) == [{"large"}, {"small"}]


def test_an_interrupted_first_load_continues(project: Project):
    """No counter changes for the rest of the window, so the counters alone would never make it due."""
    project.set(PG_BRONZE_SLICE_ROWS="300")
    project.database.execute("create table movie (id int); insert into movie select generate_series(1, 2000)")
    project.reload()
    project.evaluate()
    with project.monkeypatch.context() as patch:
        write, written = SliceWriter.write, []

        def once(self, piece):
            if written:
                raise KeyError("the run ends here")
            written.append(write(self, piece))
            return written[0]

        patch.setattr(SliceWriter, "write", once)
        assert not project.copy("movie").success
    rows = len(lake.ids(project.bucket, "movie"))
    assert 0 < rows < 2000

    settle(project)

    assert lake.ids(project.bucket, "movie") == list(range(1, 2001))


@pytest.fixture
def holder(quiet: Project) -> Iterator[psycopg.Connection]:
    """A session with an open transaction that has written."""
    with quiet.database.connect(autocommit=False, application_name="forgotten window") as connection:
        connection.execute("insert into person values (100, 'open')")
        yield connection
        connection.rollback()


def test_a_stalled_horizon_is_reported_with_the_session_that_holds_it(quiet: Project, holder: psycopg.Connection):
    """New rows are not copied although every tick succeeds, and only this sentence shows why."""
    quiet.database.execute("insert into movie values (6, 'waits', now())")
    quiet.evaluate()
    assert "New rows are blocked" not in (quiet.evaluate().skip_message or "")
    memory = json.loads(quiet.cursor or "")
    quiet.cursor = json.dumps({**memory, "horizon_since": memory["horizon_since"] - 120})

    data = quiet.evaluate()

    assert data.skip_message.startswith(f"New rows are blocked: session {holder.info.backend_pid} of forgotten window")
    assert f"select pg_terminate_backend({holder.info.backend_pid})" in data.skip_message


def test_rows_above_the_horizon_request_no_run(quiet: Project, holder: psycopg.Connection):
    """A forgotten transaction would otherwise cost a useless run of several CPU seconds every ten seconds."""
    before = _counters(quiet, "movie")
    quiet.database.execute("insert into movie values (6, 'waits', now())")
    _await_count(quiet, "movie", before)

    assert [requested(quiet.evaluate()) for _ in range(3)] == [[], [], []]


def test_rows_behind_an_open_transaction_are_copied_after_it_ends(quiet: Project, holder: psycopg.Connection):
    """The counters changed long before the rows could be read, so only the horizon shows that they are not copied."""
    before = _counters(quiet, "movie")
    quiet.database.execute("insert into movie values (6, 'waits', now())")
    _await_count(quiet, "movie", before)
    assert requested(quiet.evaluate()) == []

    holder.commit()

    for tables in _due_soon(quiet):
        assert quiet.copy(*tables).success
    settle(quiet)
    assert lake.ids(quiet.bucket, "movie") == [1, 2, 3, 4, 5, 6]


def test_counters_that_change_long_after_the_rows_make_their_table_due(quiet: Project):
    """A session reports its writes when it is idle or ends, and a busy session is never idle."""
    quiet.advance_clock(COUNTED_LATE_S)
    with quiet.database.connect() as busy:
        busy.execute("begin; insert into person values (4, 'uncounted'); commit; begin")
        quiet.database.execute("insert into movie values (6, 'counted', now())")
        for tables in _due_soon(quiet):
            assert tables == {"movie"}
            assert quiet.copy(*tables).success
    assert _due_soon(quiet) == [{"person"}]

    assert requested(quiet.evaluate()) == [{"person"}], "a request is not a copy"
    assert quiet.copy("person").success

    assert lake.ids(quiet.bucket, "person") == [1, 2, 3, 4]


def test_a_prepared_transaction_that_holds_the_horizon_is_reported(quiet: Project):
    """It survives its session and a restart of the server."""
    quiet.database.execute("begin; insert into person values (7, 'x'); prepare transaction 'left behind'")
    try:
        quiet.evaluate()
        quiet.evaluate()
        memory = json.loads(quiet.cursor or "")
        quiet.cursor = json.dumps({**memory, "horizon_since": memory["horizon_since"] - 120})
        quiet.database.execute("create table noise ()")

        data = quiet.evaluate()

        assert "prepared transaction 'left behind'" in data.skip_message
    finally:
        quiet.database.execute("rollback prepared 'left behind'")


def test_a_lost_connection_fails_one_tick_at_most(quiet: Project):
    quiet.database.execute(
        "select pg_terminate_backend(pid, 10000) from pg_stat_activity where application_name = 'pg_bronze sensor'"
    )
    with contextlib.suppress(Exception):
        quiet.evaluate()

    assert quiet.evaluate().skip_message.startswith("2 tables checked")


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE])
def test_the_tick_reports_the_rows_of_the_last_batch(quiet: Project, status: dg.DagsterRunStatus):
    """A batch in which one table failed has copied the others."""
    result = quiet.copy("movie")
    run_id = create_run_for_test(
        quiet.instance, job_name="bronze", asset_selection=frozenset([key("movie")]),
        status=status,
        tags={"pg_bronze/batch": "tick", "rows": "12345"},
    ).run_id  # fmt: skip
    assert run_id != result.run_id

    assert "; last batch 12,345 rows" in quiet.evaluate().skip_message

    create_run_for_test(
        quiet.instance, "bronze_shop", status=dg.DagsterRunStatus.SUCCESS,
        tags={"pg_bronze/batch": "tick", "pg_bronze/source": "shop", "rows": "9"},
    )  # fmt: skip
    assert "; last batch 12,345 rows" in quiet.evaluate().skip_message, "that of a source with a name"


def test_a_table_that_was_dropped_and_created_again_is_due(quiet: Project):
    quiet.database.execute("drop table person; create table person (id int primary key, name text)")
    quiet.database.execute("insert into person values (1, 'another')")

    assert _due_soon(quiet) == [{"person"}]


@pytest.fixture
def reloads(cinema: Project) -> list[object]:
    made: list[object] = []
    cinema.monkeypatch.setattr(catalog, "reload", made.append)
    return made


def test_an_unchanged_catalog_requests_no_reload(cinema: Project, reloads: list[object]):
    cinema.copy()
    cinema.database.execute("insert into movie select i, 'x' from generate_series(10, 1000) i")
    cinema.database.execute("vacuum analyze movie")

    data = cinema.evaluate("bronze_catalog")

    assert reloads == []
    assert data.skip_message == "The catalog is unchanged."


@pytest.mark.parametrize(
    "change",
    [
        "create table award (id int)",
        "drop table person",
        "alter table movie add column year int",
        "alter table movie rename column title to name",
        "comment on column movie.id is 'key'",
    ],
)
def test_a_changed_catalog_is_reloaded_once(cinema: Project, reloads: list[object], change: str):
    """A table that cannot be loaded would otherwise reload the location every 15 s and interrupt ticks."""
    cinema.database.execute(change)

    cinema.evaluate("bronze_catalog")
    cinema.evaluate("bronze_catalog")
    assert len(reloads) == 1

    cinema.definitions = load()
    assert cinema.evaluate("bronze_catalog").skip_message == "The catalog is unchanged."
    cinema.database.execute("create table later (id int)")
    cinema.evaluate("bronze_catalog")
    assert len(reloads) == 2


def test_a_reload_while_the_database_was_down_is_repeated_when_it_is_up(cinema: Project, reloads: list[object]):
    """The definitions are those of before the new table, and nothing would load them again."""
    cinema.database.execute("create table award (id int)")
    cinema.evaluate("bronze_catalog")
    with cinema.monkeypatch.context() as patch:
        patch.setenv("PG_PORT", "1")
        cinema.reload()
    assert len(reloads) == 1

    cinema.evaluate("bronze_catalog")
    assert len(reloads) == 1
    later = datetime.now(UTC) + timedelta(seconds=31)
    cinema.monkeypatch.setattr(catalog, "datetime", SimpleNamespace(now=lambda _zone: later, fromtimestamp=None))
    cinema.evaluate("bronze_catalog")
    assert len(reloads) == 2


def test_a_reload_without_effect_is_reported_with_the_time_of_the_next_one(cinema: Project, reloads: list[object]):
    cinema.database.execute("create table award (id int)")
    cinema.evaluate("bronze_catalog")

    sentence = cinema.evaluate("bronze_catalog").skip_message

    assert sentence.startswith("The catalog changed. Reloads of the definitions without effect so far: 1. The next one")


def test_a_tick_writes_no_log_file(cinema: Project):
    """A file for each tick is 8,640 files a day."""
    cinema.monkeypatch.setattr(
        dg.SensorEvaluationContext, "log", property(lambda _self: pytest.fail("the first access creates the file"))
    )

    assert requested(cinema.evaluate()) == [{"movie", "person"}]


def test_a_tick_that_requests_runs_logs_failing_tables_once_in_ten_minutes(cinema: Project):
    """Dagster shows no sentence for it, and with busy tables every tick is one."""
    lines = cinema.warnings_of_a_failing_table()

    for _ in range(2):
        cinema.database.execute("insert into person select max(id) + 1, 'new' from person")
        assert any("person" in tables for tables in requested(cinema.evaluate()))

    (line,) = lines
    assert "movie" in line


def test_a_dropped_table_is_not_due_and_has_no_asset_after_the_reload(quiet: Project):
    quiet.database.execute("drop table person")

    assert requested(quiet.evaluate()) == []

    graph = quiet.reload().resolve_asset_graph()
    assert graph.executable_asset_keys == {key("movie")}


def test_a_new_table_is_due_after_the_reload(quiet: Project):
    quiet.database.execute("create table award (id int); insert into award values (1)")
    quiet.reload()

    assert _due_soon(quiet) == [{"award"}]
