"""The proof: races, chaos and the deterministic cases in their long form, and a dated report of what came of them.

    make proof                          # an hour and three quarters, into docs/proof.md
    make proof ARGS="--minutes 6"       # the same with shorter races and chaos
    make proof ARGS="--only mistakes"   # one part again; the others stay as they stand there

Starts servers of its own; needs what the tests need, and for the comparison a Python with requirements/dlt.txt.
"""

import argparse
import contextlib
import dataclasses
import functools
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.chaos import WHERE, arena, chaos, undone
from benchmarks.large import large
from benchmarks.memory import ALLOWED_MB
from benchmarks.race import race
from pg_bronze import __version__
from pg_bronze.demo.postgres import PostgresServer
from pg_bronze.demo.s3 import MinioServer, SeaweedServer
from pg_bronze_tests.harness.asset_lake import lake_of
from pg_bronze_tests.harness.lake import Difference
from pg_bronze_tests.harness.servers import ROOT, Bucket, Database, new_bucket, older_servers

REPORT = ROOT / "docs/proof.md"
# What each part found last; one may be run again by itself.
FOUND = ROOT / ".cache/proof"
# The parts of the report, with their titles there.
PARTS = {
    "chaos": "Races and chaos",
    "assets": "Races and chaos through Dagster",
    "loads": "Large first loads",
    "cases": "Deterministic cases",
    "mistakes": "Planted mistakes",
}
VERSIONS = ("18", "15")
# What the deterministic cases run on, and what the tests are told for it.
SERVERS = {
    "18, SeaweedFS": ("--postgres=18", "--s3=seaweed"),
    "15, MinIO": ("--postgres=15", "--s3=minio"),
}
# The tests that prove one case each, with the mistake it is about named in their docstrings.
DETERMINISTIC = {
    "crash after every step of the commit, lost replies, claims": [
        "servers/test_recovery.py", "servers/test_commit.py", "shell/test_crashes.py", "unit/test_planning_model.py",
    ],
    "two writers at once": ["servers/test_two_writers.py"],
    "processes that are killed, and a whole dagster dev": [
        "e2e/test_kill.py", "e2e/test_kill_anywhere.py", "shell/test_abandoned.py",
    ],
    "faults of PostgreSQL": ["servers/test_postgres_faults.py"],
    "races and chaos in short, through copier and assets": [
        "servers/test_race.py", "servers/test_chaos.py", "shell/test_chaos.py",
    ],
    "faults of the S3 server": ["servers/test_s3_faults.py", "servers/test_store.py"],
    "lost memories and settings that point elsewhere": ["shell/test_faults.py"],
    "failover, restore, pg_upgrade, lagging standby": ["servers/test_history.py"],
    "ends of 32-bit transaction ids": ["servers/test_boundaries.py", "unit/test_window.py"],
    "row security, grants, servers without a fence": [
        "servers/test_catalog.py", "shell/test_limits.py", "shell/test_unfenced.py",
    ],
    "generations, reset, identity of a table": ["servers/test_generations.py"],
    "what is recorded, recorded by hand, wiped or expired": ["shell/test_assets.py", "servers/test_control.py"],
    "partitioned tables": ["servers/test_partitioned.py", "shell/test_leaves.py"],
    "large windows in block ranges, bounded memory": [
        "servers/test_copy.py", "servers/test_memory.py", "unit/test_planning.py",
    ],
    "gates, and what a tick asks for": ["unit/test_gates.py", "shell/test_gates.py", "shell/test_sensors.py"],
    "dagster dev under writers, while tables come and go": ["e2e/test_dev.py"],
    "a table that fails: pauses, and what is said meanwhile": [
        "unit/test_retries.py", "unit/test_refusal.py", "shell/test_stuck.py",
    ],
    "encryption, passwords, hosts, poolers, old snapshots, cancelling": [
        "servers/test_access.py", "servers/test_pooler.py", "servers/test_readers.py", "servers/test_cancel.py",
        "shell/test_pooled.py", "e2e/test_cancel.py",
    ],
    "secrets": ["shell/test_secrets.py", "e2e/test_secrets.py"],
    "footers, watermarks and claims of other versions": [
        "unit/test_footer.py", "unit/test_watermark.py", "servers/test_format.py",
    ],
    "reading a table back, and repairing a day": ["servers/test_read.py", "servers/test_repair.py"],
    "taking over from the original system": ["servers/test_takeover.py", "shell/test_takeover.py"],
}  # fmt: skip


@dataclass
class Section:
    """A part of the report: when it was found, its lines, and whether there was nothing wrong in it."""

    found: str = ""
    lines: list[str] = field(default_factory=list)
    clean: bool = True
    about: str = ""

    def add(self, line: str, clean: bool) -> None:
        self.lines.append(line)
        self.clean = self.clean and clean


