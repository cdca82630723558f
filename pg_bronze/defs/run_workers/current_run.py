"""Which run a worker executes: the socket at which other processes ask for it, or cancel it.

Unlike a process id, a socket belongs to one process only: an id may be reused, or be that of another container. The
socket answers as long as the worker lives.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from multiprocessing.connection import Client, Connection, Listener

_ANSWER_S = 5.0
_LONGEST_REQUEST_BYTES = 200
_BACKLOG = 16
_REPEAT_S = 2.0


class WorkerGoneError(Exception):
    """No process listens at the socket."""


def ask(address: str) -> str:
    """Return the id of the run that a worker executes, or an empty text.

    Raises:
        WorkerGoneError: The worker has ended.
        TimeoutError: It did not answer within 5 seconds.
    """
    return _request(address, "current")


def cancel(address: str, run_id: str) -> bool:
    """Interrupt a worker if it executes this run, and return whether it does.

    Raises:
        WorkerGoneError: The worker has ended.
        TimeoutError: It did not answer within 5 seconds.
    """
    return _request(address, f"cancel {run_id}") == "canceled"


def _request(address: str, text: str) -> str:
    try:
        with Client(address, "AF_UNIX") as connection:
            connection.send_bytes(text.encode())
            if not connection.poll(_ANSWER_S):
                raise TimeoutError(f"the run worker did not answer within {_ANSWER_S:.0f} s")
            return connection.recv_bytes(_LONGEST_REQUEST_BYTES).decode()
    except (FileNotFoundError, ConnectionError, EOFError) as error:
        raise WorkerGoneError(address) from error


class CurrentRun:
    """The run that this process executes, and the thread that answers about it.

    Args:
        address: The path of the socket; its folder must be accessible to this user only.
    """

    def __init__(self, address: str) -> None:
        self._listener = Listener(address, "AF_UNIX", backlog=_BACKLOG)
        self._lock = threading.Lock()
        self._run_id = ""
        threading.Thread(target=self._serve, name="current run", daemon=True).start()

    @contextlib.contextmanager
    def executing(self, run_id: str) -> Iterator[None]:
        """Answer with this run. Interrupts must be captured around it: one may arrive until the end."""
        self._set(run_id)
        try:
            yield
        finally:
            self._set("")

    def close(self) -> None:
        """Remove the socket."""
        self._listener.close()

    def _set(self, run_id: str) -> None:
        with self._lock:
            self._run_id = run_id

    def _serve(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except OSError:
                return  # closed
            with connection, contextlib.suppress(OSError, EOFError):
                self._answer(connection)

    def _answer(self, connection: Connection) -> None:
        if not connection.poll(_ANSWER_S):
            return
        request, _, run_id = connection.recv_bytes(_LONGEST_REQUEST_BYTES).decode().partition(" ")
        with self._lock:
            answer = self._run_id
        if request == "cancel":
            answer = "canceled" if self._interrupt(run_id) else "another run"
        connection.send_bytes(answer.encode())

    def _interrupt(self, run_id: str) -> bool:
        """Interrupt the run, again and again until it has ended; False if it is not executed."""
        # The lock is held while the signal is sent, so that it cannot reach the next run.
        with self._lock:
            if run_id != self._run_id:
                return False
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        # One that arrives while resources are initialized can get lost (test_run_workers.py).
        again = threading.Timer(_REPEAT_S, self._interrupt, [run_id])
        again.daemon = True
        again.start()
        return True
