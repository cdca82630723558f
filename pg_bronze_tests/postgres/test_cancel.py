"""A read is ended on the server too, when its run ends, is interrupted or reaches a time limit."""

import os
import signal
import threading
import time
import weakref
from collections.abc import Callable

import pytest

from pg_bronze.errors import SourceUnavailable
from pg_bronze.postgres.connection import Source
from pg_bronze.postgres.readers import reading as slice_reading
from pg_bronze_tests.harness.faults import freeze
from pg_bronze_tests.harness.lake import SAME, Lake
from pg_bronze_tests.harness.slow import ASLEEP, FAST, SLOW, wait_until_gone, wait_until_slow

QUERY = "select concat(f) as f from public.slow"
LIMIT_S = 15


@pytest.fixture(params=["connectorx", "copy"])
def make(request: pytest.FixtureRequest, database) -> Callable[..., Source]:
    """Makes sources of a database with a table whose reads take ten minutes."""
    database.execute(SLOW)
    database.execute("create table slow (f feeling); insert into slow values ('slow')")
    return lambda **options: Source(database.conninfo, database.url, 600, request.param, **options)


def reading(source: Source, outcomes: list[BaseException]) -> threading.Thread:
    def read() -> None:
        try:
            source.read(QUERY, "thing")
        except BaseException as error:  # noqa: BLE001  (the test inspects it)
            outcomes.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    return thread


def interrupt(database) -> None:
    wait_until_slow(database)
    os.kill(os.getpid(), signal.SIGINT)


def test_closing_a_source_ends_its_read(make, database):
    """Otherwise the read ahead of a run that ended continues to its end."""
    outcomes: list[BaseException] = []
    source = make()
    thread = reading(source, outcomes)
    wait_until_slow(database)

    source.close()
    thread.join(10)

    wait_until_gone(database)
    assert [type(error) for error in outcomes] == [SourceUnavailable]
    assert "thing" in str(outcomes[0])


def test_an_interrupt_ends_the_read(make, database):
    """connectorx ignores signals: Ctrl-C would take effect when all rows have arrived."""
    helper = threading.Thread(target=interrupt, args=(database,))
    with make() as source:
        helper.start()
        with pytest.raises(KeyboardInterrupt):
            source.read(QUERY, "thing")
        helper.join()
        wait_until_gone(database)


def test_an_interrupt_is_answered_when_the_server_is_frozen(make, database, monkeypatch):
    """Such a read cannot be ended, so the process must not wait for it."""
    monkeypatch.setattr(slice_reading, "GIVE_UP_S", 1.0)
    frozen: list[int] = []

    def freeze_and_interrupt() -> None:
        wait_until_slow(database)
        frozen.extend(pid for (pid,) in database.execute(ASLEEP))
        for pid in frozen:
            freeze(pid)
        os.kill(os.getpid(), signal.SIGINT)

    helper = threading.Thread(target=freeze_and_interrupt)
    try:
        with make() as source:
            helper.start()
            with pytest.raises(KeyboardInterrupt):
                source.read(QUERY, "thing")
            helper.join()
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    assert frozen
    wait_until_gone(database)


def test_a_read_ends_at_the_time_limit_of_its_run(make, database):
    began = time.monotonic()
    with make(ends_at=began + 3) as source, pytest.raises(SourceUnavailable, match="thing: the read was canceled"):
        source.read(QUERY, "thing")
    wait_until_gone(database)
    assert time.monotonic() - began < 15


def test_no_read_begins_shortly_before_the_time_limit_of_its_run(make, database):
    with make(ends_at=time.monotonic() + 1) as source, pytest.raises(SourceUnavailable, match="PG_BRONZE_MAX_RUN_S"):
        source.read(QUERY, "thing")
    wait_until_gone(database)


@pytest.fixture
def slow_end(database, bucket, monkeypatch) -> Lake:
    """A lake whose statements are canceled after ``LIMIT_S``; ``fill_slow`` creates its table ``movie``."""
    monkeypatch.setattr(Lake, "source", lambda lake: Source(lake.database.conninfo, lake.database.url, LIMIT_S))
    database.execute(SLOW)
    return Lake(database, bucket.store())


def fill_slow(database, rows: int) -> None:
    """Create a table whose last row takes ten minutes. A block of 400 rows fits in a slice and is not measured."""
    database.execute(
        "create table movie (movie_id int primary key, title text default repeat('x', 200), f feeling default 'fast');"
        f"insert into movie select i from generate_series(1, {rows}) i;"
        f"insert into movie values ({rows} + 1, 'last', 'slow')"
    )


@pytest.mark.parametrize("rows, slice_rows", [(400, 100), (2000, 200)], ids=["while it reads", "while it measures"])
def test_a_run_that_is_ended_does_not_wait_for_the_read_ahead(slow_end, database, rows, slice_rows):
    """Committed slices are kept; the slice read ahead is discarded, and the next tick reads it again."""
    fill_slow(database, rows)
    lake = slow_end
    steps: list[str] = []
    ended: list[float] = []

    def interrupted(step: str) -> None:
        """Interrupt the commit as soon as the concurrent read is the slow one."""
        steps.append(step)
        while step == "put" and steps.count("read") == steps.count("put"):
            if wait_until_slow(database, 0):
                ended.append(time.monotonic())
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lake.tick(slice_rows=slice_rows, crash_at=interrupted)

    assert time.monotonic() - ended[0] < LIMIT_S / 2
    wait_until_gone(database, LIMIT_S / 3)
    database.execute(FAST)
    kept = lake.keys()
    lake.drain(slice_rows=slice_rows)
    assert lake.keys()[: len(kept)] == kept != []
    assert lake.compare() == SAME


def test_an_interrupt_ends_the_wait_for_the_read_ahead(slow_end, database):
    """Polars makes signals restart the system calls that they interrupt."""
    fill_slow(database, 400)
    answered: list[float] = []

    def press() -> None:
        interrupt(database)
        answered.append(-time.monotonic())

    helper = threading.Thread(target=press)
    helper.start()
    with pytest.raises(KeyboardInterrupt):
        slow_end.tick(slice_rows=100)
    answered.append(time.monotonic())
    helper.join()

    assert sum(answered) < LIMIT_S / 2
    wait_until_gone(database, LIMIT_S / 3)


def test_measuring_ends_at_the_time_limit_of_its_run(slow_end, database):
    """Blocks of wide rows are measured before they are read."""
    fill_slow(database, 1)
    began = time.monotonic()
    source = Source(database.conninfo, database.url, 40, ends_at=began + 3)

    with source, pytest.raises(SourceUnavailable, match="thing: the read was canceled"):
        source.measure("select count(*), sum(octet_length(concat(f))) from public.movie", "thing")

    wait_until_gone(database)
    assert time.monotonic() - began < 15


def test_nothing_is_measured_shortly_before_the_time_limit_of_its_run(slow_end, database):
    with (
        Source(database.conninfo, database.url, 600, ends_at=time.monotonic() + 1) as source,
        pytest.raises(SourceUnavailable, match="PG_BRONZE_MAX_RUN_S"),
    ):
        source.measure("select 1", "thing")


def test_a_source_does_not_keep_the_frame_it_returned(database):
    """With rows of 20 MB, two frames would be in memory at once."""
    with Source(database.conninfo, database.url, 60) as source:
        frame = source.read("select 1::int4 as a", "movie")
        kept = weakref.ref(frame)
        for thread in threading.enumerate():
            if thread.name.startswith("read "):
                thread.join(10)
        del frame

        assert kept() is None
