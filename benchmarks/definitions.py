"""What the definitions of many tables cost: their construction, and the sizes of what Dagster sends and stores.

    .venv/bin/python -m benchmarks.definitions [--tables 1000 10000]

Needs no server: the tables are made up, each with ten columns and a primary key. Prints for each number of tables the
CPU seconds of building the definitions and of the repository, as the code server and each run worker build them; the
size of the snapshot of the repository and of the largest job, which Dagster sends over gRPC; the size of a cursor of
the sensor; and the peak memory of the process. Each number of tables is measured in a process of its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SETTINGS = {
    "PG_DB": "cine", "MINIO_BUCKET": "lake", "MINIO_ENDPOINT": "http://127.0.0.1:9",
    "MINIO_ACCESS_KEY": "a", "MINIO_SECRET_KEY": "b",
}  # fmt: skip
COLUMNS = 10


def timed(act: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result of a call and its CPU seconds."""
    began = time.process_time()
    return act(), time.process_time() - began


def measure(count: int) -> dict[str, float]:
    """Build the definitions of so many tables in this process."""
    from dagster._core.remote_representation.external_data import JobDataSnap, RepositorySnap
    from dagster._serdes import serialize_value

    from pg_bronze.core.table import Column, Relation, SourceTable
    from pg_bronze.defs import build
    from pg_bronze.defs.catalog_state import CatalogState
    from pg_bronze.defs.source_names import SourceNames
    from pg_bronze.postgres.catalog import Catalog
    from pg_bronze.scheduling.due import Hint
    from pg_bronze.scheduling.memory import Memory, place_of
    from pg_bronze.settings.load import load_settings

    columns = tuple(Column(n, f"column_{n}", "integer", "int4", -1, not_null=False) for n in range(1, COLUMNS + 1))
    tables = tuple(
        SourceTable(
            n, "public", f"table_{n}", False, None, columns, ("column_1",),
            (Relation(n, "public", f"table_{n}", n, 9, 0),), 1000.0, None, f"f{n}",
        )
        for n in range(16384, 16384 + count)
    )  # fmt: skip
    now = datetime.now(UTC)
    state = CatalogState(Catalog("cine", 5, 180000, tables), now.date())
    settings = load_settings(SETTINGS, None)
    definitions, build_s = timed(lambda: build.build_definitions(settings, state))
    repository, repository_s = timed(definitions.get_repository_def)
    snapshot, snapshot_s = timed(lambda: serialize_value(RepositorySnap.from_def(repository, defer_snapshots=True)))
    jobs = [len(serialize_value(JobDataSnap.from_job_def(job, True))) for job in repository.get_all_jobs()]
    names = SourceNames(settings)
    # Worst case of a cursor: every table has counters of its own.
    hints = {
        place_of(names.bronze_key(table).to_user_string()): Hint(
            f"{number * 2654435761 % 2**40:010x}", 10**6 + number, 10**6 + number, 0, now.timestamp() + number / 7
        )
        for number, table in enumerate(tables)
    }
    return {
        "definitions, CPU s": build_s,
        "repository, CPU s": repository_s,
        "snapshot, CPU s": snapshot_s,
        "snapshot, MB": len(snapshot) / 1e6,
        "largest job, MB": max(jobs) / 1e6,
        "cursor, kB": len(Memory(hints).to_cursor()) / 1e3,
        "peak memory, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


def main() -> None:
    """Measure each number of tables in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--here", action="store_true", help="measure in this process, and print JSON")
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(measure(arguments.tables[0])))
        return
    for count in arguments.tables:
        command = [sys.executable, "-m", "benchmarks.definitions", "--here", "--tables", str(count)]
        found = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
        print(f"{count:,} tables: " + "; ".join(f"{name}: {value:.2f}" for name, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
