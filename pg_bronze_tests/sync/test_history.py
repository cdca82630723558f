"""Failovers and restores that really happen: what the table says, and what ``continue`` and ``reset`` make of it."""

import os
import shutil
import signal
from pathlib import Path

import pytest

from pg_bronze.core.watermark import Watermark
from pg_bronze.core.window_sql import HORIZON
from pg_bronze.demo import home
from pg_bronze.demo.account import unprivileged
from pg_bronze.demo.postgres import PostgresServer
from pg_bronze.errors import HistoryChanged, StaleSnapshot
from pg_bronze.lake.commit import SliceWriter
from pg_bronze.lake.ledger import Committed
from pg_bronze.sync import state_changes
from pg_bronze.sync.reconcile import reconcile
from pg_bronze.sync.table_sync import TableSync
from pg_bronze_tests.harness.faults import freeze
from pg_bronze_tests.harness.lake import MOVIE, SAME, Lake, crash_after, fill
from pg_bronze_tests.harness.replicas import PRIMARY_OPTIONS, Standby, Upgraded
from pg_bronze_tests.harness.servers import Database, older_servers, s3_connection


@pytest.fixture(params=["18", "15"])
def primary(request, tmp_path: Path):
    bindir = None if request.param == "18" else older_servers().get(request.param)
    if request.param == "15" and bindir is None:
        pytest.skip("no PostgreSQL 15 here")
    with PostgresServer(tmp_path / "primary", bindir=bindir, options=PRIMARY_OPTIONS) as server:
        yield server


@pytest.fixture
def standby(primary, tmp_path: Path):
    with Standby(tmp_path / "standby", primary) as server:
        yield server


@pytest.fixture
def lake(primary, bucket):
    """Eight films copied from the primary."""
    database = Database(primary, "postgres")
    database.execute(MOVIE)
    database.execute(fill(1, 8))
    found = Lake(database, bucket.store())
    found.drain()
    return found


def fail_over(lake: Lake, standby: Standby) -> Database:
    """Lose the primary and promote the standby; the lake reads from it at once."""
    lake.database.server.kill()
    standby.promote()
    lake.database = Database(standby, "postgres")
    return lake.database


def take_ids(database: Database, count: int) -> None:
    """Transactions that change no row."""
    for _ in range(count):
        database.execute("select pg_current_xact_id()")


def copy_what_the_standby_never_gets(lake: Lake, standby: Standby) -> None:
    """Eleven transactions that are in the lake and not on the standby."""
    standby.catch_up()
    standby.cut_off()
    for number in range(9, 20):
        lake.database.execute(fill(number, number))
    lake.drain()


def test_after_a_failover_that_lost_nothing_the_table_stops_until_continued(lake, standby):
    """Whether anything was lost is not for us to guess."""
    lake.database.execute(fill(9, 10))
    lake.drain()
    standby.catch_up()
    database = fail_over(lake, standby)
    database.execute(fill(11, 12))

    with pytest.raises(HistoryChanged, match=r"timeline 1 to 2.*pg-bronze continue movie.*pg-bronze reset movie"):
        lake.tick()

    lake.tick(act=state_changes.resume)
    outcomes = lake.drain()
    assert sum(outcome.row_count for outcome in outcomes) == 2
    assert lake.compare() == SAME


def test_a_standby_promoted_just_now_stops_the_table_before_its_first_checkpoint(lake, standby):
    """Until then pg_control_checkpoint names the old timeline, and an application does not wait for it."""
    standby.catch_up()
    checkpointer = "select pid from pg_stat_activity where backend_type = 'checkpointer'"
    [(pid,)] = Database(standby, "postgres").execute(checkpointer)
    freeze(pid)
    try:
        database = fail_over(lake, standby)
        database.execute(fill(11, 12))
        assert database.execute("select timeline_id from pg_control_checkpoint()") == [(1,)]

        with pytest.raises(HistoryChanged, match="timeline 1 to 2"):
            lake.tick()
    finally:
        os.kill(pid, signal.SIGCONT)


def test_after_a_failover_that_lost_transactions_a_reset_makes_the_lake_right(lake, standby):
    """Rows only the old primary had are in the lake, and the new one hands their transaction ids out again."""
    copy_what_the_standby_never_gets(lake, standby)
    database = fail_over(lake, standby)
    assert database.execute("select count(*) from movie") == [(8,)]
    database.execute(fill(9, 10))

    with pytest.raises(HistoryChanged, match="timeline 1 to 2"):
        lake.tick()
    lake.tick(act=state_changes.reset)
    lake.drain()

    assert lake.compare() == SAME
    assert lake.column() == [*range(1, 11)]


