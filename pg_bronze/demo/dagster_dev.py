"""``dagster dev`` and all of its processes, started and stopped as one. Dagster is not imported."""

import contextlib
import http.client
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from pg_bronze.demo.ports import HOST
from pg_bronze.demo.processes import Child

_RUN_GRACE_S = 60.0
# A run whose process was killed keeps the state "started" until its time limit, half an hour, and its tables are not
# copied until then. No run is in flight here, because no process of the last demo is left.
_FAIL_RUNS = """
import dagster as dg
statuses = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
with dg.DagsterInstance.get() as instance:
    for run in instance.get_runs(dg.RunsFilter(statuses=statuses)):
        instance.report_run_failed(run, "The demo was killed while this run was in flight.")
"""


class DagsterDev:
    """A running ``dagster dev``. Its output is in ``log``; the log of the last start is kept beside it.

    ``url`` is the address of the web page. It stops when this process ends, whether that is killed or not.
    """

    def __init__(self, state_dir: Path, workspace: Path, cwd: Path, variables: Mapping[str, str], port: int) -> None:
        self.url = f"http://{HOST}:{port}"
        self.log = state_dir / "dagster.log"
        self._unfinished = _unfinished(state_dir)
        self._unfinished.touch()
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".log.1"))
        self.log.touch()
        supervisor = str(Path(__file__).with_name("supervisor.py"))
        dev = [sys.executable, "-m", "dagster", "dev", "-w", str(workspace), "-h", HOST, "-p", str(port)]
        self.child = Child(
            "dagster dev",
            [sys.executable, "-I", "-S", supervisor, str(_RUN_GRACE_S), *dev],
            log=self.log,
            record=record_file(state_dir),
            env=variables,
            cwd=cwd,
            # The supervisor outlives this process for the moment that it needs to kill the others.
            death_signal=None,
            keep_stdin=True,
        )

    def is_ready(self) -> bool:
        """Return whether the web server answers."""
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=2)
        with contextlib.closing(connection):
            try:
                connection.request("GET", "/server_info")
                return connection.getresponse().status == 200
            except (OSError, http.client.HTTPException):
                return False

    def stop(self, *, is_urgent: Callable[[], bool] = lambda: False) -> None:
        """Stop it and wait until no process is left. Runs in flight have a minute to end, unless ``is_urgent()``."""
        self._send(b"stop\n")
        deadline = time.monotonic() + _RUN_GRACE_S + 10
        while not self.child.wait(0.2) and time.monotonic() < deadline:
            if is_urgent():
                self._send(b"kill\n")
        if self.child.poll() == 0:
            self._unfinished.unlink(missing_ok=True)
        self.child.kill()

    def _send(self, request: bytes) -> None:
        if self.child.stdin:
            with contextlib.suppress(BrokenPipeError):
                self.child.stdin.write(request)
                self.child.stdin.flush()


def fail_interrupted_runs(state_dir: Path, variables: Mapping[str, str], cwd: Path) -> None:
    """Mark the runs as failed that were in flight when the last demo in this folder was killed.

    Takes 2 s after a kill, else nothing. The Dagster home must be used by demos in this folder only. If it fails, the
    time limit of Dagster ends the runs.
    """
    if _unfinished(state_dir).exists():
        with (state_dir / "dagster.log").open("ab") as log:
            subprocess.run(
                [sys.executable, "-c", _FAIL_RUNS],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=cwd,
                env=dict(variables),
                check=False,
            )


def _unfinished(state_dir: Path) -> Path:
    return state_dir / "unfinished"


def record_file(state_dir: Path) -> Path:
    """Return the file that identifies the processes of ``dagster dev`` for the next start."""
    return state_dir / "dagster.json"
