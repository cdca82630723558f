"""``etl_control``: a mirror as the original system kept it, and never more than a mirror."""

from datetime import UTC, datetime, timedelta

import pytest

from pg_bronze.postgres.control_table import Control, ControlRow
from pg_bronze_tests.harness.lake import MOVIE, SAME, Lake, fill


@pytest.fixture
def lake(database, bucket):
    database.execute(MOVIE)
    with database.connect() as connection:
        yield Lake(database, bucket.store(), control=Control(connection))


def rows(database):
    return database.execute("select table_name, last_extracted_value, tracking_column from etl_control order by 1")


def test_the_control_table_is_made_with_the_originals_columns(lake, database):
    """Tools of people read it by these names and types."""
    database.execute(fill(1, 1))
    lake.tick()

    assert database.execute(
        "select column_name::text, data_type::text, character_maximum_length, is_nullable::text, column_default "
        "from information_schema.columns where table_name = 'etl_control' order by ordinal_position"
    ) == [
        ("table_name", "character varying", 255, "NO", None),
        ("last_extracted_value", "character varying", 255, "YES", None),
        ("last_extracted_at", "timestamp without time zone", None, "YES", "CURRENT_TIMESTAMP"),
        ("tracking_column", "character varying", 255, "YES", None),
    ]
    assert database.execute(
        "select a.attname::text from pg_index i "
        "join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey) "
        "where i.indrelid = 'etl_control'::regclass and i.indisprimary"
    ) == [("table_name",)]


def test_the_value_is_the_highest_copied_as_postgresql_prints_it_in_utc(lake, database):
    lake.control.connection.execute("set timezone = 'Asia/Tokyo'")
    database.execute("insert into movie values (1, 'a', '2026-01-01 03:00:00.5+03', 1), (2, 'b', '2025-01-01', 1)")

    lake.tick()

    assert rows(database) == [("movie", "2026-01-01 00:00:00.5+00", "updated_at")]
    (found,) = database.execute("select last_extracted_at from etl_control")[0]
    assert abs(datetime.now(UTC).replace(tzinfo=None) - found) < timedelta(minutes=5)


def test_a_table_outside_public_is_named_with_its_schema(lake, database):
    database.execute(
        "create schema sales; create table sales.movie (movie_id int primary key); insert into sales.movie values (7)"
    )

    lake.tick("sales:movie")

    assert rows(database) == [("sales.movie", "7", "movie_id")]


def test_the_value_never_goes_back(lake, database):
    """Older tools would copy again from there."""
    database.execute("insert into movie values (1, 'a', '2026-01-01', 1)")
    lake.tick()
    database.execute("insert into movie values (2, 'b', '2020-01-01', 1), (3, 'c', null, 1)")
    lake.tick()
    lake.forget()
    database.execute("insert into movie values (4, 'd', '2021-01-01', 1)")
    lake.tick()

    assert rows(database) == [("movie", "2026-01-01 00:00:00+00", "updated_at")]
    assert lake.compare() == SAME


@pytest.mark.parametrize(
    "change",
    [
        "update etl_control set last_extracted_value = '1999-01-01'",
        "update etl_control set last_extracted_value = '2999-01-01', tracking_column = 'title'",
        "delete from etl_control",
        "drop table etl_control",
    ],
)
def test_a_control_row_edited_or_deleted_moves_nothing_and_is_written_again(lake, database, change):
    """People set it back to make the original system copy again; here that would double rows, so it does not."""
    database.execute(fill(1, 3))
    assert lake.tick().mirrored.edited is False
    lake.control = Control(lake.control.connection)
    database.execute(change)
    database.execute("insert into movie values (9, 'x', '2030-01-01', 1)")

    outcome = lake.tick()

    assert outcome.row_count == 1
    assert outcome.mirrored.edited is True
    assert rows(database) == [("movie", "2030-01-01 00:00:00+00", "updated_at")]
    assert lake.compare() == SAME


