"""DuckDB with its postgres and httpfs extensions, both from wheels. The cursor is hand-written."""

import importlib.metadata

import duckdb

from benchmarks.peers import protocol


def extension(name: str) -> str:
    """Return the path of an extension that a wheel installed."""
    files = importlib.metadata.distribution(f"duckdb-extension-{name}").files or []
    found = next(file for file in files if file.name.endswith(".duckdb_extension"))
    return str(found.locate())


def connect(task: protocol.Task) -> duckdb.DuckDBPyConnection:
    """Return a connection to which PostgreSQL is attached and that may write to the bucket."""
    connection = duckdb.connect(config={"allow_unsigned_extensions": "true", "autoinstall_known_extensions": "false"})
    for name in ("postgres-scanner", "httpfs"):
        connection.execute(f"load '{extension(name)}'")
    connection.execute(
        f"create secret (type s3, key_id '{task.access_key}', secret '{task.secret_key}', endpoint '{task.address}', "
        "region 'us-east-1', url_style 'path', use_ssl false)"
    )
    connection.execute(f"attach '{task.url}' as source (type postgres, read_only)")
    connection.execute("use source.public")
    return connection


def copy(task: protocol.Task, table: str) -> None:
    """Copy the table, or its rows beyond the cursor."""
    cursor, upper = protocol.Cursor(task, table), None
    with connect(task) as connection:
        if task.cursor:
            asked = cursor.highest(table).replace("'", "''")
            (upper,) = connection.execute(f"select * from postgres_query('source', '{asked}')").fetchone()
            if upper is None or upper == cursor.last:
                return
        query = cursor.query(table, upper)
        connection.execute(f"copy ({query}) to 's3://{task.bucket}/{task.key(table)}' (format parquet, codec zstd)")
    cursor.advance(upper)


if __name__ == "__main__":
    protocol.serve(copy)
