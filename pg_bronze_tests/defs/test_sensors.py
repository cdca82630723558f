"""Ticks: which tables a sensor asks a run for, which it leaves alone, and what it says about it."""

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator

import dagster as dg
import psycopg
import pytest
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.test_utils import create_run_for_test

from pg_bronze.defs import metadata
from pg_bronze.defs.sensors import catalog
from pg_bronze.lake.commit import SliceWriter
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.project import Project, asked, key, load, sentences


@pytest.fixture
def quiet(cinema: Project) -> Project:
    """Both tables copied, and the sensor has seen it."""
    assert asked(cinema.look()) == [{"movie", "person"}]
    assert cinema.copy().success
    settle(cinema)
    return cinema


def settle(project: Project) -> None:
    """Tick and copy until nothing is due: counters and autovacuum may make a table due once more."""
    for _ in range(5):
        due = asked(project.look())
        if not due:
            return
        for tables in due:
            assert project.copy(*tables).success
    raise AssertionError(f"still due after five ticks: {due}")


def test_the_first_tick_asks_for_all_tables_in_one_run(cinema: Project):
    """A run of its own for each table costs seconds of CPU each."""
    data = cinema.look()

    assert asked(data) == [{"movie", "person"}]
    (request,) = data.run_requests
    assert request.tags["pg_bronze/batch"] == "tick"
    assert request.run_key is None, "a key is remembered for ever, also of a run that failed"


@pytest.mark.parametrize(
    "status", [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
)
def test_a_table_in_flight_is_not_asked_for_again(cinema: Project, status: dg.DagsterRunStatus):
    """Runs would queue up behind each other, one more every ten seconds."""
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "__repository__"), "bronze")
    create_run_for_test(
        cinema.instance, job_name="bronze", asset_selection=frozenset([key("movie")]), status=status,
        remote_job_origin=origin,
    )  # fmt: skip

    data = cinema.look()

    assert asked(data) == [{"person"}]


def test_with_everything_in_flight_the_tick_says_so(cinema: Project):
    create_run_for_test(cinema.instance, job_name="bronze", status=dg.DagsterRunStatus.STARTED)

    data = cinema.look()

    assert asked(data) == []
    assert "2 running" in data.skip_message


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED])
def test_a_run_that_ended_badly_does_not_block_its_tables(cinema: Project, status: dg.DagsterRunStatus):
    create_run_for_test(
        cinema.instance, job_name="bronze", asset_selection=frozenset([key("movie"), key("person")]), status=status
    )
    cinema.look()

    assert asked(cinema.look()) == [{"movie", "person"}]


def test_another_users_run_blocks_nothing(cinema: Project):
    create_run_for_test(cinema.instance, job_name="their_own_job", status=dg.DagsterRunStatus.STARTED)

    assert asked(cinema.look()) == [{"movie", "person"}]


def test_quiet_ticks_cost_no_run_and_say_what_they_looked_at(quiet: Project):
    for _ in range(3):
        data = quiet.look()

        assert asked(data) == []
        assert data.skip_message.startswith("2 tables checked up to transaction ")


def test_an_insert_makes_exactly_its_table_due(quiet: Project):
    quiet.database.execute("insert into person values (4, 'new')")

    assert _due_soon(quiet) == [{"person"}]


