"""Copies beside writers that commit out of order: which committed rows a tool never copies, and which it copies twice.

Every tool reads the same table at the same time, by its primary key if it needs a cursor: the ids increase, and a
transaction that stays open commits ids below those that others have committed since.
"""

import contextlib
import json
import random
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.peers.bench import Bench
from benchmarks.peers.roster import ROOT, Tool
from pg_bronze_tests.harness.servers import Database

TABLE = """create table race (
  id bigint generated always as identity primary key,
  created_at timestamptz not null default now(),
  note text not null
)"""
PAUSE_S = 0.3
HELD_S = (0.2, 1.5)
SHARE_HELD = 0.5
CURSOR = "id"


class Writers:
    """Sessions that insert one to three rows in a transaction; half of them stay open for up to 1.5 s."""

    def __init__(self, database: Database, count: int) -> None:
        self._database = database
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(count)]

    def __enter__(self) -> "Writers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        chance = random.Random(number)
        with self._database.connect(autocommit=False) as connection:
            while not self._ended.is_set():
                for _ in range(chance.randint(1, 3)):
                    connection.execute("insert into race (note) values ('row')")
                held = chance.random() < SHARE_HELD
                self._ended.wait(chance.uniform(*HELD_S) if held else 0.02)
                connection.commit()


class Copier(threading.Thread):
    """One tool that copies the table again and again, in a process that stays."""

    def __init__(self, bench: Bench, tool: Tool, log: Path) -> None:
        super().__init__(daemon=True)
        self.tool, self.prefix = tool, f"race-{tool.name}"
        self.copies, self.errors = 0, Counter[str]()
        self._ended = threading.Event()
        bench.prepare(tool, self.prefix)
        self._process = subprocess.Popen(
            tool.command, cwd=ROOT, env=bench.environment(tool, self.prefix, CURSOR), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=log.open("wb"), text=True,
        )  # fmt: skip

    def copy(self) -> None:
        """Copy once, and wait for the end."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("race\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        self.copies += 1
        if answer["error"]:
            self.errors[answer["error"].partition(":")[0]] += 1

    def run(self) -> None:
        while not self._ended.is_set():
            self.copy()
            self._ended.wait(PAUSE_S)

    def stop(self) -> None:
        """Wait for the copy that is running."""
        self._ended.set()
        self.join()

    def close(self) -> None:
        """Copy what was committed last, and end the process."""
        self.copy()
        self.copy()
        self._process.communicate()


def concurrent(bench: Bench, tools: Sequence[Tool], seconds: float, writers: int) -> dict[str, Any]:
    """Let all tools copy while writers are active, then once more, and look for every committed row."""
    bench.database.execute(TABLE)
    bench.database.execute("insert into race (note) values ('first')")
    with tempfile.TemporaryDirectory() as folder:
        copiers = [Copier(bench, tool, Path(folder, tool.name)) for tool in tools]
        for copier in copiers:
            copier.copy()  # its imports and its first load are not part of the race
        with Writers(bench.database, writers):
            for copier in copiers:
                copier.start()
            time.sleep(seconds)
        for copier in copiers:
            copier.stop()
        for copier in copiers:
            copier.close()
    ids = {row[0] for row in bench.database.execute("select id from race")}
    found = {copier.tool.name: _outcome(bench, copier, ids) for copier in copiers}
    return {"seconds": seconds, "writers": writers, "rows": len(ids), "tools": found}


def _outcome(bench: Bench, copier: Copier, ids: set[int]) -> dict[str, Any]:
    copied = copied_ids(bench, copier.prefix)
    lost, doubled = len(ids - set(copied)), copied.total() - len(copied)
    print(f"race {copier.tool.name}: {copier.copies} copies, {lost} lost, {doubled} doubled", flush=True)
    return {"copies": copier.copies, "errors": dict(copier.errors), "lost": lost, "doubled": doubled}


def copied_ids(bench: Bench, prefix: str) -> Counter[int]:
    """Return how often each id is in the objects of a tool."""
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(duckdb.connect()) as connection:
        files = bench.files(prefix, "race", Path(folder))
        if not files:
            return Counter()
        names = ", ".join(f"'{file}'" for file in files)
        rows = connection.execute(f"select id from read_parquet([{names}], union_by_name = true)").fetchall()
        return Counter(row[0] for row in rows)
