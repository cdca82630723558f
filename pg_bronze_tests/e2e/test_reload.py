"""A new table is copied within a minute by separate Dagster services, however the definitions are loaded again.

``test_dev.py`` shows it for `dagster dev`.
"""

import contextlib
import subprocess
from collections.abc import Iterator

import pytest
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._grpc.client import DagsterGrpcClient

from pg_bronze_tests.e2e.conftest import Dev, Shop, end, free_port, wait_until
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.project import MOVIES
from pg_bronze_tests.harness.repetitions import repetition
from pg_bronze_tests.harness.servers import Database

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

WORKSPACE = "load_from:\n  - grpc_server: {{host: 127.0.0.1, port: {port}, location_name: pg_bronze}}\n"

# 15 to 30 s were measured. A busy machine may take longer than the minute that is promised.
PATIENCE_S = 150


@contextlib.contextmanager
def service(shop: Shop, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A service of Dagster in the project folder."""
    process = shop.start_program(*command, output=shop.folder / f"{'_'.join(command[:2])}.log")
    try:
        yield process
    finally:
        end(process)


def code_server(shop: Shop, port: int, *command: str) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    return service(shop, *command, "-m", "pg_bronze.definitions", "-h", "127.0.0.1", "-p", str(port))


def answers(port: int) -> bool:
    with contextlib.suppress(DagsterUserCodeUnreachableError):
        DagsterGrpcClient(port=port).ping("")
        return True
    return False


def expect_copy_of_new_table(shop: Shop, name: str) -> None:
    shop.database.execute(f"create table {name} (id int); insert into {name} values (1)")
    wait_for_ids(shop, name, [1])


@contextlib.contextmanager
def unreachable(database: Database) -> Iterator[None]:
    """A time in which the database accepts no connections."""
    with Database(database.server, "postgres").connect() as connection:
        allow = f'alter database "{database.name}" with allow_connections '
        connection.execute(allow + "false")
        connection.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = %s", [database.name]
        )
        try:
            yield
        finally:
            connection.execute(allow + "true")


@pytest.fixture
def deployed(shop: Shop) -> Shop:
    shop.database.execute(MOVIES)
    shop.environment["DAGSTER_HOME"] = str(shop.folder)
    return shop


def wait_for_first_copy(shop: Shop) -> None:
    wait_for_ids(shop, "movie", [1, 2, 3, 4, 5])


def wait_for_ids(shop: Shop, table: str, ids: list[int]) -> None:
    """Wait until a table was copied; a failure shows what the services printed last."""
    try:
        wait_until(lambda: lake.ids(shop.bucket, table) == ids, f"the rows of {table}", PATIENCE_S, pause_s=0.5)
    except AssertionError as error:
        raise AssertionError("\n".join(log.read_text()[-4000:] for log in shop.folder.glob("*.log"))) from error


@repetition
def test_a_new_table_is_copied_by_a_daemon_and_shown_by_a_web_server_that_have_code_servers_of_their_own(
    deployed: Shop,
):
    """The daemon starts its code server again every 60 s, and cannot be asked to do it earlier."""
    port = free_port()
    with service(deployed, "dagster-daemon", "run"):
        wait_for_first_copy(deployed)
        with service(deployed, "dagster-webserver", "-h", "127.0.0.1", "-p", str(port)) as web_server:
            expect_copy_of_new_table(deployed, "award")

            web = Dev(deployed, port, deployed.folder / "dagster-webserver_-h.log", web_server.pid)
            wait_until(web.loaded, "the web server", 60)
            web.ask('mutation { reloadRepositoryLocation(repositoryLocationName: "pg_bronze") { __typename } }')
            assert "bronze/award" in web.assets()


# defs/test_new_tables.py shows both with the sensor of one process.
@repetition
def test_a_new_table_is_copied_whether_the_code_server_was_reloaded_without_the_database_or_cannot_be_reloaded(
    deployed: Shop,
):
    port = free_port()
    (deployed.folder / "workspace.yaml").write_text(WORKSPACE.format(port=port))
    with service(deployed, "dagster-daemon", "run"):
        with code_server(deployed, port, "dagster", "code-server", "start"):
            wait_for_first_copy(deployed)
            with unreachable(deployed.database):
                DagsterGrpcClient(port=port).reload_code(timeout=60)

            expect_copy_of_new_table(deployed, "award")

        with code_server(deployed, port, "dagster", "api", "grpc"):
            wait_until(lambda: answers(port), "the other code server", 60)

            expect_copy_of_new_table(deployed, "later")
