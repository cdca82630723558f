"""The measured parts: first loads, edge values, and incremental copies. ``writers`` has the fourth."""

import random
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.peers import judge
from benchmarks.peers.bench import Bench
from benchmarks.peers.roster import Tool
from benchmarks.peers.tables import EDGES, EVENTS, MORE_EVENTS, ORDINARY, Table

Found = dict[str, Any]


class Judge:
    """The rows of one table of the source, with which the objects of every tool are compared."""

    def __init__(self, bench: Bench, table: Table) -> None:
        self._bench, self._table = bench, table
        self._connection = duckdb.connect()
        self._connection.execute("set timezone = 'UTC'")
        with tempfile.TemporaryDirectory() as folder, bench.database.connect() as source:
            judge.load_source(source, self._connection, table.name, table.kinds, Path(folder, "source.csv"))

    def verdict(self, prefix: str) -> judge.Verdict:
        """Compare the objects of a tool."""
        with tempfile.TemporaryDirectory() as folder:
            files = self._bench.files(prefix, self._table.name, Path(folder))
            return judge.compare(self._connection, self._table.kinds, files, self._table.key)

    def word(self, prefix: str, error: str | None) -> str:
        """Return one word about an edge table, a key of ``prose.WORDS``."""
        found = self.verdict(prefix)
        if error:
            return "partial" if found.rows else "error"
        if found.error or found.lost:
            return "unreadable" if found.error else "lost"
        if not found.exact:
            return "sentinel" if judge.special_value(self._connection) in judge.SENTINELS else "wrong"
        return "retyped" if found.retyped else "exact"


def first_loads(bench: Bench, tools: Sequence[Tool], scale: float, rounds: int) -> Found:
    """Load each ordinary table with each tool, in another order in each round; compare the first load of each."""
    return {table.name: _first_load(bench, tools, table, int(table.rows * scale), rounds) for table in ORDINARY}


def _first_load(bench: Bench, tools: Sequence[Tool], table: Table, rows: int, rounds: int) -> Found:
    bench.create(table, rows)
    compared = Judge(bench, table)
    found: Found = {tool.name: {"loads": []} for tool in tools}
    for number in range(rounds):
        for tool in random.Random(number).sample(tools, len(tools)):
            prefix = f"first-{table.name}-{tool.name}-{number}"
            bench.prepare(tool, prefix)
            load, _ = bench.run(tool, prefix, [table.name])
            found[tool.name]["loads"].append(asdict(load))
            print(f"{table.name} {tool.name}: {load.seconds:.2f} s {load.error or ''}", flush=True)
            if number == 0:
                found[tool.name]["verdict"] = asdict(compared.verdict(prefix))
            bench.remove(prefix)
    bench.database.execute(f"drop table {table.name}")
    return {"rows": rows, "label": table.label, "tools": found}


def edges(bench: Bench, tools: Sequence[Tool]) -> Found:
    """Copy each edge table with each tool, and say what became of its value."""
    for table in EDGES:
        bench.create(table)
    answers = {}
    for tool in tools:
        bench.prepare(tool, f"edges-{tool.name}")
        _, answers[tool.name] = bench.run(tool, f"edges-{tool.name}", [table.name for table in EDGES])
        print(f"edges {tool.name}", flush=True)
    found: Found = {}
    for number, table in enumerate(EDGES):
        compared = Judge(bench, table)
        found[table.label] = {
            tool.name: compared.word(f"edges-{tool.name}", answers[tool.name][number]["error"]) for tool in tools
        }
    return found


def incremental(bench: Bench, tools: Sequence[Tool], rows: int, new: int, rounds: int) -> Found:
    """Load a table, then insert rows and let each tool copy them, in another order in each round; compare the end."""
    bench.create(EVENTS, rows)
    found: Found = {tool.name: {"loads": []} for tool in tools}
    for tool in tools:
        prefix = f"events-{tool.name}"
        bench.prepare(tool, prefix)
        load, _ = bench.run(tool, prefix, [EVENTS.name], "id")
        found[tool.name]["base"] = asdict(load)
        print(f"base {tool.name}: {load.seconds:.2f} s {load.error or ''}", flush=True)
    for number in range(rounds):
        bench.database.execute(MORE_EVENTS.format(rows=new))
        for tool in random.Random(number).sample(tools, len(tools)):
            load, _ = bench.run(tool, f"events-{tool.name}", [EVENTS.name], "id")
            found[tool.name]["loads"].append(asdict(load))
            print(f"incremental {tool.name}: {load.seconds:.2f} s {load.error or ''}", flush=True)
    compared = Judge(bench, EVENTS)
    for tool in tools:
        found[tool.name]["verdict"] = asdict(compared.verdict(f"events-{tool.name}"))
        bench.remove(f"events-{tool.name}")
    bench.database.execute("drop table events")
    return {"rows": rows, "new": new, "tools": found}
