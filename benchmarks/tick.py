"""What a tick costs: CPU of all of Dagster, the time of a run, and the time from an insert to its object.

    .venv/bin/python -m benchmarks.tick [--busy 10] [--quiet 0] [--interval 10] [--seconds 300] [--launcher stock]
    .venv/bin/python -m benchmarks.tick --only idle

Starts a PostgreSQL server, an S3 server and a `dagster dev` with the project's dagster.yaml. Each busy table gets one
row in each interval. The moments are spread evenly over the time between two ticks: with 300 random ones, the median
would vary by 0.3 s from one run to the next although nothing else does. CPU seconds are those of all processes of
Dagster, those of ended runs included, and not those of the servers. "net" is without what the idle `dagster dev` uses.
"""

import argparse
import io
import itertools
import os
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import polars as pl
import psycopg

from benchmarks.load_interference import dagster_dev
from benchmarks.many_tables import Processes, objects, servers, wait_for_objects
from pg_bronze.lake.object_store import Store
from pg_bronze_tests.harness.servers import Bucket, Database

# Dagster's own launcher and coordinator.
STOCK = {
    "run_launcher": None,
    "run_coordinator": {
        "module": "dagster._core.run_coordinator",
        "class": "QueuedRunCoordinator",
        "config": {"dequeue_interval_seconds": 1},
    },
}
# Its multiples, without the whole part, are spread evenly however many there are.
_GOLDEN = (5**0.5 - 1) / 2
_never = threading.Event()


class Rows(threading.Thread):
    """Inserts rows, and notes when each of them was committed."""

    def __init__(self, database: Database, names: list[str], interval_s: float) -> None:
        super().__init__(daemon=True)
        self._database, self._names, self._interval_s = database, names, interval_s
        self.ended = threading.Event()
        self.committed: dict[tuple[str, int], float] = {}

    def run(self) -> None:
        numbers, start = itertools.count(1), time.monotonic()
        due = {name: self._moment(next(numbers), start, 0) for name in self._names}
        with self._database.connect() as connection:
            while not self.ended.wait(max(0.0, min(due.values()) - time.monotonic())):
                name = min(due, key=due.__getitem__)
                self._insert(connection, name)
                passed = (due[name] - start) // self._interval_s
                due[name] = self._moment(next(numbers), start, passed + 1)

    def _moment(self, number: int, start: float, intervals: float) -> float:
        """Return when a row is inserted: in an interval, at a place that no group of successive rows has in common."""
        return start + (intervals + number * _GOLDEN % 1) * self._interval_s

    def _insert(self, connection: psycopg.Connection, name: str) -> None:
        found = connection.execute(f"insert into {name} select max(id) + 1 from {name} returning id".encode())
        row = found.fetchone()
        connection.commit()
        self.committed[name, row[0] if row else 0] = time.time()


def latencies(folder: Path, store: Store, rows: Rows, since: float, until: float) -> list[float]:
    """Return the seconds from commit to object of the rows whose objects were written between two times.

    An object's time is that of the event that its run stored after the PUT: some milliseconds late. A listing every
    0.1 s was 0.1 s late, and took a tenth of a core from what is measured.
    """
    found = []
    with instance(folder) as opened:
        for name in {name for name, _ in rows.committed}:
            limits = {"after_timestamp": since, "before_timestamp": until, "asset_key": dg.AssetKey(["bronze", name])}
            written = opened.fetch_materializations(dg.AssetRecordsFilter(**limits), limit=10_000).records
            for record in written:
                made = record.asset_materialization
                key = str(made.metadata["dagster/uri"].value).split("/", 3)[3] if made else ""
                numbers = pl.read_parquet(io.BytesIO(store.get(key) or b""), columns=["id"])["id"]
                found += [record.timestamp - rows.committed[name, number] for number in numbers]
    return found


def ended_runs(folder: Path) -> list[dg.DagsterRun]:
    """Return the successful runs of ticks, newest first."""
    with instance(folder) as opened:
        return list(opened.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS])))


@contextmanager
def instance(folder: Path) -> Iterator[dg.DagsterInstance]:
    """Open the instance of the project, whose paths are relative to its folder."""
    here = Path.cwd()
    os.chdir(folder)
    try:
        with dg.DagsterInstance.from_config(str(folder)) as opened:
            yield opened
    finally:
        os.chdir(here)


