"""Cuts: what is cut between the machines of a deployment, what is seen of it, and how long it takes to heal.

Sessions write to the source all the time. After each cut they stop, and every row version in the lake is compared with
the database.
"""

import contextlib
import io
import itertools
import math
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import dagster as dg
import polars as pl

from pg_bronze_tests.e2e.conftest import TABLES, Writers, wait_until
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.machine_deployment import WEB_PORT, WORKERS, Deployment
from pg_bronze_tests.harness.machine_launcher import NEXT, WORKER_TAG
from pg_bronze_tests.harness.machine_programs import ask

COPIED = ("movie", "person", "note", "bulk")
SCHEMA = TABLES + "create table bulk (id int primary key, filler text);"
HEAL_S = 150.0
_RUNNING = (dg.DagsterRunStatus.STARTED,)
_ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
_MARKS = """insert into movie values (-{0}, 'mark'); insert into person (id, name) values (-{0}, 'mark');
insert into note values ('mark {0}'); insert into bulk values (-{0}, 'mark')"""


@dataclass
class Scene:
    """A deployment with writers, and what tests wait for.

    Attributes:
        numbers: Numbers for rows; none is used twice.
        hold_commits: The commits of the writers that a cut lasts; 60 take about ten seconds.
        row_count: The rows that a copy in progress has to copy; 4,000 take about 30 slices.
    """

    site: Deployment
    writers: Writers
    numbers: Iterator[int]
    hold_commits: int
    row_count: int
    read: dict[str, set[str]] = field(default_factory=lambda: {table: set() for table in COPIED})
    ids: dict[str, set[object]] = field(default_factory=lambda: {table: set() for table in COPIED})

    def hold(self) -> None:
        """Return after some commits of the writers."""
        aim = self.writers.commits + self.hold_commits
        wait_until(lambda: self.writers.commits >= aim or self.writers.faults, "commits of the writers", 60)

    def fill(self) -> set[str]:
        """Insert rows that take many slices, and return the keys of the objects there were before."""
        before = set(lake.keys(self.site.bucket, "bulk"))
        first = next(self.numbers) * 10_000
        filler = "(select string_agg(md5(concat(random(), i + j)), '') from generate_series(1, 15) j)"
        self.site.database.execute(
            f"insert into bulk select i, {filler} from generate_series({first}, {first + self.row_count - 1}) i"
        )
        return before

    def copying(self, worker: str | None = None) -> dg.DagsterRun:
        """Return the run that copies ``bulk``, on this worker or any, after the first of many slices."""
        self.prefer(worker)
        before = self.fill()
        wait_until(lambda: set(lake.keys(self.site.bucket, "bulk")) - before, "the first slice", 60, pause_s=0.02)
        self.prefer(None)
        key = dg.AssetKey(["bronze", "bulk"])
        run = next(run for run in self.site.runs(*_RUNNING) if key in (run.asset_selection or ()))
        assert worker in (None, run.tags[WORKER_TAG])
        return run

    def prefer(self, worker: str | None) -> None:
        """Let this worker execute all runs from now on; None is all in turn."""
        chosen = self.site.network["daemon"].folder / "project" / NEXT
        if worker:
            chosen.write_text(worker)
        else:
            chosen.unlink(missing_ok=True)

    def status(self, run: dg.DagsterRun) -> dg.DagsterRunStatus:
        found = self.site.instance.get_run_by_id(run.run_id)
        assert found is not None
        return found.status

    def ended(self, run: dg.DagsterRun, timeout_s: float = 60) -> str:
        """Wait for the end of a run, and return its status."""
        wait_until(lambda: self.status(run) in _ENDED, f"the end of run {run.run_id}", timeout_s)
        return self.status(run).value

    def mark(self) -> Callable[[], bool]:
        """Insert a row into each table, and return what answers whether all of them are in the lake."""
        number = next(self.numbers)
        self.site.database.execute(_MARKS.format(number))
        marks = {table: f"mark {number}" if table == "note" else -number for table in COPIED}
        return lambda: all(marks[table] in self.copied(table) for table in COPIED)

    def heals(self) -> float:
        """Return after how many seconds rows that are inserted now into each table are in the lake."""
        began = time.monotonic()
        wait_until(self.mark(), "new rows", HEAL_S)
        return time.monotonic() - began

    def copied(self, table: str) -> set[object]:
        """Return the ids of a table in the lake; each object is read once."""
        store = self.site.bucket.store()
        for key in set(lake.keys(self.site.bucket, table)) - self.read[table]:
            frame = pl.read_parquet(io.BytesIO(store.get(key) or b""), columns=["id"])
            self.ids[table] |= set(frame["id"].to_list())
            self.read[table].add(key)
        return self.ids[table]

    def difference(self) -> lake.Difference:
        """Wait until the lake has all that was written, and return what is wrong if it does not become so."""
        found: list[lake.Difference] = []

        def same() -> bool:
            found[:] = [lake.compare(self.site.database, self.site.bucket, table) for table in COPIED]
            return all(item == lake.SAME for item in found)

        with contextlib.suppress(AssertionError):
            wait_until(same, "the lake to be the source", 90, pause_s=1)
        return lake.Difference(
            *(sum((getattr(item, name) for item in found), ()) for name in ("lost", "stale", "doubled"))
        )