@dataclass
class Line:
    """One line of the report: a case, what it did, and what was wrong at the end."""

    case: str
    ticks: int
    crashes: int
    commits: int
    rows: int
    versions: int
    objects: int
    difference: Difference
    beside: str = ""
    bounded: bool = True

    @property
    def clean(self) -> bool:
        """Whether nothing was wrong, and memory stayed within its bound where it was measured."""
        return self.difference == Difference() and self.bounded

    @property
    def text(self) -> str:
        found = self.difference
        return (
            f"| {self.case} | {self.ticks:,} | {self.crashes:,} | {self.commits:,} | {self.rows:,} | "
            f"{self.versions:,} | {self.objects:,} | {found.lost} | {found.stale} | {found.doubled} | "
            f"{found.wrong_latest} | {self.beside} |"
        )


# Its name, and what runs it.
Case = tuple[str, Callable[[], Line]]


@contextlib.contextmanager
def s3_server(kind: str, folder: Path) -> Iterator[SeaweedServer | MinioServer]:
    minio = kind == "MinIO"
    with MinioServer(folder, binary=ROOT / ".cache/minio/minio") if minio else SeaweedServer(folder) as server:
        yield server


@contextlib.contextmanager
def both_servers(version: str, kind: str) -> Iterator[tuple[Path, Database, Bucket]]:
    """A PostgreSQL and an S3 server in a folder that is gone afterwards: the folder, a database, a new bucket."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as servers:
        folder = Path(name)
        postgres = PostgresServer(folder / "postgres", bindir=older_servers().get(version))
        database = Database(servers.enter_context(postgres), "postgres")
        yield folder, database, new_bucket(servers.enter_context(s3_server(kind, folder / "s3")))


def races(seconds: float, seed: int, dlt: Path | None) -> Iterator[Case]:
    for version, kind in zip(VERSIONS, ("SeaweedFS", "MinIO"), strict=True):
        name = f"race, {version}, {kind}, seed {seed}"
        yield name, functools.partial(_race, name, version, kind, seconds, seed, "copier", dlt)


def _race(name: str, version: str, kind: str, seconds: float, seed: int, through: str, dlt: Path | None = None) -> Line:
    with both_servers(version, kind) as (folder, database, bucket), lake_of(database, bucket, folder, through) as lake:
        found = race(lake, seconds, 12, seed, dlt)
    beside = f"`created_at > last`: {found.poller_lost} lost, {found.poller_stale} stale"
    if dlt:
        beside += (
            f"; dlt in {found.dlt_runs} runs: {found.dlt_lost} lost, {found.dlt_stale} stale, "
            f"{found.dlt_doubled} doubled"
        )
    return Line(
        name, found.ticks, found.crashes, found.commits, found.rows, found.versions, found.objects, found.difference,
        beside,
    )  # fmt: skip


def storms(seconds: float, seed: int) -> Iterator[Case]:
    for where in WHERE:
        for number, version in enumerate(VERSIONS):
            kind = ("SeaweedFS", "MinIO")[(number + WHERE.index(where)) % 2]
            name = f"chaos on a {where}, {version}, {kind}, seed {seed}"
            yield name, functools.partial(_storm, name, where, version, kind, seconds, seed, "copier")


def _storm(name: str, where: str, version: str, kind: str, seconds: float, seed: int, through: str) -> Line:
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as servers:
        place = servers.enter_context(arena(where, Path(folder), older_servers().get(version)))
        bucket = new_bucket(servers.enter_context(s3_server(kind, Path(folder) / "s3")))
        lake = servers.enter_context(lake_of(place.reading, bucket, Path(folder), through))
        found = chaos(place, lake, seconds, 8, seed)
    counted = sorted({**found.acts, **found.changes}.items())
    done = ", ".join(f"{_in_words(act)} {count}" for act, count in counted)
    return Line(
        name, found.ticks, found.crashes, found.commits, found.rows, found.versions, found.objects, found.difference,
        f"{found.comparisons} comparisons of {found.compared:,} objects of {found.generations} generations; "
        f"{done}; {found.postponed.total()} ticks postponed"
        + (f"; never done: {', '.join(sorted(missing))}" if (missing := undone(found)) else ""),
    )  # fmt: skip


def through_assets(seconds: float, seed: int) -> Iterator[Case]:
    """Each once, on alternating servers."""
    pairs = itertools.cycle(zip(VERSIONS, ("MinIO", "SeaweedFS"), strict=True))
    version, kind = next(pairs)
    name = f"race, {version}, {kind}, seed {seed}"
    yield name, functools.partial(_race, name, version, kind, seconds, seed, "assets")
    for where in WHERE:
        version, kind = next(pairs)
        name = f"chaos on a {where}, {version}, {kind}, seed {seed}"
        yield name, functools.partial(_storm, name, where, version, kind, seconds, seed, "assets")


def _in_words(name: str) -> str:
    """``row_lock`` and ``LockNotAvailable`` as a person writes them."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).replace("_", " ").lower()


