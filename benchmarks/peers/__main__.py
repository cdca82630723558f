"""The comparison with peers, from the command line.

    make bench                                        # under 20 minutes on two cores
    make bench-full                                   # larger tables, more rounds, 5 million rows for the increments
    make bench ARGS="--trial 0.01 --parts edges"      # seconds; it overwrites the page as well
    .venv/bin/python -m benchmarks.peers.page         # only write docs/performance.md again, from the stored result

Starts a PostgreSQL and an S3 server of its own. Parts that are not named keep their result of the last run.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from benchmarks.peers import page, parts
from benchmarks.peers.bench import Bench, start
from benchmarks.peers.roster import TOOLS, Tool
from benchmarks.peers.writers import concurrent


@dataclass(frozen=True)
class Size:
    """How much is measured. ``scale`` is a factor of the usual rows of the ordinary tables."""

    name: str
    scale: float
    rounds: int
    rows: int
    new: int
    seconds: float


BENCH = Size("make bench", 1.0, 3, 500_000, 10_000, 30)
FULL = Size("make bench-full", 2.5, 3, 5_000_000, 10_000, 60)
WRITERS = 8


def measures(bench: Bench, tools: Sequence[Tool], size: Size) -> dict[str, Callable[[], Any]]:
    """Return the function of each part by its name."""
    return {
        "first_load": lambda: parts.first_loads(bench, tools, size.scale, size.rounds),
        "edges": lambda: parts.edges(bench, tools),
        "incremental": lambda: parts.incremental(bench, tools, size.rows, size.new, size.rounds),
        "writers": lambda: concurrent(bench, tools, size.seconds, WRITERS),
    }


def about(size: Size, tools: Sequence[Tool], seconds: float, version: str) -> dict[str, Any]:
    """Return when, where and with which versions the parts were measured."""
    return {
        "size": size.name,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "seconds": round(seconds),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "postgres": version,
        "rounds": size.rounds,
        "tools": {tool.name: {"label": tool.label, "note": tool.note, "versions": tool.versions} for tool in tools},
    }


def chosen_size(given: argparse.Namespace) -> Size:
    """Return the size that the arguments ask for."""
    size = FULL if given.full else BENCH
    if given.trial:
        rows = int(size.rows * given.trial)
        return Size("a small trial", size.scale * given.trial, 1, rows, min(size.new, rows), 8)
    return size


def main() -> None:
    """Measure, store the result and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the sizes of `make bench-full`")
    parser.add_argument("--trial", type=float, help="a factor of all sizes, one round; the page is marked as a trial")
    parser.add_argument("--tools", nargs="+", choices=[tool.name for tool in TOOLS])
    parser.add_argument("--parts", nargs="+", choices=list(page.PARTS), default=list(page.PARTS))
    given = parser.parse_args()
    size = chosen_size(given)
    tools = [tool for tool in TOOLS if not given.tools or tool.name in given.tools]
    with start() as bench:
        version = bench.database.execute("show server_version")[0][0].split()[0]
        steps = measures(bench, tools, size)
        for name in given.parts:
            started = time.monotonic()
            found = steps[name]()
            page.store(name, {"about": about(size, tools, time.monotonic() - started, version), "found": found})
    page.write(page.stored())
    print(f"written: {page.PAGE}")


if __name__ == "__main__":
    main()
