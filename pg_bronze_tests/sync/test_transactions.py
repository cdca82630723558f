"""Rows of transactions that end late or out of order, and rows whose cursor value does not increase."""

import re

import pytest

from pg_bronze.postgres import activity
from pg_bronze_tests.harness.lake import MOVIE, SAME, Lake, fill


@pytest.fixture
def lake(database, bucket) -> Lake:
    return Lake(database, bucket.store())


@pytest.fixture
def movie(database, lake) -> Lake:
    database.execute(MOVIE)
    return lake


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
        quiet = movie.tick().quiet
    finally:
        database.execute("commit prepared 'copy_me'")
    # Without this sentence the table seems to be copied completely.
    blocked = r"Rows of later transactions are blocked: prepared transaction 'copy_me' has held the horizon for \d+ s"
    assert re.fullmatch(rf"no new row up to transaction \d+\. {blocked}", quiet)

    movie.drain()

    assert movie.column() == [1, 2, 3, 4]
    assert movie.compare() == SAME


def test_a_transaction_that_is_open_for_long_is_named_with_the_statement_that_ends_it(movie, database, monkeypatch):
    monkeypatch.setattr(activity, "STALLED_AFTER_S", 0.0)
    movie.tick()
    with database.connect(autocommit=False) as late:
        late.execute(fill(1, 2))
        database.execute(fill(3, 3))
        quiet, session = movie.tick().quiet, late.info.backend_pid
        late.rollback()

    assert f"are blocked: session {session} (idle in transaction) has held the horizon for " in quiet
    assert quiet.endswith(f"; to end it: select pg_terminate_backend({session})")


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
