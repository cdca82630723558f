"""Generations: a table that was replaced, is copied again on request, or belongs to another place now."""

import dataclasses

import pytest

from pg_bronze.errors import HistoryChanged, LakeDamaged, SettingsError
from pg_bronze.lake.object_store import Store
from pg_bronze.sync import state_changes
from pg_bronze_tests.harness.lake import MOVIE, SAME, Crash, Difference, Lake, fill
from pg_bronze_tests.harness.repetitions import combinations
from pg_bronze_tests.harness.servers import new_bucket

OLD = "_pg_bronze/old/movie/"


@pytest.fixture
def lake(database, bucket) -> Lake:
    database.execute(MOVIE)
    database.execute(fill(1, 5))
    made = Lake(database, bucket.store())
    made.drain()
    database.execute(fill(6, 8))
    made.drain()
    return made


def old(lake: Lake) -> list[str]:
    return [key for key in lake.all_keys() if key.startswith(OLD)]


def elsewhere(lake: Lake, **changed) -> None:
    """Change the place that the recorded watermark belongs to."""
    recorded = lake.recorded["movie"]
    lake.recorded["movie"] = dataclasses.replace(recorded, origin=dataclasses.replace(recorded.origin, **changed))


class DiesMoving(Store):
    """Raises Crash before the n-th object is moved, or in the middle of moving it."""

    def __init__(self, store: Store, after: int, half_way: bool) -> None:
        super().__init__(store.client, store.bucket, store.prefix)
        self.left, self.half_way = after, half_way

    def move(self, key: str, to: str) -> None:
        if self.left == 0:
            if self.half_way:
                self.create(to, self.get(key))
            raise Crash("move")
        self.left -= 1
        super().move(key, to)


def test_a_table_that_was_dropped_and_created_again_is_a_new_generation(lake, database):
    """The old rows do not belong to the new table."""
    before = lake.keys()
    database.execute(f"drop table movie; {MOVIE}; {fill(3, 4)}")

    lake.drain()

    assert lake.column() == [3, 4]
    assert lake.compare() == SAME
    assert "another table" in lake.footers()[0].reason
    assert lake.recorded["movie"].generation == 1
    assert old(lake) == [f"{OLD}gen=0/{key.removeprefix('movie/')}" for key in before]
    assert not set(before) & set(lake.keys())


def test_a_table_swapped_by_rename_is_a_new_generation(lake, database):
    """A blue-green deployment: the new table's rows are older than the watermark, and would be lost."""
    database.execute(
        "create table movie_new (like movie including all);insert into movie_new select * from movie where movie_id > 2"
    )
    database.execute("begin; alter table movie rename to movie_old; alter table movie_new rename to movie; commit")

    lake.drain()

    assert lake.column() == [3, 4, 5, 6, 7, 8]
    assert lake.compare() == SAME


def test_a_table_that_was_renamed_and_renamed_back_is_the_same_generation(lake, database):
    database.execute("alter table movie rename to other; alter table other rename to movie")
    database.execute(fill(9, 9))

    lake.drain()

    assert lake.recorded["movie"].generation == 0
    assert lake.compare() == SAME


def test_a_table_that_takes_the_name_of_one_moved_to_another_schema_is_a_new_generation(lake, database):
    """A blue-green deployment by schema: both tables are called movie, and have different watermarks."""
    database.execute(f"create schema side; alter table movie set schema side; {MOVIE}; {fill(3, 4)}")

    lake.drain()
    lake.drain("side:movie")

    assert lake.column() == [3, 4]
    assert lake.recorded["movie"].generation == 1
    assert lake.column(table="side:movie") == [*range(1, 9)]
    assert lake.recorded["side:movie"].generation == 0
    assert lake.compare() == lake.compare("side:movie") == SAME


def test_a_table_that_was_moved_to_another_schema_and_back_is_the_same_generation(lake, database):
    """Only the rows written in between are copied."""
    database.execute(f"create schema side; alter table movie set schema side; set search_path = side; {fill(9, 10)}")
    database.execute("alter table side.movie set schema public")

    outcomes = lake.drain()

    assert lake.recorded["movie"].generation == 0
    assert sum(outcome.row_count for outcome in outcomes) == 2
    assert lake.compare() == SAME


