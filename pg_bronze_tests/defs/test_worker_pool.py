"""Which worker takes a run, with a program that speaks as a worker does; and when a real one ends."""

import json
import os
import queue
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dagster._core.code_pointer import FileCodePointer
from dagster._core.origin import RepositoryPythonOrigin
from dagster._serdes import serialize_value

from pg_bronze.defs.run_workers import pool, worker
from pg_bronze.defs.run_workers.pool import WorkerPool
from pg_bronze.defs.run_workers.worker import Start
from pg_bronze.defs.run_workers.worker_process import Assignment, Version

LONGEST_S = 30
# Ends before it is ready if its origin is "broken"; executes nothing of a run called "refused", ends in "crash", and
# waits in every other run for a line of the file of that run.
PROGRAM = """
import json, sys
start = json.loads(input())
if start["origin"] == "broken":
    sys.exit(3)
print(json.dumps({"ready": "mark"}), flush=True)
for line in sys.stdin:
    run = json.loads(line)["run"]
    if run == "refused":
        sys.exit(0)
    print(json.dumps({"started": run}), flush=True)
    if run == "crash":
        sys.exit(1)
    with open(start["origin"] + run) as gate:
        gate.readline()
    print(json.dumps({"done": run, "leaving": run == "last"}), flush=True)
    if run == "last":
        break
"""


class Runs:
    """Runs that are given to a pool, and what is reported about them."""

    def __init__(self, tested: WorkerPool, gate: Path) -> None:
        self.pool, self.gate = tested, gate
        self.told: queue.Queue[tuple[str, str]] = queue.Queue()
        self.workers: dict[str, int] = {}

    def give(self, run_id: str, server: str = "1", origin: str | None = None) -> str | None:
        """Give a run to the pool, and return why it has no worker."""

        def prepare(_socket: str, pid: int) -> None:
            self.workers[run_id] = pid
            self.told.put((run_id, "given"))

        assignment = Assignment(
            run_id,
            prepare,
            decline=lambda reason: self.told.put((run_id, f"declined: {reason}")),
            lost=lambda sentence: self.told.put((run_id, sentence)),
        )
        version = Version("pg_bronze", server, "mark")
        return self.pool.assign(assignment, version, sys.executable, "instance", origin or str(self.gate))

    def hear(self) -> tuple[str, str]:
        return self.told.get(timeout=LONGEST_S)

    def end(self, run_id: str) -> None:
        """Let a run end that has a worker."""
        with Path(f"{self.gate}{run_id}").open("w") as gate:
            gate.write("go\n")


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runs]:
    program = tmp_path / "fake_worker.py"
    program.write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(pool, "_MODULE", "fake_worker")
    gate = tmp_path / "gate_"
    for run_id in ("a", "b", "d", "before", "after", "last", "next"):
        os.mkfifo(f"{gate}{run_id}")
    tested = WorkerPool(2, {})
    yield Runs(tested, gate)
    tested.close()


def until(runs: Runs, run_id: str, **how: str) -> None:
    """Give a run until it has a worker: the last one may not be known to have ended."""
    deadline = threading.Event()
    for _ in range(LONGEST_S * 20):
        if runs.give(run_id, **how) is None:
            return
        deadline.wait(0.05)
    raise AssertionError(f"{run_id} has no worker")


def test_a_worker_takes_the_next_run_and_a_second_one_is_started_while_it_has_one(runs: Runs):
    assert runs.give("a") is None
    assert runs.hear() == ("a", "given")
    assert runs.give("b") is None
    assert runs.hear() == ("b", "given")
    assert runs.workers["a"] != runs.workers["b"]
    assert runs.give("c") == "all 2 run workers have a run"

    runs.end("a")
    until(runs, "d")
    assert runs.hear() == ("d", "given")

    assert runs.workers["d"] == runs.workers["a"]
    runs.end("b")
    runs.end("d")


def test_a_worker_that_cannot_start_declines_its_run_and_is_not_tried_again_at_once(runs: Runs):
    """Each try takes two CPU seconds."""
    assert runs.give("a", origin="broken") is None
    assert runs.hear() == ("a", "given")
    assert runs.hear() == ("a", "declined: a run worker could not start: it ended with exit code 3")

    assert runs.give("b", origin="broken") == "a run worker could not start within the last minute"


