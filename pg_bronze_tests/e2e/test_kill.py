"""Processes killed with SIGKILL during a large first load, while others write."""

from pathlib import Path

import pytest

from benchmarks.large import large
from pg_bronze_tests.harness.lake import SAME
from pg_bronze_tests.harness.repetitions import repetition


@pytest.mark.slow
@repetition
@pytest.mark.timeout(240)
def test_a_large_first_load_that_is_killed_neither_loses_nor_duplicates_rows(database, bucket, tmp_path: Path):
    """The next process has only the claims and objects of the killed one.

    A process uses at most 200 MB more than one that copied a single row, whatever the size of the table.
    """
    found = large(
        database, bucket, rows=100_000, kills=1, seed=5, folder=tmp_path / "project", PG_BRONZE_SLICE_ROWS="10000"
    )

    assert found.difference == SAME
    assert found.kills == 1
    assert found.objects >= 10
    assert found.rows > 90_000
    assert found.peak_mb > found.idle_mb > 0
    assert found.bounded
