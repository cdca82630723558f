"""Large tables: the newest rows arrive in every tick, and all others with the next sweep."""

from dataclasses import replace

import pytest

from pg_bronze.core import band_notes, window_sql
from pg_bronze.core.band_rules import BandRules
from pg_bronze.core.leaf import Band, Leaf, Order
from pg_bronze.core.region import Region, with_difference
from pg_bronze.core.watermark import Seed
from pg_bronze_tests.harness.lake import SAME, STEPS, Lake, NoLock

# Every table is divided, and no sweep is due again within a test.
FORCED = BandRules(one_band_s=0.0, share=1e-9, rank=3)
TABLE = """create table movie (
  movie_id int primary key,
  title text,
  updated_at timestamptz default clock_timestamp()
)"""


@pytest.fixture
def lake(database, bucket):
    database.execute(TABLE)
    database.execute("create index on movie (updated_at)")
    database.execute("insert into movie select i, repeat('x', 500) from generate_series(1, 200) i")
    return Lake(database, bucket.store(), bands=FORCED)


def top(lake, table="movie"):
    return next(iter(lake.recorded[table].leaves.values()))


def test_a_first_load_divides_the_table_at_the_newest_rows(lake):
    lake.tick()
    assert lake.compare() == SAME
    assert top(lake).order == Order(3, "timestamptz")
    assert len(top(lake).upper) == 1
    assert top(lake).swept == top(lake).top


def test_new_rows_of_a_table_arrive_while_its_first_load_takes_several_ticks(lake, database):
    """A run copies at one horizon, so that a load in one run would hold its new rows back for hours."""
    turns = {"turn_s": 0.0, "slice_rows": 20}
    seen = []
    for number in range(201, 205):
        lake.tick(**turns)
        seen.append(number - 1 in lake.column())
        assert top(lake).sweep is not None
        database.execute(f"insert into movie values ({number}, 'new')")
    assert all(seen)
    lake.tick()
    assert lake.compare() == SAME


def test_a_new_row_arrives_in_the_next_tick_and_a_change_of_an_old_one_with_the_sweep(lake, database):
    lake.tick()
    database.execute("insert into movie values (201, 'new')")
    database.execute("update movie set title = 'old' where movie_id = 7")  # keeps updated_at
    assert lake.tick().row_count == 1
    assert "the next sweep begins in" in lake.tick().quiet

    assert lake.tick(bands=replace(FORCED, complete=True)).row_count == 1
    assert lake.compare() == SAME


def test_an_update_that_sets_the_column_arrives_in_the_next_tick(lake, database):
    lake.tick()
    database.execute("update movie set title = 'old', updated_at = clock_timestamp() where movie_id = 7")
    assert lake.tick().row_count == 1
    assert lake.compare() == SAME


def test_a_sweep_that_takes_several_ticks_is_continued_where_it_stopped(lake, database):
    """Its parts are empty, so that no object says how far it is."""
    lake.tick()
    slow = replace(FORCED, share=1.0, chunk_s=1e-5)
    database.execute("update movie set title = 'old' where movie_id in (1, 200)")
    positions = []
    for _ in range(30):
        lake.tick(bands=slow)
        known = lake.progress["movie"] or lake.recorded["movie"]
        leaf = next(iter(known.leaves.values()))
        if leaf.sweep is None and positions:
            break
        positions += [leaf.sweep.position] if leaf.sweep else []
    assert len(positions) > 3
    assert positions == sorted(set(positions))
    assert lake.compare() == SAME


def test_progress_that_no_object_contains_is_not_used_after_a_restore(lake, database):
    """The ids after the restored state are used again, by rows that nobody has copied."""
    lake.tick()
    database.execute("select pg_current_xact_id()")
    assert lake.tick().quiet
    progress = lake.progress["movie"]
    assert progress is not None
    lake.progress["movie"] = replace(progress, origin=replace(progress.origin, lsn="FFFFFFFF/0"))
    database.execute("insert into movie values (201, 'new')")
    assert lake.tick().row_count == 1
    assert lake.compare() == SAME


