"""Failing tables: retried after growing pauses, at once after a change, and reported in every tick."""

import json
import re
from datetime import UTC, datetime

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from pg_bronze.defs import catalog_state, failures, metadata
from pg_bronze.defs.sensors import tick as tick_sensor
from pg_bronze.errors import LakeDamaged
from pg_bronze.lake.commit import SliceWriter
from pg_bronze.settings.load import load_settings
from pg_bronze.sync.table_sync import TableSync
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.project import Project, key, messages, requested, sentences, set_dagsters_clock

TICK = {"pg_bronze/batch": "tick"}


class Clock(datetime):
    """The clock of the sensor, which a test moves ahead."""

    ahead_s = 0.0

    @classmethod
    def now(cls, tz=None):
        return datetime.fromtimestamp(datetime.now(UTC).timestamp() + cls.ahead_s, tz)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> type[Clock]:
    monkeypatch.setattr(Clock, "ahead_s", 0.0)
    monkeypatch.setattr(tick_sensor, "datetime", Clock)
    monkeypatch.setattr(failures, "datetime", Clock)
    set_dagsters_clock(monkeypatch, lambda: Clock.now(UTC))
    return Clock


def tick(project: Project) -> list[str]:
    """Evaluate the sensor, run its requests, and return their tables."""
    found: list[str] = []
    for tables in requested(project.evaluate()):
        found += sorted(tables)
        project.copy(*tables, tags=TICK)
    return found


STRAY = "movie/movie_stray.parquet"


@pytest.fixture
def broken(cinema: Project, clock: type[Clock]) -> Project:
    """``movie`` failed in one tick for a reason that only a person can fix. ``person`` is copied."""
    cinema.bucket.store().create(STRAY, b"")
    assert tick(cinema) == ["movie", "person"]
    while "person" in tick(cinema):
        pass
    return cinema


def test_a_failure_that_only_a_person_can_fix_is_retried_after_growing_pauses(broken: Project, clock: type[Clock]):
    """A retry every ten seconds would be 8,640 failed runs a day, each of several CPU seconds."""
    retries = []
    for second in range(5, 32 * 60, 60):
        clock.ahead_s = second
        if "movie" in tick(broken):
            retries.append(second)

    pauses = [later - earlier for earlier, later in zip([0, *retries], retries, strict=False)]
    assert [round(pause / 60) for pause in pauses] == [1, 2, 4, 8, 16]


def test_a_failing_table_does_not_delay_the_others(broken: Project):
    broken.database.execute("insert into person values (4, 'new')")

    while 4 not in lake.ids(broken.bucket, "person"):
        assert "movie" not in tick(broken)

    assert lake.ids(broken.bucket, "person") == [1, 2, 3, 4]


def test_tick_and_asset_show_since_when_a_table_fails_why_and_the_next_retry(broken: Project):
    data = broken.evaluate()

    assert "tables checked up to transaction" in data.skip_message
    assert "1 failing" in data.skip_message
    assert re.match(
        r"movie failing since \d\d:\d\d:\d\d UTC \(1 attempt\); next retry at \d\d:\d\d:\d\d UTC, or at once by .*: "
        r"s3://.*/movie/movie_stray.parquet is among",
        data.skip_message,
    )
    (record,) = broken.instance.fetch_observations(key("movie"), limit=1).records
    shown = {name: entry.value for name, entry in record.event_log_entry.asset_observation.metadata.items()}
    assert "movie_stray.parquet" in shown["pg_bronze/failed"]
    assert shown["pg_bronze/retry"] == "after_fix"
    assert shown["pg_bronze/failures_in_a_row"] == 1
    assert shown["pg_bronze/next_retry"] - shown["pg_bronze/failed_at"] == pytest.approx(60)
    run = broken.instance.get_run_by_id(shown["pg_bronze/run"])
    assert run is not None
    assert run.tags["failed"] == "movie", "the list of runs would not name the table"
    (line,) = [text for text in messages(broken, run) if text.startswith("batch: ")]
    assert line == "batch: 3 new rows in 1 table, 1 failed"


@pytest.mark.parametrize("lost", ["cursor", "process"])
def test_failures_are_kept_after_a_restart_and_after_a_reset_of_the_cursor(
    broken: Project, clock: type[Clock], lost: str, monkeypatch: pytest.MonkeyPatch
):
    clock.ahead_s = 70
    assert tick(broken) == ["movie"]
    if lost == "cursor":
        broken.cursor = None
    else:
        clock.ahead_s = 80
        broken.reload()

    assert "movie" not in tick(broken)
    clock.ahead_s = 70 + 65
    assert ("movie" in tick(broken)) is (lost == "process"), "a restart may be the fix, a reset of the cursor is not"
    (record,) = broken.instance.fetch_observations(key("movie"), limit=1).records
    failure, _ = metadata.failure_of(record.event_log_entry.asset_observation)
    assert failure is not None
    assert failure.count == (3 if lost == "process" else 2)


