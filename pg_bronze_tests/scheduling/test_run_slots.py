"""How many runs a tick requests if the connections to the source are limited."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pg_bronze.scheduling import run_slots
from pg_bronze.scheduling.run_slots import LOAD_EVERY_S, Room

NOW = 10_000.0
names = st.lists(st.sampled_from("abcdef"), unique=True, max_size=4)


@pytest.mark.parametrize(
    "unfinished, holders, expected",
    [
        ([], [], 3),
        (["run a"], ["run a"], 2),
        (["run a"], [], 2),  # it is queued and takes its slot soon
        ([], ["command"], 2),
        (["run a", "run b"], ["run a", "command", "command"], 0),
        (["run a"], ["run a", "run a"], 1),  # it reads in parallel
        (["a", "b", "c", "d"], [], 0),
    ],
)
def test_a_queued_run_and_a_command_take_a_slot_and_no_run_counts_twice(unfinished, holders, expected):
    assert run_slots.free(3, unfinished, holders) == expected


def test_a_tick_without_a_limit_requests_everything():
    assert run_slots.room(None, True, NOW, [0.0, 0.0]) == Room(True, 2)


@pytest.mark.parametrize("has_small", [True, False])
def test_a_tick_without_a_free_slot_requests_nothing(has_small: bool):
    """Each run would start a process, which takes several CPU seconds, in vain."""
    assert run_slots.room(0, has_small, NOW, [0.0]) == Room(False, 0)


@pytest.mark.parametrize(
    "last, expected",
    [(NOW - LOAD_EVERY_S + 1, Room(True, 0)), (NOW - LOAD_EVERY_S, Room(False, 1)), (0.0, Room(False, 1))],
)
def test_with_one_slot_first_loads_and_the_other_tables_take_turns(last: float, expected: Room):
    """The others would wait until all loads are complete, or the loads until no table is written."""
    assert run_slots.room(1, True, NOW, [last, 0.0]) == expected


def test_one_slot_is_for_what_is_due_if_nothing_else_is():
    assert run_slots.room(1, False, NOW, [NOW - 1]) == Room(True, 1)
    assert run_slots.room(1, True, NOW, []).together


@given(st.integers(1, 6), names, names, st.booleans(), st.lists(st.floats(0, NOW), max_size=3))
def test_no_more_runs_are_requested_than_slots_are_free(slots, unfinished, holders, has_small, loads):
    free = run_slots.free(slots, unfinished, holders)
    room = run_slots.room(free, has_small, NOW, loads)
    assert free + len(unfinished) <= max(slots, len(unfinished))
    assert (room.together and has_small) + min(room.first_loads, len(loads)) <= free
    assert free == 0 or not (has_small or loads) or (room.together and has_small) or room.first_loads


@pytest.mark.parametrize(
    "free, held, wanted, expected",
    [(3, 0, 1, 1), (3, 0, 4, 2), (1, 0, 1, 0), (0, 0, 1, 0), (1, 2, 2, 2), (0, 2, 2, 1), (0, 1, 4, 0), (4, 3, 1, 1)],
)
def test_a_load_leaves_a_slot_to_another_run_and_gives_one_back_if_none_is_free(free, held, wanted, expected):
    """The tables with new rows would otherwise be late by the turn of a load."""
    assert run_slots.further(free, held, wanted) == expected
