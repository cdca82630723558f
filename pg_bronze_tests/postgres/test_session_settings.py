"""Nothing that a role, a database or an extension brings along changes what is read."""

import itertools
import re
from collections.abc import Iterator
from contextlib import ExitStack
from decimal import Decimal

import psycopg
import pytest
from polars.testing import assert_frame_equal

from pg_bronze.core.column_types import projection
from pg_bronze.postgres.catalog import read_catalog, read_table
from pg_bronze.postgres.connection import Source
from pg_bronze.postgres.control_table import Control, ControlRow, Mirrored
from pg_bronze.postgres.session_settings import PRINTING
from pg_bronze_tests.harness.lake import MOVIE, READERS, Lake, fill
from pg_bronze_tests.harness.repetitions import combinations, newest_alone, repetition
from pg_bronze_tests.harness.servers import older_servers
from pg_bronze_tests.harness.torture import Torture

# Strings have no rule for another legal value, and the least timeout would end the login.
ODD = {
    "search_path": "odd, public, pg_catalog",
    "TimeZone": "Asia/Kolkata",
    "DateStyle": "SQL, DMY",
    "client_encoding": "LATIN1",
    "lc_monetary": "POSIX",
    "lc_numeric": "POSIX",
    "lc_time": "POSIX",
    "default_text_search_config": "pg_catalog.german",
    "statement_timeout": "10min",
    "lock_timeout": "10min",
    "idle_in_transaction_session_timeout": "10min",
    "idle_session_timeout": "10min",
    "transaction_timeout": "10min",
}
# Who reads, not how; and settings that hold for one transaction.
NOT_A_DEFAULT = {"role", "session_authorization", "transaction_isolation", "transaction_read_only"} | {
    "transaction_deferrable"
}


# Settings that may differ: they change neither the rows nor the text of a statement of pg_bronze.
IRRELEVANT = re.compile(
    "cost|parallel|cursor_tuple_fraction|geqo_|jit_|recursive_worktable_factor|seq_page|effective_cache"  # speed only
    "|vacuum|default_(statistics_target|table_access_method|tablespace|toast_compression)|gin_pending_list_limit"
    "|check_function_bodies|createrole_self_grant|client_min_messages|temp_tablespaces"
    "|transaction_read_only"  # respected: the mirror of a read-only role is off
    "|default_text_search_config|icu_validation_level|backslash_quote|escape_string_warning"  # input only
    "|(tcp_user|wal_sender)_timeout"
)


def odd_value(kind: str, default: str, least: str, most: str, values: list[str] | None) -> str | None:
    """Return a legal value other than the default."""
    if kind == "bool":
        return "off" if default == "on" else "on"
    if kind == "enum":
        return next((value for value in values or [] if value != default), None)
    return None if kind == "string" else least if least != default else most


@pytest.fixture
def roles(any_database) -> Iterator[tuple[str, str]]:
    """A role as it is created, and one with an odd value of every setting that a role may set."""
    names = tuple(f"{kind}_{any_database.name}" for kind in ("clean", "odd"))
    with any_database.connect() as connection:
        Torture(connection).create()
        for name in names:
            connection.execute(f"create role {name} login password 'reader'; grant pg_read_all_data to {name}")
        set_every_setting(connection, names[1])
        connection.execute("grant usage on schema odd to public")
        yield names
        for name in names:
            connection.execute(f"drop owned by {name}; drop role {name}")


def set_every_setting(connection: psycopg.Connection, role: str) -> None:
    found = connection.execute(
        "select name, vartype, boot_val, min_val, max_val, enumvals from pg_settings where context = 'user'"
    ).fetchall()
    assert len(found) > 100
    for name, *facts in found:
        value = ODD.get(name) or odd_value(*facts)
        if value is not None and name not in NOT_A_DEFAULT:
            quoted = value if name == "search_path" else f"'{value}'"
            connection.execute(f'alter role {role} set "{name}" = {quoted}'.encode())


