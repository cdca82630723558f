"""What a tick copies from a real PostgreSQL into a real bucket: all rows once, then only new row versions."""

import io
import re
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from pg_bronze.core.table import quote
from pg_bronze.errors import SourceNotFit
from pg_bronze.postgres.connection import Source
from pg_bronze_tests.harness.lake import MOVIE, SAME, Lake, clock, fill
from pg_bronze_tests.harness.repetitions import on_seaweed_alone


@pytest.fixture
def lake(database, bucket) -> Lake:
    return Lake(database, bucket.store())


@pytest.fixture
def movie(database, lake) -> Lake:
    database.execute(MOVIE)
    return lake


def test_the_first_load_copies_all_rows_and_later_ticks_only_new_ones(database, any_bucket):
    lake = Lake(database, any_bucket.store())
    database.execute(MOVIE)
    database.execute(fill(1, 300))

    first = lake.tick()
    database.execute(fill(301, 320))
    second = lake.tick()

    assert first.row_counts == [300]
    assert second.row_counts == [20]
    assert lake.compare() == SAME


def test_a_quiet_table_is_reported_and_writes_nothing(movie, database):
    database.execute(fill(1, 5))
    movie.drain()
    before = movie.all_keys()

    quiet = movie.tick()

    assert re.match(r"no new row up to transaction \d+", quiet.quiet)
    assert movie.all_keys() == before


def test_transactions_of_other_tables_write_no_object_for_a_quiet_one(movie, database):
    """Otherwise every tick of a busy database would write an object for each quiet table."""
    database.execute(fill(1, 5))
    movie.drain()
    database.execute("create table other (id int); insert into other values (1)")

    assert movie.tick().quiet
    assert len(movie.keys()) == 1


def test_an_empty_table_has_no_object_until_it_has_a_row(movie, database):
    assert movie.tick().quiet
    assert movie.all_keys() == []

    database.execute(fill(1, 1))

    assert movie.tick().row_counts == [1]


WIDEST = f"create table movie ({', '.join(f'c{n} int' for n in range(1600))})"


@pytest.mark.parametrize(
    "statements, rows",
    [
        (["create table movie ()", *["insert into movie default values"] * 3], 3),
        (["create table movie ()"], 0),
        (["create table movie (movie_id int)"], 0),
        ([WIDEST, "insert into movie default values"], 1),
    ],
    ids=["no column", "no column and no row", "no row", "1,600 columns"],
)
def test_a_table_with_any_number_of_columns_and_rows_is_copied(database, lake, statements, rows):
    for statement in statements:
        database.execute(statement)

    outcome = lake.tick()

    assert outcome.row_count == rows
    assert lake.rows().height == rows
    assert not rows or lake.rows()["_pg_xid"].null_count() == 0


def test_a_table_without_a_cursor_column_is_copied(database, lake):
    database.execute("create table note (words text)")
    database.execute("insert into note values ('a'), ('a'), (null)")

    lake.tick("note")
    database.execute("insert into note values ('a'); update note set words = 'b' where words is null")
    lake.drain("note")

    assert lake.column("words", "note") == ["a", "a", "a", "b", None]
    assert lake.compare("note", key=None) == SAME


def test_the_highest_xid_of_a_key_is_the_live_row(movie, database):
    database.execute(fill(1, 20))
    for turn in range(5):
        database.execute(f"update movie set price = {turn} where movie_id % {turn + 1} = 0")
        movie.tick()

    latest = movie.rows().sort("_pg_xid").group_by("movie_id").last().sort("movie_id")

    live = database.execute("select movie_id, price from movie order by 1")
    assert list(zip(latest["movie_id"], latest["price"], strict=True)) == live
    assert movie.rows()["_pg_xid"].dtype == pl.Int64


