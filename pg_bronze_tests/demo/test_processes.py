"""Child processes and ports, with programs that only sleep."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from pg_bronze.demo.ports import free_ports, reserve_port
from pg_bronze.demo.processes import Child, end_leftover, running, start_time_s
from pg_bronze_tests.demo.process_end import has_ended

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only the kernel of Linux offers it")


@linux_only
def test_the_next_start_ends_the_processes_of_a_killed_parent(tmp_path: Path) -> None:
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
    assert psutil.pid_exists(pid)

    assert end_leftover(record) == "left"
    assert has_ended(pid)
    assert end_leftover(record) is None


def test_a_record_whose_process_id_was_reused_ends_nothing(tmp_path: Path) -> None:
    record = tmp_path / "process.json"
    child = Child("mine", ["sleep", "600"], log=tmp_path / "log", record=record, env=os.environ, cwd=tmp_path)
    try:
        record.write_text(f'{{"name": "old", "pid": {child.pid}, "start": 1}}')
        assert end_leftover(record) is None
        assert child.poll() is None
    finally:
        child.kill()


@pytest.mark.parametrize("text", ["", "{", '{"name": 1}', "[]", '{"pid": null, "name": "", "start": ""}'])
def test_an_incomplete_record_is_ignored(tmp_path: Path, text: str) -> None:
    record = tmp_path / "process.json"
    record.write_text(text)
    assert end_leftover(record) is None


@linux_only
def test_a_child_ends_with_a_killed_parent(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from pg_bronze.demo.processes import Child\n"
        "here = Path(sys.argv[1])\n"
        "child = Child('x', ['sleep', '600'], log=here / 'log', record=here / 'r', env=os.environ, cwd=here)\n"
        "print(child.pid, flush=True); os.kill(os.getpid(), 9)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert has_ended(int(run.stdout))


@linux_only
def test_two_demos_do_not_reserve_the_same_port() -> None:
    """A port is free for ten seconds until Dagster listens: one page would show the tables of the other demo."""
    port = free_ports(1)[0]
    first = reserve_port(port)
    assert first is not None
    assert reserve_port(port) is None
    first.close()
    again = reserve_port(port)
    assert again is not None
    again.close()


def test_a_child_that_has_ended_is_not_running(tmp_path: Path) -> None:
    """A zombie keeps its process id: a stop would wait for it until the timeout."""
    zombie = subprocess.Popen(["true"])
    assert os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT) is not None

    left = running([psutil.Process(zombie.pid)])

    zombie.wait()
    assert left == []


@linux_only
def test_a_changed_clock_does_not_change_the_start_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the processes of a killed demo are taken for others, and run on."""
    before = start_time_s(psutil.Process())
    boot_time = psutil._pslinux.boot_time
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: boot_time() + 3600)

    assert start_time_s(psutil.Process()) == before
