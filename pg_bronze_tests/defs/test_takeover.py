"""Takeover from the original system, through settings, sensor and assets."""

import io

import polars as pl
import pytest

from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.project import Project, requested, sentences, settle

ORIGINAL = "movie/movie_20260101000000.parquet"
CONTROL = """create table etl_control (table_name varchar(255) primary key, last_extracted_value varchar(255),
  last_extracted_at timestamp default current_timestamp, tracking_column varchar(255));
insert into etl_control values ('movie', '2026-01-02 03:04:05+00', default, 'updated_at')"""
NEW = "insert into movie values (6, 'new', '2026-02-01'), (7, 'newer', '2026-02-02')"


@pytest.fixture
def inherited(cinema: Project) -> Project:
    """The original system copied films 1 to 5, but not 6 and 7, and never ``person``."""
    store_object(cinema, ORIGINAL)
    cinema.database.execute(f"{CONTROL}; {NEW}")
    return cinema


def store_object(project: Project, key: str) -> None:
    body = io.BytesIO()
    pl.DataFrame({"id": [1, 2, 3, 4, 5]}).write_parquet(body)
    assert project.bucket.store().create(key, body.getvalue())


def control(project: Project) -> list[tuple]:
    return project.database.execute("select table_name, last_extracted_value, tracking_column from etl_control")


def test_a_table_of_the_original_system_is_not_copied_before_a_decision_and_others_are(inherited: Project):
    """Its objects and its control row must not change before the decision."""
    before = control(inherited)

    result = inherited.copy()

    errors = sentences(result)
    assert list(errors) == ["bronze__movie"]
    for part in ("movie: ", ORIGINAL, "etl_control has a row", "PG_BRONZE_TAKEOVER", "fresh", "adopt-seed"):
        assert part in errors["bronze__movie"]
    assert lake.keys(inherited.bucket, "movie") == [ORIGINAL]
    assert set(before) <= set(control(inherited))
    assert lake.compare(inherited.database, inherited.bucket, "person") == lake.SAME


@pytest.mark.parametrize("name", ["PG_BRONZE_TAKEOVER", "PG_BRONZE_TABLES"])
def test_adopt_seed_continues_after_the_control_row_of_the_original_system(inherited: Project, name):
    """The setting applies to all tables or to one. pg_bronze writes the control row afterwards."""
    inherited.set(**{name: "adopt-seed" if name == "PG_BRONZE_TAKEOVER" else '{"movie": {"takeover": "adopt-seed"}}'})
    inherited.reload()

    settle(inherited)
    inherited.database.execute("insert into movie values (8, 'late', '2020-01-01')")
    assert inherited.copy("movie").success

    original, *ours = lake.keys(inherited.bucket, "movie")
    assert original == ORIGINAL
    store = inherited.bucket.store()
    rows = pl.concat([pl.read_parquet(io.BytesIO(store.get(key) or b"")) for key in ours])
    assert sorted(rows["id"]) == [6, 7, 8], "the rows above the value, and every later row"
    assert [row for row in control(inherited) if row[0] == "movie"] == [
        ("movie", inherited.watermark("movie").cursor, "updated_at")
    ]
    assert lake.compare(inherited.database, inherited.bucket, "person") == lake.SAME


def test_a_table_stops_with_the_reason_while_both_systems_write(inherited: Project):
    """Readers of the folder would get every new row twice."""
    inherited.set(PG_BRONZE_TAKEOVER="fresh")
    inherited.reload()
    settle(inherited)
    ours = lake.keys(inherited.bucket, "movie")
    store_object(inherited, "movie/movie_29991231235959.parquet")
    inherited.database.execute("insert into movie values (8, 'new', '2026-02-03')")

    error = sentences(inherited.copy("movie"))["bronze__movie"]

    assert "movie/movie_29991231235959.parquet is not an object of pg_bronze" in error
    assert "Stop it" in error
    assert lake.keys(inherited.bucket, "movie") == [*ours, "movie/movie_29991231235959.parquet"]
    assert requested(inherited.evaluate()) == []
    assert "failing" in inherited.evaluate().skip_message
