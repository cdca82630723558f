"""Commands that settings and profiles name: run with a time limit. What they print is a secret."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence

LIMIT_S = 30.0


def run(words: Sequence[str], limit_s: float) -> tuple[int, bytes]:
    """Run a program without a terminal, and return its exit status and its output.

    Raises:
        subprocess.TimeoutExpired: It took longer than ``limit_s``, and was ended with all that it had started. The
            words are part of the text.
        OSError: It cannot be run.
    """
    # In a new session, so that its child processes are ended too: they could keep the pipes open.
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            output, _ = process.communicate(timeout=limit_s)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, output
