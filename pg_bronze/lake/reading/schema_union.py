"""The union of schemas: columns in which all objects of a table can be read, although the table was altered.

A column is identified by its attnum, so a renamed column stays the same column. No connection, no clock, no Dagster;
Polars only for types and values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

from pg_bronze.core.table import Column
from pg_bronze.core.value_policies import DATE_INFINITY, TIMESTAMP_INFINITY
from pg_bronze.errors import DataError, SettingsError
from pg_bronze.lake.reading import missing_values

if TYPE_CHECKING:
    import polars as pl


XID = 0  # no column of a table has this attnum
_DIGITS = {"Int16": 5, "Int32": 10, "Int64": 19}


@dataclass(frozen=True)
class ColumnEra:
    """Consecutive objects of a table that have the same columns.

    Attributes:
        keys: The objects to be read, oldest first; may be empty.
        columns: The source columns.
        schema: The columns in the Parquet files.
        xid_column: The name of the transaction id in the files.
        example: The URI of one object, for error messages.
        primary_key: The names of the key's columns.
        locale: The locale of the database.
        excluded: The attnums of columns that existed and were not copied.
    """

    keys: tuple[str, ...]
    columns: tuple[Column, ...]
    schema: "pl.Schema"
    xid_column: str
    example: str
    primary_key: tuple[str, ...] = ()
    locale: str = ""
    excluded: frozenset[int] = frozenset()

    @property
    def by_attnum(self) -> dict[int, Column]:
        """The columns by attnum."""
        return {column.attnum: column for column in self.columns}


@dataclass(frozen=True)
class UnionColumn:
    """One column of a union.

    ``missing`` is the value in rows that were copied before the column was added: PostgreSQL's text of a value of
    ``missing_type``, or None for NULL.
    """

    attnum: int
    name: str
    dtype: "pl.DataType"
    missing: str | None
    missing_type: "pl.DataType"


@dataclass(frozen=True)
class UnionSchema:
    """The columns in which every era can be read: with the newest names and the widest types.

    Dropped columns follow the existing ones; the transaction id is last.
    """

    columns: tuple[UnionColumn, ...]

    @property
    def schema(self) -> "pl.Schema":
        """Names and types."""
        import polars as pl

        return pl.Schema([(column.name, column.dtype) for column in self.columns])

    @property
    def xid_column(self) -> str:
        """The name of the transaction id."""
        return self.columns[-1].name

    def primary_key(self, era: ColumnEra) -> tuple[str, ...]:
        """Return the names in this union of an era's primary key columns; empty if it has no primary key."""
        attnums = {column.name: column.attnum for column in era.columns}
        names = {column.attnum: column.name for column in self.columns}
        return tuple(names[attnums[name]] for name in era.primary_key)

    def expressions(self, era: ColumnEra) -> "list[pl.Expr] | None":
        """Return what to select from an era's objects; None if they have these columns already."""
        if list(era.schema.items()) == list(self.schema.items()):
            return None
        return [_expression(column, era).alias(column.name) for column in self.columns]


def union_schema(eras: Sequence[ColumnEra], cast: "Mapping[str, pl.DataType] | None" = None) -> UnionSchema:
    """Return the union of the columns of eras.

    Args:
        eras: At least one, oldest first.
        cast: Types that replace the common type of a column, by name.

    Raises:
        DataError: The types of a column have no wider type in common. Names the column and two objects.
        SettingsError: ``cast`` contains a column that does not exist.
    """
    import polars as pl

    names = _names(eras)
    if unknown := [name for name in cast or () if name not in names.values()]:
        raise SettingsError(
            f"scan: cast contains {', '.join(map(repr, unknown))}, but the columns are "
            f"{', '.join(map(repr, names.values()))}."
        )
    columns = [_column(eras, attnum, name, (cast or {}).get(name)) for attnum, name in names.items()]
    return UnionSchema((*columns, UnionColumn(XID, eras[-1].xid_column, pl.Int64(), None, pl.Int64())))


