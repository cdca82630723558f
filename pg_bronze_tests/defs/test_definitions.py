"""Definitions: one bronze asset for each table, its source table upstream, and running sensors."""

import json
import subprocess
import sys

import dagster as dg
import pytest
from dagster._core.definitions.definitions_load_context import DefinitionsLoadContext, DefinitionsLoadType
from hypothesis import example, given
from hypothesis import strategies as st

from pg_bronze.core.table import SourceTable, label, literal, quote
from pg_bronze.defs import asset_keys
from pg_bronze.defs.source_names import SOURCE, SourceNames
from pg_bronze_tests.harness.names import TABLES
from pg_bronze_tests.harness.project import key


def _bronze(definitions: dg.Definitions) -> set[str]:
    graph = definitions.resolve_asset_graph()
    return {"/".join(item.path) for item in graph.executable_asset_keys}


def test_imports_do_not_change_the_process_and_a_run_tunes_it():
    """Environment variables or a frozen garbage collector would affect every program that imports the package."""
    code = """
import gc, json, os, pkgutil, importlib
before = dict(os.environ)
import pg_bronze, pg_bronze.definitions
for module in pkgutil.walk_packages(pg_bronze.__path__, "pg_bronze."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
untouched = dict(os.environ) == before and gc.get_freeze_count() == 0
from pg_bronze.settings.process import tune_process
tune_process()
print(json.dumps([untouched, gc.get_freeze_count() > 100_000, gc.isenabled(), os.environ["_RJEM_MALLOC_CONF"]]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert json.loads(done.stdout) == [True, True, True, "dirty_decay_ms:0,muzzy_decay_ms:0"]


def test_each_table_is_a_bronze_asset_with_its_source_upstream(cinema):
    """Without the lineage the asset catalog does not show the source of a bronze table."""
    graph = cinema.definitions.resolve_asset_graph()

    assert _bronze(cinema.definitions) == {"bronze/movie", "bronze/person"}
    for table in ("movie", "person"):
        upstream = dg.AssetKey([SOURCE, asset_keys.encode(cinema.database.name), table])
        assert graph.get(key(table)).parent_keys == {upstream}
        assert not graph.get(upstream).is_executable


def test_the_key_of_a_table_outside_public_contains_the_schema(project):
    project.database.execute("create schema sales; create table sales.movie (id int); create table movie (id int)")

    assert _bronze(project.reload()) == {"bronze/movie", "bronze/sales/movie"}


def test_the_control_table_is_not_a_source_table(cinema):
    """Every batch writes to it, so every batch would cause another one."""
    assert cinema.copy("movie").success
    assert cinema.database.execute("select table_name from etl_control") == [("movie",)]

    definitions = cinema.reload()

    assert _bronze(definitions) == {"bronze/movie", "bronze/person"}
    assert not any("etl_control" in item.path for item in definitions.resolve_asset_graph().get_all_asset_keys())


def test_a_table_that_cannot_be_copied_is_listed_with_the_reason(project):
    """A missing table would look like a bug of the catalog."""
    project.database.execute("create table movie (id int); create view best as select * from movie")

    definitions = project.reload()

    assert _bronze(definitions) == {"bronze/movie"}
    graph = definitions.resolve_asset_graph()
    view = graph.get(dg.AssetKey([SOURCE, asset_keys.encode(project.database.name), "best"]))
    assert "**Skipped**: it is a view" in view.description
    assert view.tags["pg_bronze/status"] == "skipped"


def test_the_definition_contains_the_columns_with_types_and_comments(cinema):
    graph = cinema.definitions.resolve_asset_graph()

    schema = graph.get(key("movie")).metadata["dagster/column_schema"]

    *columns, xid = schema.columns
    found = {column.name: (column.type, column.description, column.constraints.nullable) for column in columns}
    assert found == {
        "id": ("integer", None, False),
        "title": ("text", "As on the poster", False),
        "updated_at": ("timestamp with time zone", None, True),
    }
    assert [column.constraints.other for column in columns] == [["primary key"], [], []]
    assert (xid.name, xid.type, xid.constraints.nullable) == ("_pg_xid", "bigint", False)
    assert graph.get(key("movie")).description.startswith("Films and when they changed")


def test_the_storage_of_an_asset_is_its_folder_and_that_of_a_source_its_table(cinema):
    """The page of an asset shows both under "Storage", and a person looks there for the objects."""
    graph = cinema.definitions.resolve_asset_graph()
    movie = graph.get(key("movie"))
    source = graph.get(next(iter(movie.parent_keys)))

    assert movie.metadata["dagster/uri"] == f"s3://{cinema.bucket.name}/movie/"
    assert source.metadata["dagster/table_name"] == f"{cinema.database.name}.public.movie"
    assert "dagster/table_name" not in movie.metadata


def test_the_description_names_the_cursor_column_and_the_reason(cinema):
    description = cinema.definitions.resolve_asset_graph().get(key("movie")).description

    assert "Cursor column `updated_at`: it is a timestamp" in description


def test_kinds_groups_and_pools(cinema):
    """The pool serializes runs of one table. Without it they compete for the claim in every tick."""
    graph = cinema.definitions.resolve_asset_graph()
    movie, person = graph.get(key("movie")), graph.get(key("person"))

    assert (movie.group_name, set(movie.kinds)) == ("bronze", {"polars", "parquet", "s3"})
    assert movie.pools != person.pools
    assert len(movie.pools) == 1
    upstream = graph.get(next(iter(movie.parent_keys)))
    assert (upstream.group_name, set(upstream.kinds)) == ("postgres", {"postgres", "table"})


def test_all_tables_share_one_process(cinema):
    """Dagster's default executor takes seconds of CPU for each table in each tick."""
    assert cinema.definitions.resolve_implicit_global_asset_job_def().executor_def is dg.in_process_executor


