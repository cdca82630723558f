"""The slots of runs and the short connection: what the limit on connections consists of."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import filelock
import pytest

from pg_bronze.errors import NoConnectionFree, SettingsError
from pg_bronze.postgres import connection_limit
from pg_bronze.postgres.connection import Source
from pg_bronze.postgres.connection_limit import ConnectionLimit, Use
from pg_bronze_tests.harness.clusters import CopiedServer
from pg_bronze_tests.harness.replicas import PRIMARY_OPTIONS, Standby
from pg_bronze_tests.harness.servers import Database, fresh_database
from pg_bronze_tests.harness.sessions import Sessions
from pg_bronze_tests.harness.slow import SLOW, wait_until_gone, wait_until_slow

SESSIONS = "select count(*) from pg_stat_activity where application_name = 'pg_bronze run' and datname = %s"
Make = Callable[..., Source]


@pytest.fixture
def make(database) -> Make:
    """Makes sources with a limit of six connections, which is two runs."""

    def source(use: Use = "run", name: str = "pg_bronze run", reader: str = "auto", slots: int = 2) -> Source:
        limit = ConnectionLimit(2 * slots + 2, slots, database.url, use)
        conninfo = {**database.conninfo, "application_name": name}
        return Source(conninfo, database.url, 600, reader, limit=limit)

    return source


def test_no_more_runs_than_slots_get_a_connection(make: Make, database):
    with make() as first, make() as second, make() as third:
        assert first.ask("select 1") == second.ask("select 1") == [(1,)]

        with pytest.raises(NoConnectionFree, match=r"PG_BRONZE_MAX_CONNECTIONS is 6, .* for 2 runs at once"):
            third.ask("select 1")

        with database.connect() as other:
            while other.execute(SESSIONS, (database.name,)).fetchone() != (2,):  # the third one is closed
                pass
        first.close()
        while True:
            try:
                assert third.ask("select 1") == [(1,)]
                break
            except NoConnectionFree:  # until the server has ended the session of the first
                pass


def test_the_slot_of_a_run_whose_session_was_ended_is_free(make: Make, database):
    """A killed worker would otherwise hold its slot until somebody restarts the server."""
    with make(slots=1) as killed, make(slots=1) as next_one:
        pid = killed.ask("select pg_backend_pid()")[0][0]
        database.execute(f"select pg_terminate_backend({pid}, 5000)")

        assert next_one.ask("select 1") == [(1,)]
        with pytest.raises(NoConnectionFree):
            killed.connection  # noqa: B018


def test_sensor_and_catalog_need_no_slot(make: Make):
    with make(slots=1) as run, make("sensor") as sensor, make("short") as short:
        assert run.ask("select 1") == sensor.ask("select 1") == short.ask("select 1")


def test_the_holders_of_slots_are_known_by_name(make: Make, database):
    """The sensor requests no run for a slot that a command has."""
    with make("sensor") as sensor, make(name="pg_bronze run 1a2b") as _run, make(name="pg_bronze command") as command:
        assert connection_limit.holders(sensor) == []
        command.ask("select 1")
        _run.ask("select 1")
        assert sorted(connection_limit.holders(sensor)) == ["pg_bronze command", "pg_bronze run 1a2b"]
        _run.try_lock(4711)  # the lock of a table is no slot
        assert len(connection_limit.holders(sensor)) == 2


def test_the_slots_of_another_database_are_not_counted(make: Make, database, postgres_server):
    with fresh_database(postgres_server) as other, make("sensor") as sensor:
        limit = ConnectionLimit(4, 1, other.url, "run")
        with Source(other.conninfo, other.url, 60, limit=limit) as run:
            run.ask("select 1")
            assert connection_limit.holders(sensor) == []


def test_one_short_connection_is_open_at_a_time(make: Make, database):
    """Each of many run workers reads the catalog when it starts."""

    def read(_: int) -> None:
        with make("short", "pg_bronze catalog") as source:
            assert source.ask("select count(*) from generate_series(1, 100000)") == [(100000,)]

    with Sessions(database) as sessions, ThreadPoolExecutor(6) as pool:
        list(pool.map(read, range(40)))
    assert list(sessions.most) == ["pg_bronze catalog"]


def test_runs_that_look_for_a_slot_stay_within_the_limit(make: Make, database):
    """Each of them has to connect before it can find out that there is no slot."""

    def look(number: int) -> None:
        with make("short" if number % 2 else "run", slots=1) as source:
            try:
                source.ask("select 1")
            except NoConnectionFree:
                assert number % 2 == 0

    with make(slots=1, reader="copy") as run, make("sensor") as sensor:
        sensor.ask("select 1")
        run.read("select 1 as n", "thing")  # its reader stays connected
        with Sessions(database) as sessions, ThreadPoolExecutor(6) as pool:
            list(pool.map(look, range(60)))
    assert 3 <= len(sessions.most) <= 4, sessions.most


def test_a_run_waits_for_the_short_connection_and_not_forever(make: Make, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection_limit, "WAIT_S", 0.2)
    with make("short") as short, make() as run:
        short.ask("select 1")
        with pytest.raises(NoConnectionFree):
            run.ask("select 1")
        short.close()
        assert run.ask("select 1") == [(1,)]


def test_a_file_that_cannot_be_locked_is_named(make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(connection_limit.tempfile, "gettempdir", lambda: str(tmp_path / "a file"))
    (tmp_path / "a file").write_text("")
    with make() as run, pytest.raises(SettingsError, match=r"^PG_BRONZE_MAX_CONNECTIONS requires a file .*TMPDIR"):
        run.ask("select 1")


@pytest.mark.parametrize("reader", ["connectorx", "copy"])
def test_a_run_whose_read_is_canceled_stays_within_the_limit(make: Make, database, reader):
    """connectorx's session can only be ended from another one."""
    database.execute(SLOW)
    database.execute("create table slow (f feeling); insert into slow values ('slow')")
    source = make(reader=reader, slots=1)
    outcomes: list[BaseException] = []

    def read() -> None:
        try:
            source.read("select concat(f) as f from public.slow", "thing")
        except BaseException as error:  # noqa: BLE001  (the test inspects it)
            outcomes.append(error)

    with Sessions(database) as sessions, make("short", slots=1) as short:
        short.ask("select 1")
        thread = threading.Thread(target=read)
        short.close()
        thread.start()
        wait_until_slow(database)
        source.close()
        thread.join(10)
        wait_until_gone(database)
    assert len(outcomes) == 1
    assert len(sessions.most) <= 3