@contextlib.contextmanager
def slow(scene: Scene, *names: str, kilobits: int = 3000) -> Iterator[None]:
    """Inside, these machines send slowly, so that a copy takes seconds."""
    limited = [scene.site.network[name] for name in names]
    for machine in limited:
        machine.slow(kilobits)
    try:
        yield
    finally:
        for machine in limited:
            with contextlib.suppress(AssertionError):  # the machine may be gone
                machine.fast()


def _hold(*pairs: tuple[str, str]) -> Callable[[Scene], str]:
    def act(scene: Scene) -> str:
        scene.site.network.cut(*pairs)
        failed = len(scene.site.runs(dg.DagsterRunStatus.FAILURE))
        copied = scene.mark()
        scene.hold()
        count = len(scene.site.runs(dg.DagsterRunStatus.FAILURE)) - failed
        runs = f", {count} run{'' if count == 1 else 's'} failed" if count else ""
        return f"{'copies go on' if copied() else 'copies stop'}{runs}"

    return act


def _worker_from(*others: str, until_end: bool = False, one_way: bool = False) -> Callable[[Scene], str]:
    """Cut the worker that copies a table from other machines, in the middle of the copy."""

    def act(scene: Scene) -> str:
        with slow(scene, *WORKERS):
            run = scene.copying()
            worker = run.tags[WORKER_TAG]
            if one_way:
                scene.site.network.cut_answers(worker, *others)
            else:
                scene.site.network.cut_off(worker, *others)
            if until_end:
                return f"the run ends as {scene.ended(run, 120)}"
            scene.hold()
            return f"the run is {scene.status(run).value} at the end of the cut"

    return act


def both_writers(scene: Scene) -> str:
    """A worker that counts as dead copies a table, while another worker copies the same one."""
    network = scene.site.network
    with slow(scene, "worker3", kilobits=600):
        # It reads through pgbouncer, so no lock of the server keeps the other one out.
        run = scene.copying("worker3")
        network.cut_off("worker3", "daemon", "storage")
        scene.ended(run)
        before = set(lake.keys(scene.site.bucket, "bulk"))

        def others() -> list[dg.DagsterRun]:
            return [item for item in scene.site.runs() if item.tags.get(WORKER_TAG) in ("worker1", "worker2")]

        latest = others()[0].run_id if others() else ""
        wait_until(lambda: others() and others()[0].run_id != latest, "a run of another worker", 60)
        wait_until(lambda: set(lake.keys(scene.site.bucket, "bulk")) - before, "a slice", 60, pause_s=0.05)
        state = ask(network["worker3"].address, run=run.run_id)
    return f"the run is {scene.status(run).value}, its process {state}; another worker copies the table"


def other_server(scene: Scene) -> str:
    """The primary is out of reach, and the next host of ``PG_HOST`` is the standby."""
    scene.site.network.cut(*(("primary", name) for name in ("code", *WORKERS)))
    began = time.monotonic()
    wait_until(scene.mark(), "a copy from the standby", 150)
    return f"copies go on from the standby after {time.monotonic() - began:.0f} s"


