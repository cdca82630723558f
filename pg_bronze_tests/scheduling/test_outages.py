"""Outages: a cause is one line when it appears, one now and then, and one when it has passed."""

from pg_bronze.scheduling.outages import Outages

DOWN = "no connection to the S3 server http://minio:9000 (timeout). It is retried at the next tick."


def test_a_cause_of_three_tables_is_one_line():
    """A stopped S3 server printed 28 lines in a minute."""
    outages = Outages("table")

    assert outages.failed(DOWN, "movie", 0.0) == f"movie: {DOWN}"
    assert outages.failed(DOWN, "person", 0.1) is None
    assert outages.failed(DOWN, "genre", 10.0) is None
    assert outages.failed("movie_id has NaN", "award", 10.0) == "award: movie_id has NaN"


def test_a_lasting_cause_is_repeated_now_and_then_with_the_number_of_tables():
    outages = Outages("table")
    outages.failed(DOWN, "movie", 0.0)
    outages.failed(DOWN, "person", 20.0)

    assert outages.failed(DOWN, "movie", 41.2) == (
        "still failing after 41 s (2 tables): no connection to the S3 server http://minio:9000 (timeout)"
    )
    assert outages.failed(DOWN, "movie", 80.0) is None
    assert outages.failed(DOWN, "movie", 82.0) is not None


def test_a_cause_has_passed_when_one_of_its_tables_succeeds():
    """The others may have no new rows, and nothing would ever say that the server is back."""
    outages = Outages("table")
    outages.failed(DOWN, "movie", 0.0)
    outages.failed(DOWN, "person", 0.0)

    assert outages.succeeded("genre", 50.0) is None
    assert outages.succeeded("person", 62.0) == (
        "recovered after 62 s: no connection to the S3 server http://minio:9000 (timeout)"
    )
    assert outages.succeeded("movie", 63.0) is None
    assert outages.failed(DOWN, "movie", 70.0) == f"movie: {DOWN}", "it is a new outage"


def test_a_cause_that_was_not_seen_for_minutes_is_new():
    """Another process may have seen its end: "still failing after 3,000 s" would be wrong."""
    outages = Outages("table")
    outages.failed(DOWN, "movie", 0.0)

    assert outages.failed(DOWN, "movie", 3000.0) == f"movie: {DOWN}"
