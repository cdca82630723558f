"""The commit: claims, create-only objects, and what is found in a bucket that does not fit."""

import contextlib
import io
import json
from collections.abc import Callable

import polars as pl
import pytest

from pg_bronze.errors import FormatTooNew, LakeDamaged, StoreNotFit
from pg_bronze.lake.claim import Claim
from pg_bronze.lake.footer import ENTRY
from pg_bronze.lake.object_store import Store
from pg_bronze_tests.harness.faults import Proxy
from pg_bronze_tests.harness.lake import MOVIE, SAME, Crash, Lake, NoLock, clock, fill

CLAIM = "_pg_bronze/claims/movie/"


@pytest.fixture
def lake(database, bucket) -> Lake:
    database.execute(MOVIE)
    return Lake(database, bucket.store())


def claims(lake: Lake) -> list[str]:
    return [key for key in lake.all_keys() if key.startswith(CLAIM)]


class LostReply(Store):
    """The request arrives and its answer does not: the client sends it again and is told that the key exists."""

    def __init__(self, store: Store, part: str) -> None:
        super().__init__(store.client, store.bucket, store.prefix)
        self.part = part

    def create(self, key: str, body: bytes) -> bool:
        created = super().create(key, body)
        return created and self.part not in key


class LooksLate(Store):
    """Something is done by another just after an object of a folder was read for the first time."""

    def __init__(self, store: Store, folder: str, act: Callable[[], object]) -> None:
        super().__init__(store.client, store.bucket, store.prefix)
        self.folder, self.act = folder, [act]

    def get(self, key: str) -> bytes | None:
        found = super().get(key)
        if key.startswith(self.folder) and self.act:
            self.act.pop()()
        return found


def with_footer(lake: Lake, key: str, to: str, **changed) -> None:
    """Copy an object to another key with some entries of its footer changed."""
    body = lake.store.get(key)
    metadata = json.loads(pl.read_parquet_metadata(io.BytesIO(body))[ENTRY])
    buffer = io.BytesIO()
    pl.read_parquet(io.BytesIO(body)).write_parquet(buffer, metadata={ENTRY: json.dumps({**metadata, **changed})})
    lake.store.replace(to, buffer.getvalue())


@pytest.mark.parametrize("part", ["movie/movie_", "claims/"], ids=["data", "claim"])
def test_an_object_whose_reply_was_lost_counts_as_ours(lake, database, part):
    """Taken for another writer's it would end the copy; taken for nobody's it would be written twice."""
    database.execute(fill(1, 3_000))
    lake.store = LostReply(lake.store, part)

    outcome = lake.tick(slice_rows=1_000)

    assert outcome.row_count == 3_000
    assert all(item.own for item in outcome.committed)
    assert claims(lake) == []
    assert lake.compare() == SAME


def test_a_claim_stands_while_a_slice_is_written_and_no_longer(lake, database):
    """Gone before the PUT, it would let another writer in whose slice overlaps."""
    seen = []
    database.execute(fill(1, 3))

    lake.tick(crash_at=lambda step: seen.append((step, claims(lake), len(lake.keys()))))

    claim = [f"{CLAIM}0000000001.json"]
    assert seen == [
        ("recover", [], 0),
        ("read", [], 0),
        ("claim", claim, 0),
        ("list", claim, 0),
        ("put", claim, 1),
        ("unclaim", [], 1),
    ]


def test_a_claim_left_behind_is_done_again_under_its_key(lake, database):
    """Its writer may not be dead, and then only the key keeps both from writing."""
    database.execute(fill(1, 3))
    assert lake.crash("claim", now=clock())
    claim = Claim.from_text(lake.store.get(claims(lake)[0]), "")
    database.execute(fill(4, 5))

    outcome = lake.tick()

    assert outcome.committed[0].key == claim.after.key == "movie/movie_20260102000010.parquet"
    assert outcome.row_counts == [3, 2]
    assert claims(lake) == []
    assert lake.compare() == SAME


def test_a_claim_whose_rows_are_all_gone_still_becomes_an_object(lake, database):
    """Its number is taken: without an object nobody could tell that nothing is missing."""
    database.execute(fill(1, 3))
    lake.crash("claim")
    database.execute("delete from movie")

    outcome = lake.tick()

    assert outcome.row_counts == [0]
    assert lake.footers()[0].after.seq == 1
    database.execute(fill(4, 6))
    lake.drain()
    assert lake.compare() == SAME
    assert lake.column() == [4, 5, 6]


def test_a_claim_whose_rows_are_fewer_now_becomes_an_object_with_those_left(lake, database):
    """A row deleted or changed since is not there to be read again; a change comes with the next slice."""
    database.execute(fill(1, 5))
    lake.crash("claim")
    database.execute("delete from movie where movie_id = 1; update movie set title = 'changed' where movie_id = 2")

    outcome = lake.tick()

    assert outcome.row_counts == [3, 1]
    assert lake.footers()[0].row_count == 3
    assert lake.compare() == SAME


