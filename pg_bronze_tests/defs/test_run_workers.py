"""Run workers that stay, with a real code server: what they execute, and what happens if they are busy, gone or unfit.

A locked table keeps a run in flight: its worker waits for the lock.
"""

import io
import json
import os
import queue
import secrets
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import psycopg
import pyarrow.parquet as pq
import pytest
import yaml
from dagster._core.launcher import DefaultRunLauncher, WorkerStatus
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget
from dagster_graphql.test.utils import execute_dagster_graphql

from pg_bronze.defs import metadata
from pg_bronze.defs.run_workers import machine
from pg_bronze.defs.run_workers.current_run import CurrentRun
from pg_bronze.defs.run_workers.launcher import WORKER_TAG, ResidentRunLauncher, _worker_of
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.project import FIRST_DAY, MOVIES
from pg_bronze_tests.harness.servers import Bucket, Database, new_bucket

ROOT = Path(__file__).parents[2]
LAUNCH = """mutation ($params: ExecutionParams!) { launchPipelineExecution(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
TERMINATE = """mutation ($id: String!) { terminateRun(runId: $id) { __typename } }"""
LONGEST_S = 60


@dataclass
class Deployment:
    """An instance with the launcher of the project, and a code server, without a queue."""

    instance: dg.DagsterInstance
    workspace: WorkspaceProcessContext
    database: Database
    bucket: Bucket

    def ask(self, query: str, **variables: Any) -> Any:
        answer = execute_dagster_graphql(self.workspace.create_request_context(), query, variables)
        return next(iter(answer.data.values()))

    def launch(self, *tables: str, **tags: str) -> str:
        """Launch a run as the UI does, and return its id."""
        selector = {
            "repositoryName": "__repository__",
            "repositoryLocationName": "pg_bronze.definitions",
            "pipelineName": "__ASSET_JOB",
            "assetSelection": [{"path": ["bronze", table]} for table in tables],
        }
        tags["dagster/partition"] = str(datetime.now(UTC).date())
        data = [{"key": name.replace("__", "/"), "value": value} for name, value in tags.items()]
        answer = self.ask(LAUNCH, params={"selector": selector, "executionMetadata": {"tags": data}})
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return str(answer["run"]["runId"])

    def end(self, run_id: str) -> dg.DagsterRunStatus:
        """Wait for the end of a run, and return its status."""
        ended = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
        return self._wait(run_id, *ended)

    def wait_for_start(self, run_id: str) -> None:
        """Wait until a run is executed."""
        self._wait(run_id, dg.DagsterRunStatus.STARTED)

    def _wait(self, run_id: str, *statuses: dg.DagsterRunStatus) -> dg.DagsterRunStatus:
        deadline, never = time.monotonic() + LONGEST_S, threading.Event()
        while (run := self.instance.get_run_by_id(run_id)) is None or run.status not in statuses:
            assert time.monotonic() < deadline, self.events(run_id)
            never.wait(0.05)
        return run.status

    def worker(self, run_id: str) -> dict[str, Any] | None:
        """Return the worker of a run; None if it has none."""
        return _worker_of(self.instance.get_run_by_id(run_id))

    def pid(self, run_id: str) -> int:
        worker = self.worker(run_id)
        assert worker is not None, self.events(run_id)
        return int(worker["pid"])

    def events(self, run_id: str) -> list[str]:
        records = self.instance.get_records_for_run(run_id).records
        return [message for record in records if (message := record.event_log_entry.message)]

    @contextmanager
    def locked(self, table: str) -> Iterator[psycopg.Connection]:
        """Lock a table, so that a run that copies it stays in flight."""
        with self.database.connect(autocommit=False) as connection:
            connection.execute(f"lock table {table} in access exclusive mode".encode())
            yield connection


@pytest.fixture(scope="module")
def deployment(postgres_server, s3_server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """One code server and two workers for all tests of the module."""
    folder = tmp_path_factory.mktemp("deployment")
    name = f"workers_{secrets.token_hex(3)}"
    with postgres_server.connect() as connection:
        connection.autocommit = True
        connection.execute(f'create database "{name}"')
    database, bucket = Database(postgres_server, name), new_bucket(s3_server)
    database.execute(MOVIES)
    bucket.record_probe()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        for variable, value in (database.environ | bucket.environ | {"PG_BRONZE_START_DATE": FIRST_DAY}).items():
            monkeypatch.setenv(variable, value)
        with opened(folder, database, bucket, max_workers=2) as made:
            yield made


@contextmanager
def opened(folder: Path, database: Database, bucket: Bucket, **limits: int) -> Iterator[Deployment]:
    """Open an instance with the launcher of the project's dagster.yaml, and these limits."""
    config = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    config["run_launcher"]["config"] = limits
    config["run_coordinator"] = {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"}
    (folder / "dagster.yaml").write_text(yaml.safe_dump(config))
    target = ModuleTarget("pg_bronze.definitions", None, str(folder), None)
    with (
        dg.DagsterInstance.from_config(str(folder)) as instance,
        WorkspaceProcessContext(instance, target) as workspace,
    ):
        yield Deployment(instance, workspace, database, bucket)


def test_one_worker_executes_one_run_after_another(deployment: Deployment):
    """Each process would take 2 CPU seconds to import what the last one had imported."""
    first = deployment.launch("movie", "person")
    assert deployment.end(first) == dg.DagsterRunStatus.SUCCESS, deployment.events(first)
    deployment.database.execute("insert into movie values (100, 'late', now())")
    second = deployment.launch("movie")
    assert deployment.end(second) == dg.DagsterRunStatus.SUCCESS, deployment.events(second)

    assert deployment.pid(first) == deployment.pid(second)
    assert "batch: 1 new row in 1 table" in "\n".join(deployment.events(second))
    for table in ("movie", "person"):
        assert lake.compare(deployment.database, deployment.bucket, table) == lake.SAME


def test_two_runs_have_two_workers_and_a_third_one_a_new_process(deployment: Deployment):
    """A slow table must not hold up the others."""
    with deployment.locked("movie, person"):
        held = [deployment.launch("movie"), deployment.launch("person")]
        for run_id in held:
            deployment.wait_for_start(run_id)
        third = deployment.launch("movie", pg_bronze__batch="tick")
        deployment.wait_for_start(third)
    for run_id in (*held, third):
        assert deployment.end(run_id) == dg.DagsterRunStatus.SUCCESS, deployment.events(run_id)

    assert deployment.pid(held[0]) != deployment.pid(held[1])
    assert deployment.worker(third) is None
    expected = "This run is launched in a new process, because all 2 run workers have a run."
    assert expected in deployment.events(third)


def test_a_killed_worker_fails_its_run_at_once_and_the_next_run_has_another_one(deployment: Deployment):
    """A run without a process would keep its tables from being copied for half an hour."""
    with deployment.locked("movie"):
        lost = deployment.launch("movie")
        deployment.wait_for_start(lost)
        pid = deployment.pid(lost)
        os.kill(pid, signal.SIGKILL)
        assert deployment.end(lost) == dg.DagsterRunStatus.FAILURE
    assert f"The run worker (process {pid}) was killed by signal 9 while it executed this run." in deployment.events(
        lost
    )

    after = deployment.launch("movie")
    assert deployment.end(after) == dg.DagsterRunStatus.SUCCESS, deployment.events(after)
    assert deployment.pid(after) != pid


def test_a_terminated_run_is_canceled_and_its_worker_executes_the_next_one(deployment: Deployment):
    with deployment.locked("movie"):
        canceled = deployment.launch("movie")
        deployment.wait_for_start(canceled)
        pid = deployment.pid(canceled)
        assert deployment.ask(TERMINATE, id=canceled)["__typename"] == "TerminateRunSuccess"
        assert deployment.end(canceled) == dg.DagsterRunStatus.CANCELED
        assert psutil.pid_exists(pid)

    after = [deployment.launch("movie"), deployment.launch("person")]
    for run_id in after:
        assert deployment.end(run_id) == dg.DagsterRunStatus.SUCCESS, deployment.events(run_id)
    assert pid in {deployment.pid(run_id) for run_id in after}


def test_a_run_of_a_worker_that_outlives_its_launcher_is_terminated_by_another_process(deployment: Deployment):
    """The daemon is restarted while a run is in flight; the web server terminates the run."""
    with deployment.locked("movie"):
        run_id = deployment.launch("movie")
        deployment.wait_for_start(run_id)
        other = ResidentRunLauncher()
        other.register_instance(deployment.instance)
        run = deployment.instance.get_run_by_id(run_id)
        assert run is not None
        assert other.check_run_worker_health(run).status == WorkerStatus.RUNNING
        assert other.terminate(run_id)
        assert deployment.end(run_id) == dg.DagsterRunStatus.CANCELED


def test_a_lost_worker_is_found_by_the_monitoring_of_another_daemon(deployment: Deployment, monkeypatch):
    """The daemon that started the worker has ended, so nobody is told that the worker ends."""
    monkeypatch.setattr(ResidentRunLauncher, "_report_lost", lambda *_: None)
    with deployment.locked("movie"):
        run_id = deployment.launch("movie")
        deployment.wait_for_start(run_id)
        pid = deployment.pid(run_id)
        psutil.Process(pid).kill()
        psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=10)
        run = deployment.instance.get_run_by_id(run_id)
        assert run is not None
        health = deployment.instance.run_launcher.check_run_worker_health(run)

    assert (health.status, health.msg) == (WorkerStatus.FAILED, f"The run worker (process {pid}) has ended.")
    deployment.instance.report_run_failed(run)