def test_sensors_run_without_being_switched_on_and_often_enough_for_ten_seconds(cinema):
    """Dagster evaluates sensors every 5 s: with an interval of 10 a tick would come after up to 15 s."""
    tick = cinema.definitions.resolve_sensor_def("bronze_tick")
    catalog = cinema.definitions.resolve_sensor_def("bronze_catalog")

    assert (tick.default_status, tick.minimum_interval_seconds) == (dg.DefaultSensorStatus.RUNNING, 9)
    assert catalog.default_status == dg.DefaultSensorStatus.RUNNING
    assert catalog.minimum_interval_seconds < 60
    assert cinema.definitions.resolve_sensor_def("bronze_retention").default_status == dg.DefaultSensorStatus.RUNNING


def test_today_is_a_partition_and_the_first_day_is_kept(project):
    """If the first day moved with every start, partitions of the past would disappear."""
    from datetime import UTC, datetime, timedelta

    project.database.execute("create table movie (id int)")
    project.monkeypatch.delenv("PG_BRONZE_START_DATE")
    store = project.bucket.store()
    project.reload()
    catalog = json.loads(store.get("_pg_bronze/catalog.json"))
    earlier = (datetime.now(UTC) - timedelta(days=3)).date().isoformat()
    store.replace("_pg_bronze/catalog.json", json.dumps({**catalog, "first_day": earlier}).encode())

    graph = project.reload().resolve_asset_graph()

    keys = graph.get(key("movie")).partitions_def.get_partition_keys()
    assert (keys[0], keys[-1], len(keys)) == (earlier, datetime.now(UTC).date().isoformat(), 4)


def test_without_settings_one_asset_says_what_to_set(project):
    """The UI would be empty otherwise, and only the error of a tick would have the reason."""
    project.monkeypatch.delenv("MINIO_BUCKET")

    graph = project.reload().resolve_asset_graph()

    (only,) = graph.get_all_asset_keys()
    assert not graph.executable_asset_keys
    assert "MINIO_BUCKET is not set. Set it in the environment or in .env." in graph.get(only).description


