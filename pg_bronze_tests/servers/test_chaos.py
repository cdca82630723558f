"""All that PostgreSQL lets people do to a table, against a copier that crashes and forgets, wherever it reads from."""

from pathlib import Path

import pytest

from benchmarks.chaos import WHERE, arena, chaos
from pg_bronze_tests.conftest import older_servers
from pg_bronze_tests.servers.harness import SAME

VERSIONS = {"18": None, "15": older_servers().get("15")}


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("where", WHERE)
def test_whatever_is_done_to_a_table_no_row_is_lost_stale_or_doubled(where, version, tmp_path: Path, bucket):
    """The promise, with rewrites, reloads, prepared transactions and cursor values that mean nothing.

    Seen red with ``pg_snapshot_xmax`` for ``pg_snapshot_xmin`` in window.py: 28 rows lost, 4 keys with a wrong latest.
    """
    if version == "15" and VERSIONS["15"] is None:
        pytest.skip("no PostgreSQL 15 here")
    with arena(where, tmp_path, VERSIONS[version]) as place:
        result = chaos(place, bucket.store(), seconds=6, writers=8, seed=11)

    assert result.difference == SAME
    assert result.crashes > 0
    assert result.acts["prepared"] > 0
    assert result.acts["savepoints"] > 0
