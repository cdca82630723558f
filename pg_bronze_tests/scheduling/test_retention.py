"""Retention: of the events of an asset, the last one of each hour and partition is kept."""

from hypothesis import given
from hypothesis import strategies as st

from pg_bronze.scheduling.retention import HOUR_S, Event, thin


def at(number: int, minute: float, asset: str = "movie", partition: str | None = "2026-01-02") -> Event:
    return Event(number, asset, partition, 60 * minute)


def test_the_last_event_of_each_hour_is_kept():
    events = [at(1, 0), at(2, 30), at(3, 59), at(4, 60), at(5, 61), at(6, 200)]

    assert thin(events, 0, 1e9, HOUR_S).remove == [1, 2, 4]


def test_the_last_event_of_a_partition_is_kept_although_another_partition_follows_in_the_same_hour():
    """A partition without an event is shown as missing."""
    events = [at(1, 0, partition="2026-01-02"), at(2, 1, partition="2026-01-02"), at(3, 2, partition="2026-01-03")]

    assert thin(events, 0, 1e9, HOUR_S).remove == [1]


def test_assets_do_not_replace_each_other():
    assert thin([at(1, 0), at(2, 1, "person")], 0, 1e9, HOUR_S).remove == []


def test_recent_events_are_kept():
    assert thin([at(1, 0), at(2, 1), at(3, 2), at(4, 3)], 0, 120, HOUR_S).remove == [1]


def test_an_event_of_a_clock_that_was_ahead_does_not_end_the_removal():
    assert thin([at(1, 9000), at(2, 0), at(3, 1)], 0, 120, HOUR_S).remove == [2]


def test_without_an_old_event_the_next_pass_begins_where_this_one_did():
    assert thin([at(9, 500)], 7, 60, HOUR_S).resume == 7


events = st.lists(st.tuples(st.integers(0, 300), st.sampled_from("ab"), st.sampled_from("xy")), max_size=40)


@given(events, st.integers(1, 10), st.lists(st.integers(0, 400), min_size=1, max_size=5))
def test_passes_with_a_limit_remove_the_same_as_one_pass(found, limit, ends):
    """The limit bounds one evaluation; it must not decide what is kept."""
    minutes = sorted(minute for minute, _, _ in found)
    stored = [
        at(number, minute, asset, partition)
        for number, (minute, (_, asset, partition)) in enumerate(zip(minutes, found, strict=True), 1)
    ]
    until = 60 * max(ends)
    at_once = set(thin(stored, 0, until, HOUR_S).remove)

    removed: set[int] = set()
    resume = 0
    for end in [*sorted(ends), *[max(ends)] * 60]:
        # As many as four assets and partitions remain of the hour that a pass resumes in.
        page = [event for event in stored if event.number >= resume and event.number not in removed][: limit + 4]
        thinning = thin(page, resume, 60 * end, HOUR_S)
        removed |= set(thinning.remove)
        resume = thinning.resume

    assert removed == at_once
