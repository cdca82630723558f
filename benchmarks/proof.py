"""The proof: races, chaos, other servers, cuts between machines and planted faults, into docs/proof.md.

    make proof                          # at most an hour on two cores
    make proof ARGS="--minutes 5"       # shorter races and chaos
    make proof ARGS="--only planted"    # one part; the report keeps the others

The report is one page: totals for each kind of attack. Everything it counts must be 0 lost, 0 stale, 0 doubled and 0
wrong latest; the exit code is 1 otherwise.
"""

import argparse
import contextlib
import dataclasses
import functools
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.chaos import WHERE, arena, chaos
from benchmarks.large import large
from benchmarks.memory import ALLOWED_MB
from benchmarks.race import race
from pg_bronze.core.band_rules import BandRules
from pg_bronze.demo.postgres import PostgresServer
from pg_bronze.demo.s3 import MinioServer, SeaweedServer
from pg_bronze_tests import planting
from pg_bronze_tests.harness import cuts
from pg_bronze_tests.harness.asset_lake import lake_of
from pg_bronze_tests.harness.lake import FORCED_BANDS, Difference
from pg_bronze_tests.harness.machine_deployment import deployed
from pg_bronze_tests.harness.servers import ROOT, Bucket, Database, new_bucket, older_servers

REPORT = ROOT / "docs/proof.md"
RESULTS = ROOT / ".cache/proof"
PARTS = ("attacks", "suite", "machines", "planted")
PAIRS = (("18", "SeaweedFS"), ("15", "MinIO"))
# How tables are copied: by the sync alone, with tables of any size divided into bands, and through Dagster's assets.
MODES = (
    ("copier", "sync", BandRules()),
    ("copier", "sync with bands", FORCED_BANDS),
    ("assets", "Dagster", BandRules()),
)
# The outcome of a test by the element that its report has; one that passed has none.
OUTCOMES = {"failure": "failed", "error": "failed", "skipped": "skipped"}
# CI runs the suite on PostgreSQL 18 and SeaweedFS; the proof runs it on the other pair, with all repetitions.
OTHER_PAIR = ("--postgres=15", "--s3=minio", "--repetitions")


@dataclass
class Total:
    """What one kind of attack did in all its runs, and what was wrong at the end."""

    ticks: int = 0
    crashes: int = 0
    commits: int = 0
    versions: int = 0
    difference: Difference = field(default_factory=Difference)
    note: str = ""

    def add(self, ticks: int, crashes: int, commits: int, versions: int, difference: Difference) -> None:
        self.ticks, self.crashes = self.ticks + ticks, self.crashes + crashes
        self.commits, self.versions = self.commits + commits, self.versions + versions
        self.difference += difference

    def row(self, kind: str) -> str:
        wrong = self.difference
        return (
            f"| {kind} | {self.ticks:,} | {self.crashes:,} | {self.commits:,} | {self.versions:,} | {wrong.lost} | "
            f"{wrong.stale} | {wrong.doubled} | {wrong.wrong_latest} | {self.note} |"
        )


@dataclass
class Part:
    """One part of the report: its lines, and whether nothing was wrong."""

    lines: list[str]
    clean: bool
    about: str = ""


@contextlib.contextmanager
def s3_server(kind: str, folder: Path) -> Iterator[SeaweedServer | MinioServer]:
    minio = kind == "MinIO"
    with MinioServer(folder, binary=ROOT / ".cache/minio/minio") if minio else SeaweedServer(folder) as server:
        yield server


