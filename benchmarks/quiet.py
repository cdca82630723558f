"""What a tick costs when no table has new rows: wall time, CPU time and memory of `pg-bronze tick`.

    .venv/bin/python -m benchmarks.quiet [--tables 11 500] [--rounds 5]

Every tick is a separate process. Before each one, a transaction that writes to no table takes a transaction id. One
table in three is empty. Prints the median of the quiet ticks, and of ticks with one new row, and the ratio of their CPU
time to that of ``python -c "import dagster"``, which takes turns with them: a shared machine changes both alike. Starts
a PostgreSQL and an S3 server (extra ``demo``). The first load takes about 0.1 s of CPU time for each table.
"""

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pg_bronze.demo.postgres import PostgresServer
from pg_bronze.demo.s3 import any_server

ROOT = Path(__file__).parents[1]
COMMAND = Path(sys.executable).parent / "pg-bronze"
CREATE = """do $$ begin
  for number in {first}..{last} loop
    execute format('create table t%s (id int primary key, name text, at timestamptz default now())', number);
    if number % 3 > 0 then
      execute format('insert into t%s select i, i::text from generate_series(1, 3) i', number);
    end if;
  end loop;
end $$"""


class Cost(NamedTuple):
    """What one process used."""

    wall_s: float
    cpu_s: float
    peak_mb: float

    def __str__(self) -> str:
        return f"{self.wall_s:6.2f} s wall, {self.cpu_s:6.2f} s CPU, {self.peak_mb:4.0f} MB at most"


def tick(environment: dict[str, str], folder: Path) -> tuple[Cost, str]:
    """Run `pg-bronze tick`; return its cost and its last line."""
    return run([str(COMMAND), "tick"], environment, folder)


def run(command: list[str], environment: dict[str, str], folder: Path) -> tuple[Cost, str]:
    """Run a command; return its cost and its last line."""
    begun = time.monotonic()
    with (folder / "output").open("w+") as output:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=output, stderr=output)
        _, status, used = os.wait4(process.pid, 0)
        wall_s = time.monotonic() - begun
        output.seek(0)
        lines = output.read().splitlines()
    if status:
        raise SystemExit("\n".join(lines[-5:]))
    return Cost(wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024), lines[-1] if lines else ""


def median(costs: list[Cost]) -> Cost:
    return Cost(*(statistics.median(values) for values in zip(*costs, strict=True)))


@contextlib.contextmanager
def servers(folder: Path) -> Iterator[tuple[Any, dict[str, str]]]:
    """Start the servers; yield PostgreSQL and the environment of the command."""
    foreign = ("PG", "MINIO_", "MC_", "AWS_", "DAGSTER_", "PYTHONDONTWRITEBYTECODE")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    for name in ("workspace.yaml", "dagster.yaml"):
        shutil.copy(ROOT / name, folder)
    with PostgresServer(folder / "pg") as server, any_server(folder / "s3") as bucket:
        yield (
            server,
            inherited
            | {"PG_HOST": server.host, "PG_PORT": str(server.port), "PG_DB": "postgres", "PG_USER": server.user}
            | {"PG_PASS": server.password, "PG_CONTROL_URL": "off"}
            | {"MINIO_BUCKET": "bronze", "MINIO_ENDPOINT": bucket.endpoint_url}
            | {"MINIO_ACCESS_KEY": bucket.access_key, "MINIO_SECRET_KEY": bucket.secret_key},
        )


def measure(what: str, statement: str, connection: Any, environment: dict[str, str], folder: Path, rounds: int) -> None:
    """Print the median cost of ticks, each after the statement, and its ratio to an import of Dagster."""
    costs, least = [], []
    for _ in range(rounds):
        connection.execute(statement)
        cost, last = tick(environment, folder)
        costs.append(cost)
        least.append(run([sys.executable, "-c", "import dagster"], environment, folder)[0])
    ratio = median(costs).cpu_s / median(least).cpu_s
    print(f"{what}: {median(costs)}, median of {rounds}, {ratio:.2f} times `import dagster`: {last}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, nargs="+", default=[11, 500])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        servers(Path(name)) as (server, environment),
        server.connect("postgres", autocommit=True) as connection,
    ):
        folder, exist = Path(name), 0
        for count in sorted(options.tables):
            for first in range(exist + 1, count + 1, 500):
                connection.execute(CREATE.format(first=first, last=min(first + 499, count)))
            exist = count
            print(f"{count:,} tables, first load: {tick(environment, folder)[0]}", flush=True)
            tick(environment, folder)  # the counters of the first load may have arrived late
            for what, statement in {
                "quiet tick": "select pg_current_xact_id()",
                "one new row": "insert into t1 select max(id) + 1 from t1",
            }.items():
                measure(f"{count:,} tables, {what}", statement, connection, environment, folder, options.rounds)


if __name__ == "__main__":
    main()
