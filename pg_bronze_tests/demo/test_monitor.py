"""What the demo prints while it runs and after it was stopped."""

import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pg_bronze.defs import source_names
from pg_bronze.demo.console import Console, StopSignals
from pg_bronze.demo.monitor import Monitor

LINE = "2026-11-24 06:50:0{number} +0000 - dagster - {level} - job - 1f - m - {message}\n"


def monitor(log: Path, out: io.StringIO, signals: StopSignals) -> Monitor:
    log.touch()
    dagster: Any = SimpleNamespace(log=log, child=None, is_ready=lambda: False)
    servers: Any = SimpleNamespace(postgres=None, s3=None)
    return Monitor(Console(out), signals, dagster, servers, log.with_name("env.sh"))


def test_what_a_plain_copy_would_have_lost_is_printed_after_two_minutes_and_then_every_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the reason to use pg_bronze, and nobody reads a line that is repeated all the time."""
    log, out, seconds = tmp_path / "dagster.log", io.StringIO(), [0.0]
    monkeypatch.setattr(Console, "elapsed_s", property(lambda _: seconds[0]))
    watched = monitor(log, out, StopSignals())
    shown = []
    for second, late in [(60, " (2 late)"), (119, ""), (120, " (10 late)"), (200, " (1,000 late)"), (3720, "")]:
        seconds[0] = second
        with log.open("a") as file:
            file.write(LINE.format(number=1, level="INFO", message=f"copied movie: 2 rows{late}, transactions [1, 2)"))
        watched._check()
        lines = [line for line in out.getvalue().splitlines() if line.startswith("late rows")]
        shown.append(len(lines))
    assert shown == [0, 0, 1, 1, 2]
    assert lines[0] == "late rows so far: 12; a copy by `column > last value` would have lost them"
    assert lines[1].startswith("late rows so far: 1,012; ")


def test_slices_that_are_committed_while_the_demo_stops_are_printed(tmp_path: Path):
    """The page and the bucket have them, so a missing line looks like a lost slice."""
    log, out = tmp_path / "dagster.log", io.StringIO()
    signals = StopSignals()
    signals.requested = True
    watched = monitor(log, out, signals)
    assert watched.run() == 0
    with log.open("a") as file:
        file.write(LINE.format(number=1, level="INFO", message="copied movie: 2 rows, transactions [1, 2)"))
        file.write(LINE.format(number=2, level="ERROR", message="STEP_FAILURE - the run was stopped"))

    watched.print_last_slices()

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


def _monitor(tmp_path: Path) -> tuple[Monitor, Path, io.StringIO]:
    log, out = tmp_path / "dagster.log", io.StringIO()
    log.touch()
    dagster: Any = SimpleNamespace(log=log, child=None, is_ready=lambda: True, url="http://127.0.0.1:3000")
    servers: Any = SimpleNamespace(postgres=None, s3=None, bucket=lambda: "b", database=lambda: "d")
    return Monitor(Console(out), StopSignals(), dagster, servers, tmp_path / "env.sh"), log, out


def test_an_outage_is_two_lines_in_a_minute(tmp_path: Path):
    """A stopped S3 server printed a line for each table in each retry."""
    monitor, log, out = _monitor(tmp_path)
    with log.open("a") as file:
        for number in range(3):
            for table in ("movie", "person"):
                down = f"{table}: no connection to the S3 server. It is retried at the next tick."
                file.write(_of_table(number, "ERROR", table, down))
        file.write(
            "2026-11-24 06:50:03 +0000 - dagster.daemon.SensorDaemon - ERROR - bronze_tick: no server. Start it\n"
        )
        file.write(_of_table(4, "INFO", "movie", "copied movie: 2 rows, transactions [1, 2)"))

    monitor._check()

    lines = [line for line in out.getvalue().splitlines() if line.startswith("06:50")]
    assert lines == [
        "06:50:00  error: movie: no connection to the S3 server. It is retried at the next tick.",
        "06:50:03  error: bronze_tick: no server. Start it",
        "06:50:04  copied movie: 2 rows, transactions [1, 2)",
        "06:50:04  recovered after 0 s: no connection to the S3 server",
        "06:50:04  recovered after 0 s: no server",
    ]


def _of_table(second: int, level: str, table: str, message: str) -> str:
    return f"2026-11-24 06:50:0{second} +0000 - dagster - {level} - bronze - 1f - bronze__{table} - {message}\n"


def test_the_first_address_is_a_page_with_source_tables_bronze_and_silver(tmp_path: Path):
    """Each group is a closed box otherwise, and a page of one group has no silver asset."""
    monitor, _, out = _monitor(tmp_path)

    monitor._check()

    (line,) = [line for line in out.getvalue().splitlines() if line.startswith("  tables")]
    groups = ("postgres", "bronze", "silver")
    assert line.endswith("/asset-groups/?expanded=" + ",".join(f"global@global:{group}" for group in groups))
    assert groups == (source_names.SOURCE, source_names.BRONZE, source_names.SILVER)