def _due_soon(project: Project) -> list[set[str]]:
    """PostgreSQL counts what a session wrote when that session ends or is idle: look until it has."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        due = asked(project.look())
        if due:
            return due
    return []


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


def test_deletes_alone_cost_no_run(quiet: Project):
    before = _counters(quiet, "person")
    quiet.database.execute("delete from person where id = 1")
    _await_count(quiet, "person", before)

    data = quiet.look()

    assert asked(data) == []


def test_an_insert_that_was_rolled_back_costs_no_run(quiet: Project):
    before = _counters(quiet, "person")
    with quiet.database.connect(autocommit=False) as connection:
        connection.execute("insert into person values (9, 'never')")
        connection.rollback()
    _await_count(quiet, "person", before)

    data = quiet.look()

    assert asked(data) == []
    assert "2 unchanged" in data.skip_message


def test_an_empty_table_costs_one_run_and_no_more(project: Project):
    """Every database has some; each would be a run of several CPU seconds every ten seconds."""
    project.database.execute("create table movie (id int)")
    project.reload()
    assert asked(project.look()) == [{"movie"}]
    assert project.copy("movie").success

    settle(project)

    project.database.execute("insert into movie values (1)")
    assert _due_soon(project) == [{"movie"}]


def test_a_reset_cursor_is_harmless(quiet: Project):
    """Somebody will press the button in the UI."""
    quiet.cursor = None
    settle(quiet)

    assert lake.ids(quiet.bucket, "movie") == [1, 2, 3, 4, 5]
    quiet.database.execute("insert into movie values (6, 'new', now())")
    assert _due_soon(quiet) == [{"movie"}]


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "{}",
        "[]",
        "null",
        '{"hints": [], "horizon": 1, "horizon_since": 2}',
        '{"hints": {"bronze/movie": {"colour": 1}}, "horizon": 1, "horizon_since": 2}',
        '{"hints": {"bronze/movie": 7}, "horizon": 1, "horizon_since": 2}',
        '{"hints": {}, "horizon": "x", "horizon_since": null}',
        '{"hints": {"bronze/movie": {"next_xid": "a", "quiet_upto": null}}, "horizon": 1, "horizon_since": 2}',
    ],
)
def test_a_cursor_that_cannot_be_read_counts_as_none(cinema: Project, text: str):
    """The UI lets people type one; a tick that fails on it fails for ever."""
    cinema.cursor = text

    assert asked(cinema.look()) == [{"movie", "person"}]


def test_a_cursor_from_the_future_hides_no_row(quiet: Project):
    """Hints of a restored or other cluster may claim transactions that are yet to come."""
    memory = json.loads(quiet.cursor or "")
    for hint in memory["hints"].values():
        hint["quiet_upto"] = 2**40
        hint["next_xid"] = 0
    quiet.cursor = json.dumps(memory)
    quiet.database.execute("insert into movie values (6, 'new', now())")

    assert _due_soon(quiet) == [{"movie"}]


def test_a_database_behind_its_watermark_is_due_so_that_somebody_hears_of_it(quiet: Project):
    """After a restore ids begin again lower down: with no table due, every tick would be green and no row be copied."""
    watermark = quiet.watermark("movie")
    assert watermark is not None
    ahead = {oid: dataclasses.replace(leaf, swept=2**40) for oid, leaf in watermark.leaves.items()}
    quiet.instance.report_runless_asset_event(
        dg.AssetMaterialization(key("movie"), metadata=metadata.of_watermark(watermark.with_leaves(ahead)))
    )

    assert asked(quiet.look()) == [{"movie"}]
    said = sentences(quiet.copy("movie"))
    assert list(said) == ["bronze__movie"]
    assert lake.ids(quiet.bucket, "movie") == [1, 2, 3, 4, 5]


def test_a_large_first_load_gets_a_run_of_its_own(project: Project):
    """Small tables would otherwise wait for its end, which may be hours."""
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

    assert sorted(asked(project.look()), key=sorted) == [{"large"}, {"small"}]


def test_a_first_load_that_was_cut_short_goes_on(project: Project):
    """A run that was ended leaves a window half read; no counter will ever move for the rest of it."""
    project.set(PG_BRONZE_SLICE_ROWS="300")
    project.database.execute("create table movie (id int); insert into movie select generate_series(1, 2000)")
    project.reload()
    project.look()
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


def test_a_stall_names_who_holds_the_horizon(quiet: Project, holder: psycopg.Connection):
    """Rows that do not arrive, with every tick green: the one thing that has to be said."""
    quiet.database.execute("insert into movie values (6, 'waits', now())")
    quiet.look()
    assert "Rows written since wait" not in (quiet.look().skip_message or "")
    memory = json.loads(quiet.cursor or "")
    quiet.cursor = json.dumps({**memory, "horizon_since": memory["horizon_since"] - 120})

    data = quiet.look()

    assert f"session {holder.info.backend_pid} of forgotten window" in data.skip_message
    assert f"select pg_terminate_backend({holder.info.backend_pid})" in data.skip_message


def test_rows_that_cannot_be_read_yet_cost_no_run(quiet: Project, holder: psycopg.Connection):
    """A forgotten transaction would otherwise mean a run of several CPU seconds every ten seconds, all for nothing."""
    before = _counters(quiet, "movie")
    quiet.database.execute("insert into movie values (6, 'waits', now())")
    _await_count(quiet, "movie", before)

    assert [asked(quiet.look()) for _ in range(3)] == [[], [], []]


def test_what_waited_behind_an_open_transaction_is_copied_once_it_ends(quiet: Project, holder: psycopg.Connection):
    """Its counters stood still long before it could be read, so nothing but the horizon shows that it is not copied."""
    before = _counters(quiet, "movie")
    quiet.database.execute("insert into movie values (6, 'waits', now())")
    _await_count(quiet, "movie", before)
    assert asked(quiet.look()) == []

    holder.commit()

    for tables in _due_soon(quiet):
        assert quiet.copy(*tables).success
    settle(quiet)
    assert lake.ids(quiet.bucket, "movie") == [1, 2, 3, 4, 5, 6]


def test_counters_that_come_long_after_the_rows_make_their_table_due(quiet: Project):
    """A session counts what it wrote when it is idle or ends, and one transaction may follow another at once."""
    with quiet.database.connect() as busy:
        busy.execute("begin; insert into person values (4, 'uncounted'); commit; begin")
        quiet.database.execute("insert into movie values (6, 'counted', now())")
        for tables in _due_soon(quiet):
            assert tables == {"movie"}
            assert quiet.copy(*tables).success
    assert _due_soon(quiet) == [{"person"}]

    assert asked(quiet.look()) == [{"person"}], "a run that never came is no copy"
    assert quiet.copy("person").success

    assert lake.ids(quiet.bucket, "person") == [1, 2, 3, 4]


def test_a_prepared_transaction_is_named_too(quiet: Project):
    """It survives its session and even a restart of the server, and holds the horizon for all of it."""
    quiet.database.execute("begin; insert into person values (7, 'x'); prepare transaction 'left behind'")
    try:
        quiet.look()
        quiet.look()
        memory = json.loads(quiet.cursor or "")
        quiet.cursor = json.dumps({**memory, "horizon_since": memory["horizon_since"] - 120})
        quiet.database.execute("create table noise ()")

        data = quiet.look()

        assert "prepared transaction 'left behind'" in data.skip_message
    finally:
        quiet.database.execute("rollback prepared 'left behind'")


def test_a_cut_connection_fails_one_tick_at_most(quiet: Project):
    quiet.database.execute(
        "select pg_terminate_backend(pid, 10000) from pg_stat_activity where application_name = 'pg_bronze sensor'"
    )
    with contextlib.suppress(Exception):
        quiet.look()

    assert quiet.look().skip_message.startswith("2 tables checked")


def test_the_tick_says_how_many_rows_the_last_batch_brought(quiet: Project):
    result = quiet.copy("movie")
    run_id = create_run_for_test(
        quiet.instance, job_name="bronze", asset_selection=frozenset([key("movie")]),
        status=dg.DagsterRunStatus.SUCCESS,
        tags={"pg_bronze/batch": "tick", "pg_bronze/new_rows": "12345"},
    ).run_id  # fmt: skip
    assert run_id != result.run_id

    assert "The last batch copied 12,345 rows" in quiet.look().skip_message


def test_a_table_made_again_under_its_name_is_due(quiet: Project):
    quiet.database.execute("drop table person; create table person (id int primary key, name text)")
    quiet.database.execute("insert into person values (1, 'another')")

    assert _due_soon(quiet) == [{"person"}]


@pytest.fixture
def reloads(cinema: Project) -> list[object]:
    made: list[object] = []
    cinema.monkeypatch.setattr(catalog, "reload", made.append)
    return made


def test_an_unchanged_catalog_reloads_nothing(cinema: Project, reloads: list[object]):
    cinema.copy()
    cinema.database.execute("insert into movie select i, 'x' from generate_series(10, 1000) i")
    cinema.database.execute("vacuum analyze movie")

    data = cinema.look("bronze_catalog")

    assert reloads == []
    assert data.skip_message == "the catalog has not changed"


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
    """A table that cannot be loaded would otherwise reload the location for ever, cutting every tick short."""
    cinema.database.execute(change)

    cinema.look("bronze_catalog")
    cinema.look("bronze_catalog")
    assert len(reloads) == 1

    cinema.definitions = load()
    assert cinema.look("bronze_catalog").skip_message == "the catalog has not changed"
    cinema.database.execute("create table later (id int)")
    cinema.look("bronze_catalog")
    assert len(reloads) == 2


def test_a_dropped_table_is_no_more_due_and_leaves_with_the_reload(quiet: Project):
    quiet.database.execute("drop table person")

    assert asked(quiet.look()) == []

    graph = quiet.reload().resolve_asset_graph()
    assert graph.executable_asset_keys == {key("movie")}


def test_a_new_table_is_due_as_soon_as_it_is_loaded(quiet: Project):
    quiet.database.execute("create table award (id int); insert into award values (1)")
    quiet.reload()

    assert _due_soon(quiet) == [{"award"}]
