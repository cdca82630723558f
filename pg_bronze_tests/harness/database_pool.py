"""Databases of the tests on one server. One that a test left clean is emptied, renamed and used again.

Creating a database copies about 300 files, which took an eighth of the time of the whole suite.
"""

import secrets
import threading
import time
from collections import Counter

import psycopg
from psycopg import sql

from pg_bronze.demo.postgres import PostgresServer

DROP_SCHEMAS = """do $$ declare s text; begin
  for s in select nspname from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema' loop
    execute format('drop schema %I cascade', s);
  end loop;
end $$"""
CATALOGS = """select relname from pg_class
where relnamespace = 'pg_catalog'::regnamespace and relkind = 'r' and not relisshared
  and relname not in ('pg_statistic', 'pg_statistic_ext_data')
order by relname"""
SESSIONS = "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s"
# What a database has outside its catalogs; all of it must be false.
OUTSIDE = """select exists (select from pg_db_role_setting where setdatabase = d.oid), datacl is not null,
  datconnlimit <> -1, not datallowconn, exists (select from pg_replication_slots where database = d.datname),
  exists (select from pg_prepared_xacts where database = d.datname)
from pg_database d where datname = current_database()"""


# Settings of the role that all tests share, which would last for all later tests on the server.
OF_THE_ROLE = """select setconfig from pg_db_role_setting
where setdatabase = 0 and setrole = (select oid from pg_roles where rolname = current_user)"""


class DatabasePool:
    """The databases of one server that no test uses now."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._free: list[str] = []
        self._clean: dict[str, tuple[int, Counter[str]]] = {}
        self._kept: psycopg.Connection | None = None

    def take(self, name: str) -> None:
        """Make an empty database with this name."""
        admin = self._admin()
        if self._free:
            last = self._free.pop()
            admin.execute(sql.SQL("alter database {} rename to {}").format(*map(sql.Identifier, (last, name))))
            self._clean[name] = self._clean.pop(last)
            return
        row = admin.execute("select pg_current_xact_id()::text::bigint").fetchone()
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        assert row is not None
        with self._server.connect(autocommit=True, dbname=name) as connection:
            self._empty(connection)
            self._clean[name] = (row[0], self._rows(connection, row[0]))

    def give_back(self, name: str) -> None:
        """Empty the database for the next test, or drop it if a test changed more than schemas and their objects."""
        admin = self._admin()
        self._end_sessions(name)
        created, clean = self._clean.pop(name)
        if left := admin.execute(OF_THE_ROLE).fetchall():
            admin.execute("alter role current_user reset all")
            raise AssertionError(f"the test has changed the role of all tests, and left {left[0][0]}")
        try:
            with self._server.connect(autocommit=True, dbname=name) as connection:
                self._empty(connection)
                same = self._rows(connection, created) == clean
        except psycopg.Error:  # it cannot be emptied, or its owner has dropped it
            same = False
        self._end_sessions(name)
        if same:
            free = f"free_{secrets.token_hex(6)}"
            admin.execute(sql.SQL("alter database {} rename to {}").format(*map(sql.Identifier, (name, free))))
            self._free.append(free)
            self._clean[free] = (created, clean)
        else:
            admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))

    def _admin(self) -> psycopg.Connection:
        """Return the kept connection; a test may have restarted the server."""
        try:
            if self._kept is not None:
                self._kept.execute("select")
        except psycopg.Error:
            self._kept = None
        self._kept = self._kept or self._server.connect(autocommit=True)
        return self._kept

    def _end_sessions(self, name: str) -> None:
        """End all sessions of a database. The server itself would wait for their end in steps of 0.1 s."""
        deadline, never = time.monotonic() + 5.0, threading.Event()
        while self._admin().execute(SESSIONS, (name,)).fetchall() and time.monotonic() < deadline:
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
