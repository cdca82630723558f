"""Shapes: the columns that all objects of a table have in common, although the table was altered between them.

A column is known by its attnum, so a rename is a rename. No connection, no clock, no Dagster; Polars only to speak of
types and values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import reduce
from typing import TYPE_CHECKING, Any

from pg_bronze.core.table import Column
from pg_bronze.core.value_policies import DATE_INFINITY, TIMESTAMP_INFINITY
from pg_bronze.errors import DataError, SettingsError

if TYPE_CHECKING:
    import polars as pl


XID = 0  # no column of a table has this attnum
_EXCEPTIONAL = {"infinity", "-infinity", "NaN"}
_DIGITS = {"Int16": 5, "Int32": 10, "Int64": 19}


@dataclass(frozen=True)
class Run:
    """Objects of a table one after the other that have the same columns.

    ``keys`` are those to be read, oldest first, and may be none. ``schema`` is what is in the Parquet files,
    ``xid_column`` the name of the transaction id there, ``primary_key`` those of the key's columns. ``example`` is a
    URI to name when something is wrong.
    """

    keys: tuple[str, ...]
    columns: tuple[Column, ...]
    schema: "pl.Schema"
    xid_column: str
    example: str
    primary_key: tuple[str, ...] = ()

    @property
    def named(self) -> dict[int, Column]:
        """The columns by attnum."""
        return {column.attnum: column for column in self.columns}


@dataclass(frozen=True)
class Field:
    """One column of a shape.

    ``missing`` is the value of rows that were copied before the column was there: the text of a value of type
    ``missing_type``, or None for NULL.
    """

    attnum: int
    name: str
    dtype: "pl.DataType"
    missing: str | None
    missing_type: "pl.DataType"


@dataclass(frozen=True)
class Shape:
    """The columns in which every run of a table can be read: names as in the newest, types as wide as the widest.

    Dropped columns come after those the table has, and the transaction id is always the last.
    """

    fields: tuple[Field, ...]

    @property
    def schema(self) -> "pl.Schema":
        """Names and types."""
        import polars as pl

        return pl.Schema([(field.name, field.dtype) for field in self.fields])

    @property
    def xid_column(self) -> str:
        """What the transaction id is called."""
        return self.fields[-1].name

    def primary_key(self, run: Run) -> tuple[str, ...]:
        """What the columns of a run's primary key are called in this shape; empty if it has none."""
        attnums = {column.name: column.attnum for column in run.columns}
        shown = {field.attnum: field.name for field in self.fields}
        return tuple(shown[attnums[name]] for name in run.primary_key)

    def expressions(self, run: Run) -> "list[pl.Expr] | None":
        """What has to be selected from a run's objects; None if they have this shape already."""
        import polars as pl
        from polars.selectors import by_name  # pl.col takes "*" and "^a$" for patterns

        if list(run.schema.items()) == list(self.schema.items()):
            return None
        named = run.named
        chosen = []
        for field in self.fields:
            name = run.xid_column if field.attnum == XID else named[field.attnum].name if field.attnum in named else ""
            text = isinstance(field.dtype, pl.String)
            if not name:
                found = _value(field, field.dtype if text else field.missing_type).cast(field.dtype)
            elif run.schema[name] == field.dtype:
                found = by_name(name)
            else:
                found = _text(by_name(name), run.schema[name]) if text else by_name(name).cast(field.dtype)
            chosen.append(found.alias(field.name))
        return chosen


def unite(runs: Sequence[Run], cast: "Mapping[str, pl.DataType] | None" = None) -> Shape:
    """Find the shape of some runs, oldest first, at least one; ``cast`` says which type a column shall have instead.

    Raises DataError naming two objects and the column if its types have nothing wider in common, SettingsError if
    ``cast`` names a column that is not there.
    """
    import polars as pl

    newest = runs[-1]
    present = [column.attnum for column in newest.columns]
    dropped = sorted({attnum for run in runs for attnum in run.named} - set(present))
    last = {attnum: column.name for run in runs for attnum, column in run.named.items()}
    taken = {newest.xid_column, *(column.name for column in newest.columns)}
    names: dict[int, str] = {}
    for attnum in [*present, *dropped]:
        name = last[attnum]
        while attnum in dropped and name in taken:
            name = f"{name}_{attnum}"
        taken.add(name)
        names[attnum] = name
    if unknown := [name for name in cast or () if name not in names.values()]:
        columns = ", ".join(map(repr, names.values()))
        raise SettingsError(f"cast names {', '.join(map(repr, unknown))}, and the columns are {columns}.")
    fields = [_field(runs, attnum, name, (cast or {}).get(name)) for attnum, name in names.items()]
    return Shape((*fields, Field(XID, newest.xid_column, pl.Int64(), None, pl.Int64())))


def _field(runs: Sequence[Run], attnum: int, name: str, wanted: "pl.DataType | None") -> Field:
    having = [run for run in runs if attnum in run.named]
    # The oldest one that knows it: a rewrite of the table since has taken the note away, not the value.
    noted = next((run for run in having if run.named[attnum].missing is not None), having[0])
    column = noted.named[attnum]
    dtype = wanted or _common(having, attnum, name)
    # What a policy made NULL of in rows that were copied is NULL in those that were not.
    nulled = column.policies.nan if column.missing == "NaN" else column.policies.infinity
    missing = None if column.missing in _EXCEPTIONAL and nulled == "null" else column.missing
    return Field(attnum, name, dtype, missing, noted.schema[column.name])


