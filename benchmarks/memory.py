"""How much memory one worker needs to copy tables of awkward sizes: the peak above an idle worker, in MB.

    .venv/bin/python -m benchmarks.memory [case ...] [--slice-bytes 33554432]

Every case runs in a fresh process. Idle is its resident memory after the imports and one copy of a tiny table, peak is
``VmHWM`` after the case. A worker must stay within 200 MB above idle for any table whose single row is at most 20 MB.
Starts a PostgreSQL and an S3 server of its own (extra ``demo``); Linux only.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
MB = 2**20
ALLOWED_MB = 200
# Text that no codec makes smaller, about {mb} MB of it.
NOISE = "(select string_agg(md5((i * {seed} + n)::text), '') from generate_series(1, {mb} * 32768) n)"
CASES: dict[str, list[str]] = {
    "narrow": [
        "create table t (id bigint primary key, at timestamptz, value float8)",
        "insert into t select i, now(), i / 7.0 from generate_series(1, 4000000) i",
    ],
    "lines": [
        "create table t (id int, part int, price numeric(15,2), tax numeric(15,2), day date, mode char(10), note text)",
        (
            "insert into t select i, i % 2000, i / 7.0, i / 11.0, date '2020-01-01' + i % 2000, 'ship', md5(i::text) "
            "from generate_series(1, 1500000) i"
        ),
    ],
    # 100 KB of one letter lie in the row as about 1 KB: the heap says nothing of what a slice will hold.
    "compressed in the row": [
        "create table t (id int, note text)",
        "insert into t select i, repeat('x', 100000) from generate_series(1, 6000) i",
    ],
    "words compressed in the row": [
        "create table t (id int, note text)",
        (
            "insert into t select i, (select string_agg('word ' || (n * i) % 37, ' ') from generate_series(1, 1200) n) "
            "from generate_series(1, 20000) i"
        ),
    ],
    "rows of 20 MB, text": [
        "create table t (id int, note text)",
        "alter table t alter note set storage external",
        f"insert into t select i, {NOISE.format(mb=20, seed=70000000)} from generate_series(1, 10) i",
    ],
    "rows of 20 MB, bytea": [
        "create table t (id int, note bytea)",
        "alter table t alter note set storage external",
        f"insert into t select i, decode({NOISE.format(mb=40, seed=70000000)}, 'hex') from generate_series(1, 10) i",
    ],
    "rows of 20 MB, jsonb": [
        "create table t (id int, note jsonb)",
        "alter table t alter note set storage external",
        (
            "insert into t select i, jsonb_build_object('a', "
            f"{NOISE.format(mb=20, seed=70000000)}) from generate_series(1, 10) i"
        ),
    ],
    "rows of 20 MB in five columns": [
        "create table t (id int, a text, b text, c bytea, d text, e text)",
        *(f"alter table t alter {name} set storage external" for name in "abcde"),
        (
            "insert into t select i, s, s, decode(s, 'hex'), s, s "
            f"from generate_series(1, 10) i, lateral (select {NOISE.format(mb=4, seed=70000000)} s) x"
        ),
    ],
    # The heap block is never larger than 8 KB and points to 130 MB.
    "blocks of 130 values of 1 MB": [
        "create table t (id int, note text)",
        "alter table t alter note set storage external",
        f"insert into t select i, {NOISE.format(mb=1, seed=3000000)} from generate_series(1, 300) i",
    ],
    "1,600 columns": [
        f"create table t ({', '.join(f'c{n} int' for n in range(1600))})",
        f"insert into t select {', '.join('i' for _ in range(1600))} from generate_series(1, 20000) i",
    ],
    "a value of 100 MB": [
        "create table t (id int, note text)",
        "alter table t alter note set storage external",
        f"insert into t select i, {NOISE.format(mb=100, seed=70000000)} from generate_series(1, 2) i",
    ],
}
BEYOND = {"a value of 100 MB"}


def status(name: str) -> float:
    """A line of this process's own status, in MB."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) / 1024


