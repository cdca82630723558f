"""Key identity: which stored values of a key column PostgreSQL compares as equal.

Most types store equal values as equal bytes. Others have several spellings of one value, such as 1 and 1.0: their
values are brought into one form before rows are compared. A type for which that cannot be computed without the server
is refused, because two spellings would silently be two rows. Polars is imported only by functions that use it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pg_bronze.core.table import Column

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
_NUMBERS = frozenset({"int2", "int4", "int8", "numeric"})
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
    found = list(dict.fromkeys(_kind(column, locale) for column in columns))
    if set(found) <= {"exact", "numeric"} and all(column.base in _NUMBERS for column in columns if len(found) > 1):
        found = [kind for kind in found if kind != "exact"] or found
    if len(found) > 1:
        before, now = (next(column for column in columns if _kind(column, locale) == kind) for kind in found[:2])
        return _refused(name, now, f"its type was {before.declared}, whose values are compared in another way")
    kind = found[0] if found else "exact"
    if kind not in _forms():
        return _refused(name, columns[-1], kind)
    return _forms()[kind] if str(stored) == "String" or kind == "float" else EXACT


def _kind(column: Column, locale: str) -> str:
    """Return how a column is compared: a key of ``_forms``, or the reason why that is not possible."""
    base = column.base
    if base.rpartition(".")[2] == "citext" and column.labels is None:
        # In these languages the lower case of I is not i.
        return (
            "citext" if locale[:2].lower() not in ("tr", "az") else f"the locale {locale} has another lower case of I"
        )
    by_bytes = column.collation is None or column.collation.startswith("pg_catalog.") or column.deterministic
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
