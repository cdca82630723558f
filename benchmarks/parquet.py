"""Codecs and row groups of one full slice: its size, what writing it costs, and what a selective read of it costs.

    python -m benchmarks.parquet --rows 400000 --rounds 5

The table looks like an order line: ids, money, times, words and a text. Times are medians over rounds whose order is
shuffled, and ratios to the first line.
"""

import argparse
import io
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import duckdb
import polars as pl
import pyarrow.parquet as pq

START = datetime(2026, 1, 1, tzinfo=UTC)
CODECS = [
    ("zstd", None),
    ("zstd", 1),
    ("zstd", 9),
    ("snappy", None),
    ("gzip", None),
    ("lz4", None),
    ("uncompressed", None),
]
GROUPS = [None, 262_144, 131_072, 65_536, 32_768, 8_192]


def table(rows: int, seed: int = 1) -> pl.DataFrame:
    """Rows as a first load reads them: in the order in which they were written, a twentieth of them updated later."""
    chance = random.Random(seed)
    words = ["shipped", "returned", "paid", "open", "cancelled"]
    moved = [chance.random() < 0.05 for _ in range(rows)]
    return pl.DataFrame(
        {
            "id": range(rows),
            "customer": [chance.randrange(rows // 10 + 1) for _ in range(rows)],
            "price": [Decimal(chance.randrange(10**7)) / 100 for _ in range(rows)],
            "status": [chance.choice(words) for _ in range(rows)],
            "note": [f"{chance.getrandbits(64):x} {chance.choice(words)}" for _ in range(rows)],
            "created_at": [START + timedelta(seconds=n) for n in range(rows)],
            "_pg_xid": [1000 + n // 7 if not late else 10**6 + n for n, late in enumerate(moved)],
        },
        schema_overrides={"price": pl.Decimal(12, 2), "created_at": pl.Datetime("us", "UTC")},
    )


def measure(frame: pl.DataFrame, file: Path, codec: str, level: int | None, group: int | None) -> dict[str, float]:
    """Seconds and bytes of one way to write the frame."""
    began = time.perf_counter()
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression=codec, compression_level=level, statistics=True, row_group_size=group)
    written = time.perf_counter() - began
    file.write_bytes(buffer.getbuffer())
    low, high = START + timedelta(seconds=frame.height // 2), START + timedelta(seconds=frame.height // 2 + 500)
    began = time.perf_counter()
    found = pl.scan_parquet(file).filter(pl.col("created_at").is_between(low, high)).collect()
    polars_s = time.perf_counter() - began
    began = time.perf_counter()
    query = f"select * from '{file}' where created_at between '{low}' and '{high}'"
    with duckdb.connect() as connection:
        rows = connection.execute(query).to_arrow_table().num_rows
    duck_s = time.perf_counter() - began
    assert found.height == rows == 501, (found.height, rows)
    began = time.perf_counter()
    pl.read_parquet(file)
    return {
        "bytes": file.stat().st_size,
        "groups": pq.ParquetFile(file).num_row_groups,
        "write": written,
        "some, Polars": polars_s,
        "some, DuckDB": duck_s,
        "all, Polars": time.perf_counter() - began,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    frame = table(given.rows)
    ways = [(codec, level, None) for codec, level in CODECS] + [("zstd", None, group) for group in GROUPS[1:]]
    found: dict[tuple, list[dict[str, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(given.rounds + 1):
            for way in random.Random(number).sample(ways, len(ways)):
                measured = measure(frame, Path(folder) / "slice.parquet", *way)
                if number:  # the first round warms up
                    found[way].append(measured)
    print(f"{frame.height} rows, {frame.estimated_size('mb'):.0f} MB in memory; ms, and ratios to the first line")
    first: dict[str, float] = {}
    for way in ways:
        median = {name: statistics.median(item[name] for item in found[way]) for name in found[way][0]}
        first = first or median
        shown = "  ".join(
            f"{name} {median[name] * 1000:6.1f} ({median[name] / first[name]:4.2f})"
            for name in ("write", "some, Polars", "some, DuckDB", "all, Polars")
        )
        codec, level, group = way
        name = f"{codec}{'' if level is None else f' {level}'}, {'as it comes' if group is None else group}"
        print(f"{name:24} {median['bytes'] / 2**20:6.2f} MB in {median['groups']:3.0f} groups  {shown}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
