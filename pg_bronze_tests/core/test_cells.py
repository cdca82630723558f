"""The difference of two states: what an object contains, what a redo reads, and what verification repairs."""

import itertools
import sqlite3
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pg_bronze.core.cells import Cell, difference
from pg_bronze.core.leaf import Band, Leaf, Order, Sweep
from pg_bronze.core.region import Region, with_difference
from pg_bronze.core.table import Relation
from pg_bronze.core.window_sql import NEXT, guard, where

COLUMN, BLOCKS = Order(1, "int8"), Order(relfilenode=1)
FLOORS = ["1", "2", "10"]
PLACES = [(block, line) for block in range(4) for line in (1, 2)]
ROWS = [
    SimpleNamespace(xid=xid, place=place, value=value)
    for xid, place, value in itertools.product(range(100, 106), PLACES, (None, 1, 2, 5, 10, 11))
]
XIDS = st.integers(100, 106)


def is_above(order, floor, row):
    """Return whether a row is above a floor, as the server compares them."""
    if order.attnum is None:
        return row.place[0] >= int(floor)
    return row.value is not None and row.value > int(floor)


def is_delivered(leaf, row):
    """Return whether a row is delivered, by the definition in docs/architecture.md."""
    upto = leaf.swept
    for band in leaf.upper:
        if is_above(leaf.order, band.floor, row):
            upto = band.upto
    if upto is not None and row.xid < upto:
        return True
    sweep = leaf.sweep
    if sweep is None or row.xid >= sweep.upto or row.place >= sweep.position:
        return False
    return sweep.below is None or not is_above(leaf.order, sweep.below, row)


@st.composite
def states(draw, order=None):
    """A state that violates no invariant."""
    order = order or draw(st.sampled_from([COLUMN, BLOCKS]))
    floors = draw(st.sets(st.sampled_from(FLOORS if order is COLUMN else ["1", "2", "3"]), max_size=2))
    floors = sorted(floors, key=int)
    uptos = sorted(draw(st.lists(XIDS, min_size=len(floors) + 1, max_size=len(floors) + 1)))
    upper = tuple(Band(floor, upto) for floor, upto in zip(floors, uptos[1:], strict=True))
    swept = draw(st.sampled_from([uptos[0], None]))
    sweep = None
    if draw(st.booleans()):
        below = draw(st.sampled_from([None, *floors]))
        covered = len(uptos) if below is None else 1 + floors.index(below)
        upto = draw(st.integers(uptos[covered - 1], 106 if covered == len(uptos) else uptos[covered]))
        block, line = draw(st.sampled_from([(0, 0), (1, 0), (1, 2), (3, 1), (4, 0)]))
        sweep = Sweep(upto, block, 1, line, below)
    return Leaf(swept, sweep, order if upper else None, upper)


@st.composite
def pairs(draw):
    """Two states of one order, of which the second delivers whatever the first does."""
    order = draw(st.sampled_from([COLUMN, BLOCKS]))
    before = draw(states(order))
    after = draw(st.just(before) | states(order))
    grows = all(is_delivered(after, row) >= is_delivered(before, row) for row in ROWS)
    return (before, after) if grows else None


def in_cells(cells, order, row):
    def contains(cell):
        return (
            (cell.start is None or row.xid >= cell.start)
            and row.xid < cell.end
            and (cell.floor is None or is_above(order, cell.floor, row))
            and (cell.ceiling is None or not is_above(order, cell.ceiling, row))
            and row.place >= cell.first
            and (cell.last is None or row.place < cell.last)
        )

    found = sum(map(contains, cells))
    assert found <= 1, "two cells contain the same row"
    return bool(found)


@given(states())
def test_a_state_that_violates_no_invariant_has_no_problem(state):
    assert state.problem() is None


@given(pairs().filter(bool))
def test_the_difference_of_two_states_is_what_the_second_delivers_and_the_first_does_not(pair):
    """A row too many is doubled by a redo, one too few is lost."""
    before, after = pair
    try:
        cells = difference(before, after)
    except ValueError:
        # No row of this small table shows it, but some row would be delivered less.
        return
    order = before.order or after.order
    for row in ROWS:
        assert in_cells(cells, order, row) == (is_delivered(after, row) and not is_delivered(before, row))


SQLITE = sqlite3.connect(":memory:", check_same_thread=False)
SQLITE.execute("create table rows (xid, block, line, value)")
SQLITE.executemany(
    "insert into rows values (?, ?, ?, ?)", [(row.xid, row.place[0], row.place[1], row.value) for row in ROWS]
)


def chosen_by_sql(region):
    """Return the numbers of the rows that the condition of a region selects."""
    sql = where(region, {1: "value"}).replace(f"\n  and {guard(region.end)}", "")
    sql = sql.replace(NEXT, "200").replace("pg_catalog.age(t.xmin)", "(200 - t.xid)")
    sql = sql.replace("t.ctid", "(block * 1000 + line)")
    for block, line in itertools.product(range(12), range(4)):
        sql = sql.replace(f"'({block},{line})'::pg_catalog.tid", str(block * 1000 + line))
    for floor in FLOORS:
        sql = sql.replace(f"> '{floor}'", f"> {floor}")
    return {rowid - 1 for (rowid,) in SQLITE.execute(f"select rowid from rows t where {sql}")}


