"""An hour of `dagster dev` with writers, DDL and servers that end: does anything grow, and is the lake exact after it?

    .venv/bin/python -m benchmarks.soak --minutes 60 [--keep FOLDER]

Starts a primary and a standby of PostgreSQL, SeaweedFS, and `dagster dev` with the project's dagster.yaml. Sessions
write to ten tables, two of them partitioned, and alter them. Meanwhile the S3 server is killed, the primary is
restarted, the standby, which is read, is stopped for a while, and the two change roles, after which every table is
continued with `pg-bronze continue`. Every ten seconds a line of samples.csv has what the processes and servers use.

Prints the median of the second quarter of the time beside that of the last one. Ends with 1 if something has grown, a
zombie is left, a table took more than ``RECOVER_S`` to recover, or lake and source differ. Linux only.
"""

import argparse
import contextlib
import csv
import itertools
import json
import logging
import os
import re
import shutil
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg

from benchmarks import soak_servers as servers
from benchmarks.load_interference import dagster_dev
from benchmarks.retention import size_mb
from benchmarks.soak_servers import TABLES, Alterer, CountedSeaweed, Marker, Pair, Periodic, Reader, Writer
from pg_bronze.errors import PgBronzeError
from pg_bronze_tests.harness import loaded
from pg_bronze_tests.harness.comparison import Difference
from pg_bronze_tests.harness.lake import Lake
from pg_bronze_tests.harness.servers import Bucket, new_bucket, until_killed

SAMPLE_S, DOWN_S, SETTLE_S, RECOVER_S = 10.0, 5.0, 300.0, 180.0
WRITERS, KINDS = 6, 5
MOST_SHARE, MOST_MB, MOST_COUNT, MOST_STORAGE_MB = 1.15, 30.0, 5, 60.0
# What a command line contains, in this order; other processes are parts of the code server, such as run workers.
ROLES = {
    "dev": r"bin/dagster dev",
    "webserver": r"dagster_webserver|dagster-webserver",
    "daemon": r"dagster\._daemon|dagster-daemon",
    "code server": r"code-server",
    "worker": r"run_workers",
    "code": r"api grpc|resource_tracker",
    "run": r"",
}
LONG_LIVED = [role for role in ROLES if role != "run"]
MEASURES = ("rss_mb", "pss_mb", "descriptors", "threads", "processes")
SESSIONS = ("pg_bronze sensor", "pg_bronze catalog", "pg_bronze run", "pg_bronze command")
REQUESTS = ("PUT", "LIST", "GET", "DELETE", "COPY")
FIELDS = [
    "time_s",
    *(f"{role} {measure}" for role in ROLES for measure in MEASURES),
    *("zombies", "cpu_s", "storage_mb", "log_mb", "objects", "bucket_mb"),
    *(f"S3 {name}" for name in REQUESTS),
    *SESSIONS,
]
FAILED = """{ runsOrError(filter: {statuses: [FAILURE]}, limit: 100) { ... on Runs { results { runId eventConnection {
  events { ... on ExecutionStepFailureEvent { error { className causes { className } } }
           ... on RunFailureEvent { message error { className causes { className } } } } } } } } }"""


