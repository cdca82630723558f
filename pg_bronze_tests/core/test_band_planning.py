"""The next read of a table with bands."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pg_bronze.core import band_planning
from pg_bronze.core.band_rules import POOR_SWEEPS, BandRules, Sweeps
from pg_bronze.core.leaf import MAX_BANDS, Band, Leaf, Order, Sweep
from pg_bronze.core.next_read import FindFloor, Quiet, Read, Run, TickState
from pg_bronze.core.planning import plan
from pg_bronze.core.ranges import HEARTBEAT_WIDTH
from pg_bronze.core.slice_size import SliceSize
from pg_bronze_tests.harness.literals import mark, sized_table

NOW = datetime(2026, 1, 2, tzinfo=UTC)
ORDER, OTHER = Order(1, "int8"), Order(2, "int8")
RULES = BandRules(one_band_s=0.0, share=0.01, chunk_s=1.0)
RECENT, LONG_AGO = NOW.isoformat(), (NOW - timedelta(days=9)).isoformat()
BLOCKS = 1000
LARGE = sized_table(BLOCKS)


def found(floor, order=ORDER):
    return TickState(floors={order: floor})


def step(leaf, *, horizon=70, of=LARGE, tick=None, rules=RULES, sweeps=Sweeps(), orders=(ORDER,), turn_s=None):  # noqa: B008
    leaves = leaf if isinstance(leaf, dict) else {9: leaf}
    watermark = replace(mark(leaves), sweeps=sweeps)
    run = Run(rules, NOW, orders, turn_s=turn_s)
    return plan(watermark, of, horizon, False, SliceSize(100, 2**20, 10), tick or TickState(), run)


def banded(swept=50, top=60, sweep=None, swept_at=RECENT, floor="5"):
    return Leaf(swept, sweep, ORDER, (Band(floor, top),), swept_at)


@pytest.fixture(autouse=True)
def columns(monkeypatch):
    """The planner compares the type of the order with the table's first column."""
    monkeypatch.setattr(Order, "holds", lambda *_: True)


def test_a_large_table_is_divided_before_its_first_load():
    """Otherwise no new row would arrive before the load ends."""
    assert step(Leaf()) == FindFloor(ORDER)
    fresh = step(Leaf(), tick=found("5"))
    assert (fresh.kind, fresh.region.start, fresh.region.end) == ("fresh", None, 70)
    assert fresh.after.leaf(9) == Leaf(None, None, ORDER, (Band("5", 70),))


def test_the_first_load_continues_below_the_floor_up_to_the_transaction_of_the_fresh_read():
    begun = step(Leaf(None, None, ORDER, (Band("5", 70),)))
    assert (begun.kind, begun.begins, begun.region.blocks) == ("sweep", True, (0, 10))
    assert begun.after.leaf(9).sweep == Sweep(70, 10, 1, 0, "5", BLOCKS, RECENT)


def test_the_newest_rows_are_read_although_the_first_load_of_the_others_gives_way():
    """They arrive in every run; only the rest of the load waits for the next one."""
    loading = Leaf(None, Sweep(60, 10, 1, 0, "5", 100), ORDER, (Band("5", 60),))
    late = replace(found("5"), loading_s=61.0)
    fresh = step(loading, tick=late, turn_s=60.0)
    assert (fresh.kind, fresh.region.start, fresh.region.end) == ("fresh", 60, 70)
    assert step(fresh.after.leaf(9), tick=late, turn_s=60.0).partial


def test_an_order_without_a_floor_is_passed_over():
    assert step(Leaf(), orders=(ORDER, OTHER), tick=found(None)) == FindFloor(OTHER)


def test_a_fresh_read_comes_before_a_sweep_in_progress():
    sweep = Sweep(60, 10, 1, 0, "5", 100)
    fresh = step(banded(sweep=sweep))
    assert (fresh.kind, fresh.region.start, fresh.region.end, fresh.region.blocks) == ("fresh", 60, 70, None)
    assert fresh.after.leaf(9) == banded(top=70, sweep=sweep)
    assert step(fresh.after.leaf(9), sweeps=Sweeps(block_us=1e5)).region.blocks == (10, 20)


