"""Retries: the pauses of a table that fails, what begins them anew, and what is said meanwhile."""

import inspect
import re
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pg_bronze import errors
from pg_bronze.errors import DataError, PgBronzeError, Retry, SettingsError, SourceUnavailable, retry_of
from pg_bronze.scheduling.backoff import Failure, after, next_try, pause_s, said

CURES: tuple[Retry, ...] = get_args(Retry)
DAY_S = 86_400.0
NOON = 1_767_268_800.0  # 2026-01-01 12:00 UTC


def all_classes() -> list[type[PgBronzeError]]:
    found = [item for _, item in inspect.getmembers(errors, inspect.isclass) if issubclass(item, PgBronzeError)]
    assert len(found) > 15
    return found


@pytest.mark.parametrize("error", all_classes(), ids=lambda error: error.__name__)
def test_every_error_says_who_can_cure_it_and_stands_in_the_tree(error):
    """One without would be retried as whatever its parent happens to be; one not in the tree is found by nobody."""
    assert error.retry in CURES
    assert re.search(rf"[├└]── {error.__name__} |^ +{error.__name__}$", errors.__doc__ or "", re.MULTILINE)


def test_the_tree_of_errors_is_drawn_as_it_is():
    """Where a class hangs decides who is asked to retry it: a wrong password tried every two minutes locks the role out."""
    drawn, path = {}, [""]
    for branch, name in re.findall(r"^ {4}((?:[ │├└─]{4})*)([A-Z]\w+)(?= |$)", errors.__doc__ or "", re.MULTILINE):
        depth = len(branch) // 4
        path = [*path[: depth + 1], name]
        drawn[name] = path[depth]

    assert drawn == {error.__name__: error.__base__.__name__ for error in all_classes()} | {"PgBronzeError": ""}


def test_the_three_kinds_of_cure():
    assert retry_of(SourceUnavailable("down")) == "automatic"
    assert retry_of(SettingsError("wrong")) == "after_fix"
    assert retry_of(DataError("too large")) == "never"
    assert retry_of(KeyError("nobody foresaw it")) == "automatic"


def test_what_the_next_tick_may_cure_is_tried_at_once_a_few_times_and_then_every_two_minutes():
    assert [pause_s("automatic", count) for count in range(1, 10)] == [0, 0, 0, 15, 30, 60, 120, 120, 120]


def test_what_only_a_person_can_cure_is_tried_after_one_two_four_up_to_thirty_minutes():
    assert [pause_s("after_fix", count) / 60 for count in range(1, 9)] == [1, 2, 4, 8, 16, 30, 30, 30]


def test_what_no_retry_cures_is_tried_every_thirty_minutes():
    assert [pause_s("never", count) for count in range(1, 8)] == [pause_s("after_fix", count) for count in range(1, 8)]


@given(st.sampled_from(CURES), st.integers(1, 10**12))
def test_pauses_only_grow_and_end_at_a_limit(retry, count):
    assert 0 <= pause_s(retry, count) <= pause_s(retry, count + 1) <= (120 if retry == "automatic" else 1800)


@pytest.mark.parametrize("retry, most", [("automatic", 730), ("after_fix", 55), ("never", 55)])
def test_a_table_that_fails_all_day_is_tried_rarely(retry, most):
    """Every ten seconds would be 8,640 runs of several CPU seconds."""
    failure_state, tries, now = None, 0, NOON
    while now < NOON + DAY_S:
        failure_state = after(failure_state, "no.", retry, now)
        tries += 1
        now = max(now + 10, next_try(failure_state, ""))

    assert 40 < tries <= most


@given(st.lists(st.tuples(st.sampled_from(CURES), st.sampled_from("ab"), st.booleans(), st.floats(0, 1e5)), min_size=1))
def test_a_row_of_failures_keeps_its_beginning_and_never_waits_longer_than_half_an_hour(failures):
    failure_state, now = None, NOON
    for retry, state, by_hand, later in failures:
        now += later
        failure_state = after(failure_state, "no.", retry, now, state, by_hand)

        assert 1 <= failure_state.count <= len(failures)
        assert NOON <= failure_state.since <= failure_state.last == now
        assert now <= next_try(failure_state, state) <= now + 1800


STUCK = Failure("no.", "after_fix", 6, NOON - 3600, NOON, "a")


def test_a_change_that_could_be_the_cure_is_tried_at_once():
    assert next_try(STUCK, "a") == NOON + 1800
    assert next_try(STUCK, "b") == NOON


def test_a_restarted_process_waits_as_after_a_first_failure():
    """It may have been given the right password; but one that is restarted all the time must not try all the time."""
    assert next_try(STUCK, "a", restarted=NOON + 5) == NOON + 60
    assert next_try(STUCK, "a", restarted=NOON - 5) == NOON + 1800


@pytest.mark.parametrize("changed", [{"state": "b"}, {"by_hand": True}, {"retry": "automatic"}])
def test_pauses_begin_anew_after_a_change_a_try_by_hand_or_another_fault(changed):
    again = after(STUCK, "no.", **{"retry": "after_fix", "now": NOON + 60, "state": "a", **changed})

    assert (again.count, again.since) == (1, STUCK.since)


def test_one_cause_is_said_once_with_the_count_of_its_tables():
    """A hundred tables behind one bucket that is down are one sentence, not a hundred."""
    down = Failure("no connection to the S3 server.", "automatic", 5, NOON - 90, NOON)
    own = Failure("b: no.", "after_fix", 1, NOON - DAY_S, NOON)

    sentences = said({**dict.fromkeys("acde", (down, NOON + 30)), "b": (own, NOON)}, NOON)

    assert sentences == [
        "b stuck since 2025-12-31 12:00 UTC (1 try; due now): b: no.",
        (
            "4 tables (a, c, d, …) stuck since 11:58:30 UTC (5 tries; tried again at 12:00:30 UTC, or when it is "
            "materialized by hand): no connection to the S3 server."
        ),
    ]
