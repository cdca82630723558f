"""S3 servers that all processes of a test session share.

The process that distributes the tests starts them. PostgreSQL is not shared, because an open transaction in one
database holds back the horizon of all.
"""

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path

from pg_bronze.demo.s3 import MinioServer, SeaweedServer
from pg_bronze.demo.s3_server import S3Server
from pg_bronze.errors import PgBronzeError
from pg_bronze_tests.harness.servers import ROOT


class _Seaweed(SeaweedServer):
    def _variables(self) -> dict[str, str]:
        # On one core it takes a quarter less CPU time for the same requests. ``demo/test_s3.py`` writes one key from
        # several threads at once to a server on all cores.
        return super()._variables() | {"GOMAXPROCS": "1"}


def server_in(folder: Path, name: str) -> S3Server:
    """Return a server that is not started; ``name`` is ``seaweed`` or ``minio``."""
    return (
        _Seaweed(folder / name) if name == "seaweed" else MinioServer(folder / name, binary=ROOT / ".cache/minio/minio")
    )


def attached(folder: Path, name: str) -> S3Server | None:
    """Return the server that another process has started; None if it has not."""
    ports = folder / f"{name}.json"
    if not ports.exists():
        return None
    found = server_in(folder, name)
    found._ports = json.loads(ports.read_text(encoding="utf-8"))
    return found


class SharedServers:
    """The servers that this process has started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: dict[str, S3Server] = {}

    def start(self, names: Iterable[str]) -> None:
        """Start those that are not running. One that cannot be started is left to the tests that need it."""
        for name in names:
            if name not in self._started:
                self._started[name] = server = server_in(self.folder, name)
                with contextlib.suppress(PgBronzeError):
                    server.start()
                    (self.folder / f"{name}.json").write_text(json.dumps(server._ports), encoding="utf-8")

    def kill(self) -> None:
        """Kill all: SeaweedFS takes 15 s to stop while clients keep connections."""
        for server in self._started.values():
            server.kill()
