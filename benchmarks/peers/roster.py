"""The tools that are compared, and where their environments are."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Tool:
    """One tool. ``environment`` is the name below ``.cache/peers``, empty for that of the project."""

    name: str
    label: str
    environment: str
    module: str
    packages: tuple[str, ...]
    option: str = ""
    note: str = ""

    @property
    def command(self) -> list[str]:
        """The command that serves ``protocol``."""
        python = ROOT / ".cache/peers" / self.environment / "bin/python" if self.environment else Path(sys.executable)
        return [str(python), "-m", f"benchmarks.peers.tools.{self.module}"]

    @property
    def versions(self) -> tuple[str, ...]:
        """The packages that do the work, with their versions in the lock file of the environment."""
        lock = ROOT / "requirements" / f"{f'peers-{self.environment}' if self.environment else 'demo'}.txt"
        pins = dict(re.findall(r"(?m)^([a-z0-9-]+)==(\S+)", lock.read_text(encoding="utf-8")))
        return tuple(f"{name} {pins[name]}" for name in self.packages)


_HAND = "the cursor is hand-written"
_OURS = ("connectorx", "polars")
_DLT = ("dlt", "connectorx", "pyarrow")

TOOLS = (
    Tool("tick", "pg_bronze, `pg-bronze tick`", "", "pg_bronze_tick", _OURS, note="the whole command, with Dagster"),
    Tool("copy", "pg_bronze, copy alone", "", "pg_bronze", _OURS, note="without Dagster and the command line"),
    Tool("duckdb", "DuckDB", "duckdb", "duckdb", ("duckdb",), note=f"extensions postgres and httpfs; {_HAND}"),
    Tool("rivet", "rivet", "rivet", "rivet", ("rivet-cli",), note="profile `fast`; its modes `full` and `incremental`"),
    Tool("dlt-connectorx", "dlt, connectorx", "dlt", "dlt", _DLT, "connectorx", "its own incremental loading"),
    Tool("dlt-pyarrow", "dlt, pyarrow", "dlt", "dlt", (_DLT[0], _DLT[2]), "pyarrow", "its own incremental loading"),
    Tool(
        "adbc", "ADBC", "adbc", "adbc", ("adbc-driver-postgresql", "pyarrow"),
        note=f"pyarrow writes to the bucket; {_HAND}",
    ),
    Tool(
        "pandas", "pandas + SQLAlchemy", "pandas", "pandas", ("pandas", "sqlalchemy", "pyarrow"),
        note=f"as the original system, boto3 uploads; {_HAND}",
    ),
)  # fmt: skip
OURS = ("tick", "copy")