def test_a_truncated_table_is_the_same_generation(lake, database):
    database.execute(f"truncate movie; {fill(20, 22)}")

    lake.drain()

    assert lake.recorded["movie"].generation == 0
    assert lake.column() == [*range(1, 9), 20, 21, 22]


def test_a_reset_copies_the_whole_table_and_moves_the_old_objects_away(lake, database):
    """The old objects must not mix with the new ones, and must not be deleted."""
    before = lake.recorded["movie"]

    reset = lake.tick(act=state_changes.reset)
    lake.drain()

    assert reset.row_counts == [0]
    assert lake.recorded["movie"].generation == before.generation + 1
    assert lake.recorded["movie"].seq > before.seq
    assert lake.compare() == SAME
    assert len(old(lake)) == 2
    assert lake.footers()[0].reason == "reset on request"


def test_a_reset_repairs_a_table_whose_last_object_is_missing(lake, database):
    """The error names it as the remedy."""
    lake.store.delete(lake.keys()[-1])
    with pytest.raises(LakeDamaged):
        lake.tick()

    lake.tick(act=state_changes.reset)
    lake.drain()

    assert lake.compare() == SAME


def test_continue_without_the_last_object_copies_only_new_rows(lake, database):
    """A lifecycle rule of the bucket may delete old objects on purpose."""
    gone = lake.keys()
    for key in gone:
        lake.store.delete(key)

    lake.tick(act=state_changes.resume)
    database.execute(fill(9, 9))
    lake.drain()

    assert lake.column() == [9]


def remove_middle_object(lake, database) -> None:
    """Delete an object between the recorded one and the newest one."""
    recorded = lake.recorded["movie"]
    for number in (9, 10):
        database.execute(fill(number, number))
        lake.drain()
    lake.store.delete(lake.keys()[-2])
    lake.recorded["movie"] = recorded
    with pytest.raises(LakeDamaged, match=r"does not continue the watermark of movie.*`pg-bronze reset movie`"):
        lake.tick()


@pytest.mark.parametrize("act, lost", [(state_changes.reset, 0), (state_changes.resume, 1)], ids=["reset", "continue"])
def test_both_remedies_work_where_an_object_in_the_middle_is_missing(lake, database, act, lost):
    """The error names them: copy the whole table again, or continue after the newest object."""
    remove_middle_object(lake, database)

    lake.tick(act=act)
    database.execute(fill(11, 11))
    lake.drain()

    assert lake.compare() == Difference(lost=lost)
    assert lake.column() == [n for n in range(1, 12) if n != 9 or not lost]


@pytest.mark.parametrize("row_count", [0, 4])
def test_a_reset_repairs_a_table_with_a_claim_of_a_later_number(lake, database, row_count):
    """The error names it. If it were redone when its number is reached, its rows would be doubled."""
    database.execute(fill(9, 9))
    assert lake.crash("claim")
    claim = lake.layout().claim(lake.recorded["movie"].seq + 1)
    lake.store.move(claim, lake.layout().claim(lake.recorded["movie"].seq + 4))

    def copy() -> None:
        for number in range(21, 21 + row_count):
            lake.tick()
            database.execute(fill(number, number))
        for _ in range(2):  # a tick that finds no row lists the claims
            lake.tick()

    with pytest.raises(LakeDamaged, match=r"claims object number.*`pg-bronze reset movie`"):
        copy()

    lake.tick(act=state_changes.reset)
    for number in range(10, 16):
        database.execute(fill(number, number))
        lake.drain()

    assert lake.compare() == SAME


def test_repeated_resets_keep_every_generation_apart(lake, database):
    for _ in range(3):
        lake.tick(act=state_changes.reset)
        lake.drain()

    assert lake.compare() == SAME
    assert {key.split("/")[3] for key in old(lake)} == {"gen=0", "gen=1", "gen=2"}
    lake.forget()
    assert lake.drain()[-1].quiet
    assert lake.compare() == SAME


@pytest.mark.parametrize("step, forgotten", combinations(["claim", "list", "put", "unclaim"], [False, True]))
def test_the_next_tick_completes_a_reset_that_was_killed(lake, database, step, forgotten):
    with pytest.raises(Crash):
        lake.tick(act=state_changes.reset, crash_at=step)
    if forgotten:
        lake.forget()

    lake.drain()

    assert lake.recorded["movie"].generation == 1
    assert lake.compare() == SAME


