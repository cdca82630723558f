"""A model of the protocol: the product's planner and commit on a simulated cluster and bucket.

Hypothesis generates the writers, the operator and the accidents. The simulation returns what PostgreSQL would: ids in
the order of assignment, transactions that end in any order, row versions in blocks. It does not execute SQL: a
``Region`` is evaluated in Python, and core/test_window_sql.py compares the SQL with the same meaning.

The last tests plant known faults and assert that the checks find each of them.
"""

import copy as copies
import io
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from pg_bronze.core import planning, window_sql
from pg_bronze.core.planning import Quiet, Read
from pg_bronze.core.table import Column, Relation, SourceTable
from pg_bronze.core.watermark import Leaf, Place, Watermark
from pg_bronze.core.window_sql import Region
from pg_bronze.errors import (
    HistoryChanged,
    LakeDamaged,
    PgBronzeError,
    StaleSnapshot,
    Superseded,
    TableChanged,
    TransientError,
)
from pg_bronze.lake.commit import SliceWriter, write_all
from pg_bronze.lake.footer import Footer
from pg_bronze.lake.keys import next_time
from pg_bronze.lake.ledger import Ledger
from pg_bronze.lake.object_store import Listed
from pg_bronze.postgres import catalog
from pg_bronze.sync import slice_stream
from pg_bronze.sync.options import SyncOptions
from pg_bronze.sync.slice_source import SliceSource
from pg_bronze.sync.table_sync import TableSync

START = datetime(2026, 1, 1, tzinfo=UTC)


# The cluster


@dataclass
class Version:
    """One row version. ``xmax`` 0 means that no transaction has updated or deleted it; ``line`` is its line pointer."""

    id: int
    xmin: int
    block: int
    line: int
    xmax: int = 0

    @property
    def place(self) -> tuple[int, int]:
        return self.block, self.line


@dataclass
class File:
    """One physical table."""

    oid: int
    name: str
    node: int
    pages: int = 0
    versions: list[Version] = field(default_factory=list)

    def free_line(self, block: int) -> int:
        """Return the lowest line pointer of a block that no version uses; vacuum makes them available again."""
        taken = {version.line for version in self.versions if version.block == block}
        return next(line for line in itertools.count(1) if line not in taken)


@dataclass
class Transaction:
    """An open transaction: the ids of its levels, which are its savepoints that were not released."""

    levels: list[list[int]] = field(default_factory=lambda: [[]])
    touched: set[int] = field(default_factory=set)

    @property
    def ids(self) -> set[int]:
        return set(itertools.chain(*self.levels))


