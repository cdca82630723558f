"""The first load of one table beside the least that it can take: seconds, CPU and memory.

    .venv/bin/python -m benchmarks.first_load [lines wide narrow] [--rounds 5] [--scale 1.0]
    nice .venv/bin/python -m benchmarks.first_load --parallel 1 2 4 --delay-ms 10 --rate-mb 20

Starts a PostgreSQL and an S3 server of its own (extra ``demo``). Each load is done in three ways, shuffled in each
round. Each runs in a separate process, which has imported everything and copied ten rows of the same columns before:

    floor     psql: the rows in the binary format of COPY, into /dev/null
    ceiling   connectorx reads the projection of pg_bronze into one frame, and Polars writes it to one local file
    copy      pg_bronze without Dagster: recover, plan, read, encode, claim, put, from the first to the last slice
    copy x2   the same with two block ranges at once (``--parallel``)

``--delay-ms`` and ``--rate-mb`` put a link between the client and PostgreSQL, of one direction and of one connection,
as if they were two machines (``benchmarks/slow_link.py``).

Prints medians of the rounds, medians of the ratios of one round, the rows per CPU second of the client, and the peak of
memory above an idle process. ``benchmarks/load_interference.py`` measures what first loads cost all other tables.
"""

import argparse
import functools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks import memory
from benchmarks.big_table import Server
from benchmarks.memory_s3 import MemoryS3
from benchmarks.slow_link import slow_link

ROOT = Path(__file__).parents[1]
# Ordinary rows, each kind with what dominates its cost: many columns and decimals, long texts, the number of rows.
LINES = """create table lines as select i as id, i % 200000 as part, i % 10000 as supplier, i % 7 as number,
  (i % 50)::numeric(15,2) as quantity, (i::bigint * 7919 % 10000000 / 100.0)::numeric(15,2) as price,
  (i % 11 / 100.0)::numeric(15,2) as discount, (i % 9 / 100.0)::numeric(15,2) as tax,
  substr('NAR', i % 3 + 1, 1)::char(1) as flag, substr('OF', i % 2 + 1, 1)::char(1) as status,
  date '1996-01-01' + i % 2000 as shipped, date '1996-01-31' + i % 2000 as committed,
  date '1996-01-11' + i % 2003 as received, 'DELIVER IN PERSON'::char(25) as instruction,
  (array['TRUCK', 'MAIL', 'SHIP', 'AIR', 'RAIL'])[i % 5 + 1]::char(10) as mode,
  substr(md5(i::text) || ' ' || md5((-i)::text), 1, 10 + i % 34)::varchar(44) as comment
from generate_series(1, {rows}) i"""
WIDE = """create table wide as select gen_random_uuid() as id,
  (select string_agg(md5((i * 31 + n)::text), ' ') from generate_series(1, 10) n) as body,
  jsonb_build_object('number', i, 'name', md5(i::text), 'tags', jsonb_build_array(i % 7, i % 11)) as attributes
from generate_series(1, {rows}) i"""
NARROW = """create table narrow as select i as id, timestamptz '2026-01-01' + i * interval '1 s' as at,
  i / 7.0::float8 as value from generate_series(1, {rows}) i"""
TABLES = {"lines": (LINES, 400_000), "wide": (WIDE, 200_000), "narrow": (NARROW, 1_500_000)}
SETTLE_S = 0.2  # a session that its client has closed ends, and counts, some milliseconds later
TINY_ROWS = 10


@dataclass(frozen=True)
class Measured:
    """What one load needed. CPU is that of the client alone, ``memory_mb`` is above an idle process."""

    seconds: float
    cpu_s: float
    server_s: float
    store_s: float
    memory_mb: float
    size_mb: float
    rows: int


