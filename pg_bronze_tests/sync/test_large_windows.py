"""Windows that are too large for one slice: they are divided into block ranges, within limits of rows and bytes."""

import threading

import pytest

from pg_bronze_tests.harness.lake import MOVIE, SAME, Lake, crash_after, fill


@pytest.fixture
def lake(database, bucket) -> Lake:
    return Lake(database, bucket.store())


@pytest.fixture
def movie(database, lake) -> Lake:
    database.execute(MOVIE)
    return lake


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


@pytest.mark.parametrize("turn_s", [None, 0.0])
def test_a_first_load_takes_one_run_or_a_slice_in_each_and_delivers_the_same(movie, database, turn_s):
    """A run of its own for each large table would otherwise occupy its slot for hours."""
    database.execute(fill(1, 5_000))

    ticks = [movie.tick(slice_rows=1_000, turn_s=turn_s).row_counts]
    database.execute("update movie set title = 'changed' where movie_id % 1000 = 0")
    while rows := movie.tick(slice_rows=1_000, turn_s=turn_s).row_counts:
        ticks.append(rows)

    loads = ticks[:-1]  # the last one copies the update
    assert all(len(rows) == 1 for rows in loads) == (turn_s is not None)
    assert (len(loads) > 4) == (turn_s is not None)
    assert movie.compare() == SAME


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
    pending = [leaf.sweep for footer in lake.footers() for leaf in footer.after.leaves.values() if leaf.sweep]
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


@pytest.mark.parametrize("rewrite", ["vacuum full movie", "cluster movie using movie_pkey"])
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


@pytest.mark.parametrize("rewrite", ["truncate movie", "alter table movie alter movie_id type bigint"])
def test_a_rewrite_that_gives_every_row_a_new_transaction_continues_a_first_load(movie, database, rewrite):
    """No row of the new file can have been copied."""
    database.execute(fill(1, 5_000))
    movie.crash("unclaim", slice_rows=1_000)
    database.execute(rewrite)
    database.execute(fill(6_001, 6_010))

    movie.drain(slice_rows=1_000)

    assert movie.recorded["movie"].generation == 0
    assert [f.reason for f in movie.footers() if f.reason] == [
        "movie was rewritten while it was being read in block ranges; all its rows are newer, so the copy continues"
    ]
    assert movie.compare() == SAME


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
    assert not any(leaf.sweep for leaf in outcome.watermark.leaves.values())
    assert movie.compare() == SAME
    assert movie.tick(slice_rows=1_000).quiet


def test_a_first_load_of_empty_blocks_ends(movie, database):
    with database.connect() as connection:
        connection.execute("alter table movie set (autovacuum_enabled = off)")
        connection.execute(fill(1, 20_000))
        connection.execute("delete from movie")

    movie.drain(slice_rows=1_000)
    watermark = movie.recorded["movie"]
    assert not any(leaf.sweep for leaf in watermark.leaves.values())
    database.execute(fill(1, 3))
    movie.drain(slice_rows=1_000)

    assert movie.compare() == SAME


def test_slices_of_compressed_values_do_not_exceed_the_byte_limit(database, bucket):
    """A page contains a hundred such rows, so page counts suggest a small slice, and memory would run out."""
    database.execute("create table note (id int primary key, body text)")
    database.execute("insert into note select i, repeat('x', 8000) from generate_series(1, 4000) i")
    lake = Lake(database, bucket.store())

    lake.drain("note", slice_bytes=2 * 2**20)

    sizes = [frame.estimated_size() for frame in lake.frames("note")]
    assert max(sizes) <= 4 * 2**20
    assert lake.compare("note", "id") == SAME
