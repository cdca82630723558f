"""Transaction ids near the limits of 32 bits, which pg_resetwal sets in a real cluster."""

import subprocess
from pathlib import Path

import pytest

from pg_bronze.core.ranges import HEARTBEAT_WIDTH
from pg_bronze.core.window_sql import written
from pg_bronze.demo import binaries, data_dir, os_user
from pg_bronze.demo.os_user import run_as, unprivileged_user
from pg_bronze.demo.postgres import PostgresServer
from pg_bronze.errors import OperatorError
from pg_bronze_tests.harness.clusters import CopiedServer
from pg_bronze_tests.harness.lake import MOVIE, SAME, Lake, fill
from pg_bronze_tests.harness.repetitions import also
from pg_bronze_tests.harness.servers import Database, older_servers

XACT_SEGMENT = 2**20  # transactions whose status is in one file of pg_xact


class Cluster:
    """A server whose next transaction id can be set."""

    def __init__(self, server: PostgresServer, bindir: Path | None) -> None:
        self.server, self.bindir = server, bindir
        self.database = Database(server, "postgres")

    @property
    def next_xid(self) -> int:
        return self.database.execute("select pg_snapshot_xmax(pg_current_snapshot())::text::bigint")[0][0]

    def move_to(self, xid: int) -> None:
        """Freeze everything and make ``xid`` (64 bits) the next id, in steps that PostgreSQL's own age limits allow."""
        account = unprivileged_user()
        programs = binaries.find(self.bindir, account)
        place = data_dir.open_data_dir(self.server.data_dir, account) / "data"
        while self.next_xid < xid:
            step = min(xid, self.next_xid + 15 * 10**8)
            self._freeze()
            self.server.stop()
            epoch, low = divmod(step, 2**32)
            subprocess.run(
                [programs / "pg_resetwal", "-e", str(epoch), "-x", str(low), str(place)],
                check=True, capture_output=True, cwd=place, **run_as(account),
            )  # fmt: skip
            segment = place / "pg_xact" / f"{low // XACT_SEGMENT:04X}"
            if not segment.exists():
                segment.write_bytes(b"\0" * 262144)
                os_user.change_owner(segment, account)
            self.server.start()

    def _freeze(self) -> None:
        self.database.execute("alter database template0 allow_connections true")
        for name in ("postgres", "template1", "template0"):
            Database(self.server, name).execute("vacuum freeze")


@pytest.fixture(params=["18", *also("15")])
def cluster(request, tmp_path: Path):
    bindir = None if request.param == "18" else older_servers().get(request.param)
    if request.param == "15" and bindir is None:
        pytest.skip("no PostgreSQL 15 here")
    options = {"autovacuum": "off", "fsync": "off", "wal_writer_delay": "10ms"}
    with CopiedServer(tmp_path / "server", bindir=bindir, options=options) as server:
        yield Cluster(server, bindir)


@pytest.fixture
def lake(cluster, bucket):
    cluster.database.execute(MOVIE)
    cluster.database.execute(fill(1, 8))
    return Lake(cluster.database, bucket.store())


def test_a_table_is_copied_across_a_change_of_the_epoch(cluster, lake):
    """Ids start again at 3, and rows written before and after are in one window."""
    lake.drain()
    cluster.move_to(2**32 - 6)
    for number in range(9, 29):
        cluster.database.execute(fill(number, number))
    assert cluster.next_xid > 2**32

    # The watermark is too far away for one window, so the table is copied again.
    with pytest.raises(OperatorError, match="pg-bronze reset movie"):
        lake.tick()
    lake.forget()
    for key in lake.all_keys():
        lake.store.delete(key)
    lake.drain()
    for number in range(29, 35):
        cluster.database.execute(fill(number, number))
    cluster.database.execute("update movie set title = 'again' where movie_id in (2, 12, 32)")
    lake.drain()

    assert lake.compare() == SAME
    assert lake.rows()["_pg_xid"].max() > 2**32