def run_times(folder: Path, runs: list[dg.DagsterRun]) -> list[float]:
    """Return the seconds from queued to the end of each run."""
    with instance(folder) as opened:
        found = [opened.get_run_stats(run.run_id) for run in runs]
    return [stats.end_time - stats.enqueued_time for stats in found if stats.end_time and stats.enqueued_time]


def shares(values: list[float]) -> str:
    """Return median, 95th percentile and maximum in seconds."""
    if len(values) < 2:
        return f"{len(values)} values"
    p95 = statistics.quantiles(values, n=20)[18]
    return f"p50 {statistics.median(values):.2f}, p95 {p95:.2f}, max {max(values):.2f} s"


def measure(database: Database, bucket: Bucket, folder: Path, chosen: argparse.Namespace) -> None:
    """Run all parts and print a line for each."""
    store, names = bucket.store(), [f"t{number:04}" for number in range(chosen.busy + chosen.quiet)]
    for first in range(0, len(names), 250):
        some = names[first : first + 250]
        database.execute("; ".join(f"create table {name} (id int primary key)" for name in some))
        database.execute("; ".join(f"insert into {name} values (1), (2), (3)" for name in some))
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    environment = {**kept, "HOME": str(folder), "PG_BRONZE_INTERVAL_S": str(chosen.interval)}
    environment |= database.environ | bucket.environ
    with dagster_dev(folder, environment, STOCK if chosen.launcher == "stock" else {}) as process:
        processes = Processes(process.pid)
        wait_for_objects(store, len(names))
        _never.wait(60.0)
        # A reload of the definitions, or the start of a run worker, takes two CPU seconds: 7 % of a core for 30 s.
        idle = idle_per_second(processes, max(120.0, chosen.seconds / 3))
        if chosen.only == "idle":
            return
        rows = Rows(database, names[: chosen.busy], chosen.interval)
        rows.start()
        _never.wait(30.0)
        before, since = len(ended_runs(folder)), time.time()
        spent = per_second(processes, chosen.seconds)
        until, found = time.time(), ended_runs(folder)
        rows.ended.set()
        rows.join()
        seconds = latencies(folder, store, rows, since, until)
        runs = found[: len(found) - before]
        net = (spent - idle) * chosen.seconds / max(1, len(runs))
        print(f"busy: {net:.2f} CPU-s per run net of idle, {len(runs)} runs in {chosen.seconds:.0f} s", flush=True)
        print(f"queued to SUCCESS: {shares(run_times(folder, runs))}")
        print(f"insert to object: {shares(seconds)} ({len(seconds)} rows, {objects(store):,} objects)")


def per_second(processes: Processes, seconds: float) -> float:
    """Return the CPU seconds per second over some time."""
    before, began = processes.cpu_s(), time.monotonic()
    _never.wait(seconds)
    return (processes.cpu_s() - before) / (time.monotonic() - began)


def idle_per_second(processes: Processes, seconds: float) -> float:
    """Print and return the CPU seconds per second, with the highest of 15 s and the share of each process."""
    before, began, highest = processes.by_role(), time.monotonic(), 0.0
    while (passed := time.monotonic() - began) < seconds:
        highest = max(highest, per_second(processes, min(15.0, seconds - passed)))
    passed, after = time.monotonic() - began, processes.by_role()
    shares = {role: (after[role] - before[role]) / passed for role in after}
    parts = ", ".join(f"{role} {share * 100:.1f}" for role, share in shares.items())
    print(f"idle: {sum(shares.values()) * 100:.1f} % of a core, {highest * 100:.1f} at most ({parts})", flush=True)
    return sum(shares.values())


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, default=10)
    parser.add_argument("--quiet", type=int, default=0)
    parser.add_argument("--interval", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--launcher", choices=["resident", "stock"], default="resident")
    parser.add_argument("--only", choices=["idle"], help="end after the part without new rows, in four minutes")
    chosen = parser.parse_args()
    with servers("pg_bronze_tick_") as (database, bucket, folder):
        measure(database, bucket, folder, chosen)


if __name__ == "__main__":
    main()
