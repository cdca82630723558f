"""A real `dagster dev` while sessions write, tables are created and dropped, and people start runs."""

import io
import json
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from pg_bronze_tests.e2e.conftest import Dev, Writers, command_lines, texts, wait_until
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.repetitions import repetition
from pg_bronze_tests.harness.secrets import spellings
from pg_bronze_tests.harness.slow import FAST, SLOW, wait_until_gone, wait_until_slow

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def quiet(dev: Dev) -> Dev:
    """The server after all runs have ended and a tick found no due table."""
    _settle(dev)
    return dev


def _settle(dev: Dev, timeout_s: float = 90) -> dict[str, object]:
    since: float | None = None

    def idle() -> dict[str, object] | None:
        # A tick that began while a run was in progress skips the tables of that run.
        nonlocal since
        if dev.unfinished():
            since = None
            return None
        since = since or datetime.now(UTC).timestamp()
        ticks = [tick for tick in dev.ticks("bronze_tick", 3) if tick["timestamp"] > since]
        return ticks[0] if ticks and ticks[0]["status"] == "SKIPPED" else None

    found: dict[str, object] = wait_until(
        idle, f"a quiet tick; the last ones: {dev.ticks('bronze_tick', 3)}", timeout_s, 1.0
    )
    return found


def test_each_source_table_is_upstream_of_its_bronze_table(dev: Dev):
    assets = dev.assets()

    database = next(name.split("/")[1] for name in assets if name.startswith("postgres/"))
    for table in ("movie", "person", "note"):
        assert assets[f"bronze/{table}"] == {f"postgres/{database}/{table}"}
    assert assets["silver/movie_latest"] == {"bronze/movie"}


@repetition
def test_no_row_is_lost_stale_or_duplicated_while_tables_are_written_created_and_dropped(dev: Dev):
    """The promise with real processes: the daemon, its queue, run workers, sensors, and a reload."""
    shop = dev.shop
    with Writers(shop.database) as writers:
        wait_until(lambda: lake.keys(shop.bucket, "leaving"), "the first load", 90, 1.0)
        shop.database.execute("create table award (id int primary key, given date)")
        shop.database.execute("insert into award select i, '2026-01-01'::date + i from generate_series(1, 40) i")
        shop.database.execute("drop table leaving")
        wait_until(
            lambda: "bronze/award" in dev.assets() and "bronze/leaving" not in dev.assets(),
            "the assets of the new and without the dropped table, without a restart", 60, 1.0,
        )  # fmt: skip
        wait_until(lambda: lake.ids(shop.bucket, "award") == list(range(1, 41)), "the new table's rows", 60, 1.0)
    assert writers.commits > 20

    _settle(dev)

    for table in ("movie", "person", "note", "award"):
        assert lake.compare(shop.database, shop.bucket, table) == lake.SAME, table
    assert shop.database.execute("select count(*) from etl_control")[0][0] >= 4


def test_a_tick_without_due_tables_reports_what_it_checked(quiet: Dev):
    assert quiet.ticks("bronze_tick", 1)[0]["skipReason"].startswith("4 tables checked up to transaction ")


def test_no_tick_failed(dev: Dev):
    for sensor in ("bronze_tick", "bronze_catalog", "bronze_retention", "silver_latest"):
        assert [tick["error"] for tick in dev.ticks(sensor, 50) if tick["error"]] == []


def test_a_person_can_materialize_today_and_verify_a_past_day(quiet: Dev):
    today = datetime.now(UTC).date()
    past = str(today - timedelta(days=3))
    runs = [quiet.launch(str(today), "movie", "person"), quiet.launch(past, job="bronze_verify")]

    assert [quiet.outcome(run) for run in runs] == ["SUCCESS", "SUCCESS"]
    assert lake.compare(quiet.shop.database, quiet.shop.bucket, "movie") == lake.SAME


def test_a_new_row_is_in_the_lake_within_two_ticks_and_a_run(quiet: Dev):
    shop = quiet.shop
    shop.database.execute("insert into person values (900001, 'in a hurry')")

    wait_until(lambda: 900001 in lake.ids(shop.bucket, "person"), "the row", 45, 0.5)


def test_the_newest_row_versions_are_written_without_a_request(dev: Dev):
    store = dev.shop.bucket.store()

    body = wait_until(lambda: store.get("_pg_bronze/latest/movie.parquet"), "the newest versions of movie", 120, 1.0)

    newest = pl.read_parquet(io.BytesIO(body))
    assert newest.height == newest["id"].n_unique() >= 500


