"""The servers of the comparison, and the measurement of one process of a tool on them."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from benchmarks.big_table import Server
from benchmarks.peers.roster import ROOT, Tool
from benchmarks.peers.tables import IDLE, Table
from pg_bronze.demo.postgres import PostgresServer
from pg_bronze.demo.s3 import SeaweedServer
from pg_bronze.lake import create_only
from pg_bronze.lake.keys import own_key
from pg_bronze.lake.object_store import ObjectInfo, Store
from pg_bronze.settings import project
from pg_bronze_tests.harness.servers import Bucket, Database, new_bucket

MB = 2**20
SETTLE_S = 0.2  # a session that its client has closed ends, and counts, some milliseconds later
LIMIT_S = 1800
OPTIONS = {"fsync": "off", "max_wal_size": "8GB", "shared_buffers": "1GB"}


@dataclass(frozen=True)
class Load:
    """What one process of a tool needed.

    ``seconds`` and ``client_s`` (CPU) are those of the whole process, ``copy_s`` and ``copy_cpu_s`` those without its
    start and imports. ``error`` is the first one that the tool reported.
    """

    seconds: float
    copy_s: float
    client_s: float
    copy_cpu_s: float
    server_s: float
    memory_mb: float
    size_mb: float = 0.0
    error: str | None = None


@dataclass
class Bench:
    """Both servers, one bucket, and a folder for the state of the tools."""

    database: Database
    bucket: Bucket
    folder: Path
    server: Server

    def create(self, table: Table, rows: int = 0) -> None:
        """Create a table and let the server finish its own work on it."""
        for statement in (*table.statements, f"vacuum analyze {table.name}", "checkpoint"):
            self.database.execute(statement.format(rows=rows) if rows else statement)

    def store(self, prefix: str) -> Store:
        """Return the objects below a prefix."""
        return self.bucket.store(prefix)

    def prepare(self, tool: Tool, prefix: str) -> None:
        """Do what a tool does once in its life, which is not part of a copy."""
        folder = self.state(prefix)
        (folder / "home").mkdir(parents=True)
        if tool.name == "tick":
            text = create_only.record(self.bucket.server.endpoint_url, datetime.now(UTC))
            self.store(prefix).replace(own_key(prefix, "create_only.json"), text)
            # Its rows would be those of another bucket, which pg_bronze does not take over unasked.
            self.database.execute("drop table if exists etl_control")
            for name in project.CONFIG_FILES:
                shutil.copy(ROOT / name, folder)
            load, _ = self.run(tool, prefix, [IDLE.name])
            assert load.error is None, load.error

    def state(self, prefix: str) -> Path:
        """Return the folder of a tool's state."""
        return self.folder / prefix

    def environment(self, tool: Tool, prefix: str, cursor: str = "") -> dict[str, str]:
        """Return the whole environment of a tool."""
        server = self.bucket.server
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.state(prefix) / "home"),
            "AWS_ACCESS_KEY_ID": server.access_key,
            "AWS_SECRET_ACCESS_KEY": server.secret_key,
            "AWS_EC2_METADATA_DISABLED": "true",
            "RUNTIME__DLTHUB_TELEMETRY": "false",
            "DO_NOT_TRACK": "1",
            "PEER_URL": self.database.url,
            "PEER_ENDPOINT": server.endpoint_url,
            "PEER_BUCKET": self.bucket.name,
            "PEER_PREFIX": prefix,
            "PEER_FOLDER": str(self.state(prefix)),
            "PEER_CURSOR": cursor,
            "PEER_OPTION": tool.option,
        }

    def run(
        self, tool: Tool, prefix: str, tables: Sequence[str], cursor: str = ""
    ) -> tuple[Load, list[dict[str, Any]]]:
        """Copy the tables in one process; return what it needed, and its answer for each table."""
        command = [sys.executable, "-S", "-E", str(Path(__file__).with_name("launch.py")), *tool.command]
        before = self.server.cpu_s()
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment(tool, prefix, cursor),
            input="".join(f"{name}\n" for name in tables), capture_output=True, text=True, check=False, timeout=LIMIT_S,
        )  # fmt: skip
        time.sleep(SETTLE_S)  # the server has no event for idle
        *answers, needed = [json.loads(line) for line in done.stdout.splitlines()]
        if not answers:
            raise SystemExit(f"{tool.name} ended with {needed['status']}:\n{done.stderr[-2000:]}")
        for name in tables[len(answers) :]:
            answers.append({"table": name, "seconds": 0.0, "cpu_s": 0.0, "error": f"ended with {needed['status']}"})
        errors = [answer["error"] for answer in answers if answer["error"]]
        load = Load(
            seconds=needed["seconds"],
            copy_s=sum(answer["seconds"] for answer in answers),
            client_s=needed["cpu_s"],
            copy_cpu_s=sum(answer["cpu_s"] for answer in answers),
            server_s=self.server.cpu_s() - before,
            memory_mb=needed["peak_mb"],
            size_mb=sum(self.size_mb(prefix, table) for table in tables),
            error=errors[0] if errors else None,
        )
        return load, answers

    def size_mb(self, prefix: str, table: str) -> float:
        """Return the size of the Parquet objects of one table."""
        return sum(item.size_bytes for item in self._parquet(prefix, table)) / MB

    def files(self, prefix: str, table: str, folder: Path) -> list[Path]:
        """Download the Parquet objects of one table."""
        store, files = self.store(prefix), []
        for item in self._parquet(prefix, table):
            files.append(folder / f"{len(files)}.parquet")
            files[-1].write_bytes(store.get(item.key) or b"")
        return files

    def _parquet(self, prefix: str, table: str) -> list[ObjectInfo]:
        found = self.store(prefix).list(f"{prefix}/")
        return [item for item in found if item.key.endswith(".parquet") and f"/{table}/" in item.key]

    def remove(self, prefix: str) -> None:
        """Delete the objects and the state of a tool."""
        store = self.store(prefix)
        for item in list(store.list(f"{prefix}/")):
            store.delete(item.key)
        shutil.rmtree(self.state(prefix))


@contextlib.contextmanager
def start() -> Iterator[Bench]:
    """Start both servers in a folder that is removed afterwards."""
    with (
        tempfile.TemporaryDirectory(prefix="peers-") as name,
        PostgresServer(Path(name) / "postgres", options=OPTIONS) as postgres,
        SeaweedServer(Path(name) / "s3") as s3,
    ):
        database = Database(postgres, "postgres")
        with database.connect() as connection:
            server = Server(psutil.Process(connection.info.backend_pid).ppid())
        bench = Bench(database, new_bucket(s3), Path(name) / "state", server)
        bench.create(IDLE)
        yield bench
