"""The bound on memory: the peak of a worker process above that of one that has copied a tiny table."""

import sys

import pytest

from benchmarks import memory
from pg_bronze_tests.harness.repetitions import also

CASES = {
    "rows of 20 MB": [
        "create table t (id int, poster bytea)",
        "alter table t alter poster set storage external",
        (
            f"insert into t select i, decode({memory.NOISE.format(mb=40, seed=70000000)}, 'hex') "
            "from generate_series(1, 3) i"
        ),
    ],
    "values that are large only while read": memory.CASES["compressed in the row"],
    "many columns": memory.CASES["1,600 columns"],
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports the peak of a process")
@pytest.mark.parametrize("case", [next(iter(CASES)), *also(*list(CASES)[1:])])
def test_a_worker_stays_within_200_mb_of_an_idle_one(database, bucket, case, monkeypatch):
    """One heap block may point to gigabytes, and a megabyte of it may hold gigabytes compressed."""
    # As in a worker started by a process that has imported Polars; respecting the inherited value took 230 MB more.
    monkeypatch.setenv("_RJEM_MALLOC_CONF", "dirty_decay_ms:500,muzzy_decay_ms:1000")
    memory.prepare(database, CASES[case])

    found = memory.measure(memory.plan(database.conninfo, bucket.server, bucket.name))

    assert found["rows"] == database.execute("select count(*) from t")[0][0]
    assert found["peak"] - found["idle"] <= memory.ALLOWED_MB
