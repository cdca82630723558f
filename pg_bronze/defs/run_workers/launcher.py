"""The launcher that gives runs to workers that stay, and launches a run as Dagster does if none is free.

Every line of it can be removed from ``dagster.yaml``: Dagster's own launcher then takes all runs.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import dagster as dg
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, LaunchRunContext, WorkerStatus
from dagster._core.remote_representation.code_location import GrpcServerCodeLocation
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._serdes import ConfigurableClassData, serialize_value

from pg_bronze.defs.run_workers import current_run, machine, settings_mark
from pg_bronze.defs.run_workers.current_run import WorkerGoneError
from pg_bronze.defs.run_workers.pool import WorkerPool
from pg_bronze.defs.run_workers.worker_process import Assignment, Version

# Which worker executes a run. Dagster hides tags that begin like this.
WORKER_TAG = ".dagster/pg_bronze_run_worker"
# A first load that takes long runs at low priority, in a process whose memory is returned at the end.
_ALONE_TAG = "pg_bronze/first_load"
_LOCAL_HOSTS = {"localhost", "127.0.0.1", "::1"}
_FIELDS = {
    "max_workers": dg.Field(int, default_value=4, is_required=False, description="The highest number of run workers."),
    "max_runs": dg.Field(int, default_value=1000, is_required=False, description="Runs after which a worker ends."),
    "max_age_s": dg.Field(int, default_value=21600, is_required=False, description="Age at which a worker ends."),
    "max_memory_mb": dg.Field(
        int, default_value=800, is_required=False, description="Resident memory in MiB at which a worker ends."
    ),
    "max_idle_s": dg.Field(
        int, default_value=900, is_required=False, description="Seconds without a run after which a worker ends."
    ),
}


class ResidentRunLauncher(DefaultRunLauncher):
    """Dagster's launcher, with run workers that execute one run after another."""

    def __init__(self, inst_data: ConfigurableClassData | None = None, **config: int) -> None:
        super().__init__(inst_data)
        limits = {name: config.get(name, field.default_value) for name, field in _FIELDS.items()}
        self._pool = WorkerPool(limits.pop("max_workers"), limits)

    @classmethod
    def config_type(cls) -> dict[str, dg.Field]:
        """Return the fields of ``config`` in ``dagster.yaml``."""
        return _FIELDS

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        """Return the launcher that ``dagster.yaml`` configures."""
        return cls(inst_data=inst_data, **config_value)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Give the run to a worker, or launch it in a new process with an event that says why."""
        version = None if _ALONE_TAG in context.dagster_run.tags else _version(context)
        if version is None:
            super().launch_run(context)
        elif reason := self._assign(context, version):
            self._launch_in_new_process(context, reason)

    def _assign(self, context: LaunchRunContext, version: Version) -> str | None:
        run, code_origin = context.dagster_run, context.job_code_origin
        if code_origin is None:
            return "the run has no origin"
        origin = code_origin.repository_origin
        assignment = Assignment(
            run.run_id,
            prepare=lambda address, pid: self._record(run.run_id, address, pid),
            decline=lambda reason: self._decline(context, reason),
            lost=lambda sentence: self._report_lost(run.run_id, sentence),
        )
        try:
            return self._pool.assign(
                assignment,
                version,
                origin.executable_path or sys.executable,
                serialize_value(self._instance.get_ref()),
                serialize_value(origin),
            )
        except OSError as error:
            return f"a run worker could not start: {error}"

    def _record(self, run_id: str, address: str, pid: int) -> None:
        # Before the worker has the run: both would rewrite its tags.
        self._run_ids.add(run_id)
        worker = {**machine.identity(), "socket": address, "pid": pid}
        self._instance.add_run_tags(run_id, {WORKER_TAG: json.dumps(worker)})

    def _launch_in_new_process(self, context: LaunchRunContext, reason: str) -> None:
        sentence = f"This run is launched in a new process, because {reason}."
        self._instance.report_engine_event(sentence, context.dagster_run)
        super().launch_run(context)

    def _decline(self, context: LaunchRunContext, reason: str) -> None:
        run = self._instance.get_run_by_id(context.dagster_run.run_id)
        if run is None or run.is_finished:
            return
        try:
            self._launch_in_new_process(context, reason)
        except Exception as error:  # noqa: BLE001  # the run's only reader is its page
            # Nobody else learns of it: the daemon has launched this run.
            self._instance.report_run_failed(run, f"The run could not be launched in a new process: {error}")

    def _report_lost(self, run_id: str, sentence: str) -> None:
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return
        if run.status == dg.DagsterRunStatus.CANCELING:
            self._instance.report_run_canceled(run, sentence)
        else:
            self._instance.report_run_failed(run, sentence)

    def terminate(self, run_id: str) -> bool:
        """Cancel a run, from any process of this machine. Return whether it was executed."""
        run = self._instance.get_run_by_id(run_id)
        worker = _worker_of(run)
        if run is None or run.is_finished or worker is None:
            return self._terminate_process(run_id)
        if not machine.is_here(worker):
            sentence = (
                f"The run is executed on {machine.place(worker)}. Terminate it from a process of that machine. If that "
                "does not exist any more, the run is ended when it has had no session and no event for 90 s."
            )
            self._instance.report_engine_event(sentence, run)
            return False
        if GRPC_INFO_TAG in run.tags:
            return self._terminate_process(run_id)  # the worker has declined it
        if _is_hidden(worker):
            sentence = (
                f"The run is executed by process {worker['pid']}, whose socket {worker['socket']} is not visible here. "
                "Give the daemon and the web server the same temporary folder (TMPDIR), and terminate it again."
            )
            self._instance.report_engine_event(sentence, run)
            return False
        self._instance.report_run_canceling(run)
        try:
            return current_run.cancel(worker["socket"], run_id)
        except WorkerGoneError:
            self._report_lost(run_id, f"The run worker (process {worker['pid']}) has ended or is still starting.")
            return True

    def _terminate_process(self, run_id: str) -> bool:
        return bool(super().terminate(run_id))  # type: ignore[no-untyped-call]  # Dagster has no type there

    @property
    def supports_check_run_worker_health(self) -> bool:
        """True: Dagster's monitoring asks whether the worker of a run lives."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Return whether the worker of a run lives, as far as this machine can tell."""
        worker = _worker_of(run)
        if worker is None or not machine.is_here(worker) or _is_hidden(worker):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        try:
            if current_run.ask(worker["socket"]) == run.run_id:
                return CheckRunHealthResult(WorkerStatus.RUNNING)
            found = "executes another run"
        except TimeoutError:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        except WorkerGoneError:
            found = "has ended"
        now = self._instance.get_run_by_id(run.run_id)
        if now is None or now.is_finished or GRPC_INFO_TAG in now.tags:
            return CheckRunHealthResult(WorkerStatus.SUCCESS)
        return CheckRunHealthResult(
            WorkerStatus.FAILED, f"The run worker (process {worker['pid']}) {found}.", transient=False
        )

    def dispose(self) -> None:
        """Let the workers end after their runs."""
        self._pool.close()
        super().dispose()


