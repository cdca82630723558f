"""The supervisor, with shells instead of ``dagster dev``. What they print reports their progress to the test."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from pg_bronze.demo import supervisor
from pg_bronze_tests.demo.process_end import has_ended

# The child leaves the process group and the session, as a worker of Dagster may. Both print their process ids.
COMMAND = "echo $$; setsid sh -c 'echo $$; exec sleep 600' & {} wait"
ENDS_ON_SIGINT = COMMAND.format("trap 'echo ending; kill $!; exit 0' INT;")
IGNORES_SIGINT = COMMAND.format("trap '' INT;")
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux finds processes outside of the session")


class Supervised:
    """A supervisor and the ids of the two processes that it supervises."""

    def __init__(self, script: str, grace_s: float) -> None:
        program = [sys.executable, "-I", "-S", supervisor.__file__, str(grace_s), "sh", "-c", script]
        self.process = subprocess.Popen(
            program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self.pids = [int(self.stdout.readline()) for _ in range(2)]

    def ended(self) -> bool:
        return all(map(has_ended, self.pids))


Start = Callable[[str, float], Supervised]


@pytest.fixture
def supervise() -> Iterator[Start]:
    started: list[Supervised] = []

    def start(script: str, grace_s: float) -> Supervised:
        started.append(Supervised(script, grace_s))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()
        one.stdin.close()
        one.stdout.close()


@linux_only
def test_stop_interrupts_the_command_and_waits_for_its_end(supervise: Start) -> None:
    supervised = supervise(ENDS_ON_SIGINT, 30)
    supervised.stdin.write("stop\n")
    supervised.stdin.flush()

    assert supervised.stdout.readline() == "ending\n"
    assert supervised.process.wait(60) == 0
    assert supervised.ended()


@linux_only
@pytest.mark.parametrize("message", ["kill\n", "stop\n", ""])
def test_processes_that_do_not_end_are_killed_even_outside_of_the_session(supervise: Start, message: str) -> None:
    """Without a message: the launcher was killed, which closes its end of the pipe."""
    supervised = supervise(IGNORES_SIGINT, 0.1)
    supervised.stdin.write(message)
    supervised.stdin.close()

    assert supervised.process.wait(60) == 137
    assert supervised.ended()


@linux_only
def test_children_of_a_killed_command_are_killed(supervise: Start) -> None:
    """A killed dagster dev would leave a daemon that starts runs forever."""
    supervised = supervise(IGNORES_SIGINT, 30)
    os.kill(supervised.pids[0], signal.SIGKILL)

    assert supervised.process.wait(60) == 137
    assert supervised.ended()