def storm(scene: Scene) -> str:
    """Slow links that lose packets."""
    with contextlib.ExitStack() as stack:
        for name in (*WORKERS, "s3", "storage"):
            scene.site.network[name].slow(2000, queue_bytes=6000)
            stack.callback(scene.site.network[name].fast)
        run = scene.copying()
        return f"the run ends as {scene.ended(run, 120)}"


def lost_machine(scene: Scene) -> str:
    """The machine of a worker is gone without a word, and its session and lock stay on the server."""
    with slow(scene, *WORKERS):
        run = scene.copying("worker1")
        scene.site.network.lose("worker1")
        # The third worker takes no lock, because it is behind a pooler.
        scene.prefer("worker2")
        return f"the run ends as {scene.ended(run)}"


def page(scene: Scene) -> str:
    """The web server without storage and code server."""
    scene.site.network.cut_off("web", "storage", "code")
    scene.hold()
    scene.site.network.heal()
    url = f"http://{scene.site.network['web'].address}:{WEB_PORT}/server_info"

    def answers() -> bool:
        with contextlib.suppress(OSError):
            return bool(urllib.request.urlopen(url, timeout=5).status == 200)
        return False

    wait_until(answers, "the web server", 60)
    return "copies go on; the page answers after it"


_EVERYBODY = ("code", "daemon", "web", *WORKERS, "s3", "storage", "primary", "standby", "pgbouncer")
CUTS: dict[str, Callable[[Scene], str]] = {
    "daemon from code server": _hold(("daemon", "code")),
    "daemon from Dagster's storage": _hold(("daemon", "storage")),
    "daemon from all workers": _hold(*(("daemon", worker) for worker in WORKERS)),
    "code server from source": _hold(("code", "primary"), ("code", "standby")),
    "code server from S3": _hold(("code", "s3")),
    "code server from Dagster's storage": _hold(("code", "storage")),
    "web server from storage and code server": page,
    "worker from S3, in a copy, until its run ends": _worker_from("s3", until_end=True),
    "worker from S3, in a copy, answers only": _worker_from("s3", one_way=True),
    "worker from Dagster's storage, in a copy": _worker_from("storage"),
    "worker from source, in a copy": _worker_from("primary", "standby", "pgbouncer"),
    "worker from everything, in a copy, believed dead": _worker_from(until_end=True),
    "both writers alive: believed dead, and copying": both_writers,
    "pgbouncer from primary": _hold(("pgbouncer", "primary")),
    "primary from code server and workers": other_server,
    "standby from primary": _hold(("standby", "primary")),
    "S3 from everything": _hold(*(("s3", name) for name in ("code", *WORKERS))),
    "slow links that lose packets": storm,
    "all links": _hold(*itertools.combinations(_EVERYBODY, 2)),
    "the machine of a worker, in a copy": lost_machine,
}


@dataclass(frozen=True)
class Row:
    """One line of the table of cuts."""

    cut: str
    seen: str
    heal_s: float
    difference: lake.Difference

    @property
    def clean(self) -> bool:
        return self.difference == lake.SAME

    def __str__(self) -> str:
        wrong = self.difference
        counts = f"{len(wrong.lost)} | {len(wrong.stale)} | {len(wrong.doubled)}"
        return f"| {self.cut} | {self.seen} | {self.heal_s:.0f} | {counts} |"


def failed(cut: str, error: Exception) -> Row:
    """Return the line of a cut that did not heal."""
    return Row(cut, f"{type(error).__name__}: {str(error).splitlines()[0]}", math.inf, lake.Difference(lost=("?",)))


HEADER = ["| cut | seen | heals, s | lost | stale | doubled |", "|---|---|---|---|---|---|"]


def measure(site: Deployment, cut: str, numbers: Iterator[int], hold_commits: int = 60, row_count: int = 4000) -> Row:
    """Make a cut while sessions write, end it, and return what happened; see ``Scene``."""
    with Writers(site.database, first=next(numbers) * 10_000) as writers:
        scene = Scene(site, writers, numbers, hold_commits, row_count)
        try:
            seen = CUTS[cut](scene)
        finally:
            site.network.heal()
        heal_s = scene.heals()
    return Row(cut, seen, heal_s, scene.difference())
