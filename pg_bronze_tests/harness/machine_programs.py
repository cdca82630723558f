"""Programs of machines: Dagster's commands, and the agent of a worker, each in the namespaces of its machine.

They are forked from a process that has loaded their modules, which takes most of the time of their start.
"""

import contextlib
import importlib
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

from pg_bronze_tests.harness import loaded
from pg_bronze_tests.harness.machines import Machine, enter_all

PORT = 4100
ANSWER_S = 2.0
_MAINS = {
    "dagster": "dagster._cli",
    "dagster-daemon": "dagster._daemon.cli",
    "dagster-webserver": "dagster_webserver.cli",
    "agent": __name__,
    "pg-bronze": "pg_bronze.cli.app",
}


def start(machine: Machine, environment: Mapping[str, str], *command: str) -> Path:
    """Start a command in a machine's project folder with exactly this environment; return its log.

    It ends with the machine.
    """
    return _start(machine, environment, command)[0]


def call(machine: Machine, environment: Mapping[str, str], *command: str) -> tuple[int, str]:
    """Execute a command as ``start`` does, and return its exit code and what it printed."""
    (machine.folder / f"{command[0]}.log").unlink(missing_ok=True)
    log, process = _start(machine, environment, command)
    process.join(120)
    assert process.exitcode is not None, f"{command} has not ended within 120 s"
    return process.exitcode, log.read_text()


def _start(machine: Machine, environment: Mapping[str, str], command: Sequence[str]) -> tuple[Path, BaseProcess]:
    log = machine.folder / f"{command[0]}.log"
    return log, loaded.fork(_run, machine.pid, list(command), dict(environment), f"/mnt/{log.name}")


def ask(address: str, **request: str | Sequence[str]) -> str:
    """Return the answer of an agent. Raises OSError if there is none within 2 seconds."""
    with socket.create_connection((address, PORT), ANSWER_S) as connection, connection.makefile("rw") as stream:
        stream.write(json.dumps(request) + "\n")
        stream.flush()
        answer = stream.readline()
    if not answer:
        raise ConnectionError("the agent has closed the connection")
    return answer.strip()


def main() -> None:
    """Execute runs, each in a new process, and answer whether a run is executed: what Docker or a kubelet does."""
    runs: dict[str, int] = {}
    server = socket.create_server(("0.0.0.0", PORT))
    while True:
        connection, _ = server.accept()
        connection.settimeout(ANSWER_S)
        # Whoever asks may be cut off before it has the answer.
        with contextlib.suppress(OSError, ValueError), connection, connection.makefile("rw") as stream:
            request = json.loads(stream.readline())
            run_id = request["run"]
            if "command" in request:
                runs[run_id] = _execute(request["command"], run_id, server, connection)
            elif request.get("signal") and _lives(runs, run_id):
                os.kill(runs[run_id], signal.Signals[request["signal"]])
            stream.write(f"{'alive' if _lives(runs, run_id) else 'gone'}\n")


def _lives(runs: dict[str, int], run_id: str) -> bool:
    try:
        return run_id in runs and os.waitpid(runs[run_id], os.WNOHANG) == (0, 0)
    except ChildProcessError:  # it was already found dead
        return False


def _execute(command: list[str], run_id: str, *opened: socket.socket) -> int:
    pid = os.fork()
    if pid == 0:
        for item in opened:
            os.close(item.fileno())
        _become(command, f"/mnt/run_{run_id[:8]}.log")
    return pid


def _run(pid: int, command: list[str], environment: dict[str, str], log: str) -> None:
    enter_all(pid)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir("/mnt/project")
    tempfile.tempdir = None  # as the process that this is forked from found it
    child = os.fork()
    if child == 0:
        _become(command, log)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 255)


def _become(command: list[str], log: str) -> None:
    """Execute a command in this process, and end it."""
    code = 1
    try:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for number in (1, 2):
            os.dup2(output, number)
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        sys.argv = command
        module = importlib.import_module(_MAINS[command[0]])
        (module.app if command[0] == "pg-bronze" else module.main)()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001  # a forked process must not return to what it was forked from
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)
