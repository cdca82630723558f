"""What a large table costs its source: one new row per tick, at several sizes.

    .venv/bin/python -m benchmarks.big_table [--millions 0.1 5 50] [--ticks 60]

Starts a PostgreSQL server (shared_buffers 1 GB) and an S3 server of its own. For each size: fills a table with an
index on ``updated_at``, copies it, and inserts one row before each tick. The clock of the ticks is moved by 10 s, so
that sweeps come as often as in production, and none of the pauses is waited for. Prints

    tick      CPU milliseconds of the server's processes per tick without a sweep
    sweeps    how many began, their CPU seconds, and all CPU of the source as a share of the time that the clock moved
    visible   in which tick a new row arrived (1: the next), and after how many seconds an update of an old row

CPU includes the INSERT of the benchmark. It is read from the operating system, of all processes of the server.
"""

import argparse
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil

from pg_bronze.core.band_rules import BandRules
from pg_bronze.demo.postgres import PostgresServer
from pg_bronze.demo.s3 import SeaweedServer
from pg_bronze_tests.harness.lake import Lake
from pg_bronze_tests.harness.servers import Bucket, Database, new_bucket

TICK_S = 10.0
GROUP = 10  # the operating system counts CPU in steps of 10 ms
TABLE = """create table movie (
  movie_id bigint primary key,
  title text not null,
  votes int not null,
  updated_at timestamptz not null default clock_timestamp()
)"""
FILL = "insert into movie select i, md5(i::text), mod(i, 97) from generate_series(%s::bigint, %s::bigint) i"


class Server:
    """The processes of a server, and the CPU that they used so far."""

    def __init__(self, postmaster: int) -> None:
        self._process = psutil.Process(postmaster)

    def cpu_s(self) -> float:
        """Return the CPU seconds of all processes, including those that ended since; in steps of 10 ms."""
        times = self._process.cpu_times()
        total = times.user + times.system + times.children_user + times.children_system
        for child in self._process.children(recursive=True):
            try:
                times = child.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
        return total


class Clock:
    """The time of the ticks."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def move(self) -> None:
        self.now += timedelta(seconds=TICK_S)


def fill(database: Database, rows: int) -> None:
    """Create the table with its index, in parts that the server writes quickly."""
    database.execute(TABLE)
    for first in range(1, rows + 1, 5_000_000):
        with database.connect() as connection:
            connection.execute(FILL, (first, min(rows, first + 4_999_999)))
    database.execute("create index on movie (updated_at)")
    database.execute("vacuum (analyze) movie")
    database.execute("checkpoint")


def run(server: PostgresServer, bucket: Bucket, rows: int, ticks: int) -> None:
    """Measure one size and print its lines."""
    database, clock = Database(server, "postgres"), Clock()
    database.execute("drop table if exists movie")
    fill(database, rows)
    lake = Lake(database, bucket.store(), bands=BandRules())
    started = time.monotonic()
    lake.tick(now=clock)
    first_s = time.monotonic() - started
    blocks = database.execute("select pg_relation_size('movie') / 8192")[0][0]
    print(f"{rows / 1e6:g} million rows, {blocks:,} blocks: first load {first_s:.0f} s", flush=True)
    _measure(lake, database, clock, Server(postmaster(database)), rows, ticks)


def postmaster(database: Database) -> int:
    """Return the process id of the server's first process, the parent of all others."""
    with database.connect() as connection:
        return psutil.Process(connection.info.backend_pid).ppid()


def _measure(lake: Lake, database: Database, clock: Clock, server: Server, rows: int, ticks: int) -> None:
    plain, swept, late, visible = [], [], 0, None
    began, moved = server.cpu_s(), clock.now
    with lake.source() as source, database.connect() as writer:
        source.connection  # noqa: B018  (a login is no part of a tick)
        for tick in range(ticks):
            clock.move()
            writer.execute("insert into movie values (%s, 'new', 0)", (rows + tick + 1,))
            if tick == ticks // 4:
                writer.execute("update movie set title = 'changed' where movie_id = 17")
                updated = clock.now
            writer.execute("select pg_stat_force_next_flush()")  # otherwise after a second, which is many ticks here
            before, state = server.cpu_s(), _state(lake)
            source.forget_horizon()
            outcome = lake.copy(source, now=clock)
            spent = server.cpu_s() - before
            (swept if _state(lake) != state else plain).append(spent)
            late += outcome.row_count == 0
            if visible is None and tick >= ticks // 4 and outcome.row_count > 1:
                visible = (clock.now - updated).total_seconds()
    share = (server.cpu_s() - began) / (clock.now - moved).total_seconds()
    groups = [statistics.mean(plain[first : first + GROUP]) for first in range(0, len(plain) - GROUP + 1, GROUP)]
    median, most = (1000 * figure for figure in (statistics.median(groups), max(groups)))
    print(f"  tick     {median:.1f} ms median, {most:.1f} ms at most, in groups of {GROUP}")
    print(f"  sweeps   {len(swept)} ticks with a sweep, {sum(swept):.1f} s; all CPU {share:.2%} of the time")
    print(f"  visible  {late} new rows waited for more than one tick; an old row after {visible} s", flush=True)


def _state(lake: Lake) -> object:
    known = lake.progress.get("movie") or lake.recorded["movie"]
    leaf = next(iter(known.leaves.values()))
    return leaf.swept if leaf.upper else None, leaf.sweep and leaf.sweep.position


def main() -> None:
    """Run all sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=float, nargs="+", default=[0.1, 5, 50])
    parser.add_argument("--ticks", type=int, default=60)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        options = {"shared_buffers": "1GB", "max_wal_size": "16GB", "wal_level": "minimal", "max_wal_senders": "0"}
        with (
            PostgresServer(Path(folder) / "postgres", options=options) as server,
            SeaweedServer(Path(folder) / "s3") as s3,
        ):
            for millions in chosen.millions:
                run(server, new_bucket(s3), int(millions * 1_000_000), chosen.ticks)


if __name__ == "__main__":
    main()
