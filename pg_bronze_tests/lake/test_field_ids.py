"""Every Parquet column carries its attnum as field id, as other readers see it."""

import dataclasses
import io
from decimal import Decimal
from pathlib import Path

import duckdb
import polars as pl
import pyarrow.parquet as pq
import pytest

from pg_bronze.core.leaf import Leaf
from pg_bronze.core.watermark import Origin, Watermark
from pg_bronze.lake.footer import Footer
from pg_bronze.lake.keys import Layout
from pg_bronze.lake.parquet import HUGE_ROW_BYTES, ROW_GROUP_ROWS, XID_FIELD_ID, Codec, encode
from pg_bronze.lake.reading import latest_object, scan
from pg_bronze.settings.load import load_settings
from pg_bronze.sync.verify_day import verify_day
from pg_bronze_tests.harness.lake import Lake, clock

# One column for each stored type.
STORED = {
    "flag": ("bool", pl.Boolean()),
    "small": ("int2", pl.Int16()),
    "whole": ("int4", pl.Int32()),
    "large": ("int8", pl.Int64()),
    "number": ("oid", pl.UInt32()),
    "real": ("float4", pl.Float32()),
    "double": ("float8", pl.Float64()),
    "word": ("text", pl.String()),
    "bytes": ("bytea", pl.Binary()),
    "day": ("date", pl.Date()),
    "local_time": ("timestamp", pl.Datetime("us")),
    "moment": ("timestamptz", pl.Datetime("us", "UTC")),
    "price": ("numeric(10,2)", pl.Decimal(10, 2)),
    "precise": ("numeric(38,10)", pl.Decimal(38, 10)),
}
ROW = (
    "true, 1, 2, 3, 4, 1.5, 2.5, 'word', '\\x01', '2026-01-02', '2026-01-02 03:04:05', '2026-01-02 03:04:05+00', "
    "1.25, 2.5"
)


def pyarrow_ids(body: bytes) -> dict[str, int]:
    fields = pq.ParquetFile(io.BytesIO(body)).schema_arrow
    return {field.name: int((field.metadata or {}).get(b"PARQUET:field_id", -1)) for field in fields}


def duckdb_ids(body: bytes, folder: Path) -> dict[str, int]:
    file = folder / "object.parquet"
    file.write_bytes(body)
    query = f"select name, field_id from parquet_schema('{file}') where type is not null"
    return dict(duckdb.sql(query).fetchall())


def body_of(lake: Lake, number: int, table: str = "item") -> bytes:
    return lake.store.get(lake.keys(table)[number])


def test_every_stored_type_has_its_attnum_as_field_id_in_pyarrow_and_duckdb(database, bucket, tmp_path):
    columns = ", ".join(f"{name} {declared}" for name, (declared, _) in STORED.items())
    database.execute(f"create table item ({columns})")
    database.execute(f"insert into item values ({ROW})")
    database.execute("insert into item (flag) values (null)")
    lake = Lake(database, bucket.store())
    lake.tick("item")

    body = body_of(lake, 0)

    expected = {name: number for number, name in enumerate(STORED, start=1)} | {"_pg_xid": XID_FIELD_ID}
    assert pyarrow_ids(body) == expected
    assert duckdb_ids(body, tmp_path) == expected
    frame = pl.read_parquet(io.BytesIO(body))
    assert dict(frame.schema) == {name: dtype for name, (_, dtype) in STORED.items()} | {"_pg_xid": pl.Int64()}
    assert frame.drop("_pg_xid").null_count().row(0) == (1,) * len(STORED)
    assert frame.select("flag", "number", "word", "bytes", "precise").row(0) == (
        True,
        4,
        "word",
        b"\x01",
        Decimal("2.5"),
    )


def test_a_field_id_follows_its_column_through_rename_drop_and_add(database, bucket, tmp_path):
    """A reader that matches field ids would otherwise read one column's values under another's name."""
    lake = Lake(database, bucket.store())
    for statement in (
        "create table item (id int primary key, title text, price int); insert into item values (1, 'a', 5)",
        "alter table item rename title to name; insert into item values (2, 'b', 6)",
        "alter table item drop price; insert into item values (3, 'c')",
        "alter table item add price text; insert into item values (4, 'd', 'free')",
    ):
        database.execute(statement)
        lake.tick("item")

    found = [pyarrow_ids(body_of(lake, number)) for number in range(4)]

    assert found == [
        {"id": 1, "title": 2, "price": 3, "_pg_xid": XID_FIELD_ID},
        {"id": 1, "name": 2, "price": 3, "_pg_xid": XID_FIELD_ID},
        {"id": 1, "name": 2, "_pg_xid": XID_FIELD_ID},
        {"id": 1, "name": 2, "price": 4, "_pg_xid": XID_FIELD_ID},
    ]
    assert [duckdb_ids(body_of(lake, number), tmp_path) for number in range(4)] == found


