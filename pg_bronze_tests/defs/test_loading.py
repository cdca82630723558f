"""Loading never fails: Dagster does not retry a code location that cannot be loaded, one with sensors recovers."""

import contextlib
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from unittest.mock import Mock

import dagster as dg
import pytest

from pg_bronze.cli import batch
from pg_bronze.defs import catalog_state
from pg_bronze.defs.sensors import catalog
from pg_bronze.errors import SourceUnavailable, StoreNotFit
from pg_bronze.postgres.catalog import Catalog
from pg_bronze.settings.load import load_settings
from pg_bronze_tests.harness.project import (
    Project,
    key,
    load,
    load_as_worker,
    load_with_state,
    requested,
    sentences,
)
from pg_bronze_tests.harness.repetitions import combinations
from pg_bronze_tests.harness.servers import Bucket, unused_bucket_name

CLOSED = {"PG_HOST": "127.0.0.1", "PG_PORT": "1"}
NO_BUCKET = {"MINIO_ENDPOINT": "http://127.0.0.1:1"}


def _tick_error(project: Project) -> str:
    """Return the message of the error that the tick raises."""
    with pytest.raises(Exception) as caught:  # noqa: PT011  # Dagster wraps it, by version in another class
        project.evaluate()
    error: BaseException | None = caught.value
    while error is not None and not type(error).__module__.startswith("pg_bronze"):
        error = error.__cause__ or getattr(error, "user_exception", None)
    assert error is not None, f"not an error of pg_bronze: {caught.value!r}"
    return str(error)


def _no_database_name(project: Project) -> None:
    project.monkeypatch.delenv("PG_DB")


def _misspelt(project: Project) -> None:
    project.set(PG_BRONZE_INTERVALL_S="10")


def _wrong_alias(project: Project) -> None:
    for name in ("MINIO_ENDPOINT", "MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"):
        project.monkeypatch.delenv(name)
    project.set(MC_CONFIG_DIR=os.getcwd(), MINIO_ALIAS="nowhere")


def _unreadable_env_file(project: Project) -> None:
    # Even root cannot read a folder as a file.
    os.mkdir(".env")


@pytest.mark.parametrize(
    "spoil,words",
    [
        (_no_database_name, ["PG_DB", "not set"]),
        (_misspelt, ["PG_BRONZE_INTERVALL_S", "PG_BRONZE_INTERVAL_S"]),
        (_wrong_alias, ["MINIO_ALIAS", "nowhere", "mc alias set"]),
        (_unreadable_env_file, [".env", "cannot be read"]),
    ],
    ids=["missing", "misspelt", "alias", "env file"],
)
def test_definitions_load_with_invalid_settings_and_the_tick_names_the_setting(
    project: Project, spoil: Callable[[Project], None], words: list[str]
):
    spoil(project)

    definitions = project.reload()

    assert {sensor.name for sensor in definitions.sensors} == {"bronze_tick", "bronze_catalog"}
    assert not definitions.resolve_asset_graph().executable_asset_keys
    message = _tick_error(project)
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_corrected_settings_are_used_at_the_next_load(cinema: Project):
    cinema.set(PG_BRONZE_INTERVALL_S="10")
    cinema.reload()
    cinema.monkeypatch.delenv("PG_BRONZE_INTERVALL_S")

    cinema.reload()

    assert requested(cinema.evaluate()) == [{"movie", "person"}]


def test_the_last_known_tables_are_loaded_while_the_database_is_down(cinema: Project):
    """Otherwise every asset and its history would be missing from the UI during an outage."""
    before = cinema.definitions.resolve_asset_graph()
    cinema.set(**CLOSED)

    after = cinema.reload().resolve_asset_graph()

    assert after.get_all_asset_keys() == before.get_all_asset_keys()
    assert "no connection to PostgreSQL" in _tick_error(cinema)


def test_every_tick_reports_a_catalog_that_is_not_the_live_one(
    cinema: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """New tables would be missing without a word, with exit status 0."""
    reloads: list[object] = []
    monkeypatch.setattr(catalog, "reload", reloads.append)
    monkeypatch.setattr(batch, "open_instance", lambda: contextlib.nullcontext(cinema.instance))
    assert batch.run_batch([], batch.Batches())
    unreadable = SourceUnavailable("bronze@localhost: the server ended a statement. It is retried at the next tick.")
    with monkeypatch.context() as patched:
        patched.setattr(catalog_state, "live", Mock(side_effect=unreadable))
        cinema.reload()
        with pytest.raises(Exception, match="the server ended a statement"):
            cinema.evaluate("bronze_catalog")
        assert not batch.run_batch([], batch.Batches())
    stored = "The catalog could not be read, so the tables that were last stored in the bucket are used"

    assert stored in cinema.evaluate().skip_message
    assert stored in capsys.readouterr().err
    cinema.cursor = None
    cinema.evaluate("bronze_catalog")
    assert len(reloads) == 1


def test_the_location_loads_within_seconds_while_database_and_bucket_are_down(project: Project):
    """Dagster ends a load that hangs, and does not retry it."""
    project.set(**CLOSED, **NO_BUCKET)
    started = time.monotonic()

    definitions = project.reload()

    assert time.monotonic() - started < 10
    assert {sensor.name for sensor in definitions.sensors} == {"bronze_tick", "bronze_catalog"}
    assert "no connection to PostgreSQL" in _tick_error(project)


def test_a_server_that_accepts_connections_and_never_answers_does_not_delay_the_load(project: Project):
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)
        project.set(PG_PORT=str(silent.getsockname()[1]), PG_BRONZE_CONNECT_TIMEOUT_S="2")
        started = time.monotonic()

        project.reload()

        assert time.monotonic() - started < 10


