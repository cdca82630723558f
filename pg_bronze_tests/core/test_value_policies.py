import dataclasses

import polars as pl
import pytest

from pg_bronze.core.column_types import conform
from pg_bronze.core.cursor_column import CursorColumn, newest_value
from pg_bronze.core.table import Column
from pg_bronze.core.value_policies import (
    DATE_INFINITY,
    DEFAULT_POLICIES,
    SCALED_NAN,
    TIMESTAMP_INFINITY,
    ExceptionalCount,
    Policies,
    count_by_column,
)
from pg_bronze.errors import DataError

PRICE = Column(1, "price", "numeric(10,2)", "numeric", (10 << 16 | 2) + 4, not_null=False)
LONG_PRICE = Column(1, "price", "numeric(20,2)", "numeric", (20 << 16 | 2) + 4, not_null=False)
BORN = Column(2, "born", "date", "date", -1, not_null=False)
SEEN = Column(3, "seen", "timestamp with time zone", "timestamptz", -1, not_null=False)
# As the query sends them: days, the marker of a late date, both infinities, NULL.
DAYS = [19782, DATE_INFINITY[1] - 1, *DATE_INFINITY, None]
MOMENTS = [1_709_210_096_789_012, TIMESTAMP_INFINITY[1] - 1, *TIMESTAMP_INFINITY, None]


def with_policy(column, **policies):
    return dataclasses.replace(column, policies=Policies(**policies))


def dates(values, column=BORN):
    dtype = pl.Date() if column.base == "date" else pl.Datetime("us", "UTC")
    return pl.DataFrame({column.name: pl.Series(values).cast(dtype)})


def counts(found):
    return {(item.kind, item.policy): item.row_count for item in found}


@pytest.mark.parametrize("column, values", [(BORN, DAYS), (SEEN, MOMENTS)])
class TestDates:
    def test_infinity_is_stored_where_it_sorts_and_is_counted(self, column, values):
        kept = [value for value in values if value != values[1]]
        frame, found = conform(dates(kept, column), [column], "movie")
        assert frame[column.name].to_physical().to_list() == kept
        assert found == (ExceptionalCount(column.name, "infinity", "sentinel", 2),)

    def test_the_policy_null_does_not_change_ordinary_values(self, column, values):
        wanted = with_policy(column, infinity="null", late_dates="null")
        frame, found = conform(dates(values, column), [wanted], "movie")
        assert frame[column.name].to_physical().to_list() == [values[0], None, None, None, None]
        assert frame.schema == dates([], column).schema
        assert counts(found) == {("infinity", "null"): 2, ("late_dates", "null"): 1}

    @pytest.mark.parametrize("kind, words", [("infinity", "±infinity, in 2 rows"), ("late_dates", "in 1 row")])
    def test_an_error_names_table_column_and_setting(self, column, values, kind, words):
        wanted = with_policy(column, **{"infinity": "null", "late_dates": "null", kind: "error"})
        with pytest.raises(DataError) as error:
            conform(dates(values, column), [wanted], 'sales."a.b"')
        assert str(error.value).startswith(f"sales.\"a.b\": column '{column.name}' ({column.declared}) contains ")
        assert words in str(error.value)
        assert f'PG_BRONZE_TABLES=\'{{"sales.\\"a.b\\"": {{"{kind}": "text"}}}}\'' in str(error.value)
        assert "262142-12-31" not in str(error.value)


TEXTS = ["2024-02-29", "infinity", "-infinity", "262142-12-29", "262142-12-30", "5874897-12-31", "4713-01-01 BC", None]


@pytest.mark.parametrize(
    "policies, stored, found",
    [
        ({"infinity": "text"}, [], {("infinity", "text"): 2, ("late_dates", "error"): 2}),
        ({"late_dates": "text"}, TEXTS, {("infinity", "text"): 2, ("late_dates", "text"): 2}),
        (
            {"infinity": "null", "late_dates": "text"},
            [text if text and "inf" not in text else None for text in TEXTS],
            {("infinity", "null"): 2, ("late_dates", "text"): 2},
        ),
        (
            {"infinity": "text", "late_dates": "null"},
            [text if text not in TEXTS[4:6] else None for text in TEXTS],
            {("infinity", "text"): 2, ("late_dates", "null"): 2},
        ),
    ],
)
def test_each_kind_keeps_its_own_policy_in_a_column_stored_as_text(policies, stored, found):
    """Text can contain both kinds, but the policies error and null still apply."""
    frame, column = pl.DataFrame({"born": TEXTS}), with_policy(BORN, **policies)
    if not stored:
        with pytest.raises(DataError, match="PG_BRONZE_LATE_DATES"):
            conform(frame, [column], "movie")
        return
    frame, counted = conform(frame, [column], "movie")
    assert frame["born"].to_list() == stored
    assert counts(counted) == found


@pytest.mark.parametrize(
    "price, read",
    [(PRICE, [150, SCALED_NAN, None]), (LONG_PRICE, ["1.50", "NaN", None])],
    ids=["whole numbers", "text"],
)
def test_nan_is_an_error_null_or_text(price, read):
    frame = pl.DataFrame({"price": read})
    with pytest.raises(DataError, match=r"movie: column 'price' \(numeric\(.0,2\)\) contains NaN.* PG_BRONZE_NAN "):
        conform(frame, [price], "movie")
    done, found = conform(frame, [with_policy(price, nan="null")], "movie")
    assert done["price"].cast(pl.String).to_list() == ["1.50", None, None]
    assert found == (ExceptionalCount("price", "nan", "null", 1),)
    frame = pl.DataFrame({"price": ["1.50", "NaN", None]})
    done, found = conform(frame, [with_policy(price, nan="text")], "movie")
    assert done["price"].to_list() == ["1.50", "NaN", None]
    assert found == (ExceptionalCount("price", "nan", "text", 1),)


def test_ordinary_values_are_not_counted():
    frame = pl.DataFrame({"price": [150], "born": pl.Series([0]).cast(pl.Date())})
    assert conform(frame, [PRICE, BORN], "movie")[1] == ()


def test_the_defaults_lose_nothing():
    assert "null" not in DEFAULT_POLICIES


def test_counts_of_several_slices_add_up():
    slices = [
        ExceptionalCount("a", "nan", "null", 1),
        ExceptionalCount("b", "infinity", "text", 2),
        ExceptionalCount("a", "nan", "null", 3),
    ]
    assert count_by_column(slices) == {"a": {"nan as null": 4}, "b": {"infinity as text": 2}}
    assert count_by_column([]) == {}


@pytest.mark.parametrize(
    "texts, printed",
    [
        (["2024-02-29 12:00:00+00", "infinity", "9999-12-31 23:59:59.5+00", "10000-01-01 00:00:00+00", None], 3),
        (["0044-03-15 12:00:00+00 BC", "-infinity", "4713-01-01 00:00:00+00 BC"], 0),
        (["infinity", None], None),
    ],
)
def test_times_stored_as_text_are_compared_as_times(texts, printed):
    """As text, the year 10000 sorts before 9999."""
    cursor = CursorColumn("seen", 3, "timestamp", "timestamptz", "")
    assert newest_value(pl.DataFrame({"seen": texts}), cursor) == (None if printed is None else texts[printed])
