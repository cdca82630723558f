"""What a tick copies from a real PostgreSQL into a real bucket: all rows once, then only new row versions."""

import io
import re
import threading
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from pg_bronze.core.table import quote
from pg_bronze.errors import SourceNotFit, TableChanged
from pg_bronze.postgres.connection import Source
from pg_bronze_tests.harness.lake import MOVIE, SAME, Lake, clock, crash_after, fill


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

    assert re.fullmatch(r"no new row up to transaction \d+", quiet.quiet)
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


@pytest.mark.parametrize("ties", [False, True], ids=["different values", "equal values"])
def test_nothing_is_lost_or_doubled_at_the_end_of_a_full_slice(movie, database, ties):
    """``order by col limit n`` would lose rows with equal values, and every NULL."""
    database.execute(fill(1, 25_000))
    if ties:
        database.execute("update movie set updated_at = case when movie_id % 5 = 0 then null else now() end")
        database.execute("vacuum movie")

    outcome = movie.tick(slice_rows=10_000)

    assert max(outcome.row_counts) <= 10_000
    assert sum(outcome.row_counts) == 25_000
    assert len([rows for rows in outcome.row_counts if rows]) >= 3
    assert movie.compare() == SAME
    assert movie.tick(slice_rows=10_000).quiet


@pytest.mark.parametrize("row_count", [999, 1_000, 1_001])
def test_a_window_of_exactly_the_row_limit_is_one_slice_and_one_row_more_is_several(movie, database, row_count):
    database.execute(fill(1, 10))
    movie.drain()
    database.execute(fill(11, 10 + row_count))

    outcome = movie.tick(slice_rows=1_000)

    assert sum(outcome.row_counts) == row_count
    assert max(outcome.row_counts) <= 1_000
    assert (len(outcome.committed) == 1) == (row_count <= 1_000)
    assert movie.compare() == SAME


def test_a_large_window_of_a_copied_table_is_divided(movie, database):
    """After an outage, a window contains as much as a first load."""
    database.execute(fill(1, 5_000))
    movie.drain()
    database.execute("update movie set title = title || '!' where movie_id % 2 = 0")
    database.execute(fill(5_001, 9_000))

    outcome = movie.tick(slice_rows=1_000)

    assert sum(outcome.row_counts) == 6_500
    assert max(outcome.row_counts) <= 1_000
    assert movie.compare() == SAME
    assert movie.tick(slice_rows=1_000).quiet


def test_rows_written_during_a_divided_window_belong_to_the_next_window(movie, database):
    """Copied with the remaining slices and with the next window, they would be doubled."""
    database.execute(fill(1, 5_000))
    written = []

    def write_rows(step: str) -> None:
        if step == "put":
            written.append(step)
            number = 10_000 + len(written)
            database.execute(
                f"{fill(number, number)}; update movie set title = 'again' where movie_id = {len(written)}"
            )

    movie.tick(slice_rows=1_000, crash_at=write_rows)
    assert max(movie.column()) == 5_000
    movie.drain(slice_rows=1_000)

    assert len(written) >= 5
    assert movie.compare() == SAME


@pytest.mark.slow
def test_slices_of_large_values_do_not_exceed_the_byte_limit(database, lake):
    """Values stored out of line do not count in the size of the table: two blocks may contain 200 rows of 1 MB.

    An average over the table does not show which blocks have such rows.
    """
    database.execute("create table movie (movie_id int primary key, filler text, poster text)")
    database.execute("alter table movie alter poster set storage external")
    # Wide rows, so that a block holds few of them; 1 MB each on top, out of line.
    database.execute(
        "insert into movie select i, repeat(md5(i::text), 50), "
        "(select string_agg(md5((i * 40000 + j)::text), '') from generate_series(1, 32768) j) "
        "from generate_series(1, 60) i"
    )
    database.execute("insert into movie select i, repeat(md5(i::text), 50) from generate_series(61, 1000) i")
    limit = 8 * 2**20

    outcome = lake.tick(slice_bytes=limit)

    assert sum(outcome.row_counts) == 1000
    for frame in lake.frames():
        size = frame["poster"].str.len_bytes().sum() + frame["filler"].str.len_bytes().sum()
        assert size <= limit
    assert len(outcome.committed) >= 8
    assert lake.compare() == SAME


