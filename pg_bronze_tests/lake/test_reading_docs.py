"""The examples of docs/reading.md and the README, executed with the server, bucket and keys of the test."""

import re
from collections.abc import Mapping
from typing import Any

import duckdb
import polars as pl
import pytest

from pg_bronze_tests.harness.lake import MOVIE, Lake, fill
from pg_bronze_tests.harness.servers import ROOT


def examples(page: str, language: str = "python") -> list[tuple[str, str]]:
    """Return each example in a language with the heading above it."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        (re.findall(r"(?m)^#+ (.+)$", text[: match.start()])[-1], match[1])
        for match in re.finditer(rf"```{language}\n(.*?)```", text, re.DOTALL)
    ]


EXAMPLES = [*examples("docs/reading.md"), *examples("README.md")]


@pytest.fixture
def run(database, any_bucket, monkeypatch: pytest.MonkeyPatch, tmp_path):
    """Executes the examples below a heading for a table with six films, two of them updated."""
    database.execute(MOVIE)
    lake = Lake(database, any_bucket.store())
    for statement in (fill(1, 6), "update movie set title = 'new' where movie_id in (1, 2)", "delete from movie"):
        database.execute(statement)
        lake.tick()
    monkeypatch.chdir(tmp_path)
    for name, value in any_bucket.environ.items():
        monkeypatch.setenv(name, value)
    server = any_bucket.server
    replacements = {
        "minio.example.org:9000": server.endpoint_url.removeprefix("http://"),
        "secret-of-reader": server.secret_key,
        '"reader"': repr(server.access_key),
        "meteo-bronze": any_bucket.name,
    }

    def run_examples(heading: str) -> list[Mapping[str, Any]]:
        results = []
        for code in (code for title, code in EXAMPLES if title == heading):
            for word, value in replacements.items():
                code = code.replace(word, value)
            names: dict[str, Any] = {}
            exec(code, names)
            results.append(names)
        return results

    return run_examples


NEWEST = {1: "new", 2: "new", 3: "film 3", 4: "film 4", 5: "film 5", 6: "film 6"}


def titles(frame: pl.DataFrame) -> dict[int, str]:
    assert frame.height == frame["movie_id"].n_unique()
    return dict(frame.sort("movie_id").select("movie_id", "title").iter_rows())


def test_every_python_example_is_executed_by_a_test_below():
    assert [title for title, _ in EXAMPLES] == [
        *("pg_bronze", "Polars", "pyarrow", "DuckDB", "DuckDB"),
        "What you get",
    ]


def test_the_examples_of_pg_bronze_and_polars_return_what_the_page_promises(run):
    (ours,) = run("pg_bronze")
    assert titles(ours["titles"]) == NEWEST
    assert ours["versions"].collect().height == 8
    (short,) = run("What you get")
    assert titles(short["newest"].collect()) == NEWEST
    (plain,) = run("Polars")
    assert titles(plain["newest"]) == NEWEST


def test_the_examples_of_pyarrow_and_duckdb_return_what_the_page_promises(run):
    (arrow,) = run("pyarrow")
    assert arrow["versions"].num_rows == 8
    assert arrow["versions"].column_names == ["movie_id", "title", "_pg_xid"]
    through_scan, direct = run("DuckDB")
    assert titles(direct["newest"]) == NEWEST
    assert through_scan["longest"] == [("film 3", 6), ("film 4", 6), ("film 5", 6)]


def test_the_example_with_field_ids_reads_objects_from_before_and_after_a_rename(database, bucket, tmp_path):
    """The objects are local copies, because DuckDB reads a bucket only with an extension from the internet."""
    database.execute(MOVIE)
    lake = Lake(database, bucket.store())
    for statement in (
        fill(1, 2),
        "alter table movie rename title to name; insert into movie (movie_id, name) values (3, 'c')",
    ):
        database.execute(statement)
        lake.tick()
    for number, key in enumerate(lake.keys()):
        (tmp_path / f"{number}.parquet").write_bytes(lake.store.get(key))
    ((heading, query),) = examples("docs/reading.md", "sql")

    rows = duckdb.sql(query.replace("s3://meteo-bronze/movie", str(tmp_path))).pl()

    assert heading == "Field ids"
    assert titles(rows) == {1: "film 1", 2: "film 2", 3: "c"}
    assert rows["_pg_xid"].null_count() == 0