def test_a_run_of_a_worker_whose_socket_is_not_visible_goes_on(instance_with_run):
    """With a private temporary folder, its run would be marked as canceled while the worker goes on."""
    instance, launcher, run = instance_with_run(os.getpid())

    assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
    assert not launcher.terminate(run.run_id)
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.STARTED
    (event,) = instance.get_records_for_run(run.run_id).records
    assert "is not visible here" in event.event_log_entry.message


def test_a_run_of_a_worker_that_has_ended_with_its_folder_is_ended(instance_with_run):
    process = subprocess.Popen(["/bin/true"])
    process.wait()
    instance, launcher, run = instance_with_run(process.pid)

    assert launcher.check_run_worker_health(run).status == WorkerStatus.FAILED
    assert launcher.terminate(run.run_id)
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.CANCELED


# What distinguishes the machine of a worker from this one; the last two have the same name.
ELSEWHERE = {
    "another name": {"host": "pg-2"},
    "a copy of this machine": {"boot": "6e8a1d1c-0000-4000-8000-000000000000"},
    "another container": {"processes": "pid:[1]"},
}


@pytest.mark.parametrize("difference", ELSEWHERE)
def test_a_run_on_another_machine_goes_on(instance_with_run, difference: str):
    """Its socket and its process do not exist here. It would be marked as ended while its worker goes on."""
    process = subprocess.Popen(["/bin/true"])
    process.wait()
    instance, launcher, run = instance_with_run(process.pid, **ELSEWHERE[difference])

    assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
    assert not launcher.terminate(run.run_id)
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.STARTED
    (event,) = instance.get_records_for_run(run.run_id).records
    found = "pg-2" if difference == "another name" else f"another machine or container named {socket.gethostname()}"
    assert f"The run is executed on {found}" in event.event_log_entry.message


