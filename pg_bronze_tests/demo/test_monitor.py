"""What the demo prints while it runs and after it was stopped."""

import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pg_bronze.demo.console import Console, StopSignals
from pg_bronze.demo.monitor import Monitor

LINE = "2026-11-24 06:50:0{number} +0000 - dagster - {level} - job - 1f - m - {message}\n"


def test_slices_that_are_committed_while_the_demo_stops_are_printed(tmp_path: Path):
    """The page and the bucket have them, so a missing line looks like a lost slice."""
    log, out = tmp_path / "dagster.log", io.StringIO()
    log.touch()
    dagster: Any = SimpleNamespace(log=log, child=None, is_ready=lambda: False)
    servers: Any = SimpleNamespace(postgres=None, s3=None)
    signals = StopSignals()
    signals.requested = True
    monitor = Monitor(Console(out), signals, dagster, servers, tmp_path / "env.sh")
    assert monitor.run() == 0
    with log.open("a") as file:
        file.write(LINE.format(number=1, level="INFO", message="copied movie: 2 rows, transactions [1, 2)"))
        file.write(LINE.format(number=2, level="ERROR", message="STEP_FAILURE - the run was stopped"))

    monitor.print_last_slices()

    assert out.getvalue().splitlines()[-1] == "06:50:01  copied movie: 2 rows, transactions [1, 2)"


@pytest.mark.parametrize(
    "folder, command", [(".", ".venv/bin/pg-bronze"), ("elsewhere", "'{top}/.venv/bin/pg-bronze'")]
)
def test_the_last_line_of_the_addresses_reads_what_was_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, command: str
):
    """In parentheses, so that the settings of the demo do not stay in the shell."""
    top, out = tmp_path / "a project", io.StringIO()
    (top / folder).mkdir(parents=True)
    monkeypatch.chdir(top / folder)
    monkeypatch.setattr(sys, "executable", str(top / ".venv/bin/python"))
    dagster: Any = SimpleNamespace(log=tmp_path / "log", child=None, url="http://127.0.0.1:3000", is_ready=lambda: True)
    postgres = SimpleNamespace(child=SimpleNamespace(poll=lambda: 1, name="PostgreSQL", log="log", tail=lambda: ""))
    servers: Any = SimpleNamespace(postgres=postgres, s3=None, bucket=lambda: "b", database=lambda: "d")

    Monitor(Console(out), StopSignals(), dagster, servers, top / "env.sh").run()

    shown = next(line for line in out.getvalue().splitlines() if "read a table" in line)
    assert shown.endswith(f"(. '{top}/env.sh'; {command.format(top=top)} scan movie --latest)")
