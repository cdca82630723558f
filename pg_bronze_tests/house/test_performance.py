"""The comparison with peers: its page, and what its comparison of values finds."""

from datetime import UTC, date, datetime
from decimal import Decimal

import duckdb
import polars as pl
import pytest

from benchmarks.peers import judge, page

KINDS = {"id": "integer", "price": "numeric", "ratio": "float", "day": "date", "at": "instant", "note": "json"}
SOURCE = {
    "id": ["1", "2"],
    "price": ["1.5", None],
    "ratio": ["0.5", "nan"],
    "day": ["20454", None],
    "at": ["1767225600000001", None],
    "note": ['{"a": 1}', None],
}
COPIED = {
    "id": [1, 2],
    "price": [Decimal("1.50"), None],
    "ratio": [0.5, float("nan")],
    "day": [date(2026, 1, 1), None],
    "at": [datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC), None],
    "note": ['{"a":1}', None],
}


@pytest.fixture
def compare(tmp_path):
    """Compare rows that a tool wrote with the source."""

    def compare(**changed):
        with duckdb.connect() as connection:
            pl.DataFrame(SOURCE).write_parquet(tmp_path / "source.parquet")
            connection.execute(f"create table source as from '{tmp_path}/source.parquet'")
            pl.DataFrame(COPIED | changed, strict=False).write_parquet(tmp_path / "rows.parquet")
            return judge.compare(connection, KINDS, [tmp_path / "rows.parquet"])

    return compare


def test_the_page_and_its_plots_are_those_of_the_stored_result():
    """Otherwise the page would show figures that nobody measured. To mend: python -m benchmarks.peers.page"""
    result = page.stored()

    assert page.PAGE.read_text(encoding="utf-8") == page.text(result)
    for name, content in page.plots(result).items():
        assert (page.FOLDER / name).read_text(encoding="utf-8") == content


def test_equal_rows_are_exact(compare):
    assert compare().exact


@pytest.mark.parametrize(
    "name, values",
    [
        ("price", [Decimal("1.51"), None]),
        ("price", [Decimal("1.50"), Decimal("0.00")]),
        ("ratio", [0.5, None]),
        ("day", [date(2026, 1, 2), None]),
        ("at", [datetime(2026, 1, 1, tzinfo=UTC), None]),
        ("note", ['{"a": 1.0000000001}', None]),
    ],
)
def test_a_wrong_value_is_found(compare, name, values):
    assert compare(**{name: values}).wrong == {name: 1}


def test_a_lost_and_a_doubled_row_are_found(compare):
    verdict = compare(id=[1, 1])

    assert (verdict.lost, verdict.doubled) == (1, 1)


def test_a_decimal_that_is_stored_as_text_is_exact_and_named(compare):
    verdict = compare(price=["1.50", None])

    assert verdict.exact
    assert verdict.retyped == ("price: VARCHAR",)