def test_untracked_skip_excludes_a_table_with_the_reason(project):
    project.database.execute("create table movie (id int primary key); create table note (body text)")
    project.set(PG_BRONZE_UNTRACKED="skip")

    definitions = project.reload()

    assert _bronze(definitions) == {"bronze/movie"}
    note = definitions.resolve_asset_graph().get(
        dg.AssetKey([SOURCE, asset_keys.encode(project.database.name), "note"])
    )
    assert "no cursor column" in note.description
    assert "PG_BRONZE_UNTRACKED" in note.description


def test_an_untracked_table_is_copied_by_default(project):
    project.database.execute("create table note (body text); insert into note values ('a'), ('a')")
    project.reload()

    assert project.copy("note").success

    from pg_bronze_tests.harness import plain_lake as lake

    assert lake.read(project.bucket, "note")["body"].to_list() == ["a", "a"]


def test_excluded_tables_have_no_asset(cinema):
    cinema.set(PG_BRONZE_EXCLUDE="per*")

    assert _bronze(cinema.reload()) == {"bronze/movie"}


def test_tables_whose_names_are_no_valid_keys_are_loaded_and_copied(project):
    """One such name would otherwise prevent the whole code location from loading."""
    project.database.execute(
        'create schema "a.b"; create table "a.b"."c" (id int); create table "Größe/%" (id int);'
        'create table "x__y" (id int);'
        'create table "select" (id int); create table "día" (id int); create table "_" (id int);'
        'create table "result" (id int); create table "1st" (id int);'
        'insert into "Größe/%" values (1); insert into "a.b"."c" values (2); insert into "_" values (3);'
        'insert into "select" values (4);'
    )

    project.reload()
    result = project.copy()

    assert result.success
    assert len(project.definitions.resolve_asset_graph().executable_asset_keys) == 8
    written = {item.key.rsplit("/", 1)[0] for item in project.bucket.store().list("") if item.key.endswith(".parquet")}
    assert len(written) == 4


_names = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), min_size=1, max_size=12)
_plain = st.text("ab_.", min_size=1, max_size=4)
_pairs = st.sampled_from(TABLES) | st.tuples(st.one_of(_plain, _names, st.just("public")), st.one_of(_plain, _names))


def _table(schema: str, name: str) -> SourceTable:
    return SourceTable(1, schema, name, False, None, (), (), (), 0.0, None, "")


@given(_pairs)
@example(("public", "a_b_x0_2E_0"))
@example(("public", "a.b"))
@example(("x0_2E", "x"))
def test_the_table_can_be_decoded_from_its_asset_key(pair):
    _, *parts = SourceNames().bronze_key(_table(*pair)).path
    *schema, name = [part if (name := asset_keys.decoded(part)) is None else name for part in parts]

    assert (*(schema or ["public"]), name) == pair


@pytest.mark.parametrize(
    "name, part",
    [
        ("movie_2", "movie_2"),
        ("two words", "two_words_x0_20_0"),
        ("a.b", "a_b_x0_2E_0"),
        ("_", "x5F"),
        ("película", "pel_cula_x0_C3AD_0"),
        ("a_b_x0_2E_0", "a_b_x0_2E_0_x0_5F_5F_5F_5F_0"),
    ],
)
def test_characters_that_a_key_cannot_contain_are_appended_in_hexadecimal(name, part):
    assert SourceNames().bronze_key(_table("public", name)).path == ["bronze", part]


@given(one=_pairs, other=_pairs)
def test_no_two_tables_share_a_key_a_step_or_a_pool(one, other):
    """With one watermark for both, rows of one table would be lost and rows of the other duplicated."""
    first, second = _table(*one), _table(*other)
    if one == other:
        return

    keys = SourceNames().bronze_key(first), SourceNames().bronze_key(second)

    assert keys[0] != keys[1]
    assert keys[0].to_python_identifier() != keys[1].to_python_identifier()
    assert SourceNames().pool(first) != SourceNames().pool(second)
    assert all(dg._core.definitions.utils.is_valid_name(item.to_python_identifier()) for item in keys)


