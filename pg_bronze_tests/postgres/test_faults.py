"""PostgreSQL restarts, crashes, ends sessions or has no free connection: a clear error, and later ticks recover.

Whenever it happens, no row is lost, stale or doubled afterwards.
"""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from pg_bronze.demo import data_dir, os_user
from pg_bronze.demo.os_user import unprivileged_user
from pg_bronze.demo.postgres import PostgresServer
from pg_bronze.errors import AccessDenied, DataError, SourceDamaged, SourceUnavailable, StaleSnapshot
from pg_bronze.postgres import activity, read_session
from pg_bronze.postgres.connection import Source
from pg_bronze_tests.harness import kept_sessions
from pg_bronze_tests.harness.clusters import CopiedServer
from pg_bronze_tests.harness.faults import freeze, held_reads, stocked
from pg_bronze_tests.harness.lake import MOVIE, READERS, SAME, Lake, fill
from pg_bronze_tests.harness.repetitions import also, combinations, repetition
from pg_bronze_tests.harness.replicas import PRIMARY_OPTIONS, Standby, until
from pg_bronze_tests.harness.servers import Database, older_servers
from pg_bronze_tests.harness.slow import FAST, SLOW, wait_until_gone


def recovers(lake: Lake) -> None:
    """Copy the other table first, as in the same batch, then the one that failed."""
    for table in ("person", "movie"):
        lake.drain(table)
        assert lake.compare(table) == SAME


@pytest.fixture
def lake(database, bucket) -> Lake:
    return stocked(Lake(database, bucket.store()))


def end_sessions(database: Database) -> None:
    database.execute(
        "select pg_terminate_backend(pid, 10000) from pg_stat_activity where pid <> pg_backend_pid() "
        "and datname = current_database() and backend_type = 'client backend'"
    )


# The steps around which another request may be in progress; test_recovery crashes after each of them.
@pytest.mark.parametrize("step", ["read", "claim", "put", *also("recover", "list", "unclaim")])
def test_a_connection_lost_after_any_step_loses_and_doubles_nothing(lake, database, step):
    """Committed slices are kept, and the next tick copies the others."""

    def on_step(name: str) -> None:
        if name == step:
            end_sessions(database)

    with contextlib.suppress(SourceUnavailable):
        lake.tick(crash_at=on_step, slice_rows=8)  # several, so that one is read while the other is committed

    recovers(lake)


ENDINGS = {"terminated": "select pg_terminate_backend({})", "cancelled": "select pg_cancel_backend({})"}


@pytest.mark.parametrize("name, ending", combinations(READERS, ENDINGS))
def test_a_read_ended_between_its_rows_copies_none_of_them(lake, database, name, ending):
    """The rows received so far would count as all of them."""
    lake.reader = name
    database.execute(f"{SLOW}; alter table movie add f feeling default 'fast'")
    lake.drain()
    before = lake.all_keys()
    many = "select i, repeat('x', 200), now(), 1, 'fast' from generate_series(101, 400) i"
    database.execute(f"insert into movie {many}; insert into movie values (401, 'last', now(), 1, 'slow')")

    with (
        once(database, SENT, database, ENDINGS[ending]),
        pytest.raises(SourceUnavailable, match=r"^movie: the (read was canceled|connection to PostgreSQL was lost)"),
    ):
        lake.tick()

    assert lake.all_keys() == before
    database.execute(FAST)
    recovers(lake)


# 300 rows of 200 bytes are more than the 8 kB that a server buffers before it sends.
SENT = """select pid from pg_stat_progress_copy join pg_stat_activity using (pid, datname)
where wait_event = 'PgSleep' and tuples_processed >= 300 and datname = current_database()"""


@contextlib.contextmanager
def once(database: Database, asked: str, there: Database, act: str) -> Iterator[None]:
    """Inside, as soon as ``asked`` returns a value in ``database``, ``act`` is executed ``there`` with that value."""

    def wait() -> None:
        until(database.server, database.name, f"select exists ({asked})")
        with there.connect() as connection:
            for statement in act.format(database.execute(asked)[0][0]).split("; "):
                connection.execute(statement.encode())

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(wait)
        yield
        done.result()


