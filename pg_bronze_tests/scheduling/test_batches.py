"""Batches: every due table is in exactly one run, and no run is started for few tables."""

from hypothesis import given
from hypothesis import strategies as st

from pg_bronze.scheduling.batches import LEAST_TABLES, MOST_RUNS, divide


@given(st.integers(0, 2_000), st.integers(0, 64))
def test_every_table_is_in_exactly_one_group_of_nearly_the_same_size(count: int, cores: int):
    groups = divide(range(count), cores)

    assert sorted(table for group in groups for table in group) == list(range(count))
    assert len(groups) <= max(1, min(cores, MOST_RUNS))
    assert not groups or max(map(len, groups)) - min(map(len, groups)) <= 1


def test_a_second_run_starts_only_for_more_tables_than_one_run_copies_in_its_own_start():
    assert [len(divide(range(count), 8)) for count in (0, 1, LEAST_TABLES, LEAST_TABLES + 1, 150, 151, 5_000)] == [
        0, 1, 1, 2, 3, 4, 4
    ]  # fmt: skip


def test_one_core_has_one_run():
    assert len(divide(range(1_000), 1)) == 1