def test_a_table_that_owns_the_name_pg_xid_keeps_both_ids(database, bucket):
    database.execute('create table item ("_pg_xid" int); insert into item values (7)')
    lake = Lake(database, bucket.store())
    lake.tick("item")

    assert pyarrow_ids(body_of(lake, 0)) == {"_pg_xid": 1, "_pg_xid_1": XID_FIELD_ID}


def test_a_table_without_columns_still_has_the_transaction_id(database, bucket):
    database.execute("create table item (); insert into item default values")
    lake = Lake(database, bucket.store())
    lake.tick("item")

    assert pyarrow_ids(body_of(lake, 0)) == {"_pg_xid": XID_FIELD_ID}


def test_a_repaired_object_has_the_field_ids_of_the_object_it_replaces(database, bucket):
    database.execute("create table item (id int primary key, title text); alter table item drop title, add price int")
    database.execute("insert into item values (1, 5)")
    lake = Lake(database, bucket.store())
    lake.tick("item", now=clock())
    database.execute("insert into item values (2, 6)")
    lake.tick("item", now=clock())
    first = lake.keys("item")[0]
    before = pyarrow_ids(body_of(lake, 0))
    lake.store.delete(first)

    with lake.source() as source:
        sync = lake.open(source, "item")
        report = verify_day(sync, lake.recorded["item"], sync.layout.day(first))

    assert report.repaired == (first,)
    assert pyarrow_ids(body_of(lake, 0)) == before == {"id": 1, "price": 3, "_pg_xid": XID_FIELD_ID}


def test_the_object_of_newest_versions_has_the_field_ids_of_all_columns_ever(database, bucket):
    lake = Lake(database, bucket.store())
    for statement in (
        "create table item (id int primary key, title text); insert into item values (1, 'a'), (2, 'b')",
        "alter table item drop title; alter table item add title int; insert into item values (3, 7)",
    ):
        database.execute(statement)
        lake.tick("item")
    connection = load_settings(bucket.environ, None, lake_only=True).s3
    layout = Layout("", "public", "item")
    versions = scan.frame(lake.store, layout, connection, "latest")

    assert latest_object.write(versions, lake.store, layout, connection) == 3

    found = pyarrow_ids(lake.store.get(layout.latest))
    assert found == {"id": 1, "title": 3, "title_2": 2, "_pg_xid": XID_FIELD_ID}
    assert latest_object.read(lake.store, layout, connection).collect().height == 3


BEFORE = Watermark(Origin("7", 1, "0/1", 5, "bronze"), 9).with_leaves({9: Leaf(50)})
FOOTER = Footer(
    "a1", BEFORE, dataclasses.replace(BEFORE, seq=1), None, 0, [{"attnum": 3, "name": "note"}], "_pg_xid", 180000
)


@pytest.mark.parametrize(
    "frame",
    [
        pl.DataFrame({"note": ["a", None], "_pg_xid": [5, 6]}),
        pl.DataFrame(schema={"note": pl.String, "_pg_xid": pl.Int64}),
        pl.DataFrame(schema={"_pg_xid": pl.Int64}),
        pl.DataFrame(),
        pl.DataFrame({"note": ["x"] * (ROW_GROUP_ROWS + 1), "_pg_xid": range(ROW_GROUP_ROWS + 1)}),
        pl.DataFrame({"note": ["x" * (HUGE_ROW_BYTES + 1)], "_pg_xid": [5]}),
    ],
    ids=["nulls", "no rows", "no source columns", "no columns", "two row groups", "a huge row"],
)
def test_field_ids_change_nothing_else_in_a_file(frame):
    body = encode(frame, FOOTER, Codec("zstd", 7))
    file = pq.ParquetFile(io.BytesIO(body))

    assert pl.read_parquet(io.BytesIO(body)).equals(frame)
    assert pyarrow_ids(body) == {name: {"note": 3, "_pg_xid": XID_FIELD_ID}[name] for name in frame.columns}
    assert Footer.from_text(file.metadata.metadata[b"pg_bronze"], "") == FOOTER
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    assert [group.num_rows for group in groups] in ([], [frame.height], [ROW_GROUP_ROWS, 1])
    huge = frame.estimated_size() > HUGE_ROW_BYTES * max(1, frame.height)
    for column in (group.column(number) for group in groups for number in range(group.num_columns)):
        assert column.compression == "ZSTD"
        assert (column.statistics.has_min_max, column.statistics.has_null_count) == (not huge, True)
