"""A project in one process: a new database, a new bucket and an ephemeral Dagster instance."""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.definitions_load_context import DefinitionsLoadContext, DefinitionsLoadType
from dagster._core.definitions.metadata.metadata_value import CodeLocationReconstructionMetadataValue
from dagster._core.definitions.repository_definition import RepositoryLoadData

from pg_bronze import definitions
from pg_bronze.core.watermark import Watermark
from pg_bronze.defs import catalog_state, metadata
from pg_bronze.defs.sensors import tick
from pg_bronze.errors import PgBronzeError
from pg_bronze.lake import s3_client
from pg_bronze.settings.load import load_settings
from pg_bronze_tests.harness import migration_scripts

FIRST_DAY = "2026-01-01"

migration_scripts.install()
# A project opens its bucket some ten times in a test, and a client takes ten times as long as a request.
_shared_client = functools.cache(s3_client.connect)


def load_as_worker(state: str) -> dg.Definitions:
    """Load what a run worker loads: the catalog from the code server, and the current settings."""
    data = RepositoryLoadData(
        reconstruction_metadata={catalog_state.KEY: CodeLocationReconstructionMetadataValue(state)}
    )
    scope = DefinitionsLoadContext(DefinitionsLoadType.RECONSTRUCTION, data)
    with DefinitionsLoadContext.scoped(scope) as context:
        return definitions.defs(context)


def load() -> dg.Definitions:
    """Load what a code server loads when it starts, with the current environment."""
    return load_with_state()[0]


def load_with_state() -> tuple[dg.Definitions, str | None]:
    """Load the definitions, and return them with the state that the code server passes to run workers."""
    with DefinitionsLoadContext.scoped(DefinitionsLoadContext(DefinitionsLoadType.INITIALIZATION)) as context:
        loaded = definitions.defs(context)
        return loaded, context.get_pending_reconstruction_metadata().get(catalog_state.KEY)


def key(table: str) -> dg.AssetKey:
    return dg.AssetKey(["bronze", *table.split(".")])


def set_dagsters_clock(monkeypatch: pytest.MonkeyPatch, now: Callable[[], datetime]) -> None:
    """Replace Dagster's clock, because a sensor whose clock is ahead may request a partition of tomorrow.

    Dagster's own ``freeze_time`` replaces the same name.
    """
    monkeypatch.setattr("dagster._time._mockable_get_current_datetime", now)


@dataclass
class Project:
    """The actions of an operator of one project."""

    database: Any
    bucket: Any
    instance: dg.DagsterInstance
    monkeypatch: pytest.MonkeyPatch
    definitions: dg.Definitions = field(default_factory=dg.Definitions)
    cursor: str | None = None
    state: str | None = None

    def advance_clock(self, seconds: float) -> None:
        """Let the sensor and Dagster see a time that many seconds ahead of the clock."""
        later = datetime.now(UTC) + timedelta(seconds=seconds)
        self.monkeypatch.setattr(tick, "datetime", SimpleNamespace(now=lambda _zone: later))
        set_dagsters_clock(self.monkeypatch, lambda: later)

    def set(self, **variables: str) -> None:
        for name, value in variables.items():
            self.monkeypatch.setenv(name, value)

    def reload(self) -> dg.Definitions:
        """Load the definitions and store the catalog, as the catalog sensor does within half a minute."""
        self.definitions, self.state = load_with_state()
        if self.state:
            with suppress(PgBronzeError):
                settings = load_settings()
                catalog_state.store_in_bucket(settings, catalog_state.resolve(self.state, settings))
        return self.definitions

    def copy(self, *tables: str, day: date | str | None = None, **options: Any) -> dg.ExecuteInProcessResult:
        """Materialize tables for one day as a run worker does. The default is all tables, today."""
        loaded = load_as_worker(self.state) if self.state else self.definitions
        job = loaded.resolve_implicit_global_asset_job_def()
        selection = [key(table) for table in tables] or list(job.asset_layer.executable_asset_keys)
        if "dagster/asset_partition_range_start" not in options.get("tags", {}):
            options["partition_key"] = str(day or datetime.now(UTC).date())
        options.setdefault("raise_on_error", False)
        copies = job.get_subset(asset_selection=set(selection), asset_check_selection=set())
        return copies.execute_in_process(instance=self.instance, **options)

    def warnings_of_a_failing_table(self) -> list[str]:
        """Let the copy of ``movie`` fail, and return the list that later warnings of sensors are added to."""
        self.database.execute("alter table movie rename to film")
        assert not self.copy("movie", tags={metadata.BATCH_TAG: "tick"}).success
        self.database.execute("alter table film rename to movie")
        lines: list[str] = []
        log = SimpleNamespace(warning=lines.append)
        self.monkeypatch.setattr(dg.SensorEvaluationContext, "log", property(lambda _self: log))
        return lines

    def evaluate(self, sensor: str = "bronze_tick") -> Any:
        """Evaluate a sensor with the cursor of its last evaluation."""
        with dg.build_sensor_context(self.instance, cursor=self.cursor, definitions=self.definitions) as context:
            data = self.definitions.resolve_sensor_def(sensor).evaluate_tick(context)
        self.cursor = data.cursor if data.cursor is not None else self.cursor
        return data

    def latest(self, table: str) -> dg.AssetMaterialization | None:
        event = self.instance.get_latest_materialization_event(key(table))
        return event.asset_materialization if event else None

    def watermark(self, table: str) -> Watermark | None:
        return metadata.watermark_of(self.instance.get_latest_materialization_event(key(table)))


