"""The sessions that pg_bronze has in a database, sampled by a thread."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

_SESSIONS = """select client_port, application_name from pg_stat_activity
where datname = current_database() and starts_with(application_name, 'pg_bronze')"""
_SOCKETS = Path("/proc/net/tcp")
_ESTABLISHED = "01"


def open_ports(server_port: int) -> set[int] | None:
    """Return the ports of all clients on this machine whose connection to a server is open; None if not known.

    A server shows a session for a while after its client has closed the connection: for 50 ms if it is busy.
    """
    if not _SOCKETS.exists():
        return None
    found = set()
    for line in _SOCKETS.read_text().splitlines()[1:]:
        _, local, remote, state, *_ = line.split()
        if state == _ESTABLISHED and int(remote.partition(":")[2], 16) == server_port:
            found.add(int(local.partition(":")[2], 16))
    return found


# A session is open for many times as long, and sampling without a pause takes a core from what is sampled.
_PAUSE_S = 0.003


class Sessions(threading.Thread):
    """Samples the open sessions of pg_bronze some hundred times a second while it is entered.

    Attributes:
        now: The names of the sessions of the last sample.
        most: Those of the sample that has most of them.
    """

    def __init__(self, database: Any) -> None:
        super().__init__(daemon=True)
        self._database = database
        self._ended = threading.Event()
        self._began = threading.Event()
        self.now: Sequence[str] = ()
        self.most: Sequence[str] = ()

    def __enter__(self) -> Self:
        self.start()
        assert self._began.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        assert self.is_alive()
        self._ended.set()
        self.join()

    def run(self) -> None:
        with self._database.connect(application_name="the test") as connection:
            while not self._ended.wait(_PAUSE_S):
                rows = connection.execute(_SESSIONS).fetchall()
                # After the answer of the server: what is in both was open at this moment.
                ports = open_ports(self._database.server.port)
                self.now = sorted(name for port, name in rows if ports is None or port in ports)
                self.most = max(self.most, self.now, key=len)
                self._began.set()
