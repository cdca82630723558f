"""How long it takes to read a table of many small objects: 8,640 are a day of one every ten seconds.

    .venv/bin/python -m benchmarks.read [--objects 8640] [--rounds 5] [--server seaweed|minio] [--rows 50]

Fills a bucket through the product's own footers and encoder, without PostgreSQL. Then, in seconds, medians of the
rounds, on each server in turn:

    scan      pg_bronze.scan("movie"): the LIST and the footers it needs. Has to be at most 2 s.
    collect   everything of it, beside a plain pl.scan_parquet("…/*.parquet").collect(), and the ratio of the two
    latest    versions="latest", and what sort("_pg_xid").unique("movie_id", keep="last") takes over the plain scan
    drifted   scan again, after a column was renamed and another one added halfway

The peak of resident memory is the process's after each step; Polars keeps what it has once taken for a while.
"""

import argparse
import dataclasses
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

import pg_bronze
from pg_bronze.core import column_types, drift
from pg_bronze.core.drift import Description
from pg_bronze.core.leaf import Leaf
from pg_bronze.core.region import Region
from pg_bronze.core.table import Column, SourceTable
from pg_bronze.core.watermark import Origin, Watermark
from pg_bronze.demo.s3 import MinioServer, SeaweedServer
from pg_bronze.lake import s3_client
from pg_bronze.lake.claim import Claim
from pg_bronze.lake.footer import footer_of
from pg_bronze.lake.keys import Layout
from pg_bronze.lake.object_store import Store
from pg_bronze.lake.parquet import Codec, encode
from pg_bronze.lake.reading import scan
from pg_bronze.settings.load import load_settings

ROOT = Path(__file__).parents[1]
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
FILMS = 20_000
COLUMNS = (
    Column(1, "movie_id", "bigint", "int8", -1, True),
    Column(2, "title", "text", "text", -1, True),
    Column(3, "price", "numeric(10,2)", "numeric", (10 << 16 | 2) + 4, False),
    Column(4, "updated_at", "timestamp with time zone", "timestamptz", -1, False),
    Column(5, "votes", "integer", "int4", -1, False),
)
ALTERED = (
    *COLUMNS[:4],
    dataclasses.replace(COLUMNS[4], name="vote_count"),
    Column(6, "rating", "double precision", "float8", -1, False, missing="5"),
)


def described(columns: Sequence[Column]) -> Description:
    table = SourceTable(1, "public", "movie", False, None, tuple(columns), ("movie_id",), (), 0, None, "")
    return drift.describe_table(table)


def rows(number: int, count: int, columns: Sequence[Column]) -> pl.DataFrame:
    """Every film comes again after a few hundred slices."""
    films = [(number * 37 + index * 11) % FILMS for index in range(count)]
    values = {
        1: films,
        2: [f"film {film}" for film in films],
        3: [film / 100 for film in films],
        4: [BEGIN + timedelta(seconds=10 * number)] * count,
        5: films,
        6: [film / 7 for film in films],
    }
    data = {column.name: values[column.attnum] for column in columns}
    data["_pg_xid"] = [1000 + number * 10 + index % 10 for index in range(count)]
    return pl.DataFrame(data, schema=column_types.empty_slice(columns).schema, strict=False)


def fill(store: Store, count: int, row_count: int, altered_at: int) -> None:
    """Write the objects of a table that was altered before object number ``altered_at``."""
    layout = Layout("", "public", "movie")
    watermark = Watermark(Origin("1", 1, "0/1", 5, store.place), 100, leaves={100: Leaf(1000)})
    kinds = [(COLUMNS, described(COLUMNS)), (ALTERED, described(ALTERED))]
    work = []
    for number in range(count):
        columns, description = kinds[number >= altered_at]
        after = dataclasses.replace(
            watermark,
            seq=number + 1,
            key=layout.key(BEGIN + timedelta(seconds=10 * number)),
            leaves={100: Leaf(1010 + number * 10)},
        ).with_columns(description.digest, watermark)
        region = Region("public", "movie", True, (100,), 1000 + number * 10, 1010 + number * 10)
        work.append((number, Claim("benchmark", watermark, after, region, {100: 1}), columns, description))
        watermark = after

    def put(item: tuple[int, Claim, Sequence[Column], Description]) -> None:
        number, claim, columns, description = item
        frame = rows(number, row_count, columns)
        store.create(claim.after.key, encode(frame, footer_of(claim, frame.height, description, 180000, {}), Codec()))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, work))


def settings(server: Any, bucket: str) -> Any:
    variables = {
        "MINIO_ENDPOINT": server.endpoint_url,
        "MINIO_ACCESS_KEY": server.access_key,
        "MINIO_SECRET_KEY": server.secret_key,
        "MINIO_BUCKET": bucket,
    }
    return load_settings(variables, None, lake_only=True)


def measure(rounds: int, steps: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Medians; the steps of a round one after the other, so that a busy moment of the machine meets all of them."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            begun = time.perf_counter()
            step()
            taken[name].append(time.perf_counter() - begun)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def benchmark(server: Any, count: int, row_count: int, rounds: int) -> None:
    buckets = {"even": count, "drifted": count // 2}
    for bucket, altered_at in buckets.items():
        server.create_bucket(bucket)
        given = settings(server, bucket)
        begun = time.perf_counter()
        fill(Store(s3_client.connect_to(given.s3), bucket), count, row_count, altered_at)
        print(f"  filled bucket {bucket} in {time.perf_counter() - begun:.0f} s", flush=True)
    even, drifted = (settings(server, bucket) for bucket in buckets)
    plain = pl.scan_parquet("s3://even/movie/*.parquet", **scan.storage(even.s3))
    frame = pg_bronze.scan("movie", settings=even)
    assert frame.collect().sort("_pg_xid", "movie_id").equals(plain.collect().sort("_pg_xid", "movie_id"))
    newest = pg_bronze.scan("movie", versions="latest", settings=even)
    print(f"  {'peak so far':24}{peak_mb():8} MB")
    steps = {
        "scan": lambda: pg_bronze.scan("movie", settings=even),
        "scan, drifted": lambda: pg_bronze.scan("movie", settings=drifted),
        "collect": frame.collect,
        "collect, drifted": pg_bronze.scan("movie", settings=drifted).collect,
        "collect, plain": plain.collect,
        "latest": newest.collect,
        "latest, plain": plain.sort("_pg_xid").unique("movie_id", keep="last").collect,
    }
    found = measure(rounds, steps)
    for name, seconds in found.items():
        print(f"  {name:24}{seconds:8.2f} s")
    print(f"  collect / plain         {found['collect'] / found['collect, plain']:8.2f}")
    print(f"  latest / plain          {found['latest'] / found['latest, plain']:8.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=8640)
    parser.add_argument("--rows", type=int, default=50, help="rows in each object")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--server", choices=["seaweed", "minio"], action="append")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pg-bronze-read-") as folder:
        kinds = {
            "seaweed": SeaweedServer(Path(folder, "seaweed")),
            "minio": MinioServer(Path(folder, "minio"), binary=ROOT / ".cache/minio/minio"),
        }
        for name in given.server or kinds:
            with kinds[name] as server:
                print(f"{server.name}, {given.objects} objects of {given.rows} rows, medians of {given.rounds}:")
                benchmark(server, given.objects, given.rows, given.rounds)


if __name__ == "__main__":
    main()