def test_a_location_without_tables_is_reloaded_when_the_database_is_available(
    project: Project, monkeypatch: pytest.MonkeyPatch
):
    """Otherwise somebody would have to restart Dagster after an outage."""
    reloads: list[object] = []
    monkeypatch.setattr(catalog, "reload", reloads.append)
    project.database.execute("create table movie (id int)")
    project.set(**CLOSED, **NO_BUCKET)
    project.reload()
    project.set(**project.database.environ, **project.bucket.environ)

    # The settings are those of the load; only the servers are available again.
    project.definitions = _with_servers_back(project)
    project.evaluate("bronze_catalog")

    assert len(reloads) == 1


def _with_servers_back(project: Project):
    from pg_bronze.defs.build import build_definitions
    from pg_bronze.defs.catalog_state import CatalogState
    from pg_bronze.settings.load import load_settings

    return build_definitions(load_settings(), CatalogState(None, datetime.now(UTC).date(), "it was down"))


def test_all_tables_are_loaded_while_the_bucket_is_down(project: Project):
    project.database.execute("create table movie (id int)")
    project.set(**NO_BUCKET)

    graph = project.reload().resolve_asset_graph()

    assert {"/".join(item.path) for item in graph.executable_asset_keys} == {"bronze/movie"}


def test_loading_creates_no_bucket_and_writes_no_object(project: Project):
    """Linters and a second code location load the definitions too, and must not change anything."""
    project.database.execute("create table movie (id int)")
    elsewhere = Bucket(project.bucket.server, unused_bucket_name())
    project.set(MINIO_BUCKET=elsewhere.name)

    load()

    with pytest.raises(StoreNotFit, match="does not exist"):
        list(elsewhere.store().list(""))
    project.reload()
    project.evaluate("bronze_catalog")
    assert [item.key for item in elsewhere.store().list("")] != []
    elsewhere.remove()


def test_past_days_stay_visible_while_the_bucket_is_down_and_the_stored_ones_return(
    project: Project, monkeypatch: pytest.MonkeyPatch
):
    """With today as the first day, every partition and its history would be missing from the UI during an outage."""
    project.database.execute("create table movie (id int)")
    monkeypatch.delenv("PG_BRONZE_START_DATE")
    reloads: list[object] = []
    monkeypatch.setattr(catalog, "reload", reloads.append)

    def first_day() -> str:
        node = project.definitions.resolve_asset_graph().get(key("movie"))
        return node.partitions_def.get_first_partition_key()

    project.set(**NO_BUCKET)
    project.reload()
    assert first_day() == "2026-01-01"
    assert "could not be stored" in project.evaluate("bronze_catalog").skip_message
    assert reloads == []

    project.set(**project.bucket.environ)
    project.cursor = None
    project.evaluate("bronze_catalog")
    assert len(reloads) == 1
    project.reload()
    assert first_day() == str(datetime.now(UTC).date())


def test_a_damaged_stored_catalog_does_not_prevent_the_load(cinema: Project):
    """An object of another version would otherwise keep the location down."""
    store = cinema.bucket.store()
    wrong_kind = b'{"catalog": 7, "first_day": "2026-01-01", "error": null}'
    for text in (b"", b"{", b"[]", wrong_kind, b'{"first_day": "x"}', b"\xff\xfe"):
        store.replace("_pg_bronze/catalog.json", text)

        graph = cinema.reload().resolve_asset_graph()

        assert len(graph.executable_asset_keys) == 2, text


def test_corrected_settings_reload_the_location_without_a_restart(project: Project):
    """Otherwise a corrected line in .env has no effect before the next restart."""
    project.database.execute("create table movie (id int primary key)")
    project.monkeypatch.delenv("PG_DB")
    project.reload()
    assert "PG_DB" in _tick_error(project)
    asked_for: list[object] = []
    project.monkeypatch.setattr(catalog, "reload", asked_for.append)

    project.set(PG_DB=project.database.environ["PG_DB"])

    assert "The settings are valid now" in project.evaluate().skip_message
    assert "The settings are valid now" in project.evaluate("bronze_catalog").skip_message
    assert len(asked_for) == 1


