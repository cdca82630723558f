"""The line of a tick: what blocks or fails is read first, and the counts are those of tables."""

from datetime import UTC, datetime

from pg_bronze.scheduling.tick_report import LastBatch, line, summary

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC).timestamp()
BLOCKED = "New rows are blocked: session 9896 of nightly_report (idle in transaction) has held the horizon for 84 s"


def test_the_summary_counts_tables_by_reason_and_names_the_last_batch():
    reasons = ["unchanged"] * 6 + ["blocked by an open transaction"] * 5

    assert summary(reasons, 91377, 0.0062, LastBatch(3, NOON - 80), NOON) == (
        "11 tables checked up to transaction 91377 in 6 ms: 5 blocked by an open transaction, 6 unchanged; "
        "last batch 3 rows at 11:58:40 UTC"
    )


def test_reasons_that_need_a_person_precede_all_others():
    """Of 500 tables, the one that fails would otherwise be at the end of the line."""
    reasons = ["running", *["unchanged"] * 3, "running", "failing", "copied further than this database"]

    assert summary(reasons, 7, 2.34, None, NOON) == (
        "7 tables checked up to transaction 7 in 2.3 s: 1 failing, 1 copied further than this database, "
        "3 unchanged, 2 running"
    )


def test_a_batch_of_another_day_has_its_date_and_an_unknown_end_has_none():
    assert summary(["unchanged"], 7, 0.01, LastBatch(1, NOON - 86_400), NOON).endswith(
        "; last batch 1 row at 2026-01-01 12:00 UTC"
    )
    assert summary([], 7, 0.01, LastBatch(1812, None), NOON) == (
        "0 tables checked up to transaction 7 in 10 ms: all were dropped; last batch 1,812 rows"
    )


def test_trouble_precedes_the_summary_in_the_order_of_its_urgency():
    """An operator reads the beginning of a line in the list of ticks."""
    assert line([f"{BLOCKED}.", None, "movie failing since 11:00:00 UTC"], "2 tables checked") == (
        f"{BLOCKED}. movie failing since 11:00:00 UTC. 2 tables checked"
    )
    assert line([None], "2 tables checked") == "2 tables checked"
