import dagster as dg
import pytest

from pg_bronze.core.watermark import Leaf, Origin, Watermark
from pg_bronze.defs.metadata import (
    GENERATION,
    QUIET_UPTO,
    WATERMARK,
    failure,
    number,
    of_watermark,
    quiet_upto,
    slice_line,
    summary,
    watermark_of,
)
from pg_bronze.errors import HistoryChanged, LakeDamaged, StaleSnapshot

MARK = Watermark(Origin("7", 1, "0/1", 5, "bronze"), 9, seq=3, key="movie/x").with_leaves({9: Leaf(91377)})


@pytest.mark.parametrize(
    "value, text",
    [(0, "0"), (999, "999"), (1000, "1 000"), (91204, "91 204"), (1234567, "1 234 567"), (-5120, "-5 120")],
)
def test_a_number_has_its_thousands_apart(value, text):
    assert number(value) == text


def test_a_slice_has_one_line_with_the_same_fields_in_the_same_order():
    uri = "s3://bronze/movie/movie_20260102000010.parquet"
    assert slice_line("movie", 812, 91204, 91377, ("movie_id", "5 120"), uri, 0.412) == (
        f"copied movie: 812 rows, transactions [91 204, 91 377), movie_id up to 5 120 -> {uri} in 0.41 s"
    )


def test_a_line_leaves_out_what_there_is_not():
    assert slice_line("sales.movie", 1, None, 91377, None, "s3://b/k", 0) == (
        "copied sales.movie: 1 row, transactions [first, 91 377) -> s3://b/k in 0.00 s"
    )
    assert slice_line("movie", 0, None, None, None, "s3://b/k", 1) == (
        "copied movie: 0 rows, no window -> s3://b/k in 1.00 s"
    )


def test_a_batch_says_how_many_new_rows_where():
    assert summary({"movie": 1200, "actor": 1, "genre": 0}, ["genre", "award"]) == "1 201 new rows in 2 tables, 2 quiet"
    assert summary({"movie": 1}, []) == "1 new row in 1 table"
    assert summary({}, ["movie"]) == "0 new rows in 0 tables, 1 quiet"


def event(metadata):
    """As much of an event as is looked at."""

    class Event:
        asset_materialization = dg.AssetMaterialization("movie", metadata=metadata)

    return Event()


def test_a_watermark_comes_back_from_its_materialization():
    assert watermark_of(event(of_watermark(MARK))) == MARK


def test_an_event_without_a_watermark_has_none():
    """Reported by hand, or wiped: the state then comes from the newest footer."""
    assert watermark_of(None) is None
    assert watermark_of(event({})) is None
    assert watermark_of(event({WATERMARK: "by hand"})) is None


def test_a_damaged_watermark_is_said_and_not_passed_over():
    with pytest.raises(LakeDamaged, match=r"^movie: its last .* Wipe the materializations of the asset"):
        watermark_of(event({WATERMARK: dg.MetadataValue.json({"format": 1})}))


def test_an_observation_says_how_far_a_generation_was_found_quiet():
    seen = dg.AssetObservation("movie", metadata={GENERATION: 2, QUIET_UPTO: 91377})
    assert quiet_upto(seen) == (2, 91377)


@pytest.mark.parametrize("metadata", [{}, {QUIET_UPTO: 5}, {GENERATION: 1}, {GENERATION: "1", QUIET_UPTO: 5}])
def test_an_observation_without_both_says_nothing(metadata):
    assert quiet_upto(dg.AssetObservation("movie", metadata=metadata)) == (-1, 0)
    assert quiet_upto(None) == (-1, 0)


@pytest.mark.parametrize(
    "error, retry", [(StaleSnapshot("it lags."), "automatic"), (HistoryChanged("no."), "after_fix")]
)
def test_a_failure_is_the_sentence_and_who_can_cure_it(error, retry):
    shown = failure(error)
    assert shown.description == str(error)
    assert failure(error, "movie").description == f"movie: {error}"
    assert failure(type(error)(f"movie: {error}"), "movie").description == f"movie: {error}"
    assert shown.metadata["pg_bronze/retry"].value == retry
    assert not shown.allow_retries
