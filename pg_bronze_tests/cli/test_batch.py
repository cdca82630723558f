"""Batches of `pg-bronze run`: the tables that the sensor would request, with the retry state that the sensor uses."""

import contextlib
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import botocore.client
import dagster as dg
import psycopg
import pytest
import sqlalchemy
from dagster._core.test_utils import create_run_for_test

from pg_bronze.cli import batch, runs
from pg_bronze.cli.batch import run_batch
from pg_bronze.cli.batches import Batches
from pg_bronze.defs import resources, retention
from pg_bronze.scheduling import first_loads
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.project import Project, key, requested
from pg_bronze_tests.harness.repetitions import also

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
    capsys.readouterr()
    assert copied_by(shared, lambda: run_batch([], batches)) == []
    assert capsys.readouterr().out == "", "a line in each quiet batch hides what is new"


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
    assert f"{STRAY}" in next(line for line in capsys.readouterr().err.splitlines() if line.startswith("pg-bronze: "))


def test_a_batch_of_run_prints_each_failure_once_with_the_next_retry(
    shared: Project, batches: Batches, capsys: pytest.CaptureFixture[str]
):
    """Two lines for one failure, and one more in each batch, hide what is new."""
    shared.bucket.store().create(STRAY, b"")
    assert not run_batch([], batches)
    (line,) = (line for line in capsys.readouterr().err.splitlines() if STRAY in line)
    assert re.match(
        r"pg-bronze: movie failing since [\d:]{8} UTC \(1 attempt\); next retry at [\d:]{8} UTC, or at once by "
        r"`pg-bronze tick` or Materialize in the UI: ",
        line,
    )

    settle(batches, shared)

    printed = capsys.readouterr()
    assert STRAY not in printed.out + printed.err
    shared.set(PG_BRONZE_COMPRESSION="snappy")  # which is a reason to retry
    assert not run_batch([], batches)
    (line,) = (line for line in capsys.readouterr().err.splitlines() if STRAY in line)
    assert "movie failing since" in line


def test_batches_of_run_say_once_why_the_control_table_is_not_mirrored(
    shared: Project, batches: Batches, capsys: pytest.CaptureFixture[str]
):
    """The same 300 characters in every batch hide what is new; after a batch in which it was mirrored they are new."""
    shared.set(PG_CONTROL_URL="off")
    said = []
    for number in range(10, 14):
        shared.database.execute(f"insert into person values ({number}, 'new')")
        shared.set(PG_CONTROL_URL="" if number == 12 else "off")
        tick_of_one = copied_by(shared, lambda: run_batch(["person"], batches))
        assert tick_of_one == [{"person"}]
        said.append(capsys.readouterr().out.count("etl_control is not mirrored: PG_CONTROL_URL is off"))

    assert said == [1, 0, 0, 1]


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


def test_a_batch_of_tick_tries_a_failing_table_at_once(shared: Project):
    """A person who calls it expects an attempt, whatever the pauses of the sensor are."""
    shared.bucket.store().create(STRAY, b"")
    tick(shared)

    started = copied_by(shared, lambda: run_batch([], Batches()))

    assert started == [{"movie"}]
    assert failures_in_a_row(shared, "movie") == [1, 1], "an attempt by a person starts the pauses again"


def test_a_batch_of_tick_copies_rows_that_are_committed_and_not_counted_yet(shared: Project):
    """PostgreSQL counts rows up to a minute after the commit, and `load && pg-bronze tick && report` needs them now."""
    shared.database.execute(
        "create table event (id int, day int) partition by list (day);"
        "create table event_1 partition of event for values in (1)"
    )
    shared.reload()
    run_batch([], Batches())
    run_batch([], Batches())

    for table, row in {"person": "(4, 'new')", "event": "(1, 1)"}.items():
        shared.database.execute(f"set track_counts = off; insert into {table} values {row}")
        assert copied_by(shared, lambda: run_batch([], Batches())) == [{table}]

    assert lake.ids(shared.bucket, "person") == [1, 2, 3, 4]
    assert lake.ids(shared.bucket, "event") == [1]


@pytest.mark.parametrize("labels", [["movie"], []], ids=["named", "all"])
def test_a_batch_of_tick_says_what_holds_the_horizon_back(
    shared: Project, capsys: pytest.CaptureFixture[str], labels: list[str]
):
    """Committed rows are not copied then, although the exit status is 0."""
    settle(Batches(), shared)
    with shared.database.connect(autocommit=False) as held:
        held.execute("insert into movie values (900, 'prepared', now()); prepare transaction 'two phases'")
    shared.database.execute("insert into movie values (901, 'after', now())")
    try:
        capsys.readouterr()
        assert run_batch(labels, Batches())
        printed = "".join(capsys.readouterr())
    finally:
        shared.database.execute("rollback prepared 'two phases'")
        shared.database.execute("delete from movie where id = 901")

    assert "ows of later transactions are blocked" in printed or "New rows are blocked" in printed
    assert "prepared transaction 'two phases' has held the horizon for" in printed