def requested(data: Any) -> list[set[str]]:
    """Return the tables of each run that a sensor requested."""
    return [{".".join(item.path[1:]) for item in request.asset_selection} for request in data.run_requests]


def values(materialization: dg.AssetMaterialization | None) -> Mapping[str, Any]:
    assert materialization is not None
    return {name: value.value for name, value in materialization.metadata.items()}


def sentences(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    """Return the message of each failed step."""
    return {
        event.step_key: event.step_failure_data.user_failure_data.description
        for event in result.all_events
        if event.event_type == dg.DagsterEventType.STEP_FAILURE
    }


def messages(project: Project, result: dg.ExecuteInProcessResult | dg.DagsterRun) -> list[str]:
    """Return every line of a run's log."""
    records = project.instance.get_records_for_run(result.run_id).records
    return [record.event_log_entry.user_message for record in records]


@contextmanager
def opened(database: Any, bucket: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Yield a project with its settings in the environment. Its definitions are not loaded yet."""
    cwd = folder / "cwd"
    cwd.mkdir()
    monkeypatch.chdir(cwd)
    # A test that executed a run from its reference leaves the context of a run worker, with another test's catalog.
    monkeypatch.setattr(DefinitionsLoadContext, "_instance", None)
    monkeypatch.setattr(s3_client, "connect", _shared_client)
    with dg.DagsterInstance.ephemeral(tempdir=str(folder)) as instance:
        made = Project(database, bucket, instance, monkeypatch)
        made.set(**database.environ, **bucket.environ, PG_BRONZE_START_DATE=FIRST_DAY)
        bucket.record_probe()
        yield made
    tick.close_kept()


MOVIES = """
create table movie (id int primary key, title text not null, updated_at timestamptz default now());
comment on table movie is 'Films and when they changed';
comment on column movie.title is 'As on the poster';
insert into movie select i, 'film ' || i, '2026-01-02 03:04:05+00' from generate_series(1, 5) i;
create table person (id int primary key, name text);
insert into person select i, 'person ' || i from generate_series(1, 3) i;
"""


def copy_a_new_row(project: Project) -> None:
    """Insert a film, copy it, and check that Dagster has stored that."""
    project.database.execute("insert into movie select max(id) + 1, 'new', now() from movie")
    copied = project.copy("movie")
    found = project.instance.get_latest_materialization_event(key("movie"))
    assert copied.success
    assert found is not None
    assert found.run_id == copied.run_id


def settle(project: Project) -> None:
    """Tick and copy until no table is due."""
    for _ in range(8):
        due = requested(project.evaluate())
        if not due:
            return
        for tables in due:
            assert project.copy(*tables).success
    raise AssertionError(f"still due: {due}")