@pytest.mark.parametrize("half_way, forgotten, after", combinations([False, True], [False, True], [0, 1]))
def test_the_next_tick_completes_a_move_of_old_objects_that_was_killed(lake, database, after, half_way, forgotten):
    """Until then, a reader of ``movie/*.parquet`` receives rows of two generations."""
    whole = lake.store
    lake.store = DiesMoving(whole, after, half_way)
    database.execute(f"drop table movie; {MOVIE}; {fill(3, 4)}")
    with pytest.raises(Crash):
        lake.tick()
    assert len(old(lake)) == after + half_way
    lake.store = whole
    if forgotten:
        lake.forget()

    lake.drain()

    assert lake.compare() == SAME
    assert len(old(lake)) == 2
    assert {footer.after.generation for footer in lake.footers()} == {1}


def test_a_writer_that_knows_only_the_old_generation_continues_the_new_one(lake, database):
    """Its last object was moved away, and is not missing."""
    other = Lake(database, lake.store, dict(lake.recorded))
    for number in range(2):
        database.execute(f"drop table movie; {MOVIE}; {fill(10 + number, 14)}")
        lake.drain()

    other.drain()

    assert other.recorded == lake.recorded
    assert other.compare() == SAME


@pytest.mark.parametrize(
    "other, act",
    combinations(
        [
            ({"timeline": 77}, "timeline 77"),
            ({"system_id": "4711"}, "cluster 4711"),
            ({"lsn": "FFFF/0"}, "an older state was restored"),
        ],
        [state_changes.resume, state_changes.reset],
    ),
)
def test_another_history_stops_the_table_until_reset_or_continue(lake, database, other, act):
    changed, found = other
    """After a failover, copied transactions may be lost and their ids used again."""
    elsewhere(lake, **changed)
    database.execute(fill(9, 10))
    with pytest.raises(HistoryChanged, match=f"{found}(.|\n)*pg-bronze continue movie(.|\n)*pg-bronze reset movie"):
        lake.tick()

    lake.tick(act=act)
    outcomes = lake.drain()

    assert lake.compare() == SAME
    assert sum(outcome.row_count for outcome in outcomes) == (2 if act is state_changes.resume else 10)


def test_another_database_stops_the_table(lake):
    """It has other rows and transaction ids under the same table names."""
    elsewhere(lake, database=1)

    with pytest.raises(HistoryChanged, match="another database of this cluster"):
        lake.tick()


@pytest.mark.parametrize("act, expected", [(state_changes.resume, [9]), (state_changes.reset, [*range(1, 10)])])
def test_another_bucket_stops_the_table_until_reset_or_continue(lake, database, bucket, act, expected):
    """A wrong bucket name would copy everything again, or continue there without the older rows."""
    there = new_bucket(bucket.server)
    here, lake.store = lake.store, there.store()
    try:
        with pytest.raises(HistoryChanged, match=f"belongs to bucket '{here.bucket}', and this one is '{there.name}'"):
            lake.tick()

        lake.tick(act=act)
        database.execute(fill(9, 9))
        lake.drain()

        assert lake.column() == expected
        lake.forget()
        assert lake.drain()[-1].quiet
        assert lake.column() == expected
        lake.store = here
        assert lake.column() == [*range(1, 9)]
    finally:
        there.remove()


def test_a_table_that_was_never_copied_cannot_be_reset(database, bucket):
    database.execute(MOVIE)

    with pytest.raises(SettingsError, match="nothing of the table was copied yet"):
        Lake(database, bucket.store()).tick(act=state_changes.reset)


def test_a_reset_takes_the_number_of_an_open_claim(lake, database):
    """Otherwise no reset is possible until the claim was redone."""
    database.execute(fill(9, 10))
    lake.crash("claim")

    lake.tick(act=state_changes.reset)
    assert not [key for key in lake.all_keys() if "claims" in key]
    lake.drain()

    assert lake.recorded["movie"].generation == 1
    assert lake.compare() == SAME


