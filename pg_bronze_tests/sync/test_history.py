"""Real failovers and restores: they stop the table, and reset, continue and reconcile resolve them."""

import os
import shutil
import signal
from pathlib import Path

import pytest

from pg_bronze.core.watermark import Watermark
from pg_bronze.demo import data_dir, os_user
from pg_bronze.demo.os_user import unprivileged_user
from pg_bronze.errors import HistoryChanged, StaleSnapshot
from pg_bronze.lake.commit import SliceWriter
from pg_bronze.lake.ledger import Committed
from pg_bronze.sync import state_changes
from pg_bronze.sync.reconcile import reconcile
from pg_bronze.sync.table_sync import TableSync
from pg_bronze_tests.harness.clusters import CopiedServer
from pg_bronze_tests.harness.faults import freeze
from pg_bronze_tests.harness.lake import MOVIE, SAME, Lake, crash_after, fill
from pg_bronze_tests.harness.repetitions import also, repetition
from pg_bronze_tests.harness.replicas import PRIMARY_OPTIONS, Standby, Upgraded
from pg_bronze_tests.harness.servers import Database, older_servers, s3_connection


@pytest.fixture(params=["18", *also("15")])
def primary(request, tmp_path: Path):
    bindir = None if request.param == "18" else older_servers().get(request.param)
    if request.param == "15" and bindir is None:
        pytest.skip("no PostgreSQL 15 here")
    with CopiedServer(tmp_path / "primary", bindir=bindir, options=PRIMARY_OPTIONS) as server:
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
    """Kill the primary and promote the standby; the lake reads from the new primary at once."""
    lake.database.server.kill()
    standby.promote()
    lake.database = Database(standby, "postgres")
    return lake.database


def take_ids(database: Database, count: int) -> None:
    """Run transactions that change no row."""
    for _ in range(count):
        database.execute("select pg_current_xact_id()")


def copy_rows_that_the_standby_never_receives(lake: Lake, standby: Standby) -> None:
    """Copy eleven transactions that are not on the standby."""
    standby.catch_up()
    standby.cut_off()
    for number in range(9, 20):
        lake.database.execute(fill(number, number))
    lake.drain()


def test_a_failover_that_lost_nothing_stops_the_table_until_continue(lake, standby):
    """pg_bronze cannot know whether transactions were lost."""
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


def test_a_promoted_standby_stops_the_table_before_its_first_checkpoint(lake, standby):
    """Until the checkpoint, pg_control_checkpoint returns the old timeline, and the application writes already."""
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


def test_a_reset_after_a_failover_that_lost_transactions_makes_the_lake_exact(lake, standby):
    """Rows that only the old primary had are in the lake, and the new primary uses their transaction ids again."""
    copy_rows_that_the_standby_never_receives(lake, standby)
    database = fail_over(lake, standby)
    assert database.execute("select count(*) from movie") == [(8,)]
    database.execute(fill(9, 10))

    with pytest.raises(HistoryChanged, match="timeline 1 to 2"):
        lake.tick()
    lake.tick(act=state_changes.reset)
    lake.drain()

    assert lake.compare() == SAME
    assert lake.column() == [*range(1, 11)]


def test_continue_after_a_failover_that_lost_transactions_does_not_succeed_silently(lake, standby):
    """The horizon of the new primary is below the watermark, so rows under reused ids would be skipped."""
    copy_rows_that_the_standby_never_receives(lake, standby)
    fail_over(lake, standby)

    lake.tick(act=state_changes.resume)

    with pytest.raises(HistoryChanged, match=r"below .*, up to which the table is .*pg-bronze reset movie"):
        lake.tick()


@pytest.fixture
def reconciling(bucket):
    """The change that ``pg-bronze reconcile`` commits."""
    connection = s3_connection(bucket)
    return lambda sync, recorded, writer: reconcile(sync, recorded, writer, connection)[0]


