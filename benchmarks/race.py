"""The race: many writers commit out of order while pg_bronze copies, crashes and forgets; then every row is looked for.

Beside it a plain ``created_at > last`` poller reads the same table, as incremental copiers usually do, and dlt if a
Python that has it is named.

    python -m benchmarks.race --seconds 60 --writers 12 --seed 7 --dlt .cache/peers/dlt/bin/python

Starts a PostgreSQL and an S3 server of its own (extra ``demo``). What repeats with a seed is what is chosen: the n-th
transaction of a writer and the n-th tick draw the same numbers, random() of the server included. Not the order in time
of transactions of different writers, hence not the rows that a choice meets.
"""

import argparse
import contextlib
import itertools
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import psycopg

from pg_bronze.errors import TransientError
from pg_bronze_tests.harness.lake import STEPS, Difference, Lake, crash_after

TABLE = """create table race (
  id bigint generated always as identity primary key,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  turn int not null default 0,
  how text not null
);
create index on race (created_at)"""
TICK_S = 0.25
SLICE_ROWS = (30, 200)
GRACE_S = 60


@dataclass
class Result:
    """What became of the rows: of pg_bronze's ``difference`` everything must be 0.

    ``commits`` are those of the writers. ``postponed``: ticks that failed with what the next may retry, such as another
    copier that was first.
    """

    rows: int
    versions: int
    commits: int
    ticks: int
    crashes: int
    forgotten: int
    postponed: int
    objects: int
    difference: Difference
    poller_lost: int
    poller_stale: int
    dlt_lost: int | None = None
    dlt_stale: int | None = None
    dlt_doubled: int | None = None
    dlt_runs: int = 0


class Writers:
    """``count`` sessions that insert, update, nest savepoints, hold transactions open and roll back, until stopped."""

    def __init__(self, database, count: int, seed: int) -> None:
        self.database = database
        self.done = threading.Event()
        self.counts: Counter = Counter()
        self.failures: list[BaseException] = []
        self._guard = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(seed * 1000 + n,)) for n in range(count)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self) -> None:
        self.done.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        try:
            with self.database.connect(autocommit=False) as connection:
                for turn in itertools.count():
                    if self.done.is_set():
                        return
                    # Drawn anew, or a turn that ends early by a deadlock would change all after it.
                    chance = random.Random(f"{number} {turn}")
                    try:
                        connection.execute("select setseed(%s)", (chance.uniform(-1, 1),))
                        self._transaction(connection, chance)
                    except psycopg.errors.DeadlockDetected:
                        connection.rollback()
                    self.done.wait(chance.expovariate(100))
        except BaseException as error:  # noqa: BLE001  (raised again by whoever reads the result)
            self.failures.append(error)

    def _transaction(self, connection: psycopg.Connection, chance: random.Random) -> None:
        for _ in range(chance.randint(1, 3)):
            kind = chance.random()
            if kind < 0.35:
                self._nested(connection, chance)
            elif kind < 0.4:
                connection.execute(
                    "do $$ begin insert into race (how) values ('block'); "
                    "exception when division_by_zero then null; end $$"
                )
            else:
                connection.execute("insert into race (how) values ('plain')")
        if chance.random() < 0.35:
            moved = "updated_at = now(), " if chance.random() < 0.5 else ""
            connection.execute(
                f"update race set {moved}turn = turn + 1 where id = ("
                "select id from race where id >= (select greatest(1, max(id) - 300) from race) "
                "order by random() limit 1 for update skip locked)"
            )
        # Most transactions are short; a few stay open while hundreds of others come and go.
        held = chance.random() < 0.05
        self.done.wait(chance.uniform(0.6, 1.5) if held else chance.expovariate(60))
        undone = chance.random() < 0.12
        connection.rollback() if undone else connection.commit()
        with self._guard:
            self.counts["rolled back" if undone else "committed"] += 1

    def _nested(self, connection: psycopg.Connection, chance: random.Random) -> None:
        with connection.transaction():
            connection.execute("insert into race (how) values ('savepoint')")
            with contextlib.suppress(ZeroDivisionError), connection.transaction():
                connection.execute("insert into race (how) values ('nested')")
                if chance.random() < 0.3:
                    raise ZeroDivisionError


@dataclass
class Poller:
    """Reads ``created_at > last``, as fast as pg_bronze ticks."""

    database: object
    ids: set[int] = field(default_factory=set)
    versions: set[tuple[int, int]] = field(default_factory=set)
    last: str = "-infinity"

    def poll(self, connection: psycopg.Connection) -> None:
        found = connection.execute(
            "select id, turn, created_at::text from race where created_at > %s", (self.last,)
        ).fetchall()
        self.ids |= {row[0] for row in found}
        self.versions |= {row[:2] for row in found}
        highest = connection.execute(
            "select max(c)::text from unnest(%s::timestamptz[]) c", ([row[2] for row in found],)
        )
        self.last = highest.fetchone()[0] or self.last


