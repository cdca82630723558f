"""Interrupts of the command `run`."""

import os
import signal
import subprocess
import sys

import pytest

from pg_bronze.cli import app, batch


class _Dying:
    """Sends SIGINT while it is finalized: Python prints the KeyboardInterrupt there and continues."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)


def test_a_ctrl_c_that_python_drops_in_a_finalizer_ends_run_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch,
):
    printed: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", printed.append)
    batches = []

    def run_batch(tables: list[str], state: object) -> bool:
        batches.append(len(batches))
        assert len(batches) == 1, "run continued after Ctrl-C"
        _Dying()
        return True

    monkeypatch.setattr(batch, "run_batch", run_batch)

    app.run(every="0")

    assert batches == [0]
    assert printed == []


def test_other_errors_in_a_finalizer_are_shown_during_a_run(monkeypatch: pytest.MonkeyPatch):
    printed: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda shown: printed.append(shown.exc_type))

    class Faulty:
        def __del__(self) -> None:
            raise ZeroDivisionError

    def run_batch(tables: list[str], state: object) -> bool:
        Faulty()
        raise KeyboardInterrupt

    monkeypatch.setattr(batch, "run_batch", run_batch)

    app.run(every="0")

    assert printed == [ZeroDivisionError]


@pytest.mark.parametrize("interrupt", [True, False])
def test_a_ctrl_c_that_a_library_logs_shows_no_traceback(interrupt: bool):
    """SQLAlchemy logs one that arrives during the close of a connection."""
    kind = "KeyboardInterrupt" if interrupt else "ValueError"
    code = f"""
import logging
from pg_bronze.cli import app, batch
def run_batch(tables, state):
    try:
        raise {kind}
    except BaseException:
        logging.getLogger("sqlalchemy.pool.impl.NullPool").error("closing", exc_info=True)
    raise KeyboardInterrupt
batch.run_batch = run_batch
app.run(every="0")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ("Traceback" in done.stderr) is not interrupt
