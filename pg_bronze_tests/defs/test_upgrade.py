"""Upgrades and downgrades: what earlier versions wrote is continued, and what a newer one wrote stops the copies."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import pg_bronze
from pg_bronze.core.formats import CATALOG_FORMAT, FORMAT
from pg_bronze.defs import catalog_state
from pg_bronze.errors import FormatTooNew
from pg_bronze.lake.keys import own_key
from pg_bronze.lake.ledger import Ledger
from pg_bronze.scheduling.memory import Memory
from pg_bronze.settings.load import load_settings
from pg_bronze_tests.harness import releases
from pg_bronze_tests.harness.lake import SAME, Lake
from pg_bronze_tests.harness.project import Project, key, opened, requested, settle
from pg_bronze_tests.harness.releases import TABLES, Release, ReleasedServer
from pg_bronze_tests.harness.servers import Bucket, Database

KEYS = {"event": "id", "movie": "movie_id", "sales.item": "item_id", "ticket": "id"}
XID = "_pg_xid"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("releases")


@pytest.fixture(scope="module")
def released_database(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """The database that all releases copied, with rows that none of them has copied yet."""
    releases.unpack(archive)
    with ReleasedServer(tmp_path_factory.mktemp("cluster"), archive / "cluster") as server:
        yield Database(server, "postgres")


@pytest.fixture(params=["format-1", "0.1.0"])
def release(request: pytest.FixtureRequest, archive: Path) -> Release:
    return releases.unpack(archive)[request.param]


@pytest.fixture
def released_bucket(release: Release, s3_server) -> Iterator[Bucket]:
    s3_server.create_bucket(release.bucket)
    made = Bucket(s3_server, release.bucket)
    release.upload(made)
    yield made
    made.remove()


@pytest.fixture
def released_project(release, released_database, released_bucket, tmp_path, monkeypatch) -> Iterator[Project]:
    """The project folder of the release, opened by this version."""
    with opened(released_database, released_bucket, tmp_path, monkeypatch) as made:
        monkeypatch.delenv("PG_BRONZE_START_DATE")
        folder = shutil.copytree(release.project, tmp_path / "project")
        # Its paths are relative to the project folder. This process keeps what it knows of a storage by its path.
        config = folder / "dagster.yaml"
        config.write_text(config.read_text(encoding="utf-8").replace("base_dir: ", f"base_dir: {folder}/"))
        with dg.DagsterInstance.from_config(str(folder)) as made.instance:
            [made.cursor] = [
                state.instigator_data.cursor
                for state in made.instance.all_instigator_state()
                if state.name == "bronze_tick"
            ]
            yield made


def test_what_an_earlier_version_wrote_is_read_continued_and_verified(released_project, release, released_bucket):
    """After an upgrade nobody may have to copy a table again, and no row may be lost or copied twice."""
    for table in TABLES:
        assert_frame_equal(read(table), release.scanned(table).sort(KEYS[table], XID))
    recorded = {table: released_project.watermark(table) for table in TABLES}
    lake = Lake(released_project.database, released_bucket.store())
    # A run that copied tickets was killed: one object is not recorded, one is claimed, and the run counts as running
    # until the first tick.
    seqs = {table: lake.footers(table.replace(".", ":"))[-1].after.seq for table in TABLES}
    assert {table: mark.seq for table, mark in recorded.items()} == seqs | {"ticket": seqs["ticket"] - 1}
    # An old cursor counts as lost: its tables are read once more.
    assert bool(Memory.from_cursor(released_project.cursor).hints) == (release.name != "format-1")
    formats = {
        json.loads(path.read_bytes())["format"] for path in (release.folder / "lake/_pg_bronze/claims").rglob("*.json")
    }
    assert formats == {2 if release.name == "format-1" else 3}, "a claim that was left behind"

    released_project.reload()
    settle(released_project)

    for table in TABLES:
        in_schema = table.replace(".", ":")
        assert lake.compare(in_schema, KEYS[table]) == SAME, table
        before, after = release.scanned(table), read(table)
        assert before.join(after, on=[KEYS[table], XID]).height == before.height
        newest = released_project.watermark(table)
        assert (newest.generation, newest.to_json()["format"]) == (recorded[table].generation, FORMAT)
        assert newest.seq > recorded[table].seq
        layout = lake.layout(in_schema)
        objects = Ledger(lake.store, layout).since("")
        assert objects[-1].key == newest.key
        assert verified(released_project, table, layout.day(objects[0].key)) == [
            sum(layout.day(item.key) == layout.day(objects[0].key) for item in objects), 0, 0
        ]  # fmt: skip
    assert lake.all_keys("_pg_bronze/claims/") == []
    mirrored = dict(released_project.database.execute("select table_name, last_extracted_value from etl_control"))
    assert mirrored["movie"] == released_project.watermark("movie").cursor == "2026-01-05 00:00:00+00"


def read(table: str) -> pl.DataFrame:
    return pg_bronze.scan(table).collect().sort(KEYS[table], XID)


def verified(project: Project, table: str, day) -> list[object]:
    """Verify a day, and return how many objects were found, repaired and lost."""
    job = project.definitions.resolve_job_def("bronze_verify")
    config = {"ops": {"verify": {"config": {"tables": [table]}}}}
    assert job.execute_in_process(config, project.instance, day.isoformat()).success
    found = project.instance.fetch_observations(key(table), 1).records[0].asset_observation
    return [found.metadata[f"pg_bronze/{name}_objects"].value for name in ("verified", "repaired", "lost")]


def test_a_catalog_of_a_newer_version_stops_the_copies_and_is_kept(cinema: Project):
    """Its first day and the tables that are not copied any more would be replaced by those of an older version."""
    settle(cinema)
    place, store, settings = own_key("", "catalog.json"), cinema.bucket.store(), load_settings()
    loaded = catalog_state.resolve(cinema.state, settings)
    written = json.loads(store.get(place))
    newer = json.dumps({**written, "format": CATALOG_FORMAT + 1}).encode()
    store.replace(place, newer)
    cinema.database.execute("insert into movie values (6, 'new', now())")
    message = f"the catalog {place} has format 2, and this version of pg_bronze reads up to 1: "

    for write in (lambda: catalog_state.store_in_bucket(settings, loaded), lambda: catalog_state.forget(settings, "x")):
        with pytest.raises(FormatTooNew, match=message):
            write()
    with pytest.raises(FormatTooNew, match="the stored catalog has format 2"):
        catalog_state.resolve(newer.decode(), settings)  # as the state of a component on a disk
    cinema.reload()  # stores the catalog too

    tick = cinema.evaluate()
    assert (requested(tick), tick.skip_message.startswith(message)) == ([], True)
    assert store.get(place) == newer

    del written["format"]
    store.replace(place, json.dumps(written).encode())
    cinema.reload()
    assert json.loads(store.get(place))["format"] == CATALOG_FORMAT, "the first ones had no number"
    assert requested(cinema.evaluate()) == [{"movie"}]
