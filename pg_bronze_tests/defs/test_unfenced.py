"""A bucket that ignores create-only writes: allowed by a setting, and shown in every materialization."""

from pg_bronze_tests.harness.project import Project, values


def test_every_materialization_shows_that_rows_may_be_duplicated(cinema: Project):
    """A person who finds a duplicate later needs the reason."""
    assert cinema.copy("movie").success
    assert "pg_bronze/unfenced" not in values(cinema.latest("movie"))

    cinema.set(PG_BRONZE_UNFENCED="true")
    cinema.database.execute("insert into movie values (90, 'late')")
    cinema.reload()
    assert cinema.copy("movie").success

    assert "duplicated" in values(cinema.latest("movie"))["pg_bronze/unfenced"]