class Cluster:
    """A PostgreSQL cluster with one table that is copied."""

    def __init__(self, partitioned: bool) -> None:
        self.partitioned = partitioned
        self.typmod = -1
        self.next_xid = 100
        self.committed: set[int] = set()
        self.open: list[Transaction] = []
        self.number = 16384
        self.row_id = 0
        self.definition = 0
        self.log = 0
        self.files: dict[int, File] = {}
        self.detached: list[int] = []
        self.attached: list[int] = []
        self._make_table()

    def _next(self) -> int:
        self.number += 3
        return self.number

    def _file(self, name: str = "") -> File:
        oid = self._next()
        file = File(oid, name or f"movie_{oid}", oid)
        self.files[oid] = file
        return file

    def _make_table(self) -> None:
        self.files, self.detached = {}, []
        if self.partitioned:
            self.oid = self._next()
            self.attached = [self._file().oid for _ in range(2)]
        else:
            self.oid = self._file("movie").oid
            self.attached = [self.oid]
        self.definition += 1

    # Transactions

    def assign(self, transaction: Transaction) -> int:
        """Return the id with which the innermost level writes; outer levels get their ids first."""
        for level in transaction.levels:
            if not level:
                level.append(self.next_xid)
                self.next_xid += 1
        return transaction.levels[-1][0]

    def end(self, transaction: Transaction, commit: bool) -> None:
        if commit:
            self.committed |= transaction.ids
        self.open.remove(transaction)

    def begin(self) -> Transaction:
        """Return a transaction that the caller ends at once."""
        self.open.append(Transaction())
        return self.open[-1]

    @property
    def horizon(self) -> int:
        return min((t.levels[0][0] for t in self.open if t.levels[0]), default=self.next_xid)

    def is_running(self, xid: int) -> bool:
        return any(xid in t.ids for t in self.open)

    def visible(self, file: File) -> list[Version]:
        return [v for v in file.versions if v.xmin in self.committed and v.xmax not in self.committed]

    def changeable(self, file: File, transaction: Transaction) -> list[Version]:
        """Return the rows that the transaction sees and that no other transaction has locked."""
        seen = self.committed | transaction.ids
        return [v for v in file.versions if v.xmin in seen and v.xmax not in seen and not self.is_running(v.xmax)]

    # Rows

    def insert(self, transaction: Transaction, file: File, block: int, row_id: int | None = None) -> None:
        if row_id is None:
            self.row_id += 1
            row_id = self.row_id
        xid = self.assign(transaction)
        transaction.touched.add(file.oid)
        file.pages = max(file.pages, block + 1)
        file.versions.append(Version(row_id, xid, block, file.free_line(block)))

    def change(self, transaction: Transaction, file: File, nth: int, how: str) -> None:
        """Update a row in its block (``hot``), or into another block or partition (``moved``), or delete it."""
        rows = self.changeable(file, transaction)
        if not rows:
            return
        row = rows[nth % len(rows)]
        row.xmax = self.assign(transaction)
        transaction.touched.add(file.oid)
        if how == "hot":
            self.insert(transaction, file, row.block, row.id)
        if how == "moved":
            target = self.leaf(nth) if file.oid in self.attached else file
            self.insert(transaction, target, nth % (target.pages + 1), row.id)

    def leaf(self, nth: int) -> File:
        """Return one of the physical tables; a detached one only if none is attached."""
        oids = self.attached or list(self.files)
        return self.files[oids[nth % len(oids)]]

    def anywhere(self, nth: int) -> File:
        """Return one of the physical tables, including detached ones."""
        return list(self.files.values())[nth % len(self.files)]

    # Changes of the definition. Each uses an id, and waits for writers; here it does not happen if it would wait.

    def _alter(self, *files: File) -> int | None:
        oids = {file.oid for file in files} or set(self.files)
        if any(oids & t.touched for t in self.open):
            return None
        xid = self.next_xid
        self.next_xid += 1
        self.committed.add(xid)
        self.definition += 1
        return xid

    def rewrite(self, nth: int) -> None:
        """Run VACUUM FULL: rows keep their ids and move to other blocks."""
        file = self.leaf(nth)
        if self._alter(file):
            rows = sorted(self.visible(file), key=lambda v: (v.id * 7) % 5)
            file.versions = [Version(v.id, v.xmin, n // 2, n % 2 + 1) for n, v in enumerate(rows)]
            file.pages, file.node = -(-len(rows) // 2), self._next()

    def vacuum(self, nth: int) -> None:
        """Remove dead versions; later rows use their line pointers again."""
        file = self.anywhere(nth)
        file.versions = [
            v
            for v in file.versions
            if (v.xmin in self.committed or self.is_running(v.xmin))
            and not (v.xmax in self.committed and v.xmax < self.horizon)
        ]

    def reload(self, nth: int) -> None:
        """TRUNCATE the table and COPY most of its keys in one transaction."""
        file = self.leaf(nth)
        if xid := self._alter(file):
            kept = [v.id for v in self.visible(file)][nth % 2 :]
            file.versions = [Version(row_id, xid, n // 2, n % 2 + 1) for n, row_id in enumerate(kept)]
            file.pages, file.node = -(-len(kept) // 2), self._next()

    def recreate(self, nth: int) -> None:
        """DROP the table and CREATE it under the same name, with some of the old keys."""
        old = [v.id for oid in self.attached for v in self.visible(self.files[oid])]
        if xid := self._alter():
            self._make_table()
            for n, row_id in enumerate(old[nth % 2 :]):
                file = self.leaf(n)
                file.versions.append(Version(row_id, xid, n // 3, file.free_line(n // 3)))
                file.pages = n // 3 + 1

    def retype(self, nth: int) -> None:
        """Change a column without changing rows or values; there are three possible definitions."""
        if self._alter():
            self.typmod = nth % 3

    def detach(self, nth: int) -> None:
        if self.partitioned and self.attached and self._alter():
            oid = self.attached.pop(nth % len(self.attached))
            self.detached.append(oid)

    def attach(self, nth: int) -> None:
        """Attach a detached partition, or a new table that already contains rows."""
        if self.partitioned and (xid := self._alter()):
            if not self.detached:
                file = self._file()
                for block in range(nth % 4):
                    self.row_id += 1
                    file.versions.append(Version(self.row_id, xid, block, 1))
                    file.pages = block + 1
                self.detached.append(file.oid)
            self.attached.append(self.detached.pop(nth % len(self.detached)))
            self.attached.sort()

    def table(self) -> SourceTable:
        """Return the table as the catalog describes it."""
        files = [self.files[oid] for oid in self.attached]
        relations = tuple(Relation(f.oid, "public", f.name, f.node, f.pages, 0) for f in files)
        rows = float(sum(len(self.visible(f)) for f in files))
        column = Column(1, "id", "bigint", "int8", self.typmod, not_null=True)
        fingerprint = f"{self.oid} {self.definition} {[(r.oid, r.relfilenode) for r in relations]}"
        return SourceTable(
            self.oid, "public", "movie", self.partitioned, None, (column,), ("id",), relations, rows, None, fingerprint
        )

    def select(self, region: Region) -> list[tuple[int, int]]:
        """Return ``(id, xid)`` of the row versions in a region that a snapshot taken now contains."""
        if region.only:
            found = [f for f in self.files.values() if f.name == region.name]
            if not found:
                raise TableChanged(f"{region.name} does not exist")
        else:
            assert self.partitioned
            found = [self.files[oid] for oid in self.attached if oid in region.leaves]
        first, last = region.blocks or (0, None)
        return [
            (v.id, v.xmin)
            for f in found
            for v in self.visible(f)
            if (region.start is None or v.xmin >= region.start) and v.xmin < region.end
            if v.place >= (first, region.lines[0]) and (last is None or v.place < (last, region.lines[1]))
        ]


# The environment of a tick


class Crash(Exception):
    """The process is killed here."""


class StepCounter:
    """Counts the steps of a tick and calls a function before some of them."""

    def __init__(self, events: dict[int, Callable[[], None]]) -> None:
        self.events = events
        self.count = 0
        self.dead = False

    def __call__(self, _name: str = "") -> None:
        if self.dead:
            raise Crash
        self.count += 1
        event = self.events.pop(self.count, None)
        if event:
            event()

    def crash(self) -> None:
        self.dead = True
        raise Crash


class SimulatedStore:
    """A writer's connection to the bucket; every request is a step."""

    bucket, prefix, place = "lake", "", "lake"

    def __init__(self, objects: dict[str, bytes], steps: StepCounter) -> None:
        self.objects = objects
        self.steps = steps
        self.lose_reply = False

    def uri(self, key: str) -> str:
        return f"s3://lake/{key}"

    def create(self, key: str, body: bytes) -> bool:
        self.steps()
        if key in self.objects:
            return False
        self.objects[key] = body
        lost, self.lose_reply = self.lose_reply, False
        return not lost

    def get(self, key: str) -> bytes | None:
        self.steps()
        return self.objects.get(key)

    def tail(self, key: str, size_bytes: int) -> bytes | None:
        body = self.get(key)
        return body and body[-size_bytes:]

    def delete(self, key: str) -> None:
        self.steps()
        self.objects.pop(key, None)

    def move(self, key: str, to: str) -> None:
        self.steps()
        if key in self.objects:
            self.objects[to] = self.objects[key]
        self.delete(key)

    def list(self, prefix: str, start_after: str = "") -> list[Listed]:
        self.steps()
        return [
            Listed(key, len(body), START)
            for key, body in sorted(self.objects.items())
            if key.startswith(prefix) and key > start_after
        ]


class SimulatedSource:
    """A writer's connection to the cluster.

    ``view`` is an older state that its reads return, as from a lagging server behind a pooler.
    """

    standby, server_version = False, 170000

    def __init__(self, cluster: Cluster, steps: StepCounter, view: Cluster | None, horizon: int | None) -> None:
        self.cluster = cluster
        self.steps = steps
        self.view = view or cluster
        self._horizon = horizon

    @contextmanager
    def session(self) -> Iterator["SimulatedSource"]:
        yield self

    def stop_reading(self) -> None:
        pass

    def database(self) -> dict[str, str]:
        return {}

    def place(self, bucket: str) -> Place:
        self.cluster.log += 1
        return Place("7", 1, f"0/{self.cluster.log:X}", 5, bucket)

    def horizon(self, at_least: int | None = None) -> int:
        self.steps()
        if self._horizon is None or self._horizon < (at_least or 0):
            self._horizon = self.cluster.horizon
        return self._horizon

    def try_lock(self, _oid: int) -> bool:
        return True  # as under transaction pooling: two writers may run at once

    def unlock(self, _oid: int) -> None:
        pass

    def guard(self, end: int) -> None:
        if self.view.horizon < end:
            raise StaleSnapshot(f"older than horizon {end}")

    def read(self, query: tuple[Region, int | None], _label: str) -> pl.DataFrame:
        self.steps()
        region, limit = query
        self.guard(region.end)
        rows = self.view.select(region)[:limit]
        return pl.DataFrame(rows, schema={"id": pl.Int64, "_pg_xid": pl.Int64}, orient="row")


def read_table(connection: SimulatedSource, _schema: str, _name: str) -> SourceTable:
    connection.steps()
    return connection.cluster.table()


class SimulatedFuture:
    """A read ahead that is done at once, or when its result is needed, so that a failing example repeats."""

    eager = True

    def __init__(self, work: Callable[[], object]) -> None:
        self.work = work
        self.outcome: tuple[object, Exception | None] | None = None
        if SimulatedFuture.eager:
            self._run()

    def _run(self) -> tuple[object, Exception | None]:
        if self.outcome is None:
            try:
                self.outcome = self.work(), None
            except (Crash, PgBronzeError) as error:
                self.outcome = None, error
        return self.outcome

    def cancel(self) -> bool:
        return self.outcome is None

    def done(self) -> bool:
        return self.outcome is not None

    def cancelled(self) -> bool:
        return self.outcome is None

    def exception(self, _timeout_s: float) -> Exception | None:
        return self._run()[1]

    def result(self) -> object:
        value, error = self._run()
        if error:
            raise error
        return value


class SimulatedPool:
    """The methods of ThreadPoolExecutor that the product calls."""

    def __init__(self, **_: object) -> None:
        pass

    def shutdown(self, wait: bool) -> None:
        pass

    def __enter__(self) -> "SimulatedPool":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, function: Callable[..., object], *arguments: object) -> SimulatedFuture:
        return SimulatedFuture(lambda: function(*arguments))


# The state machine

EVENTS = st.dictionaries(
    st.integers(1, 25),
    st.sampled_from(
        ["crash", "other", "lost reply", "insert", "update", "end"] * 3
        + ["rewrite", "reload", "recreate", "retype", "detach", "attach", "vacuum", "vacuum"]
    ),
    max_size=3,
)
RECORDED = st.sampled_from(["latest", "latest", "older", "none"])
OPERATIONS = ["insert", "insert", "hot", "moved", "delete", "id", "savepoint", "release", "rollback to"]
OPERATIONS += ["commit", "commit", "rollback"]
SLOT = st.integers(0, 2)
NTH = st.integers(0, 6)


class Protocol(RuleBasedStateMachine):
    """One table, up to three open transactions, any number of ticks in one or two processes."""

    partitioned = False
    fault: Callable[[pytest.MonkeyPatch], None] | None = None

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(
            window_sql, "select", lambda region, _columns, _xid, _names, limit, _bound=None: (region, limit)
        )
        self.patch.setattr(catalog, "read_table", read_table)
        self.patch.setattr(slice_stream, "ThreadPoolExecutor", SimulatedPool)
        self.patch.setattr(planning, "EMPTY_BLOCKS_PER_COMMIT", 4)
        self.patch.setattr(planning, "LINES_PER_BLOCK", 6)
        if self.fault:
            self.fault(self.patch)
        self.cluster = Cluster(self.partitioned)
        self.known = self.cluster.table()
        self.objects: dict[str, bytes] = {}
        self.recorded: list[Watermark] = []
        self.now = START
        self.view: Cluster | None = None
        self.kept_horizon: int | None = None
        self.other_dies_at: int | None = None
        self._read: dict[bytes, tuple[Footer, list[tuple[int, int]]]] = {}

    def teardown(self) -> None:
        try:
            self.settle(commit=True)
            if self.cluster.detached:
                while self.cluster.detached:
                    self.cluster.attach(0)
                self.settle(commit=True)
        finally:
            self.patch.undo()

    # Writers

    def _slot(self, slot: int) -> Transaction:
        while len(self.cluster.open) <= slot:
            self.cluster.open.append(Transaction())
        return self.cluster.open[slot]

    @initialize(count=st.integers(0, 14), per_block=st.integers(1, 3))
    def start_with(self, count, per_block):
        for nth in range(len(self.cluster.attached)):
            self.load(nth, count, per_block)

    @rule(nth=NTH, count=st.integers(2, 9), per_block=st.integers(1, 3))
    def load(self, nth, count, per_block):
        file, transaction = self.cluster.leaf(nth), self.cluster.begin()
        first = file.pages
        for n in range(count):
            self.cluster.insert(transaction, file, first + n // per_block)
        self.cluster.end(transaction, commit=True)

    @rule(slot=SLOT, nth=NTH, row=NTH, ops=st.lists(st.sampled_from(OPERATIONS), min_size=1, max_size=5))
    def write(self, slot, nth, row, ops):
        """Run statements of one transaction, which may continue later."""
        transaction = self._slot(slot)
        for n, op in enumerate(ops):
            file = self.cluster.anywhere(nth)
            if op == "insert":
                self.cluster.insert(transaction, file, (row + n) % (file.pages + 1))
            elif op == "id":
                self.cluster.assign(transaction)  # a row lock or nextval uses an id and writes no row
            elif op == "savepoint":
                transaction.levels.append([])
            elif op in {"release", "rollback to"}:
                if len(transaction.levels) > 1:
                    ids = transaction.levels.pop()
                    transaction.levels[-1] += ids if op == "release" else []
            elif op in {"commit", "rollback"}:
                self.cluster.end(transaction, op == "commit")
                return
            else:
                self.cluster.change(transaction, file, row + n, op)

    @rule(
        what=st.sampled_from(
            [
                "rewrite",
                "rewrite",
                "reload",
                "recreate",
                "retype",
                "detach",
                "attach",
                "attach",
                "vacuum",
                "vacuum",
                "vacuum",
            ]
        ),
        nth=NTH,
    )
    def alter(self, what, nth):
        getattr(self.cluster, what)(nth)

    # Copying

    @rule()
    def remember_this_moment(self):
        """Keep this state: a lagging server returns it, and another table of the tick has taken its horizon."""
        self.view = copies.deepcopy(self.cluster)
        self.kept_horizon = self.cluster.horizon

    @rule(
        events=EVENTS,
        recorded=RECORDED,
        rows=st.integers(1, 5),
        eager=st.booleans(),
        dated=st.sampled_from([False, False, True]),
        passed_s=st.integers(-2, 3),
        stale=st.sampled_from(["", "", "", "view", "horizon"]),
    )
    def tick(self, events, recorded, rows, eager, dated, passed_s, stale):
        SimulatedFuture.eager = eager
        self.now += timedelta(seconds=passed_s)
        with suppress(Crash, TransientError):
            self._tick(events, self._recorded(recorded), rows, dated, stale)

    @rule(recorded=RECORDED, rows=st.integers(1, 5))
    def an_undisturbed_tick(self, recorded, rows):
        self.now += timedelta(seconds=1)
        self._tick({}, self._recorded(recorded), rows)

    @rule(step=st.integers(1, 40), recorded=RECORDED, rows=st.integers(1, 3), eager=st.booleans())
    def a_crash(self, step, recorded, rows, eager):
        self.tick({step: "crash"}, recorded, rows, eager, dated=False, passed_s=1, stale="")

    @rule(step=st.integers(1, 40), other_dies_at=st.none() | st.integers(8, 60), rows=st.integers(1, 3))
    def two_writers(self, step, other_dies_at, rows):
        """Pause one writer before a step while the other runs a whole tick, or is killed in it."""
        self.other_dies_at = other_dies_at
        self.tick({step: "other"}, "latest", rows, eager=True, dated=False, passed_s=1, stale="")
        self.other_dies_at = None

    def _recorded(self, which: str) -> Watermark | None:
        if which == "none" or not self.recorded:
            return None
        return self.recorded[-1] if which == "latest" else self.recorded[len(self.recorded) // 2]

    def _tick(
        self, events: dict[int, str], recorded: Watermark | None, rows: int, dated: bool = False, stale: str = ""
    ) -> bool:
        """Run one tick of one process, and return whether it had anything to do. It may raise a TransientError."""
        steps = StepCounter({})
        store = SimulatedStore(self.objects, steps)
        view, horizon = (self.view if stale == "view" else None), (self.kept_horizon if stale == "horizon" else None)
        source = SimulatedSource(self.cluster, steps, view, horizon)
        steps.events = {step: self._event(name, steps, store, step) for step, name in events.items()}
        options = SyncOptions(slice_rows=rows, slice_bytes=3 * 8192, dated=dated)
        with TableSync(source, store, self.known, options, now=lambda: self.now, on_step=steps) as writer:
            stream = writer.start(recorded)
            if isinstance(stream, Quiet):
                return False
            report = write_all(stream.slices(), SliceWriter(Ledger(store, writer.layout), options.codec, steps))
            steps()
            self.recorded.append(report.watermark)
        return True

    def _event(self, name: str, steps: StepCounter, store: SimulatedStore, step: int) -> Callable[[], None]:
        def other() -> None:
            self.now += timedelta(seconds=10)  # otherwise both would choose the same key, which would hide faults
            inner = {self.other_dies_at: "crash"} if self.other_dies_at else {}
            with suppress(Crash, TransientError):
                self._tick(inner, self._recorded("latest"), 2)

        def write() -> None:
            transaction = self.cluster.begin()
            if name == "insert":
                file = self.cluster.leaf(step)
                self.cluster.insert(transaction, file, step % (file.pages + 1))
            else:
                self.cluster.change(transaction, self.cluster.leaf(step), step, "moved")
            self.cluster.end(transaction, commit=True)

        def end() -> None:
            if self.cluster.open:
                self.cluster.end(self.cluster.open[0], commit=True)

        def lose_reply() -> None:
            store.lose_reply = True

        known = {"crash": steps.crash, "other": other, "lost reply": lose_reply, "end": end}
        known |= {"insert": write, "update": write}
        return known.get(name) or (lambda: getattr(self.cluster, name)(step))

    # Checks

    def lake(self) -> list[tuple[Footer, list[tuple[int, int]]]]:
        """Return footer and rows of every object in the table's folder."""
        bodies = [body for key, body in self.objects.items() if key.startswith("movie/")]
        for body in bodies:
            if body not in self._read:
                footer = Footer.from_text(pl.read_parquet_metadata(io.BytesIO(body))["pg_bronze"], "a test")
                self._read[body] = footer, pl.read_parquet(io.BytesIO(body)).rows()
        return [self._read[body] for body in bodies]

    def rows(self) -> Counter[tuple[int, int]]:
        """Count each ``(id, xid)`` in the newest generation."""
        lake = self.lake()
        newest = max((footer.after.generation for footer, _ in lake), default=0)
        return Counter(row for footer, rows in lake if footer.after.generation == newest for row in rows)

    @invariant()
    def no_row_version_is_doubled(self):
        doubled = {row: count for row, count in self.rows().items() if count > 1}
        assert not doubled, f"doubled: {doubled}"

    @invariant()
    def every_object_names_the_first_with_its_columns(self):
        """And describes its own: a reader takes the columns of thousands of objects from one footer."""
        footers = sorted((footer for footer, _ in self.lake()), key=lambda footer: footer.after.seq)
        first: Footer | None = None
        for footer in footers:
            if footer.after.generation < footers[-1].after.generation:
                continue  # it is being moved away, and the first one may be moved already
            assert footer.after.columns_digest == footer.described.digest
            if first is None or first.described.digest != footer.described.digest:
                first = footer
            assert footer.after.columns_key == first.after.key

    @rule(commit=st.booleans())
    def settle(self, commit):
        """When writes stop and the horizon has passed them, the lake contains every live row version exactly once."""
        for transaction in list(self.cluster.open):
            self.cluster.end(transaction, commit)
        for n in range(100):
            self.now += timedelta(seconds=1)
            if not self._tick({}, self._recorded(["latest", "older", "none"][n % 3]), 4):
                break
        else:
            raise AssertionError("not quiet after 100 ticks")
        live = {(v.id, v.xmin) for oid in self.cluster.attached for v in self.cluster.visible(self.cluster.files[oid])}
        found = self.rows()
        assert not live - set(found), f"lost: {live - set(found)}"
        self.no_row_version_is_doubled()
        highest: dict[int, int] = {}
        for row_id, xid in found:
            highest[row_id] = max(xid, highest.get(row_id, 0))
        wrong = {row: highest[row[0]] for row in live if highest[row[0]] != row[1]}
        assert not wrong, f"not the latest: {wrong}"
        assert len({footer.after.generation for footer, _ in self.lake()}) <= 1, "two generations in one folder"
        assert not [key for key in self.objects if key.startswith("_pg_bronze/claims/")], "a claim is left open"


class PartitionedProtocol(Protocol):
    """The same with a partitioned table, whose partitions are attached and detached."""

    partitioned = True


EXAMPLES = settings(
    max_examples=50,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("machine", [Protocol, PartitionedProtocol])
def test_every_live_row_is_in_the_lake_exactly_once(machine):
    run_state_machine_as_test(machine, settings=EXAMPLES)


@contextmanager
def scene(machine: type[Protocol] = Protocol) -> Iterator[Protocol]:
    """Yield a table with two objects in the lake and a window of several slices to copy; check it at the end."""
    model = machine()
    try:
        model.start_with(count=4, per_block=1)
        model.an_undisturbed_tick("latest", rows=5)
        model.load(nth=0, count=6, per_block=1)
        yield model
    finally:
        model.teardown()


@pytest.mark.parametrize("recorded", ["latest", "older", "none"])
@pytest.mark.parametrize("change", ["insert", "rewrite", "recreate"])
def test_a_crash_at_any_step_loses_and_doubles_nothing(recorded, change):
    for step in range(2, 75):
        with scene() as model:
            model.tick({1: change, step: "crash"}, recorded, 2, eager=step % 2 == 0, dated=False, passed_s=1, stale="")
            model.an_undisturbed_tick(recorded, rows=3)


def test_a_second_writer_between_any_two_steps_loses_and_doubles_nothing():
    """There is no lock here: only the claim keeps order."""
    for step in range(1, 40):
        for other_dies_at in (None, *range(9, 60, 7)):
            with scene() as model:
                model.two_writers(step, other_dies_at, rows=2)


# These cases lost and doubled nothing, but stopped the table with an error for the operator.


def test_a_writer_that_is_superseded_before_recovery_reports_no_restored_database():
    with scene() as model:
        model._tick({1: "other"}, model._recorded("latest"), rows=2)


def test_a_writer_that_is_superseded_by_a_new_generation_reports_no_foreign_object():
    with scene() as model:
        model.an_undisturbed_tick("latest", rows=2)
        model.cluster.recreate(0)
        model._tick({2: "other"}, model.recorded[0], rows=2)


def test_a_writer_that_is_superseded_between_two_listings_reports_no_missing_object():
    for other_dies_at in range(8, 60):
        with scene() as model:
            model.other_dies_at = other_dies_at
            with suppress(TransientError):
                model._tick({2: "other"}, model._recorded("latest"), rows=2)


def test_a_claim_above_the_horizon_of_the_tick_is_redone_without_an_error():
    for other_dies_at in range(8, 60):
        with scene() as model:
            model.remember_this_moment()
            model.load(nth=0, count=3, per_block=1)
            model.other_dies_at = other_dies_at
            with suppress(TransientError):
                model._tick({1: "other"}, model._recorded("latest"), rows=2, stale="horizon")


# Planted faults. The checks have to find each of them.


def pending_over_a_rewrite(patch: pytest.MonkeyPatch) -> None:
    """A window in block ranges continues after VACUUM FULL, although every row has moved."""
    plan = planning.plan

    def careless(watermark, table, *rest):
        changed = {}
        for item in table.relations:
            leaf = watermark.leaf(item.oid)
            if leaf.pending:
                changed[item.oid] = replace(leaf, pending=replace(leaf.pending, relfilenode=item.relfilenode))
        return plan(watermark.with_leaves(changed), table, *rest)

    patch.setattr(planning, "plan", careless)


def a_partly_read_block_counts_as_read(patch: pytest.MonkeyPatch) -> None:
    """A window that stopped inside a block continues with the next block."""
    plan = planning.plan

    def careless(watermark, table, *rest):
        changed = {}
        for item in table.relations:
            leaf = watermark.leaf(item.oid)
            if leaf.pending and leaf.pending.line:
                moved = replace(leaf.pending, block=leaf.pending.block + 1, line=0)
                changed[item.oid] = replace(leaf, pending=moved)
        return plan(watermark.with_leaves(changed), table, *rest)

    patch.setattr(planning, "plan", careless)


def a_partly_read_block_is_read_again(patch: pytest.MonkeyPatch) -> None:
    """A window that stopped inside a block forgets once what it has delivered of the block."""
    plan, forgotten = planning.plan, []

    def careless(watermark, table, *rest):
        changed = {}
        for item in table.relations:
            leaf = watermark.leaf(item.oid)
            if leaf.pending and leaf.pending.line and not forgotten:
                forgotten.append(leaf)
                changed[item.oid] = replace(leaf, pending=replace(leaf.pending, line=0))
        return plan(watermark.with_leaves(changed), table, *rest)

    patch.setattr(planning, "plan", careless)


def redo_without_listing(patch: pytest.MonkeyPatch) -> None:
    """A claim is redone without the listing after it was found, under a key of the current time."""

    def careless(self, recorded, now, allow_gaps=False):
        found = self._adopt(recorded, now, allow_gaps)
        claim = self._open_claim(found.watermark.seq if found.watermark else 0)
        if claim:
            key = self.layout.key(next_time(now, self.layout.time(claim.after.key)))
            claim = replace(claim, after=replace(claim.after, key=key))
        return replace(found, redo=claim)

    patch.setattr(Ledger, "recover", careless)


def no_claims(patch: pytest.MonkeyPatch) -> None:
    """Only the timestamp in a key separates two writers."""
    patch.setattr(SliceWriter, "_claim", lambda self, claim, key: None)
    patch.setattr(Footer, "continues", lambda self, watermark: True)


def no_list_after_claiming(patch: pytest.MonkeyPatch) -> None:
    """An object is written after its claim, however old the watermark is."""

    def careless(self, claim, key):
        if not self.ledger.store.create(key, claim.to_text().encode()):
            raise Superseded(key)

    patch.setattr(SliceWriter, "_claim", careless)
    patch.setattr(Footer, "continues", lambda self, watermark: True)


def detached_leaf_advances(patch: pytest.MonkeyPatch) -> None:
    """A commit advances every leaf of the watermark to the horizon, also detached ones."""
    plan = planning.plan

    def careless(watermark, table, horizon, *rest):
        step = plan(watermark, table, horizon, *rest)
        if not isinstance(step, Read):
            return step
        present = {item.oid for item in table.relations}
        absent = {oid: replace(leaf, swept=horizon) for oid, leaf in step.after.leaves.items() if oid not in present}
        return replace(step, after=step.after.with_leaves(absent))

    patch.setattr(planning, "plan", careless)


def new_leaf_counts_as_copied(patch: pytest.MonkeyPatch) -> None:
    """A new partition is read from the watermark of the others, not from the start."""

    def careless(self, oid):
        known = next(iter(self.leaves.values()), Leaf())
        return self.leaves.get(oid) or Leaf(known.swept)

    patch.setattr(Watermark, "leaf", careless)


def horizon_not_checked(patch: pytest.MonkeyPatch) -> None:
    """There is no guard against a snapshot that is older than the horizon."""
    patch.setattr(SimulatedSource, "guard", lambda self, end: None)


def next_id_as_horizon(patch: pytest.MonkeyPatch) -> None:
    """All transactions below the next id count as finished; the guard is missing, too."""
    patch.setattr(SimulatedSource, "guard", lambda self, end: None)
    patch.setattr(SimulatedSource, "horizon", lambda self, at_least=None: self.cluster.next_xid)


def name_instead_of_oid(patch: pytest.MonkeyPatch) -> None:
    """A table created again under the same name continues with the old watermark."""
    plan = planning.plan

    def careless(watermark, table, *rest):
        leaves = {}
        if table.oid not in watermark.leaves and watermark.leaves:
            leaves = {table.oid: list(watermark.leaves.values())[-1]}
        return plan(replace(watermark, table=table.oid).with_leaves(leaves), table, *rest)

    patch.setattr(planning, "plan", careless)


def table_not_compared_after_the_read(patch: pytest.MonkeyPatch) -> None:
    """The definition of the table is not compared before and after a read."""
    refresh = SliceSource.refresh_table

    def careless(self):
        refresh(self)
        self.table = replace(self.table, fingerprint="always the same")
        return self.table.fingerprint

    patch.setattr(SliceSource, "refresh_table", careless)


def pending_takes_a_new_horizon(patch: pytest.MonkeyPatch) -> None:
    """Each block range is read up to the horizon of its own tick."""
    plan = planning.plan

    def careless(watermark, table, horizon, *rest):
        pending = {oid: leaf for oid, leaf in watermark.leaves.items() if leaf.pending}
        moved = {oid: replace(leaf, pending=replace(leaf.pending, upto=horizon)) for oid, leaf in pending.items()}
        return plan(watermark.with_leaves(moved), table, horizon, *rest)

    patch.setattr(planning, "plan", careless)


def last_range_ends_where_the_table_ended(patch: pytest.MonkeyPatch) -> None:
    """The last block range ends at the size that the table had when it was planned."""
    plan = planning.plan

    def careless(watermark, table, *rest):
        step = plan(watermark, table, *rest)
        if not isinstance(step, Read) or not step.region.blocks or step.region.blocks[1] is not None:
            return step
        pages = next(item.page_count for item in table.relations if item.oid in step.region.leaves)
        return replace(step, region=replace(step.region, blocks=(step.region.blocks[0], pages - 1)))

    patch.setattr(planning, "plan", careless)


def crash_then(alteration: str) -> Callable[[Protocol, int], None]:
    def play(model: Protocol, step: int) -> None:
        model.tick({step: "crash"}, "latest", 2, eager=False, dated=False, passed_s=1, stale="")
        if alteration == "write":
            transaction = model.cluster.begin()
            model.cluster.insert(transaction, model.cluster.leaf(0), 0)
            model.cluster.end(transaction, commit=True)
        else:
            model.alter(alteration, 0)

    return play


def alter_while_reading(model: Protocol, step: int) -> None:
    model.an_undisturbed_tick("latest", rows=9)
    for leaf in (0, 1):
        model.load(leaf, count=2, per_block=1)
    model.tick({step: "detach"}, "latest", 9, eager=False, dated=False, passed_s=1, stale="")


def claim_left_then_two(model: Protocol, step: int) -> None:
    model.tick({14 + step % 8: "crash"}, "latest", 9, eager=False, dated=False, passed_s=1, stale="")
    model.two_writers(1 + step // 8, None, rows=9)


def run_two_writers(model: Protocol, step: int) -> None:
    model.two_writers(step, None, rows=2)


def detach_and_write(model: Protocol, _step: int) -> None:
    model.alter("detach", 0)
    away = model.cluster.files[model.cluster.detached[0]]
    transaction = model.cluster.begin()
    model.cluster.insert(transaction, away, 0)
    model.cluster.end(transaction, commit=True)
    model.load(0, count=2, per_block=1)
    model.an_undisturbed_tick("latest", rows=9)


def new_partition(model: Protocol, _step: int) -> None:
    model.alter("attach", 3)
    model.cluster.files[model.cluster.attached[-1]].versions[0].xmin = 100  # loaded long before


def full_blocks(model: Protocol, _step: int) -> None:
    model.load(0, count=9, per_block=5)
    model.tick({14: "crash"}, "latest", 2, eager=False, dated=False, passed_s=1, stale="")


def read_lagging_server(model: Protocol, _step: int) -> None:
    model.remember_this_moment()
    model.load(0, count=2, per_block=1)
    model.tick({}, "latest", 9, eager=False, dated=False, passed_s=1, stale="view")


def late_commit(model: Protocol, _step: int) -> None:
    model.write(0, nth=0, row=0, ops=["insert"])
    model.load(0, count=2, per_block=1)
    model.an_undisturbed_tick("latest", rows=9)


def swap_by_rename(model: Protocol, _step: int) -> None:
    model.alter("recreate", 0)
    for version in model.cluster.leaf(0).versions:
        version.xmin, version.id = 100, version.id + 1000  # filled long before, under another name


AFTER_A_CRASH = {name: crash_then(name) for name in ("rewrite", "write")}
SWEPT = [*AFTER_A_CRASH.values(), alter_while_reading, claim_left_then_two, run_two_writers]
PLANTED = [
    (pending_over_a_rewrite, Protocol, AFTER_A_CRASH["rewrite"]),
    (pending_takes_a_new_horizon, Protocol, AFTER_A_CRASH["write"]),
    (last_range_ends_where_the_table_ended, Protocol, AFTER_A_CRASH["write"]),
    (a_partly_read_block_counts_as_read, Protocol, full_blocks),
    (a_partly_read_block_is_read_again, Protocol, full_blocks),
    (redo_without_listing, Protocol, claim_left_then_two),
    (no_claims, Protocol, run_two_writers),
    (no_list_after_claiming, Protocol, run_two_writers),
    (table_not_compared_after_the_read, PartitionedProtocol, alter_while_reading),
    (detached_leaf_advances, PartitionedProtocol, detach_and_write),
    (new_leaf_counts_as_copied, PartitionedProtocol, new_partition),
    (horizon_not_checked, Protocol, read_lagging_server),
    (next_id_as_horizon, Protocol, late_commit),
    (name_instead_of_oid, Protocol, swap_by_rename),
]


@pytest.mark.parametrize("fault, kind, play", PLANTED, ids=[fault.__name__ for fault, _, _ in PLANTED])
def test_a_planted_fault_is_found_and_nothing_without_it(fault, kind, play):
    """If the checks found nothing, all tests above would pass."""
    broken = type("Broken", (kind,), {"fault": staticmethod(fault)})

    def play_all(machine: type[Protocol]) -> None:
        for step in range(1, 70 if play in SWEPT else 3):
            with scene(machine) as model:
                play(model, step)

    with pytest.raises((AssertionError, HistoryChanged, LakeDamaged)):
        play_all(broken)
    play_all(kind)
