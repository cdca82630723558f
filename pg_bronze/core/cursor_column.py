"""The cursor column: which column shows how far a table has been copied, and its newest value as PostgreSQL prints it.

Correctness never rests on it (transaction ids decide what is new): it is for people, for ``etl_control`` and for
reading a large table's fresh rows through an index. No connection, no clock, no Dagster.
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


Kind = Literal["timestamp", "date", "number"]
NAMES = ("created_at", "updated_at", "timestamp", "fecha", "date", "datetime")
_KINDS: dict[str, Kind] = {
    "timestamp": "timestamp",
    "timestamptz": "timestamp",
    "date": "date",
    **dict.fromkeys(("int2", "int4", "int8", "numeric", "float4", "float8"), "number"),
}


@dataclass(frozen=True)
class CursorColumn:
    """The column that shows a table's progress, and the sentence that says why it is this one."""

    name: str
    attnum: int
    kind: Kind
    base: str  # the type to cast a literal to in SQL: "timestamptz", "int8"
    chosen: str

    @property
    def can_be_infinite(self) -> bool:
        """Say whether SQL must ask ``isfinite``: max() of a date or timestamp would otherwise stay at infinity."""
        return self.kind != "number"


def choose(table: SourceTable, names: Sequence[str] = NAMES, wanted: str | None = None) -> CursorColumn | None:
    """Choose the cursor column of a table: the wanted one, or a time by name, a numeric key, a number called id.

    None means that the table has no such column, which only costs the display of its progress. SettingsError
    means that ``wanted`` names no column, or one that has no order to follow.
    """
    if wanted is not None:
        return _wanted(table, wanted)
    # Case is ignored where an exact match is not there: "CREATED_AT" is what older tools create.
    by_name = {column.name.lower(): column for column in reversed(table.columns)} | {
        column.name: column for column in table.columns
    }
    for name in names:
        found = by_name.get(name) or by_name.get(name.lower())
        if found and _KINDS.get(found.base) in {"timestamp", "date"}:
            return _cursor(found, f"it is a {found.declared} called {found.name!r}, one of the usual names")
    if len(table.primary_key) == 1:
        key = next(column for column in table.columns if column.name == table.primary_key[0])
        if _KINDS.get(key.base) == "number":
            return _cursor(key, f"it is the primary key, and a number ({key.declared})")
    column = by_name.get("id")
    if column and _KINDS.get(column.base) == "number":
        return _cursor(column, f"it is a number ({column.declared}) called {column.name!r}")
    return None


def _wanted(table: SourceTable, wanted: str) -> CursorColumn:
    found = next((column for column in table.columns if column.name == wanted), None)
    if found and found.base in _KINDS:
        return _cursor(found, "the settings name it")
    usable = ", ".join(f"{column.name} ({column.declared})" for column in table.columns if column.base in _KINDS)
    problem = (
        f"is {found.declared}, which is neither a date, a timestamp nor a number"
        if found
        else f"does not exist (columns: {', '.join(column.name for column in table.columns)})"
    )
    raise SettingsError(
        f"{table.label}: the cursor column {wanted!r} {problem}. "
        f"Name one of these: {usable or 'none of its columns can serve'}; or leave cursor_column out."
    )


def _cursor(column: Column, chosen: str) -> CursorColumn:
    return CursorColumn(column.name, column.attnum, _KINDS[column.base], column.base, chosen)


def newest(frame: "pl.DataFrame", cursor: CursorColumn) -> str | None:
    """Give the largest finite value of the cursor column as PostgreSQL prints it in UTC; None if there is none."""
    import polars as pl

    values = frame[cursor.name].drop_nulls()
    if isinstance(values.dtype, pl.Date | pl.Datetime):
        ends = DATE_INFINITY if isinstance(values.dtype, pl.Date) else TIMESTAMP_INFINITY
        counts = values.to_physical()
        top = counts.filter(~counts.is_in(list(ends))).max()
        return None if top is None else _moment(int(str(top)), values.dtype)
    if values.dtype == pl.String and cursor.kind != "number":
        moments = values.filter(~values.is_in(["infinity", "-infinity"])).unique().to_list()
        return max(moments, key=_instant, default=None)
    if values.dtype == pl.String:
        return _newest_number(values)
    if values.dtype.is_float():
        values = values.filter(values.is_finite()).sort(descending=True).head(1)
        shortest = values.cast(pl.String).to_list()
        return _float(shortest[0], exponent_from=6 if values.dtype == pl.Float32 else 15) if shortest else None
    top = values.max()
    # str() would print small decimals with an exponent, which PostgreSQL never does.
    return f"{top:f}" if isinstance(top, Decimal) else None if top is None else str(top)


