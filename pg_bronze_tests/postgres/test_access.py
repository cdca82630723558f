"""Connections: encryption and certificates, password files, and several hosts."""

import functools
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import polars as pl
import pytest

from pg_bronze.defs import connections
from pg_bronze.demo.postgres import PostgresServer
from pg_bronze.errors import AccessDenied, SourceUnavailable
from pg_bronze.postgres.connection import Source
from pg_bronze.postgres.readers.binary_copy import CopyReader
from pg_bronze.postgres.readers.connectorx import ConnectorxReader
from pg_bronze.settings.load import load_settings
from pg_bronze_tests.harness.lake import SAME, Lake
from pg_bronze_tests.harness.servers import Database, older_servers

ENCRYPTED = "select ssl::bool as ssl from pg_stat_ssl where pid = pg_backend_pid()"
BUCKET = {
    "MINIO_BUCKET": "bronze",
    "MINIO_ENDPOINT": "http://127.0.0.1:1",
    "MINIO_ACCESS_KEY": "a",
    "MINIO_SECRET_KEY": "b",
}
HBA = """hostssl all certified 127.0.0.1/32 cert
hostnossl all encrypted 127.0.0.1/32 reject
host all all 127.0.0.1/32 scram-sha-256
"""


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def authority(folder: Path, name: str) -> Path:
    """Create a certificate authority: ``name.crt`` and ``name.key``."""
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"),
        *("-keyout", str(key), "-out", str(certificate)),
    )
    return certificate


def signed(folder: Path, host: str) -> tuple[bytes, bytes]:
    """Return a certificate for one host name or role, signed by the authority ``ours``, and its key."""
    request, key, certificate, names = (folder / f"{host}.{kind}" for kind in ("csr", "key", "crt", "ext"))
    names.write_text(f"subjectAltName=DNS:{host}\n")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={host}", "-keyout", str(key), "-out", str(request))
    openssl(
        *("x509", "-req", "-in", str(request), "-days", "2", "-extfile", str(names), "-CAcreateserial"),
        *("-CA", str(folder / "ours.crt"), "-CAkey", str(folder / "ours.key"), "-out", str(certificate)),
    )
    return certificate.read_bytes(), key.read_bytes()


@dataclass
class Guarded:
    """A server with TLS and a certificate for ``localhost``, signed by ``ours`` and not by ``other``."""

    server: PostgresServer
    ours: Path
    other: Path

    def source(self, **variables: str) -> Source:
        """Return the source that these environment variables configure."""
        environ = {
            "PG_PORT": str(self.server.port),
            "PG_DB": "postgres",
            "PG_PASS": self.server.password,
            **BUCKET,
            **variables,
        }
        return connections.open_source(load_settings(environ, None), "pg_bronze test")


# The wheel's PostgreSQL is built without TLS, Debian's is not.
DEBIANS = [version for version, path in older_servers().items() if path.is_relative_to("/usr/lib/postgresql")]


@pytest.fixture(scope="module", params=DEBIANS[-1:])
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("authorities")
    ours, other = authority(folder, "ours"), authority(folder, "other")
    certificate, key = signed(folder, "localhost")
    bindir = older_servers()[request.param]
    with PostgresServer(tmp_path_factory.mktemp("guarded"), bindir=bindir, options={"fsync": "off"}) as server:
        with server.connect(autocommit=True) as connection:
            data = Path(str(connection.execute("show data_directory").fetchone()[0]))
            owner = data.stat()
            files = {"server.crt": certificate, "server.key": key, "pg_hba.conf": HBA.encode()}
            for name, content in {**files, "ca.crt": ours.read_bytes()}.items():
                (data / name).write_bytes(content)
                (data / name).chmod(0o600)
                os.chown(data / name, owner.st_uid, owner.st_gid)
            connection.execute("create role encrypted superuser login password 'pw'")
            connection.execute("create role certified superuser login")
            connection.execute("alter system set ssl_ca_file = 'ca.crt'")
            connection.execute("alter system set ssl = on")
            connection.execute("select pg_reload_conf()")
        yield Guarded(server, ours, other)


