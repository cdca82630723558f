"""deploy/compose with containers that share no disk: separate services, and a container for each run.

The engine is a stand-in, because the tests have none.
"""

import json
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.request import urlopen

import pytest

from pg_bronze_tests.e2e.conftest import ROOT, Dev, Shop, free_port, wait_until
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.docker_engine import Engine
from pg_bronze_tests.harness.project import MOVIES
from pg_bronze_tests.harness.repetitions import repetition
from pg_bronze_tests.harness.servers import Database

pytestmark = [repetition, pytest.mark.slow, pytest.mark.timeout(400)]

IMAGE = "pg_bronze:test"
PATIENCE_S = 150


@pytest.fixture
def storage(database: Database) -> Iterator[dict[str, str]]:
    """The variables of an empty database for Dagster."""
    name = f"dagster_{secrets.token_hex(4)}"
    server = Database(database.server, "postgres")
    server.execute(f"create database {name}")
    given = database.environ
    yield {
        "DAGSTER_PG_HOST": given["PG_HOST"], "DAGSTER_PG_PORT": given["PG_PORT"], "DAGSTER_PG_DB": name,
        "DAGSTER_PG_USER": given["PG_USER"], "DAGSTER_PG_PASSWORD": given.get("PG_PASS", ""),
    }  # fmt: skip
    server.execute(f"drop database {name} with (force)")


def service(engine: Engine, name: str, command: list[str], environment: dict[str, str], files: dict[str, str]) -> Path:
    """Start a container with files in its folder, and return the folder."""
    container = engine.run(name, command, environment)
    for file, text in files.items():
        target = container.folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    container.start()
    return container.folder


def logs(engine: Engine) -> str:
    return "\n".join((item.folder / "log").read_text()[-3000:] for item in engine.containers.values() if item.process)


def test_each_run_is_a_container_and_no_container_needs_a_file_of_another(
    shop: Shop, storage: dict[str, str], tmp_path: Path
):
    """If a file were shared, a run on another machine would fail, or leave its state where nobody reads it."""
    shop.database.execute(MOVIES)
    settings = tmp_path / "settings.env"
    chosen = {**shop.database.environ, **shop.bucket.environ, "PG_BRONZE_INTERVAL_S": "5"}
    settings.write_text("".join(f"{name}={value}\n" for name, value in chosen.items()))
    code_port, web_port = free_port(), free_port()
    workspace = (ROOT / "deploy/compose/workspace.yaml").read_text()
    workspace = workspace.replace("host: code-server", "host: 127.0.0.1").replace("4000", str(code_port))
    instance = (ROOT / "deploy/compose/dagster.yaml").read_text().replace("/tmp/dagster", str(tmp_path / "never"))
    home = {"dagster_home/dagster.yaml": instance}
    mounted = json.dumps({"docker": {"container_kwargs": {"volumes": [f"{settings}:/project/.env:ro"]}}})

    with Engine(tmp_path / "containers").serving() as engine:
        docker = storage | {"DOCKER_HOST": engine.url}
        service(
            engine, "code", ["dagster", "code-server", "start", "-h", "127.0.0.1", "-p", str(code_port), "-m",
            "pg_bronze.definitions"], storage | {"DAGSTER_CURRENT_IMAGE": IMAGE, "DAGSTER_CONTAINER_CONTEXT": mounted},
            home | {"project/.env": settings.read_text()},
        )  # fmt: skip
        both = home | {"workspace.yaml": workspace}
        service(engine, "daemon", ["dagster-daemon", "run", "-w", "../workspace.yaml"], docker, both)
        web = service(
            engine, "web", ["dagster-webserver", "-h", "127.0.0.1", "-p", str(web_port), "-w", "../workspace.yaml"],
            docker, both,
        )  # fmt: skip
        metrics_port = free_port()
        service(
            engine, "monitor", ["pg-bronze", "monitor", "--port", str(metrics_port), "--every", "2s"], storage,
            # The two further files because the tests import a checkout, which counts as the project otherwise.
            home | {f"project/{name}": "" for name in ("workspace.yaml", "dagster.yaml")}
            | {"project/.env": settings.read_text()},
        )  # fmt: skip
        try:
            wait_until(lambda: lake.ids(shop.bucket, "movie") == [1, 2, 3, 4, 5], "the first copy", PATIENCE_S)
            shop.database.execute("create table award (id int); insert into award values (1)")
            wait_until(lambda: lake.ids(shop.bucket, "award") == [1], "a table that was created later", PATIENCE_S)
            page = Dev(shop, web_port, web / "log", 0)
            wait_until(lambda: "bronze/award" in page.assets(), "the table in the UI", 60)
            with shop.database.connect(autocommit=False) as blocker:
                blocker.execute("lock table movie, person in access exclusive mode")
                killed, canceled = launched(page, "movie"), launched(page, "person")
                engine.of_run(killed).kill()
                page.ask("mutation ($id: String!) { terminateRun(runId: $id) { __typename } }", id=canceled)
                assert page.outcome(canceled) == "CANCELED"
                assert page.outcome(killed, PATIENCE_S) == "FAILURE"
            shop.database.execute("insert into movie values (6, 'film 6')")
            wait_until(lambda: lake.ids(shop.bucket, "movie") == [1, 2, 3, 4, 5, 6], "the next copy", PATIENCE_S)
            wait_until(lambda: "pg_bronze_up 1.0" in metrics(metrics_port), "the monitor", 60)
            wait_until(lambda: all(run.status == "exited" for run in engine.runs), "the end of the runs", 60)
        except AssertionError as error:
            raise AssertionError(logs(engine)) from error

        assert len(engine.runs) >= 2
        for run in engine.runs:
            assert run.request["Image"] == IMAGE
            assert secret_of(shop) not in json.dumps(run.request)
            assert {item.split("=")[0] for item in run.request["Env"]} == {*storage, "DAGSTER_RUN_JOB_NAME"}
        for container in engine.containers.values():
            assert container.listing() == container.files, logs(engine)
    assert not (tmp_path / "never").exists()


def launched(page: Dev, table: str) -> str:
    """Launch a run of a locked table, and return its id once it waits for the lock."""
    run_id = page.launch(str(datetime.now(UTC).date()), table)
    query = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
    wait_until(lambda: page.ask(query, id=run_id)["runOrError"]["status"] == "STARTED", "the start of the run", 60)
    return run_id


def metrics(port: int) -> str:
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
            return str(reply.read().decode())
    except OSError:
        return ""


def secret_of(shop: Shop) -> str:
    return shop.bucket.environ["MINIO_SECRET_KEY"]
