"""How long Dagster's pages take to load with many tables, each in a new headless Chromium without a cache.

    .venv/bin/python -m benchmarks.pages [--tables 500] [--rounds 3]

Starts a PostgreSQL server, an S3 server and a separate `dagster dev`, with the project's dagster.yaml, and waits until
each table is copied. A page has loaded when it shows what a person opens it for. Ends with 1 if the median of a page is
above 3 s.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Locator, expect

from benchmarks.load_interference import dagster_dev
from benchmarks.many_tables import create_tables, servers, wait_for_objects
from pg_bronze_tests.harness.browser import Ui, open_browser
from pg_bronze_tests.harness.servers import Bucket, Database

MOST_S = 3.0
GROUP = "/locations/pg_bronze/asset-groups/bronze"
# The path of each page, and what it shows once it has loaded.
PAGES: dict[str, tuple[str, Callable[[Ui], Locator]]] = {
    "lineage of all groups": ("/asset-groups", lambda ui: ui.node("bronze").last),
    "lineage of the bronze tables": (f"{GROUP}/lineage", lambda ui: ui.page.locator("foreignObject").first),
    "catalog": ("/assets", lambda ui: ui.page.get_by_role("link", name="bronze / t0000")),
    "asset": ("/assets/bronze/t0007?view=overview", lambda ui: ui.page.get_by_role("cell", name="pg_bronze/rows")),
    "check": ("/assets/bronze/t0007?view=checks&checkDetail=up_to_date", lambda ui: ui.verdict("Passed")),
    "partitions": ("/assets/bronze/t0007?view=partitions", lambda ui: ui.page.get_by_text("Partitions Selected")),
    "sensor": ("/locations/pg_bronze/sensors/bronze_tick", lambda ui: ui.ticks_without_runs().first),
    "runs": ("/runs", lambda ui: ui.page.get_by_text("Success").first),
    "automation": ("/automation", lambda ui: ui.page.get_by_role("link", name="bronze_tick")),
}


def load_s(url: str, name: str) -> float:
    """Return the seconds from the request of a page until it shows what it is opened for."""
    path, shown = PAGES[name]
    with open_browser() as page:
        ui = Ui(page, url)
        began = time.monotonic()
        ui.open(path)
        expect(shown(ui)).to_be_visible()
        return time.monotonic() - began


def measure(database: Database, bucket: Bucket, folder: Path, chosen: argparse.Namespace) -> bool:
    """Print a line for each page; return whether all are fast enough."""
    create_tables(database, chosen.tables)
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    environment = {**kept, "HOME": str(folder)} | database.environ | bucket.environ
    with dagster_dev(folder, environment) as process:
        wait_for_objects(bucket.store(), chosen.tables)
        url = f"http://127.0.0.1:{process.args[-1]}"
        medians = []
        for name in PAGES:
            spent = [load_s(url, name) for _ in range(chosen.rounds)]
            medians.append(statistics.median(spent))
            print(f"{name:30} {medians[-1]:5.2f} s  {min(spent):5.2f} to {max(spent):5.2f}", flush=True)
    return max(medians) <= MOST_S


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    with servers("pg_bronze_pages_") as (database, bucket, folder):
        if not measure(database, bucket, folder, chosen):
            raise SystemExit(1)


if __name__ == "__main__":
    main()
