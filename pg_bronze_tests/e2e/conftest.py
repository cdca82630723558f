"""Real commands and a real `dagster dev`, each in a separate project folder with a clean environment."""

import atexit
import contextlib
import functools
import itertools
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from pg_bronze.defs.sqlite_storage import PooledSqliteStorage
from pg_bronze_tests.harness import installation as wheels
from pg_bronze_tests.harness import loaded
from pg_bronze_tests.harness.servers import Bucket, Database, new_bucket

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def wait_until(met: Callable[[], Any], what: str, timeout_s: float, pause_s: float = 0.25) -> Any:
    """Call ``met`` until it returns a true value, and return that; fail with ``what`` after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    never = threading.Event()
    while not (answer := met()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:.0f} s for: {what}")
        never.wait(pause_s)
    return answer


def clean_environment(home: Path, *settings: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a new login with these settings."""
    # PYTHONPATH leads to the copy of the project in which benchmarks/mistakes.py plants its mistakes.
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR", "PYTHONPATH") if name in os.environ}
    return {**kept, "HOME": str(home), **{name: value for some in settings for name, value in some.items()}}


def default_sigint() -> None:
    # A shell that starts its children in the background makes them ignore it, and Dagster could not be stopped.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass
class Shop:
    """A project folder with a database, a bucket, and the environment for its commands."""

    folder: Path
    database: Database
    bucket: Bucket
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, timeout_s: float = 60, **changed: str | None) -> subprocess.CompletedProcess[str]:
        """Run `pg-bronze` in a process whose modules are loaded. A variable that is None is removed."""
        merged: dict[str, str | None] = {**self.environment, **changed}
        environment = {name: value for name, value in merged.items() if value is not None}
        return loaded.run(arguments, self.folder, environment, timeout_s)

    def start(self, *arguments: str, output: Path) -> loaded.Command:
        """Start `pg-bronze` in a process whose modules are loaded."""
        output.touch()
        return loaded.start(arguments, self.folder, self.environment, output)

    def start_program(self, program: str, *arguments: str, output: Path) -> subprocess.Popen[bytes]:
        with output.open("wb") as stream:
            return subprocess.Popen(
                [BIN / program, *arguments], cwd=self.folder, env=self.environment, stdout=stream,
                stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=default_sigint,
            )  # fmt: skip


@functools.cache
def new_storage() -> Path:
    """Return Dagster's storage without a run. To create one takes a third of the time of a command in a new folder."""
    folder = tempfile.TemporaryDirectory(prefix="pg_bronze-storage-")
    atexit.register(folder.cleanup)
    made = PooledSqliteStorage.from_local(folder.name)
    for part in (made.run_storage, made.event_log_storage, made.schedule_storage):
        part.dispose()
    return Path(folder.name)


def make_shop(folder: Path, database: Database, bucket: Bucket) -> Shop:
    """Create a project folder with the two files that Dagster's commands read."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("workspace.yaml", "dagster.yaml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(new_storage(), folder / ".dagster/storage", dirs_exist_ok=True)
    bucket.record_probe()
    return Shop(folder, database, bucket, clean_environment(folder, database.environ, bucket.environ))


@pytest.fixture
def shop(tmp_path: Path, database: Database, bucket: Bucket) -> Shop:
    loaded.load()
    return make_shop(tmp_path / "a shop", database, bucket)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    return wheels.build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def installation(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands of the wheel, installed in a separate environment."""
    return wheels.install(wheel, tmp_path_factory.mktemp("installed") / "an environment")


def command_lines(pid: int) -> set[str]:
    """Return the command lines of a process and its descendants, as `ps` shows them."""
    lines = set()
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                lines.add(" ".join(process.cmdline()))
    return lines


