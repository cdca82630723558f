"""The private parts of Dagster that pg_bronze relies on. `make newest` runs these tests with the newest Dagster.

If one fails after an upgrade, compare the part in Dagster's source, and change the module that the test names. Until
then, remove its lines from ``dagster.yaml``: Dagster's own classes take over.
"""

import inspect
import re
from typing import Any

import dagster
import pytest
from dagster import DagsterInstance
from dagster._cli import api
from dagster._core.launcher import DefaultRunLauncher
from dagster._core.remote_representation.code_location import GrpcServerCodeLocation
from dagster._core.run_coordinator import QueuedRunCoordinator
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.runs.sqlite.sqlite_run_storage import SqliteRunStorage
from dagster._core.storage.schedules.sqlite.sqlite_schedule_storage import SqliteScheduleStorage
from dagster._daemon import daemon, sensor
from dagster._daemon.run_coordinator import QueuedRunCoordinatorDaemon
from dagster._daemon.utils import DaemonErrorCapture
from dagster._utils.interrupts import capture_interrupts
from dagster_postgres.event_log import PostgresEventLogStorage
from dagster_postgres.run_storage import PostgresRunStorage
from dagster_postgres.schedule_storage import PostgresScheduleStorage

from pg_bronze.defs import daemon_console
from pg_bronze.defs.compute_logs import MirroringComputeLogManager
from pg_bronze.defs.known_records import _COLUMNS, KnownRecords, _last_materialization
from pg_bronze.defs.known_schema import KnownSchema
from pg_bronze.defs.run_coordinator import PromptRunCoordinator
from pg_bronze.defs.run_workers.launcher import ResidentRunLauncher
from pg_bronze.defs.sqlite_storage import PooledEventLogStorage, PooledRunStorage, PooledScheduleStorage

# Each class and the members of Dagster's class that it replaces; a member that nobody calls any more has no effect.
REPLACED: list[tuple[type, type, list[str]]] = [
    (ResidentRunLauncher, DefaultRunLauncher, ["launch_run", "terminate", "check_run_worker_health", "dispose"]),
    (PromptRunCoordinator, QueuedRunCoordinator, ["dequeue_interval_seconds", "submit_run"]),
    (PooledEventLogStorage, SqliteEventLogStorage, ["_connect"]),
    (KnownRecords, SqlEventLogStorage, ["get_asset_records"]),
    (
        KnownSchema,
        SqlEventLogStorage,
        ["has_table", "has_secondary_index", "has_asset_key_col", "_has_asset_key_col_on_connection"],
    ),
    (PooledRunStorage, SqliteRunStorage, ["connect", "has_run_stats_index_cols", "get_runs", "get_run_records"]),
    (
        PooledScheduleStorage,
        SqliteScheduleStorage,
        ["connect", "has_instigators_table", "_has_instigators_table", "has_built_index"],
    ),
    (MirroringComputeLogManager, LocalComputeLogManager, ["capture_logs", "from_config_value"]),
]


@pytest.mark.parametrize("ours, base, names", REPLACED, ids=lambda value: getattr(value, "__name__", ""))
def test_what_pg_bronze_replaces_exists_with_the_same_parameters(ours: type, base: type, names: list[str]):
    for name in names:
        original = inspect.getattr_static(base, name)
        if callable(original):
            theirs = list(inspect.signature(original).parameters)
            assert list(inspect.signature(inspect.getattr_static(ours, name)).parameters) == theirs, name


def test_the_storages_call_what_is_replaced():
    """A pool that nobody asks for connections would silently have no effect."""
    assert "self._connect(" in inspect.getsource(SqliteEventLogStorage)
    for storage in (SqliteRunStorage, SqliteScheduleStorage):
        assert "self.connect(" in "".join(inspect.getsource(part) for part in storage.__mro__[:-1])


