"""`pg-bronze` in a process forked from one that has loaded its modules: what a test waits for is what the command does.

Loading takes most of what a command takes, and the same for every command. `Shop.start` starts the installed command.
"""

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    ["pg_bronze.cli.app", "pg_bronze.definitions", "pg_bronze.sync.table_sync", "pg_bronze.postgres.connection"]
)


def run(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str], timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Run `pg-bronze` in a folder with exactly this environment.

    Raises subprocess.TimeoutExpired after ``timeout_s``.
    """
    command = ["pg-bronze", *arguments]
    with tempfile.TemporaryDirectory() as printed:
        output = Path(printed)
        process = _SERVER.Process(target=_main, args=(command, folder, dict(environment), output))
        process.start()
        process.join(timeout_s)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(command, timeout_s)
        texts = [(output / name).read_text(encoding="utf-8") for name in ("stdout", "stderr")]
        return subprocess.CompletedProcess(command, process.exitcode, *texts)


def _main(command: list[str], folder: Path, environment: dict[str, str], output: Path) -> None:
    for number, name in ((1, "stdout"), (2, "stderr")):
        with (output / name).open("wb") as file:
            os.dup2(file.fileno(), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
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
