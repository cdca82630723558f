"""What pg_bronze takes of its source: connections, statements, locks, the horizon, and the latency of other clients.

    .venv/bin/python -m benchmarks.pressure [--megabytes 400] [--seconds 15] [--rounds 3] [--shared] [...]

Starts a PostgreSQL server, an S3 server and a `dagster dev` of its own. First ten small tables get a row each second.
Then rounds of two phases: pgbench alone, and beside the first load of a table of ``--megabytes``, from its first read
to its last object. pgbench runs 50 transactions a second over four connections, so that it leaves both cores to others.
The server and pgbench have one core, and pg_bronze and the bucket the others, as on two machines; with ``--shared``,
or on a machine with one core, they have all together.
The bucket is in memory if the system has /dev/shm, because no bucket writes to the disk of the source. Every 50 ms all
sessions of pg_bronze and their locks are sampled. Prints one Markdown table.

Ends with 1 if the 99th percentile of pgbench beside a first load is more than twice that alone (median of the rounds),
or if pg_bronze held a stronger lock on a table than AccessShareLock. Its own ``etl_control`` does not count. pgbench is
that of an installed PostgreSQL server (Debian: postgresql-15); without one, its lines are missing.
"""

import argparse
import contextlib
import os
import re
import statistics
import subprocess
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.load_interference import BUSY, FILL, ROW_BYTES, Reader, Writer, dagster_dev, loaded
from pg_bronze.demo.postgres import PostgresServer
from pg_bronze.demo.s3 import SeaweedServer
from pg_bronze.lake.object_store import Store
from pg_bronze_tests.harness.servers import Bucket, Database, new_bucket, older_servers
from pg_bronze_tests.harness.sessions import open_ports

EVERY_S, LONGEST_S, MOST = 0.05, 900.0, 2.0
RATE, CLIENTS, SCALE = 50, 4, 5
BUSY_PHASE, LOAD_PHASE = "ten busy tables", "first load"
# Of pgbench before the first measurement of a round, and the longest time from the move of a table to its first object.
WARM_S, BEGIN_S = 3.0, 60.0
NEVER = threading.Event()
Transaction = tuple[float, float]  # when it ended, in seconds since 1970, and its latency in milliseconds
SESSIONS = """select client_port, application_name, state = 'active',
  extract(epoch from clock_timestamp() - query_start)::float8,
  extract(epoch from clock_timestamp() - xact_start)::float8,
  backend_xmin is not null or backend_xid is not null, query
from pg_stat_activity where datname = current_database() and starts_with(application_name, 'pg_bronze')"""
LOCKS = """select distinct l.locktype, l.mode, coalesce(c.relname ~ '^etl_control', false)
from pg_locks l join pg_stat_activity a using (pid) left join pg_class c on c.oid = l.relation
where a.datname = current_database() and starts_with(a.application_name, 'pg_bronze')"""


class Pressure:
    """The most that was seen in one phase.

    Attributes:
        connections: The most sessions at once of each kind, and of ``all``.
        statement_s: The longest statement.
        snapshot_s: The longest time for which a transaction with a snapshot or an id was open.
        locks: Kind and mode of each lock.
        own_locks: Those on ``etl_control``.
    """

    def __init__(self) -> None:
        self.connections: dict[str, int] = defaultdict(int)
        self.statement_s = 0.0
        self.snapshot_s = 0.0
        self.locks: set[tuple[str, str]] = set()
        self.own_locks: set[tuple[str, str]] = set()

    @property
    def stronger(self) -> set[tuple[str, str]]:
        """The locks on tables that conflict with more than the strongest lock of others."""
        return {(kind, mode) for kind, mode in self.locks if kind == "relation" and mode != "AccessShareLock"}


