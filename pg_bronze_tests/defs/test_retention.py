"""Retention: what is removed from Dagster's storage, what stays, and that the copy does not notice."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy
from dagster import DagsterRunStatus, RunsFilter
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RegisteredCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, TickData, TickStatus
from dagster._core.storage.event_log.schema import SqlEventLogStorageMetadata
from dagster._core.storage.runs.schema import RunStorageSqlMetadata
from dagster._core.storage.tags import REPOSITORY_LABEL_TAG
from dagster._core.test_utils import create_run_for_test, instance_for_test
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._utils.error import SerializableErrorInfo

from pg_bronze.core.load_progress import LoadProgress
from pg_bronze.defs import dagster_history, metadata, retention
from pg_bronze.scheduling.retention import HOUR_S
from pg_bronze.settings.history import HistorySettings
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.project import Project, key
from pg_bronze_tests.harness.repetitions import also

TICK = {metadata.BATCH_TAG: "tick"}
KEYS = [key("movie"), key("person")]
LOCATION = "__repository__@pg_bronze"


POOLED = {"module": "pg_bronze.defs.sqlite_storage", "class": "PooledSqliteStorage"}
ON_SQLITE = pytest.mark.parametrize("stored", ["pooled", *also("postgres", "sqlite")], indirect=True)


@pytest.fixture(params=["pooled", "postgres", *also("sqlite")])
def stored(request: pytest.FixtureRequest, cinema: Project, tmp_path: Path) -> Iterator[Project]:
    """The project with a storage as in each of the two files ``dagster.yaml``, or as Dagster has it by default."""
    folder = tmp_path / "home"
    folder.mkdir()
    overrides: dict[str, Any] = {"storage": {"sqlite": {"base_dir": str(folder / "storage")}}}
    if request.param == "pooled":
        overrides = {"storage": {"custom": POOLED | {"config": {"base_dir": str(folder / "storage")}}}}
    if request.param == "postgres":
        url = cinema.database.url.replace("postgresql://", "postgresql+psycopg2://")
        overrides = {"storage": {"postgres": {"postgres_url": url}}}
        cinema.set(PG_BRONZE_INCLUDE="movie,person")
    with instance_for_test(overrides, temp_dir=str(folder)) as instance:
        cinema.instance = instance
        yield cinema


def prune(project: Project, ahead_s: float = 1.0, **settings: Any) -> str:
    now = datetime.now(UTC).timestamp() + ahead_s
    return retention.prune(project.instance, KEYS, HistorySettings(**{"keep_runs_mb": 0.001} | settings), now, LOCATION)


def copy_often(project: Project, count: int) -> list[str]:
    """Copy a new row in each of several runs of the sensor, and return the ids of the runs."""
    found = []
    for _ in range(count):
        project.database.execute("insert into movie select max(id) + 1, 'new', now() from movie")
        result = project.copy("movie", tags=TICK)
        assert result.success
        found.append(result.run_id)
    return found


def run_ids(project: Project) -> set[str]:
    return {record.dagster_run.run_id for record in project.instance.get_run_records()}


def test_old_runs_are_removed_and_the_state_of_the_assets_stays(stored: Project):
    *old, newest = copy_often(stored, 4)
    asset = stored.instance.get_asset_records([key("movie")])[0].asset_entry
    latest, days = stored.latest("movie"), stored.instance.get_materialized_partitions(key("movie"))

    sentence = prune(stored)

    assert run_ids(stored) == {newest}
    assert sentence.startswith("Removed 3 runs and ")
    assert stored.latest("movie") == latest
    assert stored.instance.get_materialized_partitions(key("movie")) == days
    assert stored.instance.get_asset_records([key("movie")])[0].asset_entry == asset
    events = stored.instance.fetch_materializations(key("movie"), 10).records
    assert 1 <= len(events) <= 2, "one in ten minutes; the runs may have crossed a boundary"
    kept = [event for run_id in old for event in stored.instance.all_logs(run_id)]
    assert {event.dagster_event_type.value for event in kept if event.dagster_event} <= {"ASSET_MATERIALIZATION"}
    stored.database.execute("insert into movie values (200, 'after', now())")
    assert stored.copy("movie", tags=TICK).success
    assert lake.compare(stored.database, stored.bucket, "movie") == lake.SAME


@ON_SQLITE
def test_failed_runs_and_those_of_others_are_kept(stored: Project):
    copy_often(stored, 1)
    own = create_run_for_test(stored.instance, "nightly", status=DagsterRunStatus.SUCCESS).run_id
    failed = create_run_for_test(stored.instance, "bronze", status=DagsterRunStatus.FAILURE, tags=TICK).run_id
    unfinished = create_run_for_test(stored.instance, "bronze", status=DagsterRunStatus.STARTED, tags=TICK).run_id
    (newest,) = copy_often(stored, 1)

    prune(stored)
    assert run_ids(stored) == {own, failed, unfinished, newest}

    prune(stored, ahead_s=31 * 86400)
    assert run_ids(stored) == {own, unfinished}


@ON_SQLITE
def test_a_run_is_removed_after_a_day_although_there_is_space(stored: Project):
    copy_often(stored, 1)

    prune(stored, ahead_s=23 * HOUR_S, keep_runs_mb=100)
    assert len(run_ids(stored)) == 1

    prune(stored, ahead_s=25 * HOUR_S, keep_runs_mb=100)
    assert run_ids(stored) == set()
    assert stored.watermark("movie") is not None


@ON_SQLITE
def test_as_many_runs_are_kept_as_the_setting_has_space_for(stored: Project):
    runs = copy_often(stored, 5)
    mean = dagster_history.DagsterHistory(stored.instance).size_of(runs) / 5
    assert mean > 10_000

    prune(stored, keep_runs_mb=2.5 * mean / 1e6)

    assert run_ids(stored) == set(runs[-2:])


@ON_SQLITE
def test_failed_runs_are_bounded_by_the_same_setting(stored: Project):
    """A table that fails in every second minute for a month would leave 21,600 of them."""
    failed = []
    for _ in range(3):
        failed.append(create_run_for_test(stored.instance, "bronze", status=DagsterRunStatus.FAILURE, tags=TICK).run_id)
        stored.instance.report_engine_event("failed", stored.instance.get_run_by_id(failed[-1]))

    prune(stored, keep_runs_mb=100)
    assert run_ids(stored) == set(failed)

    prune(stored, keep_runs_mb=0.0001)
    assert run_ids(stored) == {failed[-1]}


def launched(project: Project, job: str, location: str, *tables: str) -> str:
    """A run that ended, without a tag of pg_bronze, as one from the UI."""
    selection = frozenset(dg.AssetKey(table.split("/")) for table in tables) or None
    tags = {REPOSITORY_LABEL_TAG: location}
    status = DagsterRunStatus.SUCCESS
    return create_run_for_test(project.instance, job, status=status, tags=tags, asset_selection=selection).run_id


@ON_SQLITE
def test_runs_that_a_person_launched_are_removed_after_a_month(stored: Project, monkeypatch: pytest.MonkeyPatch):
    """They are few, but for ever. Those of another project in the same Dagster instance are not ours to remove."""
    monkeypatch.setattr(retention, "RUNS_PER_PASS", 2)
    others = {
        launched(stored, "__ASSET_JOB", LOCATION, "bronze/movie", "report"),
        launched(stored, "__ASSET_JOB", LOCATION),
        launched(stored, "nightly", LOCATION),
        launched(stored, "bronze", "__repository__@other"),
    }
    own = {
        launched(stored, "__ASSET_JOB", LOCATION, "bronze/movie", "bronze/dropped"),
        launched(stored, "bronze_verify", LOCATION),
    }

    prune(stored, ahead_s=29 * 86400)
    assert run_ids(stored) == others | own

    for _ in range(4):
        prune(stored, ahead_s=31 * 86400)
    assert run_ids(stored) == others


@ON_SQLITE
def test_one_setting_keeps_everything(stored: Project):
    runs = copy_often(stored, 2)

    sentence = prune(stored, ahead_s=1e8, retention=False)

    assert sentence == "PG_BRONZE_RETENTION is false: nothing is removed from Dagster's storage."
    assert run_ids(stored) == set(runs)


@ON_SQLITE
def test_events_of_other_assets_are_kept(stored: Project):
    for _ in range(3):
        stored.instance.report_runless_asset_event(dg.AssetMaterialization("report"))

    prune(stored, ahead_s=1e8)

    assert len(stored.instance.fetch_materializations(dg.AssetKey("report"), 10).records) == 3


@ON_SQLITE
def test_a_quiet_table_is_still_known_to_be_quiet(stored: Project):
    """It would be requested again, and the tick would report that its last run ended without a result."""
    copy_often(stored, 1)
    for _ in range(3):
        assert stored.copy("movie", tags=TICK).success
    assert stored.instance.fetch_observations(key("movie"), 10).records

    prune(stored, ahead_s=25 * HOUR_S)

    (observation,) = stored.instance.fetch_observations(key("movie"), 1).records
    assert metadata.is_quiet(observation.event_log_entry.asset_observation)


@ON_SQLITE
def test_snapshots_are_removed_when_no_run_has_named_them_for_an_hour(stored: Project):
    copy_often(stored, 2)
    stored.copy("person", tags=TICK)
    history = dagster_history.DagsterHistory(stored.instance)
    assert history.unused_snapshots() == set()

    prune(stored)
    assert history.unused_snapshots(), "the job and the plan of movie alone"
    prune(stored, ahead_s=2 * HOUR_S)

    assert history.unused_snapshots() == set()
    (record,) = stored.instance.get_run_records()
    plan = record.dagster_run.execution_plan_snapshot_id
    assert plan is not None
    assert stored.instance.get_execution_plan_snapshot(plan)


def test_ticks_are_removed_after_hours_and_failed_ones_after_a_day(stored: Project):
    location = RegisteredCodeLocationOrigin("pg_bronze")
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), "bronze_tick")
    state = InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.RUNNING)
    stored.instance.add_instigator_state(state)
    now = datetime.now(UTC).timestamp()
    for hours, status in ((25, "FAILURE"), (7, "SKIPPED"), (7, "SUCCESS"), (7, "FAILURE"), (1, "SKIPPED")):
        stored.instance.create_tick(
            TickData(
                state.instigator_origin_id,
                "bronze_tick",
                InstigatorType.SENSOR,
                TickStatus(status),
                now - hours * HOUR_S,
                [],
                **({"error": SerializableErrorInfo("failed", [], None)} if status == "FAILURE" else {}),
                selector_id=state.selector_id,
            )
        )

    prune(stored)

    ticks = stored.instance.get_ticks(state.instigator_origin_id, state.selector_id)
    assert [tick.status.value for tick in ticks] == ["SKIPPED", "FAILURE"]


def files(project: Project, folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("?*.db") if path.stem not in {"index", "runs", "schedules"})


@pytest.mark.parametrize("stored", ["pooled", *also("sqlite")], indirect=True)
def test_the_files_of_removed_runs_are_removed_and_the_others_shrink(stored: Project, tmp_path: Path):
    runs = copy_often(stored, 3)
    orphan = tmp_path / "home/storage/history/runs/11111111-2222-3333-4444-555555555555.db"
    stored.instance.all_logs(orphan.stem)
    assert orphan.exists()
    index = orphan.with_name("index.db")
    big = dg.AssetMaterialization(key("movie"), metadata={"text": "x" * 2**20})
    for _ in range(20):
        stored.instance.report_runless_asset_event(big)
    before = index.stat().st_size
    runs += copy_often(stored, 1)

    prune(stored, ahead_s=1)
    assert files(stored, tmp_path) == sorted([f"{runs[-1]}.db", orphan.name]), "it may belong to a run that is starting"
    prune(stored, ahead_s=2 * HOUR_S)

    assert files(stored, tmp_path) == [f"{runs[-1]}.db"]
    assert index.stat().st_size < before / 4
    assert index.with_name(".db").stat().st_size < before / 4


@ON_SQLITE
def test_an_unknown_storage_is_left_alone_with_a_sentence(stored: Project, monkeypatch: pytest.MonkeyPatch):
    runs = copy_often(stored, 2)
    monkeypatch.setattr(dagster_history, "SqlRunStorage", int)

    assert "which pg_bronze does not know. Nothing is removed." in prune(stored)
    assert run_ids(stored) == set(runs)


def test_the_tables_of_dagsters_storage_are_those_that_the_retention_changes():
    """First to fail after an upgrade of Dagster. Compare ``defs/dagster_history.py`` with the migration, then this."""
    used = ("event_logs", "asset_event_tags", "asset_check_executions", "runs", "run_tags", "snapshots")
    tables = {**SqlEventLogStorageMetadata.tables, **RunStorageSqlMetadata.tables}

    assert {name: " ".join(column.name for column in tables[name].columns) for name in used} == {
        "event_logs": "id run_id event dagster_event_type timestamp step_key asset_key partition",
        "asset_event_tags": "id event_id asset_key key value event_timestamp",
        "asset_check_executions": "id asset_key check_name partition run_id execution_status evaluation_event "
        "evaluation_event_timestamp evaluation_event_storage_id materialization_event_storage_id create_timestamp",
        "runs": "id run_id snapshot_id pipeline_name mode status run_body partition partition_set create_timestamp "
        "update_timestamp start_time end_time backfill_id",
        "run_tags": "id run_id key value",
        "snapshots": "id snapshot_id snapshot_body snapshot_type",
    }
    assert sorted({*SqlEventLogStorageMetadata.tables, *RunStorageSqlMetadata.tables}) == [
        "asset_check_executions", "asset_event_tags", "asset_keys", "backfill_tags", "bulk_actions",
        "concurrency_limits", "concurrency_slots", "daemon_heartbeats", "dynamic_partitions", "event_logs",
        "instance_info", "kvs", "pending_steps", "run_tags", "runs", "secondary_indexes", "snapshots",
    ]  # fmt: skip


@ON_SQLITE
def test_the_sensor_reports_what_it_removed(stored: Project):
    stored.reload()
    data = stored.evaluate("bronze_retention")

    assert data.skip_message.startswith("Removed 0 runs and 0 events from Dagster's storage; runs are kept since ")
    assert stored.instance.get_run_records(RunsFilter()) == []


@ON_SQLITE
def test_a_locked_storage_is_reported_and_fails_nothing(stored: Project, monkeypatch: pytest.MonkeyPatch):
    """A copy of the command line would fail with it, and so would the sensor."""
    runs = copy_often(stored, 2)

    def locked(*_: object) -> None:
        raise sqlalchemy.exc.OperationalError("delete", {}, Exception("database is locked"))

    monkeypatch.setattr(dagster_history.DagsterHistory, "remove_runs", locked)

    assert prune(stored) == "Dagster's storage could not be pruned (OperationalError). It is retried in a minute."
    assert run_ids(stored) == set(runs)


def test_the_sensor_names_its_code_location_as_dagster_does_in_the_tags_of_runs(
    cinema: Project, monkeypatch: pytest.MonkeyPatch
):
    """Otherwise no run that a person launched would be found."""
    origin = ManagedGrpcPythonEnvCodeLocationOrigin(LoadableTargetOrigin(module_name="pg_bronze.definitions"), "here")
    monkeypatch.setattr(dg.SensorEvaluationContext, "code_location_origin", origin)
    given: list[object] = []
    monkeypatch.setattr(retention, "prune", lambda *arguments, **_: given.append(arguments[-1]) or "")

    cinema.evaluate("bronze_retention")

    job = RemoteJobOrigin(RemoteRepositoryOrigin(origin, "__repository__"), "bronze")
    run = create_run_for_test(cinema.instance, "bronze", remote_job_origin=job)
    assert given == [run.tags_for_storage()[REPOSITORY_LABEL_TAG]]


@ON_SQLITE
def test_of_the_progress_of_a_first_load_one_observation_an_hour_stays(stored: Project):
    """A load of an hour adds 180 of them."""
    for step in range(5):
        entries = metadata.of_load(LoadProgress(step, step, step / 5, None))
        stored.instance.report_runless_asset_event(dg.AssetObservation(key("movie"), metadata=entries))
    prune(stored, ahead_s=49 * HOUR_S)
    assert len(stored.instance.fetch_observations(key("movie"), limit=10).records) <= 2
