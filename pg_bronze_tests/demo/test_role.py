import psycopg
import pytest

from pg_bronze.demo import role, sample
from pg_bronze.demo.postgres import PostgresServer


def test_the_role_of_the_demo_reads_old_and_new_tables_writes_none_and_keeps_a_revoked_right(server: PostgresServer):
    """With a superuser, a revoked right would change nothing, and nobody could try what a failing table looks like."""
    server.start()
    with server.connect(autocommit=True) as connection:
        sample.create_database(connection)
    with server.connect("cine") as connection:
        sample.create_tables(connection)
    with server.connect("cine", autocommit=True) as owner:
        role.create_role(owner, "it's secret")
        owner.execute("revoke select on genre from bronze; create table award (id int primary key)")
        role.create_role(owner, "it's secret")

    with server.connect("cine", user=role.ROLE, password="it's secret", autocommit=True) as reader:
        assert reader.execute("select count(*) from movie").fetchone() == (sample.MOVIE_COUNT,)
        assert reader.execute("select count(*) from award").fetchone() == (0,)
        for refused in ("select 1 from genre", "delete from movie"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                reader.execute(refused.encode())
        reader.execute("create table etl_control (table_name text)")
