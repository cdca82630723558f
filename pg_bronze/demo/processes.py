"""Child processes: none outlives its parent, each ends with all it has started, a killed parent's are found again.

It does not know what the programs are. Linux lets a child ask for a signal when its parent dies; elsewhere the record
file written beside each child lets the next start end what a killed parent left behind.
"""

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TypedDict

from pg_bronze.demo.process_table import Process, process_table
from pg_bronze.errors import SettingsError

HOST = "127.0.0.1"
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def is_free(port: int) -> bool:
    """Tell whether a server could listen on this port of the loopback address now."""
    with socket.socket() as probe:
        # As servers do themselves: connections that are only waiting to time out do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Return that many different ports nobody listens on; another program may still be quicker to take one."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((HOST, 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def claim_port(port: int) -> socket.socket | None:
    """Claim a free port among the demos of this machine, until the answer is closed; None if it is in use or claimed.

    A program may take ten seconds to listen on the port it was given, and until then the port looks free to everybody.
    Where there are no abstract names (Linux has them) nothing is claimed.
    """
    claim = socket.socket(socket.AF_UNIX)
    if sys.platform == "linux":
        try:
            claim.bind(f"\0pg_bronze-demo-port-{port}")
        except OSError:
            claim.close()
            return None
    if is_free(port):
        return claim
    claim.close()
    return None


def require_free(port: int, purpose: str) -> None:
    """Raise SettingsError if somebody listens on the port that was asked for."""
    if not is_free(port):
        raise SettingsError(f"port {port} for {purpose} is in use. Choose another one, or none to get a free one.")


def members(leader: int, start: int) -> list[Process]:
    """List what is left of a session whose leader had this id and start.

    If the id belongs to somebody else by now, the session had ended: no id is given out while a group uses it.
    """
    table = process_table()
    if any(process.pid == leader and process.start != start for process in table):
        return []
    return [process for process in table if leader in (process.session, process.pid) and process.start >= start]


def send(pid: int, signal_number: int) -> None:
    """Send a signal to a process that may have ended already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal_number)


class Child:
    """A running program in a session of its own, its output in ``log``, its identity in ``record``.

    On Linux it gets ``death_signal`` when this process ends in whatever way. That works from the main thread only,
    because the kernel watches the thread that started it; from another thread the record has to do.
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
        owner: tuple[int, int] | None = None,
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
                preexec_fn=_prepare(death_signal),  # noqa: PLW1509  (there is no other way to ask for a death signal)
                **as_owner(owner),
            )
        self.pid = self._process.pid
        self._start = next((process.start for process in process_table() if process.pid == self.pid), 0)
        record.write_text(json.dumps({"name": name, "pid": self.pid, "start": self._start}), encoding="utf-8")

    @property
    def stdin(self) -> IO[bytes] | None:
        """The pipe to the program, if ``keep_stdin`` was asked for."""
        return self._process.stdin

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        return self._process.poll()

    def tail(self, line_count: int = 8) -> str:
        """Return the last lines of its log."""
        return tail(self.log, line_count)

    def wait(self, timeout_s: float) -> bool:
        """Wait for it to end; False if it still runs after ``timeout_s`` seconds."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self, signal_number: int, timeout_s: float) -> None:
        """Ask it to end, wait, and kill what is left of it after ``timeout_s`` seconds."""
        if self.poll() is None:
            send(self.pid, signal_number)
            self.wait(timeout_s)
        self.kill()

    def kill(self) -> None:
        """End it and everything in its session at once."""
        end_session(self.pid, self._start)
        self._process.wait()
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        self._record.unlink(missing_ok=True)


class Owner(TypedDict, total=False):
    """Arguments of subprocess that say as whom a program runs."""

    user: int
    group: int
    extra_groups: list[int]


def as_owner(owner: tuple[int, int] | None) -> Owner:
    """Return the arguments that make subprocess run a program as this user and group id, without other groups."""
    return {} if owner is None else {"user": owner[0], "group": owner[1], "extra_groups": []}


def _prepare(death_signal: int | None) -> Callable[[], None]:
    parent = os.getpid()
    watched = _LIBC is not None and death_signal is not None and threading.current_thread() is threading.main_thread()

    def prepare() -> None:
        # A shell without job control starts background programs with SIGINT ignored, and children inherit that:
        # dagster dev then ignores SIGINT and SIGTERM alike, and nothing but SIGKILL ends it.
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        if watched and _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, death_signal)
            if os.getppid() != parent:
                os._exit(1)

    return prepare


def end_session(leader: int, start: int) -> bool:
    """Kill a session and wait until nothing of it runs; False if it was empty."""
    return end_all(lambda: members(leader, start))


def end_all(running: Callable[[], Sequence[Process]], *, timeout_s: float = 10.0) -> bool:
    """Kill what ``running`` lists until it lists nothing, for a killed process takes a while; False if it never did."""
    found = left = running()
    deadline = time.monotonic() + timeout_s
    while left and time.monotonic() < deadline:
        for process in left:
            send(process.pid, signal.SIGKILL)
        time.sleep(0.02)  # only a parent is told when they end
        left = running()
    return bool(found)


def end_leftover(record: Path, *, patience_s: float = 0.0) -> str | None:
    """End what a parent that was killed left behind, as its record tells; return its name if there was anything.

    ``patience_s`` is how long it may take to end by itself first.
    """
    try:
        noted = json.loads(record.read_text(encoding="utf-8"))
        name, leader, start = str(noted["name"]), int(noted["pid"]), int(noted["start"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    deadline = time.monotonic() + patience_s
    while members(leader, start) and time.monotonic() < deadline:
        time.sleep(0.05)  # only a parent is told when they end
    ended = end_session(leader, start)
    record.unlink(missing_ok=True)
    return name if ended else None


def tail(log: Path, line_count: int) -> str:
    """Return the last lines of a log file, or nothing if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8192))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return ""
    return "\n".join(lines[-line_count:])