def test_after_a_failover_that_lost_transactions_continue_does_not_go_on_green(lake, standby):
    """The new primary's horizon lies below what was copied from the old one: saying so again is all that is right."""
    copy_what_the_standby_never_gets(lake, standby)
    fail_over(lake, standby)

    lake.tick(act=state_changes.resume)

    with pytest.raises(HistoryChanged, match=r"below .* up to which it is already copied.*pg-bronze reset movie"):
        lake.tick()


@pytest.fixture
def reconciling(bucket):
    """What ``pg-bronze reconcile`` does with a table."""
    connection = s3_connection(bucket)
    return lambda sync, recorded, writer: reconcile(sync, recorded, writer, connection)[0]


def test_reconcile_goes_on_where_nothing_was_lost_and_copies_nothing_again(lake, standby, reconciling):
    lake.database.execute(f"update movie set title = 'again' where movie_id < 3; {fill(9, 10)}")
    lake.drain()
    standby.catch_up()
    database = fail_over(lake, standby)
    database.execute("delete from movie where movie_id = 5")

    database.execute(fill(11, 11))  # the application does not wait for the operator

    lake.tick(act=reconciling)
    database.execute(fill(12, 12))
    outcomes = lake.drain()

    assert sum(outcome.row_count for outcome in outcomes) == 2
    assert lake.compare() == SAME


def test_reconcile_goes_on_although_ids_went_back_when_no_row_was_lost(lake, standby, reconciling):
    """Transactions of other tables alone were lost: the lake still holds all there is."""
    lake.database.execute(f"create table other (i int); {fill(9, 9)}")
    standby.catch_up()
    standby.cut_off()
    for number in range(20):
        lake.database.execute(f"insert into other values ({number})")
    lake.drain()
    database = fail_over(lake, standby)
    assert database.execute(HORIZON)[0][0] < lake.recorded["movie"].highest

    lake.tick(act=reconciling)
    database.execute(fill(10, 12))
    outcomes = lake.drain()

    assert sum(outcome.row_count for outcome in outcomes) == 3
    assert lake.compare() == SAME


@pytest.mark.parametrize("primary", ["18"], indirect=True)
@pytest.mark.parametrize(
    "here, there, found",
    [
        (fill(9, 12), "", "of 8 live rows 0 should have been copied .*, and 4 row versions in it are later"),
        (fill(9, 12), fill(9, 10), "of 10 live rows 2 should have been copied and are not in the lake"),
        ("update movie set title = 'here' where movie_id = 3", "", "of 8 live rows 0 should .* and 1 row versions"),
        (
            "update movie set title = 'here' where movie_id = 3",
            "update movie set title = 'there' where movie_id = 3",
            "of 8 live rows 1 should .* and 1 row versions",
        ),
    ],
)
def test_reconcile_says_what_a_lossy_failover_lost_and_changes_nothing(lake, standby, reconciling, here, there, found):
    """Ids of lost transactions are handed out again: neither they nor a count of rows would tell."""
    standby.catch_up()
    standby.cut_off()
    if not there:
        take_ids(lake.database, 20)  # or autovacuum there might reach those of the lost rows by itself
    lake.database.execute(here)
    lake.drain()
    database = fail_over(lake, standby)
    if there:
        database.execute(there)
    before = dict(lake.recorded), lake.all_keys()

    with pytest.raises(HistoryChanged, match=f"{found}.*pg-bronze reset movie.*nothing was changed"):
        lake.tick(act=reconciling)

    assert (dict(lake.recorded), lake.all_keys()) == before
    lake.tick(act=state_changes.reset)
    lake.drain()
    assert lake.compare() == SAME


@pytest.mark.parametrize("primary", ["18"], indirect=True)
def test_a_lost_row_whose_id_others_have_used_since_counts_as_deleted(lake, standby, reconciling):
    """Nothing that can be read of the database tells the two apart; what it holds itself is all in the lake."""
    standby.catch_up()
    standby.cut_off()
    lake.database.execute(fill(9, 12))
    lake.drain()
    database = fail_over(lake, standby)
    take_ids(database, 20)
    said: list[str] = []

    def act(sync: TableSync, recorded: Watermark | None, writer: SliceWriter) -> Committed:
        committed = reconciling(sync, recorded, writer)
        said.append(lake.footers()[-1].reason)
        return committed

    lake.tick(act=act)

    assert "all 8 live rows copied so far are in the lake; 4 more keys are only in the lake" in said[0]
    database.execute(fill(13, 14))
    assert sum(outcome.row_count for outcome in lake.drain()) == 2
    assert lake.compare() == SAME
    assert lake.column() == [*range(1, 15)]


