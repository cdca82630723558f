"""First loads that read several block ranges at once: the slices are committed as if each had been read in its turn."""

import threading
from collections.abc import Iterator

import pytest

from pg_bronze.errors import SourceUnavailable
from pg_bronze.postgres.connection import Source
from pg_bronze.postgres.connection_limit import ConnectionLimit
from pg_bronze.postgres.read_session import ReadSession
from pg_bronze.postgres.readers.sent_rows import SentRows
from pg_bronze.sync import slice_reader
from pg_bronze.sync.reads_ahead import ReadsAhead
from pg_bronze_tests.harness.lake import MOVIE, SAME, Crash, Lake, NoLock, crash_after, fill, once_after
from pg_bronze_tests.harness.repetitions import also, repetition
from pg_bronze_tests.harness.sessions import Sessions
from pg_bronze_tests.harness.slow import SLOW, wait_until_gone, wait_until_slow

PARALLEL = {"slice_rows": 500, "load_parallel": 3}


@pytest.fixture
def movie(database, bucket) -> Lake:
    database.execute(f"{MOVIE}; {fill(1, 2_000)}; analyze movie")
    return Lake(database, bucket.store())


@pytest.fixture
def dropped(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many reads were dropped each time that some were."""
    drop, found = ReadsAhead.drop, []

    def counted(self: ReadsAhead) -> None:
        found.extend([len(self._held)] if self._held else [])
        drop(self)

    monkeypatch.setattr(ReadsAhead, "drop", counted)
    return found


def compared(lake: Lake) -> None:
    lake.drain(**PARALLEL)
    assert lake.compare() == SAME
    assert not [key for key in lake.all_keys() if "claims" in key]


@pytest.mark.parametrize("reader", ["connectorx", *also("copy")])
def test_as_many_ranges_are_read_at_once_as_the_setting_allows_into_the_same_slices(
    movie, database, bucket, monkeypatch, reader
):
    together = threading.Barrier(3)
    read, numbers, lock = ReadSession.read, [], threading.Lock()

    def meeting(self: ReadSession, query: str, label: str):
        with lock:
            numbers.append(len(numbers))
            first_three = len(numbers) <= 3
        if first_three:
            together.wait(30)
        return read(self, query, label)

    movie.reader = reader
    serial = Lake(database, bucket.store("serial"), reader=reader)
    alone = serial.tick(slice_rows=500)
    with monkeypatch.context() as patch, Sessions(database) as sessions:
        patch.setattr(ReadSession, "read", meeting)
        outcome = movie.tick(**PARALLEL)

    assert outcome.row_counts == alone.row_counts
    assert len(outcome.row_counts) > 4
    assert len(numbers) == len(outcome.row_counts), "nothing is read twice"
    assert len(sessions.most) <= 3, "beside the kept connection, which has no name here"
    assert movie.compare() == SAME


def test_one_range_at_a_time_is_read_over_one_connection(movie, monkeypatch):
    """Also the range that is read while the one before is converted and written."""
    read, reading = ReadSession.read, []

    def noted(self: ReadSession, query: str, label: str):
        reading.append((self is self._source.sessions.first, self.is_reading))
        return read(self, query, label)

    monkeypatch.setattr(ReadSession, "read", noted)

    movie.tick(slice_rows=500, slice_bytes=100_000)

    assert len(reading) > 3
    assert set(reading) == {(True, False)}
    assert movie.compare() == SAME


def test_the_next_range_is_read_while_one_is_converted_and_the_one_after_is_measured(movie, monkeypatch):
    """Otherwise the server waits for the client, and the client for the server."""
    read, convert, measure = ReadSession.read, SentRows.frame, Source.measure
    begun, second, third_is_measured, converted = threading.Semaphore(0), threading.Event(), threading.Event(), []

    def reads(self: ReadSession, query: str, label: str):
        begun.release()
        if len(converted) == 2:
            second.set()
            assert third_is_measured.wait(30)
        return read(self, query, label)

    def converts(self: SentRows):
        converted.append(self.height)
        # The newest rows, the first range, and the second one during the conversion of the first.
        if len(converted) == 2:
            assert all(begun.acquire(timeout=30) for _ in range(3))
        return convert(self)

    def measures(self: Source, *arguments: object, **named: object):
        if second.is_set():
            third_is_measured.set()
        return measure(self, *arguments, **named)

    monkeypatch.setattr(ReadSession, "read", reads)
    monkeypatch.setattr(SentRows, "frame", converts)
    monkeypatch.setattr(Source, "measure", measures)

    movie.tick(slice_rows=500, slice_bytes=100_000)

    assert len(converted) > 3
    assert third_is_measured.is_set()
    assert movie.compare() == SAME


def test_a_column_that_is_added_during_a_load_is_read_with_the_next_range(movie, database, monkeypatch):
    """The query of that range was made when its size was measured, and may be older than the column."""
    convert, converted = slice_reader.conformed, []

    def converts(frame, table):
        converted.append(frame.width)
        if len(converted) == 3:  # the newest rows, the first range, and the second one
            database.execute("alter table movie add column rating int default 5")
        return convert(frame, table)

    monkeypatch.setattr(slice_reader, "conformed", converts)

    movie.tick(slice_rows=500, slice_bytes=100_000)

    assert converted[3:] == [converted[2] + 1] * len(converted[3:])
    assert movie.compare() == SAME


@pytest.mark.parametrize("step", ["put", *also("read", "claim", "list", "unclaim")])
def test_a_writer_that_is_killed_between_ranges_loses_and_doubles_nothing(movie, database, dropped, step):
    assert movie.crash(crash_after(step, 2), **PARALLEL)
    assert dropped, "reads ahead were under way"
    database.execute(f"{fill(2_001, 2_010)}; update movie set title = 'again' where movie_id % 700 = 0")

    compared(movie)


def test_a_killed_writer_leaves_no_read_on_the_server(database, bucket):
    database.execute(SLOW)
    database.execute("create table movie (movie_id int primary key, mood feeling, filler text)")
    mood = "case i when 1200 then 'slow'::feeling else 'fast' end"
    database.execute(f"insert into movie select i, {mood}, repeat('x', 200) from generate_series(1, 5000) i")
    database.execute("analyze movie")
    lake = Lake(database, bucket.store())

    def kill(step: str) -> None:
        if step == "claim":
            wait_until_slow(database)
            raise Crash(step)

    assert lake.crash(kill, **PARALLEL)

    wait_until_gone(database)


def test_ranges_with_too_many_rows_are_divided(database, bucket, dropped):
    """Their size is estimated from the whole table, and the ranges after them are being read as large."""
    database.execute(f"{MOVIE}; alter table movie add filler text")
    database.execute("insert into movie (movie_id, filler) select i, repeat('x', 1500) from generate_series(1, 600) i")
    database.execute("insert into movie (movie_id) select i from generate_series(601, 6000) i; analyze movie")
    lake = Lake(database, bucket.store())

    outcome = lake.tick(**PARALLEL)

    assert max(outcome.row_counts) <= 500
    assert sum(outcome.row_counts) == 6_000
    assert dropped
    assert lake.compare() == SAME


@pytest.mark.parametrize(
    "change",
    [
        "alter table movie rename column title to name; alter table movie rename column price to title",
        "delete from movie where movie_id < 800; vacuum full movie",
        *also("alter table movie add rating int default 7", "truncate movie", "drop table movie; " + MOVIE),
    ],
)
def test_a_table_altered_while_ranges_are_read_ahead_loses_and_doubles_nothing(
    movie, database, monkeypatch, dropped, change
):
    """Rows of the blocks of another file, or under the names of other columns, would be committed."""

    def alter() -> None:
        with database.connect() as connection:
            for statement in change.split("; "):
                connection.execute(statement)

    done = threading.Event()

    def once_committed(step: str) -> None:
        if step == "put" and not done.is_set():
            done.set()
            alter()

    movie.tick(crash_at=once_committed, **PARALLEL)

    assert done.is_set()
    compared(movie)


@pytest.mark.parametrize("step", ["claim", *also("read", "list", "put")])
def test_another_writer_that_commits_between_ranges_read_ahead_doubles_nothing(database, movie, step, dropped):
    one, two = (Lake(database, movie.store, sync_class=NoLock) for _ in range(2))
    written = []

    def write(name: str) -> None:
        if name == step and len(written) < 3:
            written.append(name)
            if len(written) > 1:
                two.tick(slice_rows=350, turn_s=0.0)

    one.tick(crash_at=write, **PARALLEL)
    one.tick(crash_at=write, **PARALLEL)

    assert len(written) == 3
    compared(one)
    compared(two)
    assert one.compare() == SAME


def test_a_load_goes_on_alone_if_the_server_accepts_no_further_connection(movie, monkeypatch):
    """A role with a limit of two connections could load no table otherwise."""
    read = ReadSession.read

    def refused(self: ReadSession, query: str, label: str):
        if self is not self._source.sessions.first:
            raise SourceUnavailable("the server has no free connection")
        return read(self, query, label)

    monkeypatch.setattr(ReadSession, "read", refused)

    outcome = movie.tick(**PARALLEL)

    assert outcome.row_count == 2_000
    assert movie.compare() == SAME


@repetition  # of the same with one range at a time
def test_a_load_in_turns_delivers_the_same(movie):
    while (outcome := movie.tick(turn_s=0.0, **PARALLEL)).quiet is None:
        assert len(outcome.committed) == 1
    assert movie.compare() == SAME


def test_a_table_locked_while_ranges_are_read_ahead_keeps_what_is_committed(movie, database):
    with database.connect(autocommit=False) as other:
        with Source(database.conninfo, database.url, 60, lock_timeout_s=0.2) as source:
            lock = once_after("unclaim", lambda: other.execute("lock table movie in access exclusive mode"))
            outcome = movie.copy(source, crash_at=lock, **PARALLEL)
        assert 0 < outcome.row_count < 2_000
        other.rollback()
    compared(movie)


def test_a_load_uses_no_more_connections_than_are_free_but_one_run(movie, database):
    """The setting is a promise to the administrator of the database, and other tables have new rows meanwhile."""
    conninfo = {**database.conninfo, "application_name": "pg_bronze run"}
    # COPY keeps its connections between two reads.

    def source() -> Source:
        return Source(conninfo, database.url, 60, "copy", limit=ConnectionLimit(8, 3, database.url, "run"))

    with Sessions(database) as sessions, source() as of_load:
        outcome = movie.copy(of_load, slice_rows=300, load_parallel=8)
    assert outcome.row_count == 2_000
    assert len(sessions.most) == 4, sessions.most

    database.execute("create table film (like movie); insert into film select * from movie; analyze film")
    with source() as of_load, source() as other, source() as third, Sessions(database) as sessions:
        puts, others = [], {1: other, 4: third}

        def start_another_run(step: str) -> None:
            if step == "put":
                puts.append(step)
                if len(puts) in others:
                    others[len(puts)].ask("select 1")  # without a slot, it would be left to a later tick

        outcome = movie.copy(of_load, "film", slice_rows=300, load_parallel=8, crash_at=start_another_run)
    assert len(puts) > 4
    assert outcome.row_count == 2_000
    assert len(sessions.most) <= 6, sessions.most