@contextlib.contextmanager
def both_servers(version: str, kind: str) -> Iterator[tuple[Path, Database, Bucket]]:
    """A PostgreSQL and an S3 server in a folder that is removed afterwards: the folder, a database, a new bucket."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as servers:
        folder = Path(name)
        postgres = PostgresServer(folder / "postgres", bindir=older_servers().get(version))
        database = Database(servers.enter_context(postgres), "postgres")
        yield folder, database, new_bucket(servers.enter_context(s3_server(kind, folder / "s3")))


def run_race(
    total: Total, version: str, kind: str, seconds: float, seed: int, through: str, dlt: Path | None, bands: BandRules
) -> None:
    with both_servers(version, kind) as (folder, database, bucket), lake_of(database, bucket, folder, through) as lake:
        lake.bands = bands
        found = race(lake, seconds, 12, seed, dlt)
    total.add(found.ticks, found.crashes, found.commits, found.versions, found.difference)
    total.note = f"`created_at > last` beside it: {found.poller_lost:,} lost, {found.poller_stale:,} stale"
    if dlt:
        total.note += f"; dlt: {found.dlt_lost:,} lost, {found.dlt_stale:,} stale"


def run_chaos(
    total: Total, where: str, version: str, kind: str, seconds: float, seed: int, through: str, bands: BandRules
) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as servers:
        place = servers.enter_context(arena(where, Path(folder), older_servers().get(version)))
        bucket = new_bucket(servers.enter_context(s3_server(kind, Path(folder) / "s3")))
        lake = servers.enter_context(lake_of(place.reading, bucket, Path(folder), through))
        lake.bands = bands
        found = chaos(place, lake, seconds, 8, seed)
    total.add(found.ticks, found.crashes, found.commits, found.versions, found.difference)


def run_load(total: Total, version: str, kind: str, rows: int, seed: int) -> None:
    with both_servers(version, kind) as (folder, database, bucket):
        found = large(database, bucket, rows, 6, seed, folder / "project")
    total.add(found.processes, found.kills, found.commits, found.versions, found.difference)
    total.note = f"{found.peak_mb - found.idle_mb:.0f} MB above an idle process (at most {ALLOWED_MB})"
    if not found.bounded:
        total.difference += Difference(lost=1)


def attacks(minutes: float, rows: int, seed: int, dlt: Path | None) -> Part:
    """Races and chaos in each mode, and killed first loads."""
    totals: dict[str, Total] = {}
    steps: list[tuple[str, Callable[[Total], None]]] = []
    seconds = minutes * 60 / (len(MODES) * (1 + len(WHERE)))
    pairs = itertools.cycle(PAIRS)
    for through, label, bands in MODES:
        for where in (None, *WHERE):
            version, kind = next(pairs)
            same = {"version": version, "kind": kind, "seconds": seconds, "seed": seed}
            same |= {"through": through, "bands": bands}
            if where is None:
                steps.append((f"race, {label}", functools.partial(run_race, dlt=dlt, **same)))
            else:
                steps.append((f"chaos on a {where}, {label}", functools.partial(run_chaos, where=where, **same)))
    steps += [(f"killed first load, {p[0]}", lambda t, p=p: run_load(t, *p, rows, seed)) for p in PAIRS]
    for kind, step in steps:
        step(totals.setdefault(kind, Total()))
        print(totals[kind].row(kind), flush=True)
    clean = all(total.difference == Difference() for total in totals.values())
    lines = [
        "| attack | ticks | crashes | commits | versions | lost | stale | doubled | wrong latest | |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(total.row(kind) for kind, total in totals.items()),
    ]
    return Part(
        lines, clean, f"{seconds:.0f} s for each race and chaos, seed {seed}; {rows:,} rows in each first load."
    )


def suite() -> Part:
    """The whole test suite on the pair of servers that CI does not use."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-n",
            "auto",
            "--dist=loadfile",
            "--no-loadscope-reorder",
            f"--junitxml={report}",
        ]
        done = subprocess.run([*command, *OTHER_PAIR], cwd=ROOT, check=False)
        outcomes = Counter(
            next((name for tag, name in OUTCOMES.items() if case.find(tag) is not None), "passed")
            for case in ElementTree.parse(report).iter("testcase")
        )
    counts = f"{outcomes['passed']:,} tests passed, {outcomes['failed']} failed, {outcomes['skipped']} skipped"
    line = f"{counts} on PostgreSQL 15 and MinIO."
    return Part([line], done.returncode == 0)


