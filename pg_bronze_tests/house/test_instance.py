"""The two dagster.yaml files, as Dagster reads them."""

import shutil
from pathlib import Path

import pytest
import yaml
from dagster import DagsterInstance
from dagster._core.instance.ref import InstanceRef

from pg_bronze.defs import metadata
from pg_bronze.scheduling import batches, first_loads

TOP = Path(__file__).parents[2]
FILES = ["dagster.yaml", "deploy/postgres/dagster.yaml"]


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """The current folder: a project folder with a space in its name and only dagster.yaml in it."""
    folder = tmp_path / "a project"
    folder.mkdir()
    shutil.copy(TOP / "dagster.yaml", folder)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    return folder


def test_dagster_stores_its_state_in_the_project_folder(project, tmp_path):
    """In a temporary folder, every watermark would be lost when Dagster stops."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    ref = InstanceRef.from_dir(str(elsewhere), config_dir=str(project))

    with DagsterInstance.from_ref(ref) as instance:
        assert Path(instance.storage_directory()).resolve() == project / ".dagster/storage"
        assert instance.get_run_records() == []

    assert list(elsewhere.iterdir()) == []
    assert {path.name for path in project.iterdir()} == {"dagster.yaml", ".dagster"}
    assert list((project / ".dagster/storage").iterdir()) != []


def test_the_instance_has_the_settings_that_pg_bronze_needs(project):
    with DagsterInstance.from_config(str(project)) as instance:
        concurrency = instance.get_concurrency_config()
        queue = concurrency.run_queue_config
        got = {
            "telemetry": instance.telemetry_enabled,
            "nux": instance.nux_enabled,
            "pools": (concurrency.pool_config.pool_granularity.value, concurrency.pool_config.default_pool_limit),
            "runs at once": queue.max_concurrent_runs,
            "long runs at once": [(item["key"], item["limit"]) for item in queue.tag_concurrency_limits],
            "seconds between dequeues": instance.run_coordinator.dequeue_interval_seconds,
            "abandoned runs end": instance.run_monitoring_enabled and instance.run_monitoring_max_runtime_seconds > 0,
            "ticks in parallel": (
                instance.get_sensor_settings()["use_threads"],
                instance.get_sensor_settings()["num_workers"],
            ),
        }

    assert got == {
        "telemetry": False,
        "nux": False,
        "pools": ("run", 1),
        "runs at once": 2 + first_loads.SLOTS + batches.SLOW_RUNS,
        "long runs at once": [(metadata.FIRST_LOAD_TAG, first_loads.SLOTS), (metadata.SLOW_TAG, batches.SLOW_RUNS)],
        "seconds between dequeues": 0.4,
        "abandoned runs end": True,
        "ticks in parallel": (True, 4),
    }


def test_the_deployed_instance_differs_only_in_its_storage():
    ours, deployed = ({**yaml.safe_load((TOP / file).read_text()), "storage": None} for file in FILES)

    assert deployed == ours


def test_the_deployed_instance_reads_its_database_from_the_environment():
    """It uses psycopg 2: with SQLAlchemy 2.1, a bare postgresql:// fails at the first event."""
    storage = yaml.safe_load((TOP / FILES[1]).read_text())["storage"]["custom"]["config"]["postgres_db"]

    assert storage.pop("scheme") == "postgresql+psycopg2"
    assert {key: list(value) for key, value in storage.items()} == {key: ["env"] for key in storage}
    InstanceRef.from_dir(str((TOP / FILES[1]).parent))


def test_the_workspace_is_the_one_code_location():
    workspace = yaml.safe_load((TOP / "workspace.yaml").read_text())

    assert workspace == {
        "load_from": [
            {
                "python_module": {
                    "module_name": "pg_bronze.definitions",
                    "location_name": "pg_bronze",
                    "working_directory": ".",
                }
            }
        ]
    }
