"""Servers of a test's own that start in a copy of one database cluster: initdb takes ten times as long as the copy.

All of one process and version have the same cluster identifier, so none may stand for another cluster.
"""

import atexit
import functools
import secrets
import subprocess
import tempfile
from pathlib import Path

from pg_bronze.demo.binaries import Binaries
from pg_bronze.demo.data_dir import open_data_dir, remove_data_dir
from pg_bronze.demo.initdb import create_cluster
from pg_bronze.demo.os_user import OsUser
from pg_bronze.demo.postgres import PostgresServer

_PASSWORD = secrets.token_urlsafe(12)


class CopiedServer(PostgresServer):
    """A ``PostgresServer`` whose cluster is a copy."""

    def _read_password(self) -> str:
        (self.data_dir / "password").write_text(_PASSWORD, encoding="utf-8")
        return _PASSWORD

    def _cluster(self, programs: Binaries, place: Path, account: OsUser | None) -> Path:
        data = place / "data"
        if not data.exists():
            subprocess.run(["cp", "-a", _original(programs, account), data], check=True)
        return super()._cluster(programs, place, account)


@functools.cache
def _original(programs: Binaries, account: OsUser | None) -> Path:
    folder = Path(tempfile.mkdtemp())
    atexit.register(remove_data_dir, folder)
    return create_cluster(programs, open_data_dir(folder, account), account, PostgresServer.user, _PASSWORD)
