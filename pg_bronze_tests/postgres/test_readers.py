"""Both readers return the same frame for the same query, and the same error for the same fault."""

import contextlib
import struct
from collections.abc import Iterator
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from pg_bronze.core.column_types import conform, projection, read_schema
from pg_bronze.core.table import literal
from pg_bronze.errors import DataError, PgBronzeError, StaleSnapshot, TableChanged, TableLocked
from pg_bronze.postgres.catalog import read_table
from pg_bronze.postgres.connection import Source
from pg_bronze.postgres.readers import binary_copy
from pg_bronze_tests.harness.faults import stale_reads
from pg_bronze_tests.harness.lake import MOVIE, READERS, SAME, Lake, fill
from pg_bronze_tests.harness.torture import Torture

# 'inf' - 'inf' has other bits than 'NaN'.
NOT_A_NUMBER = "'Infinity'::float8 - 'Infinity'::float8"


@contextlib.contextmanager
def both(database) -> Iterator[dict[str, Source]]:
    """Open one source for each reader."""
    with contextlib.ExitStack() as opened:
        yield {name: opened.enter_context(Source(database.conninfo, database.url, 30, name)) for name in READERS}


@pytest.fixture
def sources(database) -> Iterator[dict[str, Source]]:
    with both(database) as found:
        yield found


def outcome(source: Source, query: str) -> tuple[type[BaseException], str]:
    with pytest.raises(PgBronzeError) as error:
        source.read(query, "thing")
    return type(error.value), str(error.value)


def bits(frame: pl.DataFrame) -> list[Any]:
    """Return every float as its bytes, because comparisons treat all NaN as equal."""
    widths = {pl.Float32: ">f", pl.Float64: ">d"}
    return [
        [None if value is None else struct.pack(widths[type(column.dtype)], value) for value in column.to_list()]
        for column in frame.get_columns()
        if type(column.dtype) in widths
    ]


def test_both_readers_return_the_same_frame_for_every_type(any_database, monkeypatch):
    """The bucket must not show which of them read a slice."""
    with any_database.connect() as connection:
        Torture(connection).create()
        # NaN has many bit patterns.
        connection.execute("create table nans (k int, v float8)")
        connection.execute(f"insert into nans values (1, {NOT_A_NUMBER}), (2, -({NOT_A_NUMBER})), (3, 'NaN')")
        tables = [read_table(connection, "public", name) for name in ("torture", "arrays", "nans")]
    with both(any_database) as sources:
        for table in tables:
            same_frames(table, sources, monkeypatch)


def same_frames(table, sources, monkeypatch) -> None:
    everything = f"select {projection(table.columns)}, t.xmin::text::bigint as _pg_xid from only {table.sql} t"
    for query in (f"{everything} order by t.k\n", f"{everything} where false\n"):
        fast = sources["connectorx"].read(query, table.label)
        for decode_bytes in (binary_copy.DECODE_BYTES, 1):
            monkeypatch.setattr(binary_copy, "DECODE_BYTES", decode_bytes)
            copied = sources["copy"].read(query, table.label)

            assert copied.schema == fast.schema
            assert dict(list(copied.schema.items())[:-1]) == dict(read_schema(table.columns))
            assert_frame_equal(copied, fast)
            assert bits(copied) == bits(fast)
            stored, kept = (conform(frame, table.columns, table.label) for frame in (copied, fast))
            assert_frame_equal(stored[0], kept[0])
            assert stored[1] == kept[1]
        monkeypatch.undo()
    assert fast.height == 0


@pytest.mark.parametrize(
    "value",
    [
        "'262143-01-01'::date",
        "'5874897-12-31'::date",
        "'294276-12-31 23:59:59.999999'::timestamp",
        "'294276-12-31 23:59:59.999999+00'::timestamptz",
        "'262143-01-01'::timestamp",
    ],
)
def test_both_readers_reject_a_time_beyond_the_calendar(sources, value):
    """The rule table requests none; one that arrives after an ALTER must not be stored as another value."""
    for source in sources.values():
        kind, sentence = outcome(source, f"select 1::int8 as a, {value} as v")
        assert kind is TableChanged
        assert "altered during the read" in sentence


@pytest.mark.parametrize(
    "value", ["'262142-12-31'::date", "'262142-12-31 23:59:59.999999'::timestamp", "'4714-11-24 BC'::timestamptz"]
)
def test_both_readers_read_the_first_and_the_last_time_of_the_calendar(sources, value):
    frames = [source.read(f"select {value} as v", "thing") for source in sources.values()]

    assert_frame_equal(*frames)
    assert frames[0].height == 1


