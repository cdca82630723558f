"""What the first loads of large tables cost all others: seconds from the commit of an insert to its object.

    .venv/bin/python -m benchmarks.load_interference [--megabytes 1000] [--tables 5] [--before 120]

Starts a PostgreSQL server, an S3 server and a `dagster dev` of its own, with the project's dagster.yaml. Ten small
tables get a row each second. After ``--before`` seconds, five filled tables are moved into a schema that is copied.
Prints the seconds for the rows inserted before, and for those inserted until all five are loaded: median, 95th
percentile, most; and the ratio of the 95th percentiles. Ends with 1 if that is above 1.5.
"""

import argparse
import contextlib
import io
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import polars as pl
import yaml

from benchmarks.start import free_port
from pg_bronze.demo.postgres import PostgresServer
from pg_bronze.demo.s3 import SeaweedServer
from pg_bronze.lake.keys import Layout
from pg_bronze.lake.ledger import Ledger
from pg_bronze.lake.object_store import Store
from pg_bronze_tests.harness.servers import Bucket, Database, new_bucket

ROOT = Path(__file__).parents[1]
BUSY = [f"busy_{number}" for number in range(10)]
ROW_BYTES = 250
MOST_S, LONGEST_S = 1.5, 3600.0
FILL = """create table hidden.{name} as
select i as id, md5(i::text) || md5((-i)::text) || repeat(md5((i / 3)::text), 4) as filler,
  clock_timestamp() as created_at
from generate_series(1, {rows}) i"""


class Writer(threading.Thread):
    """Inserts a row into each small table, once a second."""

    def __init__(self, database: Database) -> None:
        super().__init__(daemon=True)
        self._database = database
        self.committed: dict[tuple[str, int], float] = {}
        self.ended = threading.Event()

    def run(self) -> None:
        with self._database.connect() as connection:
            number = 0
            while not self.ended.wait(1.0):
                number += 1
                for table in BUSY:
                    connection.execute(f"insert into {table} (id) values ({number})".encode())
                    self.committed[table, number] = time.monotonic()


class Reader(threading.Thread):
    """Notes when the object of each row is in the bucket."""

    def __init__(self, store: Store) -> None:
        super().__init__(daemon=True)
        self._store = store
        self.arrived: dict[tuple[str, int], float] = {}
        self.ended = threading.Event()

    def run(self) -> None:
        known: set[str] = set()
        while not self.ended.wait(0.25):
            for item in list(self._store.list("busy_")):
                if item.key in known:
                    continue
                seen = time.monotonic()
                known.add(item.key)
                for number in pl.read_parquet(io.BytesIO(self._store.get(item.key) or b""))["id"]:
                    self.arrived[item.key.split("/")[0], number] = seen


def loaded(store: Store, names: list[str]) -> bool:
    """Return whether the newest object of every large table ends its first load."""
    for name in names:
        ledger = Ledger(store, Layout("", "public", name))
        keys = [item.key for item in store.list(f"{name}/")]
        footer = ledger.footer(max(keys)) if keys else None
        if footer is None or any(leaf.swept is None for leaf in footer.after.leaves.values()):
            return False
    return True


@contextlib.contextmanager
def dagster_dev(
    folder: Path, environment: dict[str, str], changes: Mapping[str, object] = MappingProxyType({})
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `dagster dev` in a project folder; yield its process, whose last argument is the port of the web server.

    Args:
        folder: The project folder.
        environment: The variables of the process.
        changes: Replaces parts of the project's dagster.yaml; None removes one.
    """
    shutil.copy(ROOT / "workspace.yaml", folder)
    config = yaml.safe_load((ROOT / "dagster.yaml").read_text()) | changes
    (folder / "dagster.yaml").write_text(yaml.safe_dump({name: part for name, part in config.items() if part}))
    program = Path(sys.executable).parent / "dagster"
    with (folder / "dev.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "dev", "-p", str(free_port())], cwd=folder, env=environment, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def line(name: str, seconds: list[float]) -> float:
    """Print one line and return the 95th percentile."""
    p95 = statistics.quantiles(seconds, n=20)[-1]
    print(
        f"{name:8}{len(seconds):6,} rows  median {statistics.median(seconds):5.1f} s  p95 {p95:5.1f} s  "
        f"most {max(seconds):5.1f} s",
        flush=True,
    )
    return p95


def measure(database: Database, bucket: Bucket, folder: Path, chosen: argparse.Namespace) -> float:
    """Run both phases and return the ratio."""
    store, never = bucket.store(), threading.Event()
    names = [f"load_{number}" for number in range(chosen.tables)]
    database.execute("create schema hidden")
    for name in names:
        database.execute(FILL.format(name=name, rows=chosen.megabytes * 1_000_000 // ROW_BYTES))
        database.execute(f"create index on hidden.{name} (created_at)")
    for table in BUSY:
        database.execute(f"create table {table} (id int primary key, created_at timestamptz default now())")
    size = database.execute(f"select pg_relation_size('hidden.{names[0]}') / 1000000")[0][0]
    print(f"{len(names)} tables of {size} MB", flush=True)
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    home = {**kept, "HOME": str(folder), "PG_BRONZE_EXCLUDE": "hidden.*"}
    writer, reader = Writer(database), Reader(store)
    with dagster_dev(folder, home | database.environ | bucket.environ):
        writer.start()
        reader.start()
        while len({table for table, _ in reader.arrived}) < len(BUSY):
            never.wait(1.0)
        never.wait(20.0)  # the first ticks after a start
        began = time.monotonic()
        never.wait(chosen.before)
        moved = time.monotonic()
        for name in names:
            database.execute(f"alter table hidden.{name} set schema public")
        while not loaded(store, names) and time.monotonic() - moved < LONGEST_S:
            never.wait(2.0)
        ended = time.monotonic()
        writer.ended.set()
        writer.join()
        while writer.committed.keys() - reader.arrived.keys() and time.monotonic() - ended < 180:
            never.wait(1.0)
        reader.ended.set()
        reader.join()
    objects = sum(len(list(store.list(f"{name}/"))) for name in names)
    print(f"loaded in {ended - moved:.0f} s, in {objects:,} objects")
    # A row that never arrived counts as long as the benchmark waited for it.
    spent = {row: reader.arrived.get(row, time.monotonic()) - at for row, at in writer.committed.items()}
    usual = line("before", [spent[row] for row, at in writer.committed.items() if began <= at < moved])
    during = line("during", [spent[row] for row, at in writer.committed.items() if moved <= at < ended])
    print(f"ratio {during / usual:.2f}")
    return during / usual


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000, help="the size of each large table")
    parser.add_argument("--tables", type=int, default=5)
    parser.add_argument("--before", type=float, default=120.0, help="seconds without a first load")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pg_bronze_loads_") as name:
        folder = Path(name)
        options = {"shared_buffers": "512MB", "max_wal_size": "8GB", "wal_level": "minimal", "max_wal_senders": "0"}
        with PostgresServer(folder / "postgres", options=options) as server, SeaweedServer(folder / "s3") as s3:
            (folder / "project").mkdir()
            ratio = measure(Database(server, "postgres"), new_bucket(s3), folder / "project", chosen)
    if ratio > MOST_S:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
