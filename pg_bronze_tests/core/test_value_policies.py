import dataclasses

import polars as pl
import pytest

from pg_bronze.core.column_types import conform
from pg_bronze.core.cursor_column import CursorColumn, newest
from pg_bronze.core.table import Column
from pg_bronze.core.value_policies import DATE_INFINITY, LOSSLESS, TIMESTAMP_INFINITY, Exceptional, Policies, totals
from pg_bronze.errors import DataError

PRICE = Column(1, "price", "numeric(10,2)", "numeric", (10 << 16 | 2) + 4, not_null=False)
BORN = Column(2, "born", "date", "date", -1, not_null=False)
SEEN = Column(3, "seen", "timestamp with time zone", "timestamptz", -1, not_null=False)
# As the query sends them: days, the marker of a late date, both infinities, NULL.
DAYS = [19782, DATE_INFINITY[1] - 1, *DATE_INFINITY, None]
MOMENTS = [1_709_210_096_789_012, TIMESTAMP_INFINITY[1] - 1, *TIMESTAMP_INFINITY, None]


def under(column, **policies):
    return dataclasses.replace(column, policies=Policies(**policies))


def dates(values, column=BORN):
    dtype = pl.Date() if column.base == "date" else pl.Datetime("us", "UTC")
    return pl.DataFrame({column.name: pl.Series(values).cast(dtype)})


def counts(found):
    return {(item.kind, item.policy): item.row_count for item in found}


@pytest.mark.parametrize("column, values", [(BORN, DAYS), (SEEN, MOMENTS)])
class TestDates:
    def test_infinity_stays_where_it_sorts_and_is_counted(self, column, values):
        kept = [value for value in values if value != values[1]]
        frame, found = conform(dates(kept, column), [column], "movie")
        assert frame[column.name].to_physical().to_list() == kept
        assert found == (Exceptional(column.name, "infinity", "sentinel", 2),)

    def test_null_leaves_ordinary_values_alone(self, column, values):
        wanted = under(column, infinity="null", late_dates="null")
        frame, found = conform(dates(values, column), [wanted], "movie")
        assert frame[column.name].to_physical().to_list() == [values[0], None, None, None, None]
        assert frame.schema == dates([], column).schema
        assert counts(found) == {("infinity", "null"): 2, ("late_dates", "null"): 1}

    @pytest.mark.parametrize("kind, said", [("infinity", "±infinity, in 2 rows"), ("late_dates", "in one row")])
    def test_an_error_names_table_column_and_setting(self, column, values, kind, said):
        wanted = under(column, **{"infinity": "null", "late_dates": "null", kind: "error"})
        with pytest.raises(DataError) as error:
            conform(dates(values, column), [wanted], 'sales."a.b"')
        assert str(error.value).startswith(f"sales.\"a.b\": column '{column.name}' ({column.declared}) holds ")
        assert said in str(error.value)
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
    """Text could hold both kinds; an operator who asked for an error or NULL must get it all the same."""
    frame, column = pl.DataFrame({"born": TEXTS}), under(BORN, **policies)
    if not stored:
        with pytest.raises(DataError, match="PG_BRONZE_LATE_DATES"):
            conform(frame, [column], "movie")
        return
    done, counted = conform(frame, [column], "movie")
    assert done["born"].to_list() == stored
    assert counts(counted) == found


def test_nan_stops_becomes_null_or_stays_text():
    frame = pl.DataFrame({"price": ["1.50", "NaN", None]})
    with pytest.raises(DataError, match=r"movie: column 'price' \(numeric\(10,2\)\) holds NaN.* PG_BRONZE_NAN "):
        conform(frame, [PRICE], "movie")
    done, found = conform(frame, [under(PRICE, nan="null")], "movie")
    assert done["price"].cast(pl.String).to_list() == ["1.50", None, None]
    assert found == (Exceptional("price", "nan", "null", 1),)
    done, found = conform(frame, [under(PRICE, nan="text")], "movie")
    assert done["price"].to_list() == ["1.50", "NaN", None]
    assert found == (Exceptional("price", "nan", "text", 1),)


def test_nothing_is_counted_where_nothing_was_found():
    frame = pl.DataFrame({"price": ["1.50"], "born": pl.Series([0]).cast(pl.Date())})
    assert conform(frame, [PRICE, BORN], "movie")[1] == ()


def test_the_defaults_lose_nothing():
    assert "null" not in LOSSLESS


def test_counts_of_several_slices_add_up():
    slices = [
        Exceptional("a", "nan", "null", 1),
        Exceptional("b", "infinity", "text", 2),
        Exceptional("a", "nan", "null", 3),
    ]
    assert totals(slices) == {"a": {"nan as null": 4}, "b": {"infinity as text": 2}}
    assert totals([]) == {}


@pytest.mark.parametrize(
    "texts, printed",
    [
        (["2024-02-29 12:00:00+00", "infinity", "9999-12-31 23:59:59.5+00", "10000-01-01 00:00:00+00", None], 3),
        (["0044-03-15 12:00:00+00 BC", "-infinity", "4713-01-01 00:00:00+00 BC"], 0),
        (["infinity", None], None),
    ],
)
def test_the_newest_of_a_time_stored_as_text_goes_by_time(texts, printed):
    """As text, the year 10000 sorts before 9999."""
    cursor = CursorColumn("seen", 3, "timestamp", "timestamptz", "")
    assert newest(pl.DataFrame({"seen": texts}), cursor) == (None if printed is None else texts[printed])
