"""The job that verifies a day: what it reports and repairs, and that it does not delay a copy."""

from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest

from pg_bronze.defs import resources
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.project import Project, key, messages

YESTERDAY = datetime.now(UTC).date() - timedelta(days=1)


def copy_at(project: Project, second: int) -> None:
    """Copy with the clock of yesterday noon."""
    at = datetime(YESTERDAY.year, YESTERDAY.month, YESTERDAY.day, 12, 0, second, tzinfo=UTC)
    with project.monkeypatch.context() as patch:
        patch.setattr(resources, "_now", lambda: at)
        assert project.copy("movie").success


def verify(project: Project, *tables: str, day: date = YESTERDAY) -> dg.ExecuteInProcessResult:
    job = project.definitions.resolve_job_def("bronze_verify")
    config = {"ops": {"verify": {"config": {"tables": list(tables)}}}}
    return job.execute_in_process(config, project.instance, day.isoformat(), raise_on_error=False)


def reports(project: Project, table: str) -> list[tuple[str | None, list[object]]]:
    """Return the partition and the numbers of each report, newest first."""
    found = [item.asset_observation for item in project.instance.fetch_observations(key(table), 10).records]
    names = [f"pg_bronze/{name}_objects" for name in ("verified", "repaired", "lost")]
    return [(item.partition, [item.metadata[name].value for name in names]) for item in found if item]


@pytest.fixture
def missing(cinema: Project) -> str:
    """Two objects of yesterday and one of today; the second one was deleted. Film 7 was deleted since, 9 is new."""
    copy_at(cinema, 0)
    cinema.database.execute("insert into movie values (6, 'kept', now()), (7, 'deleted since', now())")
    copy_at(cinema, 10)
    cinema.database.execute("insert into movie values (8, 'today', now()); delete from movie where id = 7")
    assert cinema.copy("movie").success
    cinema.database.execute("insert into movie values (9, 'not copied yet', now())")
    deleted = lake.keys(cinema.bucket, "movie")[1]
    cinema.bucket.store().delete(deleted)
    return deleted


def test_a_missing_object_is_written_again_and_no_new_row_is_copied(cinema: Project, missing: str):
    """Lifecycle rules and people delete objects. Rows that are still current can be copied again."""
    before = cinema.latest("movie")

    result = verify(cinema, "movie")

    assert result.success
    assert missing in lake.keys(cinema.bucket, "movie")
    assert lake.ids(cinema.bucket, "movie") == [1, 2, 3, 4, 5, 6, 8]
    assert reports(cinema, "movie") == [(YESTERDAY.isoformat(), [1, 1, 0])]
    # With an old watermark in the latest event, the next tick would copy rows again.
    assert cinema.latest("movie") == before
    assert cinema.copy("movie").success
    assert lake.ids(cinema.bucket, "movie") == [1, 2, 3, 4, 5, 6, 8, 9]


def test_all_tables_are_verified_without_a_selection_and_an_error_of_one_does_not_stop_the_others(
    cinema: Project, missing: str
):
    cinema.database.execute("drop table movie")

    result = verify(cinema)

    (failed,) = [event for event in result.all_events if event.is_step_failure]
    assert failed.step_failure_data.user_failure_data.description.startswith("movie: the table does not exist")
    assert reports(cinema, "person") == [(YESTERDAY.isoformat(), [0, 0, 0])]


def test_a_table_that_is_not_copied_is_an_error_that_names_the_tables(cinema: Project):
    (failed,) = [event for event in verify(cinema, "moovie").all_events if event.is_step_failure]

    description = failed.step_failure_data.user_failure_data.description
    assert description.startswith("There is no table 'moovie'. The tables are: movie, person.")


def test_a_complete_day_is_verified_while_another_run_holds_the_table(cinema: Project):
    """Reading the footers of a busy day takes longer than a tick."""
    copy_at(cinema, 0)
    with cinema.database.connect() as other:
        other.execute("select pg_advisory_lock(x'70676272'::int, 'movie'::regclass::oid::int)")

        result = verify(cinema, "movie")

    assert f"verified movie for {YESTERDAY}: 1 objects present" in messages(cinema, result)


def test_a_run_of_the_job_occupies_no_pool_of_a_table_and_is_dequeued_last(cinema: Project):
    """A tick would otherwise be queued behind it."""
    job = cinema.definitions.resolve_job_def("bronze_verify")

    assert {pool for node in job.nodes for pool in node.definition.pools} == {"pg_bronze__verify"}
    assert int(job.tags["dagster/priority"]) < 0
