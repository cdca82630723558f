"""Servers in another language: the same error, remedy and retry as in English, and the same amounts of money.

Debian's PostgreSQL has the translations, and its package ``locales`` the sources of the locales.
"""

import contextlib
import re
import subprocess
import tempfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from pg_bronze.core.column_types import projection
from pg_bronze.core.window_sql import STALE, TOO_LARGE
from pg_bronze.demo import postgres
from pg_bronze.demo.os_user import clean_environment
from pg_bronze.demo.postgres import PostgresServer
from pg_bronze.errors import (
    AccessDenied,
    DataError,
    NotUtf8,
    PgBronzeError,
    SliceTooLarge,
    SourceNotFit,
    SourceUnavailable,
    StaleSnapshot,
    TableChanged,
    TableLocked,
)
from pg_bronze.postgres.catalog import read_table
from pg_bronze.postgres.connection import Source
from pg_bronze_tests.harness.lake import READERS
from pg_bronze_tests.harness.repetitions import also, combinations
from pg_bronze_tests.harness.replicas import until
from pg_bronze_tests.harness.servers import Database, older_servers, start_postgres

# Locales, and part of the message of a division by zero, in ASCII as the database below has no other characters.
LANGUAGES = {"C": "division by zero", "es_ES": "por cero", "de_DE": "Division durch Null", "ja_JP": "0 ???"}


