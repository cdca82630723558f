"""``etl_control``: a mirror in the original system's format, which is never read as state."""

import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from pg_bronze.postgres.control_table import Control, ControlRow, Mirrored
from pg_bronze_tests.harness.lake import MOVIE, SAME, Lake, fill

CREATE = """create table etl_control (table_name varchar(255) primary key, last_extracted_value varchar(255),
last_extracted_at timestamp default current_timestamp, tracking_column varchar(255))"""


@pytest.fixture
def lake(database, bucket):
    database.execute(MOVIE)
    with database.connect() as connection:
        yield Lake(database, bucket.store(), control=Control(connection))


def rows(database):
    return database.execute("select table_name, last_extracted_value, tracking_column from etl_control order by 1")


def test_the_control_table_is_created_with_the_columns_of_the_original(lake, database):
    """Existing tools read it by these names and types."""
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


def test_the_value_never_decreases(lake, database):
    """Older tools would copy rows again from there."""
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
def test_an_edited_or_deleted_control_row_changes_no_watermark_and_is_rewritten(lake, database, change):
    """People edited it to make the original system copy again; here that would double rows."""
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


def test_a_control_table_dropped_during_a_run_is_created_again(lake, database):
    """Dropping it would otherwise stop all tables."""
    database.execute(fill(1, 3))
    lake.tick()
    database.execute("drop table etl_control")
    database.execute(fill(4, 4))

    lake.tick()

    assert [row[0] for row in rows(database)] == ["movie"]


def test_a_role_that_may_not_write_switches_the_mirror_off_with_a_reason(lake, database):
    """Copying requires the right to read, and no other."""
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


@pytest.mark.parametrize("exists", [True, False], ids=["the table exists", "it is missing"])
def test_the_named_remedy_can_be_run_as_it_is(lake, database, exists):
    """A grant on a table that does not exist is an error."""
    database.execute(fill(1, 3))
    if exists:
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
    """``create table if not exists`` requires that right even if the table exists."""
    database.execute(fill(1, 1))
    lake.tick()
    database.execute(
        "do $$ begin create role keeper login password 'keeper'; exception when duplicate_object then null; end $$;"
        "grant select, insert, update on etl_control to keeper; truncate etl_control"
    )
    with database.connect(user="keeper", password="keeper") as connection:
        assert Control(connection).mirror(ControlRow("movie", "1", "movie_id"), None).written

    assert rows(database) == [("movie", "1", "movie_id")]


@pytest.fixture
def guest(database):
    """A role that may connect, and nothing else; yields its name."""
    name = f"guest_{database.name}"
    database.execute(f"create role {name} login password 'guest'")
    yield name
    database.execute(f"drop owned by {name}; drop role {name}")


@contextmanager
def control_of(database, user: str):
    with database.connect(user=user, password="guest") as connection:
        yield Control(connection)


ROW = ControlRow("movie", "1", "movie_id")


@pytest.mark.parametrize(
    "before",
    ["revoke create on schema public from public", CREATE, f"{CREATE}; grant select, insert on etl_control to public"],
    ids=["may not create", "may not write", "may only insert"],
)
def test_a_role_without_the_right_makes_no_attempt(database, guest, before):
    """Each attempt is an error in the server's log, which somebody monitors."""
    database.execute(before)
    log = database.server.data_dir / "postgres.log"
    database.execute("do $$ begin raise log 'test begins: %', current_database(); end $$")

    with control_of(database, guest) as control:
        assert not control.mirror(ROW, None).written
        assert control.last_value("movie") is None

    logged = log.read_text(errors="replace").rpartition(f"test begins: {database.name}")
    assert logged[1]
    assert [line for line in logged[2].splitlines() if "ERROR" in line] == []


def test_one_line_names_the_place_of_the_mirror(database, guest):
    database.execute(f"create schema tools; grant usage, create on schema tools to {guest}")
    database.execute(f"alter role {guest} in database {database.name} set search_path = nowhere, tools, public")
    place = f"in database {database.name}, schema tools"
    with control_of(database, guest) as control:
        assert control.where() == f"etl_control will be created {place}"
        assert control.mirror(ROW, None).written
        assert control.where() == f"etl_control is mirrored {place}"

    assert database.execute("select table_name from tools.etl_control") == [("movie",)]


