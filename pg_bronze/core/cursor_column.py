"""The cursor column: the column that shows how far a table has been copied, and its newest value.

Belongs here: choosing the column, finding its largest value in a frame, and printing that value as PostgreSQL does.
Does not belong here: deciding what is new. Transaction ids decide that; the cursor column is for people, for
``etl_control``, and for reading the fresh rows of a large table through an index.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from pg_bronze.core.table import Column, SourceTable
from pg_bronze.core.value_policies import DATE_INFINITY, TIMESTAMP_INFINITY
from pg_bronze.errors import SettingsError

if TYPE_CHECKING:
    import polars as pl


CursorKind = Literal["timestamp", "date", "number"]
DEFAULT_NAMES = ("created_at", "updated_at", "timestamp", "fecha", "date", "datetime")
_KINDS: dict[str, CursorKind] = {
    "timestamp": "timestamp",
    "timestamptz": "timestamp",
    "date": "date",
    **dict.fromkeys(("int2", "int4", "int8", "numeric", "float4", "float8"), "number"),
}


@dataclass(frozen=True)
class CursorColumn:
    """The column that shows the progress of a table.

    Attributes:
        name: The name of the column.
        attnum: The column number.
        kind: How its values are compared.
        base: The base type, which a literal is cast to in SQL: ``timestamptz``, ``int8``.
        reason: Why this column was chosen, as a sentence.
    """

    name: str
    attnum: int
    kind: CursorKind
    base: str
    reason: str


def choose(
    table: SourceTable, names: Sequence[str] = DEFAULT_NAMES, configured: str | None = None
) -> CursorColumn | None:
    """Choose the cursor column of a table.

    The configured column comes first, then a date or timestamp with one of ``names``, then a numeric primary key, then
    a number called ``id``.

    Returns:
        The column, or None if the table has no such column. Then its progress is not shown; the copy is not affected.

    Raises:
        SettingsError: The configured column does not exist, or its type has no order.
    """
    if configured is not None:
        return _configured(table, configured)
    # An exact name wins; otherwise case is ignored, because older tools create "CREATED_AT".
    by_name = {column.name.lower(): column for column in reversed(table.columns)} | {
        column.name: column for column in table.columns
    }
    for name in names:
        column = by_name.get(name) or by_name.get(name.lower())
        if column and _KINDS.get(column.ordered_as) in {"timestamp", "date"}:
            return _cursor(column, f"it is a {column.declared} called {column.name!r}, one of the usual names")
    if len(table.primary_key) == 1:
        column = next((column for column in table.columns if column.name == table.primary_key[0]), None)
        if column and _KINDS.get(column.ordered_as) == "number":
            return _cursor(column, f"it is the primary key, and a number ({column.declared})")
    column = by_name.get("id")
    if column and _KINDS.get(column.ordered_as) == "number":
        return _cursor(column, f"it is a number ({column.declared}) called {column.name!r}")
    return None


def _configured(table: SourceTable, name: str) -> CursorColumn:
    column = next((column for column in table.columns if column.name == name), None)
    if column and column.ordered_as in _KINDS:
        return _cursor(column, "it is configured")
    problem = _unusable(table, column, name)
    usable = ", ".join(f"{column.name} ({column.declared})" for column in table.columns if column.ordered_as in _KINDS)
    remedy = f"Set cursor_column to one of {usable}, or remove it" if usable else "Remove cursor_column"
    raise SettingsError(f"{table.label}: the cursor column {name!r} {problem}. {remedy}.")


def _unusable(table: SourceTable, column: Column | None, name: str) -> str:
    """Return why a configured column cannot be the cursor column, as a predicate."""
    if column is None:
        if any(name == excluded for _, excluded in table.excluded):
            return "is excluded, and the values of the cursor column are stored"
        return f"does not exist (columns: {', '.join(column.name for column in table.columns)})"
    if column.mask:
        return "is masked, and the values of the cursor column are stored"
    return f"is {column.declared}, which is not a date, a timestamp or a number"


def _cursor(column: Column, reason: str) -> CursorColumn:
    return CursorColumn(column.name, column.attnum, _KINDS[column.base], column.base, reason)


def newest_value(frame: "pl.DataFrame", cursor: CursorColumn) -> str | None:
    """Return the largest finite value of the cursor column, as PostgreSQL prints it in UTC; None if there is none."""
    import polars as pl

    values = frame[cursor.name].drop_nulls()
    if isinstance(values.dtype, pl.Date | pl.Datetime):
        return _newest_time(values)
    if values.dtype == pl.String and cursor.kind != "number":
        finite = values.filter(~values.is_in(["infinity", "-infinity"])).unique().to_list()
        return max(finite, key=time_key, default=None)
    if values.dtype == pl.String:
        return _newest_number(values)
    if values.dtype.is_float():
        return _newest_float(values)
    top = values.max()
    # str() prints small decimals with an exponent, which PostgreSQL does not.
    return f"{top:f}" if isinstance(top, Decimal) else None if top is None else str(top)


def _newest_time(values: "pl.Series") -> str | None:
    import polars as pl

    ends = DATE_INFINITY if isinstance(values.dtype, pl.Date) else TIMESTAMP_INFINITY
    counts = values.to_physical()
    top = counts.filter(~counts.is_in(list(ends))).max()
    return None if top is None else _time_text(int(str(top)), values.dtype)


def _newest_number(values: "pl.Series") -> str | None:
    """Return the largest of numbers that were read as text."""
    import polars as pl

    values = values.filter(~values.is_in(["NaN", "Infinity", "-Infinity"]))
    # Rounding to float64 keeps the order, so the largest is among the values that round to the largest float.
    rounded = values.cast(pl.Float64)
    candidates = values.filter(rounded.eq_missing(rounded.max())).unique().to_list()
    return max(candidates, key=Decimal, default=None)


def _newest_float(values: "pl.Series") -> str | None:
    import polars as pl

    top = values.filter(values.is_finite()).sort(descending=True).head(1)
    shortest = top.cast(pl.String).to_list()
    return _float_text(shortest[0], exponent_from=6 if values.dtype == pl.Float32 else 15) if shortest else None


def later_value(a: str | None, b: str | None, cursor: CursorColumn) -> str | None:
    """Return the later of two results of ``newest_value``; None is earlier than any value."""
    if a is None or b is None:
        return b if a is None else a
    return max(a, b, key=Decimal if cursor.kind == "number" else time_key)


_TIME = re.compile(r"(\d+)-(\d\d)-(\d\d)(?: (\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?)?(?:\+00)?( BC)?")


def time_key(text: str) -> tuple[int, ...]:
    """Return a key that sorts dates and timestamps by time; Python's datetime ends at the year 9999."""
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError("a cursor value is not a date or timestamp as PostgreSQL prints it in UTC")
    year, month, day, hour, minute, second, fraction, bc = found.groups(default="")
    return (
        1 - int(year) if bc else int(year),
        *(int(part or 0) for part in (month, day, hour, minute, second)),
        int(fraction.ljust(6, "0")),
    )


