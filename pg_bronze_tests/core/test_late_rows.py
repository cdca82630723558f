"""Which row versions a copy by ``column > last value`` would have lost: the comparison of each type, and the count."""

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pg_bronze.core import late_rows
from pg_bronze.core.cursor_column import CursorColumn, newest_value
from pg_bronze.core.leaf import Leaf, Sweep
from pg_bronze.core.region import Region
from pg_bronze.core.row_counts import MAX_OPEN, Poll, RowCounts
from pg_bronze.core.value_policies import DATE_INFINITY, TIMESTAMP_INFINITY
from pg_bronze_tests.harness.literals import mark

NAN, INF = float("nan"), float("inf")
AWARE = pl.Datetime("us", "UTC")


def cursor(base: str) -> CursorColumn:
    kind = {"date": "date", "timestamp": "timestamp", "timestamptz": "timestamp"}.get(base, "number")
    return CursorColumn("c", 2, kind, base, "configured")


NUMBER = cursor("int8")


def late(values, dtype, highest, base):
    return late_rows.not_above(pl.Series("c", values, dtype=dtype), highest, cursor(base)).to_list()


@pytest.mark.parametrize(
    "base, dtype, highest, at_or_below, above",
    [
        ("int2", pl.Int16, "2", [None, -5, 2], [3]),
        ("int8", pl.Int64, "9223372036854775806", [9223372036854775806], [9223372036854775807]),
        ("int8", pl.Int64, "-2.5", [-3], [-2]),  # the column was numeric before
        ("int4", pl.Int32, "1" + "0" * 60, [2**31 - 1], []),
        ("numeric", pl.Decimal(10, 2), "1.00", [None, Decimal("1.00"), Decimal("-7")], [Decimal("1.01")]),
        ("numeric", pl.Decimal(10, 2), "-1.005", [Decimal("-1.01")], [Decimal("-1.00")]),
        ("numeric", pl.Decimal(38, 0), "9" * 38, [Decimal("9" * 38)], []),
        ("numeric", pl.String, "0.1", [None, "0.1", "0.10", "-Infinity"], ["0.1" + "0" * 30 + "1", "NaN", "Infinity"]),
        ("numeric", pl.String, "1" + "0" * 400, ["1" + "0" * 400, "9"], ["1" + "0" * 399 + "1"]),
        ("float8", pl.Float64, "0.3", [None, 0.3, -INF, -0.0], [0.1 + 0.2, INF, NAN]),
        ("float4", pl.Float32, "0.1", [0.1, 0.0], [0.10000001, NAN]),
        ("date", pl.Date, "2026-03-01", [None, date(2026, 3, 1), date(2026, 2, 28)], [date(2026, 3, 2)]),
        ("timestamp", pl.Datetime("us"), "1970-01-01 00:00:00.5", [None, 0, 500_000], [500_001]),  # microseconds
        ("timestamptz", AWARE, "1969-12-31 23:59:59.999999+00", [datetime(1969, 12, 31, tzinfo=UTC)],
         [datetime(1970, 1, 1, tzinfo=UTC)]),
        ("timestamptz", pl.String, "10000-01-01 00:00:00+00", [None, "9999-12-31 23:59:59+00", "-infinity"],
         ["10000-01-01 00:00:00.000001+00", "infinity"]),
        ("date", pl.String, "0044-03-15 BC", ["0044-03-14 BC", "0045-01-01 BC"], ["0044-03-16 BC", "0001-01-01"]),
    ],
)  # fmt: skip
def test_values_are_compared_exactly_in_their_order_in_postgresql(base, dtype, highest, at_or_below, above):
    """A float or a text comparison would be wrong at the ends of a type, and a NULL is above nothing."""
    assert late([*at_or_below, *above], dtype, highest, base) == [True] * len(at_or_below) + [False] * len(above)


def test_infinite_times_are_above_and_below_all_others():
    assert late([*sorted(DATE_INFINITY)], pl.Int32, None, "date") == [False, False]
    days = pl.Series("c", sorted(DATE_INFINITY), dtype=pl.Int32).cast(pl.Date)
    times = pl.Series("c", sorted(TIMESTAMP_INFINITY), dtype=pl.Int64).cast(AWARE)
    assert late_rows.not_above(days, "2026-01-01", cursor("date")).to_list() == [True, False]
    assert late_rows.not_above(times, "2026-01-01 00:00:00+00", cursor("timestamptz")).to_list() == [True, False]


@pytest.mark.parametrize(
    "base, dtype, numbers",
    [
        ("date", pl.Date, st.integers(-2_400_000, 100_000_000)),
        ("timestamptz", AWARE, st.integers(-(2**57), 2**62)),
        ("int8", pl.Int64, st.integers(-(2**63), 2**63 - 1)),
        ("float8", pl.Float64, st.floats(allow_nan=False, allow_infinity=False)),
        ("float4", pl.Float32, st.floats(allow_nan=False, allow_infinity=False, width=32)),
    ],
)
def test_the_text_of_the_highest_value_divides_the_values_exactly(base, dtype, numbers):
    """The highest value is stored as PostgreSQL's text."""

    @given(numbers, numbers)
    def check(one, other):
        frame = pl.DataFrame({"c": pl.Series([one, other])}).cast(dtype)
        highest = newest_value(frame[:1], cursor(base))
        assert late_rows.not_above(frame["c"], highest, cursor(base)).to_list() == [True, other <= one]

    check()


