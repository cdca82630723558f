"""pg_bronze without Dagster: recover, plan, read, encode, claim, put, in the order of a worker."""

import psycopg

from benchmarks.peers import protocol
from pg_bronze.settings.process import tune_process

tune_process()  # before Polars is imported, as in a run worker

from pg_bronze.lake import object_store, s3_client  # noqa: E402
from pg_bronze_tests.harness.lake import Lake  # noqa: E402


class Database:
    """The source database, as the lake of the tests wants it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.conninfo = psycopg.conninfo.conninfo_to_dict(url)


_lakes: dict[str, Lake] = {}


def copy(task: protocol.Task, table: str) -> None:
    """Copy the rows that no object has yet; the objects themselves are the state."""
    if task.prefix not in _lakes:
        client = s3_client.connect(task.endpoint, "us-east-1", task.access_key, task.secret_key)
        _lakes[task.prefix] = Lake(Database(task.url), object_store.Store(client, task.bucket, task.prefix))
    _lakes[task.prefix].tick(table)


if __name__ == "__main__":
    protocol.serve(copy)
