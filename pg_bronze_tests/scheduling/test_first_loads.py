"""Which first loads get a run of their own, and whose turn it is."""

from dataclasses import replace

import pytest

from pg_bronze.core.leaf import Band, Leaf, Order, Sweep
from pg_bronze.scheduling import first_loads
from pg_bronze.scheduling.due import Decision, Facts, Hint
from pg_bronze_tests.harness.literals import mark

ORDER = Order(1, "int8")


def facts(*leaves):
    oids = range(10, 10 + len(leaves))
    return Facts(9, tuple(oids), [0] * len(leaves), mark(dict(zip(oids, leaves, strict=True))))


def test_what_is_left_of_a_first_load_are_the_blocks_that_no_run_has_read():
    sizes = {10: 100, 11: 50, 12: 7}
    assert first_loads.blocks_left(facts(Leaf(), Leaf(None, Sweep(60, 20, 1)), Leaf(60)), sizes) == 130
    fresh = Leaf(None, None, ORDER, (Band("5", 60),))
    assert first_loads.blocks_left(facts(fresh), sizes) == 100
    assert first_loads.blocks_left(replace(facts(Leaf(60)), watermark=None), sizes) == 100


def test_a_table_of_the_same_name_before_it_says_nothing_about_a_load():
    """The table was dropped and created again."""
    assert first_loads.unread(replace(facts(Leaf(60)), oid=8)) == [10]


def test_a_load_grows_no_less_than_nothing_when_the_table_shrinks():
    assert first_loads.blocks_left(facts(Leaf(None, Sweep(60, 20, 1)), Leaf()), {10: 5, 11: 3}) == 3


def test_a_load_of_two_slices_shares_a_run():
    assert not first_loads.is_large(8, 4 * 8192)
    assert first_loads.is_large(9, 4 * 8192)


@pytest.mark.parametrize(
    "running, slots, expected", [(0, 2, {1}), (1, 2, {1}), (2, 2, set()), (3, 2, set()), (0, 9, {1})]
)
def test_the_load_that_was_not_requested_for_the_longest_time_has_its_turn(running, slots, expected):
    """Each of several tables would otherwise be loaded to its end before the next one begins.

    Two runs that start in one tick delay the run of the tables with new rows by seconds.
    """
    waiting = [(30.0, 9), (0.0, 1), (20.0, 9), (10.0, 9)]
    assert first_loads.chosen(waiting, running, slots) == expected


def test_of_two_loads_that_were_requested_together_the_one_with_more_to_read_comes_first():
    """The order of the tables would otherwise prefer the same one in every tick."""
    assert first_loads.chosen([(10.0, 1), (10.0, 2)], 0, 1) == {1}


def test_a_load_that_is_postponed_counts_neither_as_requested_nor_as_failed():
    decision = Decision(True, "not copied yet", Hint("s", 7, due_at=50.0, asked=1), None)
    assert first_loads.postponed(decision, 20.0) == Decision(
        False, "waiting for other first loads", Hint("s", 7, due_at=20.0, asked=0)
    )


def test_a_person_gets_the_whole_load():
    assert first_loads.turn_s(attended=True, alone=True) is None
    shared, alone = (first_loads.turn_s(attended=False, alone=alone) for alone in (False, True))
    assert 0 < shared < alone
