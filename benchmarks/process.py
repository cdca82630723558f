"""What the processes cost that Dagster and cron start again and again, from their start to their end.

    .venv/bin/python -m benchmarks.process [--rounds 7]

Every number is CPU seconds of one process, its own and the system's for it. "dagster" only imports Dagster, which is
the least that any run worker does; "location" imports what `dagster dev` loads, as each run worker does; "command" is a
`pg-bronze tick` whose PostgreSQL is down. The last two also "thawed", with a `gc.freeze` that does nothing: what they
would cost if the garbage collector went through all that is loaded. Variants take turns; medians, ratios to "dagster".
"""

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
THAWED = "import gc; gc.freeze = lambda: None\n"
LOCATION = "import dagster._cli.api, pg_bronze.definitions\n"
COMMAND = "import sys; sys.argv = ['pg-bronze', 'tick']; from pg_bronze.cli.app import app; app()\n"
VARIANTS = {
    "dagster": "import dagster\n",
    "location": LOCATION,
    "location, thawed": THAWED + LOCATION,
    "command": COMMAND,
    "command, thawed": THAWED + COMMAND,
}
SETTINGS = {
    "PG_HOST": "127.0.0.1", "PG_PORT": "1", "PG_USER": "nobody", "PG_PASS": "none", "PG_DB": "none",
    "MINIO_ENDPOINT": "http://127.0.0.1:1", "MINIO_ACCESS_KEY": "none", "MINIO_SECRET_KEY": "none",
    "MINIO_BUCKET": "none",
}  # fmt: skip


def cost(code: str) -> float:
    """CPU seconds of a Python that runs ``code``."""
    dropped = ("PG", "MINIO_", "MC_", "AWS_", "DAGSTER_", "PYTHONDONTWRITEBYTECODE")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(dropped)} | SETTINGS
    before = os.times()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=False)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    found: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _ in range(parser.parse_args().rounds):
        for name, code in VARIANTS.items():
            found[name].append(cost(code))
    least = statistics.median(found["dagster"])
    for name, seconds in found.items():
        median = statistics.median(seconds)
        print(f"{name:17} {median:.2f} CPU-s  {median / least:.2f}x  ({min(seconds):.2f} to {max(seconds):.2f})")


if __name__ == "__main__":
    main()