def _names(eras: Sequence[ColumnEra]) -> dict[int, str]:
    """Return the names by attnum: the newest era's columns, then dropped ones, whose names may get a suffix."""
    newest = eras[-1]
    present = [column.attnum for column in newest.columns]
    dropped = sorted({attnum for era in eras for attnum in era.by_attnum} - set(present))
    last_names = {attnum: column.name for era in eras for attnum, column in era.by_attnum.items()}
    taken = {newest.xid_column, *(column.name for column in newest.columns)}
    names: dict[int, str] = {}
    for attnum in [*present, *dropped]:
        name = last_names[attnum]
        while attnum in dropped and name in taken:
            name = f"{name}_{attnum}"
        taken.add(name)
        names[attnum] = name
    return names


def _expression(column: UnionColumn, era: ColumnEra) -> "pl.Expr":
    import polars as pl
    from polars.selectors import by_name  # pl.col interprets "*" and "^a$" as patterns

    source = era.by_attnum.get(column.attnum)
    name = era.xid_column if column.attnum == XID else source.name if source else None
    is_text = isinstance(column.dtype, pl.String)
    if name is None:
        parsed_as = column.dtype if is_text else column.missing_type
        missing = None if column.attnum in era.excluded else column.missing
        return missing_values.expression(column.name, missing, parsed_as).cast(column.dtype)
    if era.schema[name] == column.dtype:
        return by_name(name).as_expr()
    return _text(by_name(name).as_expr(), era.schema[name]) if is_text else by_name(name).as_expr().cast(column.dtype)


def _column(eras: Sequence[ColumnEra], attnum: int, name: str, cast: "pl.DataType | None") -> UnionColumn:
    eras = [era for era in eras if attnum in era.by_attnum]
    # The oldest era with the value: a rewrite of the table removes it from the catalog, not from older rows.
    source = next((era for era in eras if era.by_attnum[attnum].missing is not None), eras[0])
    column = source.by_attnum[attnum]
    dtype = cast or _common_type(eras, attnum, name)
    missing = None if missing_values.stored_as_null(column) else column.missing
    return UnionColumn(attnum, name, dtype, missing, source.schema[column.name])


def _common_type(eras: Sequence[ColumnEra], attnum: int, name: str) -> "pl.DataType":
    def widened(previous: "tuple[ColumnEra, pl.DataType]", era: ColumnEra) -> "tuple[ColumnEra, pl.DataType]":
        earlier, dtype = previous
        column, before = era.by_attnum[attnum], earlier.by_attnum[attnum]
        wider = _wider(dtype, era.schema[column.name], {before.base, column.base})
        if wider is None:
            raise DataError(
                f"column {name!r} was {before.declared} in {earlier.example} and is {column.declared} in "
                f"{era.example}: no type can store the values of both. Choose a type, as in "
                f'scan(…, cast={{"{name}": pl.String}}), or read the objects before and after separately (days=).'
            )
        return era, wider

    return reduce(widened, eras[1:], (eras[0], eras[0].schema[eras[0].by_attnum[attnum].name]))[1]


def _wider(one: "pl.DataType", other: "pl.DataType", bases: set[str]) -> "pl.DataType | None":
    """Return the narrowest type that stores every value of both exactly; None if there is none."""
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
        return pl.String()  # the same type, stored as text by a policy since then
    if kinds == {"Date", "Datetime"} and "timestamptz" not in bases:
        return pl.Datetime("us")
    return None


def _text(values: "pl.Expr", dtype: "pl.DataType") -> "pl.Expr":
    """Return the text that PostgreSQL prints for values (UTC, ISO); for floating point numbers the text of Polars."""
    import polars as pl

    if isinstance(dtype, pl.Binary):
        return pl.lit("\\x") + values.bin.encode("hex")
    if not isinstance(dtype, pl.Date | pl.Datetime):
        return values.cast(pl.String)
    year = values.dt.year()
    shown_year = pl.when(year < 1).then(1 - year).otherwise(year).cast(pl.String).str.zfill(4)
    text = shown_year + values.dt.strftime("-%m-%d")
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