# sslmode, host and certificate authority; then whether the rows arrive encrypted, or the error.
WRONG_NAME, WRONG_AUTHORITY = "certificate is for another host name", "encrypted connection could not be made"
MATRIX = [
    ("disable", "127.0.0.1", None, False),
    ("prefer", "127.0.0.1", None, True),
    ("require", "127.0.0.1", None, True),
    ("require", "127.0.0.1", "ours", True),
    ("require", "127.0.0.1", "other", WRONG_AUTHORITY),
    ("verify-ca", "127.0.0.1", "ours", True),
    ("verify-ca", "localhost", "other", WRONG_AUTHORITY),
    ("verify-full", "localhost", "ours", True),
    ("verify-full", "127.0.0.1", "ours", WRONG_NAME),
    ("verify-full", "localhost", "other", WRONG_AUTHORITY),
]


@pytest.mark.parametrize("reader", ["auto", "copy"])
@pytest.mark.parametrize("mode, host, certificate, expected", MATRIX)
def test_encryption_follows_sslmode_and_the_certificate(guarded: Guarded, reader, mode, host, certificate, expected):
    """Otherwise rows are readable on the network, or are requested from an impostor."""
    root = {"PG_SSLROOTCERT": str(getattr(guarded, certificate))} if certificate else {}
    with guarded.source(PG_SSLMODE=mode, PG_HOST=host, PG_BRONZE_READER=reader, **root) as source:
        if isinstance(expected, str):
            with pytest.raises(AccessDenied, match=expected):
                source.read(ENCRYPTED, "thing")
            return
        assert source.read(ENCRYPTED, "thing")["ssl"].to_list() == [expected]
        assert source.ask("select ssl from pg_stat_ssl where pid = pg_backend_pid()") == [(expected,)]
        by_copy = reader == "copy" or mode == "verify-full"
        assert isinstance(source.sessions.first.reader, CopyReader if by_copy else ConnectorxReader)


def test_the_lake_is_the_same_for_every_sslmode(guarded: Guarded, bucket):
    """Host verification is done by the COPY reader, the other two by connectorx."""
    database = Database(guarded.server, "postgres")
    database.execute(
        "create table movie (movie_id int primary key, price numeric(10, 2), at timestamptz, tags text[]);"
        "insert into movie select i, i / 7.0, '2026-01-02 03:04:05.678901+00'::timestamptz"
        " + i * interval '1 day', array['a', null, i::text] from generate_series(1, 500) i;"
        "insert into movie values (501, null, 'infinity', null)"
    )
    root = str(guarded.ours)
    modes = {
        "disable": {"PG_HOST": "127.0.0.1"},
        "require": {"PG_HOST": "127.0.0.1"},
        "verify-full": {"PG_HOST": "localhost", "PG_SSLROOTCERT": root},
    }
    held = {}
    for mode, more in modes.items():
        lake = Lake(database, bucket.store(mode))
        lake.source = functools.partial(guarded.source, PG_SSLMODE=mode, **more)
        lake.tick(slice_rows=200)
        database.execute("update movie set price = price + 1 where movie_id = 7")
        lake.drain()
        assert lake.compare() == SAME
        held[mode] = lake.rows().filter(pl.col("movie_id") != 7)

    assert held["disable"].equals(held["require"])
    assert held["disable"].equals(held["verify-full"])


def test_certificates_are_not_read_for_a_server_without_tls(database: Database, tmp_path: Path):
    """connectorx reads the system's certificates in every read, which takes longer than a small slice."""
    damaged = tmp_path / "root.crt"
    damaged.write_text("not a certificate")
    url = f"{database.url}?sslmode=prefer&sslrootcert={quote(str(damaged))}"
    with Source(database.conninfo, url, 60) as source:
        assert source.read("select 1::int4 as a", "thing")["a"].to_list() == [1]
        assert isinstance(source.sessions.first.reader, ConnectorxReader)


def test_a_server_that_requires_encryption_names_the_setting(guarded: Guarded):
    wanted = {"PG_USER": "encrypted", "PG_PASS": "pw"}
    with guarded.source(**wanted, PG_SSLMODE="disable") as source, pytest.raises(AccessDenied, match="PG_SSLMODE"):
        source.read(ENCRYPTED, "thing")
    with guarded.source(**wanted) as source:
        assert source.read(ENCRYPTED, "thing")["ssl"].to_list() == [True]


