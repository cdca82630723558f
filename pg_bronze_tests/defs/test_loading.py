"""Loading never fails: a code location that cannot load is not tried again, one that loads heals itself."""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from pg_bronze.defs.sensors import catalog
from pg_bronze.errors import StoreNotFit
from pg_bronze_tests.harness.project import Project, asked, key, load
from pg_bronze_tests.harness.servers import Bucket

CLOSED = {"PG_HOST": "127.0.0.1", "PG_PORT": "1"}
NO_BUCKET = {"MINIO_ENDPOINT": "http://127.0.0.1:1"}


def _said(project: Project) -> str:
    """The sentence with which the tick fails."""
    with pytest.raises(Exception) as caught:  # noqa: PT011  # Dagster wraps it, by version in another class
        project.look()
    error: BaseException | None = caught.value
    while error is not None and not type(error).__module__.startswith("pg_bronze"):
        error = error.__cause__ or getattr(error, "user_exception", None)
    assert error is not None, f"an error of ours should have been raised, not {caught.value!r}"
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
    # A folder in its place cannot be read by anybody, root included.
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
def test_with_bad_settings_everything_loads_and_the_tick_says_what_is_wrong(
    project: Project, spoil: Callable[[Project], None], words: list[str]
):
    spoil(project)

    definitions = project.reload()

    assert {sensor.name for sensor in definitions.sensors} == {"bronze_tick", "bronze_catalog"}
    assert not definitions.resolve_asset_graph().get_all_asset_keys()
    said = _said(project)
    assert all(word in said for word in words), said
    assert "\n" not in said


def test_settings_that_were_corrected_are_taken_at_the_next_load(cinema: Project):
    cinema.set(PG_BRONZE_INTERVALL_S="10")
    cinema.reload()
    cinema.monkeypatch.delenv("PG_BRONZE_INTERVALL_S")

    cinema.reload()

    assert asked(cinema.look()) == [{"movie", "person"}]


def test_while_the_database_is_down_the_last_known_tables_stay(cinema: Project):
    """Otherwise every asset, with its history, vanishes from the UI for as long as the database is away."""
    before = cinema.definitions.resolve_asset_graph()
    cinema.set(**CLOSED)

    after = cinema.reload().resolve_asset_graph()

    assert after.get_all_asset_keys() == before.get_all_asset_keys()
    assert "no connection to PostgreSQL" in _said(cinema)


def test_with_database_and_bucket_down_the_location_still_loads_and_soon(project: Project):
    """A load that hangs is ended by Dagster and then not tried again."""
    project.set(**CLOSED, **NO_BUCKET)
    started = time.monotonic()

    definitions = project.reload()

    assert time.monotonic() - started < 10
    assert {sensor.name for sensor in definitions.sensors} == {"bronze_tick", "bronze_catalog"}
    assert "no connection to PostgreSQL" in _said(project)


def test_a_server_that_accepts_and_never_answers_does_not_hold_the_load_up(project: Project):
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)
        project.set(PG_PORT=str(silent.getsockname()[1]), PG_BRONZE_CONNECT_TIMEOUT_S="2")
        started = time.monotonic()

        project.reload()

        assert time.monotonic() - started < 10


def test_a_location_loaded_without_tables_reloads_itself_once_the_database_is_there(
    project: Project, monkeypatch: pytest.MonkeyPatch
):
    """Nobody should have to restart anything after the database came back."""
    reloads: list[object] = []
    monkeypatch.setattr(catalog, "reload", reloads.append)
    project.database.execute("create table movie (id int)")
    project.set(**CLOSED, **NO_BUCKET)
    project.reload()
    project.set(**project.database.environ, **project.bucket.environ)

    # The process still has the settings it was loaded with; only the servers came back.
    project.definitions = _with_servers_back(project)
    project.look("bronze_catalog")

    assert len(reloads) == 1


def _with_servers_back(project: Project):
    from pg_bronze.defs.build import build_definitions
    from pg_bronze.defs.catalog_state import CatalogState
    from pg_bronze.settings.load import load_settings

    return build_definitions(load_settings(), CatalogState(None, datetime.now(UTC).date(), "it was down"))


def test_a_bucket_that_is_down_hides_no_table(project: Project):
    project.database.execute("create table movie (id int)")
    project.set(**NO_BUCKET)

    graph = project.reload().resolve_asset_graph()

    assert {"/".join(item.path) for item in graph.executable_asset_keys} == {"bronze/movie"}


def test_loading_creates_no_bucket_and_writes_no_object(project: Project):
    """A look at the definitions, as by a linter or a second code location, must not change anything outside."""
    project.database.execute("create table movie (id int)")
    project.set(MINIO_BUCKET=f"{project.bucket.name}-new")
    elsewhere = Bucket(project.bucket.server, f"{project.bucket.name}-new")

    load()

    with pytest.raises(StoreNotFit, match="does not exist"):
        list(elsewhere.store().list(""))
    project.reload()
    project.look("bronze_catalog")
    assert [item.key for item in elsewhere.store().list("")] != []
    elsewhere.remove()


def test_without_the_bucket_past_days_stay_visible_and_the_right_ones_come_back(
    project: Project, monkeypatch: pytest.MonkeyPatch
):
    """With today as the first day, every partition and its history would vanish from the UI while S3 is down."""
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
    assert "could not be stored" in project.look("bronze_catalog").skip_message
    assert reloads == []

    project.set(**project.bucket.environ)
    project.cursor = None
    project.look("bronze_catalog")
    assert len(reloads) == 1
    project.reload()
    assert first_day() == str(datetime.now(UTC).date())


def test_a_remembered_catalog_that_cannot_be_read_is_no_obstacle(cinema: Project):
    """It is a hint. Damaged, or written by another version, it must not keep the location down for good."""
    store = cinema.bucket.store()
    wrong_kind = b'{"catalog": 7, "first_day": "2026-01-01", "error": null}'
    for text in (b"", b"{", b"[]", wrong_kind, b'{"first_day": "x"}', b"\xff\xfe"):
        store.replace("_pg_bronze/catalog.json", text)

        graph = cinema.reload().resolve_asset_graph()

        assert len(graph.executable_asset_keys) == 2, text


def test_settings_that_became_right_are_loaded_without_a_restart(project: Project):
    """Nobody restarts a service at night because of a line somebody else has meanwhile added to .env."""
    project.database.execute("create table movie (id int primary key)")
    project.monkeypatch.delenv("PG_DB")
    project.reload()
    assert "PG_DB" in _said(project)
    asked_for: list[object] = []
    project.monkeypatch.setattr(catalog, "reload", asked_for.append)

    project.set(PG_DB=project.database.environ["PG_DB"])

    assert "the settings are valid now" in project.look().skip_message
    assert "the settings are valid now" in project.look("bronze_catalog").skip_message
    assert len(asked_for) == 1
