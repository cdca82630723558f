"""A deployment on several machines: servers, Dagster's services and three run workers, each on a machine of its own.

Dagster's storage is a PostgreSQL server, as in ``deploy/postgres``. The machines share nothing but the network.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import yaml
from dagster._core.instance import InstanceRef

from pg_bronze.demo.os_user import OsUser
from pg_bronze.demo.postgres import PostgresServer
from pg_bronze.demo.s3 import SeaweedServer
from pg_bronze_tests.harness import machines, pooler
from pg_bronze_tests.harness.machine_programs import call, start
from pg_bronze_tests.harness.machines import Machine, Network
from pg_bronze_tests.harness.replicas import PRIMARY_OPTIONS, Standby
from pg_bronze_tests.harness.servers import ROOT, Bucket, Database, until_killed

WORKERS = ("worker1", "worker2", "worker3")
NAMES = ("primary", "standby", "pgbouncer", "s3", "storage", "code", "daemon", "web", *WORKERS)
PG_PORT, S3_PORT, CODE_PORT, WEB_PORT = 5432, 8333, 4000, 3000
_EVERYWHERE = "host all all 0.0.0.0/0 scram-sha-256\nhost replication all 0.0.0.0/0 scram-sha-256\n"
_OPTIONS = {**PRIMARY_OPTIONS, "listen_addresses": "*"}
_WORKSPACE = f"load_from:\n  - grpc_server: {{host: code, port: {CODE_PORT}, location_name: pg_bronze}}\n"


@dataclass
class Place:
    """Where this process reaches a server of a machine: what ``Database`` and ``Bucket`` need of a server."""

    host: str
    port: int
    user: str = ""
    password: str = ""
    access_key: str = ""
    secret_key: str = ""

    @property
    def endpoint_url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def connect(self, dbname: str = "postgres", **options: Any) -> psycopg.Connection:
        login = {"host": self.host, "port": self.port, "user": self.user, "password": self.password}
        return psycopg.connect(dbname=dbname, connect_timeout=5, **login, **options)


class FarDatabase(Database):
    """A database on a machine; a subclass keeps no sessions for other tests."""


class _Seaweed(SeaweedServer):
    """SeaweedFS that listens on all addresses of its machine."""

    def _arguments(self) -> list[str]:
        return ["-ip.bind=0.0.0.0" if item.startswith("-ip.bind=") else item for item in super()._arguments()]


class _Primary(PostgresServer):
    """A server that accepts connections from all machines."""

    def _cluster(self, programs: Any, place: Path, user: OsUser | None) -> Path:
        data = super()._cluster(programs, place, user)
        with (data / "pg_hba.conf").open("a") as rules:
            rules.write(_EVERYWHERE)
        return data


@dataclass
class Deployment:
    """All machines, and what a test does from outside.

    Attributes:
        logs: The log of each service.
    """

    network: Network
    database: Database
    bucket: Bucket
    standby: Standby
    instance: dg.DagsterInstance
    environment: dict[str, str]
    logs: dict[str, Path] = field(default_factory=dict)

    def start_worker(self, name: str) -> None:
        """Start the agent of a worker. The third one reaches the database through pgbouncer."""
        changed = {"PG_HOST": "pgbouncer"} if name == "worker3" else {}
        self.logs[name] = start(self.network[name], self.environment | changed, "agent")

    def start_services(self) -> None:
        """Start Dagster's services and the workers, each on its machine."""
        code = ("dagster", "code-server", "start", "-m", "pg_bronze.definitions", "-h", "0.0.0.0")
        self.logs["code"] = start(self.network["code"], self.environment, *code, "-p", str(CODE_PORT))
        self.logs["daemon"] = start(
            self.network["daemon"], self.environment, "dagster-daemon", "run", "-w", "workspace.yaml"
        )
        web = ("dagster-webserver", "-h", "0.0.0.0", "-p", str(WEB_PORT), "-w", "workspace.yaml")
        self.logs["web"] = start(self.network["web"], self.environment, *web)
        for name in WORKERS:
            self.start_worker(name)

    def command(self, *arguments: str) -> tuple[int, str]:
        """Execute `pg-bronze` on the machine of the web server; return its exit code and what it printed."""
        return call(self.network["web"], self.environment, "pg-bronze", *arguments)

    def last_lines(self) -> str:
        """Return the last lines of all services."""
        return "\n".join(f"== {name}\n{log.read_text()[-1500:]}" for name, log in self.logs.items() if log.exists())

    def runs(self, *statuses: dg.DagsterRunStatus) -> list[dg.DagsterRun]:
        """Return the last runs with these statuses, newest first."""
        return list(self.instance.get_runs(dg.RunsFilter(statuses=list(statuses)), limit=30))