def texts(folder: Path) -> dict[str, str]:
    """Return the text of every file below ``folder`` by its path, without files that are removed during the call."""
    found = {}
    for path in filter(Path.is_file, folder.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            found[str(path)] = path.read_bytes().decode("latin-1")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def end(process: subprocess.Popen[bytes] | loaded.Command, timeout_s: float = 30) -> int | None:
    """Stop a process as Ctrl-C does, then kill the rest of its session."""
    process.send_signal(signal.SIGINT)
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


@dataclass
class Dev:
    """A running `dagster dev` and its GraphQL address."""

    shop: Shop
    port: int
    log: Path
    pid: int

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as reply:
            answer: dict[str, Any] = json.load(reply)
        assert "errors" not in answer, answer["errors"]
        data: dict[str, Any] = answer["data"]
        return data

    def loaded(self) -> bool:
        try:
            data = self.ask(
                """{ workspaceOrError { ... on Workspace { locationEntries {
                     loadStatus locationOrLoadError { __typename } } } } }"""
            )
        except OSError:
            return False
        entries = data["workspaceOrError"].get("locationEntries", [])
        return [item["loadStatus"] for item in entries] == ["LOADED"] and bool(entries[0]["locationOrLoadError"])

    def assets(self) -> dict[str, set[str]]:
        """Return the dependencies of each asset."""
        nodes = self.ask("{ assetNodes { assetKey { path } dependencyKeys { path } } }")["assetNodes"]
        return {
            "/".join(node["assetKey"]["path"]): {"/".join(item["path"]) for item in node["dependencyKeys"]}
            for node in nodes
        }

    def ticks(self, sensor: str, limit: int = 5) -> list[dict[str, Any]]:
        """Return the last ticks, newest first."""
        data = self.ask(
            """query ($selector: SensorSelector!, $limit: Int!) { sensorOrError(sensorSelector: $selector) {
                 ... on Sensor { sensorState { ticks(limit: $limit) {
                   timestamp status skipReason runIds error { message } } } } } }""",
            selector={"repositoryName": "__repository__", "repositoryLocationName": "pg_bronze", "sensorName": sensor},
            limit=limit,
        )
        ticks: list[dict[str, Any]] = data["sensorOrError"]["sensorState"]["ticks"]
        return ticks

    def launch(self, day: str, *tables: str, job: str = "__ASSET_JOB") -> str:
        """Materialize tables for a day, or launch a job, as the UI does, and return the run's id."""
        data = self.ask(
            """mutation ($params: ExecutionParams!) { launchPipelineExecution(executionParams: $params) {
                 __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
                 ... on InvalidSubsetError { message } } }""",
            params={
                "selector": {
                    "repositoryName": "__repository__", "repositoryLocationName": "pg_bronze",
                    "pipelineName": job,
                    "assetSelection": [{"path": ["bronze", *table.split(".")]} for table in tables] or None,
                },
                "executionMetadata": {"tags": [{"key": "dagster/partition", "value": day}]},
            },
        )["launchPipelineExecution"]  # fmt: skip
        assert data["__typename"] == "LaunchRunSuccess", data
        run_id: str = data["run"]["runId"]
        return run_id

    def outcome(self, run_id: str, timeout_s: float = 60) -> str:
        def ended() -> str | None:
            data = self.ask("query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }", id=run_id)
            status: str = data["runOrError"]["status"]
            return status if status in {"SUCCESS", "FAILURE", "CANCELED"} else None

        outcome: str = wait_until(ended, f"the end of run {run_id}", timeout_s)
        return outcome

    def unfinished(self) -> int:
        data = self.ask(
            """{ runsOrError(filter: {statuses: [QUEUED, NOT_STARTED, STARTING, STARTED, CANCELING]}) {
                 ... on Runs { results { runId } } } }"""
        )
        return len(data["runsOrError"]["results"])


TABLES = """
create table movie (
  id int primary key, title text not null, price numeric(8, 2), updated_at timestamptz not null default now()
);
create table person (id int primary key, name text, updated_at timestamptz default now());
create table note (id text primary key, body text);
create table leaving (id int primary key);
insert into movie select i, 'film ' || i, i / 7.0, now() from generate_series(1, 500) i;
insert into person select i, 'person ' || i from generate_series(1, 50) i;
insert into note select gen_random_uuid(), 'note ' || i from generate_series(1, 20) i;
insert into leaving values (1);
"""


class Writers:
    """Sessions that insert, update, roll back, use savepoints and commit late."""

    def __init__(self, database: Database, count: int = 3, first: int = 10_000) -> None:
        self.database = database
        self.ids = itertools.count(first)
        self.stopped = threading.Event()
        self.faults: list[BaseException] = []
        self.commits = 0
        self.threads = [threading.Thread(target=self._work, args=(random.Random(number),)) for number in range(count)]

    def _work(self, chance: random.Random) -> None:
        try:
            with self.database.connect(autocommit=False) as connection:
                while not self.stopped.is_set():
                    for _ in range(chance.randint(1, 5)):
                        number = next(self.ids)
                        connection.execute(
                            "insert into movie values (%s, %s, %s, now())", (number, f"film {number}", number / 3)
                        )
                        with connection.transaction():  # a savepoint, which has its own transaction id
                            connection.execute(
                                "insert into person (id, name) values (%s, %s)", (number, chance.choice([None, "x"]))
                            )
                    connection.execute(
                        "update movie set title = title || '!', updated_at = now() where id = %s",
                        (chance.randint(1, 500),),
                    )
                    connection.execute("insert into note values (gen_random_uuid(), 'while it is open')")
                    # Some transactions commit long after others that started later.
                    self.stopped.wait(chance.choice([0.0, 0.05, 0.2, 1.5]))
                    if chance.random() < 0.15:
                        connection.rollback()
                    else:
                        connection.commit()
                        self.commits += 1
        except BaseException as fault:  # noqa: BLE001  # raised in the main thread, by __exit__
            self.faults.append(fault)

    def __enter__(self) -> "Writers":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join(30)
        assert not self.faults, self.faults


@contextlib.contextmanager
def running(shop: Shop) -> Iterator[Dev]:
    """Yield a `dagster dev` that has loaded the assets, and stop it as Ctrl-C does."""
    port, log = free_port(), shop.folder / "dev.log"
    process = shop.start_program("dagster", "dev", "-h", "127.0.0.1", "-p", str(port), output=log)
    made = Dev(shop, port, log, process.pid)
    try:
        wait_until(lambda: made.loaded() or process.poll() is not None, "dagster dev to load the location", 90)
        assert process.poll() is None, log.read_text()[-3000:]
        yield made
    finally:
        end(process)


@pytest.fixture(scope="module")
def dev(postgres_server, s3_server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """One `dagster dev` with four tables for all tests of a module."""
    name = f"dev_{secrets.token_hex(3)}"
    with postgres_server.connect() as connection:
        connection.autocommit = True
        connection.execute(f'create database "{name}"')
    database = Database(postgres_server, name)
    database.execute(TABLES)
    shop = make_shop(tmp_path_factory.mktemp("dev") / "project", database, new_bucket(s3_server))
    shop.environment["PG_BRONZE_START_DATE"] = "2026-01-01"
    shop.environment["PG_BRONZE_LATEST"] = "movie"
    try:
        with running(shop) as made:
            yield made
    finally:
        with postgres_server.connect() as connection:
            connection.autocommit = True
            connection.execute(f'drop database "{name}" with (force)')
