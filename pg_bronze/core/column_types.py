"""Column types: the SQL that reads each column, and the type that it is stored as.

Belongs here: the rule of every PostgreSQL type, the select list made of these rules, and the conversion of a frame as
read into a frame as stored. Does not belong here: exceptional values (``value_policies``) and the query around the
select list (``window_sql``). Polars is imported only by functions that touch data or types.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain, count
from typing import TYPE_CHECKING

from pg_bronze.core import decimals, masks, value_policies
from pg_bronze.core.table import Column, quote
from pg_bronze.core.value_policies import ExceptionalCount
from pg_bronze.errors import DataError, TableChanged

if TYPE_CHECKING:
    import polars as pl


XID_NAME = "_pg_xid"


@dataclass(frozen=True)
class Rule:
    """How one column is read and stored.

    Attributes:
        expression: The SQL that reads the column, with ``{c}`` in place of the column.
        read: The type that connectorx returns for the expression.
        stored: The type in the object.
    """

    expression: str
    read: "pl.DataType"
    stored: "pl.DataType"


def printed(expression: str) -> str:
    """Return the SQL for the text that the output function of the type prints; NULL for NULL.

    A cast to text would call a function of the database where somebody created such a cast.
    """
    # "is distinct from null" also for composites: "(,) is null" is true.
    return f"case when {expression} is distinct from null then pg_catalog.concat({expression}) end"


_TEXT: dict[str, str] = {
    "money": printed("{c}::pg_catalog.numeric"),  # the text of money depends on lc_monetary
    "_money": printed("{c}::pg_catalog.numeric[]"),
    # The output function omits the XML declaration. This cast is built in, so there can be no other.
    "xml": "{c}::pg_catalog.text",
}


@cache
def _native_types() -> "dict[str, pl.DataType]":
    # Only types that connectorx 0.4.6 reads exactly under the binary protocol. It rounds numeric to ten decimals, reads
    # json through float64, turns time 24:00 into 00:00 and panics on 51 other types, so those are read as text.
    import polars as pl

    return {
        "bool": pl.Boolean(),
        "int2": pl.Int16(),
        "int4": pl.Int32(),
        "int8": pl.Int64(),
        "oid": pl.UInt32(),
        "float4": pl.Float32(),
        "float8": pl.Float64(),
        "text": pl.String(),
        "varchar": pl.String(),
        "bpchar": pl.String(),
        "name": pl.String(),
        "uuid": pl.String(),
        "bytea": pl.Binary(),
        "date": pl.Date(),
        "timestamp": pl.Datetime("us"),
        "timestamptz": pl.Datetime("us", "UTC"),
    }


def rule(column: Column, former: bool = False) -> Rule:
    """Return the rule of a column.

    Args:
        column: The column.
        former: The expression reads text that another column may have printed; see ``former_projection``.

    Every expression casts to the expected type, even if the column already has it: connectorx requests the types
    before the rows, and after an ALTER TYPE in between it would decode the new type's bytes as the old type.
    """
    import polars as pl

    if column.mask:
        return _masked(column, former)
    if "text" in applicable_policies(column).values():
        return Rule(printed("{c}"), pl.String(), pl.String())
    if last := value_policies.FIRST_LATE_VALUE.get(column.base):
        cast, limit = (f"{value}::pg_catalog.{column.base}" for value in ("{c}", f"'{last}'"))
        # Later values are sent as the limit, because connectorx cannot decode them or reads them as infinity; this
        # costs the server 25 ns a value. NULL takes the last branch.
        early, finite = f"{cast} operator(pg_catalog.<) {limit}", f"pg_catalog.isfinite({cast})"
        expression = f"case when {early} then {cast} when {finite} then {limit} else {cast} end"
        return Rule(expression, _native_types()[column.base], _native_types()[column.base])
    if native := _native_types().get(column.base):
        return Rule(f"{{c}}::pg_catalog.{column.base}", native, native)
    if decimal := decimals.stored(column):
        if decimals.is_short(decimal) and not former:
            return Rule(decimals.scaled("{c}", decimal), pl.Int64(), decimal)
        return Rule(printed("{c}"), pl.String(), decimal)
    return Rule(_TEXT.get(column.base, printed("{c}")), pl.String(), pl.String())


# Only SQL_ASCII can contain text that is not UTF-8; its bytes are hashed as they are.
_ENCODING = "(select case when pg_catalog.getdatabaseencoding() = 'SQL_ASCII' then 'SQL_ASCII' else 'UTF8' end)"


def _masked(column: Column, former: bool) -> Rule:
    """Return the rule of a masked column, whose values the server does not send."""
    import polars as pl

    if column.mask and column.mask.kind == "sha256":
        text = _TEXT.get(column.base, printed("{c}"))
        digest = f"pg_catalog.sha256(pg_catalog.convert_to({text}, {_ENCODING}))"
        return Rule(f"pg_catalog.encode({digest}, 'hex')", pl.String(), pl.String())
    plain = rule(replace(column, mask=None), former)
    # A fixed value is put in after the read.
    if _native_types().get(column.base) == plain.read:
        null = f"null::pg_catalog.{column.base}"
    else:
        null = f"null::pg_catalog.{'int8' if plain.read == pl.Int64() else 'text'}"
    return Rule(null, plain.read, plain.stored)


def applicable_policies(column: Column) -> dict[value_policies.ValueKind, value_policies.Policy]:
    """Return the policy of each kind of exceptional value that is read from a column."""
    if column.mask:
        return {}
    kinds = value_policies.possible_kinds(column.base, decimals.stored(column) is not None)
    return {kind: getattr(column.policies, kind) for kind in kinds}


def projection(columns: Sequence[Column], relation_alias: str = "t", as_text: bool = False) -> str:
    """Return the select list of the columns, each cast and named: ``t."c"::int4 as "c"``.

    ``as_text`` selects the text of each stored value instead.
    """
    alias = quote(relation_alias) if relation_alias != "t" else "t"
    return ", ".join(
        f"{(_as_text if as_text else _as_read)(column, f'{alias}.{quote(column.name)}')} as {quote(column.name)}"
        for column in columns
    )


def _as_read(column: Column, name: str) -> str:
    return rule(column).expression.format(c=name)


def _as_former(column: Column, name: str) -> str:
    return rule(column, former=True).expression.format(c=name)


def _as_text(column: Column, name: str) -> str:
    expression = _as_former(column, name)
    # PostgreSQL prints "t", and the text of a stored value is "true".
    return f"{expression}::pg_catalog.text" if column.base == "bool" else printed(f"({expression})")


def former_projection(former: Sequence[Column], present: Sequence[Column]) -> str:
    """Return the select list that reads former columns of a table from its present columns.

    Columns are matched by attnum. A dropped column is read as NULL. A column whose type changed is cast through text,
    which every type can be cast to, and may then have more digits than the former type, so decimals are read as text.
    """
    by_attnum = {column.attnum: column for column in present}
    return ", ".join(
        f"{_as_former(column, _former(column, by_attnum.get(column.attnum)))} as {quote(column.name)}"
        for column in former
    )


def _former(column: Column, present: Column | None) -> str:
    if present is None:
        return "null::pg_catalog.text"
    name = f"t.{quote(present.name)}"
    return name if present.base == column.base else f"({printed(name)})"


def read_schema(columns: Sequence[Column], former: bool = False) -> "pl.Schema":
    """Return the schema that connectorx returns for the projection, or for the former projection."""
    import polars as pl

    return pl.Schema([(column.name, rule(column, former).read) for column in columns])


def stored_schema(columns: Sequence[Column]) -> "pl.Schema":
    """Return the schema of the columns in an object, without the transaction id column."""
    import polars as pl

    return pl.Schema([(column.name, rule(column).stored) for column in columns])


def xid_column(columns: Sequence[Column]) -> str:
    """Return the name of the transaction id column: ``_pg_xid``, or ``_pg_xid_1`` if the source has that column."""
    taken = {column.name for column in columns}
    names = chain([XID_NAME], (f"{XID_NAME}_{number}" for number in count(1)))
    return next(name for name in names if name not in taken)


def empty_slice(columns: Sequence[Column]) -> "pl.DataFrame":
    """Return a frame as it is stored, without rows."""
    import polars as pl

    return pl.DataFrame(schema={**stored_schema(columns), xid_column(columns): pl.Int64()})


def conform(
    frame: "pl.DataFrame", columns: Sequence[Column], label: str, former: bool = False
) -> "tuple[pl.DataFrame, tuple[ExceptionalCount, ...]]":
    """Convert a frame as read into a frame as stored.

    Args:
        frame: The columns of the projection, and optionally the transaction id column after them.
        columns: The columns of the table.
        label: The name of the table for messages.
        former: The frame was read with ``former_projection``.

    Returns:
        The frame to store, and the exceptional values that a policy was applied to.

    Raises:
        DataError: The frame has other columns, or a value whose policy is ``error``.
        TableChanged: The values need another type, which only an ALTER during the read can cause.
    """
    import polars as pl

    _check_columns(frame, columns, label, former)
    stored: list[pl.Series] = []
    counts: list[ExceptionalCount] = []
    for column in columns:
        if applicable_policies(column):
            values, exceptional = _conform_column(frame[column.name], column, label)
            stored.append(values)
            counts += exceptional
        elif column.mask and column.mask.kind != "sha256":
            value = masks.fixed_value(column.mask, rule(column).stored)
            one = pl.Series(column.name, [value], dtype=rule(column).stored)
            stored.append(one.new_from_index(0, frame.height))
    return frame.with_columns(stored), tuple(counts)


def _check_columns(frame: "pl.DataFrame", columns: Sequence[Column], label: str, former: bool) -> None:
    # Two types of the same width would otherwise be stored as each other's bytes.
    import polars as pl

    expected = list(read_schema(columns, former).items())
    if frame.width == len(expected) + 1:
        expected.append((xid_column(columns), pl.Int64()))
    found = list(frame.schema.items())
    if found != expected:
        names = ", ".join(repr(name) for name, dtype in found if (name, dtype) not in expected) or "the order"
        raise DataError(
            f"{label}: the columns read are not the columns requested (different: {names}). "
            "The table was altered during the read, or the reader received another projection."
        )


def _conform_column(
    values: "pl.Series", column: Column, label: str
) -> "tuple[pl.Series, tuple[ExceptionalCount, ...]]":
    stored = rule(column).stored
    counts: tuple[ExceptionalCount, ...] = ()
    number = None if values.dtype == stored else decimals.convert(values, stored)
    if number is None:
        values, counts = value_policies.apply_policies(values, column.base, column.policies, label, column.declared)
        number = values if values.dtype == stored else decimals.convert(values, stored)
    if number is None:
        # The server keeps every number within the precision of its column, so the column itself has changed.
        raise TableChanged(
            f"{label}: column {column.name!r} ({column.declared}) received more digits from an ALTER TABLE during the "
            "read. It is retried at the next tick."
        )
    return number, counts
