"""Standing checks: a lake that lacks a copied row is found, and what is no fault is not reported as one."""

import io
from typing import Any

import dagster as dg
import pyarrow.compute
import pyarrow.parquet
import pytest

from pg_bronze_tests.harness.project import Project, key, settle

RECONCILE = "reconcile"


@pytest.fixture
def quiet(cinema: Project) -> Project:
    """Both tables are copied, and no table is due."""
    settle(cinema)
    return cinema


def checked(project: Project) -> dict[tuple[str, str], Any]:
    """Execute the job of the schedule, and return the result of each table and check."""
    result = project.definitions.resolve_job_def("bronze_checks").execute_in_process(instance=project.instance)
    assert result.success
    return {(found.asset_key.path[-1], found.check_name): found for found in result.get_asset_check_evaluations()}


def without_row(project: Project, table: str, row: int) -> None:
    """Remove a row from the only object of a table, as a damaged disk or a person might."""
    store = project.bucket.store()
    (name,) = [item.key for item in store.list(f"{table}/")]
    file = pyarrow.parquet.ParquetFile(io.BytesIO(store.get(name)))
    stored, footer = file.read(), file.metadata.metadata
    kept = stored.filter(pyarrow.compute.field("id") != row)
    assert kept.num_rows == stored.num_rows - 1
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(kept.replace_schema_metadata(footer), buffer)
    store.replace(name, buffer.getvalue())


def test_a_copied_table_passes_and_deleted_rows_are_counted_as_such(quiet: Project) -> None:
    quiet.database.execute("delete from movie where id = 2")

    found = checked(quiet)

    assert all(result.passed for result in found.values())
    movie = found["movie", RECONCILE]
    assert movie.description.startswith("All 4 live rows that were copied are in the lake")
    assert movie.metadata["pg_bronze/deleted_keys"].value == 1


def test_rows_that_the_next_tick_copies_are_no_fault(quiet: Project) -> None:
    quiet.database.execute("insert into movie values (90, 'later', now()); update movie set title = 'x' where id = 1")

    movie = checked(quiet)["movie", RECONCILE]

    assert movie.passed
    assert movie.metadata["pg_bronze/compared_rows"].value == 4


def test_a_row_that_the_lake_lacks_is_found_and_its_transaction_is_named(quiet: Project) -> None:
    without_row(quiet, "movie", 3)

    movie = checked(quiet)["movie", RECONCILE]

    assert not movie.passed
    assert movie.severity == dg.AssetCheckSeverity.ERROR
    assert movie.metadata["pg_bronze/missing_rows"].value == 1
    query = movie.description.split("`")[1]
    named = quiet.database.execute(query)
    assert 3 in {row[0] for row in named}
    assert "film 3" not in movie.description


def test_a_part_that_differs_is_compared_again_until_it_is_healed(quiet: Project) -> None:
    """The part of the next day is another one: its result would hide that a row is missing."""
    quiet.database.execute(
        "insert into movie select n, repeat('x', 90), now() from generate_series(100, 1500) n; analyze movie"
    )
    settle(quiet)
    quiet.set(PG_BRONZE_RECONCILE_MB="0.03")
    quiet.reload()
    passed = checked(quiet)["movie", RECONCILE]
    assert passed.passed
    parts = passed.metadata["pg_bronze/parts"].value
    today = passed.metadata["pg_bronze/part"].value
    other = today % parts + 1
    _report(quiet, {"pg_bronze/part": other, "pg_bronze/parts": parts})
    _report(quiet, {})  # the database did not answer on the next day

    assert checked(quiet)["movie", RECONCILE].metadata["pg_bronze/part"].value == other

    assert checked(quiet)["movie", RECONCILE].metadata["pg_bronze/part"].value == today


def _report(project: Project, entries: dict[str, int]) -> None:
    severity = dg.AssetCheckSeverity.ERROR
    project.instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(key("movie"), RECONCILE, passed=False, severity=severity, metadata=entries)
    )


def test_a_large_table_that_cannot_be_divided_is_not_compared_and_says_why(quiet: Project) -> None:
    quiet.set(PG_BRONZE_RECONCILE_MB="0.001")
    quiet.reload()

    movie = checked(quiet)["movie", RECONCILE]

    assert movie.passed
    assert movie.description.startswith("Not compared: the table is larger than PG_BRONZE_RECONCILE_MB")
    assert movie.metadata["pg_bronze/compared"].value is False


def test_an_edited_row_of_the_control_table_is_a_warning(quiet: Project) -> None:
    quiet.database.execute("update etl_control set last_extracted_value = '1999-01-01' where table_name = 'movie'")

    movie = checked(quiet)["movie", RECONCILE]

    assert (movie.passed, movie.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert movie.description.endswith("etl_control has another value. The next copy of the table writes it again.")


def test_a_table_that_cannot_be_checked_leaves_the_others_their_results(quiet: Project) -> None:
    quiet.database.execute("drop table movie")

    found = checked(quiet)

    assert not found["movie", RECONCILE].passed
    assert "movie" in found["movie", RECONCILE].description
    assert found["person", RECONCILE].passed


def test_the_schedule_can_be_moved_and_switched_off(quiet: Project) -> None:
    (schedule,) = quiet.definitions.schedules or ()
    assert schedule.cron_schedule == "17 3 * * *"
    quiet.set(PG_BRONZE_CHECKS_AT="22:05")
    (schedule,) = quiet.reload().schedules or ()
    assert schedule.cron_schedule == "5 22 * * *"
    quiet.set(PG_BRONZE_CHECKS_AT="off")
    assert not quiet.reload().schedules
