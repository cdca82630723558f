"""Key ranges: every key is compared within as many days as a table has parts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pg_bronze.core import key_ranges
from pg_bronze.core.key_ranges import KeyRange
from pg_bronze.core.table import Column, SourceTable
from pg_bronze.settings.choices import Mask


def holds(keys: KeyRange, value: int) -> bool:
    above = keys.lower is None or value >= int(keys.lower.text)
    return above and (keys.upper is None or value < int(keys.upper.text))


def histogram(row_count: int, buckets: int = 100) -> list[str]:
    return [str(row_count * number // buckets) for number in range(buckets + 1)]


@given(st.integers(1, 300), st.integers(-10, 1010))
def test_the_parts_have_every_key_also_those_outside_the_histogram(wanted: int, value: int) -> None:
    bounds = histogram(1000)
    count = key_ranges.part_count(wanted, 1, bounds)
    assert any(holds(key_ranges.part(bounds, count, number), value) for number in range(count))


@pytest.mark.parametrize("count", [1, 2, 13, 40, 60, 100])
def test_no_key_escapes_a_round_while_the_table_grows_and_the_bounds_move(count: int) -> None:
    """Compared from the lowest part on, a key could move each day into a part that was compared the day before."""
    bounds = [histogram(1_000_000 + day * 50_000) for day in range(count)]
    parts = [key_ranges.part(bounds[day], count, key_ranges.number_on(day, count)) for day in range(count)]
    assert all(any(holds(keys, value) for keys in parts) for value in range(0, 1_000_000, 9973))


def test_a_part_is_within_the_budget_and_has_at_least_one_bucket() -> None:
    assert key_ranges.part_count(1000, 256, histogram(10)) == 4
    assert key_ranges.part_count(10**12, 256, histogram(10)) == 100


def keyed(base: str, collation: str | None = None, mask: Mask | None = None, key: tuple[str, ...] = ("id",)):
    column = Column(1, "id", base, base, -1, True, collation=collation, mask=mask)
    return SourceTable(1, "public", "t", False, None, (column,), key, (), 0.0, None, "")


@pytest.mark.parametrize(
    "table, locale, reason",
    [
        (keyed("int8"), "de_DE.UTF-8", None),
        (keyed("uuid"), "de_DE.UTF-8", None),
        (keyed("text"), "C", None),
        (keyed("text", "pg_catalog.C"), "de_DE.UTF-8", None),
        (keyed("text"), "de_DE.UTF-8", "is ordered by the database alone"),
        (keyed("numeric"), "C", "is ordered by the database alone"),
        (keyed("int8", mask=Mask("sha256")), "C", "is masked"),
        (keyed("int8", key=()), "C", "it has no primary key"),
    ],
)
def test_only_keys_that_both_sides_order_alike_are_divided(table, locale, reason) -> None:
    """With another order in the lake, keys would look missing that are in another range there."""
    found = key_ranges.no_ranges(table, locale)
    assert found is None if reason is None else (found or "").endswith(reason)