def test_a_block_that_exceeds_the_byte_limit_is_divided(database, lake):
    """A block of 8 KB can point to gigabytes, which one read would need in memory."""
    database.execute("create table movie (movie_id int primary key, poster text)")
    database.execute("alter table movie alter poster set storage external")
    database.execute("insert into movie select i, repeat(md5(i::text), 4000) from generate_series(1, 40) i")

    outcome = lake.tick(slice_bytes=300_000)

    assert sum(outcome.row_counts) == 40
    assert max(outcome.row_counts) <= 2, "each row has 128 KB"
    assert lake.compare() == SAME


def test_the_rows_after_one_larger_than_a_slice_share_slices(database, lake):
    database.execute("create table movie (movie_id int primary key, poster text)")
    large = "case i when 50 then repeat('x', 400000) end"
    database.execute(f"insert into movie select i, {large} from generate_series(1, 100) i")

    outcome = lake.tick(slice_bytes=300_000)

    assert sum(outcome.row_counts) == 100
    assert len(outcome.committed) < 20
    assert lake.compare() == SAME


def test_a_crash_between_two_rows_of_a_block_loses_and_doubles_nothing(database, lake):
    """The watermark is inside the block, where vacuum frees line pointers and new rows use them."""
    database.execute("create table movie (movie_id int primary key, poster text)")
    database.execute("insert into movie select i, repeat('x', 100000) from generate_series(1, 20) i")
    for _ in range(3):
        assert lake.crash(crash_after("put", 2), slice_bytes=250_000)
        database.execute("delete from movie where movie_id in (select max(movie_id) from movie)")
        database.execute("vacuum movie")
        database.execute("insert into movie select max(movie_id) + 100, 'late' from movie")
    pending = [leaf.pending for footer in lake.footers() for leaf in footer.after.leaves.values() if leaf.pending]
    assert any(item.line for item in pending)

    lake.drain(slice_bytes=250_000)

    difference = lake.compare()
    assert (difference.lost, difference.stale, difference.wrong_latest) == (0, 0, 0)
    assert lake.rows().height == len(set(lake.rows().rows())), "no row twice"


def test_a_window_that_contains_too_much_for_one_slice_is_divided(movie, database):
    """Its size is known only during the read, because a window is read without measuring it first."""
    database.execute(fill(1, 3))
    movie.tick()
    database.execute("insert into movie select i, repeat('x', 100000) from generate_series(4, 23) i")

    outcome = movie.tick(slice_bytes=250_000)

    assert max(outcome.row_counts) <= 2
    assert movie.compare() == SAME


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


def test_a_row_that_commits_late_is_copied(movie, database):
    """A cursor would skip it forever: its id and time are below values that were copied."""
    database.execute(fill(3, 3))
    with database.connect(autocommit=False) as late:
        late.execute(fill(1, 1))
        database.execute(fill(2, 2))
        assert movie.tick().row_counts == [1]
        late.commit()

    movie.drain()

    assert movie.column() == [1, 2, 3]
    assert movie.compare() == SAME


def test_an_open_transaction_delays_only_rows_written_after_it(movie, database):
    """Rows written before it must not be delayed."""
    database.execute(fill(1, 3))
    with database.connect(autocommit=False) as late:
        late.execute(fill(4, 4))
        database.execute(fill(5, 5))

        assert movie.tick().row_counts == [3]
        assert movie.tick().quiet

        late.commit()
    assert movie.tick().row_counts == [2]
    assert movie.compare() == SAME


def test_an_open_transaction_on_an_idle_server_does_not_postpone_the_tick(movie, database):
    """Its write-ahead log is not flushed while it is idle, and a tick must not wait for that."""
    database.execute(fill(1, 3))
    with database.connect(autocommit=False) as late:
        for number in range(4, 7):
            late.execute(fill(number, number))
            movie.tick()

    movie.drain()

    assert movie.compare() == SAME