def test_a_failing_table_is_retried_at_once_after_a_changed_setting(broken: Project):
    broken.set(PG_BRONZE_COMPRESSION="snappy")

    assert tick(broken) == ["movie"]
    assert tick(broken) == []


def test_a_failing_table_is_retried_at_once_after_a_changed_secret(cinema: Project, clock: type[Clock]):
    """A wrong key is the most common error of a first day, and the fingerprint contains no secret."""
    right = cinema.bucket.server.secret_key
    cinema.set(MINIO_SECRET_KEY="wrong-but-long-enough")
    cinema.reload()
    assert tick(cinema) == ["movie", "person"]
    assert tick(cinema) == []

    cinema.set(MINIO_SECRET_KEY=right)

    assert tick(cinema) == ["movie", "person"]
    assert lake.compare(cinema.database, cinema.bucket, "movie") == lake.SAME


def test_a_failing_table_is_retried_at_once_after_its_definition_changed(broken: Project):
    broken.database.execute("alter table movie add column year int")
    broken.reload()

    assert "movie" in tick(broken)
    assert "movie" not in tick(broken)


@pytest.mark.parametrize(
    "deed", ["grant select on movie to public", "vacuum full movie", "truncate movie", "create index on movie (title)"]
)
def test_a_change_that_loads_no_definitions_leaves_the_pauses_alone(broken: Project, deed: str):
    """The sensor has the catalog of its start, and a run worker may have a later one: each tick was a retry."""
    before = catalog_state.live(load_settings())
    broken.database.execute(deed)
    after = catalog_state.live(load_settings())

    assert before.fingerprint == after.fingerprint
    states = [failures.state_of("", table) for found in (before, after) if (table := found.table("public", "movie"))]
    assert len(states) == 2
    assert states[0] == states[1]


def test_a_manual_run_starts_the_pauses_again(broken: Project, clock: type[Clock]):
    clock.ahead_s = 70
    assert tick(broken) == ["movie"]
    broken.copy("movie")

    clock.ahead_s = 70 + 65
    assert tick(broken) == ["movie"]


def test_a_manual_run_that_succeeds_ends_the_retries(broken: Project):
    """The next tick would otherwise wait for the rest of the pause."""
    broken.bucket.store().delete(STRAY)
    assert broken.copy("movie").success
    assert "failing" not in (broken.evaluate().skip_message or "")
    broken.database.execute("insert into movie values (6, 'new', now())")

    while 6 not in lake.ids(broken.bucket, "movie"):
        tick(broken)

    assert "failing" not in (broken.evaluate().skip_message or "")


def test_a_failure_after_a_success_is_counted_as_the_first(broken: Project, clock: type[Clock]):
    """With older failures counted too, a short outage would be followed by a pause of half an hour."""
    clock.ahead_s = 70
    assert tick(broken) == ["movie"]
    broken.bucket.store().delete(STRAY)
    assert broken.copy("movie", tags=TICK).success
    broken.bucket.store().create(STRAY, b"")

    broken.copy("movie", tags=TICK)

    (record,) = broken.instance.fetch_observations(key("movie"), limit=1).records
    failure, _ = metadata.failure_of(record.event_log_entry.asset_observation)
    assert failure is not None
    assert (failure.count, failure.since) == (1, failure.last)


def test_the_command_continue_ends_the_retries(cinema: Project, clock: type[Clock]):
    from pg_bronze.cli import app, opened

    assert cinema.copy("movie").success
    cinema.bucket.store().delete(lake.keys(cinema.bucket, "movie")[0])
    cinema.database.execute("insert into movie values (6, 'new', now())")
    while "failing" not in (cinema.evaluate().skip_message or ""):
        cinema.copy(tags=TICK)
    cinema.monkeypatch.setattr(opened, "open_instance", lambda: _Kept(cinema.instance))

    app.resume("movie")

    assert "failing" not in (cinema.evaluate().skip_message or "")
    while 6 not in lake.ids(cinema.bucket, "movie"):
        tick(cinema)
    assert "failing" not in (cinema.evaluate().skip_message or "")


class _Kept:
    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance

    def __enter__(self) -> dg.DagsterInstance:
        return self.instance

    def __exit__(self, *_: object) -> None:
        pass


def test_a_failure_that_may_pass_is_retried_at_the_next_three_ticks(cinema: Project, clock: type[Clock]):
    cinema.set(MINIO_ENDPOINT="http://127.0.0.1:1")
    cinema.reload()
    retries = []
    for second in range(0, 301, 10):
        clock.ahead_s = second
        if tick(cinema):
            retries.append(second)

    assert retries == [0, 10, 20, 30, 50, 80, 140, 260]