def test_keys_contain_the_second_in_utc_and_strictly_increase(movie, database):
    """Two slices of one second must not have the same key, and a listing must be in the order of copying."""
    local = datetime.fromisoformat("2026-01-02T03:00:10.9+03:00")
    database.execute(fill(1, 3_000))

    movie.tick(slice_rows=1_000, now=lambda: local)
    database.execute(fill(3_001, 3_001))
    movie.tick(now=lambda: local - timedelta(hours=1))  # a clock set back

    keys = movie.keys()
    assert keys[0] == "movie/movie_20260102000010.parquet"
    assert len(keys) >= 4
    assert keys == [f"movie/movie_{20260102000010 + number}.parquet" for number in range(len(keys))]
    assert movie.compare() == SAME


def test_objects_in_date_folders_and_flat_objects_continue_each_other(movie, database):
    """After a change of the layout, the table must not be copied again."""
    moment = datetime(2026, 1, 2, 23, 59, 58, tzinfo=UTC)
    database.execute(fill(1, 1))
    movie.tick(now=clock(moment))
    database.execute(fill(2, 2))
    movie.tick(now=clock(moment), dated=True)  # announces the layout of the next object
    movie.forget()
    database.execute(fill(3, 3))
    movie.tick(now=clock(moment), dated=True)
    movie.forget()
    for number in (4, 5):
        database.execute(fill(number, number))
        movie.tick(now=clock(moment))

    assert movie.keys() == [
        "movie/movie_20260102235958.parquet",
        "movie/movie_20260102235959.parquet",
        "movie/date=2026-01-03/movie_20260103000000.parquet",
        "movie/date=2026-01-03/movie_20260103000001.parquet",
        "movie/movie_20260103000002.parquet",
    ]
    assert movie.compare() == SAME


def test_objects_are_zstd_unless_another_codec_is_set(movie, database):
    pq = pytest.importorskip("pyarrow.parquet")
    database.execute(fill(1, 50))
    movie.tick()

    metadata = pq.read_metadata(io.BytesIO(movie.store.get(movie.keys()[0])))

    assert {metadata.row_group(0).column(n).compression for n in range(metadata.num_columns)} == {"ZSTD"}


def test_two_databases_share_a_bucket_under_prefixes(database, bucket, postgres_server):
    database.execute(MOVIE)
    database.execute(fill(1, 3))
    here, there = Lake(database, bucket.store("one")), Lake(database, bucket.store("two/deep"))

    here.tick()
    database.execute(fill(4, 4))
    there.tick()
    here.tick()

    assert here.compare() == there.compare() == SAME
    assert len(here.keys()) == 2
    assert {key.split("/movie")[0] for key in here.all_keys()} == {"one", "two/deep"}


def test_tables_with_the_same_name_in_two_schemas_have_different_folders(database, lake):
    database.execute("create schema sales")
    database.execute("create table public.movie (movie_id int); create table sales.movie (movie_id int)")
    database.execute("insert into public.movie values (1); insert into sales.movie values (2), (3)")

    lake.tick("movie")
    lake.tick("sales:movie")

    assert lake.keys("movie")[0].startswith("movie/movie_2")
    assert lake.keys("sales:movie")[0].startswith("sales.movie/sales.movie_2")
    assert lake.compare("movie") == lake.compare("sales:movie") == SAME


ODD_NAMES = [
    "Movie",
    "two words",
    'say "hi"',
    "sales.movie",
    "a/b",
    "a%2Fb",
    "100%",
    "%2F",
    "größe 日本",
    "_pg_bronze",
    "..",
    "it's",
]


@on_seaweed_alone()
def test_tables_of_any_name_are_copied_and_found(database, any_bucket):
    """Two tables in one folder would adopt each other's objects."""
    lake = Lake(database, any_bucket.store())
    for number, name in enumerate(ODD_NAMES):
        table = quote(name)
        database.execute(
            f"create table {table} (movie_id int primary key); insert into {table} values ({number}), (100)"
        )
        lake.tick(name)
        database.execute(f"insert into {table} values (200)")
        lake.forget(name)
        lake.tick(name)

    for name in ODD_NAMES:
        assert len(lake.keys(name)) == 2
        assert lake.compare(name) == SAME
    assert len({key.split("/")[0] for key in lake.all_keys()}) == len(ODD_NAMES)