@newest_alone()
def test_no_setting_of_a_role_changes_what_is_read(any_database, roles):
    """A value would otherwise be stored differently after somebody changed a default."""
    with ExitStack() as opened:
        sources = [
            opened.enter_context(
                Source(
                    {**any_database.conninfo, "user": role, "password": "reader"},
                    any_database.url.replace(
                        f"{any_database.server.user}:{any_database.server.password}@", f"{role}:reader@"
                    ),
                    60,
                    reader,
                )
            )
            for role in roles
            for reader in READERS
        ]
        for name in ("torture", "arrays"):
            tables = [read_table(source.connection, "public", name) for source in sources]
            assert {table.columns for table in tables} == {tables[0].columns}
            query = f"select {projection(tables[0].columns)} from only public.{name} t order by t.k\n"
            expected, *others = [source.read(query, name) for source in sources]
            for frame in others:
                assert_frame_equal(frame, expected)


def test_every_session_has_the_same_settings(any_database, roles):
    """A setting of a new version that is left out would be noticed here."""
    query = (
        "select name::text, setting from pg_settings where name ~ 'timeout$' or context in ('user', 'superuser') "
        "and category ~ '(Client Connection Defaults|Query Tuning|Lock Management|Compatibility)'"
    )
    sessions = []
    for role in roles:
        with Source({**any_database.conninfo, "user": role, "password": "reader"}, None, 60) as source:
            sessions.append(dict(source.ask(query)))
            assert source.database()["session"] == PRINTING
    clean, odd = sessions
    different = {name for name in clean if clean[name] != odd[name]}
    assert {name for name in different if not IRRELEVANT.search(name)} == set()


HOSTILE = """
create function public.text({name}) returns text strict immutable language sql as 'select textin({out}($1)) || ''!''';
create cast ({name} as text) with function public.text({name}) as implicit;
"""


def test_casts_types_and_functions_of_the_database_are_not_used(any_database, bucket):
    """Casts from before 8.3, a cast from text that never fails, and names of pg_catalog in a schema before it."""
    outputs = {"smallint": "int2out", "integer": "int4out", "bigint": "int8out", "numeric": "numeric_out"}
    outputs |= {"jsonb": "jsonb_out", "time": "time_out", "xid": "xidout", "oid": "oidout", "pg_lsn": "pg_lsn_out"}
    any_database.execute(MOVIE)
    any_database.execute("alter table movie add budget numeric(10,2) default 1.5, add shown time default '20:15'")
    any_database.execute(fill(1, 3))
    any_database.execute(
        "create function public.number(text) returns int language sql immutable as 'select 0';"
        "create cast (text as int) with function public.number(text) as implicit;"
        "create function public.age(xid) returns int language sql as 'select 2147483647';"
        "create function public.concat(time) returns text language sql as $$ select 'mine' $$;"
        "create domain public.int4 as text; create domain public.date as text; create table public.pg_class (oid int);"
    )
    any_database.execute("".join(HOSTILE.format(name=name, out=out) for name, out in outputs.items()))
    any_database.execute(f'alter database "{any_database.name}" set search_path = public, pg_catalog')
    lake = Lake(any_database, bucket.store())

    lake.tick()

    rows = lake.rows().sort("movie_id").select("movie_id", "budget", "shown", "_pg_xid").rows()
    (written,) = any_database.execute("select distinct int8in(xidout(xmin)) from movie")
    assert rows == [(number, Decimal("1.50"), "20:15:00", *written) for number in (1, 2, 3)]


