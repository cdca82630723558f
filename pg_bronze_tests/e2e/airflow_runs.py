"""Runs of the DAG in deploy/airflow by a real Airflow: `make airflow`, which makes its environment.

pg-bronze is not installed there. Other runs of the tests leave this module out, because its name does not begin with
`test_`; house/test_airflow.py has what needs no Airflow.
"""

import json
import os
import re
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from pg_bronze_tests.e2e.conftest import BIN, ROOT, Shop, make_shop, wait_until
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.faults import Proxy

AIRFLOW = ROOT / ".cache/peers/airflow/bin/airflow"
FOLDER = ROOT / "deploy/airflow"
# The DAG of README.md that runs after a table got rows.
CONSUMER = re.findall(r"(?ms)^```python\n(.*?)^```$", (FOLDER / "README.md").read_text(encoding="utf-8"))[0]
EVENTS = """
select asset.name, event.extra, event.source_run_id
  from asset_event event
  join asset on asset.id = event.asset_id
 order by event.id
"""


@dataclass
class Airflow:
    """An Airflow with its own folder and a database in SQLite, in which no scheduler runs."""

    shop: Shop
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            **self.shop.environment,
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.home / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "false",
            "BRONZE_COMMAND": str(BIN / "pg-bronze"),
            "BRONZE_FOLDER": str(self.shop.folder),
            "BRONZE_RETRY_DELAY_S": "0",
        }

    def run(self, *arguments: str, meanwhile: Callable[[int], None] = lambda _: None) -> str:
        """Run `airflow`, and return what it printed, also of a DAG that failed; ``meanwhile`` gets its pid."""
        output = self.home / "output"
        with output.open("w") as stream:
            process = subprocess.Popen(
                [AIRFLOW, *arguments], cwd=self.home, env=self.environment, stdin=subprocess.DEVNULL, stdout=stream,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            meanwhile(process.pid)
            process.wait(100)
        finally:
            process.kill()
            process.wait()
        return output.read_text()

    def test(self, **run: Any) -> str:
        return self.run("dags", "test", "bronze", **run)

    def ended(self) -> tuple[str, dict[str, str]]:
        """Return the state of the last run of the DAG, and those of its tasks."""
        ((run_id, state),) = self.rows("select run_id, state from dag_run order by id desc limit 1")
        return state, dict(self.rows(f"select task_id, state from task_instance where run_id = '{run_id}'"))

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with sqlite3.connect(self.home / "airflow.db") as database:
            return database.execute(query).fetchall()

    def events(self, run: int) -> dict[str, dict[str, Any]]:
        """Return the extra of each asset event of a run of the DAG, the first of which is 0, by the asset's name."""
        found = self.rows(EVENTS)
        runs = list(dict.fromkeys(run_id for _, _, run_id in found))
        return {name: json.loads(extra) for name, extra, run_id in found if run_id == runs[run]}


@pytest.fixture
def proxy(bucket) -> Iterator[Proxy]:
    made = Proxy(bucket)
    yield made
    made.close()


@pytest.fixture
def airflow(tmp_path: Path, database, bucket, proxy: Proxy) -> Airflow:
    made = Airflow(make_shop(tmp_path / "shop", database, bucket), tmp_path / "airflow")
    bucket.record_probe(proxy.endpoint_url)
    made.shop.environment["MINIO_ENDPOINT"] = proxy.endpoint_url
    (made.home / "dags").mkdir(parents=True)
    (made.home / "dags/bronze.py").write_text((FOLDER / "pg_bronze_dag.py").read_text())
    (made.home / "dags/consumer.py").write_text(CONSUMER)
    printed = made.run("db", "migrate")
    assert "Database migration done!" in printed, printed
    return made


@contextmanager
def killed_at(proxy: Proxy, table: str) -> Iterator[Callable[[int], None]]:
    """Yield a function that kills the tick with SIGKILL while it writes an object of the table."""

    def kill(airflow_pid: int) -> None:
        wait_until(lambda: proxy.met, f"an object of {table} that is being written", 60, 0.05)
        for process in psutil.Process(airflow_pid).children(recursive=True):
            if "tick" in process.cmdline():
                os.kill(process.pid, signal.SIGKILL)

    with proxy.broken("PUT", f"/{table}/", silent=True, times=1):
        yield kill


@pytest.mark.timeout(240)
def test_ticks_of_airflow_lose_and_double_nothing_and_tell_which_tables_got_rows(airflow: Airflow, proxy: Proxy):
    """A row commits late between two runs of the DAG, and the task of the second one is killed and retried."""
    database, bucket = airflow.shop.database, airflow.shop.bucket
    for table in ("movie", "person", "quiet"):
        database.execute(f"create table {table} (id int primary key)")
    database.execute("insert into movie values (1); insert into person values (1)")
    with database.connect(autocommit=False) as late:
        late.execute("insert into movie values (2)")
        database.execute("insert into movie values (3)")
        printed = airflow.test()
        assert airflow.ended()[0] == "success", printed
        late.commit()
    first = airflow.events(0)
    assert {name: extra["rows"] for name, extra in first.items()} == {"bronze/movie": 1, "bronze/person": 1}
    assert lake.ids(bucket, "movie") == [1]

    database.execute("insert into person values (2), (3)")
    with killed_at(proxy, "person") as kill:
        printed = airflow.test(meanwhile=kill)

    assert airflow.ended()[0] == "success", printed
    assert "pg-bronze tick ended with -9 and no document" in printed
    assert airflow.rows("select max(try_number) from task_instance where task_id = 'tick'") == [(2,)]
    second = airflow.events(1)
    # The killed attempt recorded the rows of movie, and could not tell how many there were.
    assert {name: extra["rows"] for name, extra in second.items()} == {"bronze/movie": None, "bronze/person": 2}
    for table in ("movie", "person", "quiet"):
        assert lake.compare(database, bucket, table) == lake.SAME, table
    assert second["bronze/person"]["object"] == f"s3://{bucket.name}/{lake.keys(bucket, 'person')[-1]}"
    assert airflow.rows("select target_dag_id from asset_dag_run_queue") == [("consumer",)]
    assert [item["copied_at"] is not None for item in states(airflow.shop)] == [True, True, False]


@pytest.mark.timeout(240)
def test_a_run_without_new_rows_is_a_success_and_a_failing_table_fails_its_last_task(airflow: Airflow):
    """The other tables are copied, and have their events, in the run that fails."""
    database = airflow.shop.database
    for table in ("movie", "person"):
        database.execute(f"create table {table} (id int primary key); insert into {table} values (1)")
    assert airflow.shop.run("tick").returncode == 0
    assert airflow.shop.run("tick").returncode == 0

    airflow.test()

    assert airflow.ended() == ("success", {"plan": "success", "tick": "skipped", "status": "success"})
    database.execute("insert into movie values (2); insert into person values (2)")
    airflow.shop.environment["PG_BRONZE_TABLES"] = '{"person": {"cursor_column": "nope"}}'

    printed = airflow.test()

    assert airflow.ended() == ("failed", {"plan": "success", "tick": "success", "status": "failed"})
    assert "AirflowFailException: person: " in printed
    assert "nope" in printed
    assert {name: extra["rows"] for name, extra in airflow.events(0).items()} == {"bronze/movie": 1}


def states(shop: Shop) -> list[dict[str, Any]]:
    """What Dagster's storage has of each table."""
    loaded: dict[str, Any] = json.loads(shop.run("status", "--json").stdout)
    return loaded["tables"]