def test_one_line_tells_why_there_is_no_mirror(database, guest):
    database.execute("revoke create on schema public from public")
    with control_of(database, guest) as control:
        line = control.where()
        assert control.mirror(ROW, None).reason == line == control.where()
    assert line.startswith("etl_control is not mirrored: it does not exist, and this role may not create it. Run as")
    assert Control(None).where() == "etl_control is not mirrored: PG_CONTROL_URL is off"


def test_a_role_whose_search_path_has_no_schema_switches_the_mirror_off(database, guest):
    database.execute(f"alter role {guest} in database {database.name} set search_path = nowhere")

    with control_of(database, guest) as control:
        assert "search_path" in control.mirror(ROW, None).reason


def test_a_foreign_table_of_that_name_is_left_alone(database):
    """Its owner wants to know why nothing is mirrored, and that no table of pg_bronze was altered."""
    database.execute("create table etl_control (id int)")
    with database.connect() as connection:
        mirrored = Control(connection).mirror(ROW, None)

    assert 'not mirrored: "public".etl_control lacks columns' in mirrored.reason


def test_the_right_to_update_the_three_columns_is_enough(database, guest):
    database.execute(
        f"{CREATE}; grant select, insert on etl_control to {guest};"
        f"grant update (last_extracted_value, last_extracted_at, tracking_column) on etl_control to {guest}"
    )
    with control_of(database, guest) as control:
        assert control.mirror(ROW, None).written
        assert control.mirror(ControlRow("movie", "2", "movie_id"), "1") == Mirrored(True)

    assert rows(database) == [("movie", "2", "movie_id")]


def test_a_write_that_the_server_refuses_switches_the_mirror_off(database, guest):
    """Row security shows no missing right before the attempt; copying continues without the mirror."""
    database.execute(f"{CREATE}; grant select, insert, update on etl_control to {guest}")
    database.execute("alter table etl_control enable row level security")

    with control_of(database, guest) as control:
        mirrored = control.mirror(ROW, None)

    assert not mirrored.written
    assert "the server refused the statement (SQLSTATE 42501)" in mirrored.reason
    assert control.where() == mirrored.reason


