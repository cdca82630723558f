"""Writers that commit out of order, while the table is copied with crashes and lost watermarks."""

import pytest

from benchmarks.race import race
from pg_bronze.core.band_rules import BandRules
from pg_bronze_tests.harness.lake import FORCED_BANDS, SAME, Lake
from pg_bronze_tests.harness.repetitions import newest_alone

# On the others the table has one band, as every small table has.
FORCED_ON = {15, 18}


@pytest.fixture
def database(any_database):
    """Run all of this on every version."""
    return any_database


@pytest.mark.slow
@newest_alone()
def test_while_twelve_writers_race_no_row_is_lost_stale_or_doubled(database, bucket):
    """The promise. A plain poller must lose rows in the same run, otherwise the race proves nothing."""
    bands = FORCED_BANDS if database.server.version in FORCED_ON else BandRules()
    result = race(Lake(database, bucket.store(), bands=bands), seconds=5, writers=12, seed=263)

    assert result.difference == SAME
    assert result.poller_lost > 0
    assert result.crashes > 0
    assert result.forgotten > 0
    assert result.rows > 500
