"""Runs of objects with the same columns: every watermark names the object in which its run began."""

import dataclasses
import io
from datetime import datetime

import polars as pl
import pytest

from pg_bronze.core.column_types import stored_schema
from pg_bronze.core.table import Column
from pg_bronze.lake.reading.table_objects import era_footers
from pg_bronze.sync import state_changes
from pg_bronze.sync.table_sync import Ledger
from pg_bronze_tests.harness.lake import MOVIE, SAME, Lake, NoLock, crash_after, fill, texts
from pg_bronze_tests.harness.repetitions import combinations
from pg_bronze_tests.harness.servers import new_bucket

CHANGES = {
    "add": "alter table movie add rating int",
    "add with a default": "alter table movie add rating int default 7",
    "drop": "alter table movie drop price",
    "rename": "alter table movie rename title to name",
    "retype": "alter table movie alter movie_id type bigint",
    "key": "alter table movie drop constraint movie_pkey, add primary key (movie_id, title)",
    "our own name": "alter table movie add _pg_xid int",
}


@pytest.fixture
def lake(database, bucket) -> Lake:
    database.execute(MOVIE)
    database.execute(fill(1, 5))
    made = Lake(database, bucket.store())
    made.drain()
    return made


def runs(lake: Lake, table: str = "movie") -> list[list[str]]:
    """Return the column names of each run, oldest run first, after checking every object against its watermarks."""
    keys, footers = lake.keys(table), lake.footers(table)
    newest = footers[-1].after.generation
    pairs = [(key, footer) for key, footer in zip(keys, footers, strict=True) if footer.after.generation == newest]
    began, found = "", []
    for key, footer in pairs:
        frame = pl.read_parquet(io.BytesIO(lake.store.get(key)))
        columns = [Column.from_description(column) for column in footer.columns]
        assert frame.schema == pl.Schema({**stored_schema(columns), footer.xid_column: pl.Int64()})
        assert footer.after.columns_digest == footer.described.digest
        if not found or footer.described.digest != found[-1].described.digest:
            began = key
            found.append(footer)
        assert footer.after.columns_key == began
    objects = Ledger(lake.store, lake.layout(table))
    walked = list(era_footers(objects, keys))
    assert [footer.described.digest for footer in walked] == [footer.described.digest for footer in reversed(found)]
    return [[column["name"] for column in footer.columns] for footer in found]


def more(lake: Lake, database, first: int, **options):
    database.execute(f"insert into movie (movie_id) values ({first}), ({first + 1})")
    return lake.drain(**options)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_begins_a_run_and_the_next_slice_continues_it(lake, database, change):
    more(lake, database, 10)
    assert len(runs(lake)) == 1

    database.execute("alter table movie alter title set default 'x'; update movie set title = '' where title is null")
    database.execute(change)
    more(lake, database, 20)
    more(lake, database, 30)

    assert len(runs(lake)) == 2
    assert lake.compare() == SAME


def test_a_change_irrelevant_to_readers_begins_no_run(lake, database):
    database.execute("comment on column movie.title is 'new'; alter table movie alter title set not null")
    more_title = "insert into movie values (10, 'a', now(), 1)"
    database.execute(more_title)
    lake.drain()

    assert len(runs(lake)) == 1
    assert lake.footers()[-1].columns[1]["comment"] == "new"


@pytest.mark.parametrize("change, step", combinations(["rename", "add with a default", "key"], ["claim", "put"]))
def test_a_redone_slice_records_the_columns_it_was_read_with(lake, database, change, step):
    """The claim has the columns from before the change, its object those after it."""
    database.execute("alter table movie alter title set default 'x'; insert into movie values (10, 'a', now(), 1)")
    assert lake.crash(step)
    database.execute(CHANGES[change])
    lake.drain()
    more(lake, database, 20)

    assert len(runs(lake)) == 2
    assert lake.compare() == SAME
    lake.forget()
    lake.tick()
    assert lake.recorded["movie"] == lake.footers()[-1].after


def test_a_claimed_change_that_was_undone_continues_the_old_run(lake, database):
    database.execute("alter table movie rename title to name; insert into movie values (10, 'a', now(), 1)")
    assert lake.crash("claim")
    database.execute("alter table movie rename name to title")
    lake.drain()

    assert runs(lake) == [["movie_id", "title", "updated_at", "price"]]


def test_two_writers_with_different_columns_record_the_same_watermark(database, bucket):
    database.execute(f"{MOVIE}; {fill(1, 5)}")
    one = Lake(database, bucket.store(), sync_class=NoLock)
    one.drain()
    two = Lake(database, bucket.store(), dict(one.recorded), sync_class=NoLock)
    database.execute(fill(6, 9))
    left = [True]

    def meanwhile(step: str) -> None:
        if step == "list" and left.pop():
            left.append(False)
            database.execute("alter table movie rename title to name")
            two.tick()

    one.tick(crash_at=meanwhile)

    assert one.recorded == two.recorded
    assert runs(one)[-1] == ["movie_id", "name", "updated_at", "price"]
    assert one.compare() == SAME


def test_a_reset_starts_with_the_current_columns(lake, database):
    database.execute("alter table movie drop price")
    more(lake, database, 10)
    lake.tick(act=state_changes.reset)
    lake.drain()

    assert runs(lake) == [["movie_id", "title", "updated_at"]]


