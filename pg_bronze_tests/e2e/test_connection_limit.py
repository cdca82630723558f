"""The limit on connections holds across processes, and costs no row."""

from pathlib import Path

import pytest

from pg_bronze.defs.connections import open_source
from pg_bronze.settings.load import load_settings
from pg_bronze_tests.e2e.conftest import Shop
from pg_bronze_tests.harness import loaded
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.repetitions import also
from pg_bronze_tests.harness.sessions import Sessions

TABLES = ("actor", "movie", "person")
LIMIT = 4


@pytest.fixture
def limited(shop: Shop) -> Shop:
    """Three tables, each of 30 slices."""
    shop.environment |= {"PG_BRONZE_MAX_CONNECTIONS": str(LIMIT), "PG_BRONZE_SLICE_ROWS": "100"}
    for table in TABLES:
        shop.database.execute(f"create table {table} (id int primary key, filler text)")
        shop.database.execute(f"insert into {table} select i, repeat('x', 100) from generate_series(1, 3000) i")
    return shop


def settings(shop: Shop):
    return load_settings({**shop.environment, "HOME": str(shop.folder)})


@pytest.mark.slow
def test_a_command_leaves_its_tables_with_a_sentence_and_ends_with_0(limited: Shop):
    """Cron would send a mail for each tick that found no free connection."""
    with open_source(settings(limited), "pg_bronze run of another machine") as holder:
        holder.connection  # noqa: B018
        for arguments in (("tick", "movie"), ("tick",)):
            found = limited.run(*arguments)
            assert found.returncode == 0, found.stderr
            assert "left to a later tick" in found.stdout
            assert "PG_BRONZE_MAX_CONNECTIONS is 4, which is enough for 1 run at once" in found.stdout
        refused = limited.run("reset", "--yes", "movie")
        assert refused.returncode != 0
        assert "PG_BRONZE_MAX_CONNECTIONS is 4" in refused.stderr
    assert lake.keys(limited.bucket, "movie") == []

    assert limited.run("tick").returncode == 0

    for table in TABLES:
        assert lake.compare(limited.database, limited.bucket, table) == lake.SAME


@pytest.mark.slow
@pytest.mark.parametrize("reader", also("connectorx", "copy"))
def test_three_runs_at_once_beside_a_sensor_stay_within_the_limit(limited: Shop, tmp_path: Path, reader: str):
    """The setting is a promise to the administrator of the database."""
    limited.environment["PG_BRONZE_READER"] = reader
    rounds = 0
    with Sessions(limited.database) as sessions, open_source(settings(limited), "pg_bronze sensor", "sensor") as sensor:
        sensor.activity()
        waiting = set(TABLES)
        while waiting:
            rounds += 1
            assert rounds < 10
            outputs = {table: tmp_path / f"{table}_{rounds}" for table in waiting}
            running = [_start(limited, table, output) for table, output in outputs.items()]
            assert [command.wait(90) for command in running] == [0] * len(running)
            waiting = {table for table, path in outputs.items() if "left to a later tick" in path.read_text()}
    assert 3 <= len(sessions.most) <= LIMIT, sessions.most
    assert rounds > 1
    for table in TABLES:
        assert lake.compare(limited.database, limited.bucket, table) == lake.SAME


def _start(shop: Shop, table: str, output: Path) -> loaded.Command:
    """Start a command with a Dagster instance of its own, which knows nothing of the other ones."""
    home = shop.folder / f"dagster of {table}"
    home.mkdir(exist_ok=True)
    output.touch()
    return loaded.start(("tick", table), shop.folder, {**shop.environment, "DAGSTER_HOME": str(home)}, output)
