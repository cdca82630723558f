"""Writers that commit out of order, against a copier that crashes and forgets."""

import pytest

from benchmarks.race import race
from pg_bronze_tests.harness.lake import SAME, Lake


@pytest.fixture
def database(any_database):
    """All of this on every version."""
    return any_database


@pytest.mark.slow
def test_while_twelve_writers_race_no_row_is_lost_stale_or_doubled(database, bucket):
    """The promise. A plain poller must lose rows in the same run, or the race would prove nothing.

    Seen red with ``pg_snapshot_xmax`` for ``pg_snapshot_xmin`` in window.py, in the horizon and in the guard that would
    not have let its windows be read: 190 to 231 rows lost, 25 to 32 keys with a wrong latest.
    """
    result = race(Lake(database, bucket.store()), seconds=8, writers=12, seed=7)

    assert result.difference == SAME
    assert result.poller_lost > 0
    assert result.crashes > 0
    assert result.forgotten > 0
    assert result.rows > 500