def _home(machine: Machine, dead_after_s: float) -> None:
    """Write the project of a machine: the storage of ``deploy/postgres`` and the launcher of machines."""
    settings = yaml.safe_load((ROOT / "deploy/postgres/dagster.yaml").read_text())
    settings["run_launcher"] = {
        "module": "pg_bronze_tests.harness.machine_launcher",
        "class": "MachineRunLauncher",
        "config": {"workers": list(WORKERS), "dead_after_s": dead_after_s},
    }
    settings["run_monitoring"]["poll_interval_seconds"] = 2
    (machine.folder / "project/dagster.yaml").write_text(yaml.safe_dump(settings))
    (machine.folder / "project/workspace.yaml").write_text(_WORKSPACE)


def _variables(source: PostgresServer, storage: PostgresServer, s3: SeaweedServer) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("LANG", "PYTHONPATH") if name in os.environ}
    return kept | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": "/mnt/home",
        "TMPDIR": "/tmp",
        "DAGSTER_HOME": "/mnt/project",
        "DAGSTER_PG_HOST": "storage",
        "DAGSTER_PG_PORT": str(PG_PORT),
        "DAGSTER_PG_DB": "postgres",
        "DAGSTER_PG_USER": storage.user,
        "DAGSTER_PG_PASSWORD": storage.password,
        "PG_HOST": "primary,standby",
        "PG_PORT": str(PG_PORT),
        "PG_DB": "shop",
        "PG_USER": source.user,
        "PG_PASS": source.password,
        "PG_CONTROL_URL": "off",
        "MINIO_ENDPOINT": f"http://s3:{S3_PORT}",
        "MINIO_BUCKET": "bronze",
        "MINIO_ACCESS_KEY": s3.access_key,
        "MINIO_SECRET_KEY": s3.secret_key,
        "PG_BRONZE_INTERVAL_S": "2",
        "PG_BRONZE_CONNECT_TIMEOUT_S": "2",
        "PG_BRONZE_SLICE_BYTES": "64KiB",
    }


@contextlib.contextmanager
def _servers(network: Network) -> Iterator[tuple[_Primary, Standby, _Primary, _Seaweed]]:
    with contextlib.ExitStack() as stack:

        def started(machine: str, server: Any) -> Any:
            with network[machine].network():
                return stack.enter_context(server if machine != "s3" else until_killed(server))

        s3 = started("s3", _Seaweed(network["s3"].folder / "s3", port=S3_PORT))
        primary = started("primary", _Primary(network["primary"].folder / "pg", port=PG_PORT, options=_OPTIONS))
        storage = started("storage", _Primary(network["storage"].folder / "pg", port=PG_PORT, options=_OPTIONS))
        far: Any = Place(network["primary"].address, PG_PORT, primary.user, primary.password)
        far._bindir = None
        standby = Standby(network["standby"].folder / "pg", far, {"listen_addresses": "*"})
        standby.port, standby._port_is_fixed = PG_PORT, True
        started("standby", standby)
        with network["pgbouncer"].network():
            behind: Any = Place("primary", PG_PORT, primary.user, primary.password)
            behind.host = network["primary"].address
            stack.enter_context(pooler.pgbouncer(behind, "transaction", 3, port=PG_PORT, listen="*"))
        yield primary, standby, storage, s3


@contextlib.contextmanager
def deployed(tables: str, dead_after_s: float = 6.0) -> Iterator[Deployment]:
    """Start everything, with these tables in the source database, and end it."""
    with machines.joined(*NAMES) as network, _servers(network) as (primary, standby, storage, s3):
        for name in ("code", "daemon", "web", *WORKERS):
            _home(network[name], dead_after_s)
        with network["primary"].network(), primary.connect(autocommit=True) as connection:
            connection.execute("create database shop")
        with network["s3"].network():
            s3.create_bucket("bronze")
        at_primary = Place(network["primary"].address, PG_PORT, primary.user, primary.password)
        database = FarDatabase(at_primary, "shop")  # type: ignore[arg-type]
        database.execute(tables)
        keys = {"access_key": s3.access_key, "secret_key": s3.secret_key}
        bucket = Bucket(Place(network["s3"].address, S3_PORT, **keys), "bronze")
        variables = _variables(primary, storage, s3)
        bucket.record_probe(variables["MINIO_ENDPOINT"])
        with _instance(network, storage) as instance:
            made = Deployment(network, database, bucket, standby, instance, variables)
            made.start_services()
            yield made


@contextlib.contextmanager
def _instance(network: Network, storage: PostgresServer) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance of the machines, as a client outside of them sees it."""
    folder = network["storage"].folder / "client"
    folder.mkdir()
    url = f"postgresql+psycopg2://{storage.user}:{storage.password}@{network['storage'].address}:{PG_PORT}/postgres"
    kind = {"module": "pg_bronze.defs.postgres_storage", "class": "PooledPostgresStorage"}
    settings = {"storage": {"custom": kind | {"config": {"postgres_url": url}}}}
    (folder / "dagster.yaml").write_text(yaml.safe_dump(settings))
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(folder))) as instance:
        yield instance