def test_reconcile_continues_where_nothing_was_lost_and_copies_no_row_twice(lake, standby, reconciling):
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


def test_reconcile_continues_where_ids_went_back_and_no_row_was_lost(lake, standby, reconciling):
    """Only transactions of other tables were lost, so a new first load would be wasted."""
    lake.database.execute(f"create table other (i int); {fill(9, 9)}")
    standby.catch_up()
    standby.cut_off()
    for number in range(20):
        lake.database.execute(f"insert into other values ({number})")
    lake.drain()
    database = fail_over(lake, standby)
    assert (
        database.execute("select pg_snapshot_xmin(pg_current_snapshot())::text::bigint")[0][0]
        < lake.recorded["movie"].highest_horizon
    )

    lake.tick(act=reconciling)
    database.execute(fill(10, 12))
    outcomes = lake.drain()

    assert sum(outcome.row_count for outcome in outcomes) == 3
    assert lake.compare() == SAME


@pytest.mark.parametrize("primary", ["18"], indirect=True)
@pytest.mark.parametrize(
    "here, there, found",
    [
        (fill(9, 12), "", "of 8 live rows, 0 were copied .*, and 4 row versions in the lake are later"),
        pytest.param(
            fill(9, 12), fill(9, 10), "of 10 live rows, 2 were copied before and are not in the lake", marks=repetition
        ),
        pytest.param(
            "update movie set title = 'here' where movie_id = 3",
            "",
            "of 8 live rows, 0 were .* and 1 row versions",
            marks=repetition,
        ),
        (
            "update movie set title = 'here' where movie_id = 3",
            "update movie set title = 'there' where movie_id = 3",
            "of 8 live rows, 1 were .* and 1 row versions",
        ),
    ],
)
def test_reconcile_reports_what_a_failover_lost_and_changes_nothing(lake, standby, reconciling, here, there, found):
    """The ids of lost transactions are used again, so neither ids nor a count of rows would show the loss."""
    standby.catch_up()
    standby.cut_off()
    if not there:
        take_ids(lake.database, 20)  # or autovacuum might use the ids of the lost rows
    lake.database.execute(here)
    lake.drain()
    database = fail_over(lake, standby)
    if there:
        database.execute(there)
    before = dict(lake.recorded), lake.all_keys()

    with pytest.raises(HistoryChanged, match=f"{found}.*Nothing was changed.*pg-bronze reset movie"):
        lake.tick(act=reconciling)

    assert (dict(lake.recorded), lake.all_keys()) == before
    lake.tick(act=state_changes.reset)
    lake.drain()
    assert lake.compare() == SAME


@pytest.mark.parametrize("primary", ["18"], indirect=True)
def test_a_lost_row_whose_id_was_used_again_counts_as_deleted(lake, standby, reconciling):
    """Nothing in the database tells the two apart. All that it contains is in the lake."""
    standby.catch_up()
    standby.cut_off()
    lake.database.execute(fill(9, 12))
    lake.drain()
    database = fail_over(lake, standby)
    take_ids(database, 20)
    reasons: list[str] = []

    def act(sync: TableSync, recorded: Watermark | None, writer: SliceWriter) -> Committed:
        committed = reconciling(sync, recorded, writer)
        reasons.append(lake.footers()[-1].reason)
        return committed

    lake.tick(act=act)

    assert "all 8 live rows copied so far are in the lake; 4 more keys are only in the lake" in reasons[0]
    database.execute(fill(13, 14))
    assert sum(outcome.row_count for outcome in lake.drain()) == 2
    assert lake.compare() == SAME
    assert lake.column() == [*range(1, 15)]


@pytest.mark.parametrize("primary", ["18"], indirect=True)
def test_reconcile_continues_a_window_that_is_only_partly_read(lake, reconciling):
    """Only rows below the window are compared. Its position inside the table is kept."""
    lake.database.execute(fill(9, 3000))
    assert lake.crash(crash_after("unclaim", 2), slice_rows=500)

    lake.tick(act=reconciling)

    assert next(iter(lake.recorded["movie"].leaves.values())).sweep.block > 0
    lake.drain(slice_rows=500)
    assert lake.compare() == SAME