COLUMNS = "last_extracted_value text, last_extracted_at timestamp, tracking_column text"
# What is wrong, the statements of it and of its end, and what the reason names.
BROKEN = {
    "no unique key": (
        f"create table etl_control (table_name text, {COLUMNS})",
        "alter table etl_control add primary key (table_name)",
        "42P10",
    ),
    "another column is not null": (
        f"create table etl_control (table_name text primary key, {COLUMNS}, job text not null)",
        "alter table etl_control drop column job",
        "23502",
    ),
    "a check fails": (
        f"create table etl_control (table_name text primary key check (length(table_name) > 9), {COLUMNS})",
        "alter table etl_control drop constraint etl_control_table_name_check",
        "23514",
    ),
    "another type": (
        (
            "create table etl_control (table_name text primary key, last_extracted_value int, last_extracted_at "
            "timestamp, tracking_column text)"
        ),
        "alter table etl_control alter last_extracted_value type text",
        "22P02",
    ),
    "somebody else's": (
        "create table etl_control (job text primary key, started timestamptz)",
        "drop table etl_control",
        "lacks columns",
    ),
    "a view": (
        (
            "create view etl_control as select 'x' as table_name, 'x' as last_extracted_value, now() as "
            "last_extracted_at, 'x' as tracking_column"
        ),
        "drop view etl_control",
        "SQLSTATE",
    ),
    "a trigger raises": (
        (
            f"{CREATE}; create function no_row() returns trigger language plpgsql as "
            "$$ begin raise 'a secret value'; end $$; "
            "create trigger no_row before insert or update on etl_control for each row execute function no_row()"
        ),
        "drop trigger no_row on etl_control",
        "P0001",
    ),
    "an event trigger": (
        (
            "create function no_ddl() returns event_trigger language plpgsql as "
            "$$ begin if current_user <> 'postgres' then raise exception 'no'; end if; end $$; "
            "create event trigger no_ddl on ddl_command_start execute function no_ddl()"
        ),
        "drop event trigger no_ddl",
        "P0001",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_any_error_of_the_control_table_switches_the_mirror_off_until_the_next_run(lake, database, guest, case):
    """The mirror is for people; a table whose rows were copied would fail because of it, and be retried later."""
    before, end, named = BROKEN[case]
    database.execute(f"grant create on schema public to {guest}; grant pg_read_all_data to {guest}; {before}")
    if "etl_control (" in before or "view" in before:
        database.execute(f"grant all on etl_control to {guest}")
    database.execute(fill(1, 3))

    with control_of(database, guest) as control:
        lake.control = control
        outcome, again = lake.tick(), control.mirror(ROW, None)

        assert not outcome.mirrored.written
        assert named in outcome.mirrored.reason
        assert outcome.mirrored.reason.startswith("etl_control is not mirrored: ")
        assert "secret" not in outcome.mirrored.reason
        assert again.reason == outcome.mirrored.reason == control.where()
        assert lake.compare() == SAME

        database.execute(end)
        assert Control(control.connection).mirror(ROW, None).written
    assert [row[0] for row in rows(database)] == ["movie"]


@pytest.mark.parametrize(
    "lock, state", [("access exclusive", "55P03"), ("share row exclusive", "55P03")], ids=["every lock", "writes"]
)
def test_a_locked_control_table_switches_the_mirror_off_within_seconds(database, lock, state):
    """A forgotten transaction of a person would otherwise hold up all tables."""
    database.execute(CREATE)
    with database.connect() as connection, database.connect(autocommit=False) as other:
        other.execute(f"lock table etl_control in {lock} mode")
        begun = time.monotonic()
        mirrored = Control(connection).mirror(ROW, None)

        assert state in mirrored.reason
        assert time.monotonic() - begun < 6
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        other.rollback()
        assert Control(connection).mirror(ROW, None).written


def test_a_slow_trigger_switches_the_mirror_off(database):
    database.execute(
        f"{CREATE}; create function slow() returns trigger language plpgsql as "
        "$$ begin perform pg_sleep(60); return new; end $$; "
        "create trigger slow before insert on etl_control for each row execute function slow()"
    )
    with database.connect() as connection:
        assert "57014" in Control(connection).mirror(ROW, None).reason


def test_a_connection_that_ended_switches_the_mirror_off(database):
    with database.connect() as connection:
        control = Control(connection)
        database.execute(f"select pg_terminate_backend({connection.info.backend_pid}, 5000)")

        assert control.last_value("movie") is None
        assert control.off == control.mirror(ROW, None).reason
        assert "57P01" in control.off or "OperationalError" in control.off


def test_a_value_that_is_not_utf8_switches_the_mirror_off(postgres_server):
    name = "control_in_ascii"
    with postgres_server.connect(autocommit=True) as connection:
        connection.execute(f"create database {name} encoding 'SQL_ASCII' template template0 locale 'C'".encode())
        try:
            with postgres_server.connect(name, autocommit=True, client_encoding="SQL_ASCII") as raw:
                raw.execute(CREATE.encode() + b"; insert into etl_control values ('movie', 'a\xf1o', now(), 'title')")
            with postgres_server.connect(name, autocommit=True) as other:
                assert Control(other).mirror(ROW, None).reason.startswith("etl_control is not mirrored: ")
        finally:
            connection.execute(f"drop database {name} with (force)".encode())


def test_a_session_that_is_read_only_switches_the_mirror_off(database):
    """A standby accepts no writes, and copying requires none."""
    with database.connect(options="-c default_transaction_read_only=on") as connection:
        control = Control(connection)
        mirrored = control.mirror(ControlRow("movie", "1", "movie_id"), None)

    assert not mirrored.written
    assert control.off == mirrored.reason


def test_the_control_table_may_be_in_another_database(lake, database, postgres_server):
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


def test_without_a_connection_nothing_is_mirrored_and_rows_are_copied(lake, database):
    lake.control = Control(None, "etl_control is not mirrored: PG_CONTROL_URL is off")
    database.execute(fill(1, 3))

    outcome = lake.tick()

    assert outcome.mirrored.reason == "etl_control is not mirrored: PG_CONTROL_URL is off"
    assert lake.compare() == SAME