# The queries of the UI: resources and instance with their settings, assets with metadata, runs with every event.
PAGES = [
    "{ instance { info daemonHealth { allDaemonStatuses { daemonType lastHeartbeatErrors { message stack } } } } }",
    """{ workspaceOrError { ... on Workspace { locationEntries { name displayMetadata { key value }
         locationOrLoadError { ... on RepositoryLocation { repositories {
           allTopLevelResourceDetails { name description configuredValues { key value type }
             configFields { name description defaultValueAsJson } }
           sensors { name sensorState { ticks(limit: 20) { status skipReason error { message stack } cursor } } }
         } } } } } } }""",
    """{ assetNodes { assetKey { path } description metadataEntries { __typename label description
         ... on TextMetadataEntry { text } ... on JsonMetadataEntry { jsonString } ... on UrlMetadataEntry { url }
         ... on MarkdownMetadataEntry { mdStr } ... on PathMetadataEntry { path } }
       assetMaterializations(limit: 20) { metadataEntries { label ... on TextMetadataEntry { text }
         ... on JsonMetadataEntry { jsonString } ... on PathMetadataEntry { path }
         ... on UrlMetadataEntry { url } } } } }""",
    """{ runsOrError(limit: 50) { ... on Runs { results { runId runConfigYaml tags { key value }
         eventConnection { events { __typename ... on MessageEvent { message }
           ... on ExecutionStepFailureEvent { error { message stack causes { message stack } } } } } } } } }""",
]


def test_no_page_log_file_or_command_line_shows_a_secret(dev: Dev):
    """Pages and logs are shared, and every user of the machine may run `ps`."""
    server, keys = dev.shop.database.server, dev.shop.bucket.server
    secrets = spellings(server.password) | spellings(keys.secret_key)
    tables = ["movie", "person"]
    run = dev.launch(str(datetime.now(UTC).date()), *tables)
    commands = command_lines(dev.pid)
    while dev.ask("query ($id: ID!) { runOrError(runId: $id) { ... on Run { endTime } } }", id=run) == {
        "runOrError": {"endTime": None}
    }:
        commands |= command_lines(dev.pid)

    seen = {page[:40]: json.dumps(dev.ask(page)) for page in PAGES}
    kept = texts(dev.shop.folder / ".dagster")
    seen |= kept | {str(dev.log): dev.log.read_text("latin-1")}
    seen["command lines"] = "\n".join(commands)

    assert "movie" in seen[PAGES[2][:40]]
    assert server.user in "".join(seen.values()), (
        "the name of the user is there, so the search includes the right texts"
    )
    assert len(commands) >= 4, "the web server, the daemon, the code server, a run"
    assert kept
    assert [place for place, text in seen.items() if any(secret in text for secret in secrets)] == []


def test_the_query_of_a_run_that_is_terminated_in_the_ui_is_canceled(dev: Dev):
    """Dagster interrupts the worker and waits. A reader that ignored it would keep the pool of the table occupied."""
    database = dev.shop.database
    database.execute(SLOW)
    database.execute("alter table note add column f feeling default 'fast'")
    database.execute("insert into note values ('slow', 'x', 'slow')")
    run_id = dev.launch(datetime.now(UTC).date().isoformat(), "note")
    wait_until_slow(database)

    def ended() -> bool:
        """Terminate all runs, because a run of the sensor may occupy the pool before ours."""
        unfinished = runs(dev)
        for number in unfinished:
            terminate(dev, number)
        return run_id not in unfinished

    wait_until(ended, "the end of the run", 20)
    wait_until_gone(database, 20)
    database.execute(FAST)
    wait_until(lambda: "slow" in lake.ids(dev.shop.bucket, "note"), "the next tick to copy the row", 90)


def runs(dev: Dev) -> list[str]:
    data = dev.ask(
        """{ runsOrError(filter: {statuses: [QUEUED, NOT_STARTED, STARTING, STARTED, CANCELING]}) {
             ... on Runs { results { runId } } } }"""
    )
    return [item["runId"] for item in data["runsOrError"]["results"]]


def terminate(dev: Dev, run_id: str) -> None:
    dev.ask(
        """mutation ($id: String!) { terminateRun(runId: $id) { __typename } }""",
        id=run_id,
    )
