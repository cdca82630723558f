"""The queue of runs: what makes the daemon read it."""

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.run_coordinator import SubmitRunContext
from dagster._daemon.run_coordinator import QueuedRunCoordinatorDaemon

from pg_bronze.defs import run_coordinator
from pg_bronze.defs.run_coordinator import PromptRunCoordinator

# Longer than any test: only a submitted run ends such a wait.
ENDLESS_S = 3600.0
LONGEST_S = 60.0


@dg.job
def nothing() -> None: ...


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    parts = {
        "run_coordinator": {"module": "pg_bronze.defs.run_coordinator", "class": "PromptRunCoordinator"},
        "run_launcher": {"module": "dagster._core.test_utils", "class": "MockedRunLauncher"},
    }
    with dg.DagsterInstance.local_temp(overrides=parts) as opened:
        yield opened


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> "queue.Queue[list[str]]":
    """The ids of the runs of each read of the queue, as the daemon finds them."""
    found: queue.Queue[list[str]] = queue.Queue()
    read = QueuedRunCoordinatorDaemon._get_runs_to_dequeue

    def noted(*args: Any, **kwargs: Any) -> list[dg.DagsterRun]:
        runs = read(*args, **kwargs)
        found.put([run.run_id for run in runs])
        return runs

    monkeypatch.setattr(QueuedRunCoordinatorDaemon, "_get_runs_to_dequeue", noted)
    return found


def submit(instance: dg.DagsterInstance) -> str:
    """Submit a run as a sensor does, and return its id."""
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "__repository__"), "nothing")
    run = instance.create_run_for_job(nothing, remote_job_origin=origin)
    instance.run_coordinator.submit_run(SubmitRunContext(run, None))  # type: ignore[arg-type]
    return run.run_id


def iteration(instance: dg.DagsterInstance) -> Iterator[Any]:
    """Return an iteration of the daemon that reads the queue, as Dagster creates it."""
    coordinator = instance.run_coordinator
    assert isinstance(coordinator, PromptRunCoordinator)
    daemon = QueuedRunCoordinatorDaemon(coordinator.dequeue_interval_seconds)
    context: Any = SimpleNamespace(instance=instance, create_request_context=lambda: None)
    return daemon.run_iteration(context)


@contextmanager
def waiting(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run an iteration in a thread, whose waits end only if a run is submitted."""
    monkeypatch.setattr(run_coordinator, "QUEUE_INTERVAL_S", ENDLESS_S)
    thread = threading.Thread(target=lambda: list(iteration(instance)), daemon=True)
    thread.start()
    try:
        yield
    finally:
        monkeypatch.setattr(run_coordinator, "QUEUE_INTERVAL_S", 0.0)
        submit(instance)
        thread.join(LONGEST_S)
    assert not thread.is_alive()


def test_a_run_that_is_submitted_while_the_daemon_waits_is_found_at_once(
    instance: dg.DagsterInstance, reads: "queue.Queue[list[str]]", monkeypatch: pytest.MonkeyPatch
):
    """A tick spent up to half a second in the queue."""
    with waiting(instance, monkeypatch):
        assert reads.get(timeout=LONGEST_S) == []
        for _ in range(2):
            assert [submit(instance)] == reads.get(timeout=LONGEST_S)


def test_a_run_that_is_submitted_while_the_queue_is_read_is_found_at_once(
    instance: dg.DagsterInstance, reads: "queue.Queue[list[str]]", monkeypatch: pytest.MonkeyPatch
):
    """The read may have passed its place."""
    read, late = QueuedRunCoordinatorDaemon._get_runs_to_dequeue, list[str]()

    def submitting(*args: Any, **kwargs: Any) -> Any:
        runs = read(*args, **kwargs)
        if not late:
            late.append(submit(instance))
        return runs

    monkeypatch.setattr(QueuedRunCoordinatorDaemon, "_get_runs_to_dequeue", submitting)
    with waiting(instance, monkeypatch):
        assert [reads.get(timeout=LONGEST_S), reads.get(timeout=LONGEST_S)] == [[], late]


def test_the_queue_is_read_again_if_nothing_is_submitted_in_the_daemon(
    instance: dg.DagsterInstance, reads: "queue.Queue[list[str]]", monkeypatch: pytest.MonkeyPatch
):
    """The web server submits runs in another process, and a run may wait for the end of another one."""
    monkeypatch.setattr(run_coordinator, "QUEUE_INTERVAL_S", 0.0)
    with dg.DagsterInstance.from_ref(instance.get_ref()) as of_web_server:
        list(iteration(instance))
        elsewhere = submit(of_web_server)
        list(iteration(instance))

    assert [reads.get_nowait(), reads.get_nowait()] == [[], [elsewhere]]


def test_a_queue_whose_runs_are_all_blocked_is_not_read_for_each_submission(
    instance: dg.DagsterInstance, reads: "queue.Queue[list[str]]", monkeypatch: pytest.MonkeyPatch
):
    """With 600 blocked runs and ten submissions a second, the daemon used three quarters of a core."""
    monkeypatch.setattr(run_coordinator, "QUEUE_INTERVAL_S", ENDLESS_S)
    read = QueuedRunCoordinatorDaemon._get_runs_to_dequeue

    def none(*args: Any, **kwargs: Any) -> list[dg.DagsterRun]:
        read(*args, **kwargs)
        return []

    monkeypatch.setattr(QueuedRunCoordinatorDaemon, "_get_runs_to_dequeue", none)
    thread = threading.Thread(target=lambda: list(iteration(instance)), daemon=True)
    thread.start()
    assert reads.get(timeout=LONGEST_S) == []

    blocked = submit(instance)

    assert reads.get(timeout=LONGEST_S) == [blocked]
    thread.join(LONGEST_S)
    assert not thread.is_alive(), "the daemon waits as long as Dagster does"


def test_the_daemon_does_not_wait_after_an_iteration_that_has_waited(instance: dg.DagsterInstance):
    """Dagster waits for half a second more after an iteration that was shorter than its interval."""
    assert instance.run_coordinator.dequeue_interval_seconds < run_coordinator.QUEUE_INTERVAL_S


def test_the_queue_of_another_coordinator_is_not_waited_for(
    instance: dg.DagsterInstance, reads: "queue.Queue[list[str]]", monkeypatch: pytest.MonkeyPatch
):
    """The daemon of this process is changed for all instances."""
    monkeypatch.setattr(run_coordinator, "QUEUE_INTERVAL_S", ENDLESS_S)
    assert instance.run_coordinator.dequeue_interval_seconds
    with dg.DagsterInstance.local_temp() as stock:
        context: Any = SimpleNamespace(instance=stock)
        list(QueuedRunCoordinatorDaemon(1).run_iteration(context))

    assert reads.qsize() == 1
