"""Commands and runs that are ended during a long read: process and query end within seconds."""

import signal
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pg_bronze_tests.e2e.conftest import Dev, Shop, wait_until
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.slow import FAST, SLOW, wait_until_gone, wait_until_slow

SOON_S = 20  # on a machine with other work


@pytest.mark.slow
@pytest.mark.parametrize(
    "number, reader",
    [
        (signal.SIGINT, "connectorx"),
        (signal.SIGINT, "copy"),
        (signal.SIGTERM, "connectorx"),
        (signal.SIGKILL, "connectorx"),
    ],
)
def test_the_query_of_an_ended_tick_is_canceled(shop: Shop, tmp_path: Path, number: signal.Signals, reader: str):
    """After SIGKILL only the server can notice that its client does not exist any more."""
    shop.database.execute(SLOW)
    shop.database.execute("create table movie (id int primary key, f feeling); insert into movie values (1, 'slow')")
    shop.environment["PG_BRONZE_READER"] = reader
    output = tmp_path / "log"
    process = shop.start("pg-bronze", "tick", output=output)
    try:
        wait_until_slow(shop.database)
        process.send_signal(number)
        code = process.wait(SOON_S)
    finally:
        process.kill()

    wait_until_gone(shop.database, SOON_S)
    assert code not in {0, 1}, output.read_text()
    assert "Traceback" not in output.read_text()
    shop.database.execute(FAST)
    assert shop.run("tick").returncode == 0
    assert lake.ids(shop.bucket, "movie") == [1]


@pytest.mark.slow
def test_the_query_of_a_run_that_is_terminated_in_the_ui_is_canceled(dev: Dev):
    """Dagster interrupts the worker and waits. A reader that ignored it would keep the pool of the table occupied."""
    database = dev.shop.database
    database.execute(SLOW)
    database.execute("alter table note add column f feeling default 'fast'")
    database.execute("insert into note values ('slow', 'x', 'slow')")
    run_id = dev.launch(datetime.now(UTC).date().isoformat(), "note")
    wait_until_slow(database)

    def ended() -> bool:
        """Terminate all runs, because a run of the sensor may occupy the pool before ours."""
        unfinished = runs(dev)
        for number in unfinished:
            terminate(dev, number)
        return run_id not in unfinished

    wait_until(ended, "the end of the run", SOON_S)
    wait_until_gone(database, SOON_S)
    database.execute(FAST)
    wait_until(lambda: "slow" in lake.ids(dev.shop.bucket, "note"), "the next tick to copy the row", 90)


def runs(dev: Dev) -> list[str]:
    data = dev.ask(
        """{ runsOrError(filter: {statuses: [QUEUED, NOT_STARTED, STARTING, STARTED, CANCELING]}) {
             ... on Runs { results { runId } } } }"""
    )
    return [item["runId"] for item in data["runsOrError"]["results"]]


def terminate(dev: Dev, run_id: str) -> None:
    dev.ask(
        """mutation ($id: String!) { terminateRun(runId: $id) { __typename } }""",
        id=run_id,
    )