def test_many_new_rows_raise_the_floor_and_are_swept_without_a_budget(lake, database):
    lake.tick()
    before = top(lake).upper[-1].floor
    database.execute("insert into movie select i, repeat('x', 500) from generate_series(1001, 3000) i")
    lake.tick(slice_rows=100)
    assert lake.compare() == SAME
    assert top(lake).order.key(top(lake).upper[-1].floor) > top(lake).order.key(before)


def test_rows_with_infinite_values_that_exceed_a_slice_are_swept(lake, database):
    """No floor can be above them."""
    lake.tick()
    database.execute("insert into movie select i, 'x', 'infinity' from generate_series(1001, 1400) i")
    lake.tick(slice_rows=100)
    assert lake.compare() == SAME


@pytest.mark.parametrize(
    "change",
    [
        "vacuum full movie",
        "cluster movie using movie_pkey",
        "alter table movie alter title type varchar(500)",
        "alter table movie alter movie_id type bigint",
        "drop index movie_updated_at_idx",
        "truncate movie",
    ],
)
def test_a_table_that_is_rewritten_or_loses_its_index_is_continued(lake, database, change):
    """Between two sweeps of a table with a column order nothing has to be copied again that is not new."""
    lake.tick()
    database.execute("insert into movie values (201, 'new')")
    lake.tick()
    database.execute(change)
    database.execute("insert into movie values (202, 'newer')")
    lake.drain()
    assert lake.compare() == SAME
    assert lake.recorded["movie"].generation == 0


@pytest.mark.parametrize(
    "change", ["alter table movie drop updated_at", "alter table movie alter updated_at type text"]
)
def test_a_table_that_loses_its_order_with_rows_in_doubt_is_copied_again(lake, database, change):
    """Rows below the top floor that were changed since the last sweep cannot be told from those that were not."""
    lake.tick()
    database.execute("update movie set title = 'old' where movie_id = 7")
    database.execute("insert into movie values (201, 'new')")
    lake.tick()
    database.execute(change)
    lake.drain()
    assert lake.compare() == SAME


def test_a_table_without_an_index_is_divided_by_block_number(database, bucket):
    database.execute("create table movie (movie_id int, title text)")
    blocks = 100 if database.server.version >= 16 else 600  # the floor is 64 or 512 blocks below the end
    database.execute(f"insert into movie select i, repeat('x', 2000) from generate_series(1, {4 * blocks}) i")
    lake = Lake(database, bucket.store(), bands=FORCED)
    lake.tick()
    database.execute("insert into movie values (0, 'new')")
    assert lake.tick().row_count == 1
    assert top(lake).order.attnum is None
    database.execute("vacuum full movie")
    lake.drain()
    assert lake.compare() == SAME


def test_a_partitioned_table_reads_the_newest_rows_of_all_partitions_at_once(database, bucket):
    database.execute("create table movie (movie_id int, updated_at int) partition by hash (movie_id)")
    for part in range(3):
        database.execute(f"create table movie_{part} partition of movie for values with (modulus 3, remainder {part})")
    database.execute("create index on movie (updated_at)")
    database.execute("insert into movie select i, i from generate_series(1, 60) i")
    lake = Lake(database, bucket.store(), bands=FORCED)
    lake.tick()
    database.execute("insert into movie select i, i from generate_series(61, 69) i")
    assert lake.tick().row_counts == [9]
    database.execute("update movie set movie_id = movie_id + 100 where updated_at between 5 and 10")
    lake.drain()
    assert lake.compare() == SAME
    assert len(set(lake.recorded["movie"].leaves.values())) == 1  # one entry in the watermark


def test_bands_that_are_switched_off_again_end_with_one_complete_read(lake, database):
    lake.tick()
    database.execute("update movie set title = 'old' where movie_id = 7")
    database.execute("insert into movie values (201, 'new')")
    lake.tick()
    assert lake.tick(bands=None).row_count == 1
    assert lake.compare() == SAME
    assert top(lake).upper == ()


def test_counters_that_only_fresh_rows_have_moved_postpone_the_sweep(lake, database):
    """An append-only table is swept once a day."""
    soon = replace(FORCED, share=1.0)
    lake.tick()
    swept = top(lake).swept
    database.execute("insert into movie values (201, 'new')")
    database.execute("select pg_stat_force_next_flush()")
    lake.tick(bands=soon)
    assert top(lake).swept == swept
    database.execute("update movie set title = 'old' where movie_id = 7")
    database.execute("insert into movie values (202, 'new')")
    lake.tick(bands=soon)
    assert lake.compare() == SAME


