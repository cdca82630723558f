"""All changes that PostgreSQL allows, while the table is copied from several kinds of servers, with crashes."""

from pathlib import Path

import pytest

from benchmarks.chaos import WHERE, arena, chaos, undone
from pg_bronze.core.band_rules import BandRules
from pg_bronze_tests.harness.lake import FORCED_BANDS, SAME, Lake
from pg_bronze_tests.harness.repetitions import repetition
from pg_bronze_tests.harness.servers import older_servers

VERSIONS = {"18": None, "15": older_servers().get("15")}
# Bands on servers to write to and to read from, old and new; one band, as small tables have, everywhere on the newest.
CASES = [
    *((FORCED_BANDS, where, version) for where in ("primary", "standby") for version in VERSIONS),
    *((BandRules(), where, "18") for where in WHERE),
]


@pytest.mark.slow
@repetition  # of ``defs/test_chaos.py``, without Dagster
@pytest.mark.parametrize(
    "bands, where, version",
    [
        pytest.param(
            *case,
            id=f"{'bands' if case[0] is FORCED_BANDS else 'one band'}-{case[1]}-{case[2]}",
        )
        for case in CASES
    ],
)
def test_no_change_of_a_table_makes_a_row_lost_stale_or_doubled(bands, where, version, tmp_path: Path, bucket):
    """The promise, with rewrites, reloads, prepared transactions and cursor values that mean nothing.

    Everything that can be done was done, and it held in the middle of the run as at its end, where a reload or a new
    generation has covered up what was wrong before.
    """
    if version == "15" and VERSIONS["15"] is None:
        pytest.skip("no PostgreSQL 15 here")
    with arena(where, tmp_path, VERSIONS[version]) as place:
        result = chaos(place, Lake(place.reading, bucket.store(), bands=bands), seconds=5, writers=8, seed=11)

    assert result.difference == SAME
    assert result.comparisons == 2
    assert not undone(result)