def large_loads(rows: int, seed: int) -> Iterator[Case]:
    for version, kind in zip(VERSIONS, ("MinIO", "SeaweedFS"), strict=True):
        name = f"first load under writers, {version}, {kind}"
        yield name, functools.partial(_large_load, name, version, kind, rows, seed)


def _large_load(name: str, version: str, kind: str, rows: int, seed: int) -> Line:
    with both_servers(version, kind) as (folder, database, bucket):
        found = large(database, bucket, rows, 6, seed, folder / "project")
    return Line(
        name, found.processes, found.kills, found.commits, found.rows, found.versions, found.objects, found.difference,
        f"highest memory of a process {found.peak_mb:.0f} MB, {found.peak_mb - found.idle_mb:.0f} MB above an idle "
        f"one (at most {ALLOWED_MB})",
        found.bounded,
    )  # fmt: skip


def deterministic(reports: Sequence[Path]) -> Section:
    """Outcomes of the tests of each case on each pair of servers.

    They are taken from ``reports``, JUnit's of runs of the suite in the order of ``SERVERS``, as far as there are any.
    """
    with tempfile.TemporaryDirectory() as folder:
        outcomes = [
            _outcomes(report or _run_cases(options, Path(folder) / f"{number}.xml"))
            for number, (options, report) in enumerate(itertools.zip_longest(SERVERS.values(), reports))
        ]
    section = Section()
    for title, names in DETERMINISTIC.items():
        modules = tuple(map(_module, names))
        found = [Counter(what for name, what in some if f"{name}.".startswith(modules)) for some in outcomes]
        section.add(
            f"| {title} | {' | '.join(map(_counted, found))} |",
            all(counted["passed"] > 0 and not counted["failed"] for counted in found),
        )
    return section


def _run_cases(options: Sequence[str], report: Path) -> Path:
    paths = [f"pg_bronze_tests/{name}" for names in DETERMINISTIC.values() for name in names]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "auto", "--dist=worksteal", f"--junitxml={report}"]
    subprocess.run([*command, *options, *paths], cwd=ROOT, check=False)
    return report


def _outcomes(report: Path) -> list[tuple[str, str]]:
    cases = ElementTree.parse(report).getroot().iter("testcase")
    return [(case.get("classname", ""), _outcome(case)) for case in cases]


def _counted(found: Counter) -> str:
    """``12 passed, 1 skipped``."""
    others = (f"{found[what]} {what}" for what in ("failed", "skipped") if found[what])
    return ", ".join((f"{found['passed']} passed", *others))


