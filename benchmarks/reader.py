"""The two readers beside each other: seconds, CPU seconds and peak memory to read one table into a frame.

    python -m benchmarks.reader --rows 500000 --rounds 5

Starts a PostgreSQL of its own (extra ``demo``). Each read runs in a process of its own; the readers take turns, and
ratios are those of one round, so that what else the machine does falls on both.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

READERS = ("connectorx", "copy")
# Numbers, times and short texts in about the proportion of an order line.
TABLE = """create table line as select i as id, i % 200000 as part, i % 10000 as supplier, i % 7 as number,
  (i % 50)::numeric(15,2) as quantity, (i / 100.0)::numeric(15,2) as price, 0.04::numeric(15,2) as discount,
  'N'::char(1) as flag, date '1996-01-01' + i % 2000 as shipped, 'DELIVER IN PERSON'::char(25) as instruction,
  'TRUCK'::char(10) as mode, repeat('note ' || i, 3)::varchar(60) as comment, gen_random_uuid() as key,
  timestamptz '2026-01-01' + i * interval '1 s' as updated_at, i / 7.0::float8 as ratio, i % 2 = 0 as paid
from generate_series(1, {rows}) i"""


def measure(url: str, reader: str) -> dict[str, float]:
    """Read the table once, here."""
    import psycopg
    import pyarrow  # noqa: F401  (both readers' imports are no part of the reading)

    from pg_bronze.core.column_types import projection
    from pg_bronze.postgres.catalog import read_table
    from pg_bronze.postgres.connection import Source

    conninfo = psycopg.conninfo.conninfo_to_dict(url)
    with Source(conninfo, url, 600, reader) as source:
        table = read_table(source.connection, "public", "line")
        query = f"select {projection(table.columns)}, t.xmin::text::bigint as _pg_xid from only {table.sql} t"
        source.read(f"{query} limit 1", "line")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begun, spent = time.monotonic(), time.process_time()
        frame = source.read(query, "line")
        seconds, cpu = time.monotonic() - begun, time.process_time() - spent
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        return {"seconds": seconds, "cpu": cpu, "rows": frame.height, "memory_mb": memory / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", metavar="READER", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(measure(sys.stdin.read(), given.child)))
        return

    from pg_bronze.demo.postgres import PostgresServer

    found: dict[str, list[dict[str, float]]] = {name: [] for name in READERS}
    with tempfile.TemporaryDirectory() as folder, PostgresServer(Path(folder) / "postgres") as server:
        with server.connect(autocommit=True) as connection:
            connection.execute(TABLE.format(rows=given.rows))
            connection.execute("vacuum analyze line")
        url = f"postgresql://{server.user}:{server.password}@{server.host}:{server.port}/postgres"
        for number in range(given.rounds):
            for name in READERS if number % 2 else reversed(READERS):
                command = [sys.executable, "-m", "benchmarks.reader", "--child", name]
                # Not as an argument: `ps` shows those, and the URL holds a password.
                output = subprocess.run(command, input=url, check=True, capture_output=True, text=True).stdout
                found[name].append(json.loads(output))
    print(f"{given.rows} rows of 16 columns, {given.rounds} rounds; medians")
    for name, reads in found.items():
        seconds, cpu, memory = (
            statistics.median(read[key] for read in reads) for key in ("seconds", "cpu", "memory_mb")
        )
        speed = f"{seconds:6.2f} s  {cpu:6.2f} s of CPU  {given.rows / seconds / 1000:6.0f} k rows/s"
        print(f"{name:10} {speed}  {memory:5.0f} MB more")
    for key in ("seconds", "cpu"):
        ratios = [copied[key] / fast[key] for fast, copied in zip(*found.values(), strict=True)]
        print(f"copy to connectorx, {key}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
