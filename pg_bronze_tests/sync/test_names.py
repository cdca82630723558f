"""All names that PostgreSQL allows: copied, kept apart, and read back under their labels, on each S3 server."""

import contextlib
from typing import Any

import pytest
from polars.selectors import by_name

import pg_bronze
from pg_bronze.core.table import label, literal, quote
from pg_bronze.lake.reading import scan
from pg_bronze.postgres.connection import Source
from pg_bronze.postgres.control_table import Control, ControlRow
from pg_bronze.settings.load import load_settings
from pg_bronze_tests.harness.lake import Lake
from pg_bronze_tests.harness.names import COLUMN_NAMES, TABLES
from pg_bronze_tests.harness.repetitions import repetition


def quoted(schema: str, name: str) -> str:
    return f"{quote(schema)}.{quote(name)}"


@pytest.fixture
def named(database: Any) -> Any:
    """The database with a table of each name, each with a row that no other table has."""
    schemas = sorted({schema for schema, _ in TABLES} - {"public"})
    statements = [f"create schema {quote(schema)}" for schema in schemas]
    for number, table in enumerate(TABLES):
        statements.append(f"create table {quoted(*table)} (id int primary key, word text)")
        statements.append(f"insert into {quoted(*table)} values ({number}, {literal(f'of {table[1]}')})")
    database.execute("; ".join(statements))
    return database


@repetition  # of ``defs/test_names.py``, without Dagster
def test_tables_of_every_name_are_copied_and_kept_apart(named, any_bucket, monkeypatch):
    """Two tables in one folder would adopt each other's objects, and some servers confuse similar folder names."""
    settings = load_settings(any_bucket.environ, None, lake_only=True)
    with named.connect() as connection, Lake(named, any_bucket.store()).source() as source:
        lake = Lake(named, any_bucket.store(), control=Control(connection))
        monkeypatch.setattr(lake, "source", lambda: contextlib.nullcontext(source))
        for number, (schema, name) in enumerate(TABLES):
            assert lake.tick(f"{schema}:{name}", dated=number % 3 == 0).row_counts == [1]

    monkeypatch.setattr(scan, "connect", lambda _: lake.store.client)  # a new client for each table takes 0.1 s
    for number, (schema, name) in enumerate(TABLES):
        assert len(lake.keys(f"{schema}:{name}")) == 1
        found = pg_bronze.scan(label(schema, name), settings=settings).collect()
        assert found.select("id", "word").rows() == [(number, f"of {name}")], (schema, name)
    assert named.execute("select count(*) from etl_control") == [(len(TABLES),)]
    unabridged = [label(*table) for table in TABLES if len(label(*table)) <= 255]
    assert len(unabridged) == len(TABLES) - 2
    rows = dict(named.execute("select table_name, last_extracted_value from etl_control"))
    for number, table in enumerate(TABLES):
        assert label(*table) not in unabridged or rows[label(*table)] == str(number)


def test_a_control_row_is_found_for_every_label(database):
    """Edits by hand are noticed by comparing with the written row, and a takeover starts from it."""
    labels = [label('"' * 63, '"' * 63), label('"' * 62 + "x", '"' * 63), label("m" * 63, "." * 63), label("a", "b.c")]
    with database.connect() as connection:
        control = Control(connection)
        for number, name in enumerate(labels):
            assert control.mirror(ControlRow(name, str(number), "id"), None).written
        for number, name in enumerate(labels):
            found = control.last_value(name)
            assert found is not None
            assert found.value == str(number)
            assert not control.mirror(ControlRow(name, str(number), "id"), str(number)).edited


@pytest.mark.parametrize("reader", ["connectorx", "copy"])
def test_columns_of_every_name_are_copied_and_read_back(database, bucket, reader):
    """Polars takes some names for patterns. Then values would silently be in another column."""
    settings = load_settings(bucket.environ, None, lake_only=True)
    columns = ", ".join(f"{quote(name)} text" for name in COLUMN_NAMES)
    values = ", ".join(literal(f"of {name}") for name in COLUMN_NAMES)
    key = ("*", "^.*$", "a")
    database.execute(f"create table movie ({columns}, primary key ({', '.join(map(quote, key))}))")
    database.execute(f"insert into movie values ({values})")
    lake = Lake(database, bucket.store())
    with Source(database.conninfo, database.url, 60, reader) as source:
        lake.source = lambda: contextlib.nullcontext(source)
        lake.tick()
        source.forget_horizon()
        # After a change of columns, reading selects each column by name. The update makes a second version of the row.
        database.execute("alter table movie add later int; update movie set later = 1, \"^a$\" = 'new'")
        lake.tick()

    whole = pg_bronze.scan("movie", settings=settings).sort("_pg_xid_2").collect()
    newest = pg_bronze.scan("movie", versions="latest", settings=settings)

    assert whole.columns == [*COLUMN_NAMES, "later", "_pg_xid_2"]
    expected = {name: f"of {name}" for name in COLUMN_NAMES}
    assert whole.drop("_pg_xid_2").to_dicts() == [
        {**expected, "later": None},
        {**expected, "^a$": "new", "later": 1},
    ]
    assert newest.collect().equals(whole.tail(1))
    assert newest.filter(by_name("^.*$") == "of ^.*$", by_name("^a$") == "new").collect().height == 1
    assert newest.filter(by_name("^a$") == "of ^a$").collect().height == 0
