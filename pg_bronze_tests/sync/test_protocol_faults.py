"""The model of the protocol finds known faults.

Each fault was made once, or looks reasonable. If the checks did not find it, test_protocol_model.py would prove
nothing.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from pg_bronze.core import planning
from pg_bronze.core.leaf import Leaf
from pg_bronze.core.planning import Read
from pg_bronze.core.watermark import Watermark
from pg_bronze.errors import HistoryChanged, LakeDamaged, Superseded
from pg_bronze.lake.commit import SliceWriter
from pg_bronze.lake.footer import Footer
from pg_bronze.lake.keys import next_time
from pg_bronze.lake.ledger import Ledger
from pg_bronze.sync.reads_ahead import ReadsAhead
from pg_bronze.sync.slice_source import SliceSource
from pg_bronze_tests.harness.protocol_model import ParallelProtocol, PartitionedProtocol, Protocol, first_load, scene
from pg_bronze_tests.harness.repetitions import also
from pg_bronze_tests.harness.simulated_edges import SimulatedSource


def pending_over_a_rewrite(patch: pytest.MonkeyPatch) -> None:
    """A window in block ranges continues after VACUUM FULL, although every row has moved."""
    plan = planning.plan

    def careless(watermark, table, *rest):
        changed = {}
        for item in table.relations:
            leaf = watermark.leaf(item.oid)
            if leaf.sweep:
                changed[item.oid] = replace(leaf, sweep=replace(leaf.sweep, relfilenode=item.relfilenode))
        return plan(watermark.with_leaves(changed), table, *rest)

    patch.setattr(planning, "plan", careless)


def a_partly_read_block_counts_as_read(patch: pytest.MonkeyPatch) -> None:
    """A window that stopped inside a block continues with the next block."""
    plan = planning.plan

    def careless(watermark, table, *rest):
        changed = {}
        for item in table.relations:
            leaf = watermark.leaf(item.oid)
            if leaf.sweep and leaf.sweep.line:
                moved = replace(leaf.sweep, block=leaf.sweep.block + 1, line=0)
                changed[item.oid] = replace(leaf, sweep=moved)
        return plan(watermark.with_leaves(changed), table, *rest)

    patch.setattr(planning, "plan", careless)


def a_partly_read_block_is_read_again(patch: pytest.MonkeyPatch) -> None:
    """A window that stopped inside a block forgets once what it has delivered of the block."""
    plan, forgotten = planning.plan, []

    def careless(watermark, table, *rest):
        changed = {}
        for item in table.relations:
            leaf = watermark.leaf(item.oid)
            if leaf.sweep and leaf.sweep.line and not forgotten:
                forgotten.append(leaf)
                changed[item.oid] = replace(leaf, sweep=replace(leaf.sweep, line=0))
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
    patch.setattr(Ledger, "is_recent", lambda *_: False)


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
        pending = {oid: leaf for oid, leaf in watermark.leaves.items() if leaf.sweep}
        moved = {oid: replace(leaf, sweep=replace(leaf.sweep, upto=horizon)) for oid, leaf in pending.items()}
        return plan(watermark.with_leaves(moved), table, horizon, *rest)

    patch.setattr(planning, "plan", careless)


def read_ahead_is_never_dropped(patch: pytest.MonkeyPatch) -> None:
    """What is read ahead is used for the next range, whatever that is."""
    patch.setattr(ReadsAhead, "keep", lambda *_: None)


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
    model.tick({7: "crash"}, "latest", 2, eager=False, dated=False, passed_s=1, stale="")


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


FOUND = (AssertionError, HistoryChanged, LakeDamaged)


@pytest.mark.parametrize("fault, kind, play", PLANTED, ids=[fault.__name__ for fault, _, _ in PLANTED])
def test_a_planted_fault_is_found_and_nothing_without_it(fault, kind, play):
    """If the checks found nothing, all tests above would pass."""
    broken = type("Broken", (kind,), {"fault": staticmethod(fault)})

    found = next((step for step in steps(play) if finds(broken, play, step)), None)

    assert found is not None
    play_at(kind, play, found)


@pytest.mark.parametrize("every", [4, *also(1)])
@pytest.mark.parametrize("kind, play", {(kind, play): None for _, kind, play in PLANTED if play in SWEPT})
def test_nothing_is_found_at_any_step_without_a_fault(kind, play, every):
    for step in steps(play)[::every]:
        play_at(kind, play, step)


def steps(play: Callable[[Protocol, int], None]) -> range:
    return range(1, 70 if play in SWEPT else 3)


def play_at(machine: type[Protocol], play: Callable[[Protocol, int], None], step: int) -> None:
    with scene(machine) as model:
        play(model, step)


def finds(machine: type[Protocol], play: Callable[[Protocol, int], None], step: int) -> bool:
    try:
        play_at(machine, play, step)
    except FOUND:
        return True
    return False


def test_rows_read_ahead_for_another_plan_are_found():
    """The table is rewritten while three ranges are read, and the ranges after the first are used all the same."""
    broken = type("Broken", (ParallelProtocol,), {"fault": staticmethod(read_ahead_is_never_dropped)})

    with pytest.raises(AssertionError), first_load(broken) as model:
        model.tick({15: "rewrite"}, "latest", 2, eager=True, dated=False, passed_s=1, stale="")
    with first_load() as model:
        model.tick({15: "rewrite"}, "latest", 2, eager=True, dated=False, passed_s=1, stale="")
