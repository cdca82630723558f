"""Batches: every due table is in exactly one run, and no run is started for few tables."""

from hypothesis import given
from hypothesis import strategies as st

from pg_bronze.scheduling.batches import LEAST_TABLES, MOST_RUNS, SLOW_RUNS, apart, divide


@given(st.integers(0, 2_000), st.integers(0, 64))
def test_every_table_is_in_exactly_one_group_of_nearly_the_same_size(count: int, cores: int):
    groups = divide(range(count), cores)

    assert sorted(table for group in groups for table in group) == list(range(count))
    assert len(groups) <= max(1, cores)
    assert not groups or max(map(len, groups)) - min(map(len, groups)) <= 1


def test_a_second_run_starts_only_for_more_tables_than_one_run_copies_in_its_own_start():
    counts = (0, 1, LEAST_TABLES, LEAST_TABLES + 1, 3 * LEAST_TABLES, 3 * LEAST_TABLES + 1, 5_000)
    assert [len(divide(range(count), MOST_RUNS)) for count in counts] == [0, 1, 1, 2, 3, 4, 4]


def test_one_core_has_one_run():
    assert len(divide(range(1_000), 1)) == 1


@given(st.lists(st.integers(), unique=True), st.integers(0, 5), st.none() | st.integers(1, 5))
def test_slow_tables_are_never_with_others_if_a_connection_is_free_for_them(tables: list[int], count: int, free):
    slow, fast = tables[:count], tables[count:]

    together, groups = apart(fast, slow, free)

    assert sorted([*together, *(table for group in groups for table in group)]) == sorted(tables)
    assert len(groups) <= SLOW_RUNS
    assert free is None or len(groups) + bool(together) <= free
    assert set(together) == set(fast) or free == bool(fast)


def test_slow_tables_are_spread_over_the_runs_that_they_have():
    assert apart([], [1, 2, 3], None) == ([], [[1, 3], [2]])
    assert apart([9], [1, 2], 2) == ([9], [[1, 2]])
