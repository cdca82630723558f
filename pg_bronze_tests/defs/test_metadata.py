from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from pg_bronze.core.watermark import Leaf, Origin, Watermark
from pg_bronze.core.window_sql import Region
from pg_bronze.defs.metadata import (
    GENERATION,
    QUIET_UPTO,
    WATERMARK,
    dagster_failure,
    of_watermark,
    quiet_upto,
    slice_line,
    summary,
    watermark_of,
)
from pg_bronze.errors import HistoryChanged, LakeDamaged, StaleSnapshot
from pg_bronze.lake.claim import Claim

MARK = Watermark(Origin("7", 1, "0/1", 5, "bronze"), 9, seq=3, key="movie/x").with_leaves({9: Leaf(91377)})


def piece(row_count: int, start: int | None = None, end: int | None = None, column: str | None = None) -> Any:
    """As much of a slice as its log line uses."""
    region = Region("public", "movie", True, (9,), start, end) if end is not None else None
    claim = Claim("nonce", MARK, MARK, region, {})
    return SimpleNamespace(claim=claim, row_count=row_count, cursor_column=column)


def test_a_slice_has_one_line_with_the_same_fields_in_the_same_order():
    uri = "s3://bronze/movie/movie_20260102000010.parquet"
    assert slice_line("movie", piece(1812, 91204, 91377, "movie_id"), "5120", uri, 0.412) == (
        f"copied movie: 1,812 rows, transactions [91,204, 91,377), movie_id up to 5120 -> {uri} in 0.41 s"
    )


def test_a_line_leaves_out_what_there_is_not():
    assert slice_line("sales.movie", piece(1, None, 91377), None, "s3://b/k", 0) == (
        "copied sales.movie: 1 row, transactions [first, 91,377) -> s3://b/k in 0.00 s"
    )
    assert slice_line("movie", piece(0), None, "s3://b/k", 1) == "copied movie: 0 rows, no window -> s3://b/k in 1.00 s"


def test_a_batch_says_how_many_new_rows_where():
    assert (
        summary({"movie": 1200, "actor": 1, "genre": 0}, ["genre", "award"])
        == "1,201 new rows in 2 tables, 2 unchanged"
    )
    assert summary({"movie": 1}, []) == "1 new row in 1 table"
    assert summary({}, ["movie"]) == "0 new rows in 0 tables, 1 unchanged"


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
    shown = dagster_failure(error)
    assert shown.description == str(error)
    assert dagster_failure(error, "movie").description == f"movie: {error}"
    assert dagster_failure(type(error)(f"movie: {error}"), "movie").description == f"movie: {error}"
    assert shown.metadata["pg_bronze/retry"].value == retry
    assert not shown.allow_retries