def test_a_batch_of_tick_copies_a_table_beside_the_unfinished_run_of_a_killed_worker(shared: Project):
    """Its run counts as running for 90 s."""
    create_run_for_test(
        shared.instance,
        job_name="bronze",
        asset_selection=frozenset([key("movie")]),
        status=dg.DagsterRunStatus.STARTED,
    )

    run_batch([], Batches())

    assert lake.ids(shared.bucket, "movie") == [1, 2, 3, 4, 5]


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Count the statements to PostgreSQL and to Dagster's storage, and the requests to the bucket."""
    counted: Counter[str] = Counter()

    def counting(what: str, owner: type, name: str) -> None:
        original = getattr(owner, name)

        def call(*arguments: Any, **more: Any) -> Any:
            counted[what] += 1
            return original(*arguments, **more)

        monkeypatch.setattr(owner, name, call)

    def executed(*_: Any) -> None:
        counted["storage"] += 1

    counting("database", psycopg.Cursor, "execute")
    counting("bucket", botocore.client.BaseClient, "_make_api_call")
    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", executed)
    yield counted
    sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", executed)


def of_a_quiet_batch(project: Project, requests: Counter[str], unattended: bool) -> dict[str, int]:
    """The requests of a batch in a new process, after a transaction that wrote to no table."""
    project.database.execute("select pg_current_xact_id()")
    requests.clear()
    assert copied_by(project, lambda: run_batch([], Batches(unattended=unattended))) == []
    return dict(requests)


