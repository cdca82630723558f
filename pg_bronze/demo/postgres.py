"""A PostgreSQL server: TCP on the loopback address, password authentication, data kept between starts.

It can be started as root (the server then runs as an unprivileged user), in a folder with spaces in its name, and with
any ``LANG``, ``LC_*`` and ``PG*`` variables set.
"""

import contextlib
import os
import secrets
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import psutil

from pg_bronze.demo import binaries
from pg_bronze.demo.data_dir import open_data_dir, remove_data_dir
from pg_bronze.demo.initdb import create_cluster
from pg_bronze.demo.os_user import OsUser, clean_environment, unprivileged_user
from pg_bronze.demo.ports import HOST, free_ports, is_free, require_free
from pg_bronze.demo.processes import Child, end_leftover, kill_all, running
from pg_bronze.errors import SettingsError, SourceUnavailable

if TYPE_CHECKING:
    import psycopg

_OPTIONS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "shared_buffers": "64MB",
    "logging_collector": "off",
}
# In the log of a server that a retry can start: child processes of a killed one still run, or the port was taken.
_TEMPORARY_FAILURES = ("shared memory block", "lock file", "is being used by", "could not bind")


class PostgresServer:
    """A PostgreSQL server with its data under ``data_dir``, as a context manager or with ``start`` and ``stop``.

    ``user`` is a superuser. Its password is generated at the first start and stored in ``data_dir``. ``version`` is the
    major version, known after the start.

    Args:
        data_dir: The folder of the data, the log and the password.
        port: The port; None for the one of the last start, or a free one.
        bindir: The folder of the programs; None for those that ``binaries.find`` returns.
        options: Server settings, such as ``{"max_prepared_transactions": "10"}``.
    """

    host = HOST
    user = "postgres"

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        bindir: Path | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.password = ""
        self.port = port or 0
        self.version = 0
        self.child: Child | None = None
        self._bindir = bindir
        self._options = _OPTIONS | dict(options or {})
        self._port_is_fixed = port is not None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, timeout_s: float = 60.0) -> None:
        """Start the server and wait until it accepts connections. The first start creates the database cluster.

        Raises:
            SettingsError: The port is in use, or the programs are missing.
            SourceUnavailable: It does not accept connections within ``timeout_s`` seconds.
        """
        user = unprivileged_user()
        place = open_data_dir(self.data_dir, user)
        programs = binaries.find(self._bindir, user)
        self.version = programs.major
        end_leftover(self._record)
        self.password = self._read_password()
        data = self._cluster(programs, place, user)
        deadline = time.monotonic() + timeout_s
        while not self._try_to_start(programs, data, place, user, deadline):
            time.sleep(0.2)  # the old processes are not children of this one, so nothing reports their end
        self._port_is_fixed = True
        (self.data_dir / "port").write_text(str(self.port), encoding="utf-8")

    def _try_to_start(
        self, programs: binaries.Binaries, data: Path, place: Path, user: OsUser | None, deadline: float
    ) -> bool:
        """Start the server once; False if a retry before the deadline can succeed."""
        self._choose_port()
        self.child = self._spawn(programs, data, place, user)
        try:
            self._wait_until_ready(self.child, deadline)
        except SourceUnavailable:
            log = self.child.tail(12)
            self.child.kill()
            if time.monotonic() > deadline or not any(words in log for words in _TEMPORARY_FAILURES):
                raise
            return False
        except BaseException:
            self.child.kill()
            raise
        return True

    def stop(self, mode: Literal["fast", "immediate"] = "fast", timeout_s: float = 30.0) -> None:
        """Stop the server: ``fast`` ends sessions and writes a checkpoint, ``immediate`` requires recovery."""
        if self.child is not None:
            self.child.stop(signal.SIGINT if mode == "fast" else signal.SIGQUIT, timeout_s)
            self.child = None

    def kill(self) -> None:
        """Kill the server and all its processes with SIGKILL, as a crash would."""
        if self.child is None:
            return
        # Each backend leads a session of its own, so only its parent identifies it. A stopped parent starts no others.
        with contextlib.suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self.child.pid)
            parent.suspend()
            kill_all(lambda: running(parent.children()))
        self.child.kill()
        self.child = None

    def remove(self) -> None:
        """Stop the server immediately and delete its data."""
        self.stop("immediate")
        remove_data_dir(self.data_dir)

    def connect(self, dbname: str = "postgres", **options: Any) -> "psycopg.Connection[tuple[Any, ...]]":
        """Open a connection as ``user``. ``options`` are passed to ``psycopg.connect``; PG* variables are ignored."""
        import psycopg

        defaults: dict[str, Any] = {
            "host": self.host,
            "hostaddr": self.host,
            "port": self.port,
            "user": self.user,
            "password": self.password,
            "dbname": dbname,
            "sslmode": "disable",
            "gssencmode": "disable",
            "options": "",
            "connect_timeout": 5,
            "target_session_attrs": "any",
            "client_encoding": "utf8",
        }
        return psycopg.connect(**(defaults | options))

    @property
    def _record(self) -> Path:
        return self.data_dir / "process.json"

    def _read_password(self) -> str:
        file = self.data_dir / "password"
        if not file.exists():
            with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as output:
                output.write(secrets.token_urlsafe(12))
        return file.read_text(encoding="utf-8")

    def _choose_port(self) -> None:
        if self._port_is_fixed:
            require_free(self.port, "PostgreSQL")
        else:
            self.port = self._last_port() or free_ports(1)[0]

    def _last_port(self) -> int | None:
        """Return the port of the last start if it is free, so that settings of clients stay valid."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            port = int((self.data_dir / "port").read_text(encoding="utf-8"))
            return port if is_free(port) else None
        return None

    def _cluster(self, programs: binaries.Binaries, place: Path, user: OsUser | None) -> Path:
        """Return the folder of the database cluster. It is created completely or not at all."""
        data = place / "data"
        if not data.exists():
            create_cluster(programs, place, user, self.user, self.password).rename(data)
            return data
        version = int((data / "PG_VERSION").read_text(encoding="utf-8"))
        if version != programs.major:
            raise SettingsError(
                f"{data} was created by PostgreSQL {version}, and the programs in {programs.bindir} are version "
                f"{programs.major}. Set PG_BRONZE_PG_BINDIR to programs of version {version}, or delete the folder "
                "to start with an empty one."
            )
        return data

    def _spawn(self, programs: binaries.Binaries, data: Path, place: Path, user: OsUser | None) -> Child:
        options = [part for name, value in self._options.items() for part in ("-c", f"{name}={value}")]
        return Child(
            "PostgreSQL",
            [programs / "postgres", "-D", str(data), "-p", str(self.port), *options],
            log=self.data_dir / "postgres.log",
            record=self._record,
            env=clean_environment(),
            cwd=place,
            user=user,
            # SIGQUIT ends its processes too. After SIGKILL they would run until they notice.
            death_signal=signal.SIGQUIT,
        )

    def _wait_until_ready(self, child: Child, deadline: float) -> None:
        import psycopg

        while True:
            if child.poll() is not None:
                raise SourceUnavailable(f"PostgreSQL ended during its start. Last lines of its log:\n{child.tail()}")
            with contextlib.suppress(psycopg.OperationalError):
                self.connect().close()
                return
            if time.monotonic() > deadline:
                raise SourceUnavailable(f"PostgreSQL accepts no connection. Last lines of its log:\n{child.tail()}")
            time.sleep(0.03)  # a server reports no event when it is ready
