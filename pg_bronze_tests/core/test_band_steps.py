"""The steps of a leaf with bands, in random histories: nothing is lost, and nothing is read twice."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pg_bronze.core import band_steps
from pg_bronze.core.cells import difference
from pg_bronze.core.leaf import MAX_BANDS, Band, Leaf, Order, Sweep
from pg_bronze_tests.core.test_cells import BLOCKS, COLUMN, FLOORS, ROWS, in_cells, is_delivered
from pg_bronze_tests.harness.band_histories import history

ABOVE_5 = Leaf(50, None, COLUMN, (Band("5", 70),))


@settings(max_examples=20)
@given(st.randoms(use_true_random=False), st.sampled_from([COLUMN, BLOCKS]))
def test_every_step_of_a_history_reads_exactly_what_its_state_delivers(rnd, order):
    """Whatever the order of steps: an object with other rows than these would lose or double some."""
    floors = FLOORS if order is COLUMN else ["1", "2", "3"]
    seen: set[int] = set()
    leaf = Leaf()
    for before, after in history(rnd, order, floors, 99, 4, 25):
        leaf = after
        cells = difference(before, after)
        read = {n for n, row in enumerate(ROWS) if in_cells(cells, before.order or after.order, row)}
        assert not read & seen, "read twice"
        seen |= read
        assert seen == {n for n, row in enumerate(ROWS) if is_delivered(after, row)}
    if leaf.sweep is not None:
        leaf = band_steps.ended(leaf)
    end = band_steps.ended(band_steps.begin_everything(leaf, 200, 1))
    assert end == Leaf(200)


def test_a_split_delivers_nothing_and_moves_no_transaction():
    assert band_steps.split(ABOVE_5, COLUMN, "9").upper == (Band("5", 70), Band("9", 70))
    assert band_steps.split(ABOVE_5, COLUMN, "3").upper == (Band("3", 50), Band("5", 70))
    assert band_steps.split(ABOVE_5, COLUMN, "5.0") == ABOVE_5
    assert band_steps.split(Leaf(), COLUMN, "5") == Leaf(None, None, COLUMN, (Band("5", None),))


def test_a_split_never_divides_what_a_sweep_covers():
    """Rows between the two floors would belong to another band than the one the sweep read them in."""
    sweeping = band_steps.begin(ABOVE_5, 1, 4)
    assert band_steps.split(sweeping, COLUMN, "3") == sweeping
    assert band_steps.split(sweeping, COLUMN, "9").upper == (Band("5", 70), Band("9", 70))
    everything = band_steps.begin_everything(Leaf(50), 60, 1)
    assert band_steps.split(everything, COLUMN, "3") == everything


def test_a_leaf_never_has_more_than_eight_bands():
    leaf = Leaf(50)
    for floor in range(20):
        leaf = band_steps.split(leaf, COLUMN, str(floor))
    assert 1 + len(leaf.upper) == MAX_BANDS == 8


def test_a_fresh_read_merges_the_bands_above_its_floor():
    leaf = band_steps.split(ABOVE_5, COLUMN, "9")
    assert band_steps.fresh(leaf, "9", 80).upper == (Band("5", 70), Band("9", 80))
    assert band_steps.fresh(leaf, "5", 80).upper == (Band("5", 80),)


def test_fresh_reads_go_on_above_a_sweep_and_keep_it():
    sweeping = band_steps.begin(ABOVE_5, 1, 4)
    assert sweeping.sweep == Sweep(70, 0, 1, below="5", end=4)
    assert band_steps.fresh(sweeping, "5", 80) == Leaf(50, sweeping.sweep, COLUMN, (Band("5", 80),))
    assert band_steps.lowest_floor(band_steps.split(sweeping, COLUMN, "9")) == "5"


def test_the_end_of_a_sweep_merges_what_it_covered_and_keeps_the_bands_above():
    moved = band_steps.split(band_steps.begin(ABOVE_5, 1, 4, "2026-01-01"), COLUMN, "9")
    moved = band_steps.fresh(moved, "9", 90)
    assert band_steps.ended(moved) == Leaf(70, None, COLUMN, (Band("5", 70), Band("9", 90)), "2026-01-01")


def test_a_sweep_ends_at_the_blocks_that_it_began_with():
    """The end of a growing table would never be reached."""
    sweeping = band_steps.begin(ABOVE_5, 1, 4)
    assert not band_steps.is_last(sweeping, 3, 100)
    assert band_steps.is_last(sweeping, 4, 100)
    by_blocks = band_steps.begin(Leaf(50, None, BLOCKS, (Band("2", 70),)), 1, 4)
    assert band_steps.is_last(by_blocks, 2, 100)
    older = Leaf(50, Sweep(70, 0, 1))
    assert not band_steps.is_last(older, 99, 100)


@pytest.mark.parametrize(
    "step",
    [
        lambda: band_steps.split(ABOVE_5, Order(2, "int8"), "9"),
        lambda: band_steps.fresh(ABOVE_5, "5", 60),
        lambda: band_steps.fresh(Leaf(50), "5", 60),
        lambda: band_steps.fresh(band_steps.begin_everything(ABOVE_5, 70, 1), "5", 80),
        lambda: band_steps.begin(Leaf(50), 1, 4),
        lambda: band_steps.begin(band_steps.begin(ABOVE_5, 1, 4), 1, 4),
        lambda: band_steps.begin(Leaf(None, None, COLUMN, (Band("5", None),)), 1, 4),
        lambda: band_steps.begin_everything(ABOVE_5, 60, 1),
        lambda: band_steps.advance(ABOVE_5, 3),
        lambda: band_steps.advance(band_steps.advance(band_steps.begin(ABOVE_5, 1, 4), 3), 2),
        lambda: band_steps.ended(ABOVE_5),
        lambda: band_steps.is_last(ABOVE_5, 1, 1),
    ],
)
def test_a_step_that_would_lose_or_double_rows_is_refused(step):
    with pytest.raises(ValueError, match=r"\w"):
        step()
