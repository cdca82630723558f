"""The workers of one launcher: which one takes a run, and when another one is started."""

import json
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from pg_bronze.defs.run_workers.worker_process import Assignment, Version, WorkerProcess

# After a worker could not start, the runs of its code location are launched in new processes for this long.
RESTART_AFTER_S = 60.0
_MODULE = "pg_bronze.defs.run_workers.worker"


class WorkerPool:
    """At most ``most`` workers, each with one run at a time.

    Args:
        most: The highest number of workers.
        limits: The limits of each worker; see ``worker.Start``.
    """

    def __init__(self, most: int, limits: Mapping[str, float]) -> None:
        self._most, self._limits = most, limits
        self._workers: list[WorkerProcess] = []
        self._retry_at: dict[Version, float] = {}
        self._lock = threading.Lock()
        self._folder: Path | None = None
        self._count = 0

    def assign(self, assignment: Assignment, version: Version, program: str, instance: str, origin: str) -> str | None:
        """Give a run to a worker, and return why there is none; None if a worker has it.

        Args:
            assignment: The run.
            version: The definitions that the run needs. Workers of the location with others end.
            program: The Python of the code location.
            instance: The reference of the Dagster instance, serialized.
            origin: Where the definitions are loaded from, serialized.
        """
        with self._lock:
            self._discard(version)
            if any(worker.assign(assignment) for worker in self._workers if worker.version == version):
                return None
            if time.monotonic() < self._retry_at.get(version, 0.0):
                return "a run worker could not start within the last minute"
            if len(self._workers) >= self._most:
                return f"all {self._most} run workers have a run"
            self._workers.append(self._start(version, program, instance, origin))
            return None if self._workers[-1].assign(assignment) else "a run worker could not start"

    def close(self) -> None:
        """Let all workers end after their runs."""
        with self._lock:
            for worker in self._workers:
                worker.retire()
            if self._folder is not None and not any(worker.assignment for worker in self._workers):
                shutil.rmtree(self._folder, ignore_errors=True)

    def _discard(self, version: Version) -> None:
        for worker in self._workers:
            if worker.failed_to_start:
                self._retry_at[worker.version] = time.monotonic() + RESTART_AFTER_S
            if worker.version.location == version.location and worker.version != version:
                worker.retire()
        self._workers = [worker for worker in self._workers if worker.is_there]

    def _start(self, version: Version, program: str, instance: str, origin: str) -> WorkerProcess:
        self._folder = self._folder or Path(tempfile.mkdtemp(prefix="pg_bronze-"))
        self._count += 1
        socket = str(self._folder / str(self._count))
        start = {"instance": instance, "origin": origin, "socket": socket, "named": version.named}
        return WorkerProcess([program, "-m", _MODULE], json.dumps({**start, **self._limits}), socket, version)