def test_a_claim_larger_than_a_slice_may_be_now_is_done_again_whole(lake, database):
    """A setting changed between the crash and the next tick. What is beyond the limit would never be read."""
    database.execute(fill(1, 500))
    lake.crash("claim")

    lake.drain(slice_rows=100)

    assert lake.footers()[0].row_count == 500
    assert lake.compare() == SAME


def test_the_claim_of_a_finished_slice_is_dropped(lake, database):
    """Its writer died between writing and tidying up. Done again it would double every row of the slice."""
    lake.tick()
    database.execute(fill(1, 1))
    lake.tick()
    database.execute(fill(2, 4))
    assert lake.crash("put")
    assert len(claims(lake)) == 1
    assert len(lake.keys()) == 2

    outcome = lake.tick()

    assert [item.row_count for item in outcome.adopted] == [3]
    assert outcome.committed == []
    assert lake.recorded["movie"].seq == 2
    assert claims(lake) == []
    assert lake.compare() == SAME


def test_a_claim_finished_between_two_looks_is_not_done_again(lake, database):
    """Found open, then finished by its writer: the second LIST is what stands between this and doubled rows."""
    lake.sync_class = NoLock
    database.execute(fill(1, 3))
    lake.drain()
    database.execute(fill(4, 6))
    other = Lake(database, lake.store, dict(lake.recorded), sync_class=NoLock)
    assert other.crash("claim")
    lake.store = LooksLate(lake.store, CLAIM, other.tick)

    outcome = lake.tick()

    assert [item.row_count for item in outcome.adopted] == [3]
    assert outcome.committed == []
    database.execute(fill(7, 7))
    lake.drain()
    assert lake.compare() == SAME
    assert lake.column() == [*range(1, 8)]


def test_claims_of_numbers_long_past_are_removed(lake, database):
    database.execute(fill(1, 3))
    lake.tick()
    database.execute(fill(4, 4))
    lake.tick()
    lake.store.create(f"{CLAIM}0000000001.json", b"whatever stood here")

    lake.tick()

    assert claims(lake) == []
    assert lake.compare() == SAME


def test_an_object_that_is_gone_stops_the_table_and_names_both_ways_on(lake, database):
    """Copying on, nobody would learn that its rows are missing."""
    database.execute(fill(1, 3))
    lake.drain()
    key = lake.keys()[0]
    lake.store.delete(key)

    with pytest.raises(LakeDamaged) as caught:
        lake.tick()

    assert key in str(caught.value)
    assert "pg-bronze reset movie" in str(caught.value)
    assert "pg-bronze continue movie" in str(caught.value)
    assert lake.all_keys() == []


@pytest.mark.parametrize("body", [b"PAR1 not really PAR1", b"x", b""], ids=["like parquet", "a byte", "nothing"])
@pytest.mark.parametrize("recorded", [True, False])
def test_a_foreign_object_newer_than_ours_stops_the_table(database, any_bucket, body, recorded):
    """The original system still running beside us writes into the same folder: both would double each other."""
    database.execute(MOVIE)
    database.execute(fill(1, 3))
    lake = Lake(database, any_bucket.store())
    lake.tick(now=clock())
    foreign = "movie/movie_20260102000011.parquet"
    lake.store.create(foreign, body)
    if not recorded:
        lake.forget()

    with pytest.raises(LakeDamaged, match=foreign):
        lake.tick()


def test_a_foreign_object_older_than_ours_disturbs_nothing(lake, database):
    """What lay there before us is behind what we know."""
    database.execute(fill(1, 3))
    lake.tick(now=clock())
    lake.store.create("movie/movie_20250101000000.parquet", b"PAR1 not really PAR1")
    lake.forget()
    database.execute(fill(4, 4))

    lake.drain()

    assert [footer.row_count for footer in lake.footers() if footer] == [3, 1]


def test_an_object_named_unlike_ours_stops_the_table(lake, database):
    database.execute(fill(1, 3))
    lake.tick(now=clock())
    lake.store.create("movie/movie_20260102000011-copy.parquet", b"x")

    with pytest.raises(LakeDamaged, match=r"movie_20260102000011-copy\.parquet"):
        lake.tick()


def test_an_object_that_does_not_continue_ours_stops_the_table(lake, database):
    """A bucket restored or merged from two: what follows cannot be trusted to be complete."""
    database.execute(fill(1, 3))
    lake.tick(now=clock())
    first = lake.keys()[0]
    with_footer(lake, first, "movie/movie_20260102000020.parquet")

    with pytest.raises(LakeDamaged, match=r"movie_20260102000020.parquet does not continue the watermark of movie"):
        lake.tick()


def test_an_object_of_a_newer_version_is_not_guessed_at(lake, database):
    """What it says may mean something else."""
    database.execute(fill(1, 3))
    lake.tick(now=clock())
    with_footer(lake, lake.keys()[0], "movie/movie_20260102000020.parquet", format=99)

    with pytest.raises(FormatTooNew, match=r"movie_20260102000020\.parquet.*format 99.*Update this one"):
        lake.tick()


