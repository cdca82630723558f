"""Makes the archive of ``releases``: lets released versions copy one database, each into a bucket of its own.

    python -m pg_bronze_tests.harness.make_release_fixture format-1=02e2c98 0.1.0=7b3b44a

Run it after a release, in a git checkout, with the versions that are to stay readable. Each one is checked out and
executed with the libraries of this Python. It takes two minutes, and needs the extra ``demo``.
"""

import argparse
import contextlib
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pg_bronze.demo import binaries
from pg_bronze.demo.data_dir import open_data_dir, remove_data_dir
from pg_bronze.demo.os_user import run, unprivileged_user
from pg_bronze.demo.s3 import SeaweedServer
from pg_bronze_tests.harness.releases import ARCHIVE, TABLES, ReleasedServer
from pg_bronze_tests.harness.servers import ROOT, Bucket, Database

# A cluster without what no test reads is a third of the size.
TRIM = ["pg_description", "pg_shdescription", "pg_statistic"]
TRANSIENT = {"postmaster.opts", "postmaster.pid", "pg_internal.init", "compute_logs"}
TABLE_OPTIONS = {"ticket": {"slice_rows": 10}}
STEPS = [
    """create schema sales;
    create table movie (
      movie_id int primary key, title text, price numeric(10,2), updated_at timestamptz not null
    );
    create table event (id bigint, day date, note text, primary key (id, day)) partition by range (day);
    create table event_1 partition of event for values from ('2026-01-01') to ('2026-02-01');
    create table event_2 partition of event for values from ('2026-02-01') to ('2026-03-01');
    create table sales.item (item_id int primary key, sku text, tags text[]);
    create table ticket (id int primary key, body text);
    insert into movie select i, 'film ' || i, i * 1.5, '2026-01-02 03:04:05+00' from generate_series(1, 5) i;
    insert into event select i, date '2026-01-20' + i, null from generate_series(1, 20) i;
    insert into sales.item select i, 'sku ' || i, array['a', null] from generate_series(1, 4) i;
    insert into ticket select i, 'ticket ' || i from generate_series(1, 35) i""",
    """update movie set price = 99.90, updated_at = '2026-01-03 00:00:00+00' where movie_id = 2;
    alter table movie add rating int default 7;
    insert into movie values (6, 'ñandú', null, '2026-01-03 00:00:00+00', 9);
    update event set note = 'changed' where id = 3;
    insert into sales.item values (5, null, '{}')""",
    "insert into sales.item values (6, 'of the new generation', null)",
]
BY_THE_SENSOR = """insert into movie values (7, 'by the sensor', 1, '2026-01-04 00:00:00+00', 8);
    insert into event values (21, '2026-02-20', 'by the sensor')"""
NOT_YET_COPIED = """insert into movie values (8, 'not yet copied', 1, '2026-01-05 00:00:00+00', 8);
    update movie set title = 'changed', updated_at = '2026-01-05 00:00:00+00' where movie_id in (1, 7);
    delete from movie where movie_id = 3;
    create table event_3 partition of event for values from ('2026-03-01') to ('2026-04-01');
    insert into event values (22, '2026-03-01', 'not yet copied'), (23, '2026-01-01', 'not yet copied');
    insert into sales.item values (7, 'not yet copied', '{b}');
    insert into ticket values (100, 'not yet copied'); update ticket set body = 'changed' where id in (1, 40)"""
TICKETS = "insert into ticket select i, 'ticket ' || i from generate_series(36, 70) i"
# Ends the process before the second object is written, so that its claim is left behind.
KILLED = """import os
from pg_bronze.lake.object_store import Store
create, written = Store.create, []
def killed(self, key, body):
    written.extend([key] * key.endswith(".parquet"))
    return os._exit(9) if len(written) == 2 else create(self, key, body)
Store.create = killed
from pg_bronze.cli.app import app
app(["tick", "ticket"])"""
SCANNED = """import pathlib, sys, pg_bronze
for table in sys.argv[2:]:
    pg_bronze.scan(table).collect().write_parquet(pathlib.Path(sys.argv[1]) / f"{table}.parquet")"""


