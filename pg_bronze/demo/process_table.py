"""The system's process table: which processes run, whose children they are, and when they began."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """One line of the system's process table; ``session`` is the process group where sessions are not shown.

    ``start`` counts clock ticks since boot on Linux, seconds since 1970 elsewhere: together with the id it names a
    process for good, because ids are given out again.
    """

    pid: int
    parent: int
    session: int
    start: int


def process_table() -> list[Process]:
    """List the processes that run now, without those that ended and only wait to be collected."""
    return _linux_table() if sys.platform == "linux" else _ps_table()


def _linux_table() -> list[Process]:
    table = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            text = Path("/proc", entry, "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        # The program's name stands in brackets and may contain anything, brackets too.
        field = text.rpartition(")")[2].split()
        if field[0] not in "ZX":
            table.append(Process(int(entry), int(field[1]), int(field[3]), int(field[19])))
    return table


def _ps_table() -> list[Process]:
    output = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,pgid=,stat=,lstart="],
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    table = []
    for line in output.splitlines():
        pid, parent, group, state, started = line.split(maxsplit=4)
        if not state.startswith("Z"):
            start = int(time.mktime(time.strptime(started.strip(), "%a %b %d %H:%M:%S %Y")))
            table.append(Process(int(pid), int(parent), int(group), start))
    return table