def machines() -> Part:
    """Cuts between machines."""
    rows, numbers = [], itertools.count(2)
    with deployed(cuts.SCHEMA) as site:
        for cut in cuts.CUTS:
            try:
                rows.append(cuts.measure(site, cut, numbers))
            except Exception as error:  # noqa: BLE001  # a line of the report
                rows.append(cuts.failed(cut, error))
            print(rows[-1], flush=True)
        reconciled = {table: site.command("reconcile", table) for table in cuts.COPIED}
    wrong = [f"- `pg-bronze reconcile {table}`: {said}" for table, (code, said) in reconciled.items() if code]
    lines = [*cuts.HEADER, *map(str, rows), "", *(wrong or ["`pg-bronze reconcile` found no missing row at the end."])]
    return Part(lines, not wrong and all(row.clean for row in rows))


def planted() -> Part:
    """The planted faults."""
    outcomes = list(planting.outcomes())
    missed = [outcome.title for outcome in outcomes if not outcome.noticed]
    lines = [f"{len(outcomes)} faults were planted, one at a time; {len(outcomes) - len(missed)} made their test fail."]
    return Part([*lines, *(f"- not noticed: {title}" for title in missed)], not missed)


_TEXTS = {
    "attacks": (
        "Races and chaos",
        """Writers insert, update, delete, roll back, use savepoints, prepared transactions and row locks, and vacuum,
rewrite, retype and reload a table while it is copied. Many ticks are killed at a random step, and Dagster's storage is
sometimes forgotten. Afterwards every row version in the lake is compared with the database.""",
    ),
    "suite": (
        "The test suite on other servers",
        """The deterministic cases: every step of the commit, two writers, failover, wraparound, faults of both servers,
poolers, standbys.""",
    ),
    "machines": (
        "Cuts between machines",
        """PostgreSQL primary, standby, PgBouncer, SeaweedFS, Dagster's storage, code server, daemon, web server and
three run workers, each in namespaces of its own: network, folders, processes, host name. Sessions write to the source
all the time. A cut loses all packets between the machines and refuses nothing. It lasts about ten seconds, or as long
as the line says. A worker that the daemon cannot reach for 6 s counts as dead. `heals` is the time from the end of the
cut to the copy of rows that are written then to every table. Nobody intervenes. Slow links are a token bucket of `tc`,
which delays packets and loses those that its queue of 6 kB has no room for: `netem` needs a kernel module.""",
    ),
    "planted": (
        "Planted faults",
        """Changed lines of the protocol, each of which must make a named test fail
(`python -m pg_bronze_tests.planting`).""",
    ),
}


def report() -> str:
    """The page, from the last result of each part."""
    page = ["# Proof", "", "Written by `make proof`. It takes at most an hour; every part can be run alone.", ""]
    for name, (title, text) in _TEXTS.items():
        file = RESULTS / f"{name}.json"
        page += [f"## {title}", "", text, ""]
        if file.exists():
            data = json.loads(file.read_text(encoding="utf-8"))
            page += [f"{data['found']} {data['about']}".strip(), "", *data["lines"], ""]
        else:
            page += ["Not run.", ""]
    return "\n".join(page)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=18, help="of races and chaos")
    parser.add_argument("--rows", type=int, default=2_000_000, help="of each large first load")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dlt", type=Path, help="a Python that has requirements/peers-dlt.txt")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    given = parser.parse_args()
    clean = True
    for name in given.only:
        started = time.monotonic()
        if name == "attacks":
            part = attacks(given.minutes, given.rows, given.seed, given.dlt and given.dlt.absolute())
        else:
            part = {"suite": suite, "machines": machines, "planted": planted}[name]()
        clean = clean and part.clean
        found = (
            f"{datetime.now(UTC):%Y-%m-%d}, {(time.monotonic() - started) / 60:.0f} minutes on {os.cpu_count()} cores."
        )
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / f"{name}.json").write_text(
            json.dumps({**dataclasses.asdict(part), "found": found}), encoding="utf-8"
        )
    REPORT.write_text(report(), encoding="utf-8")
    print(f"written: {REPORT}")
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