class Sampler(threading.Thread):
    """Samples the sessions of pg_bronze.

    Attributes:
        phase: What a sample counts for; None for nothing.
        reads: The statements of the readers in the last sample.
        found: The most of each phase.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(daemon=True)
        self._database = database
        self.ended = threading.Event()
        self.phase: str | None = None
        self.found: dict[str, Pressure] = defaultdict(Pressure)
        self.reads: list[str] = []

    def run(self) -> None:
        with self._database.connect(application_name="pressure") as connection:
            while not self.ended.wait(EVERY_S):
                rows, phase = connection.execute(SESSIONS).fetchall(), self.phase
                self.reads = [row[-1] for row in rows if row[2] and kind_of(row[1]) == "readers"]
                if phase is not None:
                    locks = connection.execute(LOCKS).fetchall()
                    ports = open_ports(self._database.server.port)
                    self._count(self.found[phase], rows, ports, locks)

    @staticmethod
    def _count(found: Pressure, rows: list[tuple], ports: set[int] | None, locks: list[tuple]) -> None:
        counts: dict[str, int] = defaultdict(int)
        for port, name, active, statement_s, transaction_s, has_snapshot, _ in rows:
            if ports is None or port in ports:
                counts[kind_of(name)] += 1
            if active:
                found.statement_s = max(found.statement_s, statement_s or 0.0)
            if has_snapshot:
                found.snapshot_s = max(found.snapshot_s, transaction_s or 0.0)
        counts["all"] = sum(counts.values())
        for kind, count in counts.items():
            found.connections[kind] = max(found.connections[kind], count)
        for kind, mode, own in locks:
            (found.own_locks if own else found.locks).add((kind, mode))


def kind_of(application_name: str) -> str:
    """Return which connection a session is."""
    if re.fullmatch(r"pg_bronze run \w+ \w+", application_name):
        return "readers"
    return {"sensor": "sensor", "catalog": "catalog"}.get(application_name.split()[1], "runs")


class Pgbench:
    """pgbench on the tables ``pgbench_*`` of the database.

    Args:
        program: Its path; None if there is none, and then nothing is measured.
        seconds: How long it runs.
    """

    def __init__(self, program: Path | None, database: Database, folder: Path, seconds: int) -> None:
        self._program = program
        self._database = database
        self._folder = folder
        self._seconds = seconds
        self._environment = {**os.environ, "PGPASSWORD": database.server.password}
        if program:
            self._call("-i", "-q", "-s", str(SCALE))

    @contextmanager
    def running(self, found: list[Transaction]) -> Iterator[None]:
        """Run it beside the block, and add its transactions; it continues for its time after the block has ended."""
        with tempfile.TemporaryDirectory(dir=self._folder) as name:
            log = ["--log", f"--log-prefix={name}/log"]
            process = self._start("-n", "-c", str(CLIENTS), "-R", str(RATE), "-T", str(self._seconds), *log)
            yield
            if process is None:
                return
            process.wait(self._seconds + 60)
            for path in Path(name).iterdir():
                for line in path.read_text().splitlines():
                    _, _, spent_us, _, second, microsecond, *_ = (int(field) for field in line.split())
                    found.append((second + microsecond / 1e6, spent_us / 1000))

    def _start(self, *arguments: str) -> "subprocess.Popen[bytes] | None":
        server = self._database.server
        where = ["-h", server.host, "-p", str(server.port), "-U", server.user, self._database.name]
        if self._program is None:
            return None
        with on_cores(cores_of(self._database)):
            return subprocess.Popen(
                [self._program, *arguments, *where], env=self._environment, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip

    def _call(self, *arguments: str) -> None:
        process = self._start(*arguments)
        if process is not None and process.wait(300):
            raise SystemExit(f"pgbench {' '.join(arguments)} failed")


@contextmanager
def on_cores(cores: set[int]) -> Iterator[None]:
    """Let the processes and threads that are started in the block run on some cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cores_of(database: Database) -> set[int]:
    """Return the cores that the server runs on."""
    child = database.server.child
    return os.sched_getaffinity(child.pid if child else 0)


def find_pgbench() -> Path | None:
    """Return pgbench of an installed server, and say so if there is none."""
    found = [folder / "pgbench" for folder in older_servers().values() if (folder / "pgbench").exists()]
    if not found:
        print("pgbench is missing: install a PostgreSQL server (Debian: postgresql-15). Its lines are left out.")
    return found[-1] if found else None


def p99(transactions: list[Transaction], began: float, ended: float) -> float:
    """Return the 99th percentile of the latencies in a time, and print of how many."""
    latencies = [spent_ms for at, spent_ms in transactions if began <= at <= ended]
    if len(latencies) < 2:
        return float("nan")
    found = statistics.quantiles(latencies, n=100)[-1]
    print(f"  {ended - began:5.1f} s, {len(latencies):,} transactions: {found:.1f} ms", flush=True)
    return found


def until(met: Callable[[], object], seconds: float) -> bool:
    """Call ``met`` until it is true; return whether that was within so many seconds."""
    deadline = time.monotonic() + seconds
    while not met():
        if time.monotonic() > deadline:
            return False
        NEVER.wait(EVERY_S)
    return True


def is_read(sampler: Sampler, name: str) -> bool:
    """Return whether a table was read at the last sample."""
    return any(name in query for query in sampler.reads)


def rounds(
    database: Database, store: Store, sampler: Sampler, pgbench: Pgbench, chosen: argparse.Namespace
) -> tuple[list[float], list[float]]:
    """Return the 99th percentile of each round, alone and beside a first load."""
    alone, beside = [], []
    for number in range(chosen.rounds):
        name, found = f"load_{number}", list[Transaction]()
        print(f"round {number + 1}")
        with pgbench.running(found):
            NEVER.wait(WARM_S)
            began = time.time()
            NEVER.wait(chosen.seconds)
            moved = time.time()
            sampler.phase = LOAD_PHASE
            database.execute(f"alter table hidden.{name} set schema public")
            if not until(lambda name=name: is_read(sampler, name) or loaded(store, [name]), LONGEST_S):
                raise SystemExit(f"the first load of {name} did not begin")
            read = time.time()
            if not until(lambda name=name: loaded(store, [name]), LONGEST_S):
                raise SystemExit(f"the first load of {name} did not end")
            ended = time.time()
            sampler.phase = None
        alone.append(p99(found, began, moved))
        beside.append(p99(found, read, ended))
    return alone, beside


