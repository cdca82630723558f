"""The commit: claims, create-only objects, and buckets whose content does not fit the watermark."""

import contextlib
import dataclasses
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime

import polars as pl
import pytest

from pg_bronze.errors import FormatTooNew, LakeDamaged, StoreNotFit
from pg_bronze.lake.claim import Claim
from pg_bronze.lake.footer import ENTRY
from pg_bronze.lake.ledger import Ledger
from pg_bronze.lake.object_store import Store
from pg_bronze_tests.harness.faults import Proxy
from pg_bronze_tests.harness.lake import MOVIE, SAME, Crash, Lake, NoLock, clock, fill
from pg_bronze_tests.harness.repetitions import combinations

CLAIM = "_pg_bronze/claims/movie/"
NOW = datetime(2026, 1, 3, tzinfo=UTC)


@pytest.fixture
def lake(database, bucket) -> Lake:
    database.execute(MOVIE)
    return Lake(database, bucket.store())


def claims(lake: Lake) -> list[str]:
    return [key for key in lake.all_keys() if key.startswith(CLAIM)]


class LostReply(Store):
    """The response to a write is lost: the client sends it again and receives 412."""

    def __init__(self, store: Store, part: str) -> None:
        super().__init__(store.client, store.bucket, store.prefix)
        self.part = part

    def create(self, key: str, body: bytes) -> bool:
        created = super().create(key, body)
        return created and self.part not in key


class InterruptedStore(Store):
    """Another writer acts just after an object of a folder was read for the first time."""

    def __init__(self, store: Store, folder: str, act: Callable[[], object]) -> None:
        super().__init__(store.client, store.bucket, store.prefix)
        self.folder, self.act = folder, [act]

    def get(self, key: str) -> bytes | None:
        body = super().get(key)
        if key.startswith(self.folder) and self.act:
            self.act.pop()()
        return body


def with_footer(lake: Lake, key: str, to: str, **changed) -> None:
    """Copy an object to another key with some entries of its footer changed."""
    body = lake.store.get(key)
    metadata = json.loads(pl.read_parquet_metadata(io.BytesIO(body))[ENTRY])
    buffer = io.BytesIO()
    pl.read_parquet(io.BytesIO(body)).write_parquet(buffer, metadata={ENTRY: json.dumps({**metadata, **changed})})
    lake.store.replace(to, buffer.getvalue())


@pytest.mark.parametrize("part", ["movie/movie_", "claims/"], ids=["data", "claim"])
def test_an_object_whose_response_was_lost_counts_as_the_writers_own(lake, database, part):
    """Otherwise the copy would end as superseded, or the object would be written twice."""
    database.execute(fill(1, 3_000))
    lake.store = LostReply(lake.store, part)

    outcome = lake.tick(slice_rows=1_000)

    assert outcome.row_count == 3_000
    assert all(item.own for item in outcome.committed)
    assert claims(lake) == []
    assert lake.compare() == SAME


def test_a_claim_exists_exactly_while_a_slice_is_written(lake, database):
    """Without it another writer could commit an overlapping slice before the PUT."""
    steps = []
    database.execute(fill(1, 3))

    lake.tick(crash_at=lambda step: steps.append((step, claims(lake), len(lake.keys()))))

    claim = [f"{CLAIM}0000000001.json"]
    assert steps == [
        ("recover", [], 0),
        ("read", [], 0),
        ("claim", claim, 0),
        ("list", claim, 0),
        ("put", claim, 1),
        ("unclaim", [], 1),
    ]


def test_a_claim_left_behind_is_redone_under_its_key(lake, database):
    """Its writer may still be running, and then only the key prevents a second object."""
    database.execute(fill(1, 3))
    assert lake.crash("claim", now=clock())
    claim = Claim.from_text(lake.store.get(claims(lake)[0]), "")
    database.execute(fill(4, 5))

    outcome = lake.tick()

    assert outcome.committed[0].key == claim.after.key == "movie/movie_20260102000010.parquet"
    assert outcome.row_counts == [3, 2]
    assert claims(lake) == []
    assert lake.compare() == SAME


def test_a_claim_whose_rows_were_all_deleted_still_becomes_an_object(lake, database):
    """Without an object its number would look like a missing one."""
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


def test_a_claim_with_fewer_rows_than_before_becomes_an_object_with_the_rest(lake, database):
    """A changed row is copied with the next slice."""
    database.execute(fill(1, 5))
    lake.crash("claim")
    database.execute("delete from movie where movie_id = 1; update movie set title = 'changed' where movie_id = 2")

    outcome = lake.tick()

    assert outcome.row_counts == [3, 1]
    assert lake.footers()[0].row_count == 3
    assert lake.compare() == SAME


