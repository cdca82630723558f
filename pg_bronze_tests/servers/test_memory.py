"""The bound on memory, in processes of their own: the peak of a worker above one that has copied a tiny table."""

import sys

import pytest

from benchmarks import memory

# Two more megabytes than the benchmark allows would be noise; a slice too many in memory is thirty.
ALLOWED_MB = memory.ALLOWED_MB + 20
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
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process its peak")
@pytest.mark.parametrize("case", CASES)
def test_a_worker_stays_within_200_mb_of_an_idle_one(database, bucket, case):
    """One heap block may point to gigabytes, and a megabyte of it may hold gigabytes compressed."""
    memory.prepare(database, CASES[case])
    rows = database.execute("select count(*) from t")[0][0]

    # On a machine that is busy otherwise a thread of the reader gives its buffers back late: seen once in ten runs.
    needed = []
    for _ in range(3):
        found = memory.measure(memory.plan(database.conninfo, bucket.server, bucket.name))
        assert found["rows"] == rows
        needed.append(found["peak"] - found["idle"])
        if needed[-1] <= ALLOWED_MB:
            break
        for item in bucket.store().list(""):
            bucket.store().delete(item.key)

    assert min(needed) <= ALLOWED_MB