def test_a_worker_of_another_container_with_the_same_folder_is_asked(instance_with_run, tmp_path: Path):
    """As in a pod: its containers have one name, and may share the folder for temporary files."""
    instance, launcher, run = instance_with_run(os.getpid(), processes="pid:[1]")
    (tmp_path / "private").mkdir()
    worker = CurrentRun(str(tmp_path / "private" / "1"))
    try:
        with worker.executing(run.run_id):
            assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
        assert launcher.check_run_worker_health(run).status == WorkerStatus.FAILED
    finally:
        worker.close()
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.STARTED


def test_the_host_name_decides_about_a_worker_of_an_earlier_version(instance_with_run):
    process = subprocess.Popen(["/bin/true"])
    process.wait()
    _, launcher, run = instance_with_run(process.pid, boot=None, processes=None)

    assert launcher.check_run_worker_health(run).status == WorkerStatus.FAILED


@pytest.fixture
def instance_with_run(tmp_path: Path):
    """Returns a function of a process id: a run that this process executes, its instance, and a launcher.

    Other arguments are what is different about its machine; None is not in the tag.
    """
    with dg.DagsterInstance.ephemeral() as instance:

        def make(pid: int, **differences: str | None):
            found = {**machine.identity(), "socket": str(tmp_path / "private" / "1"), "pid": pid, **differences}
            worker = {name: value for name, value in found.items() if value is not None}
            run = dg.DagsterRun("bronze", status=dg.DagsterRunStatus.STARTED, tags={WORKER_TAG: json.dumps(worker)})
            instance.add_run(run)
            launcher = ResidentRunLauncher()
            launcher.register_instance(instance)
            return instance, launcher, run

        yield make