@given(pairs().filter(bool))
def test_the_sql_of_a_difference_selects_exactly_its_rows(pair):
    before, after = pair
    try:
        region = with_difference(Region("public", "movie", True, (9,), None, 0), before, after)
    except ValueError:
        return
    expected = {n for n, row in enumerate(ROWS) if is_delivered(after, row) and not is_delivered(before, row)}
    assert (chosen_by_sql(region) if region else set()) == expected


TWO = Leaf(50, None, COLUMN, (Band("5", 60), Band("10", 70)))


@pytest.mark.parametrize(
    "state, words",
    [
        (Leaf(50, order=COLUMN), "bands need an order"),
        (Leaf(50, upper=(Band("5", 60),)), "bands need an order"),
        (Leaf(50, None, COLUMN, (Band("10", 60), Band("5", 60))), "floors do not ascend"),
        (Leaf(50, None, COLUMN, (Band("5", 60), Band("5.0", 60))), "floors do not ascend"),
        (Leaf(70, None, COLUMN, (Band("5", 60),)), "delivered further"),
        (Leaf(50, Sweep(60, 3, 1, below="7"), COLUMN, (Band("5", 60),)), "not a floor"),
        (Leaf(50, Sweep(55, 3, 1), COLUMN, (Band("5", 60),)), "behind a band"),
        (Leaf(50, Sweep(65, 3, 1, below="5"), COLUMN, (Band("5", 60),)), "ahead of a band"),
    ],
)
def test_a_state_that_violates_an_invariant_names_it(state, words):
    assert words in state.problem()


def test_a_fresh_read_is_bounded_by_its_floor_and_each_band_by_its_own_transaction():
    after = Leaf(50, None, COLUMN, (Band("5", 80),))
    cells = difference(TWO, after)
    assert cells == (Cell(60, 80, "5", "10"), Cell(70, 80, "10"))
    sql = where(with_difference(Region("public", "movie", True, (9,), None, 0), TWO, after), {1: "at"})
    assert """\n  and t."at" > '5'\n""" in sql
    assert """case when t."at" > '10' then pg_catalog.age(t.xmin) <= (select """ in sql


def test_a_split_delivers_nothing():
    assert difference(Leaf(50), Leaf(50, None, COLUMN, (Band("5", 50),))) == ()


def test_a_state_that_delivers_less_has_no_difference():
    with pytest.raises(ValueError, match="never shrinks"):
        difference(TWO, Leaf(55))


def test_two_orders_have_no_difference():
    with pytest.raises(ValueError, match="different orders"):
        difference(TWO, Leaf(50, None, BLOCKS, (Band("5", 60),)))


@pytest.mark.parametrize(
    "order, low, high",
    [
        (COLUMN, "9", "10"),
        (BLOCKS, "9", "10"),
        (Order(1, "numeric"), "-10", "-9.5"),
        (Order(1, "float8"), "9", "1e+20"),
        (Order(1, "date"), "0044-03-15 BC", "0044-03-15"),
        (Order(1, "timestamptz"), "9999-12-31 00:00:00+00", "10000-01-01 00:00:00+00"),
        (Order(1, "timestamp"), "2026-01-01 00:00:00.05", "2026-01-01 00:00:00.5"),
    ],
)
def test_floors_are_compared_as_values(order, low, high):
    assert order.key(low) < order.key(high)


def relation(relfilenode, *moved):
    return Relation(9, "public", "movie", relfilenode, 1, 0, (), moved)


@pytest.mark.parametrize(
    "order, relation, types, expected",
    [
        (COLUMN, relation(2), {1: "int8"}, True),
        (COLUMN, relation(1), {1: "int4"}, False),
        (COLUMN, relation(1), {}, False),
        (BLOCKS, relation(1), {}, True),
        (BLOCKS, relation(2), {}, False),
        (Order(1, "timestamp"), relation(2), {1: "timestamptz"}, True),
        (COLUMN, relation(1, (1, 4)), {1: "int8"}, False),
        (replace(COLUMN, own=4), relation(1, (1, 4)), {1: "int8"}, True),
        (replace(COLUMN, own=4), relation(1, (1, 5)), {1: "int8"}, False),
        (replace(COLUMN, own=4), relation(1), {1: "int8"}, False),
    ],
)
def test_an_order_is_lost_with_its_column_its_type_or_its_file(order, relation, types, expected):
    """A partition's column may have been replaced while it was detached; the number in the table stays the same."""
    assert Leaf(1, None, order, (Band("5", 1),)).holds(relation, types) == expected


def test_the_places_of_a_sweep_are_lost_with_the_file():
    assert not Leaf(1, Sweep(2, 3, 7)).holds(relation(8), {})
    assert Leaf(1, Sweep(2, 3, 7)).holds(relation(7), {})


@given(states(), XIDS)
def test_a_capped_state_delivers_the_same_rows_below_the_horizon_and_none_above(state, horizon):
    """A top band that kept its transaction would hide rows whose ids are handed out again."""
    capped = state.capped(horizon)
    assert capped.problem() is None
    for row in ROWS:
        assert is_delivered(capped, row) == (is_delivered(state, row) and row.xid < horizon)
