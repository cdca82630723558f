"""A cluster put back from a copy of its files has the same identifier and timeline, and writes past the watermark."""

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pg_bronze.core.history_check import is_older
from pg_bronze.demo import data_dir, os_user
from pg_bronze.demo.os_user import unprivileged_user
from pg_bronze.demo.postgres import PostgresServer
from pg_bronze.errors import HistoryChanged, StateRestored
from pg_bronze.postgres.control_rows import ControlRows
from pg_bronze.postgres.control_table import Control
from pg_bronze.sync import state_changes
from pg_bronze.sync.reconcile import reconcile
from pg_bronze_tests.harness.clusters import CopiedServer
from pg_bronze_tests.harness.lake import FORCED_BANDS, MOVIE, SAME, Lake, fill
from pg_bronze_tests.harness.servers import Database, s3_connection

PAST_THE_LOG = "create table filler as select repeat('x', 1000) from generate_series(1, 3000); drop table filler"


@pytest.fixture
def server(tmp_path: Path):
    with CopiedServer(tmp_path / "primary") as server:
        yield server


@pytest.fixture
def films(server):
    found = Database(server, "postgres")
    found.execute(f"{MOVIE}; {fill(1, 8)}")
    return found


@contextlib.contextmanager
def mirrored(lake: Lake) -> Iterator[Lake]:
    """The lake with ``etl_control`` in the source database."""
    with lake.database.connect() as connection:
        connection.autocommit = True
        lake.control = Control(connection)
        yield lake