def test_deleted_rows_remain_in_the_lake_and_their_keys_can_be_used_again(movie, database):
    database.execute(fill(1, 3))
    movie.drain()
    database.execute("delete from movie where movie_id = 2")
    movie.drain()
    assert movie.column() == [1, 2, 3]

    database.execute("insert into movie values (2, 'again', now(), 1)")
    movie.drain()

    assert movie.column() == [1, 2, 2, 3]
    assert movie.compare() == SAME


@pytest.mark.parametrize(
    "when, message",
    [("in the catalog", "has row-level security"), ("after the catalog", "a row security policy would hide rows")],
)
def test_a_row_security_policy_stops_the_table(movie, database, postgres_server, monkeypatch, when, message):
    """A policy hides rows silently, and the lake would seem complete."""
    database.execute(fill(1, 4))
    database.execute(
        "do $$ begin create role filtered login password 'filtered'; exception when duplicate_object then null; end $$;"
        "grant select on movie to filtered; create policy half on movie using (movie_id % 2 = 0)"
    )
    enable = "alter table movie enable row level security"
    if when == "in the catalog":
        database.execute(enable)
    original = Source.read_sent

    def read(self, query, label):
        database.execute(enable)
        return original(self, query, label)

    monkeypatch.setattr(Source, "read_sent", read)
    narrowed = Lake(database, movie.store)
    narrowed.source = lambda: Source(  # the same server, as the role that the policy filters
        {**database.conninfo, "user": "filtered", "password": "filtered"},
        database.url.replace(f"{postgres_server.user}:{postgres_server.password}", "filtered:filtered"),
        60,
    )

    with pytest.raises(SourceNotFit, match=f"^movie.* {message}"):
        narrowed.tick()

    assert movie.all_keys() == []


def test_a_role_that_can_only_read_is_enough(database, lake):
    """pg_bronze promises that `SELECT` is enough."""
    database.execute(MOVIE)
    database.execute(fill(1, 10))
    database.execute(
        "do $$ begin create role reader login password 'reader'; exception when duplicate_object then null; end $$;"
        "alter role reader set default_transaction_read_only = on; grant select on movie to reader"
    )
    server = database.server
    lake.source = lambda: Source(
        {**database.conninfo, "user": "reader", "password": "reader"},
        database.url.replace(f"{server.user}:{server.password}", "reader:reader"),
        60,
    )

    lake.drain()

    assert lake.compare() == SAME


def test_an_idle_server_that_switched_its_log_file_does_not_delay_a_tick(movie, database):
    """``archive_timeout`` causes the switch on an idle primary. The log then ends in a page with only a header.

    The role may not write the empty message that would flush the log.
    """
    role = f"idle_{database.name}"
    messages = "select oid::regprocedure::text from pg_proc where proname = 'pg_logical_emit_message'"
    for (function,) in database.execute(messages):
        database.execute(f"revoke execute on function {function} from public")
    database.execute(f"create role {role} login password 'idle'; grant select on movie to {role}")
    login = database.url.replace(f"{database.server.user}:{database.server.password}", f"{role}:idle")
    movie.source = lambda: Source({**database.conninfo, "user": role, "password": "idle"}, login, 60)
    try:
        movie.drain(patience=10)  # hint bits of these reads are in the log, which is not flushed at once
        for number in range(6, 9):
            database.execute(fill(number, number))
            database.execute("select pg_switch_wal()")

            assert movie.tick().row_count == 1
            assert movie.tick().quiet
    finally:
        database.execute(f"drop owned by {role}; drop role {role}")


def test_a_large_insert_into_a_small_table_makes_few_objects(database, bucket):
    """By the statistics of before, a row is as long as a block: 800,000 rows became 240 objects of 0.16 MB."""
    database.execute("create table movie (movie_id int primary key); insert into movie values (1); analyze movie")
    lake = Lake(database, bucket.store())
    lake.drain()
    before = len(lake.keys())
    database.execute("insert into movie select generate_series(2, 80000)")

    lake.drain(slice_bytes=2**20)

    assert lake.compare() == SAME
    assert len(lake.keys()) - before <= 12
