import threading
from typing import Any

import psycopg

from pg_bronze.demo import sample
from pg_bronze.demo.postgres import PostgresServer
from pg_bronze.demo.writer import SampleWriter


def fill(server: PostgresServer) -> bool:
    with server.connect(autocommit=True) as connection:
        sample.create_database(connection)
    with server.connect("cine") as connection:
        return sample.create_tables(connection)


def content(server: PostgresServer) -> dict[str, tuple[Any, ...] | None]:
    with server.connect("cine") as connection:
        names = connection.execute("select tablename from pg_tables where schemaname = 'public' order by 1").fetchall()
        query = "select count(*), md5(string_agg(t::text, ',' order by t::text)) from {} t"
        return {name: connection.execute(query.format(name).encode()).fetchone() for (name,) in names}


def test_the_sample_is_the_same_every_time_and_is_created_once(server: PostgresServer) -> None:
    server.start()
    assert fill(server)
    first = content(server)
    assert not fill(server)
    with server.connect(autocommit=True) as connection:
        connection.execute("drop database cine")
    assert fill(server)

    assert content(server) == first
    assert first["movie"] is not None
    assert first["movie"][0] == sample.MOVIE_COUNT
    assert set(first) >= {"person", "genre", "keyword", "movie_genre", "movie_cast", "screening", "house_rule"}


def test_inserted_rows_get_new_keys_and_updates_a_new_timestamp(server: PostgresServer) -> None:
    server.start()
    fill(server)
    with server.connect("cine") as connection:
        added = connection.execute("insert into movie (title) values ('New') returning movie_id").fetchone()
        query = "update movie set rating = 1 where movie_id = 1 returning updated_at > created_at + interval '1 day'"
        touched = connection.execute(query.encode()).fetchone()
        undescribed = connection.execute(
            "select count(*) from pg_class c left join pg_description d on d.objoid = c.oid and d.objsubid = 0 "
            "where c.relkind = 'r' and c.relnamespace = 'public'::regnamespace and d.description is null"
        ).fetchone()
    assert (added, touched, undescribed) == ((sample.MOVIE_COUNT + 1,), (True,), (0,))


def test_the_writer_resumes_after_a_crash_of_the_server_and_keeps_some_transactions_open(
    server: PostgresServer,
) -> None:
    server.start()
    fill(server)
    opened: list[psycopg.Connection[tuple[Any, ...]]] = []
    reconnected = threading.Event()

    def connect() -> psycopg.Connection[tuple[Any, ...]]:
        opened.append(server.connect("cine"))
        if len(opened) >= 4:
            reconnected.set()
        return opened[-1]

    writer = SampleWriter(connect, pause_s=0.01, seed=1)
    writer.start()
    late = 0
    with server.connect("cine", autocommit=True) as watching:
        query = "select count(*) from pg_stat_activity where state = 'idle in transaction' and datname = 'cine'"
        for _ in range(2000):
            row = watching.execute(query).fetchone()
            assert row is not None
            late = max(late, row[0])
            if late and writer.round_count > 20:
                break
    server.kill()
    server.start()
    assert reconnected.wait(20)
    assert writer.stop()

    assert late >= 1
    with server.connect("cine") as connection:
        row = connection.execute("select count(*) from pg_stat_activity where datname = 'cine'").fetchone()
    assert row is not None
