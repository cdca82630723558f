"""The versions of all control rows, which every tick reads to notice a restore of tables without new rows."""

import time
from collections.abc import Iterator

import pytest

from pg_bronze.core.watermark import ControlVersion
from pg_bronze.postgres.connection import Source
from pg_bronze.postgres.control_rows import ControlRows
from pg_bronze.postgres.control_table import Control, ControlRow, key

SCHEMA, LONG = 'odd "%s" {name}', "x" * 300


@pytest.fixture
def source(database) -> Iterator[Source]:
    role = f"reader_{database.name}"
    quoted = SCHEMA.replace('"', '""')
    database.execute(f"create schema \"{quoted}\"; create role {role} login password 'reader'")
    database.execute(
        f'grant usage, create on schema "{quoted}" to {role}; alter role {role} set search_path = "{quoted}"'
    )
    with Source({**database.conninfo, "user": role, "password": "reader"}, None, 60) as found:
        for label in ("movie", LONG):
            assert Control(found.connection).mirror(ControlRow(label, "1", "id"), None).written
        yield found
    database.execute(f"drop owned by {role}; drop role {role}")


def read(rows: ControlRows, source: Source, *more: ControlVersion) -> dict[str, ControlVersion]:
    names = {oid: name for name, oid in source.activity().oids.items()}
    (oid,) = (oid for oid, (schema, _) in names.items() if schema == SCHEMA)
    database = source.place("bronze").database
    return rows.read(source, names, {ControlVersion(database, oid, 3), *more}, database)


def test_they_are_those_that_a_run_compares(source):
    system_id = source.place("bronze").system_id
    expected = {key(label): Control(source.connection).version(label, system_id) for label in ("movie", LONG)}

    assert read(ControlRows(), source) == expected
    assert source.ask("select current_setting('lock_timeout')") == [("0",)]


def test_a_table_that_was_dropped_or_is_in_another_database_is_left_out(source):
    here = source.place("bronze").database
    assert set(read(ControlRows(), source, ControlVersion(here, 1, 3), ControlVersion(here + 1, 2, 3))) == {
        "movie",
        key(LONG),
    }


def test_a_session_that_locks_the_table_delays_no_tick(source, database):
    rows = ControlRows()
    with database.connect(autocommit=False) as holder:
        holder.execute(f"""lock table "{SCHEMA.replace('"', '""')}".etl_control""")
        started = time.monotonic()
        assert read(rows, source) == {}
        assert time.monotonic() - started < 3
        holder.rollback()

    assert set(read(rows, source)) == {"movie", key(LONG)}


def test_a_table_that_may_not_be_read_is_asked_once(source, database):
    """Each attempt is an error in the server's log, which somebody monitors."""
    rows = ControlRows()
    database.execute(
        f"""revoke all on "{SCHEMA.replace('"', '""')}".etl_control from public, {source._conninfo["user"]}"""
    )
    log = database.server.data_dir / "postgres.log"
    before = log.read_text().count("permission denied for table etl_control")

    assert [read(rows, source) for _ in range(3)] == [{}, {}, {}]

    assert log.read_text().count("permission denied for table etl_control") == before + 1
