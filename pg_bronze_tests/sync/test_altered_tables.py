"""Tables that are altered, rewritten or dropped between ticks and during reads."""

from decimal import Decimal

import pytest

from pg_bronze.errors import TableChanged
from pg_bronze.postgres.connection import Source
from pg_bronze_tests.harness.lake import MOVIE, SAME, Lake, fill


@pytest.fixture
def lake(database, bucket) -> Lake:
    return Lake(database, bucket.store())


@pytest.fixture
def movie(database, lake) -> Lake:
    database.execute(MOVIE)
    return lake


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
    original, left = Source.read_sent, [change]

    def read_and_alter(self, query, label):
        frame = original(self, query, label)
        if left:
            database.execute(left.pop())
        return frame

    monkeypatch.setattr(Source, "read_sent", read_and_alter)
    movie.tick()
    movie.drain()

    assert not left
    assert movie.compare() == SAME


@pytest.mark.parametrize("before, after", [("numeric(10,2)", "numeric(12,4)"), ("numeric(20,2)", "numeric(22,4)")])
def test_a_decimal_widened_before_the_rows_are_read_is_not_rounded(database, lake, before, after, monkeypatch):
    """The query of a short decimal rounds, so only the definition after the read shows that its rows are worthless."""
    database.execute(f"create table movie (movie_id int primary key, price {before})")
    database.execute("insert into movie values (1, 1.50), (2, 2.50)")
    read, left = Source.read_sent, [f"alter table movie alter price type {after}; update movie set price = 1.5555"]

    def widened(source: Source, query: str, label: str):
        if left:
            database.execute(left.pop())
        return read(source, query, label)

    monkeypatch.setattr(Source, "read_sent", widened)
    lake.tick()
    lake.drain()

    assert not left
    assert set(lake.column("price")) == {Decimal("1.5555")}
    assert lake.compare() == SAME


def test_a_table_altered_during_every_read_is_retried_at_the_next_tick(movie, database, monkeypatch):
    database.execute(fill(1, 5))
    original = Source.read_sent

    def read_and_alter(self, query, label):
        frame = original(self, query, label)
        database.execute("alter table movie rename title to name; alter table movie rename name to title")
        return frame

    monkeypatch.setattr(Source, "read_sent", read_and_alter)
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
