"""A tick without due tables: what it loads, what it prints, and that the next one copies again."""

import subprocess
import sys

import pytest

from pg_bronze_tests.e2e.conftest import Shop
from pg_bronze_tests.harness import plain_lake as lake

# What only a copy needs. Of these, Polars alone takes half of the CPU time that is left for a quiet tick.
OF_A_COPY = {
    "polars",
    "connectorx",
    "pyarrow",
    "boto3",
    "dagster_aws",
    "pg_bronze.defs.build",
    "pg_bronze.sync.table_sync",
    "pg_bronze.lake.commit",
}
# What Dagster's storage imports and never uses in a tick: a seventh of its CPU time.
OF_DAGSTER = {"alembic", "mako", "structlog", "dagster._daemon", "dagster._daemon.controller"}
COMMAND = """
import sys
from pg_bronze.cli.app import app
sys.argv = ["pg-bronze", "tick"]
try:
    app()
finally:
    from pg_bronze.lake import request_count
    print(*sys.modules, file=sys.stderr)
    print(request_count.to_text(request_count.current()).replace(" ", "="), file=sys.stderr)
"""


@pytest.fixture
def quiet(shop: Shop) -> Shop:
    """Tables that are copied, and unchanged as far as PostgreSQL has counted."""
    shop.database.execute("create table movie (id int); insert into movie values (1); create table empty (id int)")
    for _ in range(2):
        assert shop.run("tick").returncode == 0
    return shop


def tick(shop: Shop) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Run a tick in a process of its own, and return the modules that it has loaded."""
    done = subprocess.run(
        [sys.executable, "-c", COMMAND], cwd=shop.folder, env=shop.environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    return done, set(done.stderr.split())


def test_a_tick_without_due_tables_loads_nothing_that_only_a_copy_needs(quiet: Shop):
    """Cron starts one a minute, and most of them find nothing."""
    done, modules = tick(quiet)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 tables checked up to transaction ")
    assert len(done.stdout.splitlines()) == 1
    assert "dagster" in modules
    assert modules & (OF_A_COPY | OF_DAGSTER) == set()
    # The catalog and the verification of create-only writes, each once, and the generations that were moved away.
    assert done.stderr.splitlines()[-1] == "get=2,=list=1"


def test_the_same_process_loads_it_if_a_table_is_due(quiet: Shop):
    quiet.database.execute("insert into movie values (2)")

    done, modules = tick(quiet)

    assert done.returncode == 0, done.stderr
    assert modules >= {"polars", "pg_bronze.defs.build"}
    assert lake.ids(quiet.bucket, "movie") == [1, 2]