def test_an_unlimited_source_locks_nothing(database):
    with Source(database.conninfo, database.url, 60) as source:
        source.ask("select 1")
        assert source.ask("select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()") == [
            (0,)
        ]


def test_the_file_is_that_of_this_user_and_database(make: Make, database):
    here, there = (connection_limit._lock_of(place) for place in (database.url, f"{database.url}2"))
    assert here.lock_file != there.lock_file
    with here, pytest.raises(filelock.Timeout):
        connection_limit._lock_of(database.url).acquire(timeout=0)


def test_the_slots_of_a_standby_are_its_own(tmp_path: Path):
    """Nothing can be written there, and its locks are not those of the primary."""
    with (
        CopiedServer(tmp_path / "primary", options=PRIMARY_OPTIONS) as primary,
        Standby(tmp_path / "standby", primary) as standby,
    ):
        database = Database(standby, "postgres")
        limit = ConnectionLimit(4, 1, database.url, "run")
        with (
            Source(database.conninfo, database.url, 60, limit=limit) as first,
            Source(database.conninfo, database.url, 60, limit=limit) as second,
        ):
            assert first.ask("select pg_is_in_recovery()") == [(True,)]
            assert connection_limit.holders(first) == [""]
            with pytest.raises(NoConnectionFree):
                second.ask("select 1")
