"""Sensor, assets and mirror behind pgbouncer, where each transaction may use another session."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from pg_bronze.defs import run_watchdog
from pg_bronze.defs.connections import open_source
from pg_bronze.settings.load import load_settings
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.pooler import pgbouncer
from pg_bronze_tests.harness.project import Project, key, requested, settle
from pg_bronze_tests.harness.replicas import until


@pytest.fixture(scope="module")
def poolers(postgres_server) -> Iterator[dict[str, int]]:
    """The port of a pooler for each mode. In transaction mode all clients share three sessions."""
    with pgbouncer(postgres_server, "transaction", 3) as transaction, pgbouncer(postgres_server, "session", 30) as own:
        yield {"transaction": transaction, "session": own}


@pytest.fixture(params=["transaction", "session"])
def pooled(request: pytest.FixtureRequest, cinema: Project, poolers) -> Project:
    cinema.set(PG_PORT=str(poolers[request.param]))
    cinema.reload()
    return cinema


def test_rows_written_behind_a_pooler_are_copied_and_mirrored(pooled: Project):
    """The sensor keeps its connection between ticks, while its sessions are shared with other clients."""
    settle(pooled)
    for number in (10, 11, 12):
        pooled.database.execute(
            f"insert into movie values ({number}, 'new'); update movie set updated_at = '2026-02-{number}' where id = 1"
        )
        counted = "pg_stat_get_tuples_inserted('movie'::regclass)"
        until(pooled.database.server, pooled.database.name, f"select {counted} >= 5 + {number} - 9")
        assert {"movie"} <= set().union(*requested(pooled.evaluate()))
        settle(pooled)
        assert lake.compare(pooled.database, pooled.bucket, "movie") == lake.SAME

    watermark = pooled.watermark("movie")
    assert watermark is not None
    query = "select last_extracted_value from etl_control where table_name = 'movie'"
    assert pooled.database.execute(query) == [(watermark.cursor,)]


def test_a_run_that_reads_behind_a_pooler_is_not_ended_as_abandoned(pooled: Project):
    """The pooler sets the application name of the client on the session that it uses."""
    selection = frozenset([key("movie")])
    run = create_run_for_test(
        pooled.instance, job_name="bronze", asset_selection=selection, status=dg.DagsterRunStatus.STARTED
    )
    settings, name = load_settings(), run_watchdog.session_name(run.run_id)
    reading = f"select count(*) > 0 from pg_stat_activity where application_name = '{name}' and state = 'active'"
    with ThreadPoolExecutor(1) as pool, open_source(settings, name) as worker, pooled.database.connect() as blocker:
        blocker.execute("begin; lock table movie")
        read = pool.submit(worker.ask, "select count(*) from public.movie")
        until(pooled.database.server, pooled.database.name, reading)

        with open_source(settings, "pg_bronze test") as source:
            ended = run_watchdog.end_abandoned_runs(
                pooled.instance, source, [key("movie")], time.time() + run_watchdog.SILENT_S + 1
            )
        blocker.execute("rollback")

        assert read.result() == [(5,)]
    assert ended == []


def test_a_silent_run_behind_a_pooler_is_not_ended_between_two_of_its_transactions(pooled: Project):
    """A session has the name of its client for one transaction; a slow PUT takes longer than the watchdog waits."""
    selection = frozenset([key("movie")])
    create_run_for_test(
        pooled.instance, job_name="bronze", asset_selection=selection, status=dg.DagsterRunStatus.STARTED
    )
    with open_source(load_settings(), "pg_bronze test") as source:
        ended = run_watchdog.end_abandoned_runs(
            pooled.instance, source, [key("movie")], time.time() + run_watchdog.SILENT_S + 1
        )

    assert ended == []