def _newest_number(values: "pl.Series") -> str | None:
    """Find the largest numeric without precision, which arrives as text."""
    import polars as pl

    values = values.filter(~values.is_in(["NaN", "Infinity", "-Infinity"]))
    # Rounding to float64 keeps the order, so the largest is among those that round to the largest float.
    rounded = values.cast(pl.Float64)
    candidates = values.filter(rounded.eq_missing(rounded.max())).unique().to_list()
    return max(candidates, key=Decimal, default=None)


def later(a: str | None, b: str | None, cursor: CursorColumn) -> str | None:
    """Give the later of two values that ``newest`` gave; None counts as earlier than any."""
    if a is None or b is None:
        return b if a is None else a
    return max(a, b, key=Decimal if cursor.kind == "number" else _instant)


_MOMENT = re.compile(r"(\d+)-(\d\d)-(\d\d)(?: (\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?)?(?:\+00)?( BC)?")


def _instant(text: str) -> tuple[int, ...]:
    found = _MOMENT.fullmatch(text)
    if found is None:
        raise ValueError("a cursor value is not a date or timestamp as PostgreSQL prints it in UTC")
    year, month, day, hour, minute, second, fraction, bc = found.groups(default="")
    return (
        1 - int(year) if bc else int(year),
        *(int(part or 0) for part in (month, day, hour, minute, second)),
        int(fraction.ljust(6, "0")),
    )


def _moment(count: int, dtype: "pl.DataType") -> str:
    """Print days (a date) or microseconds (a timestamp) since 1970 as PostgreSQL does; datetime ends at year 9999."""
    import polars as pl

    if isinstance(dtype, pl.Date):
        date, bc = _date(count)
        return date + bc
    days, rest = divmod(count, 86_400_000_000)
    seconds, fraction = divmod(rest, 1_000_000)
    date, bc = _date(days)
    clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    decimals = f".{fraction:06}".rstrip("0") if fraction else ""
    zone = "+00" if isinstance(dtype, pl.Datetime) and dtype.time_zone else ""
    return f"{date} {clock}{decimals}{zone}{bc}"


def _date(days: int) -> tuple[str, str]:
    """Print a day of the proleptic Gregorian calendar, counted from 1970-01-01, and " BC" if it is before year 1.

    The arithmetic counts in eras of 400 years that begin in March, so that a leap day ends its year.
    """
    era, day_of_era = divmod(days + 719_468, 146_097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month_from_march + 2) // 5 + 1
    month = month_from_march + 3 if month_from_march < 10 else month_from_march - 9
    year = era * 400 + year_of_era + (month <= 2)
    return (f"{year:04}-{month:02}-{day:02}", "") if year > 0 else (f"{1 - year:04}-{month:02}-{day:02}", " BC")


def _float(shortest: str, *, exponent_from: int) -> str:
    """Lay the shortest digits of a float out as PostgreSQL does: an exponent below -4 and from ``exponent_from`` on."""
    sign, figures, exponent = Decimal(shortest).normalize().as_tuple()
    minus = "-" if sign else ""
    if figures == (0,):
        return f"{minus}0"
    digits = "".join(map(str, figures))
    power = len(digits) - 1 + int(exponent)
    if -4 <= power < exponent_from:
        return f"{minus}{Decimal(digits).scaleb(int(exponent)):f}"
    return f"{minus}{digits[0]}{'.' + digits[1:] if len(digits) > 1 else ''}e{power:+03}"