def test_a_claim_above_the_current_slice_limit_is_redone_completely(lake, database):
    """The setting changed between the crash and the next tick. Rows beyond the limit would never be read."""
    database.execute(fill(1, 500))
    lake.crash("claim")

    lake.drain(slice_rows=100)

    assert lake.footers()[0].row_count == 500
    assert lake.compare() == SAME


def test_the_claim_of_a_committed_slice_is_deleted(lake, database):
    """Its writer ended between the PUT and the deletion. A redo would double every row of the slice."""
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


def test_a_claim_committed_after_the_first_list_is_not_redone(lake, database, monkeypatch):
    """Without the second LIST every row of the slice would be doubled."""
    monkeypatch.setattr(Ledger, "is_recent", lambda *_: False)
    lake.sync_class = NoLock
    database.execute(fill(1, 3))
    lake.drain()
    database.execute(fill(4, 6))
    other = Lake(database, lake.store, dict(lake.recorded), sync_class=NoLock)
    assert other.crash("claim")
    lake.store = InterruptedStore(lake.store, CLAIM, other.tick)

    outcome = lake.tick()

    assert [item.row_count for item in outcome.adopted] == [3]
    assert outcome.committed == []
    database.execute(fill(7, 7))
    lake.drain()
    assert lake.compare() == SAME
    assert lake.column() == [*range(1, 8)]


def test_claims_are_listed_from_the_last_object_on(lake, database):
    """On a versioned bucket the listing would otherwise read a delete marker for every object ever written."""
    database.execute(fill(1, 3))
    lake.tick()
    for number in range(1, 12):
        lake.store.create(f"{CLAIM}{number:010}.json", b"{}")
    recorded = dataclasses.replace(lake.recorded["movie"], seq=11)
    lists = []
    lake.store.client.meta.events.register("before-call.s3.ListObjectsV2", lambda params, **_: lists.append(params))

    recovered = Ledger(lake.store, lake.layout()).recover(recorded, NOW)

    pages = [params["query_string"] for params in lists if params["query_string"]["prefix"] == CLAIM]
    assert [page["start-after"] for page in pages] == [f"{CLAIM}0000000010.json"]
    assert (recovered.watermark, recovered.redo) == (recorded, None)
    assert claims(lake) == [f"{CLAIM}{number:010}.json" for number in range(1, 11)]


def test_claims_of_all_adopted_objects_are_deleted(lake, database):
    """Their writer recorded nothing, so the listing starts at the recorded object, not at the newest one."""
    database.execute(fill(1, 3))
    lake.tick()
    other = Lake(database, lake.store, dict(lake.recorded))
    for number in (4, 5, 6):
        database.execute(fill(number, number))
        other.tick()
    for number in (1, 2, 4):
        lake.store.create(f"{CLAIM}{number:010}.json", b"of a writer that ended")

    assert [item.row_count for item in lake.tick().adopted] == [1, 1, 1]

    assert claims(lake) == []
    assert lake.compare() == SAME


def test_a_claim_of_an_old_number_is_harmless_and_deleted_when_the_watermark_is_rebuilt(lake, database):
    """A server can execute the request of a writer that ended long ago."""
    for number in range(1, 5):
        database.execute(fill(number, number))
        lake.tick()
    lake.store.create(f"{CLAIM}0000000001.json", b"of a writer that ended")
    database.execute(fill(5, 5))

    assert lake.tick().row_counts == [1]
    assert claims(lake) == [f"{CLAIM}0000000001.json"]
    lake.forget()
    lake.drain()

    assert claims(lake) == []
    assert lake.compare() == SAME


def test_a_missing_last_object_stops_the_table_and_names_both_remedies(lake, database):
    """Otherwise nobody would notice that its rows are missing."""
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


@pytest.mark.parametrize("body, recorded", combinations([b"PAR1 not really PAR1", b"x", b""], [True, False]))
def test_a_foreign_object_newer_than_ours_stops_the_table(database, any_bucket, body, recorded):
    """If the original system still writes to the same folder, every row would be there twice."""
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


def test_a_foreign_object_older_than_the_first_one_changes_nothing(lake, database):
    database.execute(fill(1, 3))
    lake.tick(now=clock())
    lake.store.create("movie/movie_20250101000000.parquet", b"PAR1 not really PAR1")
    lake.forget()
    database.execute(fill(4, 4))

    lake.drain()

    assert [footer.row_count for footer in lake.footers() if footer] == [3, 1]


def test_a_parquet_object_with_another_kind_of_name_stops_the_table(lake, database):
    database.execute(fill(1, 3))
    lake.tick(now=clock())
    lake.store.create("movie/movie_20260102000011-copy.parquet", b"x")

    with pytest.raises(LakeDamaged, match=r"movie_20260102000011-copy\.parquet"):
        lake.tick()


