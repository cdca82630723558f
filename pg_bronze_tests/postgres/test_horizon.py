"""The horizon of a tick."""

import os
import signal

import pytest

from pg_bronze.errors import SourceUnavailable
from pg_bronze.postgres import activity
from pg_bronze.postgres.connection import Source
from pg_bronze_tests.harness.faults import freeze


def test_all_tables_of_a_tick_share_a_horizon_unless_a_claim_goes_beyond_it(database):
    """Below the horizon of such a claim, the database would seem to have been restored."""
    with Source(database.conninfo, database.url, 30) as source:
        first = source.horizon()
        database.execute("select pg_current_xact_id()")

        assert source.horizon(at_least=first) == first
        assert source.horizon(at_least=first + 1) > first


def test_a_horizon_is_not_used_before_the_log_is_flushed(database, monkeypatch):
    """After a crash the server would assign the ids below it again, and rows written under them would be lost."""
    monkeypatch.setattr(activity, "FLUSH_WAIT_S", 0.2)
    database.execute("create table movie (movie_id int)")
    [(log_writer,)] = database.execute("select pid from pg_stat_activity where backend_type = 'walwriter'")
    with Source(database.conninfo, database.url, 30) as source, database.connect() as connection:
        freeze(log_writer)
        try:
            with connection.transaction(force_rollback=True):
                connection.execute("insert into movie values (1)")
            with pytest.raises(SourceUnavailable, match="did not flush its write-ahead log"):
                source.horizon()
        finally:
            os.kill(log_writer, signal.SIGCONT)

        monkeypatch.undo()
        assert source.horizon() > 0
