"""Retries of a failing table: the pauses, what resets them, and the sentence that reports them."""

import inspect
import re
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pg_bronze import errors
from pg_bronze.errors import DataError, PgBronzeError, Retry, SettingsError, SourceUnavailable, retry_of
from pg_bronze.scheduling.backoff import Failure, next_retry_at, pause_s, record_failure, sentences

RETRIES: tuple[Retry, ...] = get_args(Retry)
DAY_S = 86_400.0
NOON = 1_767_268_800.0  # 2026-01-01 12:00 UTC


def all_classes() -> list[type[PgBronzeError]]:
    found = [item for _, item in inspect.getmembers(errors, inspect.isclass) if issubclass(item, PgBronzeError)]
    assert len(found) > 15
    return found


@pytest.mark.parametrize("error", all_classes(), ids=lambda error: error.__name__)
def test_every_error_defines_its_retry_and_is_in_the_tree(error):
    """An error without its own retry is retried as its parent is, which may be wrong."""
    assert error.retry in RETRIES
    assert re.search(rf"[├└]── {error.__name__} |^ +{error.__name__}$", errors.__doc__ or "", re.MULTILINE)


def test_the_tree_of_errors_matches_the_classes():
    """The parent decides how an error is retried: a wrong password every two minutes locks the role out."""
    drawn, path = {}, [""]
    for branch, name in re.findall(r"^ {4}((?:[ │├└─]{4})*)([A-Z]\w+)(?= |$)", errors.__doc__ or "", re.MULTILINE):
        depth = len(branch) // 4
        path = [*path[: depth + 1], name]
        drawn[name] = path[depth]

    assert drawn == {error.__name__: error.__base__.__name__ for error in all_classes()} | {"PgBronzeError": ""}


def test_the_retry_of_an_error_depends_on_its_cause():
    assert retry_of(SourceUnavailable("down")) == "automatic"
    assert retry_of(SettingsError("wrong")) == "after_fix"
    assert retry_of(DataError("too large")) == "never"
    assert retry_of(KeyError("nobody foresaw it")) == "automatic"


def test_an_automatic_retry_is_immediate_three_times_and_then_every_two_minutes():
    assert [pause_s("automatic", count) for count in range(1, 10)] == [0, 0, 0, 15, 30, 60, 120, 120, 120]


def test_a_retry_after_a_fix_follows_after_one_two_four_up_to_thirty_minutes():
    assert [pause_s("after_fix", count) / 60 for count in range(1, 9)] == [1, 2, 4, 8, 16, 30, 30, 30]


def test_an_error_that_no_retry_resolves_is_retried_like_one_after_a_fix():
    assert [pause_s("never", count) for count in range(1, 8)] == [pause_s("after_fix", count) for count in range(1, 8)]


@given(st.sampled_from(RETRIES), st.integers(1, 10**12))
def test_pauses_increase_up_to_a_limit(retry, count):
    assert 0 <= pause_s(retry, count) <= pause_s(retry, count + 1) <= (120 if retry == "automatic" else 1800)


@pytest.mark.parametrize("retry, most", [("automatic", 730), ("after_fix", 55), ("never", 55)])
def test_a_table_that_fails_all_day_is_retried_rarely(retry, most):
    """A retry every ten seconds would be 8,640 runs of several CPU seconds."""
    failure, attempts, now = None, 0, NOON
    while now < NOON + DAY_S:
        failure = record_failure(failure, "no.", retry, now)
        attempts += 1
        now = max(now + 10, next_retry_at(failure, ""))

    assert 40 < attempts <= most


@given(
    st.lists(st.tuples(st.sampled_from(RETRIES), st.sampled_from("ab"), st.booleans(), st.floats(0, 1e5)), min_size=1)
)
def test_repeated_failures_keep_the_time_of_the_first_and_are_retried_within_half_an_hour(failures):
    failure, now = None, NOON
    for retry, state, manual, later in failures:
        now += later
        failure = record_failure(failure, "no.", retry, now, state, manual)

        assert 1 <= failure.count <= len(failures)
        assert NOON <= failure.since <= failure.last == now
        assert now <= next_retry_at(failure, state) <= now + 1800


def test_a_failure_records_the_last_error_and_state():
    first = record_failure(None, "a.", "automatic", NOON, "x")
    second = record_failure(first, "b.", "automatic", NOON + 10, "x")

    assert first == Failure("a.", "automatic", 1, NOON, NOON, "x")
    assert second == Failure("b.", "automatic", 2, NOON, NOON + 10, "x")


FAILING = Failure("no.", "after_fix", 6, NOON - 3600, NOON, "a")


def test_a_changed_setting_or_definition_is_retried_immediately():
    assert next_retry_at(FAILING, "a") == NOON + 1800
    assert next_retry_at(FAILING, "b") == NOON


def test_a_restarted_process_retries_as_after_a_first_failure():
    """It may have the right password now; but a process that restarts repeatedly must not retry each time."""
    assert next_retry_at(FAILING, "a", process_started_at=NOON + 5) == NOON + 60
    assert next_retry_at(FAILING, "a", process_started_at=NOON - 5) == NOON + 1800


@pytest.mark.parametrize("changed", [{"state": "b"}, {"manual": True}, {"retry": "automatic"}])
def test_a_change_a_manual_attempt_or_another_kind_of_error_resets_the_pauses(changed):
    again = record_failure(FAILING, "no.", **{"retry": "after_fix", "now": NOON + 60, "state": "a", **changed})

    assert (again.count, again.since) == (1, FAILING.since)


def test_tables_with_the_same_error_are_reported_in_one_sentence():
    """If the bucket is down, one sentence reports a hundred tables."""
    down = Failure("no connection to the S3 server.", "automatic", 5, NOON - 90, NOON)
    own = Failure("b: no.", "after_fix", 1, NOON - DAY_S, NOON)

    reported = sentences({**dict.fromkeys("acde", (down, NOON + 30)), "b": (own, NOON)}, NOON)

    assert reported == [
        "b failing since 2025-12-31 12:00 UTC (1 attempt); due for a retry now: b: no.",
        (
            "4 tables (a, c, d, …) failing since 11:58:30 UTC (5 attempts); next retry at 12:00:30 UTC, or at once by "
            "`pg-bronze tick` or Materialize in the UI: no connection to the S3 server."
        ),
    ]


def test_up_to_three_tables_are_named():
    down = Failure("no.", "automatic", 2, NOON, NOON)

    assert sentences(dict.fromkeys("abc", (down, NOON)), NOON) == [
        "a, b, c failing since 12:00:00 UTC (2 attempts); due for a retry now: no."
    ]
