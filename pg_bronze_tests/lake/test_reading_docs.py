"""The examples of docs/reading.md and of the README, run as they stand; only server, bucket and keys are others."""

import re
from collections.abc import Mapping
from typing import Any

import polars as pl
import pytest

from pg_bronze_tests.harness.lake import MOVIE, Lake, fill
from pg_bronze_tests.harness.servers import ROOT


def examples(page: str) -> list[tuple[str, str]]:
    """The heading above each piece of Python, and the piece."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        (re.findall(r"(?m)^#+ (.+)$", text[: found.start()])[-1], found[1])
        for found in re.finditer(r"```python\n(.*?)```", text, re.DOTALL)
    ]


EXAMPLES = [*examples("docs/reading.md"), *examples("README.md")]


@pytest.fixture
def run(database, any_bucket, monkeypatch: pytest.MonkeyPatch, tmp_path):
    """Runs the examples below a heading of the page over six films, two of which were changed."""
    database.execute(MOVIE)
    lake = Lake(database, any_bucket.store())
    for statement in (fill(1, 6), "update movie set title = 'new' where movie_id in (1, 2)", "delete from movie"):
        database.execute(statement)
        lake.tick()
    monkeypatch.chdir(tmp_path)
    for name, value in any_bucket.environ.items():
        monkeypatch.setenv(name, value)
    server = any_bucket.server
    others = {
        "minio.example.org:9000": server.endpoint_url.removeprefix("http://"),
        "secret-of-reader": server.secret_key,
        '"reader"': repr(server.access_key),
        "meteo-bronze": any_bucket.name,
    }

    def run_examples(heading: str) -> list[Mapping[str, Any]]:
        found = []
        for code in (code for title, code in EXAMPLES if title == heading):
            for word, other in others.items():
                code = code.replace(word, other)
            names: dict[str, Any] = {}
            exec(code, names)
            found.append(names)
        return found

    return run_examples


NEWEST = {1: "new", 2: "new", 3: "film 3", 4: "film 4", 5: "film 5", 6: "film 6"}


def titles(frame: pl.DataFrame) -> dict[int, str]:
    assert frame.height == frame["movie_id"].n_unique()
    return dict(frame.sort("movie_id").select("movie_id", "title").iter_rows())


def test_every_example_in_python_is_run_by_a_test_below():
    assert [title for title, _ in EXAMPLES] == [
        *("pg_bronze", "Polars", "pyarrow", "DuckDB", "DuckDB"),
        "What you get",
    ]


def test_the_examples_of_pg_bronze_and_polars_do_what_the_page_says(run):
    (ours,) = run("pg_bronze")
    assert titles(ours["titles"]) == NEWEST
    assert ours["versions"].collect().height == 8
    (short,) = run("What you get")
    assert titles(short["newest"].collect()) == NEWEST
    (plain,) = run("Polars")
    assert titles(plain["newest"]) == NEWEST


def test_the_examples_of_pyarrow_and_duckdb_do_what_the_page_says(run):
    (arrow,) = run("pyarrow")
    assert arrow["versions"].num_rows == 8
    assert arrow["versions"].column_names == ["movie_id", "title", "_pg_xid"]
    direct, through_scan = run("DuckDB")
    assert titles(direct["newest"]) == NEWEST
    assert through_scan["longest"] == [("film 3", 6), ("film 4", 6), ("film 5", 6)]
