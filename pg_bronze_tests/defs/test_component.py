"""The component: several sources in one project, each exact, and none in the way of another."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.definitions_load_context import DefinitionsLoadContext, DefinitionsLoadType
from dagster._core.definitions.metadata.metadata_value import CodeLocationReconstructionMetadataValue
from dagster._core.definitions.repository_definition import RepositoryLoadData

from pg_bronze import BronzeTables
from pg_bronze.core.table import SourceTable
from pg_bronze.defs import metadata
from pg_bronze.defs.run_workers import settings_mark
from pg_bronze.defs.sensors import tick
from pg_bronze.errors import SettingsError
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness import project
from pg_bronze_tests.harness.servers import fresh_database

MOVIES = """
create table movie (id int primary key, title text);
insert into movie select i, '{name} ' || i from generate_series(1, {rows}) i;
create table person (id int primary key);
"""
SESSIONS_ENDED = "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = '{name}'"
TODAY = datetime.now(UTC).date().isoformat()


def yaml_of(source: "Source", **attributes: Any) -> str:
    """Return attributes as YAML, which JSON is."""
    return json.dumps(source.attributes | attributes)


@dataclass
class Source:
    """One source database, and the component that copies it."""

    name: str
    database: Any
    attributes: dict[str, Any] = field(default_factory=dict)

    def component(self, kind: type[BronzeTables] = BronzeTables, **attributes: Any) -> BronzeTables:
        return kind.resolve_from_yaml(yaml_of(self, **attributes))


@dataclass
class Sources:
    """A project with a component for each source."""

    instance: dg.DagsterInstance
    sources: Mapping[str, Source]
    bucket: Any
    definitions: dg.Definitions = field(default_factory=dg.Definitions)
    state: Mapping[str, str] = field(default_factory=dict)
    cursors: dict[str, str | None] = field(default_factory=dict)

    def load(self, *components: BronzeTables) -> dg.Definitions:
        """Load the definitions of the components, as a code server does when it starts."""
        with DefinitionsLoadContext.scoped(DefinitionsLoadContext(DefinitionsLoadType.INITIALIZATION)) as context:
            self.definitions = merged(components)
            self.state = context.get_pending_reconstruction_metadata()
        return self.definitions

    def load_for_run(self, *components: BronzeTables) -> dg.Definitions:
        """Load the definitions of the components, as a run worker does."""
        values = {key: CodeLocationReconstructionMetadataValue(value) for key, value in self.state.items()}
        scope = DefinitionsLoadContext(DefinitionsLoadType.RECONSTRUCTION, RepositoryLoadData({}, values))
        with DefinitionsLoadContext.scoped(scope):
            return merged(components)

    def tick(self, name: str) -> Any:
        sensor = f"bronze_tick_{name}"
        cursor = self.cursors.get(name)
        with dg.build_sensor_context(self.instance, cursor=cursor, definitions=self.definitions) as context:
            data = self.definitions.resolve_sensor_def(sensor).evaluate_tick(context)
        self.cursors[name] = data.cursor
        return data

    def run(self, request: dg.RunRequest, definitions: dg.Definitions | None = None) -> dg.ExecuteInProcessResult:
        job = (definitions or self.definitions).resolve_implicit_global_asset_job_def()
        copies = job.get_subset(asset_selection=set(request.asset_selection or ()), asset_check_selection=set())
        return copies.execute_in_process(
            instance=self.instance, partition_key=request.partition_key, tags=dict(request.tags), raise_on_error=False
        )


def merged(components: tuple[BronzeTables, ...]) -> dg.Definitions:
    return dg.Definitions.merge(*(dg.build_defs_for_component(component) for component in components))


@pytest.fixture
def two(postgres_server, bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sources]:
    """Two databases with the same tables, copied into one bucket by one project."""
    monkeypatch.setattr(DefinitionsLoadContext, "_instance", None)
    monkeypatch.setenv("ACCESS_KEY", bucket.environ["MINIO_ACCESS_KEY"])
    monkeypatch.setenv("SECRET_KEY", bucket.environ["MINIO_SECRET_KEY"])
    # Of another source: a component does not read it.
    monkeypatch.setenv("PG_DB", "another")
    monkeypatch.setenv("PG_BRONZE_LAYOUT", "date")
    for prefix in ("shop", "crm", "lake"):
        bucket.record_probe(prefix=prefix)
    with (
        fresh_database(postgres_server) as shop,
        fresh_database(postgres_server) as crm,
        dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance,
    ):
        sources = {}
        for name, database, rows in (("shop", shop, 3), ("crm", crm, 5)):
            database.execute(MOVIES.format(name=name, rows=rows))
            values = {key.lower(): value for key, value in {**database.environ, **bucket.environ}.items()}
            values = {key.removeprefix("pg_bronze_"): value for key, value in values.items()}
            values |= {"pg_pass": "{{ env.SOURCE_PASS }}", "minio_secret_key": "{{ env.SECRET_KEY }}"}
            values |= {"minio_access_key": "{{ env.ACCESS_KEY }}", "name": name}
            monkeypatch.setenv("SOURCE_PASS", database.environ.get("PG_PASS", "none"))
            sources[name] = Source(name, database, values)
        yield Sources(instance, sources, bucket)
    tick.close_kept()


def components(two: Sources) -> tuple[BronzeTables, ...]:
    return tuple(source.component() for source in two.sources.values())


def watermark(two: Sources, *key: str) -> Any:
    return metadata.watermark_of(two.instance.get_latest_materialization_event(dg.AssetKey(key)))


def copy_all(two: Sources) -> None:
    for name in two.sources:
        for request in two.tick(name).run_requests:
            assert two.run(request, two.load_for_run(*components(two))).success


def test_two_databases_of_one_location_are_copied_into_one_bucket_each_exactly(two: Sources):
    two.load(*components(two))

    copy_all(two)
    two.sources["shop"].database.execute("insert into movie values (91, 'late')")
    (request,) = two.tick("shop").run_requests
    assert not two.tick("crm").run_requests
    assert two.run(request).success

    assert {"/".join(key.path) for key in request.asset_selection} == {"bronze/shop/movie"}
    for name, source in two.sources.items():
        assert lake.compare(source.database, two.bucket, "movie", prefix=name) == lake.SAME
        assert watermark(two, "bronze", name, "movie").key.startswith(f"{name}/movie/")


def test_two_locations_with_a_name_each_share_a_dagster_home_and_a_bucket(
    two: Sources, monkeypatch: pytest.MonkeyPatch
):
    """Without a name the second one would find the watermark of the first, and stop."""
    for database_rows in (0, 1):
        for name, source in two.sources.items():
            environment = {**source.database.environ, **two.bucket.environ, "PG_BRONZE_START_DATE": TODAY}
            environment |= {"PG_BRONZE_NAME": name, "PG_BRONZE_PREFIX": name, "PG_BRONZE_LAYOUT": "flat"}
            for variable, value in environment.items():
                monkeypatch.setenv(variable, value)
            if database_rows:
                source.database.execute("insert into movie values (91, 'late')")
            two.definitions = project.load()
            for request in two.tick(name).run_requests:
                assert two.run(request).success

    for name, source in two.sources.items():
        assert lake.compare(source.database, two.bucket, "movie", prefix=name) == lake.SAME
        assert watermark(two, "bronze", name, "movie").counts.rows == {"shop": 4, "crm": 6}[name]


def test_a_source_that_is_down_does_not_stop_the_other(two: Sources):
    shop, crm = two.sources["shop"].component(pg_port=1), two.sources["crm"].component()

    two.load(shop, crm)

    with pytest.raises(Exception, match="PostgreSQL"):
        two.tick("shop")
    (request,) = two.tick("crm").run_requests
    assert two.run(request).success
    assert watermark(two, "bronze", "crm", "movie") is not None


def test_every_name_in_dagster_has_the_name_of_its_source(two: Sources):
    definitions = two.load(*components(two))

    sensors = {sensor.name for sensor in definitions.sensors}
    jobs = {job.name for job in definitions.jobs}
    resources = set(definitions.resources)
    pools = {pool for asset in definitions.resolve_all_asset_specs() for pool in [asset.metadata.get("pool")] if pool}
    for names in (sensors, jobs, resources):
        assert {item.rpartition("_")[2] for item in names} == {"shop", "crm"}, names
    assert pools <= {f"pg_bronze__{name}__{table}" for name in two.sources for table in ("movie", "person")}
    assert definitions.executor is None
    assert not definitions.loggers
    mark, is_named = settings_mark.of_metadata(definitions.metadata)
    assert is_named
    assert all(f"_{name}=" in mark for name in two.sources)


def test_a_run_of_one_source_keeps_no_table_of_the_other_from_being_copied(two: Sources):
    """Otherwise a long load of one database delays every other one."""
    two.load(*components(two))
    (request,) = two.tick("shop").run_requests
    run = two.instance.create_run_for_job(
        two.definitions.resolve_job_def("bronze_shop"), tags=dict(request.tags), status=dg.DagsterRunStatus.STARTED
    )
    assert run.tags["pg_bronze/source"] == "shop"

    assert not two.tick("shop").run_requests
    assert two.tick("crm").run_requests


def test_a_run_reads_the_catalog_of_its_code_server_and_not_the_database(two: Sources):
    two.load(*components(two))
    two.sources["shop"].database.execute("create table since (id int)")

    definitions = two.load_for_run(*components(two))

    keys = {"/".join(key.path) for key in definitions.resolve_asset_graph().executable_asset_keys}
    assert keys == {f"bronze/{name}/{table}" for name in two.sources for table in ("movie", "person")}
    assert all(len(text) < 2000 for text in two.state.values()), "it is part of every snapshot of a plan"


def test_a_table_has_the_key_the_group_and_the_options_of_its_attributes(two: Sources):
    tables = {
        "movie": {"asset_key": "raw/films", "group": "films", "owners": ["team:films"], "tags": {"tier": "1"}},
        "per*": {"key_prefix": "people", "description": "All of {table}.\n\n{description}"},
    }
    component = two.sources["shop"].component(tables=tables, include=["movie", "person"], slice_rows=2)
    two.load(component)

    (request,) = two.tick("shop").run_requests
    assert two.run(request).success

    assert {"/".join(key.path) for key in request.asset_selection} == {"raw/films", "people/person"}
    specs = {spec.key: spec for spec in two.definitions.resolve_all_asset_specs()}
    films, people = specs[dg.AssetKey(["raw", "films"])], specs[dg.AssetKey(["people", "person"])]
    assert (films.group_name, films.owners, films.tags["tier"]) == ("films", ["team:films"], "1")
    assert people.description.startswith("All of person.\n\n")
    assert watermark(two, "raw", "films").seq > 1, "three rows in slices of two"


class Prefixed(BronzeTables):
    """A subclass as a project writes one."""

    def get_asset_spec(self, table: SourceTable, spec: dg.AssetSpec) -> dg.AssetSpec:
        return spec.replace_attributes(key=spec.key.with_prefix("lake"), group_name="mine").merge_attributes(
            tags={"from": "code"}
        )


def test_a_subclass_changes_the_spec_of_each_asset_and_copies_under_its_key(two: Sources):
    component = two.sources["shop"].component(Prefixed)
    two.load(component)

    (request,) = two.tick("shop").run_requests
    assert two.run(request, two.load_for_run(component)).success

    assert {"/".join(key.path) for key in request.asset_selection} == {
        "lake/bronze/shop/movie",
        "lake/bronze/shop/person",
    }
    assert watermark(two, "lake", "bronze", "shop", "movie") is not None
    assert not two.tick("shop").run_requests
    spec = two.definitions.resolve_assets_def(dg.AssetKey(["lake", "bronze", "shop", "movie"])).specs_by_key
    assert [(item.group_name, item.tags["from"]) for item in spec.values()] == [("mine", "code")]


def test_a_database_that_gets_a_name_continues_after_its_objects(two: Sources):
    """An older project has no name; its watermarks are stored under other keys."""
    shop = two.sources["shop"]
    two.load(shop.component(prefix="lake"))
    for request in two.tick("shop").run_requests:
        assert two.run(request).success
    before = watermark(two, "bronze", "shop", "movie")

    two.load(shop.component(prefix="lake", name="store"))
    for request in two.tick("store").run_requests:
        assert two.run(request).success
    shop.database.execute("insert into movie values (91, 'after')")
    (request,) = two.tick("store").run_requests
    assert two.run(request).success

    after = watermark(two, "bronze", "store", "movie")
    assert after.seq == before.seq + 1
    assert lake.compare(shop.database, two.bucket, "movie", prefix="lake") == lake.SAME


def test_a_database_that_was_renamed_is_copied_on(two: Sources, postgres_server):
    """A watermark has the oid of its database and not its name."""
    shop = two.sources["shop"]
    two.load(shop.component())
    for request in two.tick("shop").run_requests:
        assert two.run(request).success
    before = watermark(two, "bronze", "shop", "movie")
    tick.close_kept()
    renamed = f"{shop.database.name}_x"
    two.sources["crm"].database.execute(SESSIONS_ENDED.format(name=shop.database.name))
    two.sources["crm"].database.execute(f'alter database "{shop.database.name}" rename to "{renamed}"')
    try:
        two.load(shop.component(pg_db=renamed))
        assert [request for request in two.tick("shop").run_requests if not two.run(request).success] == []
    finally:
        tick.close_kept()
        two.sources["crm"].database.execute(SESSIONS_ENDED.format(name=renamed))
        two.sources["crm"].database.execute(f'alter database "{renamed}" rename to "{shop.database.name}"')

    assert watermark(two, "bronze", "shop", "movie").origin.database == before.origin.database
    assert lake.compare(shop.database, two.bucket, "movie", prefix="shop") == lake.SAME


def test_two_sources_have_rows_of_their_own_in_one_control_table(two: Sources, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CONTROL_URL", two.sources["crm"].database.url)
    control = "{{ env.CONTROL_URL }}"
    two.load(*(source.component(pg_control_url=control) for source in two.sources.values()))

    for name in two.sources:
        for request in two.tick(name).run_requests:
            assert two.run(request).success

    rows = two.sources["crm"].database.execute("select table_name, last_extracted_value from etl_control order by 1")
    assert [(name, value) for name, value in rows if name.endswith("movie")] == [
        ("crm:movie", "5"),
        ("shop:movie", "3"),
    ]


def test_a_secret_in_yaml_is_refused_without_being_shown(two: Sources):
    """Dagster prints the line of the file with an error of a resolver."""
    with pytest.raises(SettingsError) as caught:
        two.load(two.sources["shop"].component(pg_pass="hunter2secret"))

    assert "BronzeTables shop: pg_pass: a secret must come from the environment" in str(caught.value)
    assert "{{ env.NAME }}" in str(caught.value)
    assert "hunter2secret" not in str(caught.value)
    assert "hunter2secret" not in repr(two.sources["shop"].component())


@pytest.mark.parametrize(
    "attributes,words",
    [
        ({"pg_port": 70000}, ["BronzeTables shop", "pg_port", "65535"]),
        ({"name": "Shop"}, ["name is 'Shop'", "lower-case letters"]),
        ({"tables": {"mov*": {"asset_key": "a"}}}, ["tables", "mov*", "key_prefix"]),
        ({"minio_bucket": "No"}, ["minio_bucket"]),
    ],
    ids=["number", "name", "pattern", "bucket"],
)
def test_an_invalid_attribute_is_a_sentence_with_its_setting(
    two: Sources, attributes: dict[str, Any], words: list[str]
):
    component = two.sources["shop"].component(**attributes)

    with pytest.raises(SettingsError) as caught:
        _ = component.settings

    assert all(word in str(caught.value) for word in words), caught.value


def test_a_process_that_received_no_catalog_reads_it(two: Sources):
    """`dg launch` loads the definitions as a run does, and passes it nothing."""
    two.load(*components(two))
    two.state = {}

    definitions = two.load_for_run(*components(two))

    keys = {"/".join(key.path) for key in definitions.resolve_asset_graph().executable_asset_keys}
    assert "bronze/shop/movie" in keys


def test_the_jobs_of_two_sources_are_valid_together(two: Sources):
    """Dagster refuses a location in which two jobs have ops of the same name."""
    definitions = two.load(*components(two))

    repository = definitions.get_repository_def()

    assert {"bronze_verify_shop", "bronze_verify_crm", "bronze_new_tables_shop"} <= set(repository.job_names)


def test_a_stored_catalog_is_used_without_the_database(two: Sources, tmp_path: Path):
    """As in an image that is built in CI with `dg utils refresh-defs-state`."""
    stored = {"management_type": "LOCAL_FILESYSTEM"}
    component, file = two.sources["shop"].component(defs_state=stored), tmp_path / "state"
    component.write_state_to_path(file)
    down = two.sources["shop"].component(defs_state=stored, pg_port=1)

    definitions = down.build_defs_from_state(None, file)

    keys = {"/".join(key.path) for key in definitions.resolve_asset_graph().executable_asset_keys}
    assert keys == {"bronze/shop/movie", "bronze/shop/person"}
    assert "dg utils refresh-defs-state" in _reason(component, two)


def _reason(component: BronzeTables, two: Sources) -> str:
    two.definitions = component.build_defs_from_state(None, None)
    (sensor,) = [item for item in two.definitions.sensors if item.name == "bronze_tick_shop"]
    with dg.build_sensor_context(two.instance, definitions=two.definitions) as context:
        return str(sensor.evaluate_tick(context).skip_message)


def test_each_attribute_is_described_in_the_schema():
    schema = BronzeTables.get_model_cls().model_json_schema()

    described = {name: item.get("description") for name, item in schema["properties"].items()}
    assert set(schema["required"]) == {"name", "pg_db", "minio_bucket"}
    assert [name for name, text in described.items() if not text] == []
    of_table = schema["$defs"]["TableAttributesModel"]["properties"]
    assert {"cursor_column", "exclude_columns", "masks", "tags", "owners", "asset_key", "sweep_budget"} <= set(of_table)