def test_a_claim_of_a_newer_version_is_not_guessed_at(lake, database):
    """Its region may be narrower than this version can tell."""
    database.execute(fill(1, 3))
    lake.crash("claim")
    key = claims(lake)[0]
    lake.store.replace(key, json.dumps({**json.loads(lake.store.get(key)), "format": 99}).encode())

    with pytest.raises(FormatTooNew, match=rf"{key}.*format 99.*Update this one"):
        lake.tick()


def test_a_claim_that_cannot_be_read_is_named(lake, database):
    database.execute(fill(1, 3))
    lake.store.create(f"{CLAIM}0000000001.json", b"not json")

    with pytest.raises(LakeDamaged, match=f"{CLAIM}0000000001.json"):
        lake.tick()


def test_a_claim_far_ahead_means_that_objects_are_gone(lake, database):
    """Copying on behind the gap, nobody would learn of the rows in it."""
    database.execute(fill(1, 3))
    lake.tick()
    lake.store.create(f"{CLAIM}0000000009.json", b"{}")

    with pytest.raises(LakeDamaged, match=r"claims object number 9, and the last one known is number 1"):
        lake.tick()


def test_something_else_under_our_key_is_never_overwritten(lake, database):
    """Taken for the slice that was to stand there, that slice's rows would never be copied."""
    database.execute(fill(1, 3))
    foreign = []

    def plant(step: str) -> None:
        if step == "list":
            foreign.append(lake.store.create("movie/movie_20260102000010.parquet", b"somebody's"))

    with pytest.raises(LakeDamaged, match=r"movie_20260102000010.parquet was there before it was written"):
        lake.tick(now=clock(), crash_at=plant)

    assert foreign == [True]
    assert lake.store.get("movie/movie_20260102000010.parquet") == b"somebody's"


def test_an_object_of_another_place_in_the_chain_under_our_key_does_not_count_as_ours(lake, database):
    """Somebody copied objects about. It says that it is pg_bronze's, and holds other rows."""
    database.execute(fill(1, 3))
    lake.tick(now=clock())
    first = lake.keys()[0]
    database.execute(fill(4, 6))

    def plant(step: str) -> None:
        if step == "list":
            with_footer(lake, first, "movie/movie_20260102000011.parquet")

    with pytest.raises(LakeDamaged, match=r"movie_20260102000011.parquet was there before it was written"):
        lake.tick(now=clock(), crash_at=plant)


def test_every_object_says_where_its_rows_came_from(lake, database):
    database.execute(fill(1, 3))
    lake.tick()
    database.execute(fill(4, 4))
    lake.tick()

    first, second = lake.footers()

    assert (first.row_count, second.row_count) == (3, 1)
    assert second.before == first.after
    assert second.continues(first.after)
    assert not first.continues(second.after)
    assert [column["name"] for column in second.columns] == ["movie_id", "title", "updated_at", "price"]
    assert second.region.start == first.region.end
    assert second.xid_column == "_pg_xid"


def test_a_source_column_called_like_ours_keeps_its_name(database, bucket):
    lake = Lake(database, bucket.store())
    database.execute('create table movie (movie_id int, "_pg_xid" text)')
    database.execute("insert into movie values (1, 'theirs')")

    lake.tick()

    assert lake.rows()["_pg_xid"].to_list() == ["theirs"]
    assert lake.rows()[lake.footers()[0].xid_column].dtype == pl.Int64
    assert lake.footers()[0].xid_column != "_pg_xid"


def test_a_wide_table_whose_footer_is_long_is_found_again(database, bucket):
    """The footer of 900 columns does not fit the tail that is read first."""
    lake = Lake(database, bucket.store())
    columns = ", ".join(f"a_rather_long_name_for_column_{number} int" for number in range(900))
    database.execute(f"create table movie (movie_id int primary key, {columns})")
    database.execute("insert into movie values (1)")
    lake.tick()
    lake.forget()
    database.execute("insert into movie values (2)")

    lake.tick()

    assert lake.compare() == SAME


def test_a_bucket_that_overwrites_is_refused_unless_asked_for(bucket):
    """Two writers would double rows there, and nobody would notice."""
    with contextlib.closing(Proxy(bucket)) as proxy, proxy.broken("PUT", unfenced=True):
        with pytest.raises(StoreNotFit, match=r"If-None-Match.*PG_BRONZE_UNFENCED=true"):
            proxy.store.prepare()
        proxy.store.prepare(unfenced=True)

    assert list(bucket.store().list("")) == []


def test_a_crash_is_not_taken_for_an_error_of_the_server(lake, database):
    database.execute(fill(1, 3))
    with pytest.raises(Crash):
        lake.tick(crash_at="put")
    assert len(lake.keys()) == 1