@dataclass(frozen=True)
class Version:
    """A checkout of a version, which is its project folder, with the bucket that it writes.

    ``part`` is the folder of what becomes its part of the archive.
    """

    name: str
    commit: str
    checkout: Path
    part: Path
    bucket: Bucket
    python: Path
    settings: dict[str, str]

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run Python with the package of this version, and return what it printed."""
        done = subprocess.run(
            [self.python, *arguments], cwd=self.checkout, env=self.environment, stdin=subprocess.DEVNULL, text=True,
            check=False, capture_output=True,
        )  # fmt: skip
        if done.returncode != code:
            raise SystemExit(f"{self.name}: exit status {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self.python.parent}:{os.environ['PATH']}",
            "HOME": str(self.part),
            "PYTHONPATH": str(self.checkout),
            "DAGSTER_HOME": str(self.checkout),
            "PG_BRONZE_TABLES": json.dumps(TABLE_OPTIONS),
            "PG_BRONZE_TAKEOVER": "fresh",  # all versions write the same control table
            **self.bucket.environ,
            **self.settings,
        }

    @contextlib.contextmanager
    def daemon(self) -> Iterator[None]:
        """Let Dagster's daemon run, with its sensors."""
        log = (self.part.parent / f"{self.name}.log").open("wb")
        process = subprocess.Popen(
            [self.python, "-m", "dagster._daemon", "run", "-w", "workspace.yaml"],
            cwd=self.checkout, env=self.environment, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            yield
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)

    def objects(self) -> int:
        return sum(item.key.endswith(".parquet") for item in self.bucket.store().list(""))


def wait_for(met: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 120
    while not met():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited 120 s for {what}")
        threading.Event().wait(0.5)


def trim(server: ReleasedServer) -> None:
    """Remove the other databases, and rows of the catalog that no test reads."""
    with server.connect(autocommit=True) as connection:
        connection.execute("update pg_database set datistemplate = false")
        for name in ("template0", "template1"):
            connection.execute(f"drop database {name}".encode())
        connection.execute("drop schema information_schema cascade")
        for name in TRIM:
            connection.execute(f"delete from {name}".encode())
        tables = connection.execute(
            "select relname from pg_class where relkind = 'r' and relnamespace = 'pg_catalog'::regnamespace"
        ).fetchall()
        for (name,) in tables:
            connection.execute(f"vacuum full {name}".encode())


def make_lakes(database: Database, versions: list[Version]) -> None:
    """Let each version copy the same states of the database."""
    for number, statements in enumerate(STEPS):
        database.execute(statements)
        for version in versions:
            if number == 2:
                # The first versions neither asked nor had the option.
                asks = "--yes" in version.run("-m", "pg_bronze", "reset", "--help")
                version.run("-m", "pg_bronze", "reset", "sales.item", *["--yes"] * asks)
            version.run("-m", "pg_bronze", "tick")
    before = [version.objects() for version in versions]
    database.execute(BY_THE_SENSOR)
    for version, count in zip(versions, before, strict=True):
        with version.daemon():
            wait_for(lambda: version.objects() >= count + 2, f"the sensor of {version.name}")  # noqa: B023
            wait_for(lambda: sensor_has_ticked(version.checkout), f"a quiet tick of {version.name}")  # noqa: B023
    database.execute(TICKETS)
    for version in versions:
        version.run("-c", KILLED, code=9)
        folder = version.part / "scanned"
        folder.mkdir()
        version.run("-c", SCANNED, str(folder), *TABLES)
    database.execute(NOT_YET_COPIED)


def sensor_has_ticked(project: Path) -> bool:
    """Return whether the last tick of the sensor, after the run, requested none."""
    file = project / ".dagster/storage/schedules/schedules.db"
    with contextlib.closing(sqlite3.connect(file)) as connection:
        query = """select status from job_ticks where tick_body like '%"bronze_tick"%' order by id desc limit 2"""
        found = [status for (status,) in connection.execute(query)]
    with contextlib.closing(sqlite3.connect(project / ".dagster/storage/history/runs.db")) as connection:
        [(running,)] = connection.execute("select count(*) from runs where status not in ('SUCCESS', 'FAILURE')")
    return found == ["SKIPPED"] * 2 and not running


def keep_home(version: Version) -> None:
    """Copy the project folder without the program, and shrink Dagster's databases."""
    project = version.part / "project"
    shutil.copytree(version.checkout / ".dagster", project / ".dagster")
    shutil.copy(version.checkout / "dagster.yaml", project)
    for file in project.rglob("*.db"):
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
            connection.execute("pragma wal_checkpoint(truncate)")
            connection.execute("vacuum")


def pack(folders: dict[str, Path], releases: dict[str, dict[str, str]]) -> None:
    """Write the archive; the same files make the same archive."""
    with tarfile.open(ARCHIVE, "w:xz", preset=9 | 1 << 31) as archive:
        add(archive, "releases.json", json.dumps(releases, indent=2).encode())
        for name, folder in sorted(folders.items()):
            for path in sorted(folder.rglob("*")):
                if TRANSIENT & set(path.parts) or path.name.endswith((".lock", "-wal", "-shm")):
                    continue
                if path.is_dir():
                    add(archive, f"{name}/{path.relative_to(folder)}", None)
                elif path.is_file():
                    add(archive, f"{name}/{path.relative_to(folder)}", path.read_bytes())


def add(archive: tarfile.TarFile, name: str, content: bytes | None) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode = 0o700 if content is None else 0o600
    entry.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
    entry.size = len(content or b"")
    archive.addfile(entry, io.BytesIO(content or b""))


def checked_out(stack: contextlib.ExitStack, commit: str, folder: Path) -> str:
    """Check a commit out into a folder, for as long as the stack is open, and return its id."""
    git = ["git", "-C", str(ROOT)]
    subprocess.run([*git, "worktree", "add", "--quiet", "--detach", folder, commit], check=True)
    stack.callback(subprocess.run, [*git, "worktree", "remove", "--force", folder], check=True)
    return subprocess.run([*git, "rev-parse", commit], check=True, capture_output=True, text=True).stdout.strip()


def download(version: Version) -> None:
    store = version.bucket.store()
    for item in store.list(""):
        path = version.part / "lake" / item.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.get(item.key) or b"")


