"""`pg-bronze` in a process forked from one that has loaded its modules, which takes most of the time of a command.

`Shop.start_program` starts an installed command.
"""

import atexit
import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [
        *("pg_bronze.cli.app", "pg_bronze.definitions", "pg_bronze.sync.table_sync", "pg_bronze.postgres.connection"),
        "pg_bronze_tests.harness.preloaded",
    ]
)


@functools.cache
def load() -> None:
    """Start the process from which commands are forked, and wait until it has loaded its modules."""
    process = _SERVER.Process(target=os.getpid)
    process.start()
    process.join()


def fork(function: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Call a function in a process that has loaded its modules. It is killed at the end of this process."""
    load()
    process = _SERVER.Process(target=function, args=arguments, daemon=True)
    process.start()
    return process


class Command:
    """A running `pg-bronze` with its own session, with the part of ``subprocess.Popen`` that tests use."""

    def __init__(
        self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str], stdout: Path, stderr: Path
    ) -> None:
        self.args = ["pg-bronze", *arguments]
        self._process = _SERVER.Process(target=_main, args=(self.args, folder, dict(environment), stdout, stderr))
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout_s: float | None = None) -> int:
        self._process.join(timeout_s)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout_s or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(arguments: Sequence[str], folder: Path, environment: Mapping[str, str], output: Path) -> Command:
    """Start `pg-bronze` in a folder with exactly this environment; ``output`` gets all that it prints."""
    return Command(arguments, folder, environment, output, output)


def run(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str], timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Run `pg-bronze` in a folder with exactly this environment.

    Raises subprocess.TimeoutExpired after ``timeout_s``.
    """
    with tempfile.TemporaryDirectory() as printed:
        outputs = [Path(printed) / name for name in ("stdout", "stderr")]
        command = Command(arguments, folder, environment, *outputs)
        try:
            code = command.wait(timeout_s)
        except subprocess.TimeoutExpired:
            command.kill()
            command.wait()
            raise
        return subprocess.CompletedProcess(command.args, code, *[path.read_text(encoding="utf-8") for path in outputs])


def _main(command: list[str], folder: Path, environment: dict[str, str], stdout: Path, stderr: Path) -> None:
    os.setsid()
    for number, path in ((1, stdout), (2, stderr)):
        with path.open("ab") as file:
            os.dup2(file.fileno(), number)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", closefd=False)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = command
    from pg_bronze.cli.app import app

    try:
        app()
    finally:
        # multiprocessing ends a process without them.
        atexit._run_exitfuncs()