def test_an_object_that_does_not_continue_the_watermark_stops_the_table(lake, database):
    """A restored or merged bucket may be incomplete."""
    database.execute(fill(1, 3))
    lake.tick(now=clock())
    first = lake.keys()[0]
    with_footer(lake, first, "movie/movie_20260102000020.parquet")

    with pytest.raises(LakeDamaged, match=r"movie_20260102000020.parquet does not continue the watermark of movie"):
        lake.tick()


def test_an_object_in_a_newer_format_is_refused(lake, database):
    """Its footer may have another meaning."""
    database.execute(fill(1, 3))
    lake.tick(now=clock())
    with_footer(lake, lake.keys()[0], "movie/movie_20260102000020.parquet", format=99)

    with pytest.raises(FormatTooNew, match=r"movie_20260102000020\.parquet.*format 99.*Upgrade pg_bronze"):
        lake.tick()


def test_a_claim_in_a_newer_format_is_refused(lake, database):
    """Its region may be narrower than this version can read."""
    database.execute(fill(1, 3))
    lake.crash("claim")
    key = claims(lake)[0]
    lake.store.replace(key, json.dumps({**json.loads(lake.store.get(key)), "format": 99}).encode())

    with pytest.raises(FormatTooNew, match=rf"{key}.*format 99.*Upgrade pg_bronze"):
        lake.tick()


def test_a_claim_that_cannot_be_parsed_is_named(lake, database):
    database.execute(fill(1, 3))
    lake.store.create(f"{CLAIM}0000000001.json", b"not json")

    with pytest.raises(LakeDamaged, match=f"{CLAIM}0000000001.json"):
        lake.tick()


def test_a_claim_far_ahead_means_that_objects_are_missing(lake, database):
    """Otherwise nobody would notice the missing rows."""
    database.execute(fill(1, 3))
    lake.tick()
    lake.store.create(f"{CLAIM}0000000009.json", b"{}")

    with pytest.raises(LakeDamaged, match=r"claims object number 9, but the last known object has number 1"):
        lake.tick()


def test_an_existing_object_under_the_key_is_never_overwritten(lake, database):
    """If it counted as the slice, the rows of the slice would never be copied."""
    database.execute(fill(1, 3))
    created = []

    def plant(step: str) -> None:
        if step == "list":
            created.append(lake.store.create("movie/movie_20260102000010.parquet", b"foreign"))

    with pytest.raises(LakeDamaged, match=r"movie_20260102000010.parquet existed before it was written"):
        lake.tick(now=clock(), crash_at=plant)

    assert created == [True]
    assert lake.store.get("movie/movie_20260102000010.parquet") == b"foreign"


def test_an_object_of_another_number_under_the_key_does_not_count_as_the_slice(lake, database):
    """A copy of another object has a footer of pg_bronze, and contains other rows."""
    database.execute(fill(1, 3))
    lake.tick(now=clock())
    first = lake.keys()[0]
    database.execute(fill(4, 6))

    def plant(step: str) -> None:
        if step == "list":
            with_footer(lake, first, "movie/movie_20260102000011.parquet")

    with pytest.raises(LakeDamaged, match=r"movie_20260102000011.parquet existed before it was written"):
        lake.tick(now=clock(), crash_at=plant)


def test_every_footer_describes_the_source_of_its_rows(lake, database):
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


def test_a_source_column_named_pg_xid_keeps_its_name(database, bucket):
    lake = Lake(database, bucket.store())
    database.execute('create table movie (movie_id int, "_pg_xid" text)')
    database.execute("insert into movie values (1, 'text')")

    lake.tick()

    assert lake.rows()["_pg_xid"].to_list() == ["text"]
    assert lake.rows()[lake.footers()[0].xid_column].dtype == pl.Int64
    assert lake.footers()[0].xid_column != "_pg_xid"


def test_a_footer_larger_than_the_first_request_is_read(database, bucket):
    """The footer of 900 columns does not fit into the tail that is read first."""
    lake = Lake(database, bucket.store())
    columns = ", ".join(f"a_rather_long_name_for_column_{number} int" for number in range(900))
    database.execute(f"create table movie (movie_id int primary key, {columns})")
    database.execute("insert into movie values (1)")
    lake.tick()
    lake.forget()
    database.execute("insert into movie values (2)")

    lake.tick()

    assert lake.compare() == SAME


def test_a_bucket_that_overwrites_is_refused_unless_unfenced_is_set(bucket):
    """Two writers would double rows there unnoticed."""
    with contextlib.closing(Proxy(bucket)) as proxy, proxy.broken("PUT", unfenced=True):
        with pytest.raises(StoreNotFit, match=r"If-None-Match.*PG_BRONZE_UNFENCED=true"):
            proxy.store.prepare()
        proxy.store.prepare(unfenced=True)

    assert list(bucket.store().list("")) == []


def test_a_crash_after_the_put_leaves_one_object(lake, database):
    database.execute(fill(1, 3))
    with pytest.raises(Crash):
        lake.tick(crash_at="put")
    assert len(lake.keys()) == 1
