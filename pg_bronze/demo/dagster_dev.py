"""``dagster dev`` and all it starts, as one thing that runs, ends well and leaves nothing. Dagster is not imported."""

import contextlib
import http.client
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from pg_bronze.demo.processes import HOST, Child

_RUN_GRACE_S = 60.0
# Run by a Python of its own. A run whose process was killed would count as running until its time is up, half an hour,
# and its tables would wait for it; nobody can be running it, because nothing of the last demo is left.
_END_RUNS = """
import dagster as dg
open_ones = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
with dg.DagsterInstance.get() as instance:
    for run in instance.get_runs(dg.RunsFilter(statuses=open_ones)):
        instance.report_run_failed(run, "The demo was killed while this run was in flight.")
"""


class DagsterDev:
    """``dagster dev`` on one port, its output in ``log``; the log of the time before is kept beside it."""

    def __init__(self, state_dir: Path, workspace: Path, cwd: Path, variables: Mapping[str, str], port: int) -> None:
        self.page = f"http://{HOST}:{port}"
        self.log = state_dir / "dagster.log"
        self._unfinished = _unfinished(state_dir)
        self._unfinished.touch()
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".log.1"))
        self.log.touch()
        keeper = str(Path(__file__).with_name("keeper.py"))
        dev = [sys.executable, "-m", "dagster", "dev", "-w", str(workspace), "-h", HOST, "-p", str(port)]
        self.child = Child(
            "dagster dev",
            [sys.executable, "-I", "-S", keeper, str(_RUN_GRACE_S), *dev],
            log=self.log,
            record=record(state_dir),
            env=variables,
            cwd=cwd,
            # The keeper outlives us by the moment it takes to end the rest.
            death_signal=None,
            keep_stdin=True,
        )

    def answers(self) -> bool:
        """Tell whether the web page is there."""
        connection = http.client.HTTPConnection(self.page.removeprefix("http://"), timeout=2)
        with contextlib.closing(connection):
            try:
                connection.request("GET", "/server_info")
                return connection.getresponse().status == 200
            except (OSError, http.client.HTTPException):
                return False

    def stop(self, *, hurry: Callable[[], bool] = lambda: False) -> None:
        """End it and wait until nothing of it runs, up to a minute for runs in flight unless ``hurry`` says no."""
        self._tell(b"stop\n")
        deadline = time.monotonic() + _RUN_GRACE_S + 10
        while not self.child.wait(0.2) and time.monotonic() < deadline:
            if hurry():
                self._tell(b"kill\n")
        if self.child.poll() == 0:
            self._unfinished.unlink(missing_ok=True)
        self.child.kill()

    def _tell(self, word: bytes) -> None:
        if self.child.stdin:
            with contextlib.suppress(BrokenPipeError):
                self.child.stdin.write(word)
                self.child.stdin.flush()


def end_runs_of_a_killed_demo(state_dir: Path, variables: Mapping[str, str], cwd: Path) -> None:
    """Note runs as failed that were in flight when the last demo in this folder was killed; costs 2 s then, else none.

    For a Dagster home that only demos in this folder use. If it fails, Dagster's own limit for runs has to do.
    """
    if _unfinished(state_dir).exists():
        with (state_dir / "dagster.log").open("ab") as log:
            subprocess.run(
                [sys.executable, "-c", _END_RUNS],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=cwd,
                env=dict(variables),
                check=False,
            )


def _unfinished(state_dir: Path) -> Path:
    return state_dir / "unfinished"


def record(state_dir: Path) -> Path:
    """Return the file that tells the next start what a killed one left."""
    return state_dir / "dagster.json"
