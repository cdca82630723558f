"""The whole demo, with a project of one asset, so that only the launcher is tested."""

import fcntl
import io
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from pg_bronze.demo.data_dir import remove_data_dir
from pg_bronze.demo.launcher import run_demo
from pg_bronze_tests.demo.process_end import has_ended
from pg_bronze_tests.harness.repetitions import repetition

PROJECT = {
    "workspace.yaml": """
        load_from:
          - python_module: {module_name: stand_in, location_name: pg_bronze, working_directory: .}
    """,
    "dagster.yaml": """
        storage:
          sqlite:
            base_dir: .dagster/storage
        telemetry: {enabled: false}
        run_coordinator:
          module: dagster._core.run_coordinator.queued_run_coordinator
          class: QueuedRunCoordinator
          config: {dequeue_interval_seconds: 1}
    """,
    "stand_in.py": """
        import os
        import time
        from pathlib import Path

        import dagster as dg

        @dg.asset(group_name="bronze")
        def movie(context: dg.AssetExecutionContext) -> None:
            database, bucket = os.environ["PG_DB"], os.environ["MINIO_BUCKET"]
            context.log.info("copied movie: %d runs, %s -> s3://%s", len(context.instance.get_runs()), database, bucket)
            if os.environ.get("STAND_IN_HANGS"):
                time.sleep(600)
            if os.environ.get("STAND_IN_SLOW"):
                time.sleep(3)
                Path(os.environ["STAND_IN_SLOW"]).touch()

        @dg.sensor(target="*", minimum_interval_seconds=9, default_status=dg.DefaultSensorStatus.RUNNING)
        def bronze_tick(context: dg.SensorEvaluationContext) -> dg.RunRequest:
            return dg.RunRequest()

        defs = dg.Definitions([movie], sensors=[bronze_tick], executor=dg.in_process_executor)
    """,
}
START = (
    "import sys; from pathlib import Path; from pg_bronze.demo.launcher import run_demo\n"
    "state, project, port, *options = sys.argv[1:]\n"
    "sys.exit(run_demo(Path(state), project_dir=Path(project), port=int(port), yes='yes' in options))\n"
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "a project"
    folder.mkdir()
    for name, text in PROJECT.items():
        (folder / name).write_text(textwrap.dedent(text))
    return folder


class Demo:
    """A demo in a process of its own, and everything that it has printed."""

    def __init__(self, state: Path, project: Path, *options: str, port: int = 3000, **variables: str) -> None:
        self.state = state
        self.printed = ""
        ambient = {
            name: value for name, value in os.environ.items() if not name.startswith(("PG", "MINIO_", "DAGSTER"))
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, str(state), str(project), str(port), *options],
            cwd=project,
            env=ambient | {"PYTHONPATH": str(Path(__file__).parents[2])} | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )

    def until(self, pattern: str) -> re.Match[str]:
        """Read what it prints until a line matches."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.printed += line
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"it ended without printing {pattern!r}:\n{self.printed}")

    def wait(self) -> int:
        assert self.process.stdout is not None
        self.printed += self.process.stdout.read()
        return self.process.wait(90)

    def process_ids(self) -> list[int]:
        try:
            children = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return [self.process.pid, *(child.pid for child in children)]

    def rows(self, query: str) -> int:
        """Query the database of the demo, with the settings that it wrote for shells."""
        lines = (self.state / "env.sh").read_text().splitlines()
        at = {name: value.strip("'") for name, value in (line.removeprefix("export ").split("=", 1) for line in lines)}
        with psycopg.connect(
            host=at["PG_HOST"], port=at["PG_PORT"], dbname=at["PG_DB"], user=at["PG_USER"], password=at["PG_PASS"]
        ) as connection:
            row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return int(row[0])


@pytest.fixture
def demos() -> Iterator[list[Demo]]:
    made: list[Demo] = []
    yield made
    for demo in made:
        left = demo.process_ids()
        demo.process.kill()
        demo.process.wait()
        assert demo.process.stdout is not None
        demo.process.stdout.close()
        assert all(map(has_ended, left))
        remove_data_dir(demo.state / "postgres")


@pytest.mark.slow
@repetition
@pytest.mark.timeout(300)
def test_a_killed_demo_resumes_and_finishes_its_run_before_it_stops(
    demos: list[Demo], project: Path, tmp_path: Path
) -> None:
    state = tmp_path / "the state"
    first = Demo(state, project, STAND_IN_HANGS="yes")
    demos.append(first)
    first.until(r"copied movie: \d+ runs, cine -> s3://meteo-bronze$")
    first.until(r"first slice [\d.]+ s after the start")
    processes = first.process_ids()
    held = Demo(state, project)
    demos.append(held)
    code = held.wait()
    assert (code, held.printed.strip()) == (
        2,
        f"pg-bronze: another demo is running in {state}. Stop it, or choose another folder with --state-dir.",
    )

    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait()
    assert len(processes) > 10
    assert all(map(has_ended, processes))

    # The port of its page is taken by another program now.
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (state / "dagster.log").unlink(missing_ok=True)
        finished = tmp_path / "finished"
        second = Demo(state, project, port=port, STAND_IN_SLOW=str(finished))
        demos.append(second)
        second.until(rf"port {port} is in use; the web page uses port \d+")
        runs = int(second.until(r"copied movie: (\d+) runs")[1])
        movies = second.rows("select count(*) from movie")
        shown = (state / "env.sh").read_text()
        processes = second.process_ids()
        assert not finished.exists()
        second.process.send_signal(signal.SIGINT)

    assert second.wait() == 0
    assert finished.exists()
    assert all(map(has_ended, processes))
    log = (state / "dagster.log").read_text()
    assert log.count(" - RUN_SUCCESS - ") == log.count(" - RUN_START - ") > 0
    assert second.printed.endswith("stopped\n")
    assert runs > 1
    assert "export PG_BRONZE_LATEST='movie'\n" in shown
    # The run that was killed with the demo would block its tables for half an hour.
    with sqlite3.connect(state / "dagster_home" / ".dagster" / "storage" / "history" / "runs.db") as storage:
        ended = storage.execute("select status from runs order by id limit 1").fetchone()
    storage.close()
    assert ended == ("FAILURE",)
    assert movies >= 2000


@pytest.mark.slow
@repetition
@pytest.mark.timeout(300)
def test_a_killed_server_is_reported_and_stops_the_demo_which_uses_the_bucket_of_the_user(
    demos: list[Demo], project: Path, tmp_path: Path
) -> None:
    (project / ".env").write_text("MINIO_BUCKET=mine\nMINIO_ENDPOINT=http://127.0.0.1:1\n")
    demo = Demo(tmp_path / "state", project, "yes")
    demos.append(demo)
    demo.until(r"copied movie: \d+ runs, cine -> s3://mine$")
    processes = demo.process_ids()
    assert not (demo.state / "s3").exists()
    record = json.loads((demo.state / "postgres" / "process.json").read_text())
    os.kill(record["pid"], signal.SIGKILL)

    assert demo.wait() == 1
    assert "PostgreSQL ended unexpectedly. Last lines of its log" in demo.printed
    assert all(map(has_ended, processes))


@pytest.mark.parametrize("variables", [{"PG_DB": "shop"}, {"MINIO_BUCKET": "lake"}], ids=["database", "bucket"])
def test_a_server_of_the_user_beside_one_of_the_demo_needs_a_confirmation(
    demos: list[Demo], project: Path, tmp_path: Path, variables: dict[str, str]
) -> None:
    """The data of a real database would be copied to an open server, or sample data to a real bucket."""
    demo = Demo(tmp_path / "state", project, **variables)
    demos.append(demo)

    assert demo.wait() == 2
    assert demo.printed.startswith("pg-bronze: ")
    assert demo.printed.endswith(" Set both or neither of them, or confirm with --yes.\n")
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("answer", ["y", "n"])
def test_on_a_terminal_the_confirmation_is_a_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    controller, terminal = os.openpty()
    (tmp_path / "lock").touch()
    with (
        open(terminal, encoding="utf-8") as stdin,
        (tmp_path / "lock").open("a") as lock,
        open(controller, "w") as keys,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setenv("PG_DB", "shop")
        keys.write(f"{answer}\n")
        keys.flush()
        printed = io.StringIO()

        # A confirmed demo ends at the lock, before it starts anything.
        assert run_demo(tmp_path, out=printed) == 2

    assert ("another demo is running" if answer == "y" else "the demo was not started") in printed.getvalue()