def table(found: dict[str, Pressure], size: int, alone: list[float], beside: list[float]) -> str:
    """Return the Markdown table."""
    phases = [found[BUSY_PHASE], found[LOAD_PHASE]]
    lines = [f"| | {BUSY_PHASE} | first load of {size} MB |", "|---|---|---|"]
    for kind in ("sensor", "catalog", "runs", "readers", "all"):
        lines.append(f"| connections at most, {kind} | {' | '.join(str(item.connections[kind]) for item in phases)} |")
    lines.append(f"| longest statement, s | {' | '.join(f'{item.statement_s:.2f}' for item in phases)} |")
    lines.append(f"| horizon held back at most, s | {' | '.join(f'{item.snapshot_s:.2f}' for item in phases)} |")
    for title, name in (("locks", "locks"), ("locks on etl_control", "own_locks")):
        shown = (", ".join(sorted(f"{kind} {mode}" for kind, mode in getattr(item, name))) for item in phases)
        lines.append(f"| {title} | {' | '.join(text or 'none' for text in shown)} |")
    if beside:
        before, during = statistics.median(alone), statistics.median(beside)
        lines.append(
            f"| pgbench p99, ms: alone, beside, factor | | {before:.1f}, {during:.1f}, {during / before:.2f} |"
        )
    return "\n".join(lines)


def measure(database: Database, bucket: Bucket, folder: Path, chosen: argparse.Namespace) -> bool:
    """Run all phases, print the table, and return whether it is within the limits."""
    program = find_pgbench()
    database.execute("create schema hidden")
    for number in range(chosen.rounds):
        rows = chosen.megabytes * 1_000_000 // ROW_BYTES
        database.execute(FILL.format(name=f"load_{number}", rows=rows))
    for name in BUSY:
        database.execute(f"create table {name} (id int primary key, created_at timestamptz default now())")
    pgbench = Pgbench(program, database, folder, int(WARM_S + 2 * chosen.seconds + BEGIN_S))
    database.execute("checkpoint")
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    home = {**kept, "HOME": str(folder), "PG_BRONZE_EXCLUDE": "hidden.*, pgbench_*"}
    if chosen.max_connections:
        home["PG_BRONZE_MAX_CONNECTIONS"] = str(chosen.max_connections)
    writer, reader, sampler = Writer(database), Reader(bucket.store()), Sampler(database)
    with dagster_dev(folder, home | database.environ | bucket.environ):
        for thread in (writer, reader, sampler):
            thread.start()
        if not until(lambda: len({name for name, _ in reader.arrived}) == len(BUSY), LONGEST_S):
            raise SystemExit("the small tables were not copied")
        NEVER.wait(20.0)  # the first ticks after a start
        sampler.phase = BUSY_PHASE
        NEVER.wait(chosen.busy)
        sampler.phase = None
        writer.ended.set()
        reader.ended.set()
        alone, beside = rounds(database, bucket.store(), sampler, pgbench, chosen)
        if not sampler.is_alive():
            raise SystemExit("the sampler ended early")
        sampler.ended.set()
        sampler.join()
    measured = bool(program)
    print(table(sampler.found, chosen.megabytes, alone if measured else [], beside if measured else []))
    stronger = set[tuple[str, str]]().union(*(item.stronger for item in sampler.found.values()))
    slow = measured and not statistics.median(beside) <= MOST * statistics.median(alone)
    return not stronger and not slow


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=400, help="the size of each large table")
    parser.add_argument("--seconds", type=int, default=15, help="of pgbench alone in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--busy", type=float, default=40.0, help="seconds with ten busy tables")
    parser.add_argument("--max-connections", type=int, default=0, help="PG_BRONZE_MAX_CONNECTIONS; 0 for none")
    parser.add_argument("--shared", action="store_true", help="no core for the server and pgbench alone")
    chosen = parser.parse_args()
    every = os.sched_getaffinity(0)
    server_cores, other_cores = (
        (every, every) if chosen.shared or len(every) < 2 else ({min(every)}, every - {min(every)})
    )
    memory = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    with (
        tempfile.TemporaryDirectory(prefix="pg_bronze_pressure_") as name,
        tempfile.TemporaryDirectory(prefix="pg_bronze_pressure_", dir=memory) as bucket,
    ):
        folder = Path(name)
        options = {"shared_buffers": "512MB", "max_wal_size": "8GB"}
        (folder / "project").mkdir()
        with contextlib.ExitStack() as opened:
            with on_cores(server_cores):
                server = opened.enter_context(PostgresServer(folder / "postgres", options=options))
            opened.enter_context(on_cores(other_cores))
            s3 = opened.enter_context(SeaweedServer(Path(bucket, "s3")))
            within = measure(Database(server, "postgres"), new_bucket(s3), folder / "project", chosen)
    if not within:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