FAULTS = {
    "no right": "select a::int4 as a from secret",
    "row security": "select a::int4 as a from filtered",
    "no such column": "select b::int4 as b from open",
    "no such table": "select a::int4 as a from gone",
    "time limit": "select 1::int4 as a from pg_sleep(30)",
    "not a number": "select 'x'::int4 as a",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_the_same_error_from_both_readers(database, fault):
    """When it is retried must not depend on the reader."""
    role = f"reader_{database.name}"
    database.execute(
        f"create role {role} login password 'pw'; create table secret (a int); create table open (a int);"
        "create table filtered (a int); alter table filtered enable row level security;"
        f"grant select on open, filtered to {role}"
    )
    login = database.url.replace(f"{database.server.user}:{database.server.password}", f"{role}:pw")
    try:
        found = []
        for name in READERS:
            limit = 1 if fault == "time limit" else 30
            with Source({**database.conninfo, "user": role, "password": "pw"}, login, limit, name) as source:
                found.append(outcome(source, FAULTS[fault]))
    finally:
        database.execute(f"drop owned by {role}; drop role {role}")

    assert found[0] == found[1]
    assert "thing" in found[0][1]


@pytest.mark.parametrize("filled", [True, False], ids=["filled", "empty"])
@pytest.mark.parametrize("name", READERS)
def test_a_snapshot_from_before_the_horizon_is_not_read(database, bucket, name, filled):
    """Film 4 is in that snapshot, and film 5 would be below a horizon already passed: lost for good.

    In an empty table no row triggers the check.
    """
    lake = Lake(database, bucket.store(), reader=name)
    database.execute(MOVIE)
    if filled:
        database.execute(fill(1, 3))
        lake.drain()
        database.execute(fill(4, 4))
    before = lake.all_keys()

    with stale_reads(database, fill(5, 5)), pytest.raises(StaleSnapshot, match=r"^movie: .* Nothing was copied"):
        lake.tick()

    assert lake.all_keys() == before
    assert lake.tick().row_count == (2 if filled else 1)
    assert lake.compare() == SAME


def test_the_copy_reader_works_again_after_an_error(sources):
    """Otherwise every later table of the run fails in the aborted transaction of the first."""
    source = sources["copy"]
    assert source.read("select 1::int4 as a", "thing").height == 1
    outcome(source, "select 'x'::int4 as a")

    assert source.read("select 1::int4 as a", "thing").height == 1


# In the middle PostgreSQL would take the backslash as an escape, at the end it would not find the closing quote.
BACKSLASHES = ["C:\\new", "C:\\"]


@pytest.mark.parametrize("value", BACKSLASHES)
def test_a_backslash_in_a_literal_is_itself_for_a_role_without_standard_strings(database, value):
    """The value of a seed would select other rows, which are then missing, or the statement would fail."""
    role = f"escaping_{database.name}"
    database.execute(
        f"create role {role} login password 'pw'; alter role {role} set standard_conforming_strings = off;"
        f"create table path (p text); grant select on path to {role}"
    )
    with database.connect() as connection:
        connection.execute("insert into path values (%s), ('C:' || chr(10) || 'ew')", (value,))
    login = database.url.replace(f"{database.server.user}:{database.server.password}", f"{role}:pw")
    query = f"select p::text as p from public.path where p = {literal(value)}"
    try:
        for name in READERS:
            with Source({**database.conninfo, "user": role, "password": "pw"}, login, 30, name) as source:
                assert source.read(query, "path")["p"].to_list() == [value]
                assert source.ask(query) == [(value,)]
    finally:
        database.execute(f"drop owned by {role}; drop role {role}")


def test_a_type_without_a_rule_is_rejected(sources):
    for source in sources.values():
        outcome(source, "select '1 day'::interval as v")


@pytest.mark.parametrize("expression", ["interval '1 day'", "'{1}'::xid[]", "null::macaddr"])
def test_a_panic_of_connectorx_is_mapped_to_an_error(sources, expression):
    """A panic is no Exception: it passes every handler, and Dagster shows a stack of Rust."""
    with pytest.raises(DataError, match=r"^thing: ") as error:
        sources["connectorx"].read(f"select {expression} as c", "thing")
    assert type(error.value.__cause__).__name__ == "PanicException"
    assert not isinstance(error.value.__cause__, Exception)


@pytest.mark.parametrize("reader", READERS)
def test_a_read_waits_for_a_lock_no_longer_than_its_limit(database, reader: str):
    """A run of many tables would otherwise wait for one until the statement timeout."""
    database.execute("create table movie (id int)")
    with (
        Source(database.conninfo, database.url, 30, reader, lock_timeout_s=0.05) as source,
        database.connect(autocommit=False) as other,
    ):
        other.execute("lock table movie in access exclusive mode")
        kind, message = outcome(source, "select id from public.movie")
        with pytest.raises(TableLocked):
            source.ask("select from public.movie")
    assert kind is TableLocked
    assert message.startswith("thing: another session holds or waits for a lock")
