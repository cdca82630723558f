"""Tables that fail: tried again with growing pauses, shown as stuck meanwhile, and at once when something changed."""

import json
import re
from datetime import UTC, datetime

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from pg_bronze.defs import failures, metadata
from pg_bronze.defs.sensors import tick as tick_sensor
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.project import Project, asked, key, sentences, set_dagsters_clock

TICK = {"pg_bronze/batch": "tick"}


class Clock(datetime):
    """The sensor's clock, moved by hand."""

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
    """What the sensor asks for is run; gives the tables asked for."""
    found: list[str] = []
    for tables in asked(project.look()):
        found += sorted(tables)
        project.copy(*tables, tags=TICK)
    return found


STRAY = "movie/movie_stray.parquet"


@pytest.fixture
def broken(cinema: Project, clock: type[Clock]) -> Project:
    """movie has failed at one tick, for a reason only a person can take away; person is fine."""
    cinema.bucket.store().create(STRAY, b"")
    assert tick(cinema) == ["movie", "person"]
    while "person" in tick(cinema):
        pass
    return cinema


def test_a_table_that_only_a_person_can_cure_is_asked_for_with_growing_pauses(broken: Project, clock: type[Clock]):
    """Every ten seconds would be 8,640 runs a day, each of several CPU seconds, and a red list nobody reads."""
    tries = []
    for second in range(5, 32 * 60, 60):
        clock.ahead_s = second
        if "movie" in tick(broken):
            tries.append(second)

    pauses = [later - earlier for earlier, later in zip([0, *tries], tries, strict=False)]
    assert [round(pause / 60) for pause in pauses] == [1, 2, 4, 8, 16]


def test_a_stuck_table_does_not_hold_back_the_others(broken: Project):
    broken.database.execute("insert into person values (4, 'new')")

    while 4 not in lake.ids(broken.bucket, "person"):
        assert "movie" not in tick(broken)

    assert lake.ids(broken.bucket, "person") == [1, 2, 3, 4]


def test_tick_and_asset_say_since_when_why_and_when_it_is_tried_next(broken: Project):
    data = broken.look()

    assert "1 failing" in data.skip_message
    assert re.search(
        r"movie failing since \d\d:\d\d:\d\d UTC \(1 attempt\); next retry at \d\d:\d\d:\d\d UTC, or on .*: "
        r"s3://.*/movie/movie_stray.parquet is among",
        data.skip_message,
    )
    (record,) = broken.instance.fetch_observations(key("movie"), limit=1).records
    shown = {name: entry.value for name, entry in record.event_log_entry.asset_observation.metadata.items()}
    assert "movie_stray.parquet" in shown["pg_bronze/failed"]
    assert shown["pg_bronze/retry"] == "after_fix"
    assert shown["pg_bronze/failures_in_a_row"] == 1
    assert shown["pg_bronze/next_try"] - shown["pg_bronze/failed_at"] == pytest.approx(60)
    assert broken.instance.get_run_by_id(shown["pg_bronze/run"]) is not None


