"""A bucket that cannot fence writers off: allowed on request, and said each time."""

from pg_bronze_tests.harness.project import Project, values


def test_every_materialization_without_a_fence_says_that_rows_may_be_doubled(cinema: Project):
    """Somebody set it once; whoever finds a doubled row later has to see why."""
    assert cinema.copy("movie").success
    assert "pg_bronze/unfenced" not in values(cinema.latest("movie"))

    cinema.set(PG_BRONZE_UNFENCED="true")
    cinema.database.execute("insert into movie values (90, 'late')")
    cinema.reload()
    assert cinema.copy("movie").success

    assert "duplicated" in values(cinema.latest("movie"))["pg_bronze/unfenced"]