@pytest.fixture
def other_process(cinema: Project) -> Project:
    """The project as a process finds it that did not load the catalog: a run worker."""
    catalog_state._loaded.clear()
    return cinema


def test_a_run_worker_takes_the_catalog_from_the_bucket_and_asks_the_database_nothing(other_process: Project):
    """Each of 8,640 runs a day would otherwise read the catalog of the database."""
    with other_process.monkeypatch.context() as patch:
        patch.setattr(catalog_state, "live", Mock(side_effect=AssertionError("the database is asked")))
        loaded = load_as_worker(other_process.state or "")

    assert {key("movie"), key("person")} <= loaded.resolve_asset_graph().get_all_asset_keys()


@pytest.mark.parametrize("stored", ["none", "another"])
def test_a_run_worker_reads_the_database_if_the_bucket_has_another_catalog(other_process: Project, stored: str):
    """A run may start before the catalog sensor stored what was loaded."""
    store = other_process.bucket.store()
    store.delete("_pg_bronze/catalog.json")
    if stored == "another":
        other_process.database.execute("create table award (id int)")
        settings = load_settings()
        catalog_state.store_in_bucket(settings, catalog_state.read(settings, datetime.now(UTC)))
        other_process.database.execute("drop table award")

    loaded = load_as_worker(other_process.state or "").resolve_asset_graph().executable_asset_keys

    assert loaded == {key("movie"), key("person")}


def test_a_run_worker_loads_all_tables_of_the_code_server_while_the_database_is_down(other_process: Project):
    """Its tables would otherwise be unknown, and the run would end without recording why."""
    other_process.database.execute("create table award (id int)")
    _, reference = load_with_state()
    catalog_state._loaded.clear()
    other_process.set(**CLOSED)

    loaded = load_as_worker(reference or "").resolve_asset_graph().executable_asset_keys

    assert loaded == {key("movie"), key("person"), key("award")}


def _store_the_live_catalog(project: Project) -> None:
    settings = load_settings()
    catalog_state.store_in_bucket(settings, catalog_state.read(settings, datetime.now(UTC)))


def test_a_stored_catalog_that_is_the_live_one_is_neither_parsed_nor_stored_again(cinema: Project):
    """A tick without due tables takes as long for it as for the live one, and most of them find it unchanged."""
    settings, now = load_settings(), datetime.now(UTC)
    _store_the_live_catalog(cinema)
    with cinema.monkeypatch.context() as patch:
        patch.setattr(Catalog, "from_text", Mock(side_effect=AssertionError("it is parsed")))
        state = catalog_state.read(settings, now)
    assert state.is_stored
    assert state == catalog_state.CatalogState.from_text(cinema.bucket.store().get("_pg_bronze/catalog.json") or b"")

    cinema.database.execute("create table award (id int)")
    changed = catalog_state.read(settings, now)
    assert not changed.is_stored
    catalog_state.store_in_bucket(settings, changed, fresh=True)

    assert catalog_state.read(settings, now).is_stored


@pytest.mark.parametrize(
    "change, untracked",
    combinations(
        [
            "drop table person",
            "alter table person rename to people",
            "drop table person; create view person as select 1 as id",
        ],
        ["sweep", "skip"],
    ),
)
def test_a_table_that_is_gone_when_its_run_starts_fails_alone(other_process: Project, change: str, untracked: str):
    """All tables of the run would otherwise fail with it, and none would have a record of the failure."""
    other_process.set(PG_BRONZE_UNTRACKED=untracked)
    other_process.database.execute(f"insert into movie values (6, 'new', now()); {change}")
    _store_the_live_catalog(other_process)

    result = other_process.copy("movie", "person")

    assert [event.step_key for event in result.get_step_success_events()] == ["bronze__movie"]
    assert other_process.latest("movie") is not None


def test_a_run_whose_tables_are_unknown_while_the_database_is_down_records_why(other_process: Project):
    """It would otherwise end with an error of Dagster, and count as a worker that was killed."""
    other_process.bucket.store().delete("_pg_bronze/catalog.json")
    other_process.set(**CLOSED)

    result = other_process.copy("movie", "person")

    assert set(sentences(result)) == {"bronze__movie", "bronze__person"}
    assert all("connection" in sentence for sentence in sentences(result).values()), sentences(result)


def test_the_plan_of_a_run_does_not_contain_the_catalog(cinema: Project):
    """Dagster stores a plan for every selection of tables, and 1,000 tables are 2 MB each."""
    assert cinema.copy("movie").success

    (record,) = cinema.instance.get_run_records()
    plan = cinema.instance.get_execution_plan_snapshot(record.dagster_run.execution_plan_snapshot_id or "")
    text = dg.serialize_value(plan)
    assert "Films and when they changed" not in text
    assert "As on the poster" not in text
    assert len(cinema.state or "") < 400