def make(wanted: dict[str, str], scratch: Path, stack: contextlib.ExitStack) -> None:
    # Dagster stores the path of Python in each run; this one means nothing on another machine.
    (scratch / "python").symlink_to(sys.prefix)
    s3 = stack.enter_context(contextlib.closing(_Killed(SeaweedServer(scratch / "s3")))).server
    server = ReleasedServer(scratch / "postgres", None, options={"allow_system_table_mods": "on"})
    server.start()
    stack.callback(remove_data_dir, server.data_dir)
    stack.callback(server.stop)
    trim(server)
    database = Database(server, "postgres")
    versions = []
    for name, commit in wanted.items():
        bucket = Bucket(s3, f"release-{name.replace('.', '-')}")
        s3.create_bucket(bucket.name)
        commit_id = checked_out(stack, commit, scratch / f"checkout-{name}")
        part, python = scratch / "made" / name, scratch / "python/bin/python"
        part.mkdir(parents=True)
        versions.append(Version(name, commit_id, scratch / f"checkout-{name}", part, bucket, python, database.environ))
    make_lakes(database, versions)
    for version in versions:
        download(version)
        keep_home(version)
    server.stop()
    data = open_data_dir(server.data_dir, unprivileged_user()) / "data"
    # The log of the server is three quarters of its files. This keeps the identifier, the timeline and all counters.
    programs = binaries.find(None, unprivileged_user())
    done = run([programs / "pg_resetwal", "--wal-segsize=1", "-D", str(data)], unprivileged_user())
    if done.returncode:
        raise SystemExit(done.stderr)
    parts = {version.name: version.part for version in versions}
    listed = {version.name: {"commit": version.commit, "bucket": version.bucket.name} for version in versions}
    pack({"cluster": data, **parts}, listed)


@dataclass(frozen=True)
class _Killed:
    """An S3 server that is started, and killed in the end: it takes 15 s to stop."""

    server: SeaweedServer

    def __post_init__(self) -> None:
        self.server.start()

    def close(self) -> None:
        self.server.kill()


def main() -> None:
    """Make the archive of the versions in the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("versions", nargs="+", metavar="NAME=COMMIT")
    wanted = dict(item.split("=", 1) for item in parser.parse_args().versions)
    with tempfile.TemporaryDirectory(prefix="pg_bronze-releases-") as folder, contextlib.ExitStack() as stack:
        make(wanted, Path(folder), stack)
    print(f"{ARCHIVE}: {ARCHIVE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
