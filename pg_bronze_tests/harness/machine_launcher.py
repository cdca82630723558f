"""The run launcher of machines: it gives runs to the agents of worker machines in turn.

It is to the agents what ``DockerRunLauncher`` is to Docker and ``K8sRunLauncher`` to Kubernetes: each run is a process
of its own elsewhere that executes ``dagster api execute_run``, and a machine that has not answered for some time counts
as dead, whether it is or not.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import dagster as dg
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, RunLauncher, WorkerStatus
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from pg_bronze_tests.harness.machine_programs import ask

WORKER_TAG = "machine"
# A file of the daemon's project with the worker that gets all runs; without it they take turns.
NEXT = Path("next_worker")


class MachineRunLauncher(RunLauncher, ConfigurableClass):
    """A launcher of runs on worker machines."""

    def __init__(self, workers: list[str], dead_after_s: float, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__()
        self._workers, self._dead_after_s, self._inst_data = workers, dead_after_s, inst_data
        self._answered: dict[str, float] = {}

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return self._inst_data

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {"workers": [str], "dead_after_s": float}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        return cls(inst_data=inst_data, **config_value)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Give the run to the next machine that answers."""
        run, origin = context.dagster_run, context.job_code_origin
        assert origin is not None
        arguments = ExecuteRunArgs(job_origin=origin, run_id=run.run_id, instance_ref=self._instance.get_ref())
        for _ in self._workers:
            worker = NEXT.read_text() if NEXT.exists() else self._workers[0]
            self._workers = [*(item for item in self._workers if item != worker), worker]
            # Before the worker has the run: both would rewrite its tags.
            self._instance.add_run_tags(run.run_id, {WORKER_TAG: worker})
            try:
                ask(worker, run=run.run_id, command=arguments.get_command_args())
            except OSError as error:
                self._instance.report_engine_event(f"{worker} does not take the run: {error}", run)
                continue
            self._answered[run.run_id] = time.monotonic()
            return
        raise RuntimeError("no worker machine answers")

    def terminate(self, run_id: str) -> bool:
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished or WORKER_TAG not in run.tags:
            return False
        self._instance.report_run_canceling(run)
        try:
            return ask(run.tags[WORKER_TAG], run=run_id, signal="SIGINT") == "alive"
        except OSError:
            return False

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        worker = run.tags.get(WORKER_TAG, "")
        now = time.monotonic()
        try:
            found = ask(worker, run=run.run_id)
        except OSError:
            silent_s = now - self._answered.setdefault(run.run_id, now)
            if silent_s < self._dead_after_s:
                return CheckRunHealthResult(WorkerStatus.RUNNING)
            return CheckRunHealthResult(WorkerStatus.FAILED, f"{worker} has not answered for {silent_s:.0f} s.")
        self._answered[run.run_id] = now
        return CheckRunHealthResult(WorkerStatus.RUNNING if found == "alive" else WorkerStatus.FAILED)