class Copy:
    """A copy of a server's files, as a volume snapshot has one."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.place = data_dir.open_data_dir(server.data_dir, unprivileged_user())
        server.stop("immediate")
        shutil.copytree(self.place / "data", self.place / "copy", symlinks=True)
        for path in [self.place / "copy", *(self.place / "copy").rglob("*")]:
            os_user.change_owner(path, unprivileged_user())
        server.start()

    def put_back(self) -> None:
        self.server.stop("immediate")
        shutil.rmtree(self.place / "data")
        (self.place / "copy").rename(self.place / "data")
        self.server.start()


def test_each_evidence_stops_a_restored_table(films, server, bucket):
    """The table of docs/architecture.md: which evidence remains when the others are gone.

    Three lakes of one table: its restore is noticed at once, later, or not at all.
    """
    unseen, seen, controlled = (Lake(films, bucket.store(name)) for name in ("unseen", "seen", "controlled"))
    for lake in (unseen, seen):
        lake.drain()
    with mirrored(controlled):
        controlled.drain()
    copy = Copy(server)
    films.execute(fill(9, 12))
    for lake in (unseen, seen):
        lake.drain()
    with mirrored(controlled):
        controlled.drain()
    copy.put_back()
    for number in range(101, 111):
        films.execute(fill(number, number))
    films.execute(PAST_THE_LOG)

    # The log position is past the watermark, and the server started from a checkpoint before it.
    with pytest.raises(
        StateRestored, match=r"was started from a state at log .*an older state was restored.*reconcile"
    ):
        seen.tick()

    # After one more checkpoint, nothing of the server shows it.
    films.execute("checkpoint")
    with pytest.raises(StateRestored, match=r"was started from a state at log .*pg-bronze reset movie"):
        seen.tick()
    assert is_noticed_by_a_tick(controlled)
    with mirrored(controlled):
        for _ in range(2):
            with pytest.raises(StateRestored, match=r"row of the table in etl_control is older.*pg-bronze reset movie"):
                controlled.tick()

    # The stated limit: without a control row, a restore that no tick saw in time. Only a comparison finds it.
    unseen.drain()
    for lake in (unseen, seen):
        compare(lake, bucket)
    with mirrored(controlled):
        compare(controlled, bucket)
        with pytest.raises(StateRestored):  # the comparison leaves the evidence
            controlled.tick()
        controlled.tick(act=state_changes.reset)
        controlled.drain()
        assert controlled.compare() == SAME
    seen.tick(act=state_changes.reset)
    seen.drain()
    assert seen.compare() == SAME


def is_noticed_by_a_tick(lake: Lake) -> bool:
    """Return whether the versions of all control rows, which every tick reads, show it for a table without new rows."""
    written = lake.recorded["movie"].origin.control
    assert written is not None
    with lake.source() as source:
        names = {oid: name for name, oid in source.activity().oids.items()}
        found = ControlRows().read(source, names, {written}, written.database)
    return is_older(found.get("movie"), written)


def compare(lake: Lake, bucket) -> None:
    connection = s3_connection(bucket)
    with pytest.raises(HistoryChanged, match=r"of 18 live rows, \d+ were copied before .*Nothing was changed"):
        lake.tick(act=lambda sync, recorded, writer: reconcile(sync, recorded, writer, connection)[0])


def test_no_restart_or_crash_of_the_server_looks_like_a_restore(films, server, bucket):
    """A table that stops for nothing needs a person at night."""
    lake = Lake(films, bucket.store())
    ends = (server.stop, server.kill)
    for number, end in enumerate(ends):
        with mirrored(lake):
            films.execute(
                f"alter role {server.user} set synchronous_commit = off; {fill(10 * number + 9, 10 * number + 12)}"
            )
            lake.drain()
            # The writer may end before it mirrors the row.
            films.execute(fill(10 * number + 13, 10 * number + 13))
            assert lake.crash("unclaim")
        end()
        server.start()
        with mirrored(lake):
            lake.drain()
    assert lake.compare() == SAME


EDITS = (
    "update etl_control set last_extracted_value = 'by hand'",
    "delete from etl_control",
    "vacuum full etl_control",
    "vacuum freeze etl_control",
    "drop table etl_control",
    "alter table etl_control rename to other; create table etl_control (like other including all)",
)


def test_no_change_of_the_control_table_looks_like_a_restore(database, bucket):
    """People and older tools write it, and it is never read as state."""
    database.execute(f"{MOVIE}; {fill(1, 8)}")
    with mirrored(Lake(database, bucket.store())) as lake:
        lake.drain()
        for number, edit in enumerate(EDITS):
            database.execute(fill(10 + number, 10 + number))
            lake.tick()
            assert lake.recorded["movie"].origin.control is not None
            for statement in edit.split("; "):
                database.execute(statement)
            database.execute(fill(30 + number, 30 + number))
            assert not is_noticed_by_a_tick(lake)
            lake.tick()
        lake.drain()
        assert lake.compare() == SAME


def test_a_quiet_tick_does_not_write_the_control_row(database, bucket):
    database.execute(f"{MOVIE}; {fill(1, 8)}")
    with mirrored(Lake(database, bucket.store())) as lake:
        lake.drain()
        database.execute(fill(9, 9))
        lake.drain()
        before = database.execute("select xmin::text, ctid::text from etl_control")

        database.execute("create table other ()")
        assert lake.tick().quiet

        assert database.execute("select xmin::text, ctid::text from etl_control") == before


def test_reconcile_compares_what_fresh_reads_of_a_large_table_had_copied(server, bucket):
    """Their ids are above those of the last sweep. After a restore other rows have them."""
    films = Database(server, "postgres")
    films.execute(f"{MOVIE}; create index on movie (updated_at); {fill(1, 8)}")
    lake = Lake(films, bucket.store(), bands=replace(FORCED_BANDS, rank=3, share=1e-9))
    lake.tick()
    copy = Copy(server)
    for number in range(201, 221):
        films.execute(f"insert into movie values ({number}, 'lost')")
    assert lake.tick().row_count == 20
    copy.put_back()
    for number in range(301, 331):
        films.execute(f"insert into movie values ({number}, 'since')")
    films.execute(PAST_THE_LOG)
    with pytest.raises(StateRestored):
        lake.tick()
    with lake.source() as source, lake.open(source) as sync, pytest.raises(HistoryChanged, match="were copied before"):
        reconcile(sync, lake.recorded["movie"], lake.writer(sync), s3_connection(bucket))
