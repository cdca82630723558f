"""What the commands do around a batch; the batches themselves are in e2e/test_commands.py."""

import os
import signal
import sys

import pytest

from pg_bronze import cli


class _Dying:
    """Gets Ctrl-C while it is finalized, where Python prints a KeyboardInterrupt and goes on."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)


def test_a_ctrl_c_that_python_swallowed_in_a_finalizer_still_ends_run_and_shows_no_traceback(
    monkeypatch: pytest.MonkeyPatch,
):
    """Seen red by catching KeyboardInterrupt alone: ``run`` went on for ever, as it did once in a real garbage
    collection; and with what Python prints of it left alone.
    """
    printed: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", printed.append)
    batches = []

    def batch(tables: list[str], told: object) -> bool:
        batches.append(len(batches))
        assert len(batches) == 1, "run went on after Ctrl-C"
        _Dying()
        return True

    monkeypatch.setattr(cli, "_run_batch", batch)

    cli.run(every="0")

    assert batches == [0]
    assert printed == []


def test_other_errors_in_a_finalizer_are_shown_during_a_run(monkeypatch: pytest.MonkeyPatch):
    printed: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda shown: printed.append(shown.exc_type))

    class Faulty:
        def __del__(self) -> None:
            raise ZeroDivisionError

    def batch(tables: list[str], told: object) -> bool:
        Faulty()
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run_batch", batch)

    cli.run(every="0")

    assert printed == [ZeroDivisionError]
