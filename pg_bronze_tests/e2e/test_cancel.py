"""Commands that are ended during a long read: process and query end within seconds."""

import signal
from pathlib import Path

import pytest

from pg_bronze_tests.e2e.conftest import Shop
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.repetitions import repetition
from pg_bronze_tests.harness.slow import FAST, SLOW, wait_until_gone, wait_until_slow

SOON_S = 20  # on a machine with other work


@pytest.mark.slow
@pytest.mark.parametrize(
    "number, reader",
    [
        pytest.param(signal.SIGINT, "connectorx", marks=repetition),
        (signal.SIGTERM, "copy"),
        pytest.param(signal.SIGINT, "copy", marks=repetition),
        pytest.param(signal.SIGTERM, "connectorx", marks=repetition),
        (signal.SIGKILL, "connectorx"),
    ],
)
def test_the_query_of_an_ended_tick_is_canceled(shop: Shop, tmp_path: Path, number: signal.Signals, reader: str):
    """After SIGKILL only the server can notice that its client does not exist any more."""
    shop.database.execute(SLOW)
    shop.database.execute("create table movie (id int primary key, f feeling); insert into movie values (1, 'slow')")
    shop.environment["PG_BRONZE_READER"] = reader
    output = tmp_path / "log"
    process = shop.start("tick", output=output)
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