class Dlt:
    """dlt's incremental loading on ``created_at``, as fast as it goes, in a process of its own."""

    def __init__(self, database, python: Path) -> None:
        self.runs = 0
        self._folder = tempfile.TemporaryDirectory()
        self._process = subprocess.Popen(
            [python, Path(__file__).with_name("dlt_poller.py"), self._folder.name, "race", "created_at"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self._say(database.url.replace("postgresql://", "postgresql+psycopg2://"))
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _say(self, line: str) -> None:
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def _copy(self) -> None:
        self._say("copy")
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("dlt ended; run benchmarks/dlt_poller.py by hand to see why")
        self.runs = int(answer)

    def _run(self) -> None:
        while not self._done.is_set():
            self._copy()

    def __enter__(self):
        self._copy()  # its first run imports and sets up for seconds, which is not what is compared
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop()
        self._process.kill()
        self._folder.cleanup()

    def _stop(self) -> None:
        self._done.set()
        self._thread.join()

    def finish(self) -> Counter:
        """Copy once more, end, and give how often each version ``(id, turn)`` was copied."""
        self._stop()
        self._copy()
        self._process.communicate()
        files = Path(self._folder.name, "lake/race/race").glob("*.parquet")
        return Counter(row for file in files for row in pl.read_parquet(file, columns=["id", "turn"]).iter_rows())


def race(lake: Lake, seconds: float, writers: int, seed: int, dlt: Path | None = None) -> Result:
    """Run the race for ``seconds`` and compare row by row, value by value; ``dlt`` is a Python that has dlt."""
    # Small slices of a divided table are sweeps without a budget, of hundreds of objects each.
    slice_rows = SLICE_ROWS if lake.bands.one_band_s else tuple(10 * rows for rows in SLICE_ROWS)
    database = lake.database
    database.execute(TABLE)
    poller = Poller(database)
    ticks = crashes = forgotten = postponed = 0
    pause = threading.Event()
    with contextlib.ExitStack() as beside:
        other = beside.enter_context(Dlt(database, dlt)) if dlt else None
        connection = beside.enter_context(database.connect())
        deadline = time.monotonic() + seconds
        with Writers(database, writers, seed) as running:
            # However few ticks a loaded machine manages: without a crash and a lost state it would prove less.
            while time.monotonic() < deadline or (
                not (crashes and forgotten) and time.monotonic() < deadline + GRACE_S
            ):
                started = time.monotonic()
                poller.poll(connection)
                chance = random.Random(f"{seed} tick {ticks}")
                options = {"slice_rows": chance.choice(slice_rows)} if chance.random() < 0.3 else {}
                ticks += 1
                try:
                    if chance.random() < 0.25:
                        crash = crash_after(chance.choice(STEPS), chance.choice([1, 1, 1, 2]))
                        crashes += lake.crash(crash, "race", **options)
                        if chance.random() < 0.5:
                            lake.forget("race")
                            forgotten += 1
                    else:
                        lake.tick("race", **options)
                except TransientError:
                    postponed += 1
                pause.wait(max(0.0, started + TICK_S - time.monotonic()))
        if running.failures:
            raise running.failures[0]
        lake.drain("race", patience=5)
        poller.poll(connection)
        theirs = other.finish() if other else Counter()
        live = {(row[0], row[1]) for row in connection.execute("select id, turn from race").fetchall()}
    ids = {row[0] for row in live}
    result = Result(
        rows=len(live),
        versions=lake.rows("race").height,
        commits=running.counts["committed"],
        ticks=ticks,
        crashes=crashes,
        forgotten=forgotten,
        postponed=postponed,
        objects=len(lake.keys("race")),
        difference=lake.compare("race", key="id"),
        poller_lost=len(ids - poller.ids),
        poller_stale=len({version for version in live if version[0] in poller.ids} - poller.versions),
    )
    if other:
        known = {row[0] for row in theirs}
        result.dlt_runs = other.runs
        result.dlt_lost = len(ids - known)
        result.dlt_stale = len({version for version in live if version[0] in known} - set(theirs))
        result.dlt_doubled = sum(count - 1 for count in theirs.values())
    return result


def main() -> int:
    from pg_bronze.demo.postgres import PostgresServer
    from pg_bronze.demo.s3 import SeaweedServer
    from pg_bronze_tests.harness.servers import Database, new_bucket

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--writers", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dlt", type=Path, help="a Python that has requirements/peers-dlt.txt")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as servers:
        postgres = servers.enter_context(PostgresServer(Path(folder) / "postgres"))
        bucket = new_bucket(servers.enter_context(SeaweedServer(Path(folder) / "s3")))
        lake = Lake(Database(postgres, "postgres"), bucket.store())
        result = race(lake, given.seconds, given.writers, given.seed, given.dlt)
    print(
        f"{result.rows} rows live after {result.commits} commits of {given.writers} writers in "
        f"{given.seconds:.0f} s (seed {given.seed}); {result.ticks} ticks, {result.crashes} of them crashed, the state "
        f"forgotten {result.forgotten} times; {result.versions} row versions in {result.objects} objects"
    )
    line = "{:26} {:>7} {:>7} {:>7} {:>12}".format
    print(line("", "lost", "stale", "doubled", "wrong latest"))
    found = result.difference
    print(line("pg_bronze", found.lost, found.stale, found.doubled, found.wrong_latest))
    print(line("created_at > last", result.poller_lost, result.poller_stale, "-", "-"))
    if given.dlt:
        print(line(f"dlt, {result.dlt_runs} runs", result.dlt_lost, result.dlt_stale, result.dlt_doubled, "-"))
    return 0 if found == Difference() else 1


if __name__ == "__main__":
    sys.exit(main())
