"""Real processes, killed with SIGKILL in the middle of a large first load while others write."""

from pathlib import Path

import pytest

from benchmarks.large import large
from pg_bronze_tests.harness.lake import SAME


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_large_first_load_that_is_killed_again_and_again_loses_and_doubles_nothing(database, bucket, tmp_path: Path):
    """Block ranges, claims and watermarks of a dead process are all that the next one has.

    However large the table, a process takes no more than 200 MB above one that copied a single row.
    """
    found = large(
        database, bucket, rows=120_000, kills=3, seed=5, folder=tmp_path / "project", PG_BRONZE_SLICE_ROWS="10000"
    )

    assert found.difference == SAME
    assert found.kills == 3
    assert found.objects > 10
    assert found.rows > 110_000
    assert found.peak_mb > found.idle_mb > 0
    assert found.bounded
