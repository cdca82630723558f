"""When a table is divided, by what, and when it is swept."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pg_bronze.core.band_rules import (
    LONGEST_POSTPONED_S,
    POOR_SWEEPS,
    BandRules,
    Sweeps,
    block_floor,
    is_scheduled,
    orders,
    rules_of,
    seconds_to_sweep,
    sweep_s,
)
from pg_bronze.core.leaf import Leaf, Order
from pg_bronze.core.table import Column
from pg_bronze_tests.harness.literals import sized_table

NOW = datetime(2026, 1, 2, tzinfo=UTC)
NAMES = ("created_at",)


def table(indexed, *, partitioned=False, key=(), **types):
    pages = (3, 3) if partitioned else (3,)
    found = sized_table(*pages)
    columns = tuple(
        Column(n, name, kind, kind, -1, not_null=False) for n, (name, kind) in enumerate(types.items(), start=1)
    )
    relations = tuple(replace(item, ordered_by=tuple(indexed)) for item in found.relations)
    return replace(found, columns=columns, relations=relations, primary_key=key, partitioned=partitioned)


def test_a_column_that_updates_change_is_preferred_and_the_block_number_comes_last():
    of = table(("updated_at", "created_at", "id"), key=("id",), id="int8", created_at="date", updated_at="timestamptz")
    assert orders(of, NAMES, None) == [
        Order(3, "timestamptz"),
        Order(2, "date"),
        Order(1, "int8"),
        Order(relfilenode=of.relations[0].relfilenode),
    ]


@pytest.mark.parametrize("kind", ["text", "uuid", "oid", "bool", "public.mood"])
def test_a_type_whose_order_may_change_under_the_state_is_no_order(kind):
    """A new collation sorts texts anew, and int4 to oid sorts negative numbers last, both without a rewrite."""
    assert orders(table(("updated_at",), updated_at=kind), NAMES, None) == [Order(relfilenode=1)]


def test_a_column_must_lead_an_index_of_every_leaf():
    of = table(("updated_at",), partitioned=True, updated_at="int8")
    assert orders(of, NAMES, None) == [Order(1, "int8")]
    bare = replace(of, relations=(of.relations[0], replace(of.relations[1], ordered_by=())))
    assert orders(bare, NAMES, None) == []


def test_the_configured_cursor_column_may_be_the_order():
    assert orders(table(("seen",), seen="int8"), NAMES, "seen")[0] == Order(1, "int8")


def test_a_table_is_swept_by_schedule_only_if_a_sweep_takes_more_than_its_share_of_a_tick():
    assert not is_scheduled(sized_table(25_000), None, BandRules())
    assert is_scheduled(sized_table(25_001), None, BandRules())
    assert not is_scheduled(sized_table(10**8), None, None)
    assert sweep_s(sized_table(1), Sweeps(blocks=10**6, block_us=10)) == 10


def test_a_sweep_takes_one_percent_of_the_time_and_all_sweeps_together_five():
    assert rules_of(10, large_tables=5).period_s(1.0) == pytest.approx(100)
    assert rules_of(10, large_tables=20).period_s(1.0) == pytest.approx(400)
    assert rules_of(10, large_tables=20).period_s(0.1) == 0


def left_s(swept_at, sweeps=Sweeps(), counter=None):  # noqa: B008
    return seconds_to_sweep([Leaf(50, swept_at=swept_at)], sweeps, 100, counter, NOW)


def test_a_sweep_is_due_a_period_after_the_last_one_or_if_there_was_none():
    assert left_s(None) == 0
    assert left_s((NOW - timedelta(seconds=60)).isoformat()) == 40
    assert left_s((NOW - timedelta(seconds=101)).isoformat()) == -1


def test_a_sweep_is_postponed_for_a_day_if_the_counters_show_that_every_write_arrived_fresh():
    old, known = (NOW - timedelta(seconds=101)).isoformat(), Sweeps(counter=70, since="a", fresh=5)
    assert left_s(old, known, (75, "a")) == LONGEST_POSTPONED_S - 101
    assert left_s(old, known, (76, "a")) == -1
    assert left_s(old, known, (60, "a")) == -1
    assert left_s(old, known, (75, "b")) == -1  # the server counts again since a crash or a reset
    assert left_s(old, known, None) == -1  # a standby counts nothing
    assert left_s((NOW - timedelta(days=1)).isoformat(), known, (75, "a")) == 0


def test_a_sweep_that_was_recorded_in_the_future_is_due_now():
    """The clock was wrong once. A sweep after that time could be a year away."""
    assert left_s((NOW + timedelta(days=400)).isoformat()) == 0


def test_a_counter_is_kept_only_while_the_server_counts_on():
    counted = Sweeps().after_begin((70, "a")).after_end(counts=False)
    assert (counted.counter, counted.since) == (70, "a")
    assert counted.after_begin((90, "a")).counter == 70
    assert counted.after_begin((5, "b")).counter is None
    assert counted.after_begin(None).after_end(counts=False).counter is None


def swept(sweeps, fresh, found):
    began = sweeps.after_fresh(fresh, moved=False).after_begin(None)
    return began.after_range(found, 10, 0.1, 10).after_end(counts=True)


def test_the_share_of_fresh_rows_is_counted_from_one_sweep_to_the_next():
    sweeps = swept(Sweeps(), fresh=30, found=10)
    assert (sweeps.share, sweeps.poor) == (0.75, 0)
    sweeps = swept(sweeps, fresh=1, found=9)
    assert (sweeps.share, sweeps.poor) == (0.1, 1)
    quiet = swept(sweeps, fresh=0, found=0)
    assert (quiet.share, quiet.poor) == (0.1, 1)
    assert swept(sweeps, fresh=9, found=1).poor == 0


def test_an_order_that_was_given_up_is_not_tried_again():
    sweeps = replace(Sweeps(), poor=POOR_SWEEPS).rejecting(Order(2, "int8"))
    assert not sweeps.allows(Order(2, "int8"))
    assert sweeps.allows(Order(3, "int8"))
    assert sweeps.allows(Order(relfilenode=7))
    assert not sweeps.rejecting(Order(relfilenode=7)).allows(Order(relfilenode=8))
    assert Sweeps.from_json(sweeps.to_json()) == sweeps


def test_a_session_extends_a_table_by_many_blocks_so_the_floor_is_below_them():
    assert block_floor(1000, 160000) == "936"
    assert block_floor(1000, 150000) == "488"
    assert block_floor(64, 160000) is None
