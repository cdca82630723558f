"""A program that runs a command and ends all of its processes when the launcher stops or is killed.

Usage: ``supervisor.py GRACE_S COMMAND...``. ``stop`` on standard input interrupts the command (SIGINT) and waits up to
``GRACE_S`` seconds for everything that it started. ``kill``, the end of the input because the launcher was killed, and
the end of the command itself kill everything: a killed ``dagster dev`` would leave its web server and daemon running.

It uses the standard library only and runs with ``-I -S``: psutil cannot be imported then, and nothing in the user's
environment can keep it from running.
"""

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_LINUX = sys.platform == "linux"


class ProcessTree:
    """A command and all of its descendants."""

    def __init__(self, command: list[str]) -> None:
        libc = ctypes.CDLL(None) if _LINUX else None
        if libc:
            # Orphans become children of this process and not of init, so that no child left means no descendant left.
            libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

        def prepare() -> None:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            if libc:
                libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

        # Safe because this program has one thread.
        self.pid = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            process_group=0,
            preexec_fn=prepare,  # noqa: PLW1509  (one thread, see above)
        ).pid
        self.exit_code: int | None = None

    def is_empty(self) -> bool:
        """Reap the processes that have ended, and return whether none is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return _LINUX or self._group_is_gone()
            if pid == 0:
                return False
            if pid == self.pid:
                self.exit_code = os.waitstatus_to_exitcode(status)

    def _group_is_gone(self) -> bool:
        try:
            os.killpg(self.pid, 0)
        except (ProcessLookupError, PermissionError):
            return True
        return False

    def interrupt(self) -> None:
        """Interrupt the command, which ends its children."""
        if self.exit_code is None:
            os.kill(self.pid, signal.SIGINT)

    def kill(self) -> None:
        """Kill the process group, and the children that have left it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        for pid in _children() if _LINUX else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _children() -> list[int]:
    me, found = os.getpid(), []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError, IndexError):
            parent = Path("/proc", entry, "stat").read_bytes().rpartition(b")")[2].split()[1]
            if int(parent) == me:
                found.append(int(entry))
    return found


def main(grace_s: float, command: list[str]) -> int:
    """Run the command until it ends or is stopped. Return its exit code, 137 if it was killed."""
    wake, terminated = _catch_signals()
    selector = selectors.DefaultSelector()
    selector.register(wake, selectors.EVENT_READ)
    selector.register(0, selectors.EVENT_READ)
    tree = ProcessTree(command)
    deadline: float | None = None
    while not tree.is_empty():
        now = time.monotonic()
        if terminated or (tree.exit_code is not None and deadline is None):
            deadline = now
        if deadline is not None and now >= deadline:
            tree.kill()
        for key, _ in selector.select(1.0 if deadline is None else 0.1):
            request = os.read(key.fd, 4096)
            if key.fd == wake:
                continue
            if b"kill" in request or not request:
                deadline = time.monotonic()
            elif b"stop" in request and deadline is None:
                deadline = time.monotonic() + grace_s
                tree.interrupt()
            if not request:
                selector.unregister(0)
    return 137 if tree.exit_code is None or tree.exit_code < 0 else tree.exit_code


def _catch_signals() -> tuple[int, list[int]]:
    """Return a descriptor that is readable after a signal, and the list that a SIGTERM is added to."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    wake_out, wake_in = os.pipe()
    os.set_blocking(wake_in, False)
    signal.set_wakeup_fd(wake_in)
    terminated: list[int] = []
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda number, _: terminated.append(number))
    return wake_out, terminated


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
