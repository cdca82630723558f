"""What the commands do around a batch; the batches themselves are in e2e/test_commands.py."""

import os
import signal

import pytest

from pg_bronze import cli


class _Dying:
    """Gets Ctrl-C while it is finalized, where Python prints a KeyboardInterrupt and goes on."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_ctrl_c_that_python_swallowed_in_a_finalizer_still_ends_run(monkeypatch: pytest.MonkeyPatch):
    """Seen red by catching KeyboardInterrupt alone: ``run`` went on for ever, as it did once in a real garbage
    collection."""
    batches = []

    def batch(tables: list[str], told: object) -> bool:
        batches.append(len(batches))
        assert len(batches) == 1, "run went on after Ctrl-C"
        _Dying()
        return True

    monkeypatch.setattr(cli, "_run_batch", batch)

    cli.run(every="0")

    assert batches == [0]
