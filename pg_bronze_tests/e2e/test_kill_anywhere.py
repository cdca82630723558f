"""Ticks, and a whole `dagster dev`, killed with SIGKILL at random moments while others write."""

import random
import shutil
import subprocess
import threading
import time

import psutil
import pytest

from pg_bronze.demo.processes import kill_all, session_members, start_time_s
from pg_bronze_tests.e2e.conftest import TABLES, Dev, Shop, Writers, running, wait_until
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.repetitions import also, repetition

COPIED = ("movie", "person", "note")
COPYING = "select pid from pg_stat_activity where starts_with(application_name, 'pg_bronze run ')"


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("kills", also(3, 12))
def test_ticks_that_are_killed_at_any_moment_neither_lose_nor_duplicate_rows(shop: Shop, kills: int):
    """The random moment may be during a table, between two, or before metadata and control row are written."""
    shop.database.execute(TABLES)
    chance, killed, ended = random.Random(7), 0, 0
    with Writers(shop.database) as writers:
        started = time.monotonic()
        assert shop.run("tick").returncode == 0
        whole_s = time.monotonic() - started
        while killed < kills:
            try:
                tick = shop.run("tick", PG_BRONZE_SLICE_ROWS="100", timeout_s=chance.uniform(0, whole_s))
                assert tick.returncode == 0, tick.stderr
                ended += 1
            except subprocess.TimeoutExpired:
                killed += 1
            assert ended < 40
    assert writers.commits > 0

    for _ in range(2):
        assert shop.run("tick").returncode == 0

    for table in COPIED:
        assert lake.compare(shop.database, shop.bucket, table) == lake.SAME, table


def family(dev: Dev) -> list[psutil.Process]:
    """Return the web server, the daemon, the code server and every run worker."""
    return session_members(dev.pid, start_time_s(psutil.Process(dev.pid)))


@pytest.mark.slow
@repetition
@pytest.mark.timeout(300)
def test_a_dagster_dev_that_is_killed_with_its_runs_neither_loses_nor_duplicates_rows(shop: Shop):
    """All processes are killed within 1.5 s after a run has started to copy, and Dagster's storage is deleted."""
    shop.database.execute(TABLES)
    shop.environment["PG_BRONZE_SLICE_ROWS"] = "10"
    with Writers(shop.database) as writers, running(shop) as dev:
        wait_until(lambda: shop.database.execute(COPYING), "a run of the sensor that copies", 60, 0.05)
        threading.Event().wait(random.Random(11).uniform(0, 1.5))
        assert dev.unfinished() > 0, "no run was killed"
        assert len(family(dev)) >= 4
        assert kill_all(lambda: family(dev))
    shutil.rmtree(shop.folder / ".dagster")
    assert writers.commits > 0

    for _ in range(2):
        ended = shop.run("tick")
        assert ended.returncode == 0, ended.stderr

    for table in COPIED:
        assert lake.compare(shop.database, shop.bucket, table) == lake.SAME, table