def _version(context: LaunchRunContext) -> Version | None:
    """Return which definitions a run needs; None if its code server is not one of pg_bronze on this machine."""
    origin = context.dagster_run.remote_job_origin
    if context.workspace is None or origin is None:
        return None
    location = context.workspace.get_code_location(origin.location_name)
    if not isinstance(location, GrpcServerCodeLocation) or location.container_image:
        return None
    if location.socket is None and location.host not in _LOCAL_HOSTS:
        return None
    repository = location.get_repository(origin.repository_origin.repository_name)
    mark, is_component = settings_mark.of_metadata(repository.repository_snap.metadata)
    return Version(origin.location_name, location.server_id, mark, is_component) if mark else None


def _is_hidden(worker: Mapping[str, Any]) -> bool:
    """Return whether a worker lives, and the folder of its socket does not exist here: a private temporary folder.

    Its run would be marked as ended while it goes on. If another process has its id by now, the watchdog ends the run.
    """
    if Path(worker["socket"]).parent.is_dir():
        return False
    try:
        os.kill(worker["pid"], 0)
    except OSError:
        return False
    return True


def _worker_of(run: dg.DagsterRun | None) -> dict[str, Any] | None:
    tag = run.tags.get(WORKER_TAG) if run else None
    return dict(json.loads(tag)) if tag else None
