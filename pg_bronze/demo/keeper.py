"""Keeps a tree of processes alive only as long as somebody holds the other end of its standard input.

A program of its own, run by path with nothing but the standard library: ``keeper.py GRACE_S COMMAND...``.
``stop`` on standard input asks the command to end (SIGINT) and waits up to ``GRACE_S`` seconds for all it has started;
``kill``, or the end of the input because the launcher died, ends everything at once. So does the command's own end:
dagster dev killed from outside leaves a webserver and a daemon that would go on for ever.
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


class Tree:
    """A command and everything that descends from it."""

    def __init__(self, command: list[str]) -> None:
        libc = ctypes.CDLL(None) if _LINUX else None
        if libc:
            # Orphans come to us instead of to init, so that "no child left" means that nothing is left.
            libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

        def prepare() -> None:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            if libc:
                libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

        # This program has one thread, so that code may run between fork and exec.
        self.pid = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            process_group=0,
            preexec_fn=prepare,  # noqa: PLW1509  (one thread, see above)
        ).pid
        self.exit_code: int | None = None

    def is_empty(self) -> bool:
        """Collect what has ended, and tell whether anything is left."""
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
        """Ask the command itself to end; it tells its children."""
        if self.exit_code is None:
            os.kill(self.pid, signal.SIGINT)

    def kill(self) -> None:
        """Kill the group, and what has become our child by leaving it."""
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
    """Run the command until it ends or has to; return its exit code, 137 if it had to be killed."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    wake_out, wake_in = os.pipe()
    os.set_blocking(wake_in, False)
    signal.set_wakeup_fd(wake_in)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    asked_to_die: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked_to_die.append(number))

    selector = selectors.DefaultSelector()
    selector.register(wake_out, selectors.EVENT_READ)
    selector.register(0, selectors.EVENT_READ)
    tree = Tree(command)
    deadline: float | None = None
    while not tree.is_empty():
        now = time.monotonic()
        if asked_to_die or (tree.exit_code is not None and deadline is None):
            deadline = now
        if deadline is not None and now >= deadline:
            tree.kill()
        for key, _ in selector.select(1.0 if deadline is None else 0.1):
            word = os.read(key.fd, 4096)
            if key.fd == wake_out:
                continue
            if b"kill" in word or not word:
                deadline = time.monotonic()
            elif b"stop" in word and deadline is None:
                deadline = time.monotonic() + grace_s
                tree.interrupt()
            if not word:
                selector.unregister(0)
    return 137 if tree.exit_code is None or tree.exit_code < 0 else tree.exit_code


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
