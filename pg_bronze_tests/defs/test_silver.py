"""The layer after bronze: the newest row versions of chosen tables as assets of their own."""

import io

import dagster as dg
import polars as pl
import pytest

from pg_bronze.defs.sensors import silver as silver_sensor
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.project import MOVIES, Project, key, sentences, values

LATEST = dg.AssetKey(["silver", "movie_latest"])


@pytest.fixture
def silver(project: Project) -> Project:
    """The two small tables, and the newest versions of ``movie``; ``log`` has no primary key."""
    project.database.execute(MOVIES)
    project.database.execute("create table log (said text)")
    project.set(PG_BRONZE_LATEST="movie, log, nowhere")
    project.reload()
    return project


def refresh(project: Project) -> dg.ExecuteInProcessResult:
    job = project.definitions.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(instance=project.instance, asset_selection=[LATEST], raise_on_error=False)


def kept(project: Project) -> pl.DataFrame:
    return pl.read_parquet(io.BytesIO(project.bucket.store().get("_pg_bronze/latest/movie.parquet") or b""))


def test_lineage_leads_on_from_bronze(silver: Project):
    graph = silver.definitions.resolve_asset_graph()

    assert graph.get(LATEST).parent_keys == {key("movie")}
    assert {item.to_user_string() for item in graph.get_all_asset_keys() if item.path[0] == "silver"} == {
        "silver/movie_latest"
    }


def test_it_holds_one_row_for_each_key_and_is_written_again_as_a_whole(silver: Project):
    silver.copy("movie")
    assert refresh(silver).success
    silver.database.execute("update movie set title = 'new' where id = 2; insert into movie values (6, 'six', now())")
    silver.copy("movie")

    assert refresh(silver).success

    assert dict(kept(silver).sort("id").select("id", "title").iter_rows()) == {
        1: "film 1", 2: "new", 3: "film 3", 4: "film 4", 5: "film 5", 6: "six",
    }  # fmt: skip
    event = silver.instance.get_latest_materialization_event(LATEST)
    assert event is not None
    found = values(event.asset_materialization)
    assert found["dagster/row_count"] == 6
    assert found["dagster/uri"] == silver.bucket.store().uri("_pg_bronze/latest/movie.parquet")


def test_it_is_no_object_of_any_table(silver: Project):
    """The next tick would take it for somebody else's and stop the table."""
    silver.copy("movie")
    refresh(silver)
    silver.database.execute("insert into movie values (7, 'seven', now())")

    assert silver.copy("movie").success

    assert lake.ids(silver.bucket, "movie") == [1, 2, 3, 4, 5, 7]


def test_it_is_asked_for_only_when_something_was_copied_since_and_not_all_the_time(
    silver: Project, monkeypatch: pytest.MonkeyPatch
):
    """A run reads every object of its table, and most of the day nothing changes."""
    nothing = silver.look("silver_latest")
    silver.copy("movie")
    first = silver.look("silver_latest")
    refresh(silver)
    after = silver.look("silver_latest")
    silver.database.execute("insert into movie values (8, 'eight', now())")
    silver.copy("movie")
    soon = silver.look("silver_latest")
    monkeypatch.setattr(silver_sensor, "WRITE_EVERY_S", 0)
    later = silver.look("silver_latest")

    assert [request.asset_selection for request in first.run_requests] == [[LATEST]]
    assert [request.asset_selection for request in later.run_requests] == [[LATEST]]
    assert not nothing.run_requests
    assert not after.run_requests
    assert not soon.run_requests
    assert after.skip_message == (
        "nothing was copied since the newest versions were written; PG_BRONZE_LATEST names log, which has no primary "
        "key; PG_BRONZE_LATEST names nowhere, which is not copied"
    )
    assert "within 300 s" in soon.skip_message


def test_before_anything_was_copied_the_run_says_so(silver: Project):
    result = refresh(silver)

    assert not result.success
    assert "pg_bronze has not written any object of movie to s3://" in next(iter(sentences(result).values()))


def test_an_asset_of_ones_own_downstream_gets_the_newest_versions_too(silver: Project):
    seen: list[pl.DataFrame] = []
    silver.copy("movie")
    refresh(silver)

    @dg.asset(ins={"films": dg.AssetIn(LATEST)})
    def titles(films) -> None:
        seen.append(films.select("title").collect())

    merged = dg.Definitions.merge(silver.definitions, dg.Definitions([titles]))
    job = merged.resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(instance=silver.instance, asset_selection=[dg.AssetKey("titles")]).success

    assert sorted(seen[0]["title"]) == [f"film {number}" for number in range(1, 6)]


def test_without_the_setting_there_is_no_such_layer(cinema: Project):
    assert {item.path[0] for item in cinema.definitions.resolve_asset_graph().get_all_asset_keys()} == {
        "bronze",
        "postgres",
    }
    assert "silver_latest" not in {sensor.name for sensor in cinema.definitions.sensors}
