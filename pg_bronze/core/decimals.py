"""Decimals: the type of a ``numeric(p,s)``, the SQL that reads it, and the conversion of what was read.

A decimal of at most 18 digits is read as the whole number of its digits, ``1.50`` as 150: 400,000 order lines with four
of them take the client 15 % less CPU than as text. Longer ones are read as text. Polars is imported only by functions
that touch data or types.
"""

from typing import TYPE_CHECKING

from pg_bronze.core.table import Column
from pg_bronze.core.value_policies import SCALED_NAN

if TYPE_CHECKING:
    import polars as pl

SCALED_DIGITS = 18


def stored(column: Column) -> "pl.Decimal | None":
    """Return the type of a ``numeric(p,s)``; None without p, beyond 38 digits, and for other types."""
    import polars as pl

    typmod = column.typmod
    if column.base != "numeric" or typmod < 4:
        return None
    precision = (typmod - 4) >> 16 & 0xFFFF
    scale = ((typmod - 4 & 0x7FF) ^ 1024) - 1024  # signed since PostgreSQL 15; the same bits in older versions
    digits = max(precision, scale) if scale >= 0 else precision - scale
    return pl.Decimal(digits, max(scale, 0)) if digits <= 38 else None


def is_short(decimal: "pl.Decimal") -> bool:
    """Return whether the digits of every value are a whole number of 64 bits."""
    return decimal.precision <= SCALED_DIGITS


def scaled(expression: str, decimal: "pl.Decimal") -> str:
    """Return the SQL for the digits of a short decimal as a whole number, ``SCALED_NAN`` for NaN and NULL for NULL.

    It rounds a value with more decimals than the type has. Only transactions after an ALTER TABLE can write one. They
    are above the horizon, and after the read the table has another definition, so its rows are dropped.
    """
    number = f"{expression}::pg_catalog.numeric"
    power = f" operator(pg_catalog.*) '{10**decimal.scale}'::pg_catalog.numeric" if decimal.scale else ""
    return (
        f"case when {number} operator(pg_catalog.=) 'NaN'::pg_catalog.numeric "
        f"then '{SCALED_NAN}'::pg_catalog.int8 else pg_catalog.int8({number}{power}) end"
    )


def convert(values: "pl.Series", decimal: "pl.DataType") -> "pl.Series | None":
    """Return text, or whole numbers, as decimals; None if a value cannot be represented exactly."""
    import polars as pl

    if isinstance(decimal, pl.Decimal) and values.dtype == pl.Int64:
        return _from_scaled(values, decimal)
    try:
        number = values.cast(decimal, strict=True)
    except pl.exceptions.InvalidOperationError:
        return None
    # Polars rounds surplus decimals without an error, so the result is compared with the text from the server.
    return number if (number.cast(pl.String) == values).all() else None


def _from_scaled(values: "pl.Series", decimal: "pl.Decimal") -> "pl.Series | None":
    import polars as pl
    import pyarrow as pa

    limit, least, most = 10**decimal.precision, values.min(), values.max()
    if isinstance(least, int) and isinstance(most, int) and not -limit < least <= most < limit:
        return None
    # The same 128 bits with the point at another place. A cast by Polars would multiply every value.
    whole, exact = pa.decimal128(19, 0), pa.decimal128(decimal.precision, decimal.scale)
    chunks = [chunk.to_arrow().cast(whole).view(exact) for chunk in values.get_chunks()]
    # With the chunks of the other columns: Polars copies a frame whose columns have others before it writes it.
    return pl.concat([pl.Series(values.name, chunk) for chunk in chunks], rechunk=False)
