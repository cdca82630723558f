"""The requests to the bucket: four for a slice, and what makes a tick list the table's objects."""

from datetime import timedelta

import pytest

from pg_bronze.errors import LakeDamaged, StateRestored
from pg_bronze.lake import stop
from pg_bronze.sync import state_changes
from pg_bronze_tests.harness.lake import MOVIE, SAME, Lake, clock, crash_after, fill
from pg_bronze_tests.harness.repetitions import also

SLICE = ["PutObject", "ListObjectsV2", "PutObject", "DeleteObject"]


@pytest.fixture
def lake(database, bucket) -> Lake:
    """A table with one recorded object."""
    database.execute(f"{MOVIE}; {fill(1, 3)}")
    lake = Lake(database, bucket.store())
    lake.tick(now=clock())
    return lake


@pytest.fixture
def requests(lake) -> list[str]:
    """The names of the requests that were sent since the list was cleared."""
    sent: list[str] = []
    lake.store.client.meta.events.register("before-call.s3", lambda model, **_: sent.append(model.name))
    return sent


@pytest.mark.parametrize("dated", [False, True])
def test_a_busy_table_needs_four_requests_for_a_slice(lake, database, requests, dated):
    """More of them is what a busy table costs every ten seconds, for a year."""
    for number in (4, 5):  # a changed layout is announced by one object
        database.execute(fill(number, number))
        lake.tick(now=clock(), dated=dated)
    requests.clear()
    database.execute(fill(11, 3_000))

    outcome = lake.tick(now=clock(), dated=dated, slice_rows=1_000)

    assert len(outcome.committed) > 2
    assert requests == SLICE * len(outcome.committed)
    assert lake.compare() == SAME


def test_a_new_table_needs_two_listings_before_its_first_claim(lake, database, requests):
    """Its folder is empty, so nothing is searched in it. After the claim, objects of both layouts may be the first."""
    database.execute("create table person (id int); insert into person values (1)")

    outcome = lake.tick("person", now=clock())

    assert len(outcome.committed) == 1
    listing = "ListObjectsV2"
    assert requests == [listing, listing, "PutObject", listing, listing, "PutObject", "DeleteObject"]


def test_a_table_is_listed_again_ten_minutes_after_its_last_object(lake, database, requests):
    """Objects of another program, and an interrupted move of old objects, are found then."""
    later = clock(clock()() + timedelta(minutes=10))
    for number, listed in ((4, True), (5, False)):
        requests.clear()
        database.execute(fill(number, number))
        lake.tick(now=later)
        assert (requests != SLICE) is listed


def test_a_deleted_object_stops_a_busy_table_before_it_writes(lake, database):
    lake.store.delete(lake.keys()[0])
    database.execute(fill(4, 4))

    with pytest.raises(LakeDamaged, match=r"its last object .* is missing"):
        lake.tick(now=clock())

    assert lake.keys() == lake.all_keys("_pg_bronze/claims/") == []


@pytest.mark.parametrize("step", ["claim", "put", "unclaim"])
def test_a_tick_after_a_crash_copies_everything_in_one_run(lake, database, step):
    """The recorded watermark is outdated, and only the claim shows it."""
    database.execute(fill(4, 6))
    assert lake.crash(step, now=clock())
    database.execute(fill(7, 8))

    outcome = lake.tick(now=clock())

    assert outcome.row_count == 5
    assert lake.compare() == SAME


def test_a_reset_by_another_instance_is_noticed_by_the_claim(lake, database):
    """Its objects were moved away, and the rows would be written into the wrong generation."""
    other = Lake(database, lake.store, dict(lake.recorded))
    other.tick(act=state_changes.reset, now=clock())
    database.execute(fill(4, 4))

    assert lake.tick(now=clock()).watermark.generation == 1

    assert lake.compare() == SAME


@pytest.mark.parametrize("state", ["recorded", "forgotten"])
def test_a_stopped_table_is_not_copied_although_its_evidence_is_gone(lake, database, state):
    """Another Dagster instance may have found the restore."""
    watermark = lake.recorded["movie"]
    stop.write(lake.store, lake.layout(), watermark, "an older state was restored", clock()())
    database.execute(fill(4, 4))
    if state == "forgotten":
        lake.forget()

    for _ in range(2):
        with pytest.raises(StateRestored, match="an older state was restored"):
            lake.tick(now=clock())
    assert len(lake.keys()) == 1
    lake.tick(act=state_changes.resume, now=clock())
    lake.drain(now=clock())

    assert lake.compare() == SAME
    assert lake.all_keys("_pg_bronze/claims/") == []


@pytest.mark.parametrize("step", ["claim", *also("put", "unclaim")])
def test_writers_with_different_layouts_see_each_others_objects(lake, database, step):
    """The listing after a claim has one layout only."""
    flat = Lake(database, lake.store, dict(lake.recorded))
    for number in range(4, 10):
        database.execute(fill(number, number))
        lake.tick(now=clock(), dated=True)
        if number % 2:
            flat.crash(crash_after(step), now=clock())
            flat.tick(now=clock())
        else:
            lake.recorded, flat.recorded = dict(flat.recorded), dict(lake.recorded)

    assert lake.compare() == flat.compare() == SAME
    assert {key.startswith("movie/date=") for key in lake.all_keys("movie/")} == {False, True}
