"""dlt with the backend that the option names, and its own incremental loading."""

import os

os.environ["DATA_WRITER__COMPRESSION"] = "zstd"  # otherwise Snappy

import dlt
from dlt.destinations import filesystem
from dlt.sources.credentials import AwsCredentials
from dlt.sources.sql_database import sql_table

from benchmarks.peers import protocol


def copy(task: protocol.Task, table: str) -> None:
    """Copy the table, or its rows beyond the cursor."""
    credentials = AwsCredentials(
        aws_access_key_id=task.access_key, aws_secret_access_key=task.secret_key, endpoint_url=task.endpoint,
        region_name="us-east-1",
    )  # fmt: skip
    pipeline = dlt.pipeline(
        "peer", destination=filesystem(f"s3://{task.bucket}/{task.prefix}", credentials), dataset_name="rows",
        pipelines_dir=str(task.folder / "pipelines"),
    )  # fmt: skip
    source = sql_table(
        credentials=task.url.replace("postgresql://", "postgresql+psycopg2://"), table=table, backend=task.option,
        incremental=dlt.sources.incremental(task.cursor) if task.cursor else None,
    )  # fmt: skip
    pipeline.run(source, write_disposition="append", loader_file_format="parquet")


if __name__ == "__main__":
    protocol.serve(copy)
