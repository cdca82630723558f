"""Databases and buckets on the servers of a test session, and the servers themselves."""

import functools
import itertools
import os
import secrets
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from pydantic import SecretStr

from pg_bronze.demo.postgres import PostgresServer
from pg_bronze.demo.s3_server import S3Server
from pg_bronze.lake import create_only, object_store, s3_client
from pg_bronze.lake.keys import own_key
from pg_bronze.postgres.connection import Source
from pg_bronze.settings.bucket import S3Connection
from pg_bronze_tests.harness import kept_sessions
from pg_bronze_tests.harness.database_pool import DatabasePool

ROOT = Path(__file__).parents[2]


counter = itertools.count(1)


@dataclass
class Database:
    """One fresh, empty database of its own on the session's server."""

    server: PostgresServer
    name: str

    @property
    def url(self) -> str:
        return (
            f"postgresql://{self.server.user}:{self.server.password}@{self.server.host}:{self.server.port}/{self.name}"
        )

    @property
    def conninfo(self) -> dict[str, Any]:
        return {
            "host": self.server.host,
            "port": self.server.port,
            "user": self.server.user,
            "password": self.server.password,
            "dbname": self.name,
        }

    @property
    def environ(self) -> dict[str, str]:
        return {
            "PG_HOST": self.server.host,
            "PG_PORT": str(self.server.port),
            "PG_USER": self.server.user,
            "PG_PASS": self.server.password,
            "PG_DB": self.name,
        }

    def connect(self, **changed: Any) -> psycopg.Connection:
        return psycopg.connect(**{**self.conninfo, "autocommit": True, **changed})

    def execute(self, query: str) -> list[tuple[Any, ...]]:
        with self.session() as connection:
            cursor = connection.execute(query)
            rows = cursor.fetchall() if cursor.description else []
        if kept_sessions.changes_settings(query):
            kept_sessions.close_all(self.server)
        return rows

    def session(self) -> AbstractContextManager[psycopg.Connection]:
        """Return a session in autocommit mode, with default settings, that other statements of the test use too."""
        return kept_sessions.session(self.server, self.conninfo) if self._keeps_sessions else self.connect()

    def kept_source(self, reader: str) -> Source:
        """Return a source that leaves its connection to the next one."""
        if self._keeps_sessions:
            return kept_sessions.KeptSource(self.server, self.conninfo, self.url, 60, reader)
        return Source(self.conninfo, self.url, 60, reader)

    @property
    def _keeps_sessions(self) -> bool:
        # A subclass connects as another role, or through a pooler.
        return type(self) is Database


def older_servers() -> dict[str, Path]:
    """Programs of other PostgreSQL versions by their number: Debian's, and what ``.ci/postgres`` unpacked.

    In CI all of 14 to 17 have to be there.
    """
    folders = [Path("/usr/lib/postgresql"), ROOT / ".cache/postgres"]
    found = {
        path.parent.name: path for folder in folders for path in folder.glob("*/bin") if (path / "initdb").exists()
    }
    if os.environ.get("CI"):
        found.setdefault("15", folders[0] / "15/bin")
        found = {version: folders[1] / version / "bin" for version in ("14", "16", "17")} | found
    return {version: path for version, path in sorted(found.items()) if 14 <= int(version) < 18}


@contextmanager
def start_postgres(folder: Path, bindir: Path | None) -> Iterator[PostgresServer]:
    options = {
        "max_prepared_transactions": "20",
        "max_connections": "100",
        "fsync": "off",
        # Planning the query of the catalog takes four times as long as running it.
        "plan_cache_mode": "force_generic_plan",
        "wal_writer_delay": "10ms",  # a horizon waits for the log writer; its default would be half of the tests' time
    }
    with PostgresServer(folder, bindir=bindir, options=options) as server:
        if server.version >= 16:
            # Tests connect tens of thousands of times, and a client takes longer for the password's 4096 rounds of
            # SHA-256 than for the rest.
            with server.connect(autocommit=True) as connection:
                connection.execute("alter system set scram_iterations = 1")
                connection.execute("select pg_reload_conf()")
            with server.connect(autocommit=True, options="-c scram_iterations=1") as connection:
                connection.execute(f"alter role {server.user} password '{server.password}'")
        yield server


_pools: weakref.WeakKeyDictionary[PostgresServer, DatabasePool] = weakref.WeakKeyDictionary()


@contextmanager
def fresh_database(server: PostgresServer) -> Iterator[Database]:
    pool = _pools.setdefault(server, DatabasePool(server))
    name = pool.take()
    yield Database(server, name)
    pool.give_back(name)


@contextmanager
def until_killed(server: S3Server) -> Iterator[Any]:
    """Start an S3 server, and kill it at the end: SeaweedFS takes 15 s to stop while clients keep connections."""
    server.start()
    try:
        yield server
    finally:
        server.kill()


def unused_bucket_name() -> str:
    return f"bronze-{next(counter)}-{secrets.token_hex(3)}"


def new_bucket(server: Any) -> "Bucket":
    name = unused_bucket_name()
    server.create_bucket(name)
    return Bucket(server, name)


@functools.cache
def _client(endpoint_url: str, access_key: str, secret_key: str) -> Any:
    # Making one takes a tenth of a second; it may be shared.
    return s3_client.connect(endpoint_url, "us-east-1", access_key, secret_key)


def s3_connection(bucket: "Bucket") -> S3Connection:
    """The settings with which Polars reads from a bucket."""
    server = bucket.server
    return S3Connection(
        endpoint_url=server.endpoint_url,
        access_key=SecretStr(server.access_key),
        secret_key=SecretStr(server.secret_key),
        region="us-east-1",
        use_ssl=False,
    )


@dataclass
class Bucket:
    """One fresh bucket of its own."""

    server: Any
    name: str

    @property
    def environ(self) -> dict[str, str]:
        return {
            "MINIO_ENDPOINT": self.server.endpoint_url,
            "MINIO_ACCESS_KEY": self.server.access_key,
            "MINIO_SECRET_KEY": self.server.secret_key,
            "MINIO_BUCKET": self.name,
        }

    def store(self, prefix: str = "") -> object_store.Store:
        client = _client(self.server.endpoint_url, self.server.access_key, self.server.secret_key)
        return object_store.Store(client, self.name, prefix)

    def record_probe(self, endpoint_url: str = "", prefix: str = "") -> None:
        """Record a successful create-only probe, which takes SeaweedFS 1 to 4 s in each new bucket and prefix."""
        text = create_only.record(endpoint_url or self.server.endpoint_url, datetime.now(UTC))
        self.store().replace(own_key(prefix, "create_only.json"), text)

    def remove(self) -> None:
        """Remove the bucket: SeaweedFS keeps volumes for each, and runs out of them after about a hundred."""
        found = self.store()
        keys = [{"Key": item.key} for item in found.list("")]
        for start in range(0, len(keys), 1000):
            found.client.delete_objects(Bucket=self.name, Delete={"Objects": keys[start : start + 1000], "Quiet": True})
        found.client.delete_bucket(Bucket=self.name)