@pytest.mark.parametrize("forgotten, act", combinations([False, True], [state_changes.resume, state_changes.reset]))
def test_a_change_is_committed_although_a_claim_is_open(lake, database, act, forgotten):
    """The claim has taken the next number. A reset that only redoes it would report success and change nothing."""
    database.execute(fill(9, 10))
    lake.crash("claim")
    elsewhere(lake, timeline=77)
    if forgotten:
        lake.forget()

    lake.tick(act=act)
    lake.drain()

    assert lake.recorded["movie"].generation == (act is state_changes.reset)
    assert not [key for key in lake.all_keys() if "claims" in key]
    assert lake.compare() == SAME


def test_a_first_load_that_was_killed_after_its_claim_can_be_reset(database, bucket):
    """The claim is the only trace of the table in the bucket."""
    database.execute(MOVIE)
    database.execute(fill(1, 5))
    lake = Lake(database, bucket.store())
    lake.crash("claim")

    lake.tick(act=state_changes.reset)
    lake.drain()

    assert lake.compare() == SAME


def reload(database, first: int, last: int) -> None:
    """Empty the table, and fill it in one transaction with rows that are frozen at once."""
    with database.connect() as connection, connection.transaction():
        connection.execute("truncate movie")
        with connection.cursor().copy("copy movie (movie_id, title) from stdin (freeze)") as rows:
            for number in range(first, last + 1):
                rows.write_row((number, "frozen"))


def test_a_reload_with_copy_freeze_is_copied_once(lake, database):
    """Its rows are visible to every snapshot at once, although its transaction may not be below the horizon yet."""
    with database.connect(autocommit=False) as other:
        other.execute("insert into movie (movie_id) values (100)")
        other.commit()
        other.execute("select pg_current_xact_id()")
        reload(database, 5, 30)
        lake.tick()
        other.execute("insert into movie (movie_id) values (101)")
        other.commit()

    outcomes = lake.drain()

    assert lake.recorded["movie"].generation == 0
    assert lake.compare() == SAME
    assert sum(outcome.row_count for outcome in outcomes) == 27
    database.execute("vacuum freeze movie")
    assert lake.drain()[-1].quiet


def test_a_reload_during_a_first_load_in_block_ranges_is_copied_completely(database, bucket):
    """Blocks that were read before the reload contain other rows now. All of them are of a later transaction."""
    database.execute(f"{MOVIE}; {fill(1, 3_000)}")
    lake = Lake(database, bucket.store())
    lake.crash("unclaim", slice_rows=1_000)
    reload(database, 2_000, 5_000)

    lake.drain(slice_rows=1_000)

    assert lake.recorded["movie"].generation == 0
    assert lake.column()[-3_001:] == [*range(2_000, 5_001)]
    assert lake.compare() == SAME


def test_rows_that_vacuum_froze_between_two_ticks_are_copied_once(lake, database):
    """Freezing marks a row and keeps its transaction id. Rows not copied yet must not be lost."""
    database.execute(f"{fill(9, 12)}; update movie set title = 'again' where movie_id = 2")
    database.execute("vacuum (freeze) movie")

    outcomes = lake.drain()

    assert sum(outcome.row_count for outcome in outcomes) == 5
    assert lake.compare() == SAME


def test_a_new_generation_after_an_outdated_watermark_follows_the_newest_object_of_either_layout(lake, database):
    """Dagster's storage was restored, the layout was changed since, and the table was created again.

    The objects after the outdated watermark are in another layout, or were moved away. A second object with the same
    number was written, and the table stopped.
    """
    outdated = lake.recorded["movie"]
    for number in (9, 10):
        database.execute(fill(number, number))
        lake.drain(dated=True)
    database.execute(f"drop table movie; {MOVIE}; {fill(3, 4)}")
    lake.drain(dated=True)
    database.execute(fill(5, 5))
    lake.drain(dated=True)
    database.execute(f"drop table movie; {MOVIE}; {fill(7, 9)}")

    lake.recorded["movie"] = outdated
    lake.drain(dated=True)

    assert lake.column() == [7, 8, 9]
    assert lake.compare() == SAME
    numbers = [footer.after.seq for footer in lake.footers()]
    assert len(numbers) == len(set(numbers))
    lake.forget()
    lake.drain(dated=True)
    assert lake.compare() == SAME