@pytest.mark.parametrize("primary", ["18"], indirect=True)
def test_reconcile_compares_no_window_that_is_half_read(lake, reconciling):
    """Going on from it would forget where in the table it stands."""
    lake.database.execute(fill(9, 3000))
    assert lake.crash(crash_after("unclaim", 2), slice_rows=500)

    with pytest.raises(HistoryChanged, match=r"half read.*pg-bronze reset movie"):
        lake.tick(act=reconciling)

    lake.drain(slice_rows=500)
    assert lake.compare() == SAME


def test_a_backup_restored_in_place_stops_the_table(lake, primary, reconciling):
    """Same cluster, same timeline, an earlier state, and ids that have come as far again: only the log position tells.

    ``reconcile`` says what differs, ``continue`` goes on with what is written from then on, ``reset`` makes it right.
    """
    place = home.open_home(primary.data_dir, unprivileged())
    primary.stop()
    shutil.copytree(place / "data", place / "backup", symlinks=True)
    for path in [place / "backup", *(place / "backup").rglob("*")]:
        home.hand_over(path, unprivileged())
    primary.start()
    lake.database.execute(fill(9, 3000))
    lake.drain()
    primary.stop()
    shutil.rmtree(place / "data")
    (place / "backup").rename(place / "data")
    primary.start()
    for number in range(9, 20):
        lake.database.execute(fill(number, number))

    for _ in range(2):
        with pytest.raises(HistoryChanged, match=r"an older state was restored.*pg-bronze reset movie"):
            lake.tick()
        with pytest.raises(HistoryChanged, match=r"of 19 live rows \d+ should have been copied and are not"):
            lake.tick(act=reconciling)

    lake.tick(act=state_changes.resume)
    lake.database.execute(fill(3001, 3002))
    lake.drain()
    assert lake.column()[-3:] == [3000, 3001, 3002], "what was copied of the state before, and what came now"

    lake.tick(act=state_changes.reset)
    lake.drain()
    assert lake.compare() == SAME
    assert lake.column() == [*range(1, 20), 3001, 3002]


@pytest.mark.parametrize("primary", ["15"], indirect=True)
@pytest.mark.parametrize("asked", [True, False])
def test_after_pg_upgrade_a_table_stops_and_goes_on_where_it_was(lake, primary, tmp_path, reconciling, asked):
    """Another cluster by its identifier, the same transaction ids in the rows."""
    primary.stop()
    with Upgraded(tmp_path / "upgraded", primary) as upgraded:
        lake.database = Database(upgraded, "postgres")
        assert upgraded.version == 18
        with pytest.raises(HistoryChanged, match=r"belongs to the database cluster \d+.*pg-bronze reconcile movie"):
            lake.tick()

        lake.tick(act=reconciling if asked else state_changes.resume)
        lake.database.execute(f"{fill(9, 10)}; update movie set title = 'again' where movie_id = 1")
        outcomes = lake.drain()

        assert sum(outcome.row_count for outcome in outcomes) == 3
        assert lake.compare() == SAME


def test_a_standby_that_lags_behind_the_primary_read_before_is_waited_for(lake, standby):
    """Not an alarm: a standby catches up."""
    standby.catch_up()
    with standby.connect(autocommit=True) as connection:
        connection.execute("select pg_wal_replay_pause()")
    lake.database.execute(fill(9, 20))
    lake.drain()
    lake.database = Database(standby, "postgres")

    with pytest.raises(StaleSnapshot, match="lags behind the server read before; the next tick tries again"):
        lake.tick()

    with standby.connect(autocommit=True) as connection:
        connection.execute("select pg_wal_replay_resume()")
    standby.catch_up()
    lake.drain()
    assert lake.compare() == SAME


def test_reading_moves_to_a_standby_and_back_without_losing_a_row(lake, primary, standby):
    """A maintenance window: PG_HOST points to the standby for a while."""
    database = lake.database
    for turn in range(3):
        database.execute(fill(100 * turn + 9, 100 * turn + 20))
        standby.catch_up()
        lake.database = Database(standby if turn % 2 else primary, "postgres")
        lake.drain()
    database.execute("update movie set title = 'again' where movie_id % 3 = 0")
    lake.database = database
    lake.drain()

    assert lake.compare() == SAME