def projected(plan: dict[str, Any], table: str) -> str:
    """Return the query of a whole table with the projection of pg_bronze, and its transaction id."""
    from pg_bronze.core import column_types, window_sql
    from pg_bronze.postgres import catalog

    with memory.Remote.database(plan).connect() as connection:
        found = catalog.read_table(connection, "public", table)
    assert found is not None
    xid = f"{window_sql.transaction_id(10**6)} as {column_types.xid_column(found.columns)}"
    return f"select {column_types.projection(found.columns)}, {xid} from only {found.sql} t"


def ceiling(plan: dict[str, Any], table: str) -> tuple[int, float]:
    """Read the table into one frame and write one file; return the rows, and the size in MB."""
    import connectorx

    query, url = projected(plan, table), f"{memory.Remote.database(plan).url}?sslmode=disable"
    frame = connectorx.read_sql(url, query, return_type="polars", protocol="binary")
    file = Path(plan["folder"]) / "ceiling.parquet"
    frame.write_parquet(file, compression="zstd")
    return frame.height, file.stat().st_size / memory.MB


@functools.cache
def client(*connection: str) -> Any:
    """Return the S3 client of this process; making one is no part of a load."""
    from pg_bronze.lake import s3_client

    return s3_client.connect(*connection)


def copy(plan: dict[str, Any], table: str) -> tuple[int, float]:
    """Copy the table with pg_bronze, with the settings of a worker; return the rows, and the size in MB."""
    from pg_bronze.lake import object_store
    from pg_bronze_tests.harness.lake import Lake

    store = object_store.Store(client(*plan["s3"]), plan["bucket"], plan["prefix"])
    outcome = Lake(memory.Remote.database(plan), store).tick(table, load_parallel=plan["parallel"])
    return outcome.row_count, sum(item.size_bytes for item in outcome.committed) / memory.MB


def child(plan: dict[str, Any]) -> None:
    """Load the tiny table and then the large one in one way, and print what the large one needed."""
    load = ceiling if plan["way"] == "ceiling" else copy
    if load is copy:
        from pg_bronze.settings.process import tune_process

        tune_process()  # before Polars is imported, as in a run worker
    load(plan, f"{plan['table']}_tiny")
    idle = memory.status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak so far is forgotten
    servers = [Server(pid) for pid in plan["servers"]]
    before, cpu_s, started = [server.cpu_s() for server in servers], time.process_time(), time.monotonic()
    rows, size_mb = load(plan, plan["table"])
    seconds, cpu_s = time.monotonic() - started, time.process_time() - cpu_s
    time.sleep(SETTLE_S)  # the servers have no event for idle
    spent = [server.cpu_s() - used for server, used in zip(servers, before, strict=True)]
    print(json.dumps([seconds, cpu_s, *spent, memory.status("VmHWM") - idle, size_mb, rows]))


def floor(plan: dict[str, Any], psql: str, server: Server) -> Measured:
    """Have psql copy the rows into nothing."""
    query = f"copy (select * from {plan['table']}) to stdout (format binary)"
    command = [psql, memory.Remote.database(plan).url, "-c", query]
    before, cpu, started = server.cpu_s(), os.times(), time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds, after = time.monotonic() - started, os.times()
    spent = after.children_user - cpu.children_user + after.children_system - cpu.children_system
    time.sleep(SETTLE_S)  # the servers have no event for idle
    return Measured(seconds, spent, server.cpu_s() - before, 0.0, 0.0, 0.0, plan["rows"])


def measure(plan: dict[str, Any], psql: str) -> Measured:
    """Load the table in one way, in a process of its own."""
    if plan["way"] == "floor":
        return floor(plan, psql, Server(plan["servers"][0]))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.first_load"], cwd=ROOT, input=json.dumps(plan), capture_output=True,
        text=True, check=False, env={**os.environ, "PG_BRONZE_FIRST_LOAD_CHILD": "1"},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr)
    found = Measured(*json.loads(done.stdout.splitlines()[-1]))
    assert found.rows == plan["rows"], found
    return found