def test_the_notes_name_the_order_the_age_and_the_index_that_is_missing(lake, database):
    lake.tick()
    with lake.source() as source, lake.open(source) as sync:
        notes = band_notes.of_table(sync.table, lake.recorded["movie"], FORCED, sync.now())
    assert notes.order == "updated_at: it leads an index, and every update changes a column with this name"
    assert notes.advice is None
    assert 0 <= notes.sweep_age_s < 60
    database.execute("drop index movie_updated_at_idx")
    with lake.source() as source, lake.open(source) as sync:
        notes = band_notes.of_table(sync.table, lake.recorded["movie"], FORCED, sync.now())
    assert notes.advice == 'create index concurrently on "public"."movie" ("updated_at")'


def kill_before_recording(lake, database):
    database.execute("insert into movie values (201, 'one')")
    assert lake.crash("unclaim")
    database.execute("insert into movie values (202, 'two')")


def test_what_was_read_ahead_of_an_object_that_was_not_written_is_not_remembered(lake, database):
    """Another object has its number, and rows of that window were not in it."""
    lake.tick()
    kill_before_recording(lake, database)
    lake.tick(bands=replace(FORCED, complete=True))
    lake.drain()
    assert lake.compare() == SAME


def test_two_writers_with_bands_lose_nothing_whatever_step_one_of_them_dies_at(database, bucket):
    """The second one plans the same object from an older record."""
    database.execute(f"{TABLE}; create index on movie (updated_at)")
    database.execute("insert into movie select i, 'x' from generate_series(1, 60) i")
    one = Lake(database, bucket.store(), bands=FORCED, sync_class=NoLock)
    one.tick()
    for number, step in enumerate(STEPS):
        two = Lake(database, bucket.store(), dict(one.recorded), bands=FORCED, sync_class=NoLock)
        database.execute(f"insert into movie values ({100 + 2 * number}, 'one')")
        one.crash(step)
        database.execute(f"insert into movie values ({101 + 2 * number}, 'two')")
        two.tick(bands=replace(FORCED, complete=True))
        one.tick(bands=replace(FORCED, complete=True))
    one.drain()
    assert one.compare() == SAME


def test_a_counter_that_includes_rows_above_the_horizon_postpones_no_sweep(lake, database):
    """They are counted before the sweep, and are not in it."""
    soon = replace(FORCED, share=1.0)
    lake.tick()
    with database.connect(autocommit=False) as holder:
        holder.execute("select pg_current_xact_id()")
        database.execute("update movie set title = 'old' where movie_id = 7; select pg_stat_force_next_flush()")
        lake.tick(bands=soon)
        lake.tick(bands=soon)
        holder.commit()
    database.execute("insert into movie values (201, 'new'); select pg_stat_force_next_flush()")
    for _ in range(3):
        lake.tick(bands=soon)
    assert lake.compare() == SAME


@pytest.mark.parametrize("deed", ["select pg_stat_reset()", 'alter database "{name}" set track_counts = off'])
def test_counters_that_begin_again_postpone_no_sweep(lake, database, deed):
    soon = replace(FORCED, share=1.0)
    lake.tick()
    database.execute(deed.format(name=database.name))
    database.execute("update movie set title = 'old' where movie_id = 7; select pg_stat_force_next_flush()")
    database.execute("insert into movie values (201, 'new')")
    for _ in range(3):
        lake.tick(bands=soon)
    assert lake.compare() == SAME


def test_a_partition_without_rows_does_not_keep_the_others_from_being_divided(database, bucket):
    """Partitions of the future are scanned, because they have nothing."""
    database.execute("create table movie (movie_id int, updated_at int, pad text) partition by range (movie_id)")
    database.execute("create table movie_0 partition of movie for values from (0) to (100000)")
    database.execute("create table movie_1 partition of movie for values from (100000) to (200000)")
    database.execute("create index on movie (updated_at)")
    database.execute("insert into movie select i, i, repeat('x', 1500) from generate_series(1, 6000) i; analyze movie")
    lake = Lake(database, bucket.store(), bands=FORCED)
    lake.tick()
    assert {leaf.order for leaf in lake.recorded["movie"].leaves.values() if leaf.order} == {Order(2, "int4")}


