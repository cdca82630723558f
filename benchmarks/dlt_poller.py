"""Copies one table with dlt's incremental loading, again and again, until its standard input ends.

Runs in an environment of its own, made from requirements/peers-dlt.txt.

The database's URL is the first line of standard input, so that no process list shows it. After that line every further
one asks for a copy; the answer to each is the number of copies so far.
"""

import sys

import dlt
from dlt.sources.sql_database import sql_table


def main() -> None:
    folder, table, cursor = sys.argv[1:4]
    url = sys.stdin.readline().strip()
    pipeline = dlt.pipeline(
        "race", destination=dlt.destinations.filesystem(f"file://{folder}/lake"), dataset_name="race",
        pipelines_dir=f"{folder}/state",
    )  # fmt: skip
    for count, _ in enumerate(sys.stdin, 1):
        source = sql_table(credentials=url, table=table, incremental=dlt.sources.incremental(cursor), backend="pyarrow")
        pipeline.run(source, write_disposition="append", loader_file_format="parquet")
        print(count, flush=True)


if __name__ == "__main__":
    main()