def report(table: str, found: dict[str, list[Measured]]) -> None:
    """Print the medians of one table."""
    rows = found["floor"][0].rows
    print(f"\n{table}: {rows:,} rows, medians of {len(found['floor'])} rounds")
    names = {"seconds": 9, "floors": 8, "ceilings": 10, "client": 9, "server": 9, "store": 8, "rows/CPU-s": 12}
    print(" " * 9 + "".join(f"{name:>{width}}" for name, width in (names | {"memory": 9, "size": 8}).items()))
    for way, loads in found.items():
        ratios = [
            statistics.median(one.seconds / other.seconds for one, other in zip(loads, found[base], strict=True))
            for base in ("floor", "ceiling")
        ]
        middle = {
            name: statistics.median(getattr(item, name) for item in loads) for name in Measured.__dataclass_fields__
        }
        print(
            f"{way:9}{middle['seconds']:7.2f} s{ratios[0]:8.2f}{ratios[1]:10.2f}{middle['cpu_s']:7.2f} s"
            f"{middle['server_s']:7.2f} s{middle['store_s']:6.2f} s{rows / middle['cpu_s']:12,.0f}"
            f"{middle['memory_mb']:6.0f} MB{middle['size_mb']:5.1f} MB",
            flush=True,
        )


def main() -> None:
    """Run the benchmark, or one load in a child process."""
    if os.environ.get("PG_BRONZE_FIRST_LOAD_CHILD"):
        child(json.load(sys.stdin))  # not as an argument: `ps` shows those, and the plan holds passwords
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="*", choices=[[], *TABLES], help="all by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="times the usual number of rows")
    parser.add_argument("--parallel", type=int, nargs="+", default=[1], help="block ranges that are read at once")
    parser.add_argument("--delay-ms", type=float, default=0.0, help="of the link to PostgreSQL, one direction")
    parser.add_argument("--store", choices=["seaweed", "memory"], default="seaweed", help="the S3 server")
    parser.add_argument("--rate-mb", type=float, default=0.0, help="MB in a second of each connection over the link")
    given = parser.parse_args()
    from pg_bronze.demo import binaries
    from pg_bronze.demo.postgres import PostgresServer
    from pg_bronze.demo.s3 import SeaweedServer

    psql = binaries.find(None, None) / "psql"
    options = {"fsync": "off", "max_wal_size": "4GB", "shared_buffers": "512MB"}
    with (
        tempfile.TemporaryDirectory() as folder,
        PostgresServer(Path(folder) / "postgres", options=options) as postgres,
        SeaweedServer(Path(folder) / "s3") if given.store == "seaweed" else MemoryS3() as s3,
        slow_link(postgres.host, postgres.port, given.delay_ms, given.rate_mb) as port,
    ):
        s3.create_bucket("bronze")
        conninfo = {"host": postgres.host, "port": port, "user": postgres.user}
        common = memory.plan(conninfo | {"password": postgres.password, "dbname": "postgres"}, s3, "bronze")
        with postgres.connect(autocommit=True) as connection:
            postmaster = psutil.Process(connection.info.backend_pid).ppid()
        common |= {"servers": [postmaster, s3.child.pid], "folder": folder}
        for table in given.table or TABLES:
            statement, usual = TABLES[table]
            rows = int(usual * given.scale)
            with postgres.connect(autocommit=True) as connection:
                connection.execute(statement.format(rows=rows).encode())
                connection.execute(f"create table {table}_tiny as select * from {table} limit {TINY_ROWS}".encode())
                connection.execute(f"vacuum analyze {table}".encode())
                connection.execute(b"checkpoint")
            copies = {"copy" if number == 1 else f"copy x{number}": number for number in given.parallel}
            ways = ["floor", "ceiling", *copies]
            found: dict[str, list[Measured]] = {way: [] for way in ways}
            for number in range(given.rounds):
                for way in random.Random(number).sample(ways, len(ways)):
                    plan = common | {"way": way, "table": table, "rows": rows, "parallel": copies.get(way, 1)}
                    plan["prefix"] = f"{table}-{number}-{plan['parallel']}"
                    found[way].append(measure(plan, psql))
            report(table, found)


if __name__ == "__main__":
    main()
