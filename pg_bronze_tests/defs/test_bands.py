"""Large tables in Dagster: what the sensor requests, what a materialization shows, and what a run remembers."""

import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from pg_bronze.core import band_rules
from pg_bronze.core.band_rules import BandRules
from pg_bronze.defs import catalog_state, metadata
from pg_bronze.defs.connections import open_source
from pg_bronze.defs.due_tables import check
from pg_bronze.defs.table_facts import Process
from pg_bronze.scheduling.memory import Memory
from pg_bronze.settings.load import load_settings
from pg_bronze_tests.harness.lake import SAME, Lake
from pg_bronze_tests.harness.project import Project, key, requested, values

TICK = {"tags": {metadata.BATCH_TAG: "tick"}}


@pytest.fixture
def large(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A table that is divided although it is small, and is not swept again within a test."""
    forced = BandRules(one_band_s=0.0, share=1e-9, rank=3)
    monkeypatch.setattr(
        band_rules, "rules_of", lambda _interval, _tables, complete=False: replace(forced, complete=complete)
    )
    project.database.execute(
        "create table movie (movie_id int primary key, title text, updated_at timestamptz default clock_timestamp());"
        "create index on movie (updated_at); insert into movie select i, 'a' from generate_series(1, 50) i;"
        "analyze movie"
    )
    project.reload()
    assert requested(project.evaluate()) == [{"movie"}]
    assert project.copy("movie", **TICK).success
    return project


def write(project: Project, statement: str) -> None:
    project.database.execute(f"{statement}; select pg_stat_force_next_flush()")


def test_a_materialization_shows_the_order_the_age_and_the_expected_interval(large: Project):
    shown = values(large.latest("movie"))
    assert shown["pg_bronze/order"].startswith("updated_at: it leads an index")
    assert shown["pg_bronze/sweep_every_s"] > 0
    assert shown["pg_bronze/sweep_age_s"] >= 0
    upto = re.search(r", transaction (\d+) \(newest rows: (\d+)\)", shown["pg_bronze/copied_up_to"])
    assert upto is not None
    assert int(upto[2]) >= int(upto[1])
    assert "pg_bronze/missing_index" not in shown


def test_the_sensor_requests_a_large_table_for_a_fresh_row_and_not_for_an_old_one(large: Project):
    """Its counters move for both. The database is asked before a run starts."""
    write(large, "insert into movie values (51, 'new')")
    assert requested(large.evaluate()) == [{"movie"}]
    assert large.copy("movie", **TICK).success
    write(large, "update movie set title = 'old' where movie_id = 7")
    assert requested(large.evaluate()) == []

    assert large.copy("movie").success  # as a person does
    lake = Lake(large.database, large.bucket.store())
    assert lake.compare() == SAME


def test_what_a_run_found_empty_is_remembered_by_the_next_run(large: Project):
    """Otherwise a sweep of an unchanged part would begin again and again."""
    large.database.execute("select pg_current_xact_id()")
    assert large.copy("movie", **TICK).success
    (observation,) = large.instance.fetch_observations(key("movie"), limit=1).records
    progress = metadata.progress_of(observation.event_log_entry.asset_observation)
    recorded = large.watermark("movie")
    assert progress is not None
    assert recorded is not None
    assert (progress.generation, progress.seq) == (recorded.generation, recorded.seq)
    assert progress.highest_horizon > recorded.highest_horizon
    assert metadata.with_progress(recorded, progress) == progress
    assert metadata.with_progress(replace(recorded, seq=9), progress) == replace(recorded, seq=9)


def test_a_table_with_bands_off_is_read_completely_in_every_tick(large: Project):
    large.set(PG_BRONZE_TABLES='{"movie": {"bands": "off"}}')
    large.reload()
    write(large, "update movie set title = 'old' where movie_id = 7")
    assert requested(large.evaluate()) == [{"movie"}]
    assert large.copy("movie", **TICK).success
    assert Lake(large.database, large.bucket.store()).compare() == SAME
    assert "pg_bronze/order" not in values(large.latest("movie"))


def test_the_tick_names_a_large_table_whose_sweep_is_overdue(large: Project, monkeypatch: pytest.MonkeyPatch):
    write(large, "update movie set title = 'old' where movie_id = 7")
    hour = replace(BandRules(one_band_s=0.0, share=1e-9), share=1.0)
    monkeypatch.setattr(band_rules, "rules_of", lambda _interval, _tables, complete=False: hour)
    in_an_hour = datetime.now(UTC).timestamp() + 3600
    settings = load_settings()
    with open_source(settings, "test") as source:
        tables = catalog_state.load(settings).catalog.tables
        found = check(large.instance, tables, settings, source, Memory(), Process(), in_an_hour)
    assert "movie: changes of its older rows of the last 36" in found.sentence


def test_the_description_of_a_large_table_says_when_its_rows_arrive(large: Project):
    description = large.definitions.resolve_asset_graph().get(key("movie")).description
    assert "New rows are found by updated_at: it leads an index" in description
