"""One run worker as the launcher sees it: its process, its state, and the run that it has."""

import contextlib
import json
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, cast


@dataclass(frozen=True)
class Version:
    """Which definitions a worker has loaded.

    Attributes:
        location: The name of the code location.
        server_id: The id of its code server, which is another one after a reload.
        settings_mark: The mark of the settings that the code server has loaded.
        named: The definitions name their settings, as those of a component do. Otherwise the environment has them.
    """

    location: str
    server_id: str
    settings_mark: str
    named: bool = False


@dataclass(frozen=True)
class Assignment:
    """A run that is given to a worker.

    Attributes:
        run_id: The id of the run.
        prepare: Called with the socket and process id of the worker before the run is sent to it.
        decline: Called with the reason if the worker ends or cannot start before it has executed anything of the run.
        lost: Called with a sentence if the worker ends while it executes the run.
    """

    run_id: str
    prepare: Callable[[str, int], None]
    decline: Callable[[str], None]
    lost: Callable[[str], None]


@dataclass
class WorkerProcess:
    """A worker.

    Args:
        command: The program and its arguments.
        start: The first line that it reads.
        socket: The path of its socket.
        version: What it is to load.
        assignment: The run that it has, or will have when it is ready; None while it is free.
        failed_to_start: Whether it ended before it was ready, or with settings that are not those of its version.
    """

    command: list[str]
    start: str
    socket: str
    version: Version
    assignment: Assignment | None = None
    failed_to_start: bool = False
    _ready: bool = False
    _sent: bool = False
    _started: bool = False
    _retired: bool = False
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _process: "subprocess.Popen[bytes]" = field(init=False)
    _input: IO[bytes] = field(init=False)

    def __post_init__(self) -> None:
        # A separate process group, so that Ctrl-C does not reach it; the session remains that of the daemon.
        self._process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, process_group=0
        )
        self._input = cast("IO[bytes]", self._process.stdin)
        self._write(self.start)
        threading.Thread(target=self._listen, name=f"run worker {self.pid}", daemon=True).start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def is_there(self) -> bool:
        """Whether it runs, and is not about to end."""
        return not self._retired and self._process.poll() is None

    def assign(self, assignment: Assignment) -> bool:
        """Give it a run, and return whether it takes it: it has no other one, and is not about to end."""
        with self._lock:
            if self.assignment is not None or not self.is_there:
                return False
            assignment.prepare(self.socket, self.pid)
            self.assignment, self._sent, self._started = assignment, False, False
            self._send_when_ready()
        return True

    def retire(self) -> None:
        """Let it end as soon as it has no run."""
        with self._lock:
            self._retired = True
            self._close_when_sent()

    def _listen(self) -> None:
        for line in self._process.stdout or ():
            message = json.loads(line)
            if "ready" in message:
                self._become_ready(message["ready"])
            elif "started" in message:
                self._started = True
            elif "done" in message:
                # Together: it must not get a run while it leaves.
                with self._lock:
                    self.assignment = None
                    if message["leaving"]:
                        self.retire()
        self._end(self._process.wait())

    def _become_ready(self, settings_mark: str) -> None:
        with self._lock:
            if settings_mark == self.version.settings_mark:
                self._ready = True
                self._send_when_ready()
            else:
                self._retired, self.failed_to_start = True, True
                self._input.close()

    def _send_when_ready(self) -> None:
        if self.assignment is None or self._sent or not self._ready:
            return
        self._write(json.dumps({"run": self.assignment.run_id}))
        self._sent = True
        self._close_when_sent()

    def _close_when_sent(self) -> None:
        if self._retired and (self.assignment is None or self._sent):
            self._input.close()

    def _write(self, line: str) -> None:
        # If it has ended, `_end` takes care of its run.
        with contextlib.suppress(BrokenPipeError):
            self._input.write(f"{line}\n".encode())

    def _end(self, code: int) -> None:
        with self._lock:
            self._retired = True
            assignment, self.assignment = self.assignment, None
            self.failed_to_start = not self._ready
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        if assignment is None:
            return
        if self._started:
            assignment.lost(f"The run worker (process {self.pid}) {how} while it executed this run.")
        elif self.failed_to_start and code == 0:
            assignment.decline("the settings of a run worker differ from those of the code location")
        elif self.failed_to_start:
            assignment.decline(f"a run worker could not start: it {how}")
        else:
            assignment.decline("the run worker ended before it executed anything of this run")