def test_without_a_highest_value_no_row_is_late():
    """A copy that has seen no value has no condition yet."""
    assert late([None, 1], pl.Int64, None, "int8") == [False, False]


def rows(*pairs: "tuple[int, int | None]") -> pl.DataFrame:
    """Return rows of pairs of a transaction and a value."""
    return pl.DataFrame(pairs, schema={"_pg_xid": pl.Int64, "c": pl.Int64}, orient="row")


def counted(before, frame, end, poll=None, *, start=0, leaf=None, column=NUMBER, **options):
    """Return the watermark after a slice of the transactions up to ``end``."""
    after = replace(before, seq=before.seq + 1).with_leaves({9: leaf or Leaf(end)})
    highest = max(filter(None, [int(before.cursor or 0), *frame["c"].drop_nulls().to_list()]), default=None)
    after = replace(after, cursor=None if highest is None else str(highest))
    region = Region("public", "movie", True, (9,), start, end)
    options = {"moved": False, "same_day": True, **options}
    return late_rows.counted(before, after, frame, region, "_pg_xid", column, poll, **options)


FIRST = counted(mark(), rows((5, 10), (6, 20)), 100, start=None)


def test_rows_of_a_first_load_are_counted_and_none_is_late():
    assert FIRST.counts == RowCounts(2, 2, 0)


def test_updates_that_keep_the_value_nulls_and_lower_values_are_late():
    after = counted(FIRST, rows((101, 20), (101, None), (102, 19), (102, 21)), 110)
    assert after.counts == RowCounts(6, 6, 3)
    assert late_rows.late_between(FIRST, after) == 3


def test_a_row_is_late_if_a_higher_value_was_seen_while_its_transaction_was_open():
    """The horizon holds back what the imagined copy has seen, so both rows are of the same window."""
    poll = Poll(101, 104, (101,))
    blocked = counted(FIRST, rows((100, 21)), 101, poll)
    after = counted(blocked, rows((101, 22), (102, 30), (103, 25), (104, 26)), 110)
    # 101 was open, and 104 had not begun, when 102 and 103 were seen.
    assert after.counts.late == 2
    assert after.counts.polls == ()
    # Without the list of open transactions, as on a standby, nothing above the horizon was seen.
    unknown = counted(FIRST, rows((100, 21)), 101, Poll.of_snapshot(101, 104, (101,), standby=True))
    assert counted(unknown, rows((101, 22), (102, 30), (103, 25), (104, 26)), 110).counts.late == 0
    assert Poll.of_snapshot(5, 100, range(5, 6 + MAX_OPEN), standby=False) == Poll(5, 5)


def test_slices_of_one_window_are_not_compared_with_each_other():
    """The values of a table are not in the order of its blocks."""
    first = counted(FIRST, rows((101, 50)), 110, leaf=Leaf(100, Sweep(110, 5, 1)))
    second = counted(first, rows((102, 30), (103, 20)), 110, leaf=Leaf(100, Sweep(110, 9, 1)))
    after = counted(second, rows((104, 40)), 110)
    assert after.counts == RowCounts(6, 6, 1)
    assert counted(after, rows((111, 50)), 120).counts.late == 2


def test_a_sweep_compares_each_row_with_what_was_seen_before_its_transaction():
    """Fresh reads copy the newest rows of a large table in between, and the sweep finds the others much later."""
    state, value = FIRST, 20
    for end in range(110, 200, 10):
        value += 10
        state = counted(state, rows((end - 1, value)), end, leaf=Leaf(100, Sweep(end, 0, 1)))
    assert len(state.counts.polls) == late_rows.MAX_POLLS
    assert state.counts.polls[-1] == Poll(190, 190, highest="110")
    after = counted(state, rows((185, 100), (186, 101), (101, 20), (102, 21)), 190)
    assert after.counts.late == 2
    assert after.counts.polls == ()


def test_another_cursor_column_a_new_generation_and_an_older_history_are_compared_with_nothing():
    assert counted(FIRST, rows((101, 1)), 110, moved=True).counts == RowCounts(3, 3, 0)
    began = replace(mark(generation=1), seq=2)
    reset = late_rows.counted(FIRST, began, rows(), None, "_pg_xid", NUMBER, None, moved=False, same_day=True)
    assert reset.counts == RowCounts(0, 0, 0)
    assert late_rows.late_between(FIRST, reset) == 0
    capped = counted(FIRST, rows((101, 30)), 90, leaf=Leaf(90))  # ids are handed out again after a restore
    assert capped.counts.polls == ()


def test_totals_that_an_older_version_did_not_count_stay_unknown_and_late_rows_are_counted_from_now_on():
    """A total that leaves out objects would look like lost rows."""
    older = replace(FIRST, counts=None)
    today = counted(older, rows((101, 20), (102, 30)), 110)
    assert today.counts == RowCounts(None, None, 1)
    assert counted(today, rows((111, 40)), 120, same_day=False).counts == RowCounts(None, 1, 1)


def test_rows_of_a_table_without_a_cursor_column_are_counted_and_never_late():
    plain = counted(mark(), rows((5, 10)), 100, start=None, column=None)
    assert counted(plain, rows((101, 10)), 110, column=None, same_day=False).counts == RowCounts(2, 1, None)
