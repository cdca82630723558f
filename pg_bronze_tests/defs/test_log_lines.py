from types import SimpleNamespace
from typing import Any

import pytest

from pg_bronze.core.leaf import Leaf
from pg_bronze.core.region import Region
from pg_bronze.core.watermark import Origin, Watermark
from pg_bronze.defs.log_lines import dagster_failure, of_batch, of_slice
from pg_bronze.demo.log_lines import late_row_count
from pg_bronze.errors import HistoryChanged, StaleSnapshot
from pg_bronze.lake.claim import Claim

MARK = Watermark(Origin("7", 1, "0/1", 5, "bronze"), 9, seq=3, key="movie/x").with_leaves({9: Leaf(91377)})


def piece(row_count: int, start: int | None = None, end: int | None = None, column: str | None = None) -> Any:
    """Return the attributes of a slice that its log line uses."""
    region = Region("public", "movie", True, (9,), start, end) if end is not None else None
    claim = Claim("nonce", MARK, MARK, region, {})
    return SimpleNamespace(claim=claim, row_count=row_count, cursor_column=column)


def test_a_slice_has_one_line_with_the_same_fields_in_the_same_order():
    uri = "s3://bronze/movie/movie_20260102000010.parquet"
    assert of_slice("movie", piece(1812, 91204, 91377, "movie_id"), "5120", uri, 0.412) == (
        f"copied movie: 1,812 rows, transactions [91204, 91377), movie_id up to 5120 -> {uri} in 0.41 s"
    )
    late = of_slice("movie", piece(1812, 91204, 91377, "movie_id"), "5120", uri, 0.412, late=1200)
    assert late.startswith(
        "copied movie: 1,812 rows (1,200 late), transactions [91204, 91377), movie_id up to 5120 -> "
    )
    assert late_row_count(f"06:50:01  {late}") == 1200
    assert late_row_count(f"06:50:01  {late.replace(' (1,200 late)', '')}") == 0


def test_a_line_has_no_window_and_no_cursor_value_if_the_slice_has_none():
    assert of_slice("sales.movie", piece(1, None, 91377), None, "s3://b/k", 0) == (
        "copied sales.movie: 1 row, transactions [first, 91377) -> s3://b/k in 0.00 s"
    )
    assert of_slice("movie", piece(0), None, "s3://b/k", 1) == "copied movie: 0 rows, no window -> s3://b/k in 1.00 s"


def test_the_line_of_a_batch_counts_new_rows_and_tables():
    assert (
        of_batch({"movie": 1200, "actor": 1, "genre": 0}, ["genre", "award"])
        == "1,201 new rows in 2 tables, 2 unchanged"
    )
    assert of_batch({"movie": 1}, []) == "1 new row in 1 table"
    assert of_batch({}, ["movie"]) == "0 new rows in 0 tables, 1 unchanged"
    assert of_batch({}, [], ["movie"]) == "0 new rows in 0 tables, 1 being copied by another run"
    assert of_batch({}, [], [], ["movie", "genre"]) == "0 new rows in 0 tables, 2 left to a later tick"
    assert of_batch({"movie": 2}, [], failed=["genre"]) == "2 new rows in 1 table, 1 failed"


@pytest.mark.parametrize(
    "error, retry", [(StaleSnapshot("it lags."), "automatic"), (HistoryChanged("no."), "after_fix")]
)
def test_a_failure_has_the_sentence_and_what_a_retry_requires(error, retry):
    shown = dagster_failure(error)
    assert shown.description == str(error)
    assert dagster_failure(error, "movie").description == f"movie: {error}"
    assert dagster_failure(type(error)(f"movie: {error}"), "movie").description == f"movie: {error}"
    assert shown.metadata["pg_bronze/retry"].value == retry
    assert not shown.allow_retries