def test_changed_settings_are_used_by_the_next_run_of_a_worker(deployment: Deployment):
    """A corrected setting must not need a restart."""
    before = deployment.launch("movie")
    deployment.end(before)
    Path(".env").write_text("PG_BRONZE_COMPRESSION=uncompressed\n")
    try:
        deployment.database.execute("insert into movie values (200, 'later', now())")
        known = set(lake.keys(deployment.bucket, "movie"))
        after = deployment.launch("movie")
        assert deployment.end(after) == dg.DagsterRunStatus.SUCCESS, deployment.events(after)
    finally:
        Path(".env").unlink()

    (new,) = set(lake.keys(deployment.bucket, "movie")) - known
    footer = pq.read_metadata(io.BytesIO(deployment.bucket.store().get(new) or b""))
    assert footer.row_group(0).column(0).compression == "UNCOMPRESSED"
    assert deployment.pid(before) == deployment.pid(after)
    assert machine.identity().items() <= (deployment.worker(after) or {}).items()


@pytest.fixture
def new_processes(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> Iterator["queue.Queue[str]"]:
    """The runs that are to be launched in new processes, which are not started."""
    found: queue.Queue[str] = queue.Queue()
    monkeypatch.setattr(DefaultRunLauncher, "launch_run", lambda _, context: found.put(context.dagster_run.run_id))
    yield found
    unfinished = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.NOT_STARTED]
    for run in deployment.instance.get_runs(dg.RunsFilter(statuses=unfinished)):
        deployment.instance.report_run_failed(run)


def test_a_first_load_that_takes_long_has_a_process_of_its_own(deployment: Deployment, new_processes):
    """It lowers its priority, which a process cannot raise again."""
    run_id = deployment.launch("person", **{metadata.FIRST_LOAD_TAG: "true"})

    assert new_processes.get(timeout=LONGEST_S) == run_id
    assert deployment.worker(run_id) is None


def test_a_worker_with_other_settings_than_the_code_server_executes_nothing(
    deployment: Deployment, new_processes, monkeypatch
):
    """The daemon may have another environment, and with it another database."""
    launcher = ResidentRunLauncher()
    launcher.register_instance(deployment.instance)
    monkeypatch.setattr(deployment.instance, "_run_launcher", launcher)
    monkeypatch.setenv("PG_BRONZE_SLICE_ROWS", "1234")

    run_id = deployment.launch("person")

    assert new_processes.get(timeout=LONGEST_S) == run_id
    expected = "because the settings of a run worker differ from those of the code location."
    assert f"This run is launched in a new process, {expected}" in deployment.events(run_id)


def test_the_end_of_the_launcher_ends_its_workers(deployment: Deployment):
    """It is the last test of this module. Processes that stay would hold the project folder."""
    run_id = deployment.launch("person")
    assert deployment.end(run_id) == dg.DagsterRunStatus.SUCCESS, deployment.events(run_id)
    worker = psutil.Process(deployment.pid(run_id))

    deployment.instance.run_launcher.dispose()

    assert psutil.wait_procs([worker], timeout=30)[1] == []