def mistakes() -> Section:
    """The table of planted mistakes."""
    section = Section()
    command = [sys.executable, "benchmarks/mistakes.py"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        for line in running.stdout or ():
            print(line, end="", flush=True)
            section.add(line.rstrip("\n"), True)
    section.clean = running.returncode == 0
    return section


def _module(file: str) -> str:
    return "pg_bronze_tests." + file.removesuffix(".py").replace("/", ".") + "."


def _outcome(case: ElementTree.Element) -> str:
    kinds = {child.tag for child in case}
    return "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=45, help="of races and chaos; the rest takes about as long")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2, help="each with a seed of its own")
    parser.add_argument("--rows", type=int, default=5_000_000, help="of the large first loads")
    parser.add_argument("--dlt", type=Path, help="a Python that has requirements/dlt.txt")
    parser.add_argument(
        "--only", nargs="+", choices=[*PARTS], default=[*PARTS], help="the others stay as they stand in the report"
    )
    parser.add_argument(
        "--junit", type=Path, nargs="+", default=[], metavar="FILE",
        help=f"reports of runs of the suite, instead of running the cases: on {', on '.join(SERVERS)}",
    )  # fmt: skip
    parser.add_argument("--report", type=Path, default=REPORT, help="written instead of docs/proof.md")
    given = parser.parse_args()
    # A round is races and chaos on two servers each, and once more through the assets.
    seconds = given.minutes * 60 / given.rounds / (len(VERSIONS) * (1 + len(WHERE)) + 1 + len(WHERE))
    commit = _commit()
    for part in given.only:
        started = time.monotonic()
        if part in ("chaos", "assets"):
            seeds = range(given.seed, given.seed + given.rounds)
            if part == "chaos":
                rounds = (itertools.chain(races(seconds, seed, given.dlt), storms(seconds, seed)) for seed in seeds)
            else:
                rounds = (through_assets(seconds, seed) for seed in seeds)
            section = _section(rounds)
            section.about = f"{seconds:.0f} s each, seeds {seeds[0]} to {seeds[-1]}"
        elif part == "loads":
            section = _section([large_loads(given.rows, given.seed)])
        elif part == "cases":
            section = deterministic(given.junit)
        else:
            section = mistakes()
        read = part == "cases" and len(given.junit) == len(SERVERS)
        minutes = "" if read else f" in {(time.monotonic() - started) / 60:.0f} minutes"
        section.found = f"{datetime.now(UTC):%Y-%m-%d}{minutes}, {os.cpu_count()} cores, pg_bronze {__version__}"
        section.found += f" at {commit}" if commit else ""
        FOUND.mkdir(parents=True, exist_ok=True)
        (FOUND / f"{part}.json").write_text(json.dumps(dataclasses.asdict(section)), encoding="utf-8")
    found = {part: section for part in PARTS if (section := _last(part))}
    before = given.report if given.report.exists() else REPORT
    given.report.write_text(report(found, before.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"written: {given.report}")
    return 0 if all(section.clean for section in found.values()) else 1


def _commit() -> str:
    """The commit that stands here; ``""`` where the project came without its history."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True).stdout.strip()


def _section(rounds: Iterable[Iterable[Case]]) -> Section:
    """Run one case after the other; one that breaks off is a line that is not clean, and the next ones are run."""
    section = Section()
    for name, run in itertools.chain.from_iterable(rounds):
        try:
            line = run()
            text, clean = line.text, line.clean
        except Exception as error:  # noqa: BLE001  (the report says so, and the cases after it are run)
            traceback.print_exc()
            text, clean = f"| {name} |" + " |" * 10 + f" broke off: {type(error).__name__} |", False
        print(text, flush=True)
        section.add(text, clean)
    return section


def _last(part: str) -> Section | None:
    """What a part found last in this checkout; None if it was never run here."""
    file = FOUND / f"{part}.json"
    return Section(**json.loads(file.read_text(encoding="utf-8"))) if file.exists() else None


def report(found: Mapping[str, Section], before: str) -> str:
    """The page; a line that is not all zeros stands in it as it came.

    A part that is not in ``found`` stays as it stands in the report ``before``.
    """
    standing = dict(text.split("\n\n", 1) for text in before.split("\n## ")[1:])
    page = INTRODUCTION
    for part, title in PARTS.items():
        text = _text(part, found[part]) if part in found else standing.get(title, "not run")
        page += f"\n## {title}\n\n{text.strip()}\n"
    return page


def _text(part: str, section: Section) -> str:
    said = "; ".join(filter(None, (section.found, section.about)))
    return "\n".join((said + ABOUT[part], *section.lines))


_COLUMNS = (
    "| case | ticks | crashes | commits | rows live | versions | objects | lost | stale | doubled | wrong latest "
    f"| beside it |\n{'|---' * 12}|"
)
INTRODUCTION = """# The proof

Written by `make proof`; nothing here is written by hand. Each part says when and on which commit it was run. Every
comparison is lake against source, row by row and value by value, while no writer writes; chaos pauses its writers for
it about every 15 s, and its counts are sums over all comparisons. *lost*: live rows whose key the lake does not know.
*stale*: live rows whose present version it does not hold. *doubled*: copies of a version beyond the first. *wrong
latest*: keys whose highest `_pg_xid` is not the live version.
"""
# What stands in each part between its date and its lines.
ABOUT = {
    "chaos": f""". In the race 12 writers commit out of order, with savepoints, rollbacks and
transactions held open; one in four of pg_bronze's ticks crashes after a step of the commit, and half of these forget
all state. Chaos adds what `benchmarks/chaos.py` says. Commits are those of the writers; versions and objects are those
of the newest generation at the end; earlier ones are compared too, and looked through for doubled rows when they have
been moved away.

{_COLUMNS}""",
    "assets": f""". The same with everything that runs for users in between: a
tick is a look of the sensor and the run it asks for, the asset writes through the IO manager, the watermark is what
Dagster recorded, and to forget is to wipe the asset.

{_COLUMNS}""",
    "loads": f""". Real processes, counted as ticks, are killed with SIGKILL at a random object while others write:
`benchmarks/large.py`.

{_COLUMNS}""",
    "cases": f""". Tests on the product with real servers, and tests of what it decides without any, where every order
of events can be gone through. Those that ask for servers of every version or kind get all of them in either column.

| case | {" | ".join(SERVERS)} |
|---{"|---" * len(SERVERS)}|""",
    "mistakes": """. Each was planted by itself in a copy of pg_bronze, under tests that are green without it, and every
test named had to go red: `benchmarks/mistakes.py`.

| mistake | | tests |
|---|---|---|""",
}


if __name__ == "__main__":
    sys.exit(main())
