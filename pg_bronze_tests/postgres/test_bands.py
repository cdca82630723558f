"""The SQL of bands on a server, compared with the definition of what a state delivers, evaluated row by row."""

import random

import psycopg

from pg_bronze.core.leaf import Order
from pg_bronze.core.region import Region, with_difference
from pg_bronze.core.window_sql import select, transaction_id
from pg_bronze_tests.harness.band_histories import history

# For each type that can be an order: values, and floors as PostgreSQL prints them in UTC.
NUMBERS = (["-7", "0", "1", "1", "2", "9", "10", "11"], ["-7", "1", "9", "10"])
SPECIAL = ["'NaN'", "'Infinity'", "'-Infinity'"]
FLOATS = ([*NUMBERS[0], *SPECIAL, "0.1", "1e10"], ["-7", "0.1", "9", "1e+10"])
DAYS = (["'2026-01-01'", "'2026-01-02'", "'0044-03-15 BC'", "'infinity'", "'-infinity'", "'10000-01-01'"], [])
TYPES = {
    **dict.fromkeys(("int2", "int4", "int8"), NUMBERS),
    **dict.fromkeys(("float4", "float8"), FLOATS),
    "numeric": ([*NUMBERS[0], "'NaN'", "0.1", "9.99"], ["-7", "0.1", "9.990", "10"]),
    "date": (DAYS[0], ["0044-03-15 BC", "2026-01-01", "10000-01-01"]),
    "timestamp": (DAYS[0], ["0044-03-15 00:00:00 BC", "2026-01-01 00:00:00", "10000-01-01 00:00:00"]),
    "timestamptz": (DAYS[0], ["0044-03-15 00:00:00+00 BC", "2026-01-01 00:00:00+00", "2026-01-01 12:00:00.5+00"]),
}


def fill(connection, kind, values):
    """Write rows under several transactions and savepoints; every value occurs under each, and NULL too."""
    connection.execute(f"create table movie (id int generated always as identity, at {kind}, pad text)")
    for _ in range(5):
        with connection.transaction():
            items = ", ".join(f"({value}, repeat('x', 1500))" for value in [*values, "null"])
            connection.execute(f"insert into movie (at, pad) values {items}")
            with connection.transaction():
                connection.execute("update movie set pad = repeat('y', 1200) where id % 7 = 0")
    connection.execute("create index on movie (at)")


def is_delivered(leaf, row):
    """Return whether a row is delivered; ``row`` has the floors that the server says it is above."""
    upto = leaf.swept or 0
    for band in leaf.upper:
        if band.floor in row["above"]:
            upto = band.upto or 0
    sweep = leaf.sweep
    covered = sweep and row["place"] < sweep.position and not (sweep.below and sweep.below in row["above"])
    return row["xid"] < max(upto, sweep.upto if covered else 0)


def test_every_step_reads_exactly_its_rows_in_every_order(any_database):
    """NULL, ties, infinity and NaN: a row that two conditions place in different bands would be lost or doubled."""
    with psycopg.connect(**any_database.conninfo, autocommit=True) as connection:
        connection.execute("set timezone = 'UTC'; set enable_seqscan = off")
        for kind, (values, floors) in TYPES.items():
            connection.execute("drop table if exists movie")
            fill(connection, kind, values)
            compare(connection, Order(2, kind), floors, kind)
            compare(connection, Order(relfilenode=1), ["1", "2", "4"], kind)


def compare(connection, order, floors, kind):
    horizon = connection.execute("select pg_snapshot_xmin(pg_current_snapshot())::text::bigint").fetchone()[0]
    tests = [f"(at > '{floor}') is true" if order.attnum else f"ctid >= '({floor},0)'" for floor in floors]
    query = f"select id, {transaction_id(horizon)}, ctid::text, {', '.join(tests)} from movie t"
    rows = []
    for row_id, xid, place, *above in connection.execute(query).fetchall():
        block, line = map(int, place.strip("()").split(","))
        known = {floor for floor, is_above in zip(floors, above, strict=True) if is_above}
        rows.append({"id": row_id, "xid": xid, "place": (block, line), "above": known})
    blocks = 1 + max(row["place"][0] for row in rows)
    first = min(row["xid"] for row in rows) - 1
    rnd = random.Random(f"{kind} {order}")
    for before, after in history(rnd, order, floors, first, blocks, 40, last_horizon=horizon):
        region = with_difference(Region("public", "movie", True, (9,), None, 0), before, after)
        expected = sorted(row["id"] for row in rows if is_delivered(after, row) and not is_delivered(before, row))
        found = []
        if region is not None:
            query = select(region, 't."id"', "_pg_xid", {1: "id", 2: "at"}, None)
            found = sorted(row[0] for row in connection.execute(query).fetchall())
        assert found == expected, (kind, before, after)
