"""Objects as other readers see them: codecs, statistics and row groups, on every kind of S3 server."""

import io
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer

from pg_bronze.lake.parquet import ROW_GROUP_ROWS, Codec
from pg_bronze.lake.s3_client import connect
from pg_bronze_tests.harness.lake import MOVIE, SAME, Lake, fill
from pg_bronze_tests.harness.repetitions import combinations
from pg_bronze_tests.harness.servers import Bucket, new_bucket

CODECS = {
    "zstd": ("ZSTD", 7),
    "snappy": ("SNAPPY", None),
    "gzip": ("GZIP", 4),
    "lz4": ("LZ4", None),
    "uncompressed": ("UNCOMPRESSED", None),
}


@dataclass
class MotoServer:
    """A moto server in this process, with the attributes that ``new_bucket`` needs."""

    endpoint_url: str
    access_key: str = "moto-access-key"
    secret_key: str = "moto-secret-key"

    def create_bucket(self, name: str) -> None:
        connect(self.endpoint_url, "us-east-1", self.access_key, self.secret_key).create_bucket(Bucket=name)


@pytest.fixture(scope="module")
def moto() -> Iterator[MotoServer]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield MotoServer(f"http://{host}:{port}")
    server.stop()


SERVERS = ["seaweed", "minio", "moto"]


@pytest.fixture(params=SERVERS)
def every_bucket(request) -> Iterator[Bucket]:
    made = new_bucket(request.getfixturevalue(request.param))
    yield made
    made.remove()


def files(lake: Lake) -> list[pq.ParquetFile]:
    return [pq.ParquetFile(io.BytesIO(lake.store.get(key))) for key in lake.keys("movie")]


@pytest.mark.parametrize("codec, every_bucket", combinations(CODECS, SERVERS), indirect=["every_bucket"])
def test_pyarrow_reads_every_codec_from_every_server(codec, database, every_bucket):
    """The first object is written with a level, the second with the default of the codec."""
    name, level = CODECS[codec]
    database.execute(MOVIE)
    database.execute(fill(1, 300))
    lake = Lake(database, every_bucket.store())
    lake.tick(codec=Codec(codec, level))
    database.execute(f"update movie set title = 'again' where movie_id < 20; {fill(301, 310)}")
    lake.crash("put", codec=Codec(codec))
    lake.forget()
    lake.drain()

    assert lake.compare() == SAME
    objects = files(lake)
    assert [file.metadata.num_rows for file in objects] == [300, 29]
    assert {file.metadata.row_group(0).column(0).compression for file in objects} == {name}
    ids = [value for file in objects for value in file.read(["movie_id"])["movie_id"].to_pylist()]
    assert sorted(ids) == sorted([*range(1, 311), *range(1, 20)])


@pytest.mark.parametrize("codec, highest", [("zstd", 19), ("gzip", 9)])
def test_a_higher_level_produces_smaller_objects(codec, highest, database, bucket):
    database.execute("create table word (i int primary key, body text)")
    numbers = "(select string_agg((i * j)::text, ' ') from generate_series(1, 20) j)"
    database.execute(f"insert into word select i, {numbers} from generate_series(1, 5000) i")
    sizes = []
    for level in (1, highest):
        lake = Lake(database, bucket.store(f"level{level}"))
        lake.drain("word", codec=Codec(codec, level))
        sizes.append(len(lake.store.get(lake.keys("word")[0])))

    assert sizes[1] < 0.9 * sizes[0]


def test_every_column_of_every_row_group_has_statistics(database, bucket):
    """With statistics a reader skips the row groups of other days."""
    database.execute(
        """create table sale (id bigint, sold_on date, at timestamptz, price numeric(10,2), exact numeric,
             weight float8, name text, part uuid, paid bool, note text)"""
    )
    database.execute(
        f"""insert into sale
            select i, date '2026-01-01' + i / 500, '2026-01-01 00:00:00+00'::timestamptz + i * interval '1 s', i / 7.0,
              i / 3.0, i / 2.0, 'n' || i, gen_random_uuid(), i % 2 = 0, case when i % 3 = 0 then 'x' end
            from generate_series(1, {ROW_GROUP_ROWS * 2 + 5}) i"""
    )
    lake = Lake(database, bucket.store())
    lake.drain("sale")
    metadata = pq.ParquetFile(io.BytesIO(lake.store.get(lake.keys("sale")[0]))).metadata
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]

    assert max(group.num_rows for group in groups) <= ROW_GROUP_ROWS
    for group in groups:
        for number in range(group.num_columns):
            column = group.column(number)
            assert column.is_stats_set, column.path_in_schema
            assert column.statistics.has_min_max, column.path_in_schema
            assert column.statistics.has_null_count, column.path_in_schema


def test_a_selective_read_touches_one_row_group_of_a_table_written_in_order(database, bucket):
    database.execute("create table tick (id bigint, at timestamptz)")
    rows = ROW_GROUP_ROWS * 3
    database.execute(
        "insert into tick select i, '2026-01-01 00:00:00+00'::timestamptz + i * interval '1 s' "
        f"from generate_series(1, {rows}) i"
    )
    lake = Lake(database, bucket.store())
    lake.drain("tick")
    file = pq.ParquetFile(io.BytesIO(lake.store.get(lake.keys("tick")[0])))
    wanted = ROW_GROUP_ROWS + 100
    needed = [
        number
        for number in range(file.metadata.num_row_groups)
        if file.metadata.row_group(number).column(0).statistics.min <= wanted
        and file.metadata.row_group(number).column(0).statistics.max >= wanted
    ]

    assert len(needed) == 1
    rows = file.read_row_group(needed[0])
    assert rows.filter(pc.equal(rows["id"], wanted)).num_rows == 1
