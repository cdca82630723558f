"""The whole demo, with a project of one asset in the place of ours, so that only the launcher is tested."""

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

import psycopg
import pytest

from pg_bronze.demo import home
from pg_bronze.demo.process_table import Process, process_table
from pg_bronze_tests.demo.endings import gone

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
    "sys.exit(run_demo(Path(sys.argv[1]), project_dir=Path(sys.argv[2]), port=int(sys.argv[3])))\n"
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "a project"
    folder.mkdir()
    for name, text in PROJECT.items():
        (folder / name).write_text(textwrap.dedent(text))
    return folder


class Demo:
    """A demo in a process of its own, and all it has said."""

    def __init__(self, state: Path, project: Path, port: int = 3000, **variables: str) -> None:
        self.state = state
        self.said = ""
        ambient = {
            name: value for name, value in os.environ.items() if not name.startswith(("PG", "MINIO_", "DAGSTER"))
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, str(state), str(project), str(port)],
            cwd=project,
            env=ambient | {"PYTHONPATH": str(Path(__file__).parents[2])} | variables,
            stdout=subprocess.PIPE,
            text=True,
        )

    def until(self, pattern: str) -> re.Match[str]:
        """Read what it says until a line matches."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"it ended without saying {pattern!r}:\n{self.said}")

    def wait(self) -> int:
        assert self.process.stdout is not None
        self.said += self.process.stdout.read()
        return self.process.wait(90)

    def family(self) -> list[Process]:
        table = process_table()
        found = [process for process in table if process.pid == self.process.pid]
        for process in found:
            found += [child for child in table if child.parent == process.pid]
        return found

    def rows(self, query: str) -> int:
        """Ask the demo's database, with what it wrote for shells."""
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
        left = demo.family()
        demo.process.kill()
        demo.process.wait()
        assert demo.process.stdout is not None
        demo.process.stdout.close()
        assert all(gone(process.pid) for process in left)
        home.remove(demo.state / "postgres")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_demo_runs_is_killed_and_goes_on_from_where_it_was(demos: list[Demo], project: Path, tmp_path: Path) -> None:
    state = tmp_path / "the state"
    first = Demo(state, project, STAND_IN_HANGS="yes")
    demos.append(first)
    first.until(r"copied movie: \d+ runs, cine -> s3://meteo-bronze$")
    first.until(r"first slice [\d.]+ s after the start")
    family = first.family()
    held = Demo(state, project)
    demos.append(held)
    code = held.wait()
    assert (code, held.said.strip()) == (
        2,
        f"another demo is running in {state}. Stop it, or give this one another state folder.",
    )

    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait()
    assert len(family) > 10
    assert all(gone(process.pid) for process in family)

    # Wherever its page was: another program has that port now.
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        second = Demo(state, project, port)
        demos.append(second)
        second.until(rf"port {port} is in use; the web page gets \d+")
        runs = int(second.until(r"copied movie: (\d+) runs")[1])
        movies = second.rows("select count(*) from movie")
        shown = (state / "env.sh").read_text()
    second.process.send_signal(signal.SIGINT)

    assert second.wait() == 0
    assert second.said.endswith("stopped\n")
    assert runs > 1
    assert "export PG_BRONZE_LATEST='movie'\n" in shown
    # The run that was killed with the demo would keep its tables waiting for half an hour.
    with sqlite3.connect(state / "dagster_home" / ".dagster" / "storage" / "history" / "runs.db") as storage:
        ended = storage.execute("select status from runs order by id limit 1").fetchone()
    storage.close()
    assert ended == ("FAILURE",)
    assert movies >= 2000


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_run_in_flight_ends_well_when_the_demo_is_stopped(demos: list[Demo], project: Path, tmp_path: Path) -> None:
    finished = tmp_path / "finished"
    demo = Demo(tmp_path / "state", project, STAND_IN_SLOW=str(finished))
    demos.append(demo)
    demo.until(r"copied movie: \d+ runs")
    family = demo.family()
    assert not finished.exists()
    demo.process.send_signal(signal.SIGTERM)

    assert demo.wait() == 0
    assert finished.exists()
    assert all(gone(process.pid) for process in family)
    log = (demo.state / "dagster.log").read_text()
    assert log.count(" - RUN_SUCCESS - ") == log.count(" - RUN_START - ") > 0
    assert "RUN_FAILURE" not in log


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_server_that_dies_is_named_and_the_rest_stops_and_the_users_own_servers_are_used(
    demos: list[Demo], project: Path, tmp_path: Path
) -> None:
    (project / ".env").write_text("MINIO_BUCKET=mine\nMINIO_ENDPOINT=http://127.0.0.1:1\n")
    demo = Demo(tmp_path / "state", project)
    demos.append(demo)
    demo.until(r"copied movie: \d+ runs, cine -> s3://mine$")
    family = demo.family()
    assert not (demo.state / "s3").exists()
    noted = json.loads((demo.state / "postgres" / "process.json").read_text())
    os.kill(noted["pid"], signal.SIGKILL)

    assert demo.wait() == 1
    assert "PostgreSQL ended unexpectedly. Its log's last lines" in demo.said
    assert all(gone(process.pid) for process in family)
