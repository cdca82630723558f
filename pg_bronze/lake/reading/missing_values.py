"""Missing values: the default of an added column in rows that were copied before it, from PostgreSQL's text of it.

No connection, no clock, no Dagster; Polars only for types and values.
"""

import re
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING

from pg_bronze.core.table import Column
from pg_bronze.core.value_policies import DATE_INFINITY, FIRST_LATE_VALUE, TIMESTAMP_INFINITY
from pg_bronze.errors import DataError

if TYPE_CHECKING:
    import polars as pl

# As PostgreSQL prints a date or a timestamp in UTC. Python's own types end at the years 1 and 9999.
_TIME = re.compile(r"(\d{4,})-(\d\d)-(\d\d)(?: (\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?(?:\+00)?)?( BC)?")
_EPOCH = date(1970, 1, 1)
_DAYS_IN_400_YEARS = 146097
_DAY_US = 86_400_000_000


def stored_as_null(column: Column) -> bool:
    """Return whether a policy stores the missing value as NULL, in rows from before the column too."""
    text, policies = column.missing, column.policies
    if text == "NaN":
        return policies.nan == "null"
    if text in {"infinity", "-infinity"}:
        return policies.infinity == "null"
    is_late = column.base in FIRST_LATE_VALUE and text is not None and _is_late(text, column.base == "date")
    return is_late and policies.late_dates == "null"


def expression(name: str, text: str | None, dtype: "pl.DataType") -> "pl.Expr":
    """Return the missing value of a column as a value of a type.

    Args:
        name: The column, for the message.
        text: PostgreSQL's text of the value (UTC, ISO); None for NULL.

    Raises:
        DataError: The type cannot represent the value.
    """
    import polars as pl

    if text is None:
        return pl.lit(None, dtype=dtype)
    try:
        if isinstance(dtype, pl.Date | pl.Datetime):
            is_date = isinstance(dtype, pl.Date)
            return pl.lit(_time(text, is_date), dtype=pl.Int32() if is_date else pl.Int64()).cast(dtype)
        return pl.lit(_parsed(text, dtype)).cast(dtype)
    except ValueError as error:
        raise DataError(
            f"column {name!r} was added with a default that cannot be converted to {dtype}. Read it as text, as "
            f'in scan(…, cast={{"{name}": pl.String}}), or read only objects written since then (days=).'
        ) from error


def _parsed(text: str, dtype: "pl.DataType") -> bool | bytes | int | float | str:
    import polars as pl

    if isinstance(dtype, pl.Boolean):
        return text in {"true", "t"}
    if isinstance(dtype, pl.Binary):
        return bytes.fromhex(text.removeprefix("\\x"))
    if isinstance(dtype, pl.Decimal) and not Decimal(text).is_finite():
        raise ValueError("not a Parquet decimal")
    if dtype.is_integer():
        return int(text)
    return float(text) if dtype.is_float() else text


def _time(text: str, is_date: bool) -> int:
    """Return a date as days, or a timestamp as microseconds since 1970; infinity is the sentinel.

    Raises:
        ValueError: It is beyond the last value that is stored.
    """
    if text in {"infinity", "-infinity"}:
        return (DATE_INFINITY if is_date else TIMESTAMP_INFINITY)[text == "infinity"]
    if _is_late(text, is_date):
        raise ValueError("beyond the last date that is stored")
    return _since_epoch(text, is_date)


def _is_late(text: str, is_date: bool) -> bool:
    return _since_epoch(text, is_date) >= (DATE_INFINITY if is_date else TIMESTAMP_INFINITY)[1] - 1


def _since_epoch(text: str, is_date: bool) -> int:
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError("not a date or a timestamp")
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
    # The year before 1 is 1 BC. The calendar repeats every 400 years.
    cycles, year_of_cycle = divmod((1 - year if found[8] else year) - 1, 400)
    days = (date(year_of_cycle + 1, month, day) - _EPOCH).days + cycles * _DAYS_IN_400_YEARS
    if is_date:
        return days
    return days * _DAY_US + (hour * 3600 + minute * 60 + second) * 1_000_000 + int((found[7] or "").ljust(6, "0"))
