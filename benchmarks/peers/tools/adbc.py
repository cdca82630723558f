"""ADBC with pyarrow: record batches from PostgreSQL's COPY, written as they arrive. The cursor is hand-written."""

import adbc_driver_postgresql.dbapi
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from benchmarks.peers import protocol


def stored(schema: pa.Schema) -> pa.Schema:
    """Return the schema with the storage type of each type that Parquet does not know, such as that of numeric."""
    return pa.schema(
        field.with_type(field.type.storage_type) if isinstance(field.type, pa.OpaqueType) else field for field in schema
    )


def copy(task: protocol.Task, table: str) -> None:
    """Copy the table, or its rows beyond the cursor."""
    cursor, upper = protocol.Cursor(task, table), None
    with adbc_driver_postgresql.dbapi.connect(task.url) as connection, connection.cursor() as reading:
        if task.cursor:
            reading.execute(cursor.highest(table))
            (upper,) = reading.fetchone()
            if upper is None or upper == cursor.last:
                return
        reading.execute(cursor.query(table, upper))
        write(task, table, reading.fetch_record_batch())
    cursor.advance(upper)


def write(task: protocol.Task, table: str, batches: pa.RecordBatchReader) -> None:
    """Write the batches to one object."""
    schema = stored(batches.schema)
    store = pyarrow.fs.S3FileSystem(
        access_key=task.access_key, secret_key=task.secret_key, endpoint_override=task.address, scheme="http",
        region="us-east-1",
    )  # fmt: skip
    place = f"{task.bucket}/{task.key(table)}"
    with store.open_output_stream(place) as stream, pq.ParquetWriter(stream, schema, compression="zstd") as writer:
        for batch in batches:
            columns = [column.storage if isinstance(column.type, pa.OpaqueType) else column for column in batch.columns]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))


if __name__ == "__main__":
    protocol.serve(copy)
