"""Masks: the fixed value that a masked column has in every row.

Belongs here: the value of a mask in the type of its column. Does not belong here: which columns are masked
(``column_choices``), and the SQL that keeps their values on the server (``column_types``).
"""

from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pg_bronze.settings.choices import Mask

if TYPE_CHECKING:
    import polars as pl

_BOOLEANS = {"true": True, "false": False}


def fixed_value(mask: Mask, stored: "pl.DataType") -> Any:
    """Return the value of a mask as Python has it; None for a mask without one.

    Args:
        stored: The type that the column is stored as.

    Raises:
        ValueError: The type has no such value.
    """
    import polars as pl

    if mask.value is None:
        return None
    try:
        value = _parsed(mask.value, stored)
        if pl.Series([value], dtype=stored).item() != value:
            raise ValueError
    except (ValueError, KeyError, TypeError, ArithmeticError, pl.exceptions.PolarsError) as error:
        raise ValueError(f"the type {stored} has no value {mask.value!r}") from error
    return value


def _parsed(text: str, stored: "pl.DataType") -> Any:
    import polars as pl

    if isinstance(stored, pl.String):
        return text
    if isinstance(stored, pl.Boolean):
        return _BOOLEANS[text]
    if isinstance(stored, pl.Decimal):
        return Decimal(text)
    if isinstance(stored, pl.Date):
        return date.fromisoformat(text)
    if isinstance(stored, pl.Datetime):
        moment = datetime.fromisoformat(text)
        if (moment.tzinfo is None) != (stored.time_zone is None):
            raise ValueError
        return moment
    if stored.is_integer():
        return int(text)
    if stored.is_float():
        return float(text)
    raise ValueError
