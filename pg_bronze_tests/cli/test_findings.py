"""Findings of `pg-bronze doctor`: how severe what was found is, and the statement that mends it."""

import pytest

from pg_bronze.cli import findings
from pg_bronze.postgres.activity import OldestTransaction


def test_only_a_transaction_that_is_open_for_a_minute_is_a_warning():
    """Every database that is written to has one of milliseconds."""
    short, long = (OldestTransaction("session 7", open_s, "select pg_terminate_backend(7)") for open_s in (59.0, 60.0))

    assert findings.of_transaction(short, 5).severity == "ok"
    found = findings.of_transaction(long, 5)
    assert (found.severity, found.remedy) == ("warn", "select pg_terminate_backend(7)")
    assert "session 7 has held the horizon for 60 s; rows of all later transactions are not copied" in found.sentence


@pytest.mark.parametrize("ahead_s, severity", [(4.9, "ok"), (-6.0, "warn"), (601.0, "error")])
def test_a_clock_that_is_off_is_a_finding(ahead_s: float, severity: str):
    found = findings.of_clock("bucket", ahead_s)

    assert found.severity == severity
    assert ("this machine is behind" in found.sentence) == (ahead_s == -6.0)


def test_a_finding_about_columns_has_one_statement_and_names_the_other():
    reason = (
        'it has columns that this role may not read; grant select on "public"."movie" to "r", '
        'or grant select (xmin) on "public"."movie" to "r"'
    )

    found = findings.of_skipped("movie", reason, forbidden=True, revoked=True)

    assert (found.severity, found.remedy) == ("error", 'grant select on "public"."movie" to "r";')
    assert found.sentence.endswith('(or grant select (xmin) on "public"."movie" to "r")')


def test_a_pooler_and_a_standby_are_advice_and_missing_counters_a_warning():
    assert [item.severity for item in findings.of_place(standby=True, pooled=True, counted=False)] == ["advice"] * 2
    assert [item.severity for item in findings.of_place(standby=False, pooled=False, counted=False)] == ["warn"]


def test_a_column_that_finds_new_rows_of_a_large_table_is_named_alone():
    found = findings.of_untriggered(["a.updated_at", "big.updated_at", "c.updated_at"], ["big.updated_at"])

    assert "which finds the changed rows of a large table" in found[0].sentence
    assert "no trigger sets a.updated_at, c.updated_at." in found[1].sentence
    assert findings.exit_code(found) == 0


def test_a_missing_bucket_is_created_by_the_first_run_and_one_that_ignores_conditions_is_wrong():
    """With PG_BRONZE_UNFENCED somebody has accepted the latter."""
    races = "bucket 'b': 2 of 8 simultaneous writers created the same object. Retried after the fix."

    missing = findings.of_bucket_error("bucket 'b' does not exist on http://s3", "s3://b", unfenced=False)
    found = [findings.of_bucket_error(races, "s3://b", unfenced=accepted).severity for accepted in (False, True)]

    assert (missing.severity, found) == ("advice", ["error", "warn"])


def test_why_no_index_of_a_small_table_is_missing_is_said_with_the_threshold():
    found = findings.of_small(11, 12, 0.1)

    assert found is not None
    assert (found.severity, found.remedy) == ("ok", None)
    assert "at most 0.1 s" in found.sentence
    assert "11 of 12 tables" in found.sentence
    assert findings.of_small(0, 12, 0.1) is None
