"""A PostgreSQL server of our own: TCP on the loopback address, passwords checked, data kept between starts.

It starts as root too (the server then runs as an unprivileged account), in folders with blanks, and with whatever LANG,
LC_* and PG* variables the user has.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from pg_bronze.demo import binaries, home
from pg_bronze.demo.account import Account, clean_environment, unprivileged
from pg_bronze.demo.process_table import process_table
from pg_bronze.demo.processes import (
    HOST,
    Child,
    as_owner,
    end_all,
    end_leftover,
    free_ports,
    is_free,
    require_free,
    send,
)
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
# What a server says that cannot start yet because the one before it, killed, has children that still run.
_NOT_YET = ("shared memory block", "lock file", "is being used by")


class PostgresServer:
    """A PostgreSQL server with its data under ``data_dir``; use it in a ``with`` statement, or start and stop it.

    ``port`` None takes that of the last time, or a free one. ``options`` are server
    settings, such as ``{"max_prepared_transactions": "10"}``. ``version`` is the major version, known after the start.
    The password of ``user``, a superuser, is made at the first start and kept in ``data_dir``.
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
        self._port_is_chosen = port is not None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, timeout_s: float = 60.0) -> None:
        """Start it and wait until it answers; on the first start make the database cluster.

        Raises SettingsError if the port is taken or the programs are missing, SourceUnavailable with the log's last
        lines if it does not come up within ``timeout_s`` seconds.
        """
        account = unprivileged()
        place = home.open_home(self.data_dir, account)
        programs = binaries.find(self._bindir, account)
        self.version = programs.major
        end_leftover(self._record)
        self.password = self._read_password()
        data = self._cluster(programs, place, account)
        deadline = time.monotonic() + timeout_s
        while True:
            self._choose_port()
            self.child = self._spawn(programs, data, place, account)
            try:
                self._wait_until_ready(self.child, deadline)
            except SourceUnavailable:
                last = self.child.tail(12)
                self.child.kill()
                # Both cures take only another try: the killed one's children end, or another port is free.
                if time.monotonic() > deadline or not any(words in last for words in (*_NOT_YET, "could not bind")):
                    raise
                time.sleep(0.2)  # the old processes are not our children, so nobody tells when they end
            except BaseException:
                self.child.kill()
                raise
            else:
                self._port_is_chosen = True
                (self.data_dir / "port").write_text(str(self.port), encoding="utf-8")
                return

    def stop(self, mode: Literal["fast", "immediate"] = "fast", timeout_s: float = 30.0) -> None:
        """Stop it: ``fast`` ends sessions and writes everything, ``immediate`` leaves recovery to the next start."""
        if self.child is not None:
            self.child.stop(signal.SIGINT if mode == "fast" else signal.SIGQUIT, timeout_s)
            self.child = None

    def kill(self) -> None:
        """Kill the server and all its processes with SIGKILL, as a crash would."""
        if self.child is None:
            return
        # Each backend leads a session of its own, so they are known by their parent only; stopped, it starts no others.
        parent = self.child.pid
        send(parent, signal.SIGSTOP)
        end_all(lambda: [process for process in process_table() if process.parent == parent])
        self.child.kill()
        self.child = None

    def remove(self) -> None:
        """Stop it at once and delete its data."""
        self.stop("immediate")
        home.remove(self.data_dir)

    def connect(self, dbname: str = "postgres", **options: Any) -> "psycopg.Connection[tuple[Any, ...]]":
        """Open a connection as ``user``; ``options`` go to ``psycopg.connect``. PG* variables do not matter."""
        import psycopg

        ours: dict[str, Any] = {
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
        return psycopg.connect(**(ours | options))

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
        if self._port_is_chosen:
            require_free(self.port, "PostgreSQL")
        else:
            self.port = self._remembered_port() or free_ports(1)[0]

    def _remembered_port(self) -> int | None:
        """Return the port of the last time if it is free, so that a client's settings stay right."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            port = int((self.data_dir / "port").read_text(encoding="utf-8"))
            return port if is_free(port) else None
        return None

    def _cluster(self, programs: binaries.Binaries, place: Path, account: Account | None) -> Path:
        """Return the cluster's folder, made whole or not at all."""
        data = place / "data"
        if data.exists():
            made_by = int((data / "PG_VERSION").read_text(encoding="utf-8"))
            if made_by != programs.major:
                raise SettingsError(
                    f"{data} was made by PostgreSQL {made_by}, the programs in {programs.bindir} are {programs.major}. "
                    "Set PG_BRONZE_PG_BINDIR to the older ones, or delete the folder to begin anew."
                )
            return data
        draft, passwords = place / "data.new", place / "password.new"
        shutil.rmtree(draft, ignore_errors=True)
        passwords.unlink(missing_ok=True)
        draft.mkdir(mode=0o700)
        passwords.touch(mode=0o600)
        passwords.write_text(self.password, encoding="utf-8")
        for path in (draft, passwords):
            home.hand_over(path, account)
        # A locale that is not installed fails initdb, so none of the system's is used.
        locale = ["--locale=C"]
        if programs.major >= 17:
            locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        login = ["-U", self.user, f"--pwfile={passwords}", "-A", "scram-sha-256"]
        made = subprocess.run(
            [programs / "initdb", *login, "-D", str(draft), "-E", "UTF8", *locale, "--no-sync", "--no-instructions"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=place,
            env=clean_environment(),
            check=False,
            **as_owner(account.owner if account else None),
        )
        passwords.unlink(missing_ok=True)
        if made.returncode != 0:
            raise SourceUnavailable(f"initdb failed: {made.stderr.strip()[-600:]}")
        draft.rename(data)
        return data

    def _spawn(self, programs: binaries.Binaries, data: Path, place: Path, account: Account | None) -> Child:
        options = [part for name, value in self._options.items() for part in ("-c", f"{name}={value}")]
        return Child(
            "PostgreSQL",
            [programs / "postgres", "-D", str(data), "-p", str(self.port), *options],
            log=self.data_dir / "postgres.log",
            record=self._record,
            env=clean_environment(),
            cwd=place,
            owner=account.owner if account else None,
            # On SIGQUIT it takes its children along; killed, it would leave them to notice.
            death_signal=signal.SIGQUIT,
        )

    def _wait_until_ready(self, child: Child, deadline: float) -> None:
        import psycopg

        while True:
            if child.poll() is not None:
                raise SourceUnavailable(f"PostgreSQL ended while it started. Its log's last lines:\n{child.tail()}")
            with contextlib.suppress(psycopg.OperationalError):
                self.connect().close()
                return
            if time.monotonic() > deadline:
                raise SourceUnavailable(f"PostgreSQL does not answer. Its log's last lines:\n{child.tail()}")
            time.sleep(0.03)  # a server that starts offers no event
