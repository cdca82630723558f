"""A run worker: imports everything once, and executes one run after another. The launcher starts it.

Both speak in lines of JSON. The worker reads its ``Start``, then ``{"run": ID}`` for each run. It writes
``{"ready": MARK}`` with the mark of its settings, and for each run ``{"started": ID}`` before it executes anything of
it and ``{"done": ID}`` after.
At the end of its input it completes the run that it executes, and ends.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

import psutil
from dagster._cli.api import _execute_run_command_body
from dagster._core.instance import DagsterInstance, InstanceRef
from dagster._core.origin import RepositoryPythonOrigin
from dagster._serdes import deserialize_value
from dagster._utils.hosted_user_process import recon_repository_from_origin
from dagster._utils.interrupts import capture_interrupts

from pg_bronze.defs.run_workers import settings_mark
from pg_bronze.defs.run_workers.current_run import CurrentRun
from pg_bronze.errors import SettingsError
from pg_bronze.settings.load import load_settings
from pg_bronze.settings.process import tune_process

# What a run would import: 0.6 CPU seconds that the first run of a worker does not spend.
_PRELOADED = (
    "dagster._core.executor.in_process",
    "polars",
    "connectorx",
    "pyarrow",
    "pg_bronze.lake.s3_client",
    "botocore.session",
)
_MB = 2**20


@dataclass(frozen=True)
class Start:
    """What a worker is started with.

    Attributes:
        instance: The reference of the Dagster instance, serialized.
        origin: Where the definitions are loaded from, serialized.
        socket: The path of the socket of the current run.
        max_runs: The runs after which the worker ends.
        max_age_s: The age in seconds at which it ends.
        max_memory_mb: The resident memory in MiB at which it ends.
        max_idle_s: The seconds without a run after which it ends.
        named: The settings are those of the definitions, and not those of the environment.
    """

    instance: str
    origin: str
    socket: str
    max_runs: int
    max_age_s: float
    max_memory_mb: int
    max_idle_s: float
    named: bool = False


def main() -> None:
    """Execute runs until the input ends or a limit is reached."""
    requests, replies = _own_streams()
    # Ctrl-C is for the daemon, which then closes the input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    first = requests.readline()
    if not first:
        return
    start = Start(**json.loads(first))
    deserialize_value(start.origin, RepositoryPythonOrigin).code_pointer.load_target()
    tune_process()
    for module in _PRELOADED:
        importlib.import_module(module)
    with DagsterInstance.from_ref(deserialize_value(start.instance, InstanceRef)) as instance:
        instance.get_runs(limit=1)  # opens the storage
        _serve(start, instance, requests, _writer(replies))


def _serve(start: Start, instance: DagsterInstance, requests: TextIO, reply: Callable[..., None]) -> None:
    current = CurrentRun(start.socket)
    gc.collect()
    gc.freeze()
    began, runs = time.monotonic(), 0
    try:
        reply(ready=_settings_mark(start))
        while run_id := _next_run(requests, start.max_idle_s):
            reply(started=run_id)
            _execute(run_id, instance, current)
            runs += 1
            old = time.monotonic() - began > start.max_age_s
            leaving = old or runs >= start.max_runs or _memory_mb() > start.max_memory_mb
            reply(done=run_id, leaving=leaving)
            if leaving:
                return
    finally:
        current.close()


def _execute(run_id: str, instance: DagsterInstance, current: CurrentRun) -> None:
    """Execute one run as ``dagster api execute_run`` does. Its errors are events of the run."""
    try:
        # An interrupt between steps is noted; within a step Dagster raises it.
        with capture_interrupts(), current.executing(run_id):
            _execute_run_command_body(run_id, instance, lambda _event: None, set_exit_code_on_failure=False)
    except BaseException:  # noqa: BLE001  # the next run must not fail because of it
        traceback.print_exc()
    finally:
        # Dagster gives SIGTERM the handler of SIGINT, which is ignored between runs.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _next_run(requests: TextIO, max_idle_s: float) -> str | None:
    """Return the id of the next run; None if the input has ended, or nothing arrives for ``max_idle_s`` seconds."""
    # Nothing is buffered: the launcher sends a request only after the reply to the last one.
    readable, _, _ = select.select([requests], [], [], max_idle_s)
    line = requests.readline() if readable else ""
    return str(json.loads(line)["run"]) if line else None


def _own_streams() -> tuple[TextIO, TextIO]:
    """Return the pipes of the launcher. What runs print goes to its standard error, and they read nothing."""
    requests, replies = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    return requests, replies


def _writer(replies: TextIO) -> Callable[..., None]:
    def reply(**message: object) -> None:
        # The daemon may have ended; the run that is executed is completed anyway.
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(message), file=replies, flush=True)

    return reply


def _settings_mark(start: Start) -> str:
    if start.named:
        repository = recon_repository_from_origin(deserialize_value(start.origin, RepositoryPythonOrigin))
        return settings_mark.of_metadata(repository.get_definition().metadata)[0]
    try:
        return load_settings().mark()
    except SettingsError:
        return ""


def _memory_mb() -> float:
    return float(psutil.Process().memory_info().rss) / _MB


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    # Threads of Polars and connectorx may not end.
    os._exit(0)
