"""What the demo prints while it runs and after it was stopped."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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