def test_no_fresh_read_runs_during_a_sweep_of_all_rows():
    """It would deliver rows that the sweep delivers again."""
    leaf = Leaf(50, Sweep(60, 10, 1, end=100), swept_at=RECENT)
    assert step(leaf).kind == "sweep"


def test_a_sweep_ends_where_the_table_ended_when_it_began():
    """A table that grows faster than it is read would be swept for ever."""
    last = step(banded(top=70, sweep=Sweep(60, 95, 1, 0, "5", 100)))
    assert last.region.blocks == (95, None)
    assert last.ends


def test_the_sweep_of_a_table_with_bands_waits_for_its_schedule():
    assert "the next sweep begins in" in step(banded(top=70)).reason
    assert step(banded(top=70, swept_at=LONG_AGO)).kind == "sweep"
    assert step(banded(top=70), rules=replace(RULES, complete=True)).kind == "sweep"


def test_a_sweep_begins_at_the_horizon_of_the_fresh_read_before_it():
    """Up to the transaction of an older fresh read it would deliver nothing, as long as only old rows change."""
    begun = step(banded(top=70, swept_at=LONG_AGO))
    assert begun.begins
    assert begun.after.leaf(9) == banded(swept=70, top=70)
    assert (begun.region.start, begun.region.end, begun.region.blocks) == (50, 70, None)


def test_one_run_sweeps_for_a_second():
    spent = TickState(sweep_s=0.9999)
    slow = Sweeps(block_us=1000.0)
    sweep = Sweep(60, 10, 1, 0, "5", 5000)
    assert step(banded(top=70, sweep=sweep), tick=spent, sweeps=slow) == Quiet(
        "no row with one of the newest values since 70; the next sweep begins in 100 s", partial=True
    )
    assert step(banded(top=70, sweep=sweep), tick=spent, sweeps=replace(slow, urgent=True)).kind == "sweep"
    assert step(banded(top=70, sweep=sweep), sweeps=slow).kind == "sweep"


def test_a_part_of_a_sweep_takes_a_second_and_an_eighth_of_the_cache():
    huge = sized_table(10**6)
    leaf = banded(top=70, sweep=Sweep(60, 0, 1, 0, "5", 10**6))
    assert step(leaf, of=huge, sweeps=Sweeps(block_us=10)).region.blocks == (0, 100_000)
    assert step(leaf, of=huge, rules=replace(RULES, chunk_blocks=77)).region.blocks == (0, 77)


def test_a_window_of_a_billion_transactions_is_swept_whatever_the_schedule():
    """Transaction ids wrap around, and only a sweep raises the lowest band."""
    horizon = 50 + HEARTBEAT_WIDTH + 1
    assert step(banded(top=horizon), horizon=horizon).kind == "sweep"
    assert isinstance(step(banded(top=horizon - 1), horizon=horizon - 1), Quiet)


def test_the_floor_moves_after_many_fresh_rows_and_the_rows_between_are_read():
    crowded = Sweeps(above=RULES.top_rows)
    assert step(banded(), sweeps=crowded) == FindFloor(ORDER)
    moved = step(banded(), sweeps=crowded, tick=found("9"))
    assert moved.moves
    assert moved.after.leaf(9).upper == (Band("5", 70), Band("9", 70))
    assert (moved.region.start, moved.region.cells[0].floor) == (60, "5")


def test_a_floor_comes_down_with_the_newest_rows():
    """After deletes at the top, or one row dated 2999."""
    lowered = step(banded(), sweeps=Sweeps(above=RULES.top_rows), tick=found("2"))
    assert lowered.after.leaf(9).upper == (Band("2", 70),)
    assert {(cell.floor, cell.start) for cell in lowered.region.cells} == {("2", 50), ("5", 60)}


