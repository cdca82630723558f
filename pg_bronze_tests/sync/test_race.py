"""Writers that commit out of order, while the table is copied with crashes and lost watermarks."""

import pytest

from benchmarks.race import race
from pg_bronze_tests.harness.lake import SAME, Lake


@pytest.fixture
def database(any_database):
    """Run all of this on every version."""
    return any_database


@pytest.mark.slow
def test_while_twelve_writers_race_no_row_is_lost_stale_or_doubled(database, bucket):
    """The promise. A plain poller must lose rows in the same run, otherwise the race proves nothing."""
    result = race(Lake(database, bucket.store()), seconds=5, writers=12, seed=7)

    assert result.difference == SAME
    assert result.poller_lost > 0
    assert result.crashes > 0
    assert result.forgotten > 0
    assert result.rows > 500
