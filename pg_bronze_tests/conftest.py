"""Real servers for the tests: PostgreSQL, SeaweedFS and MinIO, started once a session on free ports.

A server that cannot be started is a failure, never a skip. ``--postgres=15 --s3=minio`` runs the same tests on another
pair of servers; those that ask for servers by name get these in any case.
"""

import functools
import gc
import itertools
import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import psycopg
import pytest

from pg_bronze import store
from pg_bronze.demo.postgres import PostgresServer
from pg_bronze.demo.s3 import MinioServer, SeaweedServer

# The same examples every time, however busy the machine is: a failure repeats. `--hypothesis-profile=explore` looks for
# new ones.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.register_profile("explore", max_examples=1000, stateful_step_count=40)
hypothesis.settings.load_profile("repeatable")

# A shell starts what it puts in the background with SIGINT ignored, and then no test could interrupt anything.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parents[1]
_number = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("servers", "the servers that tests run on")
    group.addoption(
        "--postgres", choices=["18", *older_servers()], default="18", help="version of PostgreSQL (default: 18)"
    )
    group.addoption("--s3", choices=["seaweed", "minio"], default="seaweed", help="S3 server (default: seaweed)")


@pytest.fixture(autouse=True, scope="session")
def _no_ambient_settings() -> Iterator[None]:
    """Nothing of the caller's environment may make a test pass or fail."""
    ambient = [name for name in os.environ if name.startswith(("PG", "MINIO_", "MC_", "AWS_", "DAGSTER_"))]
    kept = {
        name: os.environ.pop(name)
        for name in ambient
        if not name.startswith(("PG_BRONZE_TEST_", "PG_BRONZE_PG_BINDIR"))
    }
    yield
    os.environ.update(kept)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One process more than there are cores: tests wait for timers and answers, which left a fifth of them idle."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_finish() -> None:
    """Keep the garbage collector from all that is loaded by now; it would go through it in every test."""
    gc.freeze()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what tests have counted (``record_property("summary", …)``), also when they ran in other processes."""
    passed, failed = (terminalreporter.getreports(outcome) for outcome in ("passed", "failed"))
    said = sorted({text for report in (*passed, *failed) for name, text in report.user_properties if name == "summary"})
    if said:
        terminalreporter.section("counted")
        for line in said:
            terminalreporter.line(line)


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
        with self.connect() as connection:
            cursor = connection.execute(query)
            return cursor.fetchall() if cursor.description else []


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
def _postgres(folder: Path, bindir: Path | None) -> Iterator[PostgresServer]:
    options = {
        "max_prepared_transactions": "20",
        "max_connections": "100",
        "fsync": "off",
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


@contextmanager
def _fresh_database(server: PostgresServer) -> Iterator[Database]:
    name = f"test_{next(_number)}_{secrets.token_hex(3)}"
    with server.connect() as connection:
        connection.autocommit = True
        connection.execute(f'create database "{name}"')
    yield Database(server, name)
    with server.connect() as connection:
        connection.autocommit = True
        connection.execute(f'drop database "{name}" with (force)')


@pytest.fixture(scope="session")
def bindir(pytestconfig: pytest.Config) -> Path | None:
    """The programs of ``--postgres``, for tests that start a server of their own; None are those of the wheel."""
    return older_servers().get(pytestconfig.getoption("postgres"))


@pytest.fixture(scope="session")
def postgres_server(bindir: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with _postgres(tmp_path_factory.mktemp("postgres"), bindir) as server:
        yield server


@pytest.fixture
def database(postgres_server: PostgresServer) -> Iterator[Database]:
    with _fresh_database(postgres_server) as found:
        yield found


@pytest.fixture(scope="session", params=["18", *older_servers()])
def any_postgres_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PostgresServer]:
    """A server of each version in turn."""
    if request.param == request.config.getoption("postgres"):
        yield request.getfixturevalue("postgres_server")
        return
    with _postgres(tmp_path_factory.mktemp(f"postgres{request.param}"), older_servers().get(request.param)) as server:
        yield server


@pytest.fixture
def any_database(any_postgres_server: PostgresServer) -> Iterator[Database]:
    """A database on each version in turn; a module that wants all its tests there names it ``database``."""
    with _fresh_database(any_postgres_server) as found:
        yield found


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedServer]:
    with SeaweedServer(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    with MinioServer(tmp_path_factory.mktemp("minio"), binary=ROOT / ".cache/minio/minio") as server:
        yield server


@pytest.fixture(scope="session")
def s3_server(request: pytest.FixtureRequest) -> SeaweedServer | MinioServer:
    """The server of ``--s3``."""
    return request.getfixturevalue(request.config.getoption("s3"))


def new_bucket(server: Any) -> "Bucket":
    name = f"bronze-{next(_number)}-{secrets.token_hex(3)}"
    server.create_bucket(name)
    return Bucket(server, name)


@functools.cache
def _client(endpoint_url: str, access_key: str, secret_key: str) -> Any:
    # Making one takes a tenth of a second; it may be shared.
    return store.connect(endpoint_url, "us-east-1", access_key, secret_key)


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

    def store(self, prefix: str = "") -> store.Store:
        client = _client(self.server.endpoint_url, self.server.access_key, self.server.secret_key)
        return store.Store(client, self.name, prefix)

    def remove(self) -> None:
        """Remove the bucket: SeaweedFS keeps volumes for each, and runs out of them after about a hundred."""
        found = self.store()
        keys = [{"Key": item.key} for item in found.list("")]
        for start in range(0, len(keys), 1000):
            found.client.delete_objects(Bucket=self.name, Delete={"Objects": keys[start : start + 1000], "Quiet": True})
        found.client.delete_bucket(Bucket=self.name)


@pytest.fixture
def bucket(s3_server: SeaweedServer | MinioServer) -> Iterator[Bucket]:
    made = new_bucket(s3_server)
    yield made
    made.remove()


@pytest.fixture(params=["seaweed", "minio"])
def any_bucket(request: pytest.FixtureRequest) -> Iterator[Bucket]:
    """A bucket on each kind of server in turn."""
    made = new_bucket(request.getfixturevalue(request.param))
    yield made
    made.remove()
