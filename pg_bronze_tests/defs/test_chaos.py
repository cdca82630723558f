"""Chaos and race through sensor, asset, IO manager and Dagster's storage."""

from pathlib import Path

import pytest

from benchmarks.chaos import WHERE, arena, chaos, undone
from benchmarks.race import race
from pg_bronze_tests.harness.asset_lake import asset_lake
from pg_bronze_tests.harness.lake import SAME
from pg_bronze_tests.harness.repetitions import also, repetition


@pytest.mark.slow
@pytest.mark.parametrize("where", also(*WHERE))
def test_no_row_is_lost_or_duplicated_whatever_happens_to_a_table(where, bindir, tmp_path: Path, bucket):
    """The promise, from the sensor's tick to the event in Dagster's storage."""
    with arena(where, tmp_path, bindir) as place, asset_lake(place.reading, bucket, tmp_path) as lake:
        result = chaos(place, lake, seconds=5, writers=8, seed=11)

    assert result.difference == SAME
    assert result.comparisons == 2
    assert not undone(result)


@pytest.mark.slow
@repetition
def test_no_row_is_lost_or_duplicated_while_twelve_writers_race(database, bucket, tmp_path: Path):
    """A plain poller must lose rows in the same run, or the race would prove nothing."""
    with asset_lake(database, bucket, tmp_path) as lake:
        result = race(lake, seconds=5, writers=12, seed=7)

    assert result.difference == SAME
    assert result.poller_lost > 0
    assert result.crashes > 0
    assert result.forgotten > 0
    assert result.rows > 500