def _time_text(count: int, dtype: "pl.DataType") -> str:
    """Print days (of a date) or microseconds (of a timestamp) since 1970 as PostgreSQL does."""
    import polars as pl

    if isinstance(dtype, pl.Date):
        date, bc = _date_text(count)
        return date + bc
    days, rest = divmod(count, 86_400_000_000)
    seconds, fraction = divmod(rest, 1_000_000)
    date, bc = _date_text(days)
    clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    decimals = f".{fraction:06}".rstrip("0") if fraction else ""
    zone = "+00" if isinstance(dtype, pl.Datetime) and dtype.time_zone else ""
    return f"{date} {clock}{decimals}{zone}{bc}"


def _date_text(days: int) -> tuple[str, str]:
    """Print a day of the proleptic Gregorian calendar, counted from 1970-01-01, and " BC" if it is before year 1.

    The arithmetic counts in eras of 400 years that start in March, so that a leap day is the last day of its year.
    """
    era, day_of_era = divmod(days + 719_468, 146_097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month_from_march + 2) // 5 + 1
    month = month_from_march + 3 if month_from_march < 10 else month_from_march - 9
    year = era * 400 + year_of_era + (month <= 2)
    return (f"{year:04}-{month:02}-{day:02}", "") if year > 0 else (f"{1 - year:04}-{month:02}-{day:02}", " BC")


def _float_text(shortest: str, *, exponent_from: int) -> str:
    """Print the shortest digits of a float as PostgreSQL does: with an exponent below -4 and from ``exponent_from``."""
    sign, figures, exponent = Decimal(shortest).normalize().as_tuple()
    minus = "-" if sign else ""
    if figures == (0,):
        return f"{minus}0"
    digits = "".join(map(str, figures))
    power = len(digits) - 1 + int(exponent)
    if -4 <= power < exponent_from:
        return f"{minus}{Decimal(digits).scaleb(int(exponent)):f}"
    return f"{minus}{digits[0]}{'.' + digits[1:] if len(digits) > 1 else ''}e{power:+03}"
