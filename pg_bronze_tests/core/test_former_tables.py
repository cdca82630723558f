"""Former tables: a table that is not copied any more is named with the reason, for as long as that helps."""

from dataclasses import replace

import pytest

from pg_bronze.core.former_tables import FormerTable, find, unexpired
from pg_bronze.core.table import SourceTable

AT = 1_780_000_000.0
ORDERS = SourceTable(16400, "public", "orders", False, None, (), (), (), 0.0, None, "")
OTHER = replace(ORDERS, oid=16500, name="other")


def found(before: list[SourceTable], now: list[SourceTable], known: list[FormerTable] | None = None) -> FormerTable:
    skipped = {table.label: table.skipped for table in now if table.skipped}
    (item,) = find(before, known or [], {table.label: table for table in now}, skipped, AT)
    return item


def test_a_table_that_is_still_copied_is_no_former_table() -> None:
    assert find([ORDERS], [], {"orders": ORDERS}, {}, AT) == []


def test_a_revoked_table_keeps_its_reason_and_does_not_expire() -> None:
    revoked = replace(ORDERS, skipped="grant select on orders to reader")
    item = found([ORDERS], [revoked])
    assert "grant select on orders to reader" in item.reason
    assert "pg-bronze forget orders" in item.reason
    assert unexpired([item], AT + 1e9, keep_s=60) == [item]


@pytest.mark.parametrize(
    "now, words",
    [([replace(ORDERS, name="orders_v2")], "renamed to orders_v2"), ([OTHER], "was dropped"), ([], "was dropped")],
)
def test_a_renamed_or_dropped_table_is_named_for_a_time(now: list[SourceTable], words: str) -> None:
    item = found([ORDERS], now)
    assert words in item.reason
    assert unexpired([item], AT + 59, keep_s=60) == [item]
    assert unexpired([item], AT + 60, keep_s=60) == []


def test_the_time_begins_when_it_was_noticed_and_not_with_each_reading() -> None:
    first = found([ORDERS], [])
    (again,) = find([], [first], {}, {}, AT + 3600)
    assert again == first


def test_a_table_that_is_copied_again_is_no_former_table() -> None:
    assert find([], [found([ORDERS], [])], {"orders": ORDERS}, {}, AT + 60) == []


def test_a_table_that_was_skipped_before_is_no_former_table() -> None:
    """The caller passes copied tables alone: a view that never was an asset must not fail."""
    assert find([], [], {"orders": replace(ORDERS, skipped="a view")}, {"orders": "a view"}, AT) == []


def test_a_name_that_a_shell_would_split_is_quoted() -> None:
    assert "pg-bronze forget 'my orders'" in found([replace(ORDERS, name="my orders")], []).reason
