"""Consoles: what `dagster dev` prints of a run and of the sensors while a server is down."""

import logging
import sys
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from pg_bronze.defs.daemon_console import SENSORS, ErrorLines, News
from pg_bronze.defs.run_console import Explained
from pg_bronze.errors import SourceUnavailable
from pg_bronze.scheduling.outages import Outages
from pg_bronze_tests.harness.project import Project

DOWN = "no connection to the S3 server http://127.0.0.1:1"


@pytest.fixture
def console(cinema: Project, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return what a run of both tables prints while the S3 server is down."""
    cinema.set(MINIO_ENDPOINT="http://127.0.0.1:1")
    cinema.reload()
    (request,) = cinema.evaluate().run_requests
    capsys.readouterr()
    cinema.copy(run_config=request.run_config)
    return capsys.readouterr().err.splitlines()


def test_a_run_prints_one_line_for_a_cause_of_all_its_tables(console: list[str]):
    """Dagster prints the tracebacks of each table, and a person looks for the sentence among 90 lines."""
    causes = [line for line in console if DOWN in line]

    assert len(causes) == 1, causes
    assert " - ERROR - " in causes[0]
    assert " - bronze__movie - movie: " in causes[0]
    assert not any("Traceback" in line for line in console)
    assert sum("batch: 0 new rows in 0 tables, 2 failed" in line for line in console) == 1
    assert len(console) <= 4, console


def test_an_unexpected_error_keeps_its_traceback():
    """Nobody could find the fault without it."""
    failure = SimpleNamespace(user_failure_data=None)
    step = SimpleNamespace(event_type=dg.DagsterEventType.STEP_FAILURE, step_failure_data=failure)
    run = SimpleNamespace(event_type=dg.DagsterEventType.RUN_FAILURE)
    shown = Explained()

    def printed(event: Any) -> bool:
        record = logging.makeLogRecord({"msg": "failed", "dagster_meta": {"dagster_event": event}})
        return shown.filter(record) and record.getMessage() == "failed"

    assert not printed(run), "a run whose failures were explained says nothing more"
    assert printed(step)
    assert printed(run)


@pytest.fixture
def logger() -> tuple[logging.Logger, list[str]]:
    lines: list[str] = []
    made = logging.Logger(SENSORS)  # noqa: LOG001
    made.addHandler(handler := logging.Handler())
    handler.emit = lambda record: lines.append(f"{record.levelname} {record.getMessage()}")  # type: ignore[method-assign]
    return made, lines


def raised(sensor: str) -> Any:
    """Return what the daemon has of an error that a sensor raised in the code server."""
    try:
        try:
            raise SourceUnavailable("cine@db:5432: no connection. It is retried at the next tick.")
        except SourceUnavailable as error:
            name = f"Error occurred during the execution of evaluation_fn for sensor {sensor}"
            raise dg.DagsterError(name) from error
    except dg.DagsterError:
        return sys.exc_info()


def test_a_cause_of_several_sensors_is_one_line_without_a_traceback(logger: tuple[logging.Logger, list[str]]):
    """Without settings, two sensors printed 895 lines in the first minutes."""
    made, lines = logger
    report = ErrorLines(Outages("sensor"))

    for sensor in ("bronze_tick", "bronze_catalog", "bronze_tick"):
        error = report(raised(sensor), made, "Sensor tick caught an error")
        assert "SourceUnavailable" in error.to_string(), "the UI shows the whole error"

    assert lines == ["ERROR bronze_tick: cine@db:5432: no connection. It is retried at the next tick."]


def test_an_error_that_pg_bronze_does_not_explain_is_printed_by_dagster(logger: tuple[logging.Logger, list[str]]):
    made, lines = logger
    try:
        raise KeyError("x")
    except KeyError:
        ErrorLines(Outages("sensor"))(sys.exc_info(), made, "Sensor tick caught an error")

    assert lines == ["ERROR Sensor tick caught an error"]


def test_a_sensor_that_says_the_same_with_other_numbers_is_printed_once_a_minute(
    logger: tuple[logging.Logger, list[str]], monkeypatch: pytest.MonkeyPatch
):
    made, lines = logger
    made.addFilter(News(Outages("sensor")))
    now = 0.0
    monkeypatch.setattr("pg_bronze.defs.daemon_console.time", SimpleNamespace(monotonic=lambda: now))

    for second, found in ((0, "2 unchanged"), (10, "2 unchanged"), (20, "1 failing, 1 unchanged"), (81, "2 unchanged")):
        now = second
        made.info("Checking for new runs for sensor: bronze_tick")
        made.info(f"Sensor bronze_tick skipped: 2 tables checked up to transaction 9{second} in 6 ms: {found}")
        made.warning("something else")

    shown = [line for line in lines if "something else" not in line]
    assert [line.rpartition(": ")[2] for line in shown] == ["2 unchanged", "1 failing, 1 unchanged", "2 unchanged"]
    assert len(lines) - len(shown) == 4