@pytest.mark.parametrize("act", [state_changes.reset, state_changes.resume])
def test_a_reset_or_resume_that_takes_over_a_claim_records_the_columns(lake, database, act):
    database.execute(fill(10, 11))
    assert lake.crash("claim")
    database.execute("alter table movie drop price")

    lake.tick(act=act)
    lake.drain()

    assert runs(lake)[-1] == ["movie_id", "title", "updated_at"]
    assert lake.compare() == SAME


def test_an_abandoned_claim_starts_with_the_current_columns(lake, database):
    database.execute(fill(100, 3_000))
    assert lake.crash(crash_after("claim", 2), slice_rows=500)
    database.execute("vacuum full movie")
    database.execute("alter table movie drop price")
    lake.drain()

    assert runs(lake) == [["movie_id", "title", "updated_at"]]
    assert lake.compare() == SAME


def test_resuming_in_another_bucket_names_no_object_of_the_old_one(lake, database, s3_server):
    other = new_bucket(s3_server)
    lake.store = other.store()
    database.execute(fill(10, 11))

    lake.tick(act=state_changes.resume)
    lake.drain()

    assert len(runs(lake)) == 1
    other.remove()


def test_the_runs_are_found_when_objects_are_missing(lake, database):
    """A lifecycle rule may have expired them; the remaining footers still describe every run."""
    for number, change in enumerate(["rename title to name", "drop price", "add rating int"]):
        database.execute(f"alter table movie {change}")
        more(lake, database, 100 + 10 * number)
        more(lake, database, 105 + 10 * number)
    objects = Ledger(lake.store, lake.layout())
    complete = [footer.described.digest for footer in era_footers(objects, lake.keys())]
    assert len(complete) == 4

    for key in lake.keys()[1::2]:
        lake.store.delete(key)

    assert [footer.described.digest for footer in era_footers(objects, lake.keys())] == complete


DEFAULTS = [
    ("int", "7"),
    ("text", "'a,b \"c\" {d} \\'"),
    ("text", "''"),
    ("text", "'NULL'"),
    ("boolean", "true"),
    ("numeric(10,2)", "1.5"),
    ("numeric", "1.50"),
    ("money", "12.5"),
    ("money", "-1234567.89"),
    ("money[]", "'{{-1234.5, 2}, {null, 1000000}}'"),
    ("inet", "'10.0.0.1'"),
    ("box", "'(1,2),(0,0)'"),
    ("box[]", "'{(1,2),(0,0);(3,4),(1,1)}'"),
    ("int[]", "'{1,2,null}'"),
    ("text[]", '\'{"a b",""}\''),
    ("timestamptz", "'2026-01-02 03:04:05.5+02'"),
    ("timestamptz", "now()"),
    ("date", "'infinity'"),
    ("bytea", "'\\xff00'"),
    ("float8", "0.1"),
    ("interval", "'1 day 02:03:04'"),
    ("int4range", "'[1,5)'"),
    ("jsonb", "'{\"a\": [1, null]}'"),
    ("mood", "'happy'"),
    ("pair", "row(1, 'a b')"),
    ("small", "5"),
]


def test_the_footer_has_the_value_of_rows_older_than_a_column(lake, database):
    """Readers fill older slices with it, so it must be the text of what a newer slice stores."""
    database.execute(
        "create type mood as enum ('sad', 'happy'); create type pair as (a int, b text); create domain small as int"
    )
    added = ", ".join(f"add c{n} {declared} default {value}" for n, (declared, value) in enumerate(DEFAULTS))
    database.execute(f"alter table movie {added}")
    database.execute("insert into movie (movie_id) select 10")
    lake.drain()

    missing = [column.get("missing") for column in lake.footers()[-1].columns[4:]]

    landed = [texts(lake.frames()[-1][f"c{number}"]) for number in range(len(DEFAULTS))]
    of_now = DEFAULTS.index(("timestamptz", "now()"))
    [[before]] = database.execute(f"select distinct c{of_now} from movie where movie_id < 10")
    assert datetime.fromisoformat(missing[of_now]) == before
    landed[of_now] = [missing[of_now]]
    binary = DEFAULTS.index(("bytea", "'\\xff00'"))
    landed[binary] = ["\\xff00"]
    assert [[value] for value in missing] == landed


def test_a_rewrite_clears_the_missing_value_and_the_earlier_footer_keeps_it(lake, database):
    database.execute("alter table movie add rating int default 7")
    more(lake, database, 10)
    database.execute("vacuum full movie")
    more(lake, database, 20)

    held = [[column.get("missing") for column in footer.columns][-1] for footer in lake.footers()]
    assert held == [None, "7", None]
    assert len(runs(lake)) == 3


def test_a_watermark_without_columns_continues_and_records_them(lake, database):
    """The change is reported, because the footer of the last object has its columns."""
    lake.recorded["movie"] = dataclasses.replace(lake.recorded["movie"], columns_key="", columns_digest="")
    database.execute("alter table movie drop price")
    more(lake, database, 10)

    newest = lake.footers()[-1]
    assert newest.after.columns_key == newest.after.key
    assert newest.drift == ("column 'price' (numeric(10,2)) was dropped",)
