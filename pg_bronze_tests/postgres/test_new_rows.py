"""Questions about many tables at once."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from pg_bronze.core.region import Region
from pg_bronze.postgres import new_rows
from pg_bronze.postgres.connection import Source
from pg_bronze_tests.harness.replicas import until


def test_every_table_gets_its_own_answer_although_one_cannot_be_read(database, monkeypatch):
    """A dropped table must not hide whether the others have rows."""
    monkeypatch.setattr(new_rows, "_TABLES_PER_STATEMENT", 4)
    names = [f"t{number}" for number in range(7)]
    database.execute("; ".join(f"create table {name} (id int)" for name in names if name != "t2"))
    database.execute("insert into t1 values (1); insert into t6 values (1)")
    with Source(database.conninfo, database.url, 30) as source:
        horizon = source.activity().horizon
        regions = [(Region("public", name, True, (), None, horizon), {}) for name in names]

        assert new_rows.exist(source, regions) == [False, True, None, False, False, False, True]
        later = [(Region("public", name, True, (), horizon, horizon), {}) for name in names]
        assert new_rows.exist(source, later) == [False, False, None, False, False, False, False]


@pytest.mark.parametrize("held", [True, False])
def test_a_table_that_is_locked_or_about_to_be_has_no_answer_and_the_others_have(database, held):
    """A session that waits for the lock, as `alter table` beside a long query, keeps all later ones waiting too."""
    database.execute("create table t0 as select 1 as id; create table t1 as select 1 as id")
    oids = database.execute("select 't0'::regclass::oid::bigint, 't1'::regclass::oid::bigint")[0]
    lock = "lock table t0 in access exclusive mode"
    with (
        ThreadPoolExecutor(1) as pool,  # it ends after the sessions, and so after the lock that its thread may wait for
        Source(database.conninfo, database.url, 30, lock_timeout_s=0.1) as source,
        database.connect(autocommit=False) as other,
        database.connect(autocommit=False) as owner,
    ):
        owner.execute(lock if held else "select * from t0")
        waiting = None if held else pool.submit(other.execute, lock)
        until(database.server, database.name, "select exists (select from pg_locks where mode = 'AccessExclusiveLock')")
        names = zip(("t0", "t1"), oids, strict=True)
        regions = [(Region("public", name, True, (oid,), None, source.horizon()), {}) for name, oid in names]

        assert new_rows.exist(source, regions) == [None, True]

        owner.rollback()
        if waiting:
            waiting.result()