def child(plan: dict[str, object]) -> None:
    """Copy ``idle``, then ``t``, and print what was needed."""
    from pg_bronze.settings.process import tune_process

    tune_process()  # before Polars is imported, as in a run worker
    from pg_bronze_tests.harness.lake import Lake

    lake = Lake(Remote.database(plan), Remote.store(plan))
    lake.tick("idle")
    idle = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak so far is forgotten
    started, busy = time.monotonic(), time.process_time()
    outcome = lake.tick("t", slice_bytes=plan["slice_bytes"])
    found = {
        "idle": idle,
        "peak": status("VmHWM"),
        "seconds": time.monotonic() - started,
        "cpu": time.process_time() - busy,
        "rows": outcome.row_count,
        "objects": len(outcome.committed),
        "largest": max((item.size_bytes for item in outcome.committed), default=0) / MB,
    }
    print(json.dumps(found))


class Remote:
    """The servers of the parent process, as a child sees them."""

    def __init__(self, conninfo: dict[str, object]) -> None:
        self.conninfo = conninfo

    @property
    def url(self) -> str:
        return "postgresql://{user}:{password}@{host}:{port}/{dbname}".format(**self.conninfo)

    def connect(self, **changed: object) -> object:
        import psycopg

        return psycopg.connect(**{**self.conninfo, "autocommit": True, **changed})

    @classmethod
    def database(cls, plan: dict) -> "Remote":
        return cls(plan["conninfo"])

    @staticmethod
    def store(plan: dict) -> object:
        from pg_bronze.lake import object_store, s3_client

        return object_store.Store(s3_client.connect(*plan["s3"]), plan["bucket"])


def measure(plan: dict[str, object]) -> dict[str, float]:
    """What one case needs, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", "--child", json.dumps(plan)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def plan(conninfo: dict[str, object], s3: object, bucket: str, slice_bytes: int = 32 * MB) -> dict[str, object]:
    """What a child has to know."""
    keys = [s3.endpoint_url, "us-east-1", s3.access_key, s3.secret_key]
    return {"conninfo": conninfo, "s3": keys, "bucket": bucket, "slice_bytes": slice_bytes}


def prepare(database: object, statements: list[str]) -> None:
    """Make the tiny table and the large one."""
    with database.connect() as connection:
        for statement in ["create table idle (id int, note text)", "insert into idle values (1, 'x')", *statements]:
            connection.execute(statement)
        connection.execute("analyze")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="*", help=f"of: {', '.join(CASES)}")
    parser.add_argument("--slice-bytes", type=int, default=32 * MB)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(json.loads(options.child))
        return
    from pg_bronze.demo.postgres import PostgresServer
    from pg_bronze.demo.s3 import SeaweedServer

    folder = Path(tempfile.mkdtemp(prefix="memory-"))
    too_much = []
    with (
        PostgresServer(folder / "postgres", options={"fsync": "off", "max_wal_size": "4GB"}) as postgres,
        SeaweedServer(folder / "s3") as s3,
    ):
        print(
            f"{'case':32}{'idle':>7}{'peak':>7}{'above':>7}{'rows':>10}{'objects':>9}{'largest':>9}{'seconds':>9}{'cpu':>7}"
        )
        for number, (name, statements) in enumerate(CASES.items()):
            if options.case and name not in options.case:
                continue
            with postgres.connect(autocommit=True) as connection:
                connection.execute(f"create database case_{number}")
            conninfo = {"host": postgres.host, "port": postgres.port, "user": postgres.user}
            conninfo |= {"password": postgres.password, "dbname": f"case_{number}"}
            s3.create_bucket(f"memory-{number}")
            prepare(Remote(conninfo), statements)
            found = measure(plan(conninfo, s3, f"memory-{number}", options.slice_bytes))
            above = found["peak"] - found["idle"]
            print(f"{name:32}{found['idle']:7.0f}{found['peak']:7.0f}{above:7.0f}{found['rows']:10,}{found['objects']:9}"
                  f"{found['largest']:9.1f}{found['seconds']:9.1f}{found['cpu']:7.1f}", flush=True)  # fmt: skip
            if above > ALLOWED_MB and name not in BEYOND:
                too_much.append(name)
            with postgres.connect(autocommit=True) as connection:
                connection.execute(f"drop database case_{number}")
    if too_much:
        raise SystemExit(f"more than {ALLOWED_MB} MB above idle: {', '.join(too_much)}")


if __name__ == "__main__":
    main()
