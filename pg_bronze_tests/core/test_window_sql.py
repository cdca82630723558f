import dataclasses
import json
import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pg_bronze.core.cells import Cell
from pg_bronze.core.leaf import Order
from pg_bronze.core.region import Region, describe_region
from pg_bronze.core.watermark import Seed
from pg_bronze.core.window_sql import (
    MASK,
    MAX_WIDTH,
    NEXT,
    TOO_LARGE,
    ByteLimit,
    exists,
    guard,
    measure,
    not_utf8,
    relation,
    select,
    transaction_id,
    where,
    written,
)

HORIZON_SQL = "pg_catalog.int8in(pg_catalog.xid8out(pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())))"
XMIN = "pg_catalog.int8in(pg_catalog.xidout(t.xmin))"
GUARD_70 = (
    f"(select pg_catalog.int4in(pg_catalog.textout(case when {HORIZON_SQL} >= 70 "
    "and (((pg_catalog.age('3'::pg_catalog.xid)::pg_catalog.int8 + 3) - 70) & 4294967295) < 2147483648 "
    "then '1' else 'pg_bronze: this snapshot is older than horizon 70' end))) = 1"
)
SINCE_50 = (
    "pg_catalog.age(t.xmin) <= "
    "(select ((pg_catalog.age('3'::pg_catalog.xid)::pg_catalog.int8 + 3) - 50) & 4294967295) "
    "and pg_catalog.age(t.xmin) >= "
    "(select (((pg_catalog.age('3'::pg_catalog.xid)::pg_catalog.int8 + 3) - 70) & 4294967295) + 1)"
)
FIRST = (
    "not (pg_catalog.age(t.xmin) <= "
    "(select ((pg_catalog.age('3'::pg_catalog.xid)::pg_catalog.int8 + 3) - 70) & 4294967295) "
    "and pg_catalog.age(t.xmin) >= 0)"
)


def region(start=50, only=True, leaves=(7,), **more):
    return Region("public", "movie", only, leaves, start, 70, **more)


def test_a_window_is_selected_by_age():
    assert written(50, 70) == SINCE_50


def test_a_first_load_excludes_only_transactions_at_or_after_the_horizon():
    """The age of rows frozen long ago is not meaningful; a lower bound would lose them."""
    assert written(None, 70) == FIRST


def test_the_guard_fails_with_the_text_that_identifies_the_error():
    assert guard(70) == GUARD_70


def test_the_transaction_id_is_64_bits_wide():
    assert transaction_id(70) == f"(69 - ((69 - {XMIN}) & 4294967295))::pg_catalog.int8"


def test_a_leaf_alone_needs_no_tableoid():
    assert where(region(), {}) == f"{SINCE_50}\n  and {GUARD_70}"
    assert relation(region()) == 'only "public"."movie" t'


def test_leaves_read_through_the_root_are_selected_by_tableoid():
    """A partition attached after the plan was made would otherwise be read and not recorded."""
    several = region(only=False, leaves=(7, 9))
    assert (
        where(several, {})
        == f"{SINCE_50}\n  and t.tableoid in ('7'::pg_catalog.oid, '9'::pg_catalog.oid)\n  and {GUARD_70}"
    )
    assert relation(several) == '"public"."movie" t'


@pytest.mark.parametrize(
    "blocks, expected",
    [
        ((0, 8), "t.ctid >= '(0,0)'::pg_catalog.tid\n  and t.ctid < '(8,0)'::pg_catalog.tid"),
        ((8, None), "t.ctid >= '(8,0)'::pg_catalog.tid"),
    ],
)
def test_a_block_range_is_half_open_and_the_last_one_is_open_ended(blocks, expected):
    assert where(region(blocks=blocks), {}) == f"{SINCE_50}\n  and {expected}\n  and {GUARD_70}"


def test_a_seed_excludes_what_was_copied_before_and_keeps_null():
    found = where(region(start=None, seed=Seed(3, "41")), {3: "movie_id"})
    assert found == f"""{FIRST}\n  and (t."movie_id" <= '41') is not true\n  and {GUARD_70}"""


def test_names_and_values_are_quoted():
    found = where(region(start=None, seed=Seed(3, "it's")), {3: 'a"b'})
    assert """(t."a""b" <= 'it''s') is not true""" in found
    assert relation(Region('s"', 'a"b', True, (7,), None, 70)) == 'only "s"""."a""b" t'


@pytest.mark.parametrize(
    "gone", [{"order": Order(2, "int8"), "cells": (Cell(50, 70, "5"),)}, {"seed": Seed(2, "5")}], ids=["bands", "seed"]
)
def test_a_missing_column_is_a_key_error(gone):
    """The caller starts a new generation; a query without the column would select other rows."""
    with pytest.raises(KeyError):
        where(region(**gone), {1: "id"})


