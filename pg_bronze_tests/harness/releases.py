"""What earlier versions of pg_bronze wrote: their lakes, their Dagster homes, and the database cluster they copied.

The archive has one PostgreSQL cluster and, for each version, a bucket, a project folder, and the rows that the version
itself read from its lake. ``make_release_fixture`` makes it. The cluster is the real one: its watermarks contain
transaction ids, oids and log positions, which no dump restores.
"""

import functools
import json
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from pg_bronze.demo.binaries import Binaries
from pg_bronze.demo.os_user import OsUser
from pg_bronze.demo.postgres import PostgresServer
from pg_bronze_tests.harness.servers import Bucket

ARCHIVE = Path(__file__).parent / "fixtures" / "releases.tar.xz"
# Of the cluster in the archive. It is a superuser of a server on the loopback address of a test.
PASSWORD = "released"
TABLES = ("event", "movie", "sales.item", "ticket")


@dataclass(frozen=True)
class Release:
    """What one version wrote.

    Attributes:
        name: The version, or the format it wrote if there was no version of its own.
        commit: The commit that it was made with.
        bucket: The name of its bucket, which its watermarks contain.
        folder: Its part of the archive: ``lake``, ``project`` and ``scanned``.
    """

    name: str
    commit: str
    bucket: str
    folder: Path

    @property
    def project(self) -> Path:
        """The project folder, with ``dagster.yaml`` and Dagster's storage."""
        return self.folder / "project"

    def upload(self, bucket: Bucket) -> None:
        """Write the objects of the lake to a bucket of the same name."""
        lake, store = self.folder / "lake", bucket.store()
        for path in sorted(lake.rglob("*")):
            if path.is_file():
                store.create(path.relative_to(lake).as_posix(), path.read_bytes())

    def scanned(self, table: str) -> pl.DataFrame:
        """Return the rows that the version itself read from its lake."""
        return pl.read_parquet(self.folder / "scanned" / f"{table}.parquet")


class ReleasedServer(PostgresServer):
    """A ``PostgresServer`` with the cluster of the archive."""

    def __init__(self, folder: Path, unpacked: Path | None, **arguments: object) -> None:
        super().__init__(folder, **arguments)  # type: ignore[arg-type]
        self._unpacked = unpacked

    def _read_password(self) -> str:
        return PASSWORD

    def _cluster(self, programs: Binaries, place: Path, user: OsUser | None) -> Path:
        data = place / "data"
        if self._unpacked is not None and not data.exists():
            shutil.copytree(self._unpacked, data)
            data.chmod(0o700)
            if user is not None:
                subprocess.run(["chown", "-R", f"{user.uid}:{user.gid}", data], check=True)
        return super()._cluster(programs, place, user)


@functools.cache
def unpack(folder: Path) -> dict[str, Release]:
    """Unpack the archive into a folder and return its releases by name, oldest first."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    listed = json.loads((folder / "releases.json").read_text(encoding="utf-8"))
    return {name: Release(name, folder=folder / name, **entry) for name, entry in listed.items()}
