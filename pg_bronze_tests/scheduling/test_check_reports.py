"""Check reports: a change is recorded at once, and a thousand quiet tables cost nothing."""

from dataclasses import replace

from pg_bronze.scheduling import check_reports
from pg_bronze.scheduling.check_reports import MOST_CHANGED, MOST_REFRESHED, Report, due, mark_of
from pg_bronze.scheduling.health import TableHealth

NOW = 1_780_000_000.0
GOOD = TableHealth("movie", "up_to_date", "ok", "Copied.", NOW, NOW)
BAD = replace(GOOD, state="blocked", severity="error", sentence="Blocked.")


def labels(tables: list[TableHealth]) -> list[str]:
    return [table.label for table in tables]


def test_a_table_without_a_result_gets_one() -> None:
    assert due([GOOD], {}, NOW) == [GOOD]


def test_an_unchanged_good_table_is_recorded_once_an_hour() -> None:
    assert due([GOOD], {"movie": Report("ok", NOW - 3599)}, NOW) == []
    assert due([GOOD], {"movie": Report("ok", NOW - 3600)}, NOW) == [GOOD]


def test_a_good_table_that_was_copied_since_its_result_is_recorded() -> None:
    reported = {"movie": Report("ok", NOW - 20)}
    assert due([replace(GOOD, copied_at=NOW - 30)], reported, NOW) == []
    copied = replace(GOOD, copied_at=NOW - 10)
    assert due([copied], reported, NOW) == [copied]


def test_a_table_that_was_copied_in_the_second_of_its_result_is_recorded_once_more() -> None:
    """Dagster compares whole seconds: the check of a quiet table was shown as not evaluated for an hour."""
    copied = replace(GOOD, copied_at=NOW + 0.2)
    assert due([copied], {"movie": Report("ok", NOW + 0.4)}, NOW + 5) == [copied]
    assert due([copied], {"movie": Report("ok", NOW + 5)}, NOW + 10) == []


def test_a_change_is_recorded_at_once_in_both_directions() -> None:
    assert due([BAD], {"movie": Report("ok", NOW - 1)}, NOW) == [BAD]
    assert due([GOOD], {"movie": Report(mark_of(BAD), NOW - 1)}, NOW) == [GOOD]


def test_a_warning_that_becomes_an_error_is_a_change() -> None:
    warning = replace(BAD, severity="warn")
    assert due([BAD], {"movie": Report(mark_of(warning), NOW - 1)}, NOW) == [BAD]


def test_a_bad_state_is_repeated_every_five_minutes_with_its_new_sentence() -> None:
    assert due([BAD], {"movie": Report(mark_of(BAD), NOW - 299)}, NOW) == []
    assert due([BAD], {"movie": Report(mark_of(BAD), NOW - 300)}, NOW) == [BAD]


def test_an_outage_of_many_tables_is_recorded_in_parts_and_errors_come_first() -> None:
    tables = [replace(GOOD if number % 2 else BAD, label=f"t{number}") for number in range(2 * MOST_CHANGED)]
    first = due(tables, {}, NOW)
    assert len(first) == MOST_CHANGED
    assert {table.severity for table in first} == {"error"}


def test_refreshes_are_bounded_and_the_oldest_come_first() -> None:
    tables = [replace(GOOD, label=f"t{number}") for number in range(100)]
    reported = {f"t{number}": Report("ok", NOW - 7200 + number) for number in range(100)}
    assert labels(due(tables, reported, NOW)) == [f"t{number}" for number in range(MOST_REFRESHED)]
    assert check_reports.MOST_REFRESHED == 20