@pytest.mark.parametrize("primary", ["18"], indirect=True)
def test_reconcile_refuses_a_first_load_that_has_not_ended(lake, reconciling):
    lake.database.execute(f"drop table movie; {MOVIE}; {fill(9, 3000)}")
    assert lake.crash(crash_after("unclaim", 2), slice_rows=500)
    assert lake.crash(crash_after("unclaim", 2), slice_rows=500)

    with pytest.raises(HistoryChanged, match=r"first load has not ended.*pg-bronze reset movie"):
        lake.tick(act=reconciling)

    lake.drain(slice_rows=500)
    assert lake.compare() == SAME


def test_a_backup_restored_in_place_stops_the_table(lake, primary, reconciling):
    """Cluster and timeline are the same, and as many ids were used again: only the log position shows the restore.

    ``reconcile`` reports the difference, ``continue`` copies rows written from then on, ``reset`` makes the lake exact.
    """
    place = data_dir.open_data_dir(primary.data_dir, unprivileged_user())
    primary.stop()
    shutil.copytree(place / "data", place / "backup", symlinks=True)
    for path in [place / "backup", *(place / "backup").rglob("*")]:
        os_user.change_owner(path, unprivileged_user())
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
        with pytest.raises(HistoryChanged, match=r"of 19 live rows, \d+ were copied before and are not"):
            lake.tick(act=reconciling)

    lake.tick(act=state_changes.resume)
    lake.database.execute(fill(3001, 3002))
    lake.drain()
    assert lake.column()[-3:] == [3000, 3001, 3002], "rows of the state before the restore, and new rows"

    lake.tick(act=state_changes.reset)
    lake.drain()
    assert lake.compare() == SAME
    assert lake.column() == [*range(1, 20), 3001, 3002]


@pytest.mark.parametrize("primary", ["15"], indirect=True)
@pytest.mark.parametrize("compared", [True, *also(False)])
def test_pg_upgrade_stops_a_table_until_continue_and_loses_nothing(lake, primary, tmp_path, reconciling, compared):
    """The cluster has another identifier, and its rows keep their transaction ids."""
    # PostgreSQL 15.20 stores the version of each column as an option, which 18.6 refuses to restore.
    lake.database.execute("update pg_attribute set attoptions = null where attoptions is not null")
    primary.stop()
    with Upgraded(tmp_path / "upgraded", primary) as upgraded:
        lake.database = Database(upgraded, "postgres")
        assert upgraded.version == 18
        with pytest.raises(HistoryChanged, match=r"belongs to the database cluster \d+.*pg-bronze reconcile movie"):
            lake.tick()

        lake.tick(act=reconciling if compared else state_changes.resume)
        lake.database.execute(f"{fill(9, 10)}; update movie set title = 'again' where movie_id = 1")
        outcomes = lake.drain()

        assert sum(outcome.row_count for outcome in outcomes) == 3
        assert lake.compare() == SAME


def test_a_standby_that_lags_behind_the_server_read_before_is_retried(lake, standby):
    """It catches up, so nobody has to act."""
    standby.catch_up()
    with standby.connect(autocommit=True) as connection:
        connection.execute("select pg_wal_replay_pause()")
    lake.database.execute(fill(9, 20))
    lake.drain()
    lake.database = Database(standby, "postgres")

    with pytest.raises(StaleSnapshot, match="lags behind the server that was read before"):
        lake.tick()

    with standby.connect(autocommit=True) as connection:
        connection.execute("select pg_wal_replay_resume()")
    standby.catch_up()
    lake.drain()
    assert lake.compare() == SAME


def test_reading_from_a_standby_for_a_while_loses_no_row(lake, primary, standby):
    """During maintenance PG_HOST may point to the standby."""
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
