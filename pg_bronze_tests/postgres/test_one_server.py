"""One server: both readers reach the server that the settings name, and a lost connection is replaced."""

import dataclasses
from typing import Any

import psycopg
import pytest
from psycopg import pq

from pg_bronze.defs import connections
from pg_bronze.errors import AccessDenied, PgBronzeError, SourceNotFit, SourceUnavailable
from pg_bronze.postgres import login
from pg_bronze.postgres.connection import Source
from pg_bronze.postgres.readers.binary_copy import CopyReader
from pg_bronze.postgres.readers.connectorx import ConnectorxReader
from pg_bronze.settings.load import load_settings
from pg_bronze_tests.harness.lake import SAME, Lake
from pg_bronze_tests.harness.servers import Database

READERS = ["connectorx", "copy"]
BUCKET = {"MINIO_BUCKET": "lake", "MINIO_ENDPOINT": "http://s3:1", "MINIO_ACCESS_KEY": "a", "MINIO_SECRET_KEY": "b"}
# Options of libpq whose value connectorx cannot notice: those that only name a file or a service, and GSSAPI, which
# connectorx never asks for. The password that a file has, and what a service sets, are noticed themselves.
UNNOTICED = {"service", "passfile"}
DATABASE_AND_USER = "select current_database()::text as db, session_user::text as role"


def configured(database: Database, **variables: str) -> Source:
    return connections.open_source(load_settings({**database.environ, **BUCKET, **variables}, None), "pg_bronze test")


def sessions_of(source: Source) -> list[Any]:
    return [
        found
        for found in (source._connection, getattr(source.sessions.first.reader, "_connection", None))
        if found is not None
    ]


def test_every_variable_of_libpq_is_a_setting_or_selects_the_reader_that_has_it(monkeypatch):
    """A variable that only psycopg follows would split horizon and rows over two servers or two roles."""
    monkeypatch.setenv("HOME", "/nowhere")
    conninfo = load_settings({"PG_DB": "cine", **BUCKET}, None).source_conninfo("x")
    explicit = psycopg.conninfo.conninfo_to_dict(**conninfo)
    undecided = []
    for option in pq.Conninfo.get_defaults():
        if option.envvar is None:
            continue
        name, variable = option.keyword.decode(), option.envvar.decode()
        monkeypatch.setenv(variable, "odd")
        if name not in explicit and login.ambient(conninfo) != [variable]:
            undecided.append(name)
        monkeypatch.delenv(variable)

    assert set(undecided) - UNNOTICED == set()
    assert login.ambient(conninfo) == []


def test_variables_that_name_another_server_or_session_have_no_effect(database: Database, tmp_path, monkeypatch):
    service = tmp_path / "services"
    service.write_text("[work]\nhostaddr=127.0.0.9\nport=1\nuser=nobody\ndbname=nowhere\noptions=-c role=nobody\n")
    ambient = {
        "PGHOST": "127.0.0.9",
        "PGHOSTADDR": "127.0.0.9",
        "PGPORT": "1",
        "PGDATABASE": "nowhere",
        "PGUSER": "nobody",
        "PGPASSWORD": "wrong",
        "PGOPTIONS": "-c search_path=nowhere -c role=nobody",
        "PGTARGETSESSIONATTRS": "standby",
        "PGLOADBALANCEHOSTS": "random",
        "PGSSLMODE": "verify-full",
        "PGSERVICE": "work",
        "PGSERVICEFILE": str(service),
        "PGCONNECT_TIMEOUT": "none",
        "PGCLIENTENCODING": "LATIN1",
        "PGGSSENCMODE": "disable",
        "PGTZ": "America/Lima",
        "PGDATESTYLE": "German",
    }
    for name, value in ambient.items():
        monkeypatch.setenv(name, value)

    for reader, kind in {"auto": ConnectorxReader, "copy": CopyReader}.items():
        with configured(database, PG_BRONZE_READER=reader) as source:
            assert source.read(DATABASE_AND_USER, "thing").rows() == [(database.name, database.server.user)]
            assert isinstance(source.sessions.first.reader, kind)
            assert source.limitation is None


@pytest.mark.parametrize("how", ["variable", "service"])
def test_what_connectorx_lacks_selects_copy_and_is_named(database: Database, tmp_path, monkeypatch, how):
    service = tmp_path / "services"
    service.write_text("[work]\nrequire_auth=scram-sha-256\n")
    ambient = {
        "variable": {"PGREQUIREAUTH": "scram-sha-256"},
        "service": {"PGSERVICE": "work", "PGSERVICEFILE": str(service)},
    }
    for name, value in ambient[how].items():
        monkeypatch.setenv(name, value)

    with configured(database) as source:
        assert source.read(DATABASE_AND_USER, "thing").height == 1
        assert isinstance(source.sessions.first.reader, CopyReader)
        assert source.limitation == "does not use PGREQUIREAUTH"
    refused = pytest.raises(SourceNotFit, match="PG_BRONZE_READER is connectorx, which does not use PGREQUIREAUTH")
    with configured(database, PG_BRONZE_READER="connectorx") as source, refused:
        source.read(DATABASE_AND_USER, "thing")