@pytest.mark.parametrize("how", ["setting", "PGPASSFILE"])
def test_a_password_may_come_from_a_file(guarded: Guarded, tmp_path: Path, monkeypatch, how):
    """connectorx reads no password file, so the COPY reader is used."""
    passwords = tmp_path / "passwords"
    passwords.write_text(f"127.0.0.1:{guarded.server.port}:*:postgres:{guarded.server.password}\n")
    passwords.chmod(0o600)
    with guarded.source(PG_PASS="") as source, pytest.raises(AccessDenied, match="PG_PASS"):
        source.read(ENCRYPTED, "thing")
    if how == "PGPASSFILE":
        monkeypatch.setenv("PGPASSFILE", str(passwords))
    named = {"PG_PASSFILE": str(passwords)} if how == "setting" else {}

    with guarded.source(PG_PASS="", **named) as source:
        assert source.read(ENCRYPTED, "thing").height == 1
        assert isinstance(source.sessions.first.reader, CopyReader)


@pytest.mark.parametrize("how", ["PGSSLCERT", "~/.postgresql"])
def test_a_client_certificate_that_libpq_finds_is_used_by_the_reader_too(guarded: Guarded, tmp_path, monkeypatch, how):
    """connectorx has no certificate: every table would fail, each after half a minute."""
    folder = guarded.ours.parent
    signed(folder, "certified")
    (tmp_path / ".postgresql").mkdir()
    certificate, key = (tmp_path / ".postgresql" / f"postgresql.{kind}" for kind in ("crt", "key"))
    certificate.write_bytes((folder / "certified.crt").read_bytes())
    key.write_bytes((folder / "certified.key").read_bytes())
    key.chmod(0o600)
    if how == "PGSSLCERT":
        monkeypatch.setenv("PGSSLCERT", str(certificate))
        monkeypatch.setenv("PGSSLKEY", str(key))
    else:
        monkeypatch.setenv("HOME", str(tmp_path))

    with guarded.source(PG_USER="certified", PG_PASS="") as source:
        assert source.read(ENCRYPTED, "thing")["ssl"].to_list() == [True]
        assert isinstance(source.sessions.first.reader, CopyReader)
        assert "certificate" in source.limitation or "PGSSLCERT" in source.limitation


def test_an_authority_in_the_home_directory_is_checked_for_the_rows_too(guarded: Guarded, tmp_path, monkeypatch):
    """libpq checks it with every sslmode, and connectorx would read the rows from a server that it does not know."""
    (tmp_path / ".postgresql").mkdir()
    (tmp_path / ".postgresql" / "root.crt").write_bytes(guarded.ours.read_bytes())
    monkeypatch.setenv("HOME", str(tmp_path))

    with guarded.source(PG_SSLMODE="require") as source:
        assert source.read(ENCRYPTED, "thing")["ssl"].to_list() == [True]
        assert source.limitation == "does not read ~/.postgresql/root.crt"


def test_the_first_reachable_host_is_read(guarded: Guarded):
    """No server listens on 127.0.0.2; rows and horizon come from the same host."""
    with guarded.source(PG_HOST="127.0.0.2,127.0.0.1") as source:
        assert source.read("select host(inet_server_addr())::text as h", "thing")["h"].to_list() == ["127.0.0.1"]
    with guarded.source(PG_HOST="127.0.0.2,127.0.0.3") as source, pytest.raises(SourceUnavailable) as error:
        source.ask("select 1")
    assert f"postgres@127.0.0.2,127.0.0.3:{guarded.server.port}" in str(error.value)


def test_rows_come_from_the_host_that_the_horizon_came_from(guarded: Guarded):
    """An earlier host in the list that becomes reachable may be a server without these rows."""
    with (
        guarded.source(PG_HOST="127.0.0.2,127.0.0.1", PG_BRONZE_CONNECT_TIMEOUT_S="2") as source,
        socket.socket() as back,
    ):
        source.ask("select 1")
        back.bind(("127.0.0.2", guarded.server.port))
        back.listen()
        back.setblocking(False)

        assert source.read("select 1::int4 as a", "thing").height == 1
        with pytest.raises(BlockingIOError):
            back.accept()
