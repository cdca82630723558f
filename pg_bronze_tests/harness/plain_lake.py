"""The lake beside its source: what the tests compare, read without any of the product's own code for reading."""

import io
from collections import Counter
from dataclasses import dataclass
from typing import Any

import polars as pl


def keys(bucket: Any, table: str, prefix: str = "") -> list[str]:
    """The table's data objects, oldest first."""
    return [item.key for item in bucket.store().list(f"{prefix}/{table}/".lstrip("/")) if item.key.endswith(".parquet")]


def read(bucket: Any, table: str, prefix: str = "") -> pl.DataFrame:
    """All rows of a table in the lake; an empty frame if there is no object."""
    store = bucket.store()
    frames = [pl.read_parquet(io.BytesIO(store.get(key) or b"")) for key in keys(bucket, table, prefix)]
    return pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame()


def ids(bucket: Any, table: str, column: str = "id") -> list[int]:
    """The values of one column, sorted, doubles and all."""
    frame = read(bucket, table)
    return sorted(frame[column].to_list()) if frame.width else []


@dataclass(frozen=True)
class Difference:
    """How lake and source differ: live rows that are missing, or older in the lake, and versions held twice."""

    lost: tuple[Any, ...] = ()
    stale: tuple[Any, ...] = ()
    doubled: tuple[Any, ...] = ()


SAME = Difference()


def compare(database: Any, bucket: Any, table: str, key: str = "id", prefix: str = "") -> Difference:
    """Compare every live row version with the lake, value by value. Call it when nothing writes any more."""
    with database.session() as connection:
        connection.execute("set timezone = 'UTC'")
        cursor = connection.execute(f"select t.xmin::text::bigint as _pg_xid, t.* from {table} t")
        names = [column.name for column in cursor.description or ()]
        live = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    frame = read(bucket, table, prefix)
    held = frame.to_dicts()
    low = 2**32  # xmin wraps around, _pg_xid does not
    versions = Counter((row[key], row["_pg_xid"] % low) for row in held)
    newest: dict[Any, dict[str, Any]] = {}
    for row in held:
        if row[key] not in newest or row["_pg_xid"] > newest[row[key]]["_pg_xid"]:
            newest[row[key]] = row
    lost = [row[key] for row in live if row[key] not in newest]
    stale = [
        row[key]
        for row in live
        if row[key] in newest
        and any(
            newest[row[key]][name] % low != row[name] if name == "_pg_xid" else newest[row[key]][name] != row[name]
            for name in names
        )
    ]
    return Difference(tuple(lost), tuple(stale), tuple(version for version, count in versions.items() if count > 1))