@pytest.fixture(scope="module")
def locales() -> Iterator[Path]:
    """A folder of locales, where the server's user can read it; pytest's own folders are private."""
    with tempfile.TemporaryDirectory(prefix="locales-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for language in LANGUAGES:
            if language != "C":
                target = folder / f"{language}.UTF-8"
                subprocess.run(["localedef", "-i", language, "-f", "UTF-8", target], check=True)
        yield folder


@pytest.fixture(scope="module")
def server(locales: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgres, "clean_environment", lambda: {**clean_environment(), "LOCPATH": str(locales)})
        with start_postgres(tmp_path_factory.mktemp("postgres"), older_servers()["15"]) as found:
            yield found


@pytest.fixture(scope="module", params=["C", "es_ES", "ja_JP", *also("de_DE")])
def database(request: pytest.FixtureRequest, server: PostgresServer) -> Iterator[Database]:
    """A database whose messages are in one language, with a table for each fault."""
    name = f"in_{request.param.lower()}"
    locale = "C" if request.param == "C" else f"{request.param}.UTF-8"
    Database(server, "postgres").execute(f"create database {name} encoding 'SQL_ASCII' template template0 locale 'C'")
    found = Database(server, name)
    found.execute(f"alter database {name} set lc_messages = '{locale}'")
    with found.connect() as connection, pytest.raises(psycopg.errors.DivisionByZero) as error:
        connection.execute("select 1 / 0")
    assert LANGUAGES[request.param] in str(error.value)
    found.execute(SETUP)
    with found.connect(client_encoding="SQL_ASCII") as connection:
        connection.execute(b"insert into bad values ('a\xf1o')")
    yield found
    Database(server, "postgres").execute(f"drop database {name} with (force)")
    Database(server, "postgres").execute("drop role outsider")


SETUP = """
create role outsider login password 'o';
create table bad (t text);
create table hidden (a int);
create table filtered (a int);
alter table filtered enable row level security;
create policy none on filtered using (false);
grant select on filtered, bad to outsider;
create function secret() returns int language sql volatile as 'select 1';
revoke execute on function secret() from public;
create function fails(int) returns int language plpgsql as $$ begin raise 'a secret value'; end $$;
create function spills(int) returns int language plpgsql as $$ begin raise sqlstate '53200'; end $$;
create function fills(int) returns int language plpgsql as $$ begin raise sqlstate '53100'; end $$;
create function corrupt(int) returns int language plpgsql as $$ begin raise sqlstate 'XX001'; end $$;
create function conflicts(int) returns int language plpgsql as $$ begin raise sqlstate '40001'; end $$;
create function locked(int) returns int language plpgsql as $$ begin raise sqlstate '55P03'; end $$;
"""
# The query, the class of the error, and words of its message.
FAULTS = {
    "division": ("select 1 / 0::int4 as a", DataError, "SQLSTATE 22012"),
    "a function raises": ("select public.fails(1)::int4 as a", DataError, "SQLSTATE P0001"),
    "not UTF-8": ("select t as a from public.bad", NotUtf8, "not valid UTF-8"),
    "no right": ("select a from public.hidden", AccessDenied, "the role may not read the table ("),
    "no right to a function": ("select public.secret()::int4 as a", AccessDenied, "secret"),
    "row security": ("select a from public.filtered", SourceNotFit, "row security policy"),
    "no table": ("select a from public.missing", TableChanged, "dropped, renamed or altered"),
    "no column": ("select missing from public.hidden", TableChanged, "dropped, renamed or altered"),
    "no memory": ("select public.spills(1)::int4 as a", SourceUnavailable, "too little memory or disk space"),
    "no disk space": ("select public.fills(1)::int4 as a", SourceUnavailable, "too little memory or disk space"),
    "a damaged page": ("select public.corrupt(1)::int4 as a", PgBronzeError, "corrupted on disk"),
    "a recovery conflict": ("select public.conflicts(1)::int4 as a", SourceUnavailable, "the read was canceled"),
    "a lock": ("select public.locked(1)::int4 as a", TableLocked, "another session holds or waits for a lock"),
    "the time limit": ("select 1::int4 as a from pg_sleep(60)", SourceUnavailable, "by its time limit"),
    "too large": (f"select '{TOO_LARGE}'::text::int4 as a", SliceTooLarge, "more rows than one slice"),
    "stale": (f"select '{STALE} 5'::text::int4 as a", StaleSnapshot, "older than its horizon"),
}


@pytest.mark.parametrize("fault, name", combinations(FAULTS, READERS))
def test_a_failed_read_is_explained_alike_in_every_language_and_by_both_readers(database, name, fault):
    """What only a person can mend would be retried in silence, with a message about the network."""
    query, kind, words = FAULTS[fault]
    # Sessions of a superuser set the language of messages.
    login = {"user": "outsider", "password": "o"}
    url = database.url.replace("postgres:" + database.server.password, "outsider:o")

    with (
        Source({**database.conninfo, **login}, url, 2.5, name) as source,
        pytest.raises(kind, match=r"^movie: ") as error,
    ):
        source.read(query, "movie")

    assert words in str(error.value)
    assert "a secret value" not in str(error.value)


def test_money_is_stored_in_hundredths_whatever_the_currency(server):
    """A change of ``lc_monetary`` would multiply the values of later rows by a hundred."""
    Database(server, "postgres").execute("create database prices template template0")
    database = Database(server, "prices")
    database.execute(
        "set lc_monetary = 'C'; create type price as (amount money); create table movie (k int, v money, p price);"
        "insert into movie values (1, '10.49', row('10.49')); alter table movie add fee money default '0.05'"
    )
    database.execute("alter database prices set lc_monetary = 'ja_JP.UTF-8'")
    assert database.execute("select v::numeric from movie") == [(Decimal(1049),)]

    for reader in READERS:
        with Source(database.conninfo, database.url, 60, reader) as source:
            table = read_table(source.connection, "public", "movie")
            frame = source.read(f"select {projection(table.columns)} from only public.movie t\n", "movie")
        assert frame.rows() == [(1, "10.49", "($10.49)", "0.05")]
        assert table.columns[3].missing == "0.05"


LOGINS = {
    "password": ({"password": "wrong"}, "", AccessDenied, "Check PG_USER and PG_PASS"),
    "no password": ({"password": ""}, "", AccessDenied, "Check PG_USER and PG_PASS"),
    "unknown role": ({"user": "nobody"}, "", AccessDenied, "PG_USER"),
    "unknown database": ({"dbname": "nothing"}, "", AccessDenied, "Check PG_DB"),
    "may not log in": (
        {"user": "visitor", "password": "o"},
        "alter role visitor nologin",
        AccessDenied,
        "Grant login and connect",
    ),
    "may not connect": (
        {"user": "visitor", "password": "o"},
        "revoke connect on database {} from public",
        AccessDenied,
        "Grant login and connect",
    ),
    "role limit": (
        {"user": "visitor", "password": "o"},
        "alter role visitor connection limit 0",
        SourceUnavailable,
        "no free connection",
    ),
    "database limit": (
        {"user": "visitor", "password": "o"},
        "alter database {} connection limit 0",
        SourceUnavailable,
        "no free connection",
    ),
    "not a setting": ({"options": "-c no_such=1"}, "", SourceUnavailable, "refused the connection ("),
    "unknown host": ({"host": "no-such-host.invalid"}, "", SourceUnavailable, "host name cannot be resolved"),
    "no server": ({"port": 1}, "", SourceUnavailable, "no connection to PostgreSQL"),
}


@pytest.mark.parametrize("case", LOGINS)
def test_a_refused_login_is_explained_alike_in_every_language(server, case):
    """The server's language is that of its configuration here, because no session has begun."""
    login, change, kind, words = LOGINS[case]
    admin = Database(server, "postgres")
    database = Database(server, "logins")
    found = []
    with prepared(admin, change):
        for name in LANGUAGES:
            set_language(server, name)
            with pytest.raises(kind, match=re.escape(words)) as error, opened(database, login) as source:
                source.ask("select 1")
            found.append(error.value)

    assert len({error.retry for error in found}) == 1
    assert {str(error).rpartition(". ")[2] for error in found} <= RETRIES


RETRIES = {"It is retried at the next tick.", "It is retried after the fix."}


def opened(database: Database, login: dict) -> Source:
    return Source({**database.conninfo, **login}, database.url, 60)


def set_language(server: PostgresServer, name: str) -> None:
    """Set the language of messages of sessions that begin from now on."""
    locale = "C" if name == "C" else f"{name}.UTF-8"
    Database(server, "postgres").execute(f"alter system set lc_messages = '{locale}'")
    Database(server, "postgres").execute("select pg_reload_conf()")
    until(server, "postgres", f"select current_setting('lc_messages') = '{locale}'")


@contextlib.contextmanager
def prepared(admin: Database, change: str) -> Iterator[None]:
    admin.execute("create role visitor login password 'o'")
    try:
        admin.execute("create database logins")
        admin.execute(change.format("logins") or "select 1")
        yield
    finally:
        admin.execute("drop database if exists logins with (force)")
        admin.execute("drop role visitor")