def hasten(lake: Lake, patch: pytest.MonkeyPatch, limit_s: float, login_s: float) -> None:
    """Shorten the time limits of a read and of a login."""
    made = lake.source

    def hasty() -> Source:
        found = made()
        found._statement_timeout_s = limit_s
        return found

    patch.setattr(lake, "source", hasty)
    patch.setattr(read_session, "LOGIN_S", login_s)


def test_a_read_beyond_its_time_limit_is_canceled_by_the_server(lake, database, monkeypatch):
    """If only the client stops, its session continues to read."""
    database.execute(f"{SLOW}; alter table movie add f feeling default 'slow'")

    with monkeypatch.context() as patch:
        hasten(lake, patch, limit_s=1.0, login_s=4.0)
        with pytest.raises(SourceUnavailable, match=r"^movie: the read was canceled, by its time limit"):
            lake.tick()

    wait_until_gone(database)
    database.execute("alter table movie drop column f")
    recovers(lake)


def test_a_read_that_waits_for_a_lock_is_ended(lake, database, monkeypatch):
    """connectorx sets no time limit before it has the query described, and cannot be interrupted: a table that is being
    rewritten would block the run, and all tables after it, until the rewrite ends.
    """
    with monkeypatch.context() as patch:
        hasten(lake, patch, limit_s=0.5, login_s=0.5)
        with held_reads(database, "movie", _until_gone), pytest.raises(SourceUnavailable, match=r"^movie: "):
            lake.tick()

    recovers(lake)


def _until_gone(other: psycopg.Connection, pid: int) -> None:
    waiting = "select exists (select from pg_locks where not granted and pid = %s), pg_sleep(0.02)"
    while other.execute(waiting, (pid,)).fetchone()[0]:
        pass


@pytest.fixture
def guest(database) -> Iterator[Callable[[int], dict]]:
    """Creates a role with a connection limit that may read everything; returns its login."""
    role = f"guest_{database.name}"

    def make(limit: int) -> dict:
        database.execute(
            f"create role {role} login password 'guest' connection limit {limit}; grant pg_read_all_data to {role}"
        )
        return {"user": role, "password": "guest"}

    yield make
    database.execute(f"drop role if exists {role}")


def test_a_role_without_a_free_connection_is_reported(lake, database, guest):
    """A message that the server is down would send the operator to the wrong place."""
    login = guest(0)

    with (
        pytest.raises(SourceUnavailable, match=r"no free connection.*retried at the next tick"),
        Source({**database.conninfo, **login}, database.url, 60) as source,
    ):
        source.ask("select 1")


@pytest.mark.parametrize(
    "change, words",
    [
        ("alter role {role} nologin", "is not permitted to log in"),
        ("revoke connect on database {database} from public", "permission denied for database"),
    ],
)
def test_a_role_that_is_not_admitted_is_reported_with_the_reason(database, guest, change, words):
    login = guest(5)
    database.execute(change.format(role=login["user"], database=database.name))

    with (
        pytest.raises(AccessDenied, match=rf"{words}.*Grant login and connect"),
        Source({**database.conninfo, **login}, database.url, 60) as source,
    ):
        source.ask("select 1")


def test_an_unknown_refusal_is_repeated(database):
    """Poolers and providers have messages of their own, and a server may use another language."""
    with (
        pytest.raises(
            SourceUnavailable, match=r"refused the connection \(.*unrecognized .* \"no_such\".*retried at the next tick"
        ),
        Source({**database.conninfo, "options": "-c no_such=1"}, database.url, 60) as source,
    ):
        source.ask("select 1")


def test_the_last_free_connection_is_not_enough(database, guest):
    """connectorx opens one of its own and tries for 30 s; the batch checks before every table waits that long."""
    with Source({**database.conninfo, **guest(1)}, database.url, 60) as source:
        source.ask("select 1")

        with pytest.raises(SourceUnavailable, match="no free connection"):
            source.check()


