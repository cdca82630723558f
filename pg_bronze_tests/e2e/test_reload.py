"""A new table is copied without a restart of a deployed code server; ``test_dev.py`` shows it for `dagster dev`."""

import pytest

from pg_bronze_tests.e2e.conftest import Shop, end, free_port, wait_until
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.project import MOVIES

WORKSPACE = "load_from:\n  - grpc_server: {{host: 127.0.0.1, port: {port}, location_name: pg_bronze}}\n"


@pytest.mark.slow
def test_a_new_table_is_copied_within_a_minute_from_a_code_server(shop: Shop):
    shop.database.execute(MOVIES)
    shop.environment["DAGSTER_HOME"] = str(shop.folder)
    port = free_port()
    (shop.folder / "workspace.yaml").write_text(WORKSPACE.format(port=port))
    server = ["code-server", "start", "-m", "pg_bronze.definitions", "-h", "127.0.0.1", "-p", str(port)]
    started = [
        shop.start_program("dagster", *server, output=shop.folder / "server.log"),
        shop.start_program("dagster-daemon", "run", output=shop.folder / "daemon.log"),
    ]
    try:
        wait_until(lambda: lake.ids(shop.bucket, "movie") == [1, 2, 3, 4, 5], "the first copy", 90)

        shop.database.execute("create table award (id int); insert into award values (1)")

        wait_until(lambda: lake.keys(shop.bucket, "award"), "the new table", 60)
    finally:
        for process in reversed(started):
            end(process)