def _common(having: Sequence[Run], attnum: int, name: str) -> "pl.DataType":
    def both(one: "tuple[Run, pl.DataType]", other: Run) -> "tuple[Run, pl.DataType]":
        run, dtype = one
        column, before = other.named[attnum], run.named[attnum]
        wider = _wider(dtype, other.schema[column.name], {before.base, column.base})
        if wider is None:
            raise DataError(
                f"column {name!r} was {before.declared} in {run.example} and is {column.declared} in "
                f"{other.example}: no type holds the values of both. Say which one you want, as in "
                f'scan(…, cast={{"{name}": pl.String}}), or read the objects before and after apart (days=).'
            )
        return other, wider

    return reduce(both, having[1:], (having[0], having[0].schema[having[0].named[attnum].name]))[1]


def _wider(one: "pl.DataType", other: "pl.DataType", bases: set[str]) -> "pl.DataType | None":
    """The narrowest type that holds every value of both exactly; None if there is none."""
    import polars as pl

    if one == other:
        return one
    kinds = {type(one).__name__, type(other).__name__}
    if kinds <= set(_DIGITS) | {"UInt32"}:
        return pl.Int64() if "Int64" in kinds or "UInt32" in kinds else pl.Int32()
    if kinds <= {"Float32", "Int16"}:
        return pl.Float32()
    if kinds <= {"Float32", "Float64", "Int16", "Int32"}:
        return pl.Float64()
    if kinds <= {"Decimal", *_DIGITS}:
        sizes = [
            (dtype.precision - dtype.scale, dtype.scale)
            if isinstance(dtype, pl.Decimal)
            else (_DIGITS[type(dtype).__name__], 0)
            for dtype in (one, other)
        ]
        whole, scale = max(size[0] for size in sizes), max(size[1] for size in sizes)
        if whole + scale <= 38:
            return pl.Decimal(whole + scale, scale)
    if bases <= {"numeric", "int2", "int4", "int8"} and kinds <= {"String", "Decimal", *_DIGITS}:
        return pl.String()  # as a numeric without a precision is stored
    if len(bases) == 1 and "String" in kinds:
        return pl.String()  # the same type, stored as text since a policy says so
    if kinds == {"Date", "Datetime"} and "timestamptz" not in bases:
        return pl.Datetime("us")
    return None


def _text(values: "pl.Expr", dtype: "pl.DataType") -> "pl.Expr":
    """What PostgreSQL prints for the values of a column (UTC, ISO); for floating point numbers what Polars does."""
    import polars as pl

    if isinstance(dtype, pl.Binary):
        return pl.lit("\\x") + values.bin.encode("hex")
    if not isinstance(dtype, pl.Date | pl.Datetime):
        return values.cast(pl.String)
    year = values.dt.year()
    shown = pl.when(year < 1).then(1 - year).otherwise(year).cast(pl.String).str.zfill(4)
    text = shown + values.dt.strftime("-%m-%d")
    if isinstance(dtype, pl.Datetime):
        part = values.dt.microsecond()
        fraction = "." + part.cast(pl.String).str.zfill(6).str.strip_chars_end("0")
        text += values.dt.strftime(" %H:%M:%S") + pl.when(part == 0).then(pl.lit("")).otherwise(fraction)
        text += pl.lit("+00" if dtype.time_zone else "")
    first, last = DATE_INFINITY if isinstance(dtype, pl.Date) else TIMESTAMP_INFINITY
    return (
        pl.when(values.to_physical() == last)
        .then(pl.lit("infinity"))
        .when(values.to_physical() == first)
        .then(pl.lit("-infinity"))
        .otherwise(text + pl.when(year < 1).then(pl.lit(" BC")).otherwise(pl.lit("")))
    )


def _value(field: Field, dtype: "pl.DataType") -> "pl.Expr":
    """What rows from before a column have in it, read as a type from PostgreSQL's text (UTC, ISO)."""
    import polars as pl

    if field.missing is None:
        return pl.lit(None, dtype=dtype)
    try:
        parsed = _parsed(field.missing, dtype)
        # A number in place of a date counts days or microseconds.
        physical = pl.Int32() if isinstance(dtype, pl.Date) else pl.Int64()
        return pl.lit(parsed, dtype=physical if type(parsed) is int and dtype.is_temporal() else None).cast(dtype)
    except ValueError as error:
        raise DataError(
            f"column {field.name!r} was added with a default that cannot be read as {dtype}. Read it as text, as in "
            f'scan(…, cast={{"{field.name}": pl.String}}), or only objects written since (days=).'
        ) from error


def _parsed(text: str, dtype: "pl.DataType") -> Any:
    import polars as pl

    if text in {"infinity", "-infinity"} and isinstance(dtype, pl.Date | pl.Datetime):
        return (DATE_INFINITY if isinstance(dtype, pl.Date) else TIMESTAMP_INFINITY)[text == "infinity"]
    if isinstance(dtype, pl.Boolean):
        return text in {"true", "t"}
    if isinstance(dtype, pl.Binary):
        return bytes.fromhex(text.removeprefix("\\x"))
    if isinstance(dtype, pl.Date):
        return date.fromisoformat(text)
    if isinstance(dtype, pl.Datetime):
        return datetime.fromisoformat(text)
    if isinstance(dtype, pl.Decimal) and not Decimal(text).is_finite():
        raise ValueError("no decimal of Parquet's")
    if dtype.is_integer():
        return int(text)
    return float(text) if dtype.is_float() else text
