"""Coverage: the lag that follows from samples of the next transaction id."""

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pg_bronze.scheduling.coverage import Coverage, Sample


def sampled(*samples: tuple[float, int], horizon: int = 0) -> Coverage:
    coverage = Coverage()
    for at, next_xid in samples:
        coverage = coverage.with_sample(at, next_xid, horizon)
    return coverage


def test_a_table_is_covered_up_to_the_last_sample_that_its_transaction_includes() -> None:
    coverage = sampled((10, 100), (20, 110), (30, 120))
    assert [coverage.until(swept) for swept in (99, 100, 119, 120, 500)] == [None, 10, 20, 30, 30]


def test_on_an_idle_server_the_last_sample_is_the_newest_moment() -> None:
    assert sampled((10, 100), (20, 100), (30, 100)).samples == (Sample(30, 100),)


def test_a_restored_or_other_cluster_starts_over() -> None:
    assert sampled((10, 100), (20, 90)).samples == (Sample(20, 90),)


def test_a_clock_that_was_set_back_leaves_no_sample_of_the_future() -> None:
    assert sampled((10, 100), (50, 110), (40, 120)).samples == (Sample(10, 100), Sample(40, 120))


ticks = st.lists(st.tuples(st.integers(1, 500), st.integers(0, 30)), min_size=1, max_size=300)


@given(ticks, st.integers(0, 2000))
def test_a_lag_is_never_too_short_and_at_most_its_spacing_too_long(steps: list[tuple[int, int]], swept: int) -> None:
    history, at, next_xid, coverage = [], 1000, 100, Coverage()
    for seconds, ids in steps:
        at, next_xid = at + seconds, next_xid + ids
        history.append((at, next_xid))
        coverage = coverage.with_sample(at, next_xid, 0)
    assert len(coverage.samples) <= 64
    exact = max((moment for moment, xid in history if xid <= swept), default=None)
    found = coverage.until(swept)
    if found is not None:
        assert exact is not None
        assert found <= exact


def test_the_lag_of_a_blocked_table_stays_exact_for_days() -> None:
    """If the sample at the horizon were dropped, a table blocked for 10 hours would show a lag of 14."""
    coverage = sampled((0, 100), (10, 200), horizon=200)
    for tick in range(2, 8640):
        coverage = coverage.with_sample(tick * 10, 200 + tick, 200)
    assert coverage.until(200) == 10
    assert len(coverage.samples) <= 64


@given(ticks)
def test_a_cursor_keeps_the_samples(steps: list[tuple[int, int]]) -> None:
    at, next_xid, coverage = 1_780_000_000, 10**15, Coverage()
    for seconds, ids in steps:
        at, next_xid = at + seconds, next_xid + ids
        coverage = coverage.with_sample(at, next_xid, next_xid)
    numbers = coverage.to_numbers()
    assert Coverage.from_numbers(numbers) == coverage
    assert len(json.dumps(numbers, separators=(",", ":"))) < 700
    assert all(a.next_xid < b.next_xid for a, b in pairwise(coverage.samples))


def test_numbers_that_are_no_samples_count_as_none() -> None:
    assert [Coverage.from_numbers(numbers).samples for numbers in ([], [5], [10, 20, -3, 5], [1, 5, 1, -2])] == [()] * 4
