"""The monitor of a real project: what it exports, and outages of the database and of the bucket."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from pg_bronze.cli.monitor import evaluation, sent_alerts
from pg_bronze.cli.monitor.evaluation import Evaluation
from pg_bronze.cli.monitor.metrics import Snapshot
from pg_bronze.cli.monitor.monitor import Hook, Monitor
from pg_bronze.cli.monitor.request_meter import RequestMeter
from pg_bronze.cli.monitor.sent_alerts import SentAlerts
from pg_bronze.cli.monitor.storage_meter import StorageMeter
from pg_bronze.defs import run_tags
from pg_bronze.defs.connections import open_bucket
from pg_bronze.lake import request_count
from pg_bronze.lake.request_count import from_text
from pg_bronze.scheduling.alerts import Cause, Sent
from pg_bronze.settings.load import load_settings
from pg_bronze_tests.harness import monitoring
from pg_bronze_tests.harness.faults import Proxy
from pg_bronze_tests.harness.project import Project, settle
from pg_bronze_tests.harness.replicas import until


@pytest.fixture
def copied(cinema: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose tables are copied, and whose Dagster instance the monitor opens."""
    monkeypatch.setattr(evaluation, "open_instance", lambda: contextlib.nullcontext(cinema.instance))
    settle(cinema)
    return cinema


@pytest.fixture
def proxy(copied: Project) -> Iterator[Proxy]:
    made = Proxy(copied.bucket)
    copied.set(MINIO_ENDPOINT=made.endpoint_url)
    yield made
    made.close()


def started(hook: Hook | None = None) -> tuple[Monitor, StorageMeter]:
    settings = load_settings()
    store = open_bucket(settings)
    evaluate = Evaluation(settings, store)
    return Monitor(evaluate, Snapshot(30.0), evaluate.source.name, hook, time.time), StorageMeter(store, time.time)


def scraped(monitor: Monitor) -> dict[str, monitoring.Samples]:
    return monitoring.scrape(monitor.snapshot, time.time())


def by_table(samples: monitoring.Samples) -> dict[str, float]:
    return {labels["table"]: value for labels, value in samples}


@contextlib.contextmanager
def database_down(project: Project) -> Iterator[None]:
    name = project.database.name
    with project.database.server.connect(autocommit=True) as connection:
        connection.execute(f'alter database "{name}" allow_connections false')
        query = "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = %s"
        connection.execute(query, [name])
        try:
            yield
        finally:
            connection.execute(f'alter database "{name}" allow_connections true')


def test_a_project_is_exported_with_what_was_copied(copied: Project):
    runs = len(copied.instance.get_run_records())
    monitor, meter = started()

    monitor.turn()
    meter.measure_if_due(monitor.snapshot.folders.values())
    meter.wait()
    monitor.measured(meter.size, meter.measured_at)

    found = scraped(monitor)
    assert found["pg_bronze_up"] == [({}, 1.0)]
    states = {(labels["table"], labels["state"]) for labels, _ in found["pg_bronze_table_state"]}
    assert states == {("movie", "up_to_date"), ("person", "up_to_date")}
    assert by_table(found["pg_bronze_table_lag_seconds"]).keys() == {"movie", "person"}
    assert by_table(found["pg_bronze_table_storage_objects"]) == {"movie": 1.0, "person": 1.0}
    assert min(by_table(found["pg_bronze_table_storage_bytes"]).values()) > 100
    assert found["pg_bronze_source_connections"][0][1] >= 1
    assert found["pg_bronze_storage_complete"] == [({}, 1.0)]
    assert len(copied.instance.get_run_records()) == runs


def test_new_rows_that_nobody_copies_are_a_growing_lag(copied: Project):
    """Without a daemon every metric of a run would stay as it was."""
    monitor, _ = started()
    monitor.turn()
    before = by_table(scraped(monitor)["pg_bronze_table_lag_seconds"])
    copied.database.execute("insert into movie values (100, 'new')")

    monitor.turn()
    monitor.turn()

    after = by_table(scraped(monitor)["pg_bronze_table_lag_seconds"])
    assert before["movie"] == 0.0
    assert after["movie"] > 0.0


def test_a_database_that_is_down_is_reported_and_checked_again(copied: Project, capsys: pytest.CaptureFixture[str]):
    monitor, _ = started()
    monitor.turn()

    with database_down(copied):
        monitor.turn()
        during = scraped(monitor)
    monitor.turn()

    assert during["pg_bronze_up"] == [({}, 0.0)]
    assert min(by_table(during["pg_bronze_table_lag_seconds"]).values()) > 0
    assert scraped(monitor)["pg_bronze_up"] == [({}, 1.0)]
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 1
    assert "all tables are checked again after" in printed.out


