"""Chaos and race once more, with all that runs for users: sensor, asset, IO manager, what Dagster has recorded."""

from pathlib import Path

import pytest

from benchmarks.chaos import WHERE, arena, chaos, undone
from benchmarks.race import race
from pg_bronze_tests.harness.asset_lake import asset_lake
from pg_bronze_tests.harness.lake import SAME


@pytest.mark.slow
@pytest.mark.parametrize("where", WHERE)
def test_whatever_is_done_to_a_table_its_asset_loses_and_doubles_nothing(where, bindir, tmp_path: Path, bucket):
    """The promise, from the sensor's look to the event in Dagster's storage."""
    with arena(where, tmp_path, bindir) as place, asset_lake(place.reading, bucket, tmp_path) as lake:
        result = chaos(place, lake, seconds=5, writers=8, seed=11)

    assert result.difference == SAME
    assert result.comparisons == 2
    assert not undone(result)


@pytest.mark.slow
def test_while_twelve_writers_race_the_asset_loses_and_doubles_nothing(database, bucket, tmp_path: Path):
    """A plain poller must lose rows in the same run, or the race would prove nothing."""
    with asset_lake(database, bucket, tmp_path) as lake:
        result = race(lake, seconds=5, writers=12, seed=7)

    assert result.difference == SAME
    assert result.poller_lost > 0
    assert result.crashes > 0
    assert result.forgotten > 0
    assert result.rows > 500
