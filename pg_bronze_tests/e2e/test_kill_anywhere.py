"""Ticks killed with SIGKILL at random moments, while others write."""

import random
import subprocess
import time

import pytest

from pg_bronze_tests.e2e.conftest import TABLES, Shop, Writers
from pg_bronze_tests.shell import lake

COPIED = ("movie", "person", "note")


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_ticks_that_are_killed_at_any_moment_lose_and_double_nothing(shop: Shop):
    """Wherever it is, in the midst of a table, between two, before the metadata or the control row are written.

    Chance decides where. Seen red with objects passed over that were written after the watermark that was recorded.
    """
    shop.database.execute(TABLES)
    chance, killed, ended = random.Random(7), 0, 0
    with Writers(shop.database) as writers:
        started = time.monotonic()
        assert shop.run("tick").returncode == 0
        whole_s = time.monotonic() - started
        while killed < 6:
            try:
                said = shop.run("tick", PG_BRONZE_SLICE_ROWS="100", timeout_s=chance.uniform(0, whole_s))
                assert said.returncode == 0, said.stderr
                ended += 1
            except subprocess.TimeoutExpired:
                killed += 1
            assert ended < 40
    assert writers.commits > 0

    for _ in range(2):
        assert shop.run("tick").returncode == 0

    for table in COPIED:
        assert lake.compare(shop.database, shop.bucket, table) == lake.SAME, table
