"""Due tables on servers whose counters are wrong: rows are copied late, but never missed."""

from dataclasses import replace
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from pg_bronze.defs import metadata
from pg_bronze.scheduling import due
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.clusters import CopiedServer
from pg_bronze_tests.harness.project import MOVIES, Project, key, requested, settle
from pg_bronze_tests.harness.replicas import PRIMARY_OPTIONS, Standby, until
from pg_bronze_tests.harness.servers import Database


@pytest.fixture
def quiet(cinema: Project) -> Project:
    settle(cinema)
    return cinema


def copied(project: Project) -> list[int]:
    return lake.ids(project.bucket, "person")


def test_rows_that_no_counter_shows_yet_are_copied_at_the_next_tick_after_a_copy(quiet: Project):
    """A session that commits twice in a second reports the second commit 10 s later: a whole tick too late."""
    quiet.database.execute("set track_counts = off; insert into person values (4, 'not counted')")

    assert requested(quiet.evaluate()) == [{"person"}]
    settle(quiet)

    assert copied(quiet) == [1, 2, 3, 4]
    quiet.database.execute("create table noise ()")
    assert requested(quiet.evaluate()) == [], "a question costs less than a run, and is enough"


def test_rows_that_no_counter_shows_are_copied_after_15_minutes(quiet: Project):
    """``track_counts = off`` saves a percent of CPU, and some servers are configured so."""
    quiet.advance_clock(due.COUNTED_LATE_S)
    quiet.database.execute("set track_counts = off; insert into person values (4, 'unseen')")
    assert requested(quiet.evaluate()) == []

    quiet.advance_clock(901)
    settle(quiet)

    assert copied(quiet) == [1, 2, 3, 4]


def test_counters_that_reach_the_same_value_after_a_reset_hide_rows_for_15_minutes_at_most(quiet: Project):
    """Three rows were counted, and three others are counted after ``pg_stat_reset``."""
    counted = "select pg_stat_get_tuples_inserted('person'::regclass), pg_stat_get_tuples_updated('person'::regclass)"
    quiet.advance_clock(due.COUNTED_LATE_S)
    assert quiet.database.execute(counted) == [(3, 0)]
    quiet.database.execute("select pg_stat_reset()")
    quiet.database.execute("insert into person select i, 'after' from generate_series(4, 6) i")
    until(quiet.database.server, quiet.database.name, f"select (3, 0) = ({counted})")
    settle(quiet)
    assert copied(quiet) == [1, 2, 3], "the test needs the rows to be hidden here"

    quiet.advance_clock(901)
    settle(quiet)

    assert copied(quiet) == [1, 2, 3, 4, 5, 6]


def test_new_rows_on_a_standby_without_counters_are_copied(project: Project, bindir, tmp_path: Path):
    """The counters of a standby stay at zero."""
    options = PRIMARY_OPTIONS | {"autovacuum": "off"}
    with CopiedServer(tmp_path / "primary", bindir=bindir, options=options) as primary:
        source = Database(primary, "postgres")
        source.execute(MOVIES)
        with Standby(tmp_path / "standby", primary) as standby:
            project.set(**Database(standby, "postgres").environ)
            project.reload()
            settle(project)
            assert copied(project) == [1, 2, 3]
            assert project.evaluate().skip_message
            source.execute("insert into person values (4, 'new')")
            standby.catch_up()

            settle(project)

            assert copied(project) == [1, 2, 3, 4]


def test_a_quiet_table_whose_control_row_went_back_is_stopped_at_the_next_tick(quiet: Project):
    """A restore after which ids and checkpoints have passed shows in this row alone, and `exists` finds no row."""
    quiet.database.execute("insert into movie values (100, 'names the version', now())")
    quiet.copy("movie")
    watermark = metadata.watermark_of(quiet.instance.get_latest_materialization_event(key("movie")))
    control = watermark.origin.control
    assert control is not None
    assert requested(quiet.evaluate()) == []
    # As if the row had been written by a later transaction than the one that the database has now.
    later = replace(watermark.origin, control=replace(control, xid=control.xid + 1000))
    entries = metadata.of_watermark(replace(watermark, origin=later))
    quiet.instance.report_runless_asset_event(dg.AssetMaterialization(key("movie"), metadata=entries))

    assert requested(quiet.evaluate()) == [{"movie"}]


def test_one_statement_reads_all_control_rows_of_a_tick(quiet: Project, monkeypatch: pytest.MonkeyPatch):
    quiet.database.execute("insert into movie values (100, 'a', now()); insert into person values (100, 'b')")
    quiet.copy()
    read: list[bytes] = []
    execute = psycopg.Cursor.execute
    monkeypatch.setattr(psycopg.Cursor, "execute", lambda *call, **more: read.append(call[1]) or execute(*call, **more))

    quiet.evaluate()

    assert sum(b"etl_control" in statement for statement in read if isinstance(statement, bytes)) == 1