def test_a_login_that_fails_names_the_variables_that_took_part(database: Database, monkeypatch):
    monkeypatch.setenv("PGREQUIREAUTH", "none")
    with configured(database) as source, pytest.raises(PgBronzeError, match="also used PGREQUIREAUTH"):
        source.ask("select 1")
    monkeypatch.delenv("PGREQUIREAUTH")
    monkeypatch.setenv("PGSERVICE", "unknown")
    monkeypatch.setenv("PGSERVICEFILE", "/dev/null")
    with configured(database) as source, pytest.raises(AccessDenied, match="Unset PGSERVICE"):
        source.ask("select 1")


def test_slices_are_read_from_the_host_that_a_lost_connection_was_replaced_with(database: Database):
    """With two hosts in PG_HOST, all tables that were left in a run failed while the first one was down."""
    with Source(database.conninfo, None, 60, "copy") as source:
        source.read(DATABASE_AND_USER, "thing")
        pids = ", ".join(str(session.info.backend_pid) for session in sessions_of(source))
        database.execute(f"select pg_terminate_backend(pid, 10000) from unnest(array[{pids}]) pid")
        source._conninfo = {**database.conninfo, "host": "localhost"}  # the first one that answers now

        source.ask("select 1")
        source.read(DATABASE_AND_USER, "thing")

        assert [session.info.host for session in sessions_of(source)] == ["localhost", "localhost"]


@pytest.mark.parametrize("reader", READERS)
def test_a_read_in_another_database_or_timeline_or_cluster_fails_before_any_row(database: Database, reader):
    """Its rows would be committed under a horizon that says nothing about them. A plain role must be able to check."""
    database.execute("drop role if exists plain; create role plain login password 'pw'")
    guest = {"user": "plain", "password": "pw"}
    url = database.url.replace(database.server.password, "pw").replace("://postgres", "://plain")
    with Source({**database.conninfo, **guest}, url, 60, reader) as source:
        here = source.place("bucket")
        assert source.read(DATABASE_AND_USER, "thing").rows() == [(database.name, "plain")]
        for other in (
            dataclasses.replace(here, system_id="1"),
            dataclasses.replace(here, timeline=here.timeline + 1),
            dataclasses.replace(here, database=here.database + 1),
        ):
            source._place = other
            with pytest.raises(SourceUnavailable, match=r"^thing: the read reached another server, timeline or dat"):
                source.read(DATABASE_AND_USER, "thing")
    database.execute("drop role plain")


def test_connectorx_reads_from_the_address_that_the_horizon_came_from(database: Database):
    """One name may resolve to several servers."""
    url = database.url.replace(database.server.host, "nowhere.invalid")
    with Source(database.conninfo, url, 60) as source:
        assert source.read(DATABASE_AND_USER, "thing").rows() == [(database.name, database.server.user)]
        assert isinstance(source.sessions.first.reader, ConnectorxReader)


@pytest.mark.parametrize("reader", READERS)
def test_sessions_that_the_server_ended_while_idle_are_replaced_without_an_error(database: Database, bucket, reader):
    """idle_session_timeout, a pooler or an administrator would fail one tick after every quiet hour."""
    database.execute("create table movie (movie_id int primary key); insert into movie values (1)")
    lake = Lake(database, bucket.store(), reader=reader)
    with lake.source() as source:
        lake.source = lambda: _Kept(source)
        lake.tick()
        for row in (2, 3):
            ended = sessions_of(source)
            assert len(ended) == READERS.index(reader) + 1
            for session in ended:
                database.execute(f"select pg_terminate_backend({session.info.backend_pid}, 5000)")
            database.execute(f"insert into movie values ({row})")
            source.forget_horizon()

            assert lake.tick().row_count == 1
        assert lake.compare() == SAME


class _Kept:
    """A source that stays open at the end of a tick."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __enter__(self) -> Source:
        return self._source

    def __exit__(self, *_: object) -> None:
        pass


def test_a_session_that_ended_without_a_sign_is_replaced_after_an_idle_time(database: Database, monkeypatch):
    """A firewall drops a connection without telling either side; the next statement is the first that fails."""
    with Source(database.conninfo, database.url, 60) as source:
        kept = source.connection
        source.ask("select 1")
        monkeypatch.setattr(login, "_is_readable", lambda _: False)  # nothing arrives
        database.execute(f"select pg_terminate_backend({kept.info.backend_pid}, 5000)")
        monkeypatch.setattr(login, "IDLE_S", 0.0)

        assert source.ask("select 1") == [(1,)]
        assert source.connection is not kept