def test_rows_written_under_savepoints_are_copied(movie, database):
    """They have the id of the savepoint, which is above that of the transaction: a snapshot test would lose them."""
    database.execute(fill(11, 11))
    with database.connect(autocommit=False) as late:
        late.execute(fill(1, 1))
        with late.transaction():
            late.execute(fill(2, 2))
            with late.transaction():
                late.execute(fill(3, 3))
        database.execute(fill(10, 10))
        assert movie.tick().row_counts == [1]
        with late.transaction():
            late.execute(fill(4, 4))
            with late.transaction(force_rollback=True):
                late.execute(fill(5, 5))
        late.commit()

    movie.drain()

    assert movie.column() == [1, 2, 3, 4, 10, 11]
    assert movie.compare() == SAME


def test_rows_written_in_an_exception_block_are_copied(movie, database):
    """A block with an exception clause is a subtransaction, as is the retry of an ORM."""
    database.execute(
        """create procedure load(first int) language plpgsql as $$
        begin
          for i in first .. first + 4 loop
            begin
              insert into movie (movie_id) values (i);
              if i = first + 2 then
                raise exception 'not this one';
              end if;
            exception when raise_exception then
              null;
            end;
          end loop;
        end $$"""
    )
    database.execute(fill(20, 20))
    with database.connect(autocommit=False) as late:
        late.execute("call load(1)")
        database.execute("call load(10)")
        assert movie.tick().row_counts == [1]
        late.commit()

    movie.drain()

    assert movie.column() == [1, 2, 4, 5, 10, 11, 13, 14, 20]
    assert movie.compare() == SAME


def test_a_prepared_transaction_is_copied_after_its_commit(movie, database):
    """It has ended for its session, but not for the horizon. Skipped, its rows would be lost."""
    database.execute(fill(4, 4))
    with database.connect(autocommit=False) as late:
        late.execute(fill(1, 2))
        late.execute("prepare transaction 'copy_me'")
        late.rollback()
    database.execute(fill(3, 3))
    try:
        assert movie.tick().row_counts == [1]
        assert movie.tick().quiet
    finally:
        database.execute("commit prepared 'copy_me'")

    movie.drain()

    assert movie.column() == [1, 2, 3, 4]
    assert movie.compare() == SAME


def test_rolled_back_rows_are_not_copied(movie, database):
    """They write no object either, although a transaction id was used."""
    with database.connect(autocommit=False) as late:
        late.execute(fill(1, 2))
        movie.tick()
        late.rollback()
        assert movie.tick().quiet
        late.execute(fill(3, 3))
        late.commit()

    movie.drain()

    assert movie.column() == [3]


def test_an_update_that_does_not_change_the_cursor_column_is_copied(movie, database):
    database.execute(fill(1, 3))
    movie.drain()

    database.execute("update movie set title = 'corrected' where movie_id = 2")

    assert movie.tick().row_counts == [1]
    assert movie.compare() == SAME


def test_rows_with_an_old_or_null_cursor_value_are_copied(movie, database):
    database.execute(fill(1, 3))
    movie.drain()

    database.execute("insert into movie values (4, 'old', '1999-01-01', 1), (5, 'none', null, 1)")
    outcome = movie.tick()

    assert outcome.row_counts == [2]
    assert outcome.watermark.cursor > "2000"
    assert movie.compare() == SAME