def test_a_run_worker_reads_the_catalog_from_no_server(cinema):
    """Each run would read the catalog again, and could not be loaded while the database is down."""
    with DefinitionsLoadContext.scoped(DefinitionsLoadContext(DefinitionsLoadType.INITIALIZATION)) as context:
        from pg_bronze.definitions import defs

        loaded = defs(context)
        passed_on = context.get_pending_reconstruction_metadata()
    cinema.set(PG_PORT="1", MINIO_ENDPOINT="http://127.0.0.1:1")

    again = _reconstruct(passed_on)

    assert _bronze(again) == _bronze(loaded)
    assert (
        again.resolve_asset_graph().get(key("movie")).description
        == loaded.resolve_asset_graph().get(key("movie")).description
    )


def _reconstruct(passed_on):
    from dagster._core.definitions.repository_definition.repository_definition import RepositoryLoadData

    from pg_bronze.definitions import defs

    data = RepositoryLoadData(cacheable_asset_data={}, reconstruction_metadata=passed_on, code_location_name="x")
    with DefinitionsLoadContext.scoped(DefinitionsLoadContext(DefinitionsLoadType.RECONSTRUCTION, data)) as context:
        return defs(context)


def _description(project, table: str) -> str:
    return project.definitions.resolve_asset_graph().get(key(table)).description


def test_the_description_names_rows_and_values_that_are_not_copied(cinema):
    """`select count(*) from movie` counts the rows of both tables, and `scan("movie")` has those of one."""
    cinema.database.execute("create table old_movie () inherits (movie); alter table person add photo oid")
    cinema.reload()

    assert "**Limit**: Tables inherit from this one: old_movie." in _description(cinema, "movie")
    assert "**Limit**: Large objects are not copied" in _description(cinema, "person")
    assert "**Limit**" not in _description(cinema, "old_movie")


def test_the_latest_change_of_the_columns_is_in_the_description(cinema):
    """The run that logged the change is hard to find weeks later, when a column is missed."""
    assert "**Changed**" not in _description(cinema, "movie")
    cinema.database.execute("alter table movie rename title to name; alter table movie add rating int default 7")

    for _ in range(2):
        cinema.reload()
        assert "UTC: column 'rating' (integer) was added; column 'title' was renamed to 'name'." in _description(
            cinema, "movie"
        )
        assert "**Changed**" not in _description(cinema, "person")
    cinema.database.execute("alter table movie drop rating")
    cinema.reload()
    assert "UTC: column 'rating' (integer) was dropped." in _description(cinema, "movie")
    cinema.database.execute("drop table movie; create table movie (id int)")
    cinema.reload()
    assert "the table was replaced" in _description(cinema, "movie")


def _made(number: int) -> str:
    schema, name = TABLES[number]
    table = f"{quote(schema)}.{quote(name)}"
    return (
        f"create schema if not exists {quote(schema)}; create table {table} (id int primary key, word text);"
        f"insert into {table} values ({number}, {literal(f'of {name}')})"
    )


def test_settings_refer_to_tables_by_their_label(project):
    numbers = [TABLES.index(("public", name)) for name in ("movie", "Movie", "a.b", "a,b", " movie", "[a]*")]
    numbers.append(TABLES.index(("a", "b.c")))
    project.database.execute(";".join(map(_made, numbers)))
    dotted = label("a", "b.c")
    project.set(
        PG_BRONZE_INCLUDE='movie, "a.b", a?b, ?movie, [[]a]*, a."b.c"',
        PG_BRONZE_EXCLUDE="[m]ovie",
        PG_BRONZE_TABLES=json.dumps({dotted: {"cursor_column": "nothing"}, '"a.b"': {"slice_rows": 7}}),
    )

    graph = project.reload().resolve_asset_graph()

    tables = {
        (graph.get(key).metadata["pg_bronze/schema"], graph.get(key).metadata["pg_bronze/table"]): graph.get(key)
        for key in graph.executable_asset_keys
    }
    assert set(tables) == {("public", "a.b"), ("public", "a,b"), ("public", " movie"), ("public", "[a]*"), ("a", "b.c")}
    assert "a.\"b.c\": the cursor column 'nothing' does not exist" in tables["a", "b.c"].description
    assert "Invalid setting" not in tables["public", "a.b"].description
