"""The sentences of ``docs/performance.md``. Those that name a faster tool are chosen by the figures."""

from collections.abc import Mapping
from typing import Any

from benchmarks.peers.figures import BASE, ratio, values, works
from benchmarks.peers.roster import OURS

Found = Mapping[str, Any]
CLOSE = 0.95  # a ratio above it is no difference on shared cores

HEAD = """# Performance beside other tools

Written by `make bench` or `make bench-full`, which has larger tables (both under 20 minutes on two cores), and again
from the stored result `docs/performance/result.json` by `.venv/bin/python -m benchmarks.peers.page`. The code is in
`benchmarks/peers`.

Every tool runs in an environment of its own with pinned versions (`requirements/peers-*.txt`), reads the same
PostgreSQL, and writes Parquet with Zstandard to the same S3 server (SeaweedFS). All of them and both servers share the
cores of one machine, so compare ratios, not seconds. pg_bronze is measured twice: as the command that people run, and
as the copy alone, which is what a run worker of `dagster dev` does after its start.
"""
TITLES = {
    "first_load": "## First loads",
    "edges": "## Unusual values",
    "incremental": "## New rows",
    "writers": "## Rows that commit late",
}
FIRST_LOAD = """Medians of {rounds} rounds; in each round the tools run in another order. *Wall* and *client
CPU* are those of the whole process, *of `tick`* is the median of the ratios to `pg-bronze tick` in the same round.
*Without start* is the time after the imports; of `pg-bronze tick` and rivet, which are programs, it includes their
start. *Peak memory* is the largest resident set of a process. *Values* compares
every row and column with the source. A wrong result is red in the plots."""
EDGES = """One table for each value, with an ordinary value, this one and NULL. *exact*: read back as the same value.
*sentinel*: an infinity is stored as the first or last value of the calendar, which no finite value has. *other type*:
the same value as text or as a number of another type. *refused*: an error and no row. **wrong**: another value without
an error. pg_bronze refuses NaN in a `numeric` with a precision and years from 262142 unless a [setting](settings.md)
says how to store them."""
INCREMENTAL = """A table with {rows:,} rows is loaded; then {new:,} rows are inserted and each tool copies them,
{rounds} times. The cursor is the primary key. No writer is active. *Values* compares the whole table at the end."""
WRITERS = """{writers} sessions insert rows for {seconds:.0f} s; half of the transactions stay open for 0.2 to 1.5 s,
so ids are not committed in their order. All tools copy the same table at the same time, again and again, and twice
after the last commit. {rows:,} rows were committed."""
WORDS = {
    "exact": "exact",
    "sentinel": "sentinel",
    "retyped": "other type",
    "error": "refused",
    "wrong": "**wrong**",
    "partial": "**rows and an error**",
    "lost": "**rows lost**",
    "unreadable": "**unreadable**",
}

# Measured once with process_time around each step, without reading ahead; of `benchmarks/first_load.py --scale 2`.
PROFILE = """## What a first load costs

CPU seconds of the copy alone and of its ceiling: connectorx reads the same projection into one frame, and Polars
writes one local file with its own settings. Tables of `benchmarks/first_load.py --scale 2`, two cores with both
servers, slices of 56 MB, each step measured without another one beside it, 2026-12-01. With the default of 32 MB, order
lines took 1.19 and wide rows 1.04 times the ceiling there, and 1.15 and 1.07 on a machine half as fast (narrow rows
1.09).

| | 800,000 order lines | 400,000 wide rows | 3,000,000 narrow rows |
|---|---|---|---|
| connectorx: receive and decode | 0.83 | 0.34 | 1.39 |
| Parquet, Zstandard level 2 | 0.40 | 0.64 | 0.24 |
| a frame of it, decimals, policies of values | 0.10 | 0.02 | 0.01 |
| PUT: hashes, sending | 0.05 | 0.17 | 0.05 |
| **client**, all of it: copy, ceiling | 1.30, 1.19 | 1.18, 1.33 | 1.72, 1.63 |
| **PostgreSQL**: copy, ceiling | 0.98, 0.86 | 0.58, 0.33 | 0.78, 0.76 |
| all CPU time, copy to ceiling | 1.12 | 1.08 | 1.05 |
| wall time, copy to ceiling | 1.14 | 1.10 | 1.06 |
| **S3 server**, if SeaweedFS shares the cores | 0.22 | 0.78 | 0.18 |
| wall time with that, copy to ceiling | 1.30 | 1.49 | 1.12 |

A step that is measured alone may take more than beside the others. The wall times with the default are in
[operations](operations.md#speed-of-a-first-load). They follow the CPU time of all processes, because both cores are
busy. Half of the CPU time beyond that of the ceiling (order lines), or all of it (wide rows), is that of PostgreSQL,
which tests the window of each row (0.02 to 0.06 microseconds), measures rows without a bound of their size before it
sends them (0.5 microseconds for a row with `jsonb`, which is converted to text twice), and starts a session for each
slice. The ceiling stores no object and bounds no memory. If both servers are other machines, their part is not taken
from these cores. Tried without effect: keeping freed memory (0.99 to 1.00 times the CPU time of the client), a larger
threshold for mapped memory (0.99, for 1.7 times the memory), larger row groups (1.00), slices of 96 MB (0.99), and
huge pages (1.0 to 1.1 times the wall time).
The CRC-32 of each PUT takes 0.44 of its 3 ms for a megabyte, and is kept because the store records it.
"""

