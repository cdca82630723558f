"""Health: the state, the severity and the sentence of a table."""

from dataclasses import replace

import pytest

from pg_bronze.errors import Retry
from pg_bronze.scheduling import due, health
from pg_bronze.scheduling.backoff import Failure
from pg_bronze.scheduling.coverage import Coverage, Sample
from pg_bronze.scheduling.due import Decision, Hint
from pg_bronze.scheduling.health import Cause, Found, TableHealth, Targets

NOW = 1_780_000_000.0
COVERAGE = Coverage((Sample(NOW - 500, 100), Sample(NOW - 20, 200), Sample(NOW, 210)))
TARGETS = Targets(lag_s=100, blocked_s=60)
QUIET = Found("movie", Decision(False, due.UNCHANGED, swept=150), 150)
BLOCKED = Found("movie", Decision(False, due.BLOCKED, swept=200), 200)
DUE = Found("movie", Decision(True, due.MAY_HAVE_ROWS, swept=200), 200)


def of(found: Found, cause: Cause | None = None) -> TableHealth:
    return health.of_table(found, COVERAGE, cause or Cause(), TARGETS, NOW)


def seen(found: Found, cause: Cause | None = None) -> tuple[str, str, float]:
    table = of(found, cause)
    return table.state, table.severity, table.lag_s


def test_an_unchanged_table_is_covered_up_to_the_tick_however_long_ago_it_was_copied() -> None:
    assert seen(QUIET) == ("up_to_date", "ok", 0)


def test_a_due_table_lags_by_the_time_since_the_sample_that_it_includes() -> None:
    assert seen(DUE) == ("up_to_date", "ok", 20)


def test_a_table_that_was_unchanged_until_the_last_tick_lags_by_the_time_since_then() -> None:
    """A table that nobody wrote to for minutes failed its check as soon as one row arrived."""
    long_quiet = replace(DUE, swept=100, decision=replace(DUE.decision, hint=Hint(covered=200)))
    assert seen(long_quiet) == ("up_to_date", "ok", 20)
    reused = replace(DUE, swept=100, decision=replace(DUE.decision, hint=Hint(covered=999)))
    assert of(reused).lag_s == 500, "a server that crashed uses its ids again"


def test_a_due_table_above_its_target_fails_and_says_that_no_run_copied_it() -> None:
    table = of(replace(DUE, swept=150))
    assert (table.state, table.severity, table.lag_s) == ("behind", "error", 500)
    assert "no run has copied it yet" in table.sentence


def test_the_lag_of_a_table_that_was_copied_before_the_first_sample_is_at_least_the_time_since_it() -> None:
    assert of(replace(DUE, swept=50)).lag_s == 500


def test_without_samples_the_lag_is_the_time_since_the_last_copy_or_zero() -> None:
    empty = Coverage()
    assert health.of_table(DUE, empty, Cause(), TARGETS, NOW).lag_s == 0
    copied = replace(DUE, copied_at=NOW - 3600)
    assert health.of_table(copied, empty, Cause(), TARGETS, NOW).lag_s == 3600


def test_a_clock_that_was_set_back_makes_no_negative_lag() -> None:
    assert health.of_table(DUE, Coverage((Sample(NOW + 30, 150),)), Cause(), TARGETS, NOW).lag_s == 0


@pytest.mark.parametrize(
    "held_s, swept, severity", [(59, 200, "ok"), (61, 200, "warn"), (61, 150, "error"), (0, 150, "error")]
)
def test_a_blocked_table_warns_after_a_minute_and_fails_above_its_target(
    held_s: float, swept: int, severity: str
) -> None:
    table = of(replace(BLOCKED, swept=swept), Cause(held_s, "New rows are blocked: session 9896 of report"))
    assert (table.state, table.severity) == ("blocked", severity)
    assert "session 9896 of report" in table.sentence


def test_a_holder_whose_name_is_hidden_is_no_reason_to_be_silent() -> None:
    assert "blocked by an open transaction" in of(BLOCKED, Cause(99)).sentence


def test_a_table_that_was_never_read_completely_is_loading_however_long_it_takes() -> None:
    assert seen(Found("movie", Decision(True, "not copied yet"))) == ("loading", "ok", 500)
    assert seen(Found("movie", Decision(False, "running"), running=True)) == ("loading", "ok", 500)


def test_a_run_that_takes_long_is_a_warning() -> None:
    running = Found("movie", Decision(False, "running"), 200, running=True)
    assert seen(running) == ("up_to_date", "ok", 20)
    assert seen(replace(running, swept=100)) == ("behind", "warn", 500)


@pytest.mark.parametrize(
    "retry, count, expected",
    [
        ("automatic", 1, ("failing", "warn")),
        ("automatic", 3, ("failing", "warn")),
        ("automatic", 4, ("stuck", "error")),
        ("after_fix", 1, ("stuck", "error")),
        ("never", 1, ("stuck", "error")),
    ],
)
def test_a_failing_table_is_stuck_when_retries_alone_do_not_help(
    retry: Retry, count: int, expected: tuple[str, str]
) -> None:
    failure = Failure("The bucket is full.", retry, count, NOW - 90, NOW - 30)
    table = of(replace(QUIET, failure=failure, next_retry=NOW + 60))
    assert (table.state, table.severity) == expected
    assert table.sentence.startswith("movie failing since")
    assert table.sentence.endswith("The bucket is full.")
    assert table.lag_s == 500, "nothing shows that a failing table is unchanged"


def test_an_overdue_sweep_is_a_warning_and_names_the_table() -> None:
    table = of(replace(QUIET, sweep_age_s=900, overdue="movie: a sweep is expected every 300 s"))
    assert (table.state, table.severity, table.sweep_age_s) == ("sweep_overdue", "warn", 900)


def test_a_table_that_is_not_copied_any_more_is_an_error() -> None:
    table = health.not_copied("movie", "SELECT was revoked.", NOW, NOW - 30)
    assert (table.state, table.severity, table.lag_s) == ("not_copied", "error", 30)
    assert health.counts([table, of(QUIET)])["not_copied"] == 1


def test_a_table_has_its_own_target_and_its_own_worst_severity() -> None:
    """A table that is loaded at night must not wake anybody."""
    late = replace(DUE, swept=150)
    patient = replace(TARGETS, lag_s=600)
    lenient = replace(TARGETS, worst="warn")
    assert health.of_table(late, COVERAGE, Cause(), patient, NOW).severity == "ok"
    assert health.of_table(late, COVERAGE, Cause(), lenient, NOW).severity == "warn"
    assert health.of_table(QUIET, COVERAGE, Cause(), lenient, NOW).severity == "ok"
    assert health.of_table(late, COVERAGE, Cause(), patient, NOW).lag_target_s == 600


def test_a_table_of_another_bucket_or_database_fails_before_a_run_has_tried() -> None:
    """With a changed MINIO_BUCKET, a table without new rows looked up to date."""
    moved = of(replace(QUIET, decision=Decision(True, due.OTHER_HISTORY)))
    assert (moved.state, moved.severity) == ("behind", "error")
    assert "`pg-bronze tick movie` says which" in moved.sentence
