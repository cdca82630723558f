"""A large first load under writers, by a real process that is killed again and again; then every row is looked for.

    python -m benchmarks.large --rows 5000000 --kills 6

Starts a PostgreSQL and an S3 server of its own (extra ``demo``). No process may take over 200 MB more than one that has
copied a table of one row.
"""

import argparse
import contextlib
import io
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.memory import ALLOWED_MB
from pg_bronze_tests.harness.lake import Difference, Lake
from pg_bronze_tests.harness.servers import ROOT, Database, new_bucket

TABLE = """create table big (
  id bigint generated always as identity primary key,
  updated_at timestamptz not null default now(),
  turn int not null default 0,
  body text
) with (autovacuum_enabled = off)"""
FILL = "insert into big (body) select repeat(md5(i::text), 2) from generate_series(1, {rows}) i"
IDLE = "create table idle (id int); insert into idle values (1)"
WRITERS = 4
BODIES = ("'new'", "''", "null")


@dataclass
class Result:
    """What became of the rows: all of ``difference`` must be 0.

    ``commits`` are those of the writers. ``peak_mb`` is the highest memory of a process, ``idle_mb`` that of one that
    copied a table of one row.
    """

    rows: int
    commits: int
    versions: int
    objects: int
    kills: int
    processes: int
    peak_mb: float
    idle_mb: float
    seconds: float
    difference: Difference

    @property
    def bounded(self) -> bool:
        """Whether memory stayed within what a worker may take; True where nothing tells a process's memory."""
        return self.peak_mb - self.idle_mb <= ALLOWED_MB


def write(database: Any, done: threading.Event, seed: int) -> int:
    """Update, insert and delete rows all over the table until told to stop; gives the number of commits."""
    chance, count = random.Random(seed), 0
    with database.connect() as connection:
        rows = connection.execute("select max(id) from big").fetchone()[0]
        while not done.is_set():
            some = ", ".join(str(chance.randint(1, rows)) for _ in range(20))
            moved = "updated_at = clock_timestamp(), " if chance.random() < 0.5 else ""
            connection.execute(f"update big set {moved}turn = turn + 1 where id in ({some})".encode())
            connection.execute(f"delete from big where id = {chance.randint(1, rows)}".encode())
            connection.execute(f"insert into big (body) values ({chance.choice(BODIES)})".encode())
            count += 3
            done.wait(0.01)
    return count


def tick(
    environment: dict[str, str], folder: Path, kill_after_objects: int | None, lake: Lake, table: str = "big"
) -> tuple[bool, float]:
    """Run ``pg-bronze tick``; kill it once so many objects more are there. Says whether it ended by itself, and its
    highest resident memory in MB."""
    process = subprocess.Popen(
        [Path(sys.executable).with_name("pg-bronze"), "tick", table], cwd=folder, env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    before, waiting, peak = len(lake.keys(table)), threading.Event(), 0.0
    while process.poll() is None:
        with contextlib.suppress(OSError, IndexError):
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = max(peak, int(status.partition("VmHWM:")[2].split()[0]) / 1024)
        if kill_after_objects is not None and len(lake.keys(table)) >= before + kill_after_objects:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return False, peak
        waiting.wait(0.05)
    said = process.stderr.read() if process.stderr else ""
    if process.returncode:
        raise RuntimeError(f"pg-bronze tick ended with {process.returncode}: {said[-2000:]}")
    return True, peak


def large(database: Any, bucket: Any, rows: int, kills: int, seed: int, folder: Path, **settings: str) -> Result:
    """Fill the table, let writers loose, copy with ``kills`` kills, stop the writers, copy the rest and compare."""
    database.execute(f"{IDLE}; {TABLE}")
    database.execute(FILL.format(rows=rows))
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("workspace.yaml", "dagster.yaml"):
        (folder / name).write_text((ROOT / name).read_text())
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ}
    environment = {**kept, "HOME": str(folder), **database.environ, **bucket.environ, **settings}
    lake, chance = Lake(database, bucket.store()), random.Random(seed)
    idle_mb = tick(environment, folder, None, lake, "idle")[1]
    done, started = threading.Event(), time.monotonic()
    pool = ThreadPoolExecutor(WRITERS)
    writers = [pool.submit(write, database, done, seed * 100 + number) for number in range(WRITERS)]
    peaks: list[float] = []
    killed = 0
    try:
        for _ in range(kills):
            ended, peak = tick(environment, folder, chance.randint(1, 3), lake)
            peaks.append(peak)
            killed += not ended
        peaks.append(tick(environment, folder, None, lake)[1])
    finally:
        done.set()
        pool.shutdown()
    peaks.append(tick(environment, folder, None, lake)[1])
    difference, live = _compare(database, lake)
    return Result(
        rows=live, commits=sum(writer.result() for writer in writers), versions=lake.rows("big").height,
        objects=len(lake.keys("big")), kills=killed, processes=len(peaks),
        peak_mb=max(peaks), idle_mb=idle_mb, seconds=time.monotonic() - started, difference=difference,
    )  # fmt: skip


def _compare(database: Any, lake: Lake) -> tuple[Difference, int]:
    """The difference between source and lake, values included, and the number of live rows."""
    live = _live(database)
    held = lake.rows("big").with_columns(pl.col("updated_at").dt.epoch("us"), xid=pl.col("_pg_xid").mod(2**32))
    held = held.drop("_pg_xid").cast({"turn": pl.Int64}).select(live.columns)
    lost = live.join(held, on="id", how="anti").height
    stale = live.join(held, on=live.columns, how="anti", nulls_equal=True).height - lost
    latest = held.sort("xid").unique("id", keep="last")
    found = Difference(
        lost,
        stale,
        held.height - held.unique().height,
        latest.join(live, on="id").filter(pl.col("xid") != pl.col("xid_right")).height,
    )
    return found, live.height


def _live(database: Any) -> pl.DataFrame:
    """Every column of the live rows, the time in microseconds since 1970; NULL is another body than none at all."""
    read = """select id, (extract(epoch from updated_at) * 1000000)::bigint as updated_at, turn, body,
      xmin::text::bigint as xid from only big"""
    with database.connect() as connection:
        copy = connection.cursor().copy(f"copy ({read}) to stdout (format csv, header, null '-')".encode())
        with copy as stream:
            text = b"".join(stream)
    types = {"id": pl.Int64, "updated_at": pl.Int64, "turn": pl.Int64, "body": pl.String, "xid": pl.Int64}
    return pl.read_csv(io.BytesIO(text), schema=types, null_values={"body": "-"}, empty_string_is_null=False)


def main() -> int:
    from pg_bronze.demo.postgres import PostgresServer
    from pg_bronze.demo.s3 import SeaweedServer

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as servers:
        postgres = servers.enter_context(PostgresServer(Path(folder) / "postgres"))
        bucket = new_bucket(servers.enter_context(SeaweedServer(Path(folder) / "s3")))
        database = Database(postgres, "postgres")
        found = large(database, bucket, given.rows, given.kills, given.seed, Path(folder) / "project")
    print(
        f"{found.rows} rows live after {found.commits} commits, {found.versions} versions in {found.objects} objects "
        f"by {found.processes} processes of which {found.kills} were killed, in {found.seconds:.0f} s; "
        f"highest memory {found.peak_mb:.0f} MB, {found.peak_mb - found.idle_mb:.0f} MB above an idle one"
    )
    what = found.difference
    print(f"lost {what.lost}, stale {what.stale}, doubled {what.doubled}, wrong latest {what.wrong_latest}")
    return 0 if what == Difference() and found.bounded else 1


if __name__ == "__main__":
    sys.exit(main())
