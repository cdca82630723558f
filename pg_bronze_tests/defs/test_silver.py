"""Silver assets: the newest row versions of the tables of PG_BRONZE_LATEST."""

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
    """The two small tables with a silver asset of ``movie``. ``log`` has no primary key."""
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


def test_the_bronze_asset_is_upstream_of_the_silver_asset(silver: Project):
    graph = silver.definitions.resolve_asset_graph()

    assert graph.get(LATEST).parent_keys == {key("movie")}
    assert {item.to_user_string() for item in graph.get_all_asset_keys() if item.path[0] == "silver"} == {
        "silver/movie_latest"
    }


def test_it_contains_one_row_for_each_primary_key_and_is_replaced_as_a_whole(silver: Project):
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


def test_its_object_is_in_no_folder_of_a_table(silver: Project):
    """The next tick would stop the table because of a foreign object."""
    silver.copy("movie")
    refresh(silver)
    silver.database.execute("insert into movie values (7, 'seven', now())")

    assert silver.copy("movie").success

    assert lake.ids(silver.bucket, "movie") == [1, 2, 3, 4, 5, 7]


def test_it_is_requested_only_after_a_copy_and_at_most_every_five_minutes(
    silver: Project, monkeypatch: pytest.MonkeyPatch
):
    """A run reads every object of its table."""
    nothing = silver.evaluate("silver_latest")
    silver.copy("movie")
    first = silver.evaluate("silver_latest")
    refresh(silver)
    after = silver.evaluate("silver_latest")
    silver.database.execute("insert into movie values (8, 'eight', now())")
    silver.copy("movie")
    soon = silver.evaluate("silver_latest")
    monkeypatch.setattr(silver_sensor, "WRITE_EVERY_S", 0)
    later = silver.evaluate("silver_latest")

    assert [request.asset_selection for request in first.run_requests] == [[LATEST]]
    assert [request.asset_selection for request in later.run_requests] == [[LATEST]]
    assert not nothing.run_requests
    assert not after.run_requests
    assert not soon.run_requests
    assert after.skip_message == (
        "no table was copied since its newest versions were written; PG_BRONZE_LATEST contains log, which has no "
        "primary key; PG_BRONZE_LATEST contains nowhere, which is not copied"
    )
    assert soon.skip_message.startswith("new rows in 1 table; each is written at most every 300 s")


def test_the_run_fails_with_the_reason_before_the_first_copy(silver: Project):
    result = refresh(silver)

    assert not result.success
    assert "pg_bronze has not written any object of movie to s3://" in next(iter(sentences(result).values()))


def test_a_users_asset_downstream_receives_the_newest_versions(silver: Project):
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


def test_without_the_setting_there_are_no_silver_assets(cinema: Project):
    assert {item.path[0] for item in cinema.definitions.resolve_asset_graph().get_all_asset_keys()} == {
        "bronze",
        "postgres",
    }
    assert "silver_latest" not in {sensor.name for sensor in cinema.definitions.sensors}
