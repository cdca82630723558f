"""pandas with SQLAlchemy and psycopg2, as the original system: one frame, one file, one upload, `column > last`."""

import boto3
import pandas as pd
import sqlalchemy

from benchmarks.peers import protocol


def copy(task: protocol.Task, table: str) -> None:
    """Copy the table, or its rows beyond the cursor."""
    cursor, upper = protocol.Cursor(task, table), None
    engine = sqlalchemy.create_engine(task.url.replace("postgresql://", "postgresql+psycopg2://"))
    with engine.connect() as connection:
        if task.cursor:
            upper = connection.execute(sqlalchemy.text(cursor.highest(table))).scalar()
            if upper is None or upper == cursor.last:
                return
        frame = pd.read_sql(sqlalchemy.text(cursor.query(table, upper)), connection)
    engine.dispose()
    file = task.folder / f"{table}.parquet"
    frame.to_parquet(file, compression="zstd", index=False)
    client = boto3.client("s3", endpoint_url=task.endpoint, region_name="us-east-1")
    client.upload_file(str(file), task.bucket, task.key(table))
    file.unlink()
    cursor.advance(upper)


if __name__ == "__main__":
    protocol.serve(copy)