def test_a_control_table_dropped_while_we_run_is_made_again(lake, database):
    """Whoever drops it would stop all tables."""
    database.execute(fill(1, 3))
    lake.tick()
    database.execute("drop table etl_control")
    database.execute(fill(4, 4))

    lake.tick()

    assert [row[0] for row in rows(database)] == ["movie"]


def test_a_role_that_may_not_write_switches_the_mirror_off_and_says_so(lake, database):
    """The right to read is all the copying needs."""
    database.execute(
        "do $$ begin create role looker login password 'looker'; exception when duplicate_object then null; end $$;"
        "grant select on movie to looker"
    )
    database.execute(fill(1, 3))
    with database.connect(user="looker", password="looker") as connection:
        lake.control = Control(connection)
        outcome = lake.tick()
        database.execute(fill(4, 4))
        again = lake.tick()

    assert not outcome.mirrored.written
    assert "or set PG_CONTROL_URL to another database or to off" in outcome.mirrored.reason
    assert again.mirrored == outcome.mirrored
    assert lake.compare() == SAME
    assert database.execute("select to_regclass('etl_control')") == [(None,)]


@pytest.mark.parametrize("there", [True, False], ids=["the table is there", "it is not"])
def test_the_remedy_that_is_named_works_as_it_stands(lake, database, there):
    """A grant on a table that does not exist is an error, and the second sentence nobody wants to look for."""
    database.execute(fill(1, 3))
    if there:
        lake.tick()
        database.execute("truncate etl_control")
    database.execute("drop role if exists looker; create role looker login password 'looker'")
    try:
        with database.connect(user="looker", password="looker") as connection:
            reason = Control(connection).mirror(ControlRow("movie", "1", "movie_id"), None).reason
            database.execute(reason.split(": ", 2)[2].rsplit("; or set", 1)[0].removeprefix("Run: "))

            assert Control(connection).mirror(ControlRow("movie", "1", "movie_id"), None).written
        assert [row[0] for row in rows(database)] == ["movie"]
    finally:
        database.execute("drop owned by looker; drop role looker")


def test_a_role_that_may_write_an_existing_control_table_need_not_create_one(lake, database):
    """``create table if not exists`` wants that right even where the table exists."""
    database.execute(fill(1, 1))
    lake.tick()
    database.execute(
        "do $$ begin create role keeper login password 'keeper'; exception when duplicate_object then null; end $$;"
        "grant select, insert, update on etl_control to keeper; truncate etl_control"
    )
    with database.connect(user="keeper", password="keeper") as connection:
        assert Control(connection).mirror(ControlRow("movie", "1", "movie_id"), None).written

    assert rows(database) == [("movie", "1", "movie_id")]


def test_a_session_that_is_read_only_switches_the_mirror_off(database):
    """On a standby nobody can write, and copying needs no more than to read."""
    with database.connect(options="-c default_transaction_read_only=on") as connection:
        control = Control(connection)
        mirrored = control.mirror(ControlRow("movie", "1", "movie_id"), None)

    assert not mirrored.written
    assert control.off == mirrored.reason


def test_the_control_table_may_live_in_another_database(lake, database, postgres_server):
    other = f"{database.name}_control"
    with postgres_server.connect() as connection:
        connection.autocommit = True
        connection.execute(f'create database "{other}"')
    try:
        with database.connect(dbname=other) as connection:
            lake.control = Control(connection)
            database.execute("insert into movie values (1, 'a', '2026-01-01', 1)")
            lake.tick()
            found = connection.execute("select table_name, last_extracted_value from etl_control").fetchall()
    finally:
        with postgres_server.connect() as connection:
            connection.autocommit = True
            connection.execute(f'drop database "{other}" with (force)')

    assert found == [("movie", "2026-01-01 00:00:00+00")]
    assert database.execute("select to_regclass('etl_control')") == [(None,)]


def test_without_a_connection_nothing_is_mirrored_and_nobody_is_surprised(lake, database):
    lake.control = Control(None, "etl_control is not mirrored: PG_CONTROL_URL is off")
    database.execute(fill(1, 3))

    outcome = lake.tick()

    assert outcome.mirrored.reason == "etl_control is not mirrored: PG_CONTROL_URL is off"
    assert lake.compare() == SAME
