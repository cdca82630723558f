"""Behind pgbouncer: no row lost or doubled, and no setting or lock left in a session that another client gets."""

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from benchmarks.race import race
from pg_bronze.core.table import literal
from pg_bronze.errors import StaleSnapshot, TransientError
from pg_bronze.postgres import connection_limit
from pg_bronze.postgres.connection import Source
from pg_bronze.postgres.connection_limit import ConnectionLimit
from pg_bronze.postgres.readers.binary_copy import CopyReader
from pg_bronze_tests.harness.faults import stale_reads
from pg_bronze_tests.harness.lake import MOVIE, SAME, Lake, fill
from pg_bronze_tests.harness.pooler import pgbouncer
from pg_bronze_tests.harness.servers import Database


@dataclass
class Pooled(Database):
    """The database behind a pooler; ``connect`` connects to the server, ``conninfo`` and ``url`` to the pooler."""

    port: int = 0

    @property
    def conninfo(self) -> dict[str, Any]:
        return {**super().conninfo, "port": self.port}

    @property
    def url(self) -> str:
        return super().url.replace(f":{self.server.port}/", f":{self.port}/")

    def connect(self, **changed: Any) -> psycopg.Connection:
        return super().connect(**{"port": self.server.port, **changed})

    def source(self) -> Source:
        return Source(self.conninfo, self.url, 60)


@pytest.fixture(scope="module")
def poolers(postgres_server) -> Iterator[dict[str, int]]:
    """The port of a pooler for each mode. With a single session, transactions would not change sessions."""
    with pgbouncer(postgres_server, "transaction", 3) as transaction, pgbouncer(postgres_server, "session", 30) as own:
        yield {"transaction": transaction, "session": own}


@pytest.fixture(params=["transaction", "session"])
def pooled(request: pytest.FixtureRequest, database, poolers) -> Pooled:
    return Pooled(database.server, database.name, poolers[request.param])


@pytest.fixture
def shared(database, poolers) -> Pooled:
    return Pooled(database.server, database.name, poolers["transaction"])


def test_a_pooler_is_detected_and_read_by_copy(pooled: Pooled):
    """connectorx prepares a statement in one transaction and uses it in the next: 15 of 60 reads failed."""
    with pooled.source() as source:
        assert source.read("select 1::int4 as a", "thing").height == 1
        assert source.pooled
        assert isinstance(source.sessions.first.reader, CopyReader)
    with Source(Database(pooled.server, pooled.name).conninfo, pooled.url, 60) as direct:
        direct.ask("select 1")
        assert not direct.pooled


def test_rows_are_neither_lost_nor_doubled_behind_a_pooler(pooled: Pooled, bucket):
    """Each transaction may run in another session than the previous one."""
    lake = Lake(pooled, bucket.store())
    pooled.execute(MOVIE)
    pooled.execute(fill(1, 500))
    lake.tick(slice_rows=100)
    pooled.execute("update movie set title = 'x' where movie_id < 20;" + fill(501, 700))
    lake.drain(slice_rows=100)

    assert lake.compare() == SAME


def test_two_copiers_and_writers_race_through_shared_sessions(shared: Pooled, bucket):
    """No lock is held, so only the claims keep order; settings and snapshots of sessions must not be mixed."""
    done, ticks = threading.Event(), []

    def rival() -> None:
        lake = Lake(shared, bucket.store())
        while not done.wait(0.1):
            # The table does not exist yet, or the other copier was first.
            with contextlib.suppress(TransientError, AssertionError):
                ticks.append(lake.tick("race", slice_rows=100).row_count)

    with ThreadPoolExecutor(1) as pool:
        rivalry = pool.submit(rival)
        try:
            result = race(Lake(shared, bucket.store()), seconds=6, writers=8, seed=11)
        finally:
            done.set()
    rivalry.result()

    assert result.difference == SAME
    assert sum(ticks) > 0
    assert result.rows > 200
    assert result.crashes > 0


def test_statements_of_two_threads_do_not_share_a_transaction(shared: Pooled):
    """One slice is read ahead while another one is committed; both threads ask the kept connection."""
    with shared.source() as source, ThreadPoolExecutor(4) as pool:
        source.ask("select 1")
        asked = [pool.submit(source.ask, "select pg_sleep(0.001)::text, %(n)s::int", {"n": n}) for n in range(200)]

        assert [future.result()[0][1] for future in asked] == list(range(200))


def test_a_backslash_in_a_literal_is_itself_behind_a_pooler(pooled: Pooled):
    """A setting of the database reaches every session of the pooler, and each transaction has to pin its own."""
    pooled.execute(f'alter database "{pooled.name}" set standard_conforming_strings = off')
    value = "C:\\new\\"

    with pooled.source() as source:
        query = f"select {literal(value)}::text as p"
        assert source.read(query, "path")["p"].to_list() == [value]
        assert source.ask(query) == [(value,)]
        assert source.pooled


def test_no_setting_or_lock_is_left_in_a_shared_session(shared: Pooled, bucket):
    """Queries of other clients would fail (row_security), be canceled (statement_timeout), or wait for a lock."""
    lake = Lake(shared, bucket.store())
    shared.execute(MOVIE)
    shared.execute(fill(1, 50))
    for _ in range(8):  # as often as psycopg needs to prepare a statement
        shared.execute("update movie set title = title || 'x' where movie_id < 5")
        lake.tick()

    settings = (
        *("row_security", "statement_timeout", "jit", "default_transaction_isolation", "TimeZone"),
        "standard_conforming_strings",
    )
    shown = ", ".join(f"current_setting('{name}')" for name in settings)
    with shared.connect() as connection:
        untouched = connection.execute(f"select {shown}").fetchone()
    with contextlib.ExitStack() as stack:
        # One transaction in each of the pooler's sessions at the same time.
        clients = [stack.enter_context(psycopg.connect(**shared.conninfo)) for _ in range(3)]
        found = [client.execute(f"select pg_backend_pid(), {shown}").fetchone() for client in clients]
        prepared = [client.execute("select count(*) from pg_prepared_statements").fetchone() for client in clients]
    assert len({row[0] for row in found}) == 3
    assert {row[1:] for row in found} == {untouched}
    assert prepared == [(0,)] * 3
    assert shared.execute("select count(*) from pg_locks where locktype = 'advisory'") == [(0,)]
    assert lake.compare() == SAME


def test_no_slot_of_a_run_is_left_in_a_shared_session(shared: Pooled):
    """It would stay taken after the run has ended, and no run would get a connection again."""
    limit = ConnectionLimit(4, 1, shared.url, "run")
    for _ in range(3):
        with Source(shared.conninfo, shared.url, 60, limit=limit) as first:
            assert first.ask("select 1") == [(1,)]
            with Source(shared.conninfo, shared.url, 60, limit=limit) as second:
                assert second.ask("select 1") == [(1,)]
                assert connection_limit.holders(second) == []


@pytest.mark.parametrize("filled", [True, False], ids=["filled", "empty"])
def test_an_older_snapshot_behind_a_pooler_stops_the_read(shared: Pooled, bucket, filled):
    """The pooler may use a session with an older snapshot than the one that returned the horizon."""
    lake = Lake(shared, bucket.store())
    shared.execute(f"{MOVIE}; {fill(1, 3 if filled else 0)}")

    with stale_reads(shared, fill(4, 4)), pytest.raises(StaleSnapshot, match=r"^movie: .* Nothing was copied"):
        lake.tick()

    assert lake.all_keys() == []
    lake.drain()
    assert lake.compare() == SAME
