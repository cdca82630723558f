"""Child processes: each ends together with everything that it started, also when this process is killed.

On Linux the kernel sends a child a signal when its parent ends. Where it cannot, the next start ends the processes that
the record file of a child names.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

from pg_bronze.demo.log_lines import last_lines
from pg_bronze.demo.os_user import OsUser, run_as

_LINUX = sys.platform == "linux"
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if _LINUX else None


def start_time_s(process: psutil.Process) -> float:
    """Return when the process started: in seconds since boot on Linux, since 1970 elsewhere.

    Together with the process id it identifies a process for good, because ids are reused. On Linux psutil adds the boot
    time, which changes with the clock.
    """
    started_s: float = process.create_time() - (psutil.boot_time() if _LINUX else 0.0)
    return round(started_s, 2)


def running(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Return the processes that have not ended. A zombie has."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
                found.append(process)
    return found


def session_members(leader: int, start_s: float) -> list[psutil.Process]:
    """Return the running processes of the session whose leader had this process id and start time.

    If another process has the id by now, the session has ended: no id is reused while a session has it.
    """
    members = []
    for pid in psutil.pids():
        # ProcessLookupError and psutil's own: the process has ended.
        with contextlib.suppress(OSError, psutil.NoSuchProcess, psutil.AccessDenied):
            if leader not in (pid, os.getsid(pid)):
                continue
            process = psutil.Process(pid)
            started_s = start_time_s(process)
            if pid == leader and started_s != start_s:
                return []
            if started_s >= start_s:
                members.append(process)
    return running(members)


def kill_all(list_running: Callable[[], Sequence[psutil.Process]], *, timeout_s: float = 10.0) -> bool:
    """Kill the listed processes until none is listed, because they may start others. Return whether any was."""
    first = left = list_running()
    deadline = time.monotonic() + timeout_s
    while left and time.monotonic() < deadline:
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.02)  # only a parent is notified when they end
        left = list_running()
    return bool(first)


def kill_session(leader: int, start_s: float) -> bool:
    """Kill all processes of a session. Return whether any was running."""
    return kill_all(lambda: session_members(leader, start_s))


def end_leftover(record: Path, *, patience_s: float = 0.0) -> str | None:
    """End the processes that a killed parent left, and return the name in their record; None if there are none.

    They have ``patience_s`` seconds to end before they are killed.
    """
    try:
        written = json.loads(record.read_text(encoding="utf-8"))
        name, leader, start_s = str(written["name"]), int(written["pid"]), float(written["start"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    deadline = time.monotonic() + patience_s
    while session_members(leader, start_s) and time.monotonic() < deadline:
        time.sleep(0.05)  # only a parent is notified when they end
    killed = kill_session(leader, start_s)
    record.unlink(missing_ok=True)
    return name if killed else None


class Child:
    """A running program in a session of its own.

    Its output is appended to ``log``, and ``record`` identifies it for the next start. On Linux it receives
    ``death_signal`` when this process ends, unless it was started from another thread than the main one: the kernel
    sends the signal when that thread ends.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        record: Path,
        env: Mapping[str, str],
        cwd: Path,
        user: OsUser | None = None,
        death_signal: int | None = signal.SIGKILL,
        keep_stdin: bool = False,
    ) -> None:
        self.name = name
        self.log = log
        self._record = record
        with log.open("ab") as output:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if keep_stdin else subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=dict(env),
                start_new_session=True,
                preexec_fn=_prepare(death_signal),  # noqa: PLW1509  (the only way to request a death signal)
                **run_as(user),
            )
        self.pid = self._process.pid
        self._start_s = 0.0
        with contextlib.suppress(psutil.NoSuchProcess):  # which includes zombies outside of Linux
            self._start_s = start_time_s(psutil.Process(self.pid))
        record.write_text(json.dumps({"name": name, "pid": self.pid, "start": self._start_s}), encoding="utf-8")

    @property
    def stdin(self) -> IO[bytes] | None:
        """The pipe to the program, None unless ``keep_stdin`` was set."""
        return self._process.stdin

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        return self._process.poll()

    def tail(self, line_count: int = 8) -> str:
        """Return the last lines of its log."""
        return last_lines(self.log, line_count)

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end; False if it is still running after ``timeout_s`` seconds."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self, signal_number: int, timeout_s: float) -> None:
        """Send a signal, wait for its end, and kill it and what it started after ``timeout_s`` seconds."""
        if self.poll() is None:
            self._process.send_signal(signal_number)
            self.wait(timeout_s)
        self.kill()

    def kill(self) -> None:
        """Kill it and everything in its session."""
        kill_session(self.pid, self._start_s)
        self._process.wait()
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        self._record.unlink(missing_ok=True)


def _prepare(death_signal: int | None) -> Callable[[], None]:
    parent = os.getpid()
    in_main_thread = threading.current_thread() is threading.main_thread()
    requested = death_signal if _LIBC is not None and in_main_thread else None

    def prepare() -> None:
        # A shell without job control starts background programs with SIGINT ignored, and children inherit that:
        # dagster dev then ignores SIGINT and SIGTERM alike, and only SIGKILL ends it.
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        if requested is not None and _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, requested)
            if os.getppid() != parent:
                os._exit(1)

    return prepare