@pytest.mark.parametrize("unattended", [*also(False), True], ids=["tick", "run"])
def test_a_quiet_table_costs_no_statement_and_no_request(shared: Project, requests: Counter[str], unattended: bool):
    """5,000 quiet tables took ten minutes. Half of these tables are empty, and have no object in the bucket."""

    def with_tables(first: int, last: int) -> dict[str, int]:
        names = [f"quiet_{number}" for number in range(first, last)]
        shared.database.execute("; ".join(f"create table {name} (id int)" for name in names))
        shared.database.execute("; ".join(f"insert into {name} values (1)" for name in names[::2]))
        assert run_batch([], Batches())
        assert run_batch([], Batches())
        return of_a_quiet_batch(shared, requests, unattended)

    few = with_tables(0, 4)
    many = with_tables(4, 24)

    # The second pair of batches left one more run, which is looked up once for all its tables.
    assert {what: (many[what] - few[what]) * 4 // 20 for what in few} == {"database": 0, "bucket": 0, "storage": 0}


def test_many_due_tables_are_copied_in_several_runs(shared: Project, monkeypatch: pytest.MonkeyPatch):
    """One run of 5,000 tables keeps all their events in memory."""
    monkeypatch.setattr(runs, "TABLES_PER_RUN", 1)

    assert copied_by(shared, lambda: run_batch([], Batches())) == [{"person"}, {"movie"}]


def test_a_batch_removes_old_runs(shared: Project):
    """Without `dagster dev` there is no sensor that does."""
    shared.set(PG_BRONZE_KEEP_RUNS_MB="0.001")
    for number in range(3):
        shared.database.execute(f"insert into movie values ({100 + number}, 'new', now())")
        assert run_batch([], Batches())

    assert len(shared.instance.get_run_records()) == 2, "the newest one when the last batch began, and its own"


def test_a_batch_of_run_copies_small_tables_first_and_large_ones_in_turn(
    shared: Project, batches: Batches, monkeypatch: pytest.MonkeyPatch
):
    """One process copies them one after the other: new rows of the others would wait for a first load of hours."""
    monkeypatch.setattr(first_loads, "SHARED_TURN_S", 0.0)
    shared.set(PG_BRONZE_SLICE_BYTES="64KiB")
    for name in ("large_1", "large_2"):
        shared.database.execute(f"create table {name} (id int, filler text)")
        shared.database.execute(f"insert into {name} select i, repeat('x', 500) from generate_series(1, 1000) i")
    turns = []
    for _ in range(3):
        turns.append(copied_by(shared, lambda: run_batch([], batches)))
    assert turns[0][::-1] == [{"movie", "person"}, {"large_1"}]  # oldest first
    assert [tables[0] for tables in turns[1:]] == [{"large_2"}, {"large_1"}]
    assert len(lake.ids(shared.bucket, "large_1")) < 1000


def test_a_tick_as_the_sensor_gives_a_large_first_load_a_turn(shared: Project, monkeypatch: pytest.MonkeyPatch):
    """A task of Airflow that loads for an hour would keep back the new rows of all other tables."""
    monkeypatch.setattr(first_loads, "TURN_S", 0.0)
    monkeypatch.setattr(resources, "lower_priority", lambda: None)
    shared.set(PG_BRONZE_SLICE_BYTES="64KiB")
    shared.database.execute("create table large (id int, filler text)")
    shared.database.execute("insert into large select i, repeat('x', 500) from generate_series(1, 1000) i")

    copied_by(shared, lambda: run_batch(["large"], Batches(unattended=True, once=True)))

    assert 0 < len(lake.ids(shared.bucket, "large")) < 1000


def test_a_tick_of_a_person_loads_every_table_to_its_end_and_small_ones_first(
    shared: Project, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(first_loads, "SHARED_TURN_S", 0.0)
    shared.set(PG_BRONZE_SLICE_BYTES="64KiB")
    for name in ("a_large", "b_large", "c_large"):
        shared.database.execute(f"create table {name} (id int, filler text)")
        shared.database.execute(f"insert into {name} select i, repeat('x', 500) from generate_series(1, 1000) i")
    started = copied_by(shared, lambda: run_batch([], Batches()))
    assert started[::-1] == [{"movie", "person"}, {"a_large"}, {"b_large"}, {"c_large"}]
    assert len(lake.ids(shared.bucket, "c_large")) == 1000


REVOKED = 'may not be read by this role; grant select on "public"."movie" to "{role}"'


@pytest.fixture
def visitor(shared: Project) -> Iterator[str]:
    """A role of its own that reads the database, and may read its tables."""
    role = f"visitor_{secrets.token_hex(3)}"
    shared.database.execute(
        f"create role {role} login password 'v'; grant select on all tables in schema public to {role}"
    )
    shared.set(PG_USER=role, PG_PASS="v", PG_CONTROL_URL="off")
    yield role
    shared.database.execute(f"drop owned by {role}; drop role {role}")


@pytest.mark.parametrize("known_by", ["dagster", "bucket"])
def test_a_table_that_was_copied_and_whose_grant_was_revoked_fails_with_the_grant(
    shared: Project, visitor: str, capsys: pytest.CaptureFixture[str], known_by: str
):
    """New rows would be missing from then on, with exit status 0 and a line among those of tables never copied."""
    shared.database.execute("create table secret (id int); insert into secret values (1)")
    assert run_batch([], Batches())
    shared.database.execute(f"revoke select on movie from {visitor}; insert into person values (4, 'new')")
    if known_by == "bucket":
        shared.instance.wipe_assets([key("movie"), key("person")])
    capsys.readouterr()

    assert not run_batch([], Batches())

    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith(f"pg-bronze: movie failed: it {REVOKED.format(role=visitor)}. The table was copied before")
    assert "skipped secret: " in printed.out
    assert "skipped movie" not in printed.out
    assert lake.ids(shared.bucket, "person") == [1, 2, 3, 4]
    shared.database.execute(f"grant select on movie to {visitor}")
    assert run_batch([], Batches())


def test_batches_of_run_print_once_that_a_grant_was_revoked(
    shared: Project, visitor: str, batches: Batches, capsys: pytest.CaptureFixture[str]
):
    assert run_batch([], batches)
    said = []
    for statement in ("revoke select on movie from", "revoke select on movie from", "grant select on movie to"):
        shared.database.execute(f"{statement} {visitor}")
        said.append((bool(run_batch([], batches)), capsys.readouterr().err.count(REVOKED.format(role=visitor))))

    assert said == [(False, 1), (False, 0), (True, 0)]


def test_objects_of_another_system_do_not_make_an_unreadable_table_a_failing_one(shared: Project, visitor: str):
    shared.database.execute(f"revoke select on movie from {visitor}")
    shared.bucket.store().create("movie/movie_20250102000010.parquet", b"of the original system")

    assert run_batch([], Batches())


def test_quiet_batches_prune_the_storage_once_in_ten_minutes_and_others_in_each(
    shared: Project, monkeypatch: pytest.MonkeyPatch
):
    """A pass takes a tenth of the CPU time of a tick from cron that finds nothing."""
    passes = []
    prune = retention.prune

    def counted(*arguments: Any, **names: Any) -> str:
        passes.append(arguments[-1])
        return prune(*arguments, **names)

    monkeypatch.setattr(retention, "prune", counted)
    assert run_batch([], Batches())
    settle(Batches(), shared)
    before = len(passes)
    assert run_batch([], Batches())
    assert len(passes) == before

    shared.database.execute("insert into movie values (900, 'new', now())")
    assert run_batch([], Batches())
    assert len(passes) == before + 1

    monkeypatch.setattr(retention, "last_at", lambda *_: passes[-1] - 601)
    settle(Batches(), shared)
    assert len(passes) > before + 1
