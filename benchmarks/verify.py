"""Verifying a day with many objects: wall time, CPU and memory of reading and comparing all footers.

    python -m benchmarks.verify --objects 17280

The objects are empty, with the footers of a table of 20 columns that is copied every 10 s, in a SeaweedFS of their own.
"""

import argparse
import dataclasses
import os
import resource
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl

from pg_bronze.core.watermark import Leaf, Origin, Watermark
from pg_bronze.demo.s3 import SeaweedServer
from pg_bronze.lake.footer import Footer
from pg_bronze.lake.keys import Layout
from pg_bronze.lake.ledger import Ledger
from pg_bronze.lake.object_store import Store
from pg_bronze.lake.parquet import Codec, encode
from pg_bronze.sync import gaps
from pg_bronze_tests.harness.servers import new_bucket, until_killed

DAY = date(2026, 1, 2)
COLUMNS = [{"attnum": n, "name": f"column_{n}", "type": "text", "declared": "text"} for n in range(1, 21)]
ORIGIN = Origin("7400000000000000000", 1, "1/0", 5, "bucket")


def footers(layout: Layout, count: int) -> list[tuple[str, Footer]]:
    """A chain of footers, one every few seconds of the day."""
    start = datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC)
    step = timedelta(days=1) / (count + 1)
    found = []
    before = Watermark(ORIGIN, 16384)
    for number in range(1, count + 1):
        key = layout.key(start + number * step)
        leaves = {16384: Leaf(swept=1000 + number)}
        after = dataclasses.replace(before, seq=number, key=key, leaves=leaves, cursor="2026-01-02 00:00:00+00")
        found.append((key, Footer("nonce", before, after, None, 0, COLUMNS, "_pg_xid", 180001)))
        before = after
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=17_280)
    count = parser.parse_args().objects
    with tempfile.TemporaryDirectory() as folder, until_killed(SeaweedServer(Path(folder))) as server:
        bucket = new_bucket(server)
        layout = Layout("", "public", "movie")
        if (child := os.fork()) == 0:  # the memory of the writer is not measured
            _write(bucket.store(), footers(layout, count))
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        _measure(Ledger(bucket.store(), layout), count)


def _write(store: Store, chain: list[tuple[str, Footer]]) -> None:
    frame = pl.DataFrame(schema={**{str(item["name"]): pl.String for item in COLUMNS}, "_pg_xid": pl.Int64})
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda item: store.create(item[0], encode(frame, item[1], Codec())), chain))


def _measure(ledger: Ledger, count: int) -> None:
    began, cpu = time.perf_counter(), time.process_time()
    found, missing = gaps.find(ledger, DAY)
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert (found, missing) == (count, [])
    print(f"{count:,} objects: {wall:.1f} s, {cpu:.1f} CPU s, at most {peak:.0f} MB")


if __name__ == "__main__":
    main()