def test_a_server_without_a_free_connection_is_reported_and_copied_later(tmp_path, bindir, bucket):
    """An application that opens too many connections is no reason to check whether the server is up."""
    options = {"max_connections": "8", "max_wal_senders": "0"}
    with CopiedServer(tmp_path, bindir=bindir, options=options) as server:
        lake = stocked(Lake(Database(server, "postgres"), bucket.store()))
        kept_sessions.close_all(server)
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(psycopg.OperationalError):
                while True:
                    stack.enter_context(server.connect())
            with pytest.raises(SourceUnavailable, match=r"no free connection.*retried at the next tick"):
                lake.tick()

        _patiently(lake.database, "select 1")
        kept_sessions.close_all(server)
        clients = "from pg_stat_activity where backend_type = 'client backend'"
        until(server, "postgres", f"select count(*) = 1 {clients}")
        recovers(lake)


@pytest.fixture(scope="module")
def own_server(bindir, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server for this module alone, to be stopped and crashed; it writes its log to disk as a real one does."""
    # None but the log writer and sessions that commit flush its log: the checkpointer, the writer of dirty pages and
    # autovacuum would do so at any time.
    options = {
        "max_prepared_transactions": "5",
        "checkpoint_timeout": "1d",
        "bgwriter_lru_maxpages": "0",
        "autovacuum": "off",
    }
    with CopiedServer(tmp_path_factory.mktemp("postgres"), bindir=bindir, options=options) as server:
        set_log_writer(server, "10ms")
        yield server


def set_log_writer(server: PostgresServer, delay: str) -> None:
    """Set the delay of the log writer: with a long one, a crash finds records that are not flushed."""
    with server.connect(autocommit=True) as connection:
        connection.execute(f"alter system set wal_writer_delay = '{delay}'".encode())
        connection.execute("select pg_reload_conf()")


@pytest.fixture
def own(own_server, bucket, monkeypatch) -> Iterator[Lake]:
    monkeypatch.setattr(activity, "FLUSH_WAIT_S", 30.0)  # with so late a log writer a tick would be postponed
    name = f"own_{bucket.name.replace('-', '_')}"
    Database(own_server, "postgres").execute(f"create database {name}")
    yield Lake(Database(own_server, name), bucket.store())
    Database(own_server, "postgres").execute(f"drop database {name} with (force)")


def restart(server: PostgresServer, mode: str) -> None:
    if mode == "killed":
        server.kill()
    else:
        server.stop(mode)
    server.start()


@pytest.mark.parametrize("mode", ["killed", *also("fast")])
def test_copying_continues_after_a_restart_between_or_during_reads(own, own_server, mode):
    """A restart is over before a person has read the error, so nobody should have to act."""
    stocked(own)
    restart(own_server, mode)
    own.tick()
    own.database.execute(f"{fill(2_000, 6_000)}")

    def on_step(name: str) -> None:
        if name == "claim" and not restarted:
            restarted.append(name)
            restart(own_server, mode)

    restarted: list[str] = []
    # Only a read that was under way fails; the session that was idle meanwhile is replaced.
    with contextlib.suppress(SourceUnavailable):
        own.tick(crash_at=on_step, slice_rows=1_000)

    assert restarted
    own.drain("movie", slice_rows=1_000)
    recovers(own)


# What is damaged, and the relation whose file it is.
DAMAGE = {
    "pages": "'movie'",
    "pages of its long values": "(select reltoastrelid from pg_class where relname = 'movie')",
    "the file": "'movie'",
}


@pytest.mark.parametrize("name, damage", combinations(READERS, DAMAGE))
def test_a_damaged_table_stops_with_its_own_error_until_it_is_restored(own, own_server, name, damage):
    """A message about the network, or an altered table, would send the operator to the wrong place."""
    stocked(own)
    own.reader = name
    own.database.execute("alter table movie add plot text; alter table movie alter plot set storage external")
    own.drain("movie")
    own.database.execute("insert into movie (movie_id, plot) values (100, repeat('x', 9000))")
    [[path]] = own.database.execute(f"select pg_relation_filepath({DAMAGE[damage]}::regclass)")
    own_server.stop()
    file = data_dir.open_data_dir(own_server.data_dir, unprivileged_user()) / "data" / path
    whole = file.read_bytes()
    if damage == "the file":
        file.unlink()
    else:
        with file.open("r+b") as opened:
            opened.write(b"\xff" * len(whole))
    own_server.start()
    before = own.all_keys()

    with pytest.raises(
        SourceDamaged, match=r"^movie: the table is corrupted on disk: .* Restore the table from a backup"
    ):
        own.tick()
    assert own.all_keys() == before
    own.drain("person")

    own_server.stop()
    file.write_bytes(whole)
    os_user.change_owner(file, unprivileged_user())
    own_server.start()
    recovers(own)


@pytest.mark.parametrize("name", READERS)
def test_an_error_raised_by_a_users_cast_is_reported_without_its_text(lake, database, name):
    """The text of such an error may hold a value of a row."""
    lake.reader = name
    database.execute(f"{SLOW}; alter table movie add f feeling default 'fast'")
    lake.drain()
    database.execute(
        "create or replace function slowly(feeling) returns text language plpgsql as "
        "$$ begin raise 'a secret value'; end $$; insert into movie (movie_id) values (100)"
    )

    with pytest.raises(DataError, match=r"^movie: column 'f': an expression fails .*SQLSTATE P0001") as error:
        lake.tick()

    assert "secret" not in str(error.value)
    database.execute(FAST)
    recovers(lake)


def test_a_horizon_is_not_used_before_the_log_is_flushed(own, own_server, monkeypatch):
    """After a crash the server would assign the ids below it again, and rows written under them would be lost."""
    database = own.database
    database.execute("create table movie (movie_id int)")
    [(log_writer,)] = database.execute("select pid from pg_stat_activity where backend_type = 'walwriter'")
    with Source(database.conninfo, database.url, 30) as source, database.connect() as connection:
        freeze(log_writer)
        try:
            with connection.transaction(force_rollback=True):
                connection.execute("insert into movie values (1)")
            with monkeypatch.context() as patch:
                patch.setattr(activity, "FLUSH_WAIT_S", 0.2)
                with pytest.raises(SourceUnavailable, match="did not flush its write-ahead log"):
                    source.horizon()
        finally:
            os.kill(log_writer, signal.SIGCONT)

        assert source.horizon() > 0


def _rolled_back(connection: psycopg.Connection) -> None:
    with connection.transaction(force_rollback=True):
        connection.execute("insert into movie values (100, 'rolled back')")


def _only_an_id(connection: psycopg.Connection) -> None:
    with connection.transaction(force_rollback=True):
        connection.execute("select pg_current_xact_id()")


def _asynchronous(connection: psycopg.Connection) -> None:
    connection.execute("set synchronous_commit = off")
    connection.execute("insert into movie values (101, 'committed, but not for long')")


CASES = {"rolled back": _rolled_back, "only an id": _only_an_id, "asynchronous commit": _asynchronous}


@pytest.mark.parametrize("case, how", combinations(CASES, ["immediate", "a session killed"]))
def test_ids_that_a_crash_hands_out_again_hide_no_row(own, own_server, case, how):
    """Rows written under a reused id are below a horizon that no flushed record mentions, and lost for good."""
    database = own.database
    database.execute(f"{MOVIE}; {fill(1, 10)}; checkpoint")
    own.drain()
    set_log_writer(own_server, "1s")
    database.execute("insert into movie values (50, 'on time')")  # or the tick would commit nothing, nor a horizon
    with database.connect() as connection:
        CASES[case](connection)
        assert own.tick().row_count > 0
        if how == "immediate":
            own_server.stop("immediate")
        else:
            _kill_a_session(database)
    if how == "immediate":
        own_server.start()

    for number in (11, 12, 13):
        _patiently(database, f"{fill(number, number)} on conflict do nothing")
    set_log_writer(own_server, "10ms")
    own.drain()

    assert {11, 12, 13} <= set(own.column())
    assert own.compare() == SAME


def _kill_a_session(database: Database) -> None:
    """Kill a session, after which the server restarts all of them; it has begun to when this returns.

    Until it has ended every other session, a statement can still commit and its answer be lost.
    """
    import os
    import signal

    with database.connect() as victim, database.connect() as other:
        os.kill(victim.info.backend_pid, signal.SIGKILL)
        with pytest.raises(psycopg.OperationalError):
            other.execute("select pg_sleep(60)")


def _patiently(database: Database, query: str) -> None:
    """Run a statement as soon as the server accepts connections. It may have been committed without an answer."""
    while True:
        try:
            database.execute(query)
        except psycopg.OperationalError:
            continue
        return


@pytest.fixture(scope="module", params=["18", "14"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Database, Standby]]:
    """A primary's database, and a standby whose replay no query can delay."""
    bindir = older_servers().get(request.param)
    if bindir is None and request.param != "18":
        pytest.skip(f"no PostgreSQL {request.param} here")
    with CopiedServer(tmp_path_factory.mktemp("primary"), bindir=bindir, options=PRIMARY_OPTIONS) as primary:
        options = {"max_standby_streaming_delay": "0"}
        with Standby(tmp_path_factory.mktemp("standby"), primary, options) as standby:
            database = Database(primary, "shop")
            Database(primary, "postgres").execute("create database shop")
            database.execute(SLOW)
            yield database, standby


# An earlier snapshot would still see the deleted row; the lock ends every read of the table.
CONFLICTS = {
    "snapshot": "delete from movie where f = 'slow'; vacuum movie",
    "lock": "begin; delete from movie where f = 'slow'; lock table movie in access exclusive mode; commit",
}


@pytest.mark.parametrize(
    "pair, name, conflict",
    [
        ("18", "copy", "snapshot"),
        ("18", "connectorx", "lock"),
        pytest.param("18", "copy", "lock", marks=repetition),
        pytest.param("18", "connectorx", "snapshot", marks=repetition),
        pytest.param("15", "copy", "snapshot", marks=repetition),
        pytest.param("15", "connectorx", "lock", marks=repetition),
    ],
    indirect=["pair"],
    scope="module",  # otherwise each case would start servers of its own
)
def test_a_conflict_with_recovery_on_a_standby_is_reported_and_retried(pair, bucket, name, conflict):
    """A standby cancels readers that delay its replay: no row of that read may count, and the next one is complete."""
    shop, standby = pair
    there = Database(standby, "shop")
    lake = Lake(there, bucket.store(), reader=name)
    shop.execute(f"drop table if exists movie; {MOVIE}; alter table movie add f feeling default 'fast'; {fill(1, 10)}")
    standby.catch_up()
    lake.drain()
    before = lake.all_keys()
    many = "select i, repeat('x', 200), now(), 1, 'fast' from generate_series(101, 400) i"
    shop.execute(f"insert into movie {many}; insert into movie values (401, 'last', now(), 1, 'slow')")
    standby.catch_up()

    with (
        once(there, SENT, shop, CONFLICTS[conflict]),
        pytest.raises(SourceUnavailable, match=r"^movie: the read was canceled.*conflict with recovery"),
    ):
        lake.tick()

    assert lake.all_keys() == before
    shop.execute(fill(11, 20))
    standby.catch_up()
    lake.drain()
    assert len(lake.column()) == 320
    assert lake.compare() == SAME


@pytest.mark.parametrize("pair, name", [("18", name) for name in READERS], indirect=["pair"], scope="module")
def test_a_standby_behind_the_server_the_horizon_came_from_is_not_read(pair, bucket, monkeypatch, name):
    """With one host name for both, rows the standby has not replayed yet would be below a horizon already passed."""
    shop, standby = pair
    there = Database(standby, "shop")
    lake = Lake(shop, bucket.store(), reader=name)
    shop.execute(f"drop table if exists movie, person; {MOVIE}; {fill(1, 3)}; create table person (movie_id int)")
    standby.catch_up()
    there.execute("select pg_wal_replay_pause()")
    until(standby, "shop", "select pg_get_wal_replay_pause_state() = 'paused'")
    shop.execute(f"{fill(4, 4)}; insert into person values (1)")

    with Source(there.conninfo, there.url, 60, name) as behind:
        reader, _ = behind.choose_reader()
        monkeypatch.setattr(Source, "choose_reader", lambda self: (reader, self.connection))
        try:
            for table in ("movie", "person"):
                with pytest.raises(StaleSnapshot, match=rf"^{table}: .* Nothing was copied"):
                    lake.tick(table)
        finally:
            there.execute("select pg_wal_replay_resume()")
        assert lake.all_keys() == []
        standby.catch_up()
        recovers(lake)