def test_a_partition_whose_column_was_replaced_while_it_was_detached_loses_and_doubles_nothing(database, bucket):
    """Its floor means other rows now, although the column of the table is the same."""
    database.execute(
        "create table movie (movie_id int, title text, updated_at timestamptz default clock_timestamp())"
        " partition by range (movie_id);"
        "create table m1 partition of movie for values from (0) to (1000);"
        "create table m2 partition of movie for values from (1000) to (2000);"
        "create index on movie (updated_at);"
        "insert into movie select i, 'x' from generate_series(1, 100) i"
    )
    lake = Lake(database, bucket.store(), bands=FORCED)
    lake.tick()
    database.execute(
        "update movie set title = 'old' where movie_id = 7; insert into movie values (201, 'a'), (202, 'b')"
    )
    lake.tick()
    database.execute(
        "alter table movie detach partition m1; alter table m1 drop updated_at;"
        "alter table m1 add updated_at timestamptz default 'infinity'; alter table m1 alter updated_at drop default;"
        "alter table movie attach partition m1 for values from (0) to (1000)"
    )
    lake.drain()
    assert lake.compare() == SAME


def test_a_leaf_that_comes_back_with_another_order_keeps_it(database, bucket):
    """A floor of one column says nothing about another one."""
    database.execute(
        "create table movie (movie_id int, updated_at timestamptz default clock_timestamp(),"
        " primary key (movie_id)) partition by range (movie_id);"
        "create table m1 partition of movie for values from (0) to (1000);"
        "create table m2 partition of movie for values from (1000) to (2000);"
        "create index by_time on movie (updated_at);"
        "insert into movie select i from generate_series(1, 50) i;"
        "insert into movie select i from generate_series(1001, 1050) i"
    )
    lake = Lake(database, bucket.store(), bands=FORCED)
    lake.tick()
    database.execute("alter table movie detach partition m1; drop index by_time")
    lake.drain()
    database.execute("insert into movie values (1060)")
    lake.drain()
    database.execute(
        "create index by_time on movie (updated_at); create index on m1 (updated_at);"
        "alter table movie attach partition m1 for values from (0) to (1000);"
        "create table m3 partition of movie for values from (2000) to (3000);"
        "insert into movie values (2001), (60), (1061)"
    )
    lake.tick()
    lake.drain()
    assert lake.compare() == SAME


@pytest.mark.parametrize("order", ["updated_at nulls first", "updated_at desc nulls last"])
def test_an_index_that_does_not_begin_with_the_newest_values_is_not_used(database, bucket, order):
    """The floor would sort the whole table."""
    database.execute(f"create table movie (movie_id int, updated_at int); create index on movie ({order})")
    database.execute("insert into movie select i, i from generate_series(1, 100) i")
    lake = Lake(database, bucket.store(), bands=FORCED)
    with lake.source() as source, lake.open(source) as sync:
        assert sync.table.relations[0].ordered_by == ()


def test_a_seed_excludes_rows_of_the_first_load_only(lake, database):
    """What the original system had copied is below it; a row that was changed since is not."""
    before, after = Leaf(None, None, Order(3, "timestamptz"), (Band("2020-01-01 00:00:00+00", 4),)), Leaf(2**40)
    whole = Region("public", "movie", True, (), None, 0, seed=Seed(1, "100"))
    region = with_difference(whole, before, after)
    with lake.source() as source:
        region = replace(
            region, end=source.horizon(), cells=tuple(replace(c, end=source.horizon()) for c in region.cells)
        )
        query = window_sql.measure(region, [], {1: "movie_id", 3: "updated_at"})
        assert source.measure(query, "movie")[0] == 200  # all are above the floor, and of transactions after 4
        database.execute("update movie set updated_at = '2019-01-01' where movie_id in (7, 107)")
        source.forget_horizon()
        region = replace(
            region, end=source.horizon(), cells=tuple(replace(c, end=source.horizon()) for c in region.cells)
        )
        query = window_sql.measure(region, [], {1: "movie_id", 3: "updated_at"})
        assert source.measure(query, "movie")[0] == 199
