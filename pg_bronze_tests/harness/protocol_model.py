"""The model of the protocol: the product's planner and commit on a simulated cluster and bucket.

Hypothesis generates the writers, the operator and the accidents. Invariants are checked after each of their actions.
"""

import copy as copies
import io
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pg_bronze.core import ranges, slice_size, window_sql
from pg_bronze.core.band_rules import BandRules
from pg_bronze.core.next_read import Quiet
from pg_bronze.core.watermark import Watermark
from pg_bronze.errors import TransientError
from pg_bronze.lake.commit import SliceWriter, write_all
from pg_bronze.lake.footer import Footer
from pg_bronze.lake.ledger import Ledger
from pg_bronze.postgres import catalog
from pg_bronze.sync import floors, reads_ahead, slice_stream
from pg_bronze.sync.options import SyncOptions
from pg_bronze.sync.table_sync import TableSync
from pg_bronze_tests.harness.simulated_cluster import Cluster, Transaction
from pg_bronze_tests.harness.simulated_edges import (
    START,
    Crash,
    SimulatedFuture,
    SimulatedPool,
    SimulatedSource,
    SimulatedStore,
    StepCounter,
    find_floor,
    read_table,
)

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
    bands: BandRules | None = None
    parallel = 1
    fault: Callable[[pytest.MonkeyPatch], None] | None = None

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(
            window_sql, "select", lambda region, _columns, _xid, _names, limit, _bound=None: (region, limit)
        )
        self.patch.setattr(catalog, "read_table", read_table)
        for module in (slice_stream, reads_ahead):
            self.patch.setattr(module, "ThreadPoolExecutor", SimulatedPool)
        self.patch.setattr(window_sql, "exists", lambda region, _names: region)
        self.patch.setattr(floors, "find", find_floor)
        self.patch.setattr(ranges, "COMMIT_AFTER_S", 1e-4)
        self.patch.setattr(slice_size, "LINES_PER_BLOCK", 6)
        if self.fault:
            self.fault(self.patch)
        self.cluster = Cluster(self.partitioned)
        self.known = self.cluster.table()
        self.objects: dict[str, bytes] = {}
        self.recorded: list[Watermark] = []
        self.progress: list[Watermark] = []
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
        self,
        events: dict[int, str],
        recorded: Watermark | None,
        rows: int,
        dated: bool = False,
        stale: str = "",
        complete: bool = False,
    ) -> bool:
        """Run one tick of one process, and return whether it had anything to do. It may raise a TransientError."""
        steps = StepCounter({})
        store = SimulatedStore(self.objects, steps)
        view, horizon = (self.view if stale == "view" else None), (self.kept_horizon if stale == "horizon" else None)
        source = SimulatedSource(self.cluster, steps, view, horizon)
        steps.events = {step: self._event(name, steps, store, step) for step, name in events.items()}
        bands = replace(self.bands, complete=complete) if self.bands else None
        options = SyncOptions(
            slice_rows=rows, slice_bytes=3 * 8192, dated=dated, bands=bands, load_parallel=self.parallel
        )
        with TableSync(source, store, self.known, options, now=lambda: self.now, on_step=steps) as writer:
            stream = writer.start(recorded, self.progress[-1] if self.progress else None)
            if isinstance(stream, Quiet):
                self._remember(writer, writer.watermark)
                return False
            report = write_all(stream.slices(), SliceWriter(Ledger(store, writer.layout), options.codec, steps))
            steps()
            self.recorded.append(report.watermark)
            self._remember(writer, report.watermark)
        return True

    def _remember(self, writer: TableSync, watermark: Watermark | None) -> None:
        if watermark is not None and (progress := writer.slices.progress_after(watermark)):
            self.progress.append(progress)

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
                frame = pl.read_parquet(io.BytesIO(body), columns=["id", "_pg_xid"])
                self._read[body] = footer, frame.rows()
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
            if not self._tick({}, self._recorded(["latest", "older", "none"][n % 3]), 4, complete=True):
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


class ParallelProtocol(PartitionedProtocol):
    """The same with first loads that read three block ranges at once."""

    parallel = 3


# Every table with a block is divided, and a sweep takes several ticks.
FORCED = BandRules(one_band_s=0.0, share=1e-5, chunk_s=1e-5, chunk_blocks=2, rank=2, top_rows=3)


class BandedProtocol(Protocol):
    """The same with a table that is divided into bands, whose index and columns come and go."""

    bands = FORCED

    @rule(
        what=st.sampled_from(["unindex", "unindex", "replace_column"]),
        nth=NTH,
    )
    def change_order(self, what, nth):
        getattr(self.cluster, what)(nth)

    @rule(now=st.booleans())
    def change_schedule(self, now):
        """Sweep in every tick, or after a while."""
        self.bands = replace(FORCED, share=1.0 if now else 1e-5)

    @rule()
    def forget_progress(self):
        """Dagster's storage was wiped, or the last observation was not written."""
        self.progress.clear()


class PartitionedBandedProtocol(BandedProtocol):
    """Both."""

    partitioned = True


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


@contextmanager
def first_load(machine: type[Protocol] = ParallelProtocol) -> Iterator[Protocol]:
    """Yield a table of many blocks that was never copied; check it at the end."""
    model = machine()
    try:
        model.start_with(count=10, per_block=1)
        yield model
    finally:
        model.teardown()
