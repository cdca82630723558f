"""The keeper, with shells in the place of ``dagster dev``: what they print on their pipes tells when to look."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pg_bronze.demo import keeper
from pg_bronze.demo.process_table import process_table
from pg_bronze.demo.processes import Child, claim_port, end_leftover, free_ports
from pg_bronze_tests.demo.endings import gone

# The child leaves the process group and the session, as a worker of Dagster's may; both say their ids.
FAMILY = "echo $$; setsid sh -c 'echo $$; exec sleep 600' & {} wait"
ENDS_WELL = FAMILY.format("trap 'echo ending; kill $!; exit 0' INT;")
IGNORES = FAMILY.format("trap '' INT;")
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows who left the session")


class Kept:
    """A keeper and the ids of the two processes of its family."""

    def __init__(self, script: str, grace_s: float) -> None:
        program = [sys.executable, "-I", "-S", keeper.__file__, str(grace_s), "sh", "-c", script]
        self.process = subprocess.Popen(
            program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self.pids = [int(self.stdout.readline()) for _ in range(2)]

    def ended(self) -> bool:
        return all(map(gone, self.pids))


@pytest.fixture
def kept() -> Iterator[list[Kept]]:
    made: list[Kept] = []
    yield made
    for one in made:
        one.process.kill()
        one.process.wait()
        one.stdin.close()
        one.stdout.close()


def start(kept: list[Kept], script: str, grace_s: float) -> Kept:
    kept.append(Kept(script, grace_s))
    return kept[-1]


@linux_only
def test_asked_to_stop_it_lets_the_family_end_in_its_own_way(kept: list[Kept]) -> None:
    family = start(kept, ENDS_WELL, 30)
    family.stdin.write("stop\n")
    family.stdin.flush()

    assert family.stdout.readline() == "ending\n"
    assert family.process.wait(10) == 0
    assert family.ended()


@linux_only
@pytest.mark.parametrize("word", ["kill\n", "stop\n", ""])
def test_a_family_that_will_not_end_is_killed_with_all_who_left_the_session(kept: list[Kept], word: str) -> None:
    """No word at all: the launcher was killed, and its end of the pipe with it."""
    family = start(kept, IGNORES, 0.1)
    family.stdin.write(word)
    family.stdin.close()

    assert family.process.wait(10) == 137
    assert family.ended()


@linux_only
def test_children_of_a_command_that_died_are_not_left_behind(kept: list[Kept]) -> None:
    """dagster dev killed from outside leaves a daemon that would go on ticking for ever."""
    family = start(kept, IGNORES, 30)
    os.kill(family.pids[0], signal.SIGKILL)

    assert family.process.wait(10) == 137
    assert family.ended()


@linux_only
def test_the_next_start_ends_what_a_killed_parent_left(tmp_path: Path) -> None:
    record = tmp_path / "process.json"
    code = (
        "import os, sys; from pathlib import Path; from pg_bronze.demo.processes import Child\n"
        "here = Path(sys.argv[1])\n"
        "child = Child('left', ['sleep', '600'], log=here / 'log', record=here / 'process.json',\n"
        "              env=os.environ, cwd=here, death_signal=None)\n"
        "print(child.pid, flush=True); os.kill(os.getpid(), 9)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    pid = int(run.stdout)
    assert pid in {process.pid for process in process_table()}

    assert end_leftover(record) == "left"
    assert gone(pid)
    assert end_leftover(record) is None


def test_a_record_whose_id_belongs_to_somebody_else_by_now_harms_nobody(tmp_path: Path) -> None:
    record = tmp_path / "process.json"
    child = Child("mine", ["sleep", "600"], log=tmp_path / "log", record=record, env=os.environ, cwd=tmp_path)
    try:
        record.write_text(f'{{"name": "old", "pid": {child.pid}, "start": 1}}')
        assert end_leftover(record) is None
        assert child.poll() is None
    finally:
        child.kill()


@pytest.mark.parametrize("text", ["", "{", '{"name": 1}', "[]", '{"pid": null, "name": "", "start": ""}'])
def test_a_record_that_was_cut_off_is_none(tmp_path: Path, text: str) -> None:
    record = tmp_path / "process.json"
    record.write_text(text)
    assert end_leftover(record) is None


@linux_only
def test_a_child_dies_with_a_killed_parent(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from pg_bronze.demo.processes import Child\n"
        "here = Path(sys.argv[1])\n"
        "child = Child('x', ['sleep', '600'], log=here / 'log', record=here / 'r', env=os.environ, cwd=here)\n"
        "print(child.pid, flush=True); os.kill(os.getpid(), 9)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert gone(int(run.stdout))


@linux_only
def test_two_demos_never_give_their_web_pages_the_same_port() -> None:
    """Each asks ten seconds before it listens: one would show the other's tables."""
    port = free_ports(1)[0]
    first = claim_port(port)
    assert first is not None
    assert claim_port(port) is None
    first.close()
    again = claim_port(port)
    assert again is not None
    again.close()
