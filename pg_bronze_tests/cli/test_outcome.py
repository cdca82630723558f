"""Exit statuses and repeated errors."""

import re

import pytest

from pg_bronze.cli import docs
from pg_bronze.cli.outcome import Copied, Failed, Outcome, StateAfter
from pg_bronze.cli.repeated_error import RepeatedError

FAILING = {"movie": Failed("no bucket. It is retried at the next tick.")}


@pytest.mark.parametrize(
    "outcome, usual, strict",
    [
        (Outcome(), 0, 0),
        (Outcome(blocked="held"), 0, 3),
        (Outcome(not_copied={"movie": "dropped"}, blocked="held"), 0, 4),
        (Outcome(not_copied={"movie": "revoked"}, revoked={"movie"}, blocked="held"), 1, 4),
        (Outcome(failed=FAILING, not_copied={"person": "revoked"}, revoked={"person"}, blocked="held"), 1, 1),
    ],
)
def test_the_worst_of_a_batch_is_its_exit_status(outcome: Outcome, usual: int, strict: int):
    assert (outcome.exit_code(False), outcome.exit_code(True)) == (usual, strict)


def test_a_document_does_not_promise_a_retry_that_nobody_makes():
    (failed,) = Outcome(failed=FAILING).to_json()["failed"]

    assert failed == {
        "table": "movie",
        "sentence": "no bucket. Run the command again to retry it.",
        "retry": "automatic",
        "state": None,
        "lag_s": None,
    }


def test_every_entry_of_a_document_is_described_and_nothing_else_is():
    """Schedulers read it by these names."""
    whole = Outcome(
        {"movie": Copied(3, 1, 900, "s3://lake/movie/1.parquet")},
        {"person": Failed("no bucket")},
        {"role": "dropped"},
        states={"movie": StateAfter("up_to_date", 0.04)},
    ).to_json()
    names = {*whole, *(name for part in ("tables", "failed", "not_copied") for entry in whole[part] for name in entry)}

    assert {*re.findall(r"`(\w+)`", docs.TICK_ENTRIES)} == names
    assert whole["tables"][0]["lag_s"] == 0.0


def test_an_error_that_lasts_is_printed_once_and_then_more_and_more_rarely():
    """28 lines about one outage hide what is new."""
    error = RepeatedError()
    printed = [(now, error.after_error("S3 is down", now)) for now in range(0, 100, 5)]

    assert [now for now, line in printed if line] == [0, 10, 30, 70]
    assert printed[6][1] == "still failing, for 30 s: S3 is down"
    assert error.after_success(100) == "recovered after 100 s"
    assert error.after_success(105) is None


def test_another_error_is_printed_at_once():
    error = RepeatedError()
    error.after_error("S3 is down", 0)

    assert error.after_error("the database is down", 1) == "the database is down"