def test_the_highest_number_of_bands_is_merged_from_the_lowest_that_no_sweep_covers():
    upper = tuple(Band(str(n), 50 + n) for n in range(1, MAX_BANDS))
    merged = step(Leaf(50, None, ORDER, upper, RECENT), sweeps=Sweeps(above=RULES.top_rows), tick=found("9"))
    assert merged.after.leaf(9).upper == (Band("1", 70), Band("9", 70))
    covered = Leaf(50, Sweep(53, 1, 1, 0, "3", 9), ORDER, upper, RECENT)
    merged = step(covered, sweeps=Sweeps(above=RULES.top_rows), tick=found("9"))
    assert [band.floor for band in merged.after.leaf(9).upper] == ["1", "2", "3", "9"]


def test_too_many_fresh_rows_raise_the_floor_to_the_newest_value_and_are_swept_without_a_budget():
    assert step(banded(), tick=TickState(overflow=1)) == FindFloor(ORDER, newest=True)
    empty = step(banded(), tick=replace(found("9"), overflow=1))
    assert empty.after.leaf(9).upper == (Band("5", 60), Band("9", 70))
    assert [cell.floor for cell in empty.region.cells] == ["9"]
    begun = step(empty.after.leaf(9), tick=replace(found("9"), overflow=1), sweeps=Sweeps(urgent=True))
    assert begun.after.leaf(9) == Leaf(70, None, ORDER, (Band("9", 70),), RECENT)


@pytest.mark.parametrize("tick", [replace(found("5"), overflow=2), replace(found("4"), overflow=1)])
def test_rows_above_every_floor_are_swept_with_all_others(tick):
    whole = step(banded(), tick=tick, sweeps=Sweeps(urgent=True))
    assert whole.after.leaf(9) == Leaf(70, swept_at=RECENT)


def test_an_order_that_finds_few_new_rows_is_given_up_with_the_next_sweep():
    poor = Sweeps(poor=POOR_SWEEPS)
    whole = step(banded(top=70, swept_at=LONG_AGO), sweeps=poor)
    assert whole.after.leaf(9) == Leaf(70, swept_at=RECENT)
    noted = band_planning.noted(replace(mark({9: banded(top=70)}), sweeps=poor), whole, LARGE, 0, 0.1, Run(RULES, NOW))
    assert noted.sweeps.rejected == (1,)
    assert step(noted.leaf(9), horizon=80, sweeps=noted.sweeps, orders=(ORDER, OTHER)) == FindFloor(OTHER)


def test_a_lost_index_ends_fresh_reads_until_the_sweep_that_is_due():
    assert isinstance(step(banded(), orders=()), Quiet)
    assert step(banded(swept_at=LONG_AGO), orders=()).after.leaf(9) == Leaf(70, swept_at=RECENT)


def test_all_leaves_of_a_round_are_swept_up_to_the_same_transaction():
    """Otherwise 500 partitions would never share an entry of the watermark again."""
    leaves = {10 + n: replace(banded(), upper=(Band("5", 70), Band("9", 80))) for n in range(3)}
    leaves[10] = Leaf(65, None, ORDER, (Band("5", 70), Band("9", 80)), RECENT)
    of = sized_table(BLOCKS, BLOCKS, BLOCKS)
    following = step(leaves, of=of, horizon=80)
    assert (following.region.name, following.region.end, following.begins) == ("movie_1", 65, False)
    assert following.after.leaf(11) == leaves[10]


def test_a_leaf_that_was_attached_since_gets_the_floor_of_the_others():
    leaves = {10: banded(top=70, swept_at=LONG_AGO), 11: Leaf()}
    fresh = step(leaves, of=sized_table(BLOCKS, BLOCKS), tick=found(None))
    assert fresh.region.leaves == (11,)
    assert fresh.after.leaf(11).upper == (Band("5", 70),)


def test_a_table_without_an_order_is_read_completely_by_its_schedule():
    whole = step(Leaf(50, swept_at=LONG_AGO), orders=())
    assert isinstance(whole, Read)
    assert whole.after.leaf(9) == Leaf(70, swept_at=RECENT)
    assert step(Leaf(50, swept_at=RECENT), orders=()).partial


def test_a_table_that_became_small_has_one_band_again():
    small = step(banded(), of=sized_table(0))
    assert small.after.leaf(9) == Leaf(70)