@pytest.mark.parametrize("lost", ["cursor", "process"])
def test_a_restart_or_a_reset_cursor_forgets_nothing_of_it(
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
    assert ("movie" in tick(broken)) is (lost == "process"), "a restart may be the retry, a cursor is not"
    (record,) = broken.instance.fetch_observations(key("movie"), limit=1).records
    failure_state, _ = metadata.failure_of(record.event_log_entry.asset_observation)
    assert failure_state is not None
    assert failure_state.count == (3 if lost == "process" else 2)


def test_a_changed_setting_is_tried_at_once(broken: Project):
    broken.set(PG_BRONZE_COMPRESSION="snappy")

    assert tick(broken) == ["movie"]
    assert tick(broken) == []


def test_a_changed_secret_is_tried_at_once(cinema: Project, clock: type[Clock]):
    """A wrong key is the most common fault of a first day, and no fingerprint may show that it was changed."""
    right = cinema.bucket.server.secret_key
    cinema.set(MINIO_SECRET_KEY="wrong-but-long-enough")
    cinema.reload()
    assert tick(cinema) == ["movie", "person"]
    assert tick(cinema) == []

    cinema.set(MINIO_SECRET_KEY=right)

    assert tick(cinema) == ["movie", "person"]
    assert lake.compare(cinema.database, cinema.bucket, "movie") == lake.SAME


def test_a_changed_table_is_tried_as_soon_as_the_catalog_knows(broken: Project):
    broken.database.execute("alter table movie add column year int")
    broken.reload()

    assert "movie" in tick(broken)
    assert "movie" not in tick(broken)


def test_a_run_by_hand_begins_the_pauses_anew(broken: Project, clock: type[Clock]):
    clock.ahead_s = 70
    assert tick(broken) == ["movie"]
    broken.copy("movie")

    clock.ahead_s = 70 + 65
    assert tick(broken) == ["movie"]


def test_a_run_by_hand_that_succeeds_ends_it(broken: Project):
    """The next tick must not wait for a pause that has lost its reason."""
    broken.bucket.store().delete(STRAY)
    assert broken.copy("movie").success
    assert "failing" not in (broken.look().skip_message or "")
    broken.database.execute("insert into movie values (6, 'new', now())")

    while 6 not in lake.ids(broken.bucket, "movie"):
        tick(broken)

    assert "failing" not in (broken.look().skip_message or "")


def test_a_failure_after_a_success_is_the_first_of_its_row(broken: Project, clock: type[Clock]):
    """With the old ones counted on, a fault of a moment would be waited out for half an hour."""
    clock.ahead_s = 70
    assert tick(broken) == ["movie"]
    broken.bucket.store().delete(STRAY)
    assert broken.copy("movie", tags=TICK).success
    broken.bucket.store().create(STRAY, b"")

    broken.copy("movie", tags=TICK)

    (record,) = broken.instance.fetch_observations(key("movie"), limit=1).records
    failure_state, _ = metadata.failure_of(record.event_log_entry.asset_observation)
    assert failure_state is not None
    assert (failure_state.count, failure_state.since) == (1, failure_state.last)


def test_a_continue_ends_it(cinema: Project, clock: type[Clock]):
    from pg_bronze.cli import app, state_changes

    assert cinema.copy("movie").success
    cinema.bucket.store().delete(lake.keys(cinema.bucket, "movie")[0])
    cinema.database.execute("insert into movie values (6, 'new', now())")
    while "failing" not in (cinema.look().skip_message or ""):
        cinema.copy(tags=TICK)
    cinema.monkeypatch.setattr(state_changes, "open_instance", lambda: _Kept(cinema.instance))

    app.resume("movie")

    assert "failing" not in (cinema.look().skip_message or "")
    while 6 not in lake.ids(cinema.bucket, "movie"):
        tick(cinema)
    assert "failing" not in (cinema.look().skip_message or "")


class _Kept:
    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance

    def __enter__(self) -> dg.DagsterInstance:
        return self.instance

    def __exit__(self, *_: object) -> None:
        pass


def test_a_fault_the_next_tick_may_cure_is_tried_at_the_next_three(cinema: Project, clock: type[Clock]):
    cinema.set(MINIO_ENDPOINT="http://127.0.0.1:1")
    cinema.reload()
    tries = []
    for second in range(0, 301, 10):
        clock.ahead_s = second
        if tick(cinema):
            tries.append(second)

    assert tries == [0, 10, 20, 30, 50, 80, 140, 260]


def test_one_cause_of_many_tables_is_said_once(cinema: Project):
    cinema.set(MINIO_ENDPOINT="http://127.0.0.1:1")
    cinema.reload()
    said = sentences(cinema.copy())

    (cause,) = {sentence.partition(": ")[2] for sentence in said.values()}
    assert cause.startswith("no connection to the S3 server http://127.0.0.1:1")
    cinema.copy(tags=TICK)
    while asked(data := cinema.look()):
        cinema.copy(tags=TICK)
    assert "movie, person failing since" in data.skip_message
    assert data.skip_message.count("no connection") == 1


def test_runs_that_end_without_a_word_are_asked_for_ever_more_rarely_too(cinema: Project, clock: type[Clock]):
    """A worker that is killed for its memory says nothing; the next would be killed as well."""
    tries = []
    for second in range(0, 301, 10):
        clock.ahead_s = second
        for tables in asked(data := cinema.look()):
            tries.append(second)
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

    assert tries == [0, 10, 20, 30, 50, 80, 140, 260]
    assert "without reporting a result" in data.skip_message


def test_an_unforeseen_error_counts_and_shows_no_value(cinema: Project, clock: type[Clock]):
    from pg_bronze.sync.table_sync import TableSync

    def fails(*_: object, **__: object) -> None:
        raise KeyError("a value of a row")

    cinema.monkeypatch.setattr(TableSync, "start", fails)
    cinema.look()
    cinema.copy(tags=TICK)

    (record,) = cinema.instance.fetch_observations(key("movie"), limit=1).records
    failure_state, _ = metadata.failure_of(record.event_log_entry.asset_observation)
    assert failure_state is not None
    assert failure_state.retry == "automatic"
    assert "unexpected KeyError" in failure_state.sentence
    assert "value of a row" not in json.dumps(failure_state.sentence)


def test_a_fault_in_the_midst_of_the_commit_counts_too(cinema: Project, clock: type[Clock]):
    """The IO manager commits; the asset never sees why it was ended there."""
    from pg_bronze.errors import LakeDamaged
    from pg_bronze.lake.commit import SliceWriter

    def fails(*_: object) -> None:
        raise LakeDamaged("movie: foreign.")

    cinema.monkeypatch.setattr(SliceWriter, "write", fails)
    cinema.look()
    cinema.copy(tags=TICK)

    assert asked(data := cinema.look()) == []
    assert "movie: foreign" in data.skip_message


def test_an_idle_tick_asks_nothing_about_failures(cinema: Project):
    """It runs 8,640 times a day; one more question for each table would be the most expensive part of it."""
    assert cinema.copy().success
    while asked(cinema.look()):
        cinema.copy()
    cinema.look()
    questions = []
    fetched = type(cinema.instance).fetch_observations

    def noted(*arguments, **options):
        questions.append(arguments)
        return fetched(*arguments, **options)

    cinema.monkeypatch.setattr(type(cinema.instance), "fetch_observations", noted)

    cinema.look()

    assert questions == []