def test_a_slice_is_one_query_with_the_transaction_id_last():
    query = select(region(), 't."id"::int8 as "id"', "_pg_xid", {}, 101)
    assert query == (
        't."id"::int8 as "id",\n'
        f'  (69 - ((69 - {XMIN}) & 4294967295))::pg_catalog.int8 as "_pg_xid"\n'
        f'from only "public"."movie" t\nwhere {SINCE_50}\n  and {GUARD_70}\nlimit 101\n'
    ).replace("t.", "select t.", 1)


def test_a_table_without_columns_has_its_transaction_ids_selected():
    assert select(region(), "", "_pg_xid", {}, None).startswith("select (69 - ")


@pytest.mark.parametrize(
    "query",
    [
        lambda region, names: select(region, "1", "_pg_xid", names, None),
        lambda region, names: measure(region, [], names),
        lambda region, names: exists(region, names),
        lambda region, names: not_utf8(region, ["movie_id"], names),
    ],
    ids=["select", "measure", "exists", "not_utf8"],
)
def test_every_query_selects_exactly_the_region(query):
    """A query without the seed would copy again what the original system had copied."""
    seeded, names = region(start=None, seed=Seed(3, "41")), {3: "movie_id"}
    assert where(seeded, names) in query(seeded, names)


def test_invalid_utf8_is_counted_for_each_text_column():
    query = not_utf8(region(), ["title", 'a"b'], {})
    assert query.count("pg_catalog.convert_to(pg_catalog.concat(t.") == 2
    assert """convert_to(pg_catalog.concat(t."a""b"), 'SQL_ASCII')""" in query
    assert "where pg_catalog.getdatabaseencoding() = 'SQL_ASCII' and pg_catalog.age(" in query


def test_a_query_without_a_row_limit_has_no_limit_clause():
    assert "limit" not in select(region(), "1", "_pg_xid", {}, None)


def test_a_measure_counts_rows_and_the_bytes_of_wide_columns():
    assert measure(region(), ["octet_length(t.title)", "octet_length(t.a)"], {}) == (
        "select pg_catalog.count(*), coalesce(pg_catalog.sum((coalesce(octet_length(t.title), 0)::pg_catalog.int8 "
        "+ coalesce(octet_length(t.a), 0)::pg_catalog.int8)), 0)::pg_catalog.int8\n"
        f'from only "public"."movie" t\nwhere {SINCE_50}\n  and {GUARD_70}\n'
    )
    assert "sum((0::pg_catalog.int8))" in measure(region(), [], {})


def test_a_query_with_a_byte_limit_fails_once_its_rows_exceed_it():
    query = select(region(), 't."a"::text as "a"', "_pg_xid", {1: "a", 2: "_pg_width"}, 101, ByteLimit(500, ["w(t.a)"]))
    assert query == (
        'select t."a"::text as "a",\n'
        f'  (69 - ((69 - {XMIN}) & 4294967295))::pg_catalog.int8 as "_pg_xid"\n'
        'from (select t."a", t."_pg_width", t.xmin, w.width as "_pg_width_",\n'
        '    pg_catalog.sum(w.width) over (rows unbounded preceding) as "_pg_total"\n'
        '  from only "public"."movie" t\n'
        "  cross join lateral (select (coalesce(w(t.a), 0)::pg_catalog.int8) as width) w\n"
        f"  where {SINCE_50}\n  and {GUARD_70}) t\n"
        "where pg_catalog.int4in(pg_catalog.textout(case when "
        't."_pg_total" <= 500::pg_catalog.numeric or t."_pg_total" = t."_pg_width_"::pg_catalog.numeric '
        f"then '1' else '{TOO_LARGE}' end)) = 1\nlimit 101\n"
    )


def test_a_range_can_start_and_end_inside_a_block():
    assert "t.ctid >= '(3,100)'::pg_catalog.tid\n  and t.ctid < '(3,200)'::pg_catalog.tid" in where(
        region(blocks=(3, 3), lines=(100, 200)), {}
    )
    assert "t.ctid >= '(3,100)'::pg_catalog.tid\n  and t.ctid < '(4,0)'::pg_catalog.tid" in where(
        region(blocks=(3, 4), lines=(100, 0)), {}
    )


def test_exists_selects_the_same_rows():
    assert exists(region(), {}) == f'select exists (select 1 from only "public"."movie" t where {where(region(), {})})'


SQLITE = sqlite3.connect(":memory:", check_same_thread=False)


