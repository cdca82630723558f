"""The DAG in deploy/airflow without Airflow: which commands it calls, and what it makes of their documents.

e2e/airflow_runs.py runs it in a real Airflow.
"""

import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from dagster import AssetKey

from pg_bronze.cli import plan, status
from pg_bronze.cli.outcome import Copied, Failed, Outcome
from pg_bronze.defs.due_tables import Check, TableCheck
from pg_bronze.defs.status import Status, TableStatus
from pg_bronze.scheduling.due import Decision
from pg_bronze.scheduling.health import TableHealth
from pg_bronze.scheduling.memory import Memory
from pg_bronze_tests.harness.literals import table
from pg_bronze_tests.house.test_quoted_commands import problem

DAG = Path(__file__).parents[2] / "deploy/airflow/pg_bronze_dag.py"
BEGUN = datetime(2026, 12, 1, 12, tzinfo=UTC)


class Error(Exception):
    """What Airflow retries."""


class Final(Error):
    """What Airflow does not retry."""


@dataclass(frozen=True)
class Asset:
    name: str


class Task:
    """A task in the file: its function, and what the file does with it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *_: object) -> "Task":
        return self

    def expand(self, **_: object) -> "Task":
        return self

    def __rshift__(self, _: object) -> None:
        pass


def decorated(function: Callable[..., Any] | None = None, **_: object) -> Any:
    return Task(function) if function else Task


@dataclass
class Events:
    """The events of one asset alias."""

    added: dict[str, Any] = field(default_factory=dict)

    def add(self, asset: Asset, extra: Mapping[str, Any]) -> None:
        self.added[asset.name] = extra


@dataclass
class Dag:
    """The functions of the file, with a command that prints prepared documents."""

    functions: dict[str, Any]
    folder: Path
    attempt: SimpleNamespace

    def answers(self, command: str, document: Any) -> None:
        text = document if isinstance(document, str) else json.dumps(document)
        (self.folder / command).write_text(text, encoding="utf-8")

    def run(self, name: str, *arguments: Any, **named: Any) -> Any:
        return self.functions[name].function(*arguments, **named)

    def tick(self, *tables: str) -> dict[str, Any]:
        """The events of a tick."""
        events = Events()
        self.run("tick", list(tables), outlet_events={self.functions["BRONZE"]: events})
        return events.added

    @property
    def called(self) -> list[list[str]]:
        return [line.split() for line in (self.folder / "called").read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def dag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dag]:
    attempt = SimpleNamespace(try_number=1)
    context = {"ti": attempt, "dag_run": SimpleNamespace(start_date=BEGUN)}
    sdk = {
        "Asset": Asset,
        "AssetAlias": Asset,
        "TriggerRule": SimpleNamespace(ALL_DONE="all_done"),
        "dag": lambda **_: lambda function: function,
        "task": decorated,
        "get_current_context": lambda: context,
    }
    for name, found in {
        "airflow": {},
        "airflow.sdk": sdk,
        "airflow.sdk.exceptions": {"AirflowException": Error, "AirflowFailException": Final},
    }.items():
        module = ModuleType(name)
        vars(module).update(found)
        monkeypatch.setitem(sys.modules, name, module)
    command = tmp_path / "pg-bronze"
    command.write_text('#!/bin/sh\necho "$@" >> called\ncat "$1"\n', encoding="utf-8")
    command.chmod(0o755)
    for name, value in {"COMMAND": command, "FOLDER": tmp_path, "TABLES_PER_TASK": 2}.items():
        monkeypatch.setenv(f"BRONZE_{name}", str(value))
    before = signal.getsignal(signal.SIGTERM)
    yield Dag(runpy.run_path(str(DAG)), tmp_path, attempt)
    signal.signal(signal.SIGTERM, before)


def planned(label: str, due: bool = True, **kind: bool) -> TableCheck:
    return TableCheck(
        table(name=label), AssetKey(label), Decision(due, "may have new rows" if due else "unchanged"), **kind
    )


def shown(label: str, severity: Any = "ok", copied_at: datetime | None = None) -> TableStatus:
    health = TableHealth(label, "up_to_date", severity, f"about {label}", 0.0, 0.0)
    return TableStatus(health, copied_at.timestamp() if copied_at else None, f"s3://lake/{label}/1.parquet")


def status_of(*tables: TableStatus) -> dict[str, Any]:
    return status.document(Status(tables, "3 tables checked", None, 0.0, 0.0, Memory()))


def test_tables_that_are_due_are_divided_into_groups_and_large_first_loads_are_alone(dag: Dag):
    """A first load would keep back the new rows of its group."""
    found = [planned("a"), planned("big", large=True), planned("b"), planned("old", due=False), planned("c")]
    dag.answers("plan", plan.document(Check([*found, planned("slow", slow=True)], Memory(), ""), {}, BEGUN))

    assert dag.run("plan") == [["a", "b"], ["c"], ["big"], ["slow"]]


def test_only_tables_that_got_rows_have_an_event(dag: Dag):
    copied = {"movie": Copied(3, 1, 900, "s3://lake/movie/1.parquet"), "person": Copied()}
    dag.answers("tick", Outcome(copied, {"role": Failed("no bucket")}).to_json())

    assert dag.tick("movie", "person", "role") == {"bronze/movie": {"rows": 3, "object": "s3://lake/movie/1.parquet"}}
    assert dag.called == [["tick", "--due", "movie", "person", "role", "--json"]]


def test_a_retry_reads_every_table_and_has_the_events_of_what_the_killed_attempt_copied(dag: Dag):
    dag.attempt.try_number = 2
    dag.answers("tick", Outcome({"movie": Copied(3, 1, 900, "new"), "person": Copied(), "role": Copied()}).to_json())
    before, since = BEGUN.replace(hour=11), BEGUN.replace(minute=1)
    tables = shown("movie", copied_at=since), shown("person", copied_at=since), shown("role", copied_at=before)
    dag.answers("status", status_of(*tables, shown("other", copied_at=since), shown("never")))

    events = dag.tick("movie", "person", "role")

    assert events.keys() == {"bronze/movie", "bronze/person"}
    assert events["bronze/movie"] == {"rows": 3, "object": "new"}
    assert events["bronze/person"] == {"rows": None, "object": "s3://lake/person/1.parquet"}
    assert dag.called[0] == ["tick", "movie", "person", "role", "--json"]


def test_the_last_task_fails_with_the_sentence_about_each_failing_table(dag: Dag, capsys: pytest.CaptureFixture[str]):
    dag.answers("status", status_of(shown("movie"), shown("person", "warn")))
    dag.run("status")
    dag.answers("status", status_of(shown("movie"), shown("person", "error")))

    with pytest.raises(Final, match=r"^person: about person$"):
        dag.run("status")
    assert "3 tables checked" in capsys.readouterr().out


@pytest.mark.parametrize(
    "printed, kind",
    [
        ({"error": {"sentence": "no server", "retry": "automatic"}}, Error),
        ({"error": {"sentence": "no such role", "retry": "after_fix"}}, Final),
        ("", Error),
        ('{"ok": tr', Error),
    ],
    ids=["outage", "wrong setting", "killed", "killed while it printed"],
)
def test_a_task_is_retried_unless_that_needs_a_change_first(dag: Dag, printed: Any, kind: type[Error]):
    dag.answers("tick", printed)

    with pytest.raises(Error) as raised:
        dag.tick("movie")

    assert type(raised.value) is kind


def test_a_task_that_airflow_ends_lets_its_command_end_as_ctrl_c_does(dag: Dag):
    """The command would go on without its task. Here it asks for its end itself."""
    ends = "kill $waiting; echo ended >> called; exit 130"
    script = f"sleep 60 > /dev/null & waiting=$!; trap '{ends}' INT; kill -TERM $PPID; wait"
    (dag.folder / "pg-bronze").write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")

    with pytest.raises(Error, match="ended with 130 and no document"):
        dag.tick("movie")

    assert dag.called == [["ended"]]


def test_a_task_that_airflow_ends_while_it_starts_its_command_ends_it_as_well(
    dag: Dag, monkeypatch: pytest.MonkeyPatch
):
    """Otherwise the signal has no effect, or ends the task alone."""
    ends = "kill $waiting; echo ended >> called; exit 130"
    script = f"sleep 60 > /dev/null & waiting=$!; trap '{ends}' INT; : > ready; wait"
    (dag.folder / "pg-bronze").write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    os.mkfifo(dag.folder / "ready")
    start = subprocess.Popen

    def interrupted(*arguments: Any, **named: Any) -> Any:
        process = start(*arguments, **named)
        (dag.folder / "ready").read_bytes()  # the trap is set
        signal.raise_signal(signal.SIGTERM)
        return process

    monkeypatch.setattr("subprocess.Popen", interrupted)
    with pytest.raises(Error, match="ended with 130 and no document"):
        dag.tick("movie")

    assert dag.called == [["ended"]]


def test_every_command_of_the_dag_exists_with_its_options(dag: Dag):
    dag.answers("plan", {"tables": []})
    dag.answers("tick", Outcome().to_json())
    dag.answers("status", status_of())
    dag.run("plan")
    dag.tick("movie")
    dag.attempt.try_number = 2
    dag.tick("movie")

    assert {words[0] for words in dag.called} == {"plan", "tick", "status"}
    assert [text for text in map(problem, dag.called) if text] == []
