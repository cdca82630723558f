"""Whether run workers grow: memory, descriptors, threads and zombies over many runs.

    .venv/bin/python -m benchmarks.many_runs [--runs 2000] [--workers 2]

Starts a PostgreSQL server, an S3 server and a `dagster dev` with the project's dagster.yaml, whose workers never end by
their limits. Requests runs over the web server's GraphQL, each for one of four small tables that got a row before, and
keeps some of them in the queue. Prints what the workers and the daemon use after each tenth of the runs. Ends with 1 if
a run failed, if a worker was replaced, if the memory, descriptors or threads of a process were more than a tenth higher
in the last three samples than in the first three, or if there is a zombie. Each read of connectorx leaves three threads
for 30 s, so with several runs a second a worker has about 200.
"""

import argparse
import json
import os
import threading
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import psutil

from benchmarks.load_interference import dagster_dev
from benchmarks.many_tables import servers, wait_for_objects
from benchmarks.tick import instance
from pg_bronze_tests.harness.servers import Bucket, Database

TABLES = ["t1", "t2", "t3", "t4"]
QUEUED, POLL_S, LONGEST_S, MOST_GROWTH = 8, 0.1, 3600.0, 1.1
LAUNCH = """mutation ($params: ExecutionParams!) { launchPipelineExecution(executionParams: $params) {
  __typename ... on PythonError { message } ... on InvalidSubsetError { message }
  ... on PipelineNotFoundError { message } } }"""
UNFINISHED = """query {
  runsOrError(filter: {statuses: [QUEUED, NOT_STARTED, STARTING, STARTED, CANCELING]}, limit: 100) {
    ... on Runs { results { runId } } } }"""
WARM = 20  # runs before the first sample, so that all workers have started
_never = threading.Event()


@dataclass(frozen=True)
class Usage:
    """What one process uses; memory in MiB."""

    memory_mb: float
    descriptors: int
    threads: int


def ask(port: str, query: str, **variables: object) -> dict:
    """Return the answer of the web server to a GraphQL query."""
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return dict(json.load(answer)["data"])


def launch(port: str, table: str) -> None:
    """Request a run that copies one table."""
    selector = {
        "repositoryName": "__repository__",
        "repositoryLocationName": "pg_bronze",
        "pipelineName": "__ASSET_JOB",
        "assetSelection": [{"path": ["bronze", table]}],
    }
    tags = [{"key": "dagster/partition", "value": str(datetime.now(UTC).date())}]
    answer = ask(port, LAUNCH, params={"selector": selector, "executionMetadata": {"tags": tags}})
    if answer["launchPipelineExecution"]["__typename"] != "LaunchRunSuccess":
        raise SystemExit(f"a run could not be requested: {answer}")


def unfinished(port: str) -> int:
    """Return the number of runs that have not ended."""
    return len(ask(port, UNFINISHED)["runsOrError"]["results"])


def used(root: psutil.Process) -> tuple[dict[int, Usage], int]:
    """Return what each worker and the daemon use, by process id, and the number of zombies."""
    found, zombies = {}, 0
    for process in root.children(recursive=True):
        try:
            zombies += process.status() == psutil.STATUS_ZOMBIE
            command = " ".join(process.cmdline())
            if "run_workers.worker" in command or "dagster._daemon" in command:
                memory_mb = process.memory_info().rss / 2**20
                found[process.pid] = Usage(memory_mb, process.num_fds(), process.num_threads())
        except psutil.NoSuchProcess:
            continue
    return found, zombies


def request_runs(database: Database, port: str, count: int) -> None:
    """Request so many runs, a few at a time, and wait until all have ended."""
    left, deadline = count, time.monotonic() + LONGEST_S
    with database.connect() as connection:
        while (running := unfinished(port)) or left:
            if time.monotonic() > deadline:
                raise SystemExit(f"{left + running} of {count} runs have not ended")
            for _ in range(min(left, QUEUED - running)):
                table = TABLES[left % len(TABLES)]
                connection.execute(f"insert into {table} select max(id) + 1 from {table}".encode())
                launch(port, table)
                left -= 1
            _never.wait(POLL_S)


def outcomes(folder: Path, count: int) -> Counter[str]:
    """Return how the newest runs ended, and how many a worker executed."""
    with instance(folder) as opened:
        runs = opened.get_runs(dg.RunsFilter(job_name="__ASSET_JOB"), limit=count)
    return Counter(run.status.value for run in runs)


def measure(database: Database, bucket: Bucket, folder: Path, chosen: argparse.Namespace) -> bool:
    """Request all runs, print what the processes use, and return whether nothing grew."""
    database.execute(
        "; ".join(f"create table {name} (id int primary key); insert into {name} values (1)" for name in TABLES)
    )
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    # The sensor would copy the rows before the requested runs do.
    environment = {**kept, "HOME": str(folder), "PG_BRONZE_INTERVAL_S": "300"}
    limits = {"max_workers": chosen.workers, "max_runs": 10**6, "max_memory_mb": 10**6}
    launcher = {"module": "pg_bronze.defs.run_workers.launcher", "class": "ResidentRunLauncher", "config": limits}
    concurrency = {"runs": {"max_concurrent_runs": chosen.workers}, "pools": {"granularity": "run", "default_limit": 1}}
    changes = {"run_launcher": launcher, "concurrency": concurrency}
    with dagster_dev(folder, environment | database.environ | bucket.environ, changes) as process:
        wait_for_objects(bucket.store(), len(TABLES))
        port, root, step = str(process.args[-1]), psutil.Process(process.pid), chosen.runs // 10
        request_runs(database, port, WARM)
        samples = []
        for number in range(1, 11):
            began = time.monotonic()
            request_runs(database, port, step)
            samples.append(used(root))
            show(number * step, step / (time.monotonic() - began), *samples[-1])
        ended = outcomes(folder, chosen.runs)
    print(f"ended: {dict(ended)}")
    return set(ended) == {"SUCCESS"} and not grown(samples)


def show(runs: int, rate: float, processes: dict[int, Usage], zombies: int) -> None:
    """Print what each process uses after some runs."""
    parts = [
        f"{item.memory_mb:.0f} MiB, {item.descriptors} descriptors, {item.threads} threads"
        for item in processes.values()
    ]
    print(f"{runs:,} runs, {rate:.1f} a second: {'; '.join(parts)}; {zombies} zombies", flush=True)


def grown(samples: list[tuple[dict[int, Usage], int]]) -> bool:
    """Return whether a process ended, or used clearly more in the last three samples than in the first three."""
    if samples[-1][1] or any(set(found) != set(samples[0][0]) for found, _ in samples):
        return True
    for pid in samples[0][0]:
        for name in ("memory_mb", "descriptors", "threads"):
            values = [getattr(found[pid], name) for found, _ in samples]
            if max(values[-3:]) > max(values[:3]) * MOST_GROWTH:
                return True
    return False


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args()
    with servers("pg_bronze_runs_") as (database, bucket, folder):
        within = measure(database, bucket, folder, chosen)
    if not within:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