@dataclass
class Dev:
    """A running `dagster dev` in its project folder."""

    process: Any
    folder: Path
    environment: dict[str, str]
    failures: Counter[str] = field(default_factory=Counter)
    failed: set[str] = field(default_factory=set)

    def usage(self) -> dict[str, float]:
        """Return what each role uses of the machine now."""
        found: Counter[str] = Counter()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError), process.oneshot():
                if os.getsid(process.pid) != self.process.pid:
                    continue
                times = process.cpu_times()
                found["cpu_s"] += times.user + times.system + times.children_user + times.children_system
                if process.status() == psutil.STATUS_ZOMBIE:
                    found["zombies"] += 1
                    continue
                line = " ".join(process.cmdline())
                role = next(name for name, words in ROLES.items() if re.search(words, line))
                size = process.memory_full_info()
                measured = (size.rss / 1e6, size.pss / 1e6, process.num_fds(), process.num_threads())
                # The largest process: for a while after each reload there are two code servers.
                for measure, value in zip(MEASURES[:-1], measured, strict=True):
                    found[f"{role} {measure}"] = max(value, found[f"{role} {measure}"])
                found[f"{role} processes"] += 1
        return found | {
            "storage_mb": size_mb(self.folder / ".dagster"),
            "log_mb": (self.folder / "dev.log").stat().st_size / 1e6,
        }

    def count_failures(self) -> None:
        """Count the failed runs that were not counted yet, by the class of their errors."""
        port = self.process.args[-1]
        body = json.dumps({"query": FAILED}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as reply:
            runs = json.load(reply)["data"]["runsOrError"]["results"]
        for run in runs:
            if run["runId"] not in self.failed:
                self.failed.add(run["runId"])
                events = [event for event in run["eventConnection"]["events"] if "error" in event]
                # A failure of ours is the cause of Dagster's.
                chains = [[event["error"], *event["error"]["causes"]] for event in events if event["error"]]
                told = {event["message"][:100] for event in events if "message" in event}
                self.failures.update({chain[:2][-1]["className"] for chain in chains} or told)

    def resume(self, table: str) -> str | None:
        """Run `pg-bronze continue` for a table and return its message if it failed."""
        done = loaded.run(["continue", table], self.folder, self.environment, SETTLE_S)
        return (done.stdout + done.stderr).strip() if done.returncode else None


class Sampler(Periodic):
    """Appends a line to a CSV file every ten seconds."""

    def __init__(self, dev: Dev, pair: Pair, s3: CountedSeaweed, bucket: Bucket, file: Path) -> None:
        super().__init__(SAMPLE_S)
        self._dev, self._pair, self._s3, self._store = dev, pair, s3, bucket.store()
        self._file, self._began, self._turn = file, time.monotonic(), itertools.count()
        self.rows: list[dict[str, float]] = []
        file.write_text(",".join(FIELDS) + "\n")

    def act(self) -> None:
        row: dict[str, float] = {"time_s": time.monotonic() - self._began, **self._dev.usage()}
        row |= {f"S3 {name}": count for name, count in self._s3.requests().items() if name in REQUESTS}
        for server in (self._pair.primary, self._pair.standby):
            with contextlib.suppress(psycopg.Error), server.connect() as connection:
                query = "select application_name, count(*) from pg_stat_activity group by 1"
                for name, count in connection.execute(query):
                    if known := next((one for one in SESSIONS if name.startswith(one)), None):
                        row[known] = row.get(known, 0) + count
        with contextlib.suppress(PgBronzeError):
            sizes = [item.size_bytes for item in self._store.list("")]
            row |= {"objects": len(sizes), "bucket_mb": sum(sizes) / 1e6}
        self.rows.append(row)
        with self._file.open("a", newline="") as stream:
            csv.DictWriter(stream, FIELDS, extrasaction="ignore").writerow(
                {name: round(value, 2) for name, value in row.items()}
            )
        if next(self._turn) % 3 == 0:
            self._dev.count_failures()


@dataclass
class Disturbances:
    """What is done to the servers, in turns, and when each of them was over."""

    pair: Pair
    s3: CountedSeaweed
    dev: Dev
    down_s: float
    done: list[tuple[str, float]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def next(self) -> None:
        """Do the one whose turn it is."""
        acts: list[tuple[str, Callable[[], None]]] = [
            ("S3 server killed", self._kill_s3),
            ("standby stopped", self._stop_standby),
            ("switch-over", self._switch_over),
            ("primary restarted (fast)", lambda: self._restart("fast")),
            ("primary restarted (immediate)", lambda: self._restart("immediate")),
        ]
        name, act = acts[len(self.done) % len(acts)]
        began = time.monotonic()
        act()
        self.done.append((name, time.monotonic()))
        print(f"{time.strftime('%H:%M:%S')} {name}, {time.monotonic() - began:.0f} s", flush=True)

    def _kill_s3(self) -> None:
        self.s3.kill()
        threading.Event().wait(DOWN_S)
        self.s3.start()

    def _restart(self, mode: Any) -> None:
        self.pair.primary.stop(mode)
        self.pair.primary.start()

    def _stop_standby(self) -> None:
        self.pair.standby.stop()
        threading.Event().wait(self.down_s)
        self.pair.standby.start()

    def _switch_over(self) -> None:
        servers.replayed(self.pair)
        self.pair.switch_over()
        for table in servers.tables(self.pair.database):
            message = self.dev.resume(table)
            # A later table may have been dropped meanwhile, or not been copied yet.
            if message and table in TABLES:
                self.refused.append(f"{table}: {message}")


class Soak:
    """One soak: its sessions, its disturbances, and what was found."""

    def __init__(self, dev: Dev, pair: Pair, s3: CountedSeaweed, bucket: Bucket, kept: Path, seconds: float) -> None:
        self.dev, self.pair, self._bucket, self._seconds = dev, pair, bucket, seconds
        # At most thirty of them in an hour.
        self._every_s = max(30.0, min(120.0, seconds / 9))
        self.marker, self.reader = Marker(pair), Reader(bucket)
        self.alterer = Alterer(pair, max(6.0, min(30.0, seconds / 40)))
        self.writers = [Writer(pair, f"writer {number}", servers.WRITE_S) for number in range(WRITERS)]
        self.sampler = Sampler(dev, pair, s3, bucket, kept / "samples.csv")
        self.disturbances = Disturbances(pair, s3, dev, self._every_s / 3)
        self.rows: list[dict[str, float]] = []
        self.difference, self.different = Difference(), [""]
        self.settle_s, self.zombies = 0.0, False

    def run(self) -> None:
        """Let everybody work for the time, then compare."""
        self.marker.start()
        self.reader.start()
        if not servers.wait_until(lambda: {table for table, _ in self.reader.arrived} == set(TABLES), SETTLE_S):
            raise SystemExit(f"no first load of all tables within {SETTLE_S:.0f} s")
        for thread in (self.sampler, self.alterer, *self.writers):
            thread.start()
        never, ends = threading.Event(), time.monotonic() + self._seconds
        never.wait(self._every_s)
        # However slow the machine is: each of them once.
        while len(self.disturbances.done) < KINDS or time.monotonic() + self._every_s < ends:
            self.disturbances.next()
            never.wait(self._every_s)
        never.wait(max(0.0, ends - time.monotonic()))
        for session in (*self.writers, self.alterer, self.marker):
            session.stop()
        self.rows = list(self.sampler.rows)
        self._settle()

    def _settle(self) -> None:
        """Wait until the lake is equal to the source, and until the last workers have ended."""
        before, began = set(self.marker.committed), time.monotonic()
        with self.pair.database.connect() as connection:
            if self.alterer.detached:
                self.alterer.attach(connection)
            self.marker.act(connection)
        last = self.marker.committed.keys() - before
        servers.wait_until(lambda: last <= self.reader.arrived.keys(), SETTLE_S)
        servers.wait_until(self._is_equal, SETTLE_S, SAMPLE_S)
        self.settle_s = time.monotonic() - began
        self.zombies = not servers.wait_until(lambda: not self.dev.usage().get("zombies"), SAMPLE_S * 3)
        self.sampler.stop()
        self.reader.stop()
        self.dev.count_failures()

    def _is_equal(self) -> bool:
        """Compare each table with its lake, and look for doubled rows in the generations that were moved away."""
        lake = Lake(self.pair.database, self._bucket.store())
        self.difference, self.different = Difference(), []
        for table in servers.tables(self.pair.database):
            found = lake.compare(table, key="id")
            found += Difference(doubled=sum(lake.doubled(keys, "id") for keys in lake.old_generations(table).values()))
            self.difference += found
            if found != Difference():
                self.different.append(f"{table}: {found}")
        return not self.different

    def delays(self) -> list[float]:
        """Return the seconds from the commit of each marker to its object; now, if it has none."""
        now = time.monotonic()
        return [self.reader.arrived.get(row, now) - at for row, at in self.marker.committed.items()]

    def recoveries(self) -> list[tuple[float, str, str]]:
        """Return the seconds until each table had a row that was committed after a disturbance, the longest first."""
        found = []
        for (name, ended), table in itertools.product(self.disturbances.done, TABLES):
            after = [row for row, at in self.marker.committed.items() if row[0] == table and at > ended]
            first = min((self.reader.arrived.get(row, float("inf")) for row in after), default=float("inf"))
            found.append((first - ended, table, name))
        return sorted(found, reverse=True)


@dataclass(frozen=True)
class Series:
    """One measure over the time: its first value, the medians of three quarters, and the highest values."""

    name: str
    first: float
    second: float
    third: float
    last: float
    second_most: float
    most: float

    @classmethod
    def of(cls, name: str, values: list[float]) -> "Series":
        size = len(values) // 4
        second, third, last = values[size : 2 * size], values[2 * size : 3 * size], values[-size:]
        medians = map(statistics.median, (second, third, last))
        return cls(name, values[0], *medians, max(second), max(values))

    def grown(self) -> bool:
        """Return whether the median has grown by more than it may, and above all values of the second quarter."""
        if self.name == "storage_mb":
            return self.last > MOST_STORAGE_MB and self.last > self.third
        if self.last <= self.second_most:
            return False
        if self.name.endswith("rss_mb"):
            return self.last > self.second * MOST_SHARE and self.last > self.second + MOST_MB
        return self.name.endswith(("descriptors", "threads", "processes")) and self.last > self.second + MOST_COUNT


def series(rows: list[dict[str, float]]) -> list[Series]:
    """Return what the table shows, in its order."""
    shown = ("rss_mb", "descriptors", "threads", "processes")
    names = [f"{role} {measure}" for role in LONG_LIVED for measure in shown]
    found = [Series.of(name, [row.get(name, 0.0) for row in rows]) for name in (*names, "storage_mb", "log_mb")]
    for name in ("cpu_s", *(f"S3 {kind}" for kind in REQUESTS)):
        points = [(row["time_s"], row[name]) for row in rows if name in row]
        pairs = zip(points, points[6:], strict=False)  # over a minute, which has several ticks
        rates = [(after - before) / (later - earlier) for (earlier, before), (later, after) in pairs]
        if len(rates) > 4:
            found.append(Series.of(f"{name} per second", rates))
    for name in SESSIONS:
        found.append(Series.of(f"connections {name}", [row.get(name, 0.0) for row in rows]))
    return found


def report(soak: Soak) -> list[str]:
    """Print what was found and return what is wrong with it."""
    found, recoveries, delays, what = series(soak.rows), soak.recoveries(), soak.delays(), soak.difference
    print("\n| series | first | second quarter | last quarter | most |\n|---|---|---|---|---|")
    for one in found:
        print(f"| {one.name} | {one.first:.1f} | {one.second:.1f} | {one.last:.1f} | {one.most:.1f} |")
    print()
    for name, count in Counter(name for name, _ in soak.disturbances.done).items():
        slowest = next(one for one in recoveries if one[2] == name)
        print(f"{count} x {name}: every table had new rows after at most {slowest[0]:.0f} s ({slowest[1]})")
    p95 = statistics.quantiles(delays, n=20)[-1]
    print(f"insert to object: median {statistics.median(delays):.1f} s, p95 {p95:.1f} s, most {max(delays):.1f} s")
    sessions = (*soak.writers, soak.alterer, soak.marker)
    print("sessions:", dict(sum((one.done for one in sessions), Counter())))
    print("statements that failed:", dict(sum((one.failed for one in sessions), Counter())))
    print(f"{len(soak.dev.failed)} runs failed: {dict(soak.dev.failures)}")
    print(
        f"{what.lost} lost, {what.stale} stale, {what.doubled} doubled, {what.wrong_latest} wrong latest; "
        f"equal {soak.settle_s:.0f} s after the last write"
    )
    wrong = [f"{one.name} has grown from {one.second:.1f} to {one.last:.1f}" for one in found if one.grown()]
    wrong += ["zombies are left"] if soak.zombies else []
    wrong += [f"{table} took {spent:.0f} s after: {name}" for spent, table, name in recoveries if spent > RECOVER_S]
    return wrong + [f"differs: {table}" for table in soak.different] + soak.disturbances.refused


def run(folder: Path, kept: Path, minutes: float) -> list[str]:
    """Start the servers and `dagster dev`, run a soak, and return what is wrong."""
    project = folder / "project"
    project.mkdir()
    with Pair(folder / "postgres") as pair, until_killed(CountedSeaweed(folder / "s3")) as s3:
        servers.create(pair.database)
        servers.replayed(pair)
        bucket = new_bucket(s3)
        variables = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        variables |= {"HOME": str(project), **pair.environ, **bucket.environ}
        with dagster_dev(project, variables) as process, contextlib.ExitStack() as last:
            last.callback(lambda: shutil.copy(project / "dev.log", kept))
            soak = Soak(Dev(process, project, variables), pair, s3, bucket, kept, minutes * 60)
            soak.run()
            return report(soak)


def main() -> int:
    logging.getLogger("psycopg").disabled = True  # a rollback on a server that is down
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--keep", type=Path, help="a folder for samples.csv and dev.log")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pg_bronze_soak_") as name:
        folder = Path(name)
        kept = chosen.keep or folder / "kept"
        kept.mkdir(parents=True, exist_ok=True)
        wrong = run(folder, kept, chosen.minutes)
    for problem in wrong:
        print(f"FAILED: {problem}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