_RATIOS = """Time, client CPU and peak memory relative to `pg-bronze tick`, and time without start relative to the copy
alone. A peer needs less where a number is bold."""
_WHY = {
    "duckdb": """DuckDB reads ranges of a large table over several connections, decodes them in threads and encodes
Parquet meanwhile, without Python. It has no state to recover and no commit protocol.""",
    "rivet": """rivet is one program in Rust: it starts in milliseconds, and reads, encodes and uploads without
Python.""",
    "adbc": """ADBC decodes PostgreSQL's binary COPY in C++ into Arrow batches, which pyarrow writes as they are.
Decimals are stored as text.""",
    "dlt-connectorx": "dlt reads with connectorx too, in one query and without slices.",
    "dlt-pyarrow": "The process of dlt starts faster than a command with Dagster.",
    "pandas": """The original way has little to start: for few rows its process is shorter than the start of
Dagster.""",
}
_ADVICE = """Most of a small `pg-bronze tick` is the start of Python and Dagster, which every new process pays;
`dagster dev` and `pg-bronze run` pay it once. A first load costs more than that of the fastest peer for three reasons:
it is divided into slices of 32 MB that are committed one by one, so that an interrupted load continues; each slice has
the transaction id of every row; and values are stored exactly. If a table is copied once, nobody writes to it, and its
values are ordinary, use DuckDB. If a table is written to while it is copied, and every row counts, a cursor column is
not enough, whichever tool polls it."""


def better(result: Found) -> list[str]:
    """Return the section about the cases in which a peer is better than pg_bronze."""
    tables = _tables(result)
    labels = {name: tool["label"] for part in result.values() for name, tool in part["about"]["tools"].items()}
    peers = [name for name in labels if name not in OURS]
    lines = ["## Where a peer is better, and why", "", _RATIOS, "", f"| tool | {' | '.join(tables)} |"]
    lines.append("|---" * (len(tables) + 1) + "|")
    lines += [f"| {labels[peer]} | {' | '.join(_cell(tools, peer) for tools in tables.values())} |" for peer in peers]
    faster = [peer for peer in peers if any(_is_faster(tools, peer) for tools in tables.values())]
    return [*lines, "", *(f"- **{labels[peer]}**: {_WHY[peer]}" for peer in faster), "", _ADVICE]


def _tables(result: Found) -> dict[str, Found]:
    """Return the measured tools of each table that has figures of `pg-bronze tick`."""
    tables = {name: found["tools"] for name, found in result.get("first_load", {}).get("found", {}).items()}
    if "incremental" in result:
        tables["new rows"] = result["incremental"]["found"]["tools"]
    return {name: tools for name, tools in tables.items() if {*OURS} <= {*tools}}


def _ratios(tools: Found, name: str) -> list[float]:
    figures = (("seconds", BASE), ("client_s", BASE), ("memory_mb", BASE), ("copy_s", "copy"))
    return [ratio(tools, name, figure, base) for figure, base in figures]


def _is_faster(tools: Found, name: str) -> bool:
    if name not in tools or not works(tools[name]):
        return False
    ratios = _ratios(tools, name)
    return min(ratios[0], ratios[3]) < CLOSE


def _cell(tools: Found, name: str) -> str:
    """Return the ratios of a tool, those below 1 in bold type."""
    if name not in tools or not works(tools[name]):
        return "failed"
    shown = " · ".join(f"**{value:.2f}**" if value < CLOSE else f"{value:.2f}" for value in _ratios(tools, name))
    return f"{shown}, wrong values" if "wrong" in values(tools[name]) else shown
