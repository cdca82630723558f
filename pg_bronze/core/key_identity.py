"""Key identity: which stored values of a key column PostgreSQL compares as equal.

Most types store equal values as equal bytes. Others have several spellings of one value, such as 1 and 1.0: their
values are brought into one form before rows are compared. A type for which that cannot be computed without the server
is refused, because two spellings would silently be two rows. Polars is imported only by functions that use it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from pg_bronze.core.table import Column
from pg_bronze.core.value_policies import FIRST_LATE_VALUE

if TYPE_CHECKING:
    import polars as pl

    Form = Callable[[pl.Expr], pl.Expr]

# Types whose values have one text each, so that equal values are equal texts; also their arrays.
_ONE_TEXT = frozenset({
    "bool", "int2", "int4", "int8", "oid", "text", "varchar", "name", "char", "uuid", "bytea", "date", "timestamp",
    "timestamptz", "time", "timetz", "money", "inet", "cidr", "macaddr", "macaddr8", "bit", "varbit", "pg_lsn", "xid",
    "xid8", "int4range", "int8range", "daterange", "tsrange", "tstzrange", "int4multirange", "int8multirange",
    "datemultirange", "tsmultirange", "tstzmultirange",
})  # fmt: skip
# Within a family, equal values have equal texts, or texts that the form of the family makes equal.
_NUMBERS = frozenset({"int2", "int4", "int8", "numeric"})
_FAMILIES = (_NUMBERS, frozenset({"float4", "float8"}), frozenset({"text", "varchar"}))
CITEXT = "citext"  # the extension
_OTHER = "PostgreSQL may treat different texts of this type as equal"


@dataclass(frozen=True)
class KeyIdentity:
    """How the values of one key column are compared.

    Attributes:
        form: Brings equal values into one form; None if they already have it.
        widest: Brings at least all equal values into one form; None if ``form`` is exact. Where the two make different
            groups, only the server can tell which values are equal.
    """

    form: "Form | None" = None
    widest: "Form | None" = None


EXACT = KeyIdentity()


def key_identity(columns: Sequence[Column], locale: str, stored: "pl.DataType", name: str) -> KeyIdentity | str:
    """Return how the values of a key column are compared.

    Args:
        columns: The column as each column era declared it, oldest first; empty for the transaction id.
        locale: The locale of the database.
        stored: The type of the values.
        name: The name of the column, for the sentence.

    Returns:
        A sentence without a period that says why equal values cannot be found without the server.
    """
    columns = _with_extensions(columns)
    if refusal := _refusal(columns):
        return _refused(name, columns[-1], refusal)
    found = list(dict.fromkeys(_kind(column, locale) for column in columns))
    if set(found) <= {"exact", "numeric"}:
        found = [kind for kind in found if kind != "exact"] or found
    if len(found) > 1:
        before = next(column for column in columns if _kind(column, locale) == found[0])
        return _refused(name, columns[-1], _compared_differently(before))
    kind = found[0] if found else "exact"
    if kind != "exact" and columns[-1].mask:
        return _refused(
            name,
            columns[-1],
            "its values are stored as hashes of their text, and equal values may have different texts",
        )
    if kind not in _forms():
        return _refused(name, columns[-1], kind)
    return _forms()[kind] if str(stored) == "String" or kind == "float" else EXACT


def _refusal(columns: Sequence[Column]) -> str | None:
    """Return why values that were stored under different declarations or policies cannot be compared, or None."""
    for column in columns:
        if column.base in FIRST_LATE_VALUE and "null" in (column.policies.infinity, column.policies.late_dates):
            return "a policy stores different values of it as NULL"
        if column.mask and column.mask.kind != "sha256":
            return "its mask stores different values of it as the same value"
    for before, now in pairwise(columns):
        if before.mask != now.mask:
            return "some of its values were stored masked, others not"
        if before.labels is not None and now.labels is not None:
            if set(before.labels) - set(now.labels):
                return "its type had a label that was renamed or removed since"
        elif before.base != now.base and not any({before.base, now.base} <= family for family in _FAMILIES):
            return _compared_differently(before)
    return None


def _with_extensions(columns: Sequence[Column]) -> list[Column]:
    """Return the columns with the newest extension, where an era before that entry has the same type."""
    newest = columns[-1] if columns else None
    return [
        replace(column, extension=newest.extension) if newest and column.base == newest.base else column
        for column in columns
    ]


def _compared_differently(before: Column) -> str:
    return f"its type was {before.declared}, whose values are compared in another way"


def _kind(column: Column, locale: str) -> str:
    """Return how a column is compared: a key of ``_forms``, or the reason why that is not possible."""
    base = column.base
    if column.extension == CITEXT:  # its only type. Another schema may have a type of the same name.
        # In these languages the lower case of I is not i.
        return (
            "citext" if locale[:2].lower() not in ("tr", "az") else f"the locale {locale} has another lower case of I"
        )
    by_bytes = column.deterministic
    if by_bytes is None:  # in footers from before that entry
        by_bytes = column.collation is None or column.collation.startswith("pg_catalog.")
    if not by_bytes:
        return f"its collation {column.collation} is not known to be deterministic, so different texts may be equal"
    if base in ("float4", "float8"):
        return "float"
    if base in ("numeric", "bpchar"):
        return base
    return "exact" if base.removeprefix("_") in _ONE_TEXT or column.labels is not None else _OTHER


def _refused(name: str, column: Column, reason: str) -> str:
    return f"column {name!r} ({column.declared}) cannot identify a row outside the database: {reason}"


def _forms() -> dict[str, KeyIdentity]:
    return {
        "exact": EXACT,
        "numeric": KeyIdentity(_without_scale),
        "float": KeyIdentity(_without_negative_zero),
        "bpchar": KeyIdentity(lambda values: values.str.strip_chars_end(" ")),
        "citext": KeyIdentity(_ascii_lower_case, _folded),
    }


def _without_scale(values: "pl.Expr") -> "pl.Expr":
    import polars as pl

    digits = values.str.strip_chars_end("0").str.strip_chars_end(".")
    return pl.when(values.str.contains(".", literal=True)).then(digits).otherwise(values)


def _without_negative_zero(values: "pl.Expr") -> "pl.Expr":
    import polars as pl

    return pl.when(values == 0).then(values.abs()).otherwise(values)


def _ascii_lower_case(values: "pl.Expr") -> "pl.Expr":
    upper = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return values.str.replace_many(list(upper), list(upper.lower()))


def _folded(values: "pl.Expr") -> "pl.Expr":
    # The lower case of a letter depends on the provider of the locale and its version: final sigma, dotted I, sharp s.
    # The way up and down merges at least what any of them does.
    return values.str.to_lowercase().str.to_uppercase().str.to_lowercase().str.replace_all("i\u0307", "i", literal=True)
