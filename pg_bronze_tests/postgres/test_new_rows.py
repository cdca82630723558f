"""Questions about many tables at once."""

from pg_bronze.core.region import Region
from pg_bronze.postgres import new_rows
from pg_bronze.postgres.connection import Source


def test_every_table_gets_its_own_answer_although_one_cannot_be_read(database, monkeypatch):
    """A dropped table must not make all the others look changed: each would cost a run."""
    monkeypatch.setattr(new_rows, "_TABLES_PER_STATEMENT", 4)
    names = [f"t{number}" for number in range(7)]
    database.execute("; ".join(f"create table {name} (id int)" for name in names if name != "t2"))
    database.execute("insert into t1 values (1); insert into t6 values (1)")
    with Source(database.conninfo, database.url, 30) as source:
        horizon = source.activity().horizon
        regions = [(Region("public", name, True, (), None, horizon), {}) for name in names]

        assert new_rows.exist(source, regions) == [False, True, True, False, False, False, True]
        later = [(Region("public", name, True, (), horizon, horizon), {}) for name in names]
        assert new_rows.exist(source, later) == [False, False, True, False, False, False, False]