def test_rows_after_an_infinite_cursor_value_are_copied(movie, database):
    """A cursor at infinity would never find another row."""
    database.execute(
        "insert into movie values (1, 'a', 'infinity', 1), (2, 'b', '-infinity', 1), (3, 'c', '2026-01-01', 1)"
    )
    first = movie.tick()
    database.execute(fill(4, 5))

    assert first.row_counts == [3]
    assert first.watermark.cursor.startswith("2026-01-01")
    assert movie.tick().row_counts == [2]
    assert movie.compare() == SAME


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
    movie.tick(now=clock(moment), dated=True)
    movie.forget()
    database.execute(fill(3, 3))
    movie.tick(now=clock(moment), dated=True)
    movie.forget()
    database.execute(fill(4, 4))
    movie.tick(now=clock(moment))

    assert movie.keys() == [
        "movie/movie_20260102235958.parquet",
        "movie/date=2026-01-02/movie_20260102235959.parquet",
        "movie/date=2026-01-03/movie_20260103000000.parquet",
        "movie/movie_20260103000001.parquet",
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


def test_a_column_added_between_ticks_is_in_the_next_object(movie, database):
    database.execute(fill(1, 2))
    movie.drain()
    database.execute("alter table movie add rating int default 5")
    database.execute("insert into movie values (3, 'c', now(), 1, 9)")

    assert movie.tick().row_counts == [1]

    assert movie.frames()[-1]["rating"].to_list() == [9]
    assert "rating" not in movie.frames()[0].columns


def test_columns_dropped_or_renamed_between_ticks_do_not_stop_the_table(movie, database):
    database.execute(fill(1, 2))
    movie.drain()
    database.execute("alter table movie drop price; alter table movie rename title to name")
    database.execute("insert into movie values (3, 'c', now())")

    assert movie.tick().row_counts == [1]

    assert movie.frames()[-1].columns == ["movie_id", "name", "updated_at", "_pg_xid"]


@pytest.mark.parametrize("when", ["between ticks", "during a tick"])
def test_dropping_the_cursor_column_loses_no_row(movie, database, when):
    """A poller by cursor column could not continue."""
    database.execute(fill(1, 5_000))

    def drop(step: str) -> None:
        if step == "put" and when == "during a tick":
            database.execute("alter table movie drop if exists updated_at")

    movie.tick(slice_rows=1_000, crash_at=drop)
    database.execute("alter table movie drop if exists updated_at")
    database.execute("insert into movie values (5001, 'c', 1)")

    movie.drain()

    assert movie.compare() == SAME


def test_a_type_change_that_rewrites_the_table_copies_every_row_again(movie, database):
    database.execute(fill(1, 5))
    movie.drain()
    database.execute("alter table movie alter price type text using 'EUR ' || price")

    assert movie.tick().row_counts == [5]

    assert movie.frames()[-1].sort("movie_id")["price"].to_list()[0] == "EUR 0.01"


def test_a_vacuum_full_between_ticks_doubles_nothing(movie, database):
    """It moves every row, which keeps its transaction id."""
    database.execute(fill(1, 500))
    movie.drain()
    database.execute("delete from movie where movie_id % 2 = 0")
    database.execute("vacuum full movie")
    database.execute(fill(1001, 1001))

    assert movie.tick().row_counts == [1]
    assert movie.compare() == SAME


@pytest.mark.parametrize(
    "change",
    [
        "alter table movie add rating int default 7",
        "alter table movie drop column price",
        "alter table movie rename column title to name",
        "alter table movie alter price type text",
        "alter table movie rename column title to name; alter table movie rename column name to title",
    ],
)
def test_a_table_altered_during_a_read_is_read_again(movie, database, change, monkeypatch):
    """Otherwise values could be stored under the names of other columns."""
    database.execute(fill(1, 5))
    original, left = Source.read, [change]

    def read_and_alter(self, query, label):
        frame = original(self, query, label)
        if left:
            database.execute(left.pop())
        return frame

    monkeypatch.setattr(Source, "read", read_and_alter)
    movie.tick()
    movie.drain()

    assert not left
    assert movie.compare() == SAME


def test_a_table_altered_during_every_read_is_retried_at_the_next_tick(movie, database, monkeypatch):
    database.execute(fill(1, 5))
    original = Source.read

    def read_and_alter(self, query, label):
        frame = original(self, query, label)
        database.execute("alter table movie rename title to name; alter table movie rename name to title")
        return frame

    monkeypatch.setattr(Source, "read", read_and_alter)
    with pytest.raises(TableChanged, match=r"movie: the table was altered during each of 3 reads\. It is retried"):
        movie.tick()
    monkeypatch.undo()

    movie.drain()

    assert movie.compare() == SAME


def test_a_table_dropped_between_slices_is_reported(movie, database):
    database.execute(fill(1, 5_000))

    def drop(step: str) -> None:
        if step == "put":
            database.execute("drop table if exists movie")

    with pytest.raises(TableChanged, match=r"movie: .*(does not exist any more|dropped)"):
        movie.tick(slice_rows=1_000, crash_at=drop)


@pytest.mark.parametrize("rewrite", ["vacuum full movie", "cluster movie using movie_pkey", "truncate movie"])
def test_a_table_rewritten_during_a_first_load_in_block_ranges_is_a_new_generation(movie, database, rewrite):
    """After a rewrite the rows are in other blocks, and would be skipped or doubled."""
    database.execute(fill(1, 5_000))
    database.execute("delete from movie where movie_id < 2000")
    movie.crash("unclaim", slice_rows=1_000)
    database.execute(rewrite)
    database.execute(fill(6_001, 6_010))

    outcomes = movie.drain(slice_rows=1_000)

    assert max(outcome.watermark.generation for outcome in outcomes if outcome.watermark) == 1
    assert "was rewritten while it was being read in block ranges" in movie.footers()[0].reason
    assert movie.compare() == SAME
    assert any(key.startswith("_pg_bronze/old/movie/gen=0/") for key in movie.all_keys())


def test_a_rewrite_between_the_block_ranges_of_a_tick_loses_and_doubles_nothing(movie, database):
    database.execute(fill(1, 5_000))
    database.execute("delete from movie where movie_id < 2000")
    done = threading.Event()

    def rewrite(step: str) -> None:
        if step == "put" and not done.is_set():
            done.set()
            database.execute("vacuum full movie")

    movie.tick(slice_rows=1_000, crash_at=rewrite)
    movie.drain(slice_rows=1_000)

    assert done.is_set()
    assert movie.compare() == SAME


def test_block_ranges_continued_after_a_crash_keep_their_horizon(movie, database):
    """Rows written in between would be copied with a later range, and again with the next window."""
    database.execute(fill(1, 5_000))
    movie.crash(crash_after("unclaim", 2), slice_rows=1_000)
    database.execute(f"{fill(5_001, 5_010)}; update movie set title = 'again' where movie_id in (1, 4000)")

    movie.drain(slice_rows=1_000)

    assert movie.compare() == SAME


def test_a_large_table_of_deleted_rows_is_copied_in_one_tick(movie, database):
    """If empty blocks were never committed, every tick would read them again."""
    with database.connect() as connection:
        connection.execute("alter table movie set (autovacuum_enabled = off)")
        connection.execute(fill(1, 60_000))
        connection.execute("delete from movie where movie_id > 10")

    outcome = movie.tick(slice_rows=1_000)

    assert outcome.row_count == 10
    assert not any(leaf.pending for leaf in outcome.watermark.leaves.values())
    assert movie.compare() == SAME
    assert movie.tick(slice_rows=1_000).quiet


def test_a_first_load_of_empty_blocks_ends(movie, database):
    with database.connect() as connection:
        connection.execute("alter table movie set (autovacuum_enabled = off)")
        connection.execute(fill(1, 20_000))
        connection.execute("delete from movie")

    movie.drain(slice_rows=1_000)
    watermark = movie.recorded["movie"]
    assert not any(leaf.pending for leaf in watermark.leaves.values())
    database.execute(fill(1, 3))
    movie.drain(slice_rows=1_000)

    assert movie.compare() == SAME


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
    original = Source.read

    def read(self, query, label):
        database.execute(enable)
        return original(self, query, label)

    monkeypatch.setattr(Source, "read", read)
    narrowed = Lake(database, movie.store)
    narrowed.source = lambda: type(movie.source())(  # the same server, as the role that the policy filters
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
    lake.source = lambda: type(Lake(database, lake.store).source())(
        {**database.conninfo, "user": "reader", "password": "reader"},
        database.url.replace(f"{server.user}:{server.password}", "reader:reader"),
        60,
    )

    lake.drain()

    assert lake.compare() == SAME


def test_slices_of_compressed_values_do_not_exceed_the_byte_limit(database, bucket):
    """A page contains a hundred such rows, so page counts suggest a small slice, and memory would run out."""
    database.execute("create table note (id int primary key, body text)")
    database.execute("insert into note select i, repeat('x', 8000) from generate_series(1, 4000) i")
    lake = Lake(database, bucket.store())

    lake.drain("note", slice_bytes=2 * 2**20)

    sizes = [frame.estimated_size() for frame in lake.frames("note")]
    assert max(sizes) <= 4 * 2**20
    assert lake.compare("note", "id") == SAME


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
