"""Descriptions: what an asset's page says about a table, and the two lines that read it."""

import re
from dataclasses import replace

import pytest

from pg_bronze.core.table import Relation, SourceTable
from pg_bronze.defs import descriptions
from pg_bronze.settings.load import load_settings
from pg_bronze.settings.model import Settings
from pg_bronze_tests.harness.literals import column, table
from pg_bronze_tests.harness.project import Project, key
from pg_bronze_tests.settings.conftest import MINIMUM

LINES = re.compile(r"```python\n(.*?)\n```")


def settings(**variables: str) -> Settings:
    return load_settings(MINIMUM | variables, env_file=None)


def large() -> SourceTable:
    """Return a table of 4 GB without an index."""
    return replace(table(), relations=(Relation(7, "public", "movie", 9, 500_000, 0),))


def test_it_says_what_the_table_is_how_it_is_copied_and_where_it_is_stored():
    described = descriptions.of_bronze(table(), settings(MINIO_BUCKET="meteo-bronze", PG_BRONZE_PREFIX="eu"), None)

    assert described.startswith("films\n\n**Copied** every 10 s, if it may have new rows. It is read completely then")
    assert "**Stored** in `s3://meteo-bronze/eu/movie/`. `_pg_xid` is the transaction" in described
    assert '`versions="latest"` returns the newest version of each row.' in described


def test_a_large_table_says_how_often_it_is_swept_and_which_index_would_help():
    assert "**Large table**: " in (described := descriptions.of_bronze(large(), settings(), None))
    assert "about 200 s" in described
    off = settings(PG_BRONZE_TABLES='{"movie": {"bands": "off"}}')
    assert "read completely then, because `bands` is `off`" in descriptions.of_bronze(large(), off, None)


def test_a_table_without_a_key_has_no_newest_versions():
    assert "latest" not in descriptions.of_bronze(replace(table(), primary_key=()), settings(), None)


def test_a_column_of_the_source_with_the_same_name_is_not_confused_with_the_transaction():
    named = replace(table(), columns=(*table().columns, column(name="_pg_xid", attnum=9)))

    assert "`_pg_xid_1` is the transaction" in descriptions.of_bronze(named, settings(), None)


@pytest.mark.parametrize("name", ['with "quotes"', "año 2026", "a\\b", "a.b"])
def test_the_lines_name_a_table_of_any_name(name: str):
    """A person copies them without a look at the name."""
    named = replace(table(), name=name)

    for line in descriptions.reading_lines(named):
        called = re.search(r'scan\(("(?:[^"\\]|\\.)*")\)', line)
        assert called is not None
        assert eval(called[1]) == named.label


def test_it_is_short_enough_for_a_thousand_tables():
    """The web server reads all of them when it loads the code location, and each four times."""
    assert len(descriptions.of_bronze(table(), settings(), None)) < 600


def test_both_lines_of_an_asset_read_its_table(cinema: Project, capsys: pytest.CaptureFixture[str]):
    """The first thing that a person does with a new table is to look at it."""
    assert cinema.copy("movie").success
    description = cinema.definitions.resolve_asset_graph().get(key("movie")).description or ""

    polars, duckdb = LINES.findall(description)

    for line in (polars, duckdb):
        exec(line, {})
        printed = capsys.readouterr().out
        assert "film 5" in printed
        assert "_pg_xid" in printed
