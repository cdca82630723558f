"""Databases of the tests on one server. One that a test left clean is emptied and used again.

Creating a database copies about 300 files, which took an eighth of the time of the whole suite.
"""

import itertools
import secrets
import threading
import time
from collections import Counter
from contextlib import AbstractContextManager

import psycopg
from psycopg import sql

from pg_bronze.demo.postgres import PostgresServer
from pg_bronze_tests.harness import kept_sessions

DROP_SCHEMAS = """do $$ declare s text; begin
  for s in select nspname from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema' loop
    execute format('drop schema %I cascade', s);
  end loop;
end $$"""
CATALOGS = """select relname from pg_class
where relnamespace = 'pg_catalog'::regnamespace and relkind = 'r' and not relisshared
  and relname not in ('pg_statistic', 'pg_statistic_ext_data')
order by relname"""
SESSIONS = """select pg_terminate_backend(pid) from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid()"""
# What a database has outside its catalogs; all of it must be false.
OUTSIDE = """select exists (select from pg_db_role_setting where setdatabase = d.oid), datacl is not null,
  datconnlimit <> -1, not datallowconn, exists (select from pg_replication_slots where database = d.datname),
  exists (select from pg_prepared_xacts where database = d.datname)
from pg_database d where datname = current_database()"""


# Settings of the role that all tests share, which would last for all later tests on the server.
OF_THE_ROLE = """select setconfig from pg_db_role_setting
where setdatabase = 0 and setrole = (select oid from pg_roles where rolname = current_user)"""


_numbers = itertools.count(1)


class DatabasePool:
    """The databases of one server that no test uses now."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._free: list[str] = []
        self._clean: dict[str, tuple[int, Counter[str]]] = {}

    def take(self) -> str:
        """Return the name of an empty database."""
        if self._free:
            return self._free.pop()
        name = f"test_{next(_numbers)}_{secrets.token_hex(3)}"
        with self._session("postgres") as admin:
            row = admin.execute("select pg_current_xact_id()::text::bigint").fetchone()
            admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        assert row is not None
        with self._session(name) as session:
            self._empty(session)
            self._clean[name] = (row[0], self._rows(session, row[0]))
        return name

    def give_back(self, name: str) -> None:
        """Empty the database for the next test, or drop it if a test changed more than schemas and their objects."""
        created, clean = self._clean[name]
        try:
            with self._session(name) as session:
                self._end_other_sessions(session)
                self._empty(session)
                same = self._rows(session, created) == clean
                of_the_role = session.execute(OF_THE_ROLE).fetchall()
        except psycopg.Error:  # it cannot be emptied, or its owner has dropped it
            same, of_the_role = False, []
        if same:
            self._free.append(name)
        else:
            self._drop(name)
        if of_the_role:
            with self._session("postgres") as admin:
                admin.execute("alter role current_user reset all")
            raise AssertionError(f"the test has changed the role of all tests, and left {of_the_role[0][0]}")

    def _session(self, name: str) -> AbstractContextManager[psycopg.Connection]:
        conninfo = {"host": self._server.host, "port": self._server.port, "user": self._server.user}
        return kept_sessions.session(self._server, {**conninfo, "password": self._server.password, "dbname": name})

    def _drop(self, name: str) -> None:
        del self._clean[name]
        kept_sessions.close(self._server, name)
        with self._session("postgres") as admin:
            admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))

    def _end_other_sessions(self, session: psycopg.Connection) -> None:
        """End the sessions of the test, and wait for their end."""
        deadline, never = time.monotonic() + 5.0, threading.Event()
        while session.execute(SESSIONS).fetchall() and time.monotonic() < deadline:
            never.wait(0.002)

    def _empty(self, connection: psycopg.Connection) -> None:
        connection.execute("set client_min_messages = warning; set lock_timeout = '10s'")
        connection.execute(DROP_SCHEMAS)
        if self._server.version >= 15:
            connection.execute("create schema public authorization pg_database_owner")
            connection.execute("grant usage on schema public to public")
        else:
            connection.execute("create schema public; grant all on schema public to public")

    def _rows(self, connection: psycopg.Connection, created: int) -> Counter[str]:
        """Count the rows of each catalog, and those that are younger than the database."""
        parts = []
        for (name,) in connection.execute(CATALOGS).fetchall():
            where = " where nspname !~ '^pg_(toast_)?temp_'" if name == "pg_namespace" else ""
            young = f"count(*) filter (where age(xmin) <= age('{created % 2**32}'::xid))"
            parts.append(f"select '{name}', count(*), {young} from pg_catalog.{name}{where}")
        counted: Counter[str] = Counter()
        for name, rows, young in connection.execute(" union all ".join(parts).encode()).fetchall():
            counted[name], counted[f"{name}, young"] = rows, young
        outside = connection.execute(OUTSIDE).fetchone()
        counted["outside"] = sum(outside or [1])
        return counted