def test_a_bucket_that_is_down_is_reported_and_the_tables_are_checked_nevertheless(copied: Project, proxy: Proxy):
    monitor, _ = started()
    monitor.turn()
    checked_at = monitor.snapshot.status.checked_at if monitor.snapshot.status else 0.0

    with proxy.broken("HEAD", answer=(503, "SlowDown")):
        monitor.turn()
        during = scraped(monitor)

    assert during["pg_bronze_up"] == [({}, 0.0)]
    assert during["pg_bronze_last_evaluation_timestamp_seconds"][0][1] > checked_at
    assert during["pg_bronze_evaluation_errors_total"] == [({"class": "StoreUnavailable"}, 1.0)]


def test_a_stuck_table_is_one_alert_and_its_healing_another(copied: Project):
    received: list[str] = []

    class Receiver:
        def send(self, message: Mapping[str, Any]) -> None:
            received.append(f"{message['event']} {message['kind']} {message['tables']}: {message['sentence']}")

    copied.set(PG_BRONZE_TABLES='{"movie": {"cursor_column": "absent"}}')
    copied.database.execute("insert into movie values (100, 'new')")
    assert not copied.copy("movie").success
    monitor, _ = started(Receiver())

    monitor.turn()
    monitor.turn()
    copied.set(PG_BRONZE_TABLES="{}")
    settle(copied)
    monitor.turn()

    assert len(received) == 2
    assert received[0].startswith("started stuck ['movie']: ")
    assert "'absent'" in received[0]
    assert received[1].startswith("recovered stuck ['movie']: ")


@pytest.mark.parametrize("limit, kept", [("", 1), ("4", 0)])
def test_the_connection_is_kept_unless_the_connections_are_limited(copied: Project, limit: str, kept: int):
    """With a limit of four, a run could otherwise not connect while the monitor is running."""
    copied.set(PG_BRONZE_MAX_CONNECTIONS=limit)
    monitor, _ = started()

    monitor.turn()
    monitor.turn()

    assert scraped(monitor)["pg_bronze_up"] == [({}, 1.0)]
    # A session that was closed may be listed for some more milliseconds.
    sessions = "pg_stat_activity where application_name like 'pg_bronze monitor%' and datname = current_database()"
    until(copied.database.server, copied.database.name, f"select count(*) = {kept} from {sessions}")


def test_the_last_tick_is_that_of_a_sensor_that_is_switched_on():
    """A sensor that was switched off for `pg-bronze run` would be reported as missing forever."""

    def sensor(name: str, at: float | None, is_running: bool = True) -> SimpleNamespace:
        return SimpleNamespace(
            instigator_name=name, is_running=is_running, instigator_data=SimpleNamespace(last_tick_timestamp=at)
        )

    def last(*states: SimpleNamespace) -> float | None:
        instance: Any = SimpleNamespace(schedule_storage=True, all_instigator_state=lambda instigator_type: states)
        return evaluation.last_tick(instance)

    assert last(sensor("bronze_tick", 5.0), sensor("bronze_tick", 7.0), sensor("bronze_catalog", 9.0)) == 7.0
    assert last(sensor("bronze_tick", 7.0, is_running=False)) is None
    assert last(sensor("bronze_tick", None)) is None
    assert last() is None


def test_what_was_sent_is_kept_for_the_next_process_of_the_same_source(
    copied: Project, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sent_alerts, "open_instance", lambda: contextlib.nullcontext(copied.instance))
    sent = {"stuck: no right": Sent(Cause("stuck: no right", "stuck", "no right", 1.5, ("movie", "person")), 2.5, 3)}

    SentAlerts("cine@db").store(sent)

    assert SentAlerts("cine@db").load() == sent
    assert SentAlerts("other@db").load() == {}
    copied.instance.daemon_cursor_storage.set_cursor_values({"pg_bronze/monitor/cine@db": "{"})
    assert SentAlerts("cine@db").load() == {}


def test_the_requests_of_runs_are_added_up_once(copied: Project):
    """The metric is the sum over runs, which end with their processes."""
    before = datetime.now(UTC) - timedelta(hours=1)
    runs = [record.dagster_run for record in copied.instance.get_run_records()]
    tagged = sum((from_text(run.tags[run_tags.REQUESTS]) for run in runs), Counter())
    assert tagged["put"] >= 4, "two tables with a claim and an object each"
    meter = RequestMeter(before)

    first = meter.read(copied.instance) - request_count.current()
    assert first == tagged
    assert meter.read(copied.instance) - request_count.current() == tagged

    copied.database.execute("insert into movie values (91, 'x', now())")
    newest = copied.copy("movie").dagster_run.run_id
    run = copied.instance.get_run_by_id(newest)
    assert run is not None
    assert meter.read(copied.instance) - request_count.current() == tagged + from_text(run.tags[run_tags.REQUESTS])
    assert RequestMeter(datetime.now(UTC)).read(copied.instance) == request_count.current()