def test_a_tick_during_a_run_does_not_hide_what_the_run_reports_afterwards(
    cinema: Project, monkeypatch: pytest.MonkeyPatch
):
    """A failed run of more than ten seconds was reported as one that "ended without reporting a result"."""
    cinema.bucket.store().create(STRAY, b"")
    record, seen = failures._record, []
    monkeypatch.setattr(failures, "_record", lambda *found: seen.append(cinema.evaluate()) or record(*found))

    while (data := cinema.evaluate()).run_requests:
        # A run with the names of its tables, by which a tick sees that they are running.
        cinema.definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=cinema.instance, asset_selection=[key(table) for table in requested(data)[0]],
            partition_key=str(datetime.now(UTC).date()), tags=TICK, raise_on_error=False,
        )  # fmt: skip

    assert len(seen) == 1, "the test needs a tick before the failure is recorded"
    assert "without reporting" not in data.skip_message
    assert data.skip_message.startswith("movie failing since")


def test_one_cause_of_many_tables_is_reported_once(cinema: Project):
    cinema.set(MINIO_ENDPOINT="http://127.0.0.1:1")
    cinema.reload()
    failed = sentences(cinema.copy())

    (cause,) = {sentence.partition(": ")[2] for sentence in failed.values()}
    assert cause.startswith("no connection to the S3 server http://127.0.0.1:1")
    cinema.copy(tags=TICK)
    while requested(data := cinema.evaluate()):
        cinema.copy(tags=TICK)
    assert "movie, person failing since" in data.skip_message
    assert data.skip_message.count("no connection") == 1


def test_runs_that_report_no_result_are_retried_after_growing_pauses(cinema: Project, clock: type[Clock]):
    """A worker that was killed for its memory reports nothing, and the next one would be killed too."""
    retries = []
    for second in range(0, 301, 10):
        clock.ahead_s = second
        for tables in requested(data := cinema.evaluate()):
            retries.append(second)
            run = create_run_for_test(
                cinema.instance, job_name="bronze", asset_selection=frozenset(map(key, tables)),
                status=dg.DagsterRunStatus.FAILURE, tags=TICK,
            )  # fmt: skip
            for table in tables:
                cinema.instance.report_dagster_event(
                    dg.DagsterEvent.build_asset_materialization_planned_event(
                        "bronze", table, dg._core.events.AssetMaterializationPlannedData(key(table))
                    ),
                    run_id=run.run_id,
                )

    assert retries == [0, 10, 20, 30, 50, 80, 140, 260]
    assert "without reporting a result" in data.skip_message


def test_an_unexpected_error_is_counted_and_shows_no_value(cinema: Project, clock: type[Clock]):
    def fails(*_: object, **__: object) -> None:
        raise KeyError("a value of a row")

    cinema.monkeypatch.setattr(TableSync, "start", fails)
    cinema.evaluate()
    cinema.copy(tags=TICK)

    (record,) = cinema.instance.fetch_observations(key("movie"), limit=1).records
    failure, _ = metadata.failure_of(record.event_log_entry.asset_observation)
    assert failure is not None
    assert failure.retry == "automatic"
    assert "unexpected KeyError" in failure.sentence
    assert "value of a row" not in json.dumps(failure.sentence)


def test_a_failure_during_the_commit_is_counted_too(cinema: Project, clock: type[Clock]):
    """The IO manager commits, and the asset does not receive its error."""

    def fails(*_: object) -> None:
        raise LakeDamaged("movie: foreign.")

    cinema.monkeypatch.setattr(SliceWriter, "write", fails)
    cinema.evaluate()
    cinema.copy(tags=TICK)

    assert requested(data := cinema.evaluate()) == []
    assert "movie: foreign" in data.skip_message


@pytest.mark.parametrize("error", [LakeDamaged("movie: foreign."), KeyError("unexpected")], ids=["ours", "unexpected"])
@pytest.mark.parametrize("owner, method", [(TableSync, "start"), (SliceWriter, "write")], ids=["asset", "IO manager"])
def test_one_failure_is_recorded_once(cinema: Project, owner: type, method: str, error: Exception):
    """Counted twice, a single failure would be followed by the pause of the second one."""

    def fails(*_: object, **__: object) -> None:
        raise error

    cinema.monkeypatch.setattr(owner, method, fails)

    assert not cinema.copy("movie", tags=TICK).success

    (record,) = cinema.instance.fetch_observations(key("movie"), limit=5).records
    failure, _ = metadata.failure_of(record.event_log_entry.asset_observation)
    assert failure is not None
    assert failure.count == 1


def test_an_idle_tick_does_not_query_failures(cinema: Project):
    """One more query for each table would be the largest cost of a tick, 8,640 times a day."""
    assert cinema.copy().success
    while requested(cinema.evaluate()):
        cinema.copy()
    cinema.evaluate()
    queries = []
    fetched = type(cinema.instance).fetch_observations

    def noted(*arguments, **options):
        queries.append(arguments)
        return fetched(*arguments, **options)

    cinema.monkeypatch.setattr(type(cinema.instance), "fetch_observations", noted)

    cinema.evaluate()

    assert queries == []