def ask(sql: str, xid: int, next_xid: int) -> object:
    """Return the value of an expression about one row version, with SQLite for the arithmetic of PostgreSQL."""

    def age(of: int) -> int:
        return ((next_xid - of + 2**31) & MASK) - 2**31  # a 32-bit difference, as the server computes it

    given_ages = {
        NEXT: f"({age(3)} + 3)",
        "pg_catalog.age(t.xmin)": str(age(xid)),
        XMIN: str(xid & MASK),
    }
    for name, value in given_ages.items():
        sql = sql.replace(name, value)
    sql = sql.replace(
        "pg_catalog.int8in(pg_catalog.xid8out(pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())))",
        str(next_xid),
    )
    return SQLITE.execute(
        "select " + sql.replace("::pg_catalog.int8", "").replace("pg_catalog.int4in(pg_catalog.textout(", "(0 + (")
    ).fetchone()[0]


@st.composite
def moments(draw):
    """A window, the next id of the reading transaction, and an id below it; mostly near multiples of 2^31."""
    next_xid = draw(st.sampled_from([2**31, 2**32, 3 * 2**31, 2**33, 2**40]).map(int)) + draw(st.integers(-50, 50))
    reach = st.integers(0, 60) | st.integers(0, MAX_WIDTH)
    start = max(3, next_xid - draw(reach))
    end = draw(st.integers(start, min(next_xid, start + 60)) | st.integers(start, next_xid))
    near = st.sampled_from([start - 1, start, start + 1, end - 1, end, next_xid - 1])
    xid = draw(near | st.integers(max(3, next_xid - 2**31 + 1), next_xid - 1))
    return start, end, next_xid, min(max(xid, 3, next_xid - 2**31 + 1), next_xid - 1)


@given(moments())
def test_a_window_contains_exactly_its_ids_across_the_wraparound(moment):
    start, end, next_xid, xid = moment
    assert bool(ask(written(start, end), xid, next_xid)) == (start <= xid < end)


@given(moments())
def test_a_first_load_contains_every_id_below_its_end(moment):
    _, end, next_xid, xid = moment
    assert bool(ask(written(None, end), xid, next_xid)) == (xid < end)


@given(moments())
def test_an_id_below_the_end_is_restored_to_64_bits(moment):
    _, end, next_xid, xid = moment
    if xid < end:
        assert ask(transaction_id(end), xid, next_xid) == xid


@given(st.integers(3, 2**40), st.integers(-(2**31) + 1, 2**31))
def test_the_guard_rejects_a_snapshot_older_than_the_horizon(end, ahead):
    """A lagging standby would return fewer rows, and the watermark would skip the others."""
    next_xid = max(3, end + ahead)
    passed = ask(guard(end).replace("'pg_bronze: this snapshot is older than horizon", "'0"), 3, next_xid)
    assert bool(passed) == (end <= next_xid < end + 2**31)


texts = st.text(max_size=8)
regions = st.builds(
    Region,
    texts,
    texts,
    st.booleans(),
    st.lists(st.integers(1, MASK), min_size=1, max_size=5).map(tuple),
    st.none() | st.integers(3, 2**62),
    st.integers(3, 2**62),
    st.none() | st.tuples(st.integers(0, MASK), st.none() | st.integers(0, MASK)),
    st.none() | st.builds(Seed, st.integers(1, 1600), texts),
    st.tuples(st.integers(0, 291), st.integers(0, 291)),
).flatmap(
    lambda region: (
        st.just(region)
        | st.builds(
            dataclasses.replace,
            st.just(region),
            order=st.builds(Order, st.integers(1, 1600), texts) | st.builds(Order, relfilenode=st.integers(1, MASK)),
            cells=st.lists(
                st.builds(
                    Cell,
                    st.none() | st.integers(3),
                    st.integers(3),
                    st.none() | texts,
                    st.none() | texts,
                    st.tuples(st.integers(0, MASK), st.integers(0, 291)),
                    st.none() | st.tuples(st.integers(0, MASK), st.integers(0, 291)),
                ),
                min_size=1,
                max_size=3,
            ).map(tuple),
        )
    )
)


@settings(max_examples=40)
@given(regions)
def test_a_region_survives_a_round_trip_through_json(before):
    assert Region.from_json(json.loads(json.dumps(before.to_json()))) == before


@pytest.mark.parametrize(
    "more, words",
    [
        ({}, "[50, 70), that were"),
        ({"blocks": (3, 8)}, "in blocks [3, 8) of the table"),
        ({"blocks": (3, None)}, "in blocks from 3 on"),
        ({"blocks": (3, 3), "lines": (100, 200)}, "with a ctid at or after (3,100) and before (3,200)"),
        ({"blocks": (3, 4), "lines": (100, 0)}, "with a ctid at or after (3,100) and before (4,0)"),
        ({"blocks": (3, None), "lines": (100, 0)}, "with a ctid at or after (3,100)"),
    ],
)
def test_a_region_is_described_in_words(more, words):
    assert words in describe_region(region(**more))
