"""What many tables cost: their first load, loading the definitions, an idle minute, and ticks with some busy tables.

    .venv/bin/python -m benchmarks.many_tables [--tables 1000] [--busy 10] [--seconds 120]

Starts a PostgreSQL server, an S3 server and a separate `dagster dev`, with the project's dagster.yaml. Each table
gets three rows, and later, if it is busy, one row in each tick interval of 10 s. CPU seconds are those of all processes
of Dagster, those of ended runs included, and not those of the servers. "net" is without what an idle `dagster dev` with
the same tables uses.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.load_interference import dagster_dev
from pg_bronze.demo.postgres import PostgresServer
from pg_bronze.demo.s3 import SeaweedServer
from pg_bronze.lake.object_store import Store
from pg_bronze_tests.harness.servers import Bucket, Database, new_bucket

TICK_S, LONGEST_S = 10.0, 900.0
LOAD = "import time; began = time.process_time()\nfrom pg_bronze.definitions import defs\n"
# With a repository, as `dagster dev` and each run worker load them.
LOAD += "defs().get_repository_def()\nprint(time.process_time() - began)"
_never = threading.Event()


# What the command line of each process of `dagster dev` contains; the rest is the command itself.
ROLES = {
    "dagster_webserver": "web server",
    "dagster._daemon": "daemon",
    "dagster code-server": "its proxy",
    "dagster api grpc": "code server",
    "run_workers.worker": "run workers",
}


class Processes:
    """The CPU seconds of a process and everything it started, counted also for processes that ended."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)

    def cpu_s(self) -> float:
        """Return the CPU seconds of all of them."""
        return sum(self.by_role().values())

    def by_role(self) -> dict[str, float]:
        """Return the CPU seconds of each kind of process."""
        found = dict.fromkeys([*ROLES.values(), "the rest"], 0.0)
        for process in (self._root, *self._root.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                command = " ".join(process.cmdline()[:6])
                role = next((name for mark, name in ROLES.items() if mark in command), "the rest")
                found[role] += sum(process.cpu_times()[:4])  # user and system, its own and those of ended children
        return found

    def sensors_s(self) -> float:
        """Return the CPU seconds of the code server itself, which evaluates the sensors."""
        total = 0.0
        for process in self._root.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.cmdline()[1:5] == ["-m", "dagster", "api", "grpc"]:
                    total += sum(process.cpu_times()[:2])
        return total


class Inserts(threading.Thread):
    """Inserts a row into each busy table, once in each tick interval, and keeps when it was committed."""

    def __init__(self, database: Database, names: list[str]) -> None:
        super().__init__(daemon=True)
        self._database, self._names = database, names
        self.ended = threading.Event()
        self.rounds = 0

    def run(self) -> None:
        statement = "; ".join(f"insert into {name} select max(id) + 1 from {name}" for name in self._names)
        with self._database.connect() as connection:
            while not self.ended.wait(TICK_S):
                connection.execute(statement.encode())
                self.rounds += 1


def objects(store: Store) -> int:
    """Return the number of objects with rows."""
    return sum(item.key.endswith(".parquet") for item in store.list("t"))


def wait_for_objects(store: Store, count: int) -> float:
    """Wait until the bucket has so many objects; return the seconds from the first to the last of them."""
    first, deadline = None, time.monotonic() + LONGEST_S
    while (found := objects(store)) < count:
        if found and first is None:
            first = time.monotonic()
        if time.monotonic() > deadline:
            raise SystemExit(f"{found} of {count} objects after {LONGEST_S:.0f} s")
        _never.wait(0.25)
    return time.monotonic() - (first or time.monotonic())


def definitions_s(environment: dict[str, str], folder: Path) -> float:
    """Return the median CPU seconds of three loads of the definitions, imports included."""
    spent = [
        float(subprocess.run([sys.executable, "-c", LOAD], env=environment, cwd=folder, capture_output=True, text=True,
                             check=True).stdout)
        for _ in range(3)
    ]  # fmt: skip
    return statistics.median(spent)


def spent_per_tick(processes: Processes, seconds: float) -> float:
    """Return the CPU seconds per tick interval over some time."""
    before, began = processes.cpu_s(), time.monotonic()
    _never.wait(seconds)
    return (processes.cpu_s() - before) / (time.monotonic() - began) * TICK_S


def create_tables(database: Database, count: int) -> None:
    """Create tables with three rows each, named t0000, t0001 and so on."""
    for first in range(0, count, 250):
        names = [f"t{number:04}" for number in range(first, min(count, first + 250))]
        database.execute("; ".join(f"create table {name} (id int primary key)" for name in names))
        database.execute("; ".join(f"insert into {name} values (1), (2), (3)" for name in names))


def measure(database: Database, bucket: Bucket, folder: Path, chosen: argparse.Namespace) -> None:
    """Run all parts and print a line for each."""
    store, count = bucket.store(), chosen.tables
    create_tables(database, count)
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    environment = {**kept, "HOME": str(folder)} | database.environ | bucket.environ
    with dagster_dev(folder, environment) as process:
        processes = Processes(process.pid)
        began = time.monotonic()
        loading_s = wait_for_objects(store, count)
        print(
            f"first load of {count:,} tables: {loading_s:.0f} s from the first object to the last, "
            f"{time.monotonic() - began:.0f} s from the start of dagster dev, {processes.cpu_s():.0f} CPU-s",
            flush=True,
        )
        print(f"definitions: {definitions_s(environment, folder):.1f} CPU-s", flush=True)
        _never.wait(60.0)
        before = processes.sensors_s()
        idle = spent_per_tick(processes, chosen.seconds)
        sensors = (processes.sensors_s() - before) / chosen.seconds * TICK_S
        print(f"idle: {idle:.2f} CPU-s in 10 s, {sensors:.2f} of them in the code server, for all sensors", flush=True)
        if chosen.busy:
            busy(database, store, processes, idle, chosen)


def busy(database: Database, store: Store, processes: Processes, idle: float, chosen: argparse.Namespace) -> None:
    """Print what ticks with busy tables cost, and how many rows arrived in which time."""
    inserts = Inserts(database, [f"t{number:04}" for number in range(chosen.busy)])
    inserts.start()
    _never.wait(30.0)
    before, rounds = objects(store), inserts.rounds
    spent = spent_per_tick(processes, chosen.seconds)
    written, made = objects(store) - before, inserts.rounds - rounds
    inserts.ended.set()
    inserts.join()
    print(
        f"{chosen.busy} busy tables: {spent:.2f} CPU-s in 10 s, net {spent - idle:.2f}; "
        f"{written:,} objects after {made * chosen.busy:,} inserts"
    )


@contextlib.contextmanager
def servers(prefix: str) -> Iterator[tuple[Database, Bucket, Path]]:
    """Start a PostgreSQL and an S3 server; yield a database, a bucket and an empty project folder."""
    with tempfile.TemporaryDirectory(prefix=prefix) as name:
        folder = Path(name)
        with PostgresServer(folder / "postgres") as server, SeaweedServer(folder / "s3") as s3:
            (folder / "project").mkdir()
            yield Database(server, "postgres"), new_bucket(s3), folder / "project"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=1000)
    parser.add_argument("--busy", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=120.0, help="of the idle and of the busy part")
    chosen = parser.parse_args()
    with servers("pg_bronze_many_") as (database, bucket, folder):
        measure(database, bucket, folder, chosen)


if __name__ == "__main__":
    main()