# A copy of every operator and function of pg_catalog that can be copied, in a schema before it. Each raises an error.
SHADOWS = """
create schema shadow;
do $do$
declare
  found record;
begin
  for found in
    select format('create function shadow.operator_%s(%s, %s) returns %s language plpgsql immutable as %L',
        o.oid, o.oprleft::regtype, o.oprright::regtype, o.oprresult::regtype, $$begin raise 'shadow'; end$$) as routine,
      format('create operator shadow.%s (function = shadow.operator_%s, leftarg = %s, rightarg = %s)',
        o.oprname, o.oid, o.oprleft::regtype, o.oprright::regtype) as operator
    from pg_operator o
    where o.oprkind = 'b' and o.oprnamespace = 'pg_catalog'::regnamespace
  loop
    begin
      execute found.routine;
      execute found.operator;
    exception when others then null;  -- of a pseudo-type
    end;
  end loop;
  for found in
    select format('create function shadow.%I(%s) returns %s language plpgsql immutable as %L',
      p.proname, pg_get_function_identity_arguments(p.oid), pg_get_function_result(p.oid),
      $$begin raise 'shadow'; end$$) as routine
    from pg_proc p
    where p.prokind = 'f' and p.pronamespace = 'pg_catalog'::regnamespace
  loop
    begin
      execute found.routine;
    exception when others then null;
    end;
  end loop;
end $do$;
grant usage on schema shadow to public;
"""


@pytest.mark.parametrize(
    "any_postgres_server, reader",
    [
        *combinations(["18", *list(older_servers())[:1]], READERS),
        *(pytest.param(*pair, marks=repetition) for pair in itertools.product(list(older_servers())[1:], READERS)),
    ],
    indirect=["any_postgres_server"],
    scope="session",
)
def test_no_operator_and_no_function_before_pg_catalog_is_used(any_database, bucket, reader):
    """Before the settings of a session are in force, a name without a schema means what the role's search_path says."""
    any_database.execute(MOVIE)
    any_database.execute(fill(1, 3))
    any_database.execute(SHADOWS)
    for kind, column, least in (("operator", "oprnamespace", 600), ("proc", "pronamespace", 2000)):
        count = f"select count(*) from pg_{kind} where {column} = 'shadow'::regnamespace"
        assert any_database.execute(count)[0][0] > least
    any_database.execute(f'alter database "{any_database.name}" set search_path = shadow, pg_catalog, public')
    with any_database.connect() as connection:
        lake = Lake(any_database, bucket.store(), control=Control(connection), reader=reader)
        lake.tick()
        any_database.execute("set search_path = public; insert into movie values (4, 'd', now(), 1)")
        outcome = lake.tick()

        assert lake.rows().height == 4
        assert lake.control.off is None
        assert outcome.watermark.origin.control is not None, "the row of etl_control has no new version"


def test_the_control_table_is_that_of_the_roles_own_search_path(any_database):
    """Sessions have another search_path. The mirror must not move, and must not be copied as a source table."""
    schema, role = "odd %s {name}", f"mirror_{any_database.name}"
    any_database.execute(f'create schema "{schema}"; create schema other')
    any_database.execute("create table other.etl_control (id int)")
    any_database.execute(f"create role {role} login password 'reader'")
    any_database.execute(f'grant usage, create on schema "{schema}" to {role}')
    any_database.execute(f'alter role {role} set search_path = "{schema}", public')
    try:
        with Source({**any_database.conninfo, "user": role, "password": "reader"}, None, 60) as source:
            mirrored = Control(source.connection).mirror(ControlRow("movie", "1", "movie_id"), None)
            assert mirrored == Mirrored(True)
            assert Control(source.connection).last_value("movie") == ControlRow("movie", "1", "movie_id")
            any_database.execute(
                f'set search_path = "{schema}"; create table seen (name text);'
                "create function note() returns trigger language plpgsql as"
                "  $$ begin insert into seen values (new.table_name); return new; end $$;"
                "create trigger note after insert on etl_control for each row execute function note();"
                f"grant insert on seen to {role}"
            )
            assert Control(source.connection).mirror(ControlRow("actor", "2", "id"), None) == Mirrored(True)
            found = [(table.schema, table.name) for table in read_catalog(source.connection).tables]
        assert found == [(schema, "seen"), ("other", "etl_control")]
        assert any_database.execute(f'select name from "{schema}".seen') == [("actor",)]
    finally:
        any_database.execute(f"drop owned by {role}; drop role {role}")