def test_an_asset_record_is_made_of_the_columns_that_are_compared():
    """A column that is not compared would leave a record unchanged that a process keeps."""
    source = inspect.getsource(SqlEventLogStorage._construct_asset_record_from_row)
    source += inspect.getsource(SqlEventLogStorage._get_latest_materialization_records)
    assert set(re.findall(r'row\["(\w+)"\]', source)) - {"event"} == {*_COLUMNS, "asset_key"}
    assert list(inspect.signature(SqlEventLogStorage._construct_asset_record_from_row).parameters) == [
        "self", "row", "last_materialization_record", "can_read_asset_status_cache"
    ]  # fmt: skip


def test_a_stored_materialization_has_the_form_that_a_tick_reads():
    """It would otherwise be parsed by Dagster, as in the first tick of a process for each table."""
    entries = {"text": "a", "number": 1, "share": 0.5, "flag": True}
    with DagsterInstance.ephemeral() as instance:
        instance.report_runless_asset_event(dagster.AssetMaterialization("movie", metadata=entries))
        stored = instance.get_asset_records([dagster.AssetKey("movie")])[0].asset_entry.last_materialization_record

    read = _last_materialization(dagster.serialize_value(stored), frozenset(entries))

    assert read is not None
    assert (read.timestamp, read.values) == (stored.timestamp if stored else 0.0, entries)


def test_a_run_is_executed_by_a_function_of_the_command_line():
    """``defs/run_workers/worker.py``."""
    parameters = list(inspect.signature(api._execute_run_command_body).parameters)

    assert parameters == ["run_id", "instance", "write_stream_fn", "set_exit_code_on_failure"]
    assert inspect.isfunction(capture_interrupts)


def test_the_daemon_reads_both_intervals_from_where_they_are_set():
    """``defs/run_coordinator.py``."""
    assert isinstance(sensor.MIN_INTERVAL_LOOP_TIME, int)
    assert "MIN_INTERVAL_LOOP_TIME" in inspect.getsource(sensor.execute_sensor_iteration_loop)
    assert "interval_seconds" in inspect.signature(QueuedRunCoordinatorDaemon.__init__).parameters
    parameters = list(inspect.signature(inspect.unwrap(QueuedRunCoordinatorDaemon.run_iteration)).parameters)
    assert parameters == ["self", "workspace_process_context", "fixed_iteration_time"]
    loop = inspect.getsource(daemon.IntervalDaemon.core_loop)
    assert "yield from self.run_iteration(workspace_process_context)" in loop
    assert "while time.time() - start_time < interval:" in loop


@pytest.mark.parametrize("storage", [PostgresRunStorage, PostgresEventLogStorage, PostgresScheduleStorage])
def test_the_postgresql_storages_can_keep_connections(storage: Any):
    """``defs/postgres_storage.py``."""
    parameters = list(inspect.signature(storage.optimize_for_webserver).parameters)

    assert parameters == ["self", "statement_timeout", "pool_recycle", "max_overflow"]
    assert "self._engine" in inspect.getsource(storage._connect if hasattr(storage, "_connect") else storage.connect)


def test_a_code_location_tells_which_load_of_the_definitions_it_has():
    """``defs/run_workers/launcher.py``."""
    for name in ("server_id", "socket", "host", "container_image", "get_repository"):
        assert hasattr(GrpcServerCodeLocation, name), name
    assert hasattr(DagsterInstance, "report_engine_event"), dagster.__version__


def test_the_daemon_prints_errors_and_ticks_where_they_are_replaced():
    """``defs/daemon_console.py``. Otherwise the console has tracebacks again, and nothing else would show it."""
    assert list(inspect.signature(DaemonErrorCapture.default_process_exception).parameters) == [
        "exc_info", "logger", "log_message"
    ]  # fmt: skip
    source = inspect.getsource(sensor)
    assert "DaemonErrorCapture.process_exception(" in source
    assert f"dagster.daemon.{daemon.SensorDaemon.__name__}" == daemon_console.SENSORS
    for text in ('f"Sensor {remote_sensor.name} skipped: ', 'f"Launching run for {remote_sensor.name}"'):
        assert text in source