def test_a_window_across_the_epoch_contains_every_row_once(cluster, lake):
    cluster.move_to(2**32 - 30)  # autovacuum uses some ids, too
    cluster.database.execute(fill(9, 9))
    lake.drain()
    before = lake.recorded["movie"].highest_horizon
    for number in range(10, 60):
        cluster.database.execute(fill(number, number))

    outcomes = lake.drain()

    assert before < 2**32 < lake.recorded["movie"].highest_horizon
    assert sum(outcome.row_count for outcome in outcomes) == 50
    assert lake.compare() == SAME


def test_rows_frozen_long_ago_are_in_the_first_load(cluster, lake):
    """Their age is beyond 2^31 and has no meaning."""
    cluster.move_to(3 * 10**9)
    cluster.database.execute(fill(9, 12))

    lake.drain()

    assert lake.compare() == SAME
    assert lake.column() == [*range(1, 13)]


def test_rows_whose_ids_are_1_and_2_are_in_the_first_load_and_in_no_window(cluster, lake):
    """initdb writes as 1, and servers before 9.4 replaced frozen ids by 2. Neither has an age."""
    database = cluster.database
    database.execute(
        "create extension pg_surgery; select heap_force_freeze('movie'::regclass, array['(0,1)', '(0,2)']::tid[])"
    )
    assert database.execute("select movie_id from movie where xmin::text = '2' order by 1") == [(1,), (2,)]
    assert sum(outcome.row_count for outcome in lake.drain()) == 8

    database.execute(fill(9, 12))

    assert sum(outcome.row_count for outcome in lake.drain()) == 4
    assert lake.compare() == SAME
    horizon = lake.recorded["movie"].highest_horizon
    ones = "select count(*) > 0 from pg_am t where xmin::text = '1' and"
    assert database.execute(f"{ones} {written(None, horizon)}") == [(True,)]
    assert database.execute(f"{ones} {written(3, horizon)}") == [(False,)]


def test_a_quiet_table_gets_an_empty_object_before_ids_wrap_around(cluster, lake):
    lake.drain()
    cluster.move_to(cluster.next_xid + HEARTBEAT_WIDTH + 1000)
    cluster.database.execute("select pg_current_xact_id()")

    outcome = lake.tick()

    assert outcome.row_counts == [0]
    assert lake.recorded["movie"].highest_horizon > HEARTBEAT_WIDTH
    cluster.database.execute(fill(9, 12))
    assert sum(outcome.row_count for outcome in lake.drain()) == 4
    assert lake.compare() == SAME


@pytest.mark.parametrize("beyond", [False, True])
def test_windows_just_below_2_31_are_read_and_wider_ones_are_refused(cluster, lake, beyond):
    """Ages wrap around soon after, and rows would be lost silently."""
    lake.drain()
    swept = lake.recorded["movie"].highest_horizon
    database = cluster.database
    database.execute(fill(9, 10))  # at the start of the window
    assert database.execute("select min(xmin::text::bigint) from movie where movie_id > 8") == [(swept % 2**32,)]
    cluster.move_to(swept + 2**31 - 10**6 + (10 if beyond else -100))
    database.execute(fill(11, 12))

    if beyond:
        with pytest.raises(OperatorError, match="A window must be narrower than"):
            lake.tick()
    else:
        assert sum(outcome.row_count for outcome in lake.drain()) == 4
        assert lake.compare() == SAME
        bootstrapped = (
            f"select count(*) from pg_am t where xmin::text = '1' and {written(swept, swept + 2**31 - 10**6)}"
        )
        assert database.execute(bootstrapped) == [(0,)]


def test_equal_horizons_read_nothing_and_lose_nothing(cluster, lake):
    lake.drain()

    assert [lake.tick().quiet is not None for _ in range(3)] == [True] * 3

    cluster.database.execute(fill(9, 9))
    assert lake.drain()[0].row_count == 1
    assert lake.compare() == SAME