def test_a_run_of_which_nothing_was_executed_is_declined_and_another_one_is_lost(runs: Runs):
    """The one is executed in a new process, and the other may have written something."""
    assert runs.give("refused") is None
    assert runs.hear() == ("refused", "given")
    assert runs.hear() == ("refused", "declined: the run worker ended before it executed anything of this run")
    until(runs, "crash")
    assert runs.hear() == ("crash", "given")

    pid = runs.workers["crash"]
    expected = f"The run worker (process {pid}) ended with exit code 1 while it executed this run."
    assert runs.hear() == ("crash", expected)


def test_after_a_reload_the_next_run_has_a_worker_with_the_new_definitions(runs: Runs):
    """And the run in flight is completed."""
    runs.give("before")
    assert runs.hear() == ("before", "given")
    assert runs.give("after", server="2") is None
    assert runs.hear() == ("after", "given")

    assert runs.workers["before"] != runs.workers["after"]
    runs.end("before")
    runs.end("after")
    until(runs, "last", server="2")
    assert runs.hear() == ("last", "given")
    assert runs.workers["last"] != runs.workers["before"]
    runs.end("last")


def test_a_worker_that_leaves_gets_no_run(runs: Runs):
    runs.give("last")
    assert runs.hear() == ("last", "given")
    runs.end("last")
    until(runs, "next")
    assert runs.hear() == ("next", "given")

    assert runs.workers["last"] != runs.workers["next"]
    runs.end("next")


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Serve runs in this process, and return what was replied."""
    monkeypatch.setattr(worker, "_execute", lambda *_: None)
    monkeypatch.setattr(worker.gc, "freeze", lambda: None)

    def serve(runs: list[str], *, open_end: bool = False, **limits: float) -> list[dict[str, Any]]:
        chosen: dict[str, Any] = {"max_runs": 9, "max_age_s": 9.0, "max_memory_mb": 10**6, "max_idle_s": 9.0} | limits
        out, into = os.pipe()
        os.write(into, "".join(json.dumps({"run": run}) + "\n" for run in runs[:1]).encode())
        replies: list[dict[str, Any]] = []

        def reply(**message: Any) -> None:
            replies.append(message)
            if "done" in message and len(runs) > 1:
                runs.pop(0)
                os.write(into, (json.dumps({"run": runs[0]}) + "\n").encode())
            elif "done" in message and not open_end:
                os.close(into)

        with os.fdopen(out) as requests:
            start = Start("", "", str(tmp_path / "socket"), **chosen)
            worker._serve(start, None, requests, reply)  # type: ignore[arg-type]  # nothing is executed
        return [message for message in replies if "ready" not in message]

    return serve


def test_a_worker_executes_runs_until_its_input_ends(served):
    assert served(["a", "b"]) == [
        {"started": "a"},
        {"done": "a", "leaving": False},
        {"started": "b"},
        {"done": "b", "leaving": False},
    ]


@pytest.mark.parametrize("limits", [{"max_runs": 1}, {"max_age_s": -1.0}, {"max_memory_mb": 1}])
def test_a_worker_leaves_after_the_run_in_which_a_limit_is_reached(served, limits):
    """Memory that a library does not return must not grow for months."""
    assert served(["a"], open_end=True, **limits) == [{"started": "a"}, {"done": "a", "leaving": True}]


def test_a_worker_without_a_run_ends(served):
    """Four idle processes must not keep 200 MB each forever."""
    assert served([], open_end=True, max_idle_s=0.0) == []


def test_a_worker_of_a_project_with_components_reads_the_marks_of_its_definitions(tmp_path: Path) -> None:
    """Their settings are in the definitions. Those of the environment, if any, are of another source."""
    file = tmp_path / "definitions.py"
    file.write_text(
        "import dagster as dg\n"
        "defs = dg.Definitions(metadata={'pg_bronze/settings_mark_shop': 'a1', 'pg_bronze/settings_mark_crm': 'b2'})\n"
    )
    pointer = FileCodePointer(python_file=str(file), fn_name="defs", working_directory=str(tmp_path))
    origin = serialize_value(RepositoryPythonOrigin(sys.executable, pointer))

    mark = worker._settings_mark(Start("", origin, "", 1, 1.0, 1, 1.0, named=True))

    assert mark == "_crm=b2 _shop=a1"
