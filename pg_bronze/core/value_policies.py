"""Policies: what becomes of a value that the Parquet type of its column cannot hold, and how many there were.

Three kinds exist. *infinity*: ±infinity in a date or timestamp. *late_dates*: a date or timestamp at or after the last
moments of the year 262142, where the reader's calendar ends. *nan*: NaN in a numeric with a precision.

No connection, no clock, no Dagster. Polars is imported only by what touches data.
"""

import json
import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, NamedTuple

from pg_bronze.errors import DataError
from pg_bronze.settings.choices import Infinity, LateDates, Nan

if TYPE_CHECKING:
    import polars as pl


Kind = Literal["infinity", "late_dates", "nan"]
Policy = Literal["sentinel", "text", "null", "error"]
# connectorx 0.4.6 reads ±infinity as the ends of chrono's calendar. They sort where infinity sorts. PostgreSQL's first
# finite date is in 4714 BC, so nothing else is read as the first one; FIRST_LATE keeps the last one apart.
DATE_INFINITY = (-96465292, 95026236)  # days since 1970-01-01
TIMESTAMP_INFINITY = (-8334601228800000000, 8210266876799999999)  # microseconds since 1970-01-01
# By base type, the first finite value that counts as late: the last but one of that calendar. The query sends it in
# place of all later ones, which connectorx could not decode or would take for infinity.
FIRST_LATE = {
    "date": "262142-12-30",
    "timestamp": "262142-12-31 23:59:59.999998",
    "timestamptz": "262142-12-31 23:59:59.999998+00",
}
_SAID: dict[Kind, str] = {
    "infinity": "±infinity",
    "late_dates": "a date beyond the year 262142, the last one that a Parquet file of ours can hold",
    "nan": "NaN, which a Parquet decimal cannot hold",
}


class Policies(NamedTuple):
    """What is done with each kind of value in one table; the defaults lose nothing.

    ``sentinel``: the first or last value of the calendar. ``text``: every column of the table that might hold such a
    value is stored as PostgreSQL prints it. ``null``: NULL, counted. ``error``: the table stops and says why.
    """

    infinity: Infinity = "sentinel"
    late_dates: LateDates = "error"
    nan: Nan = "error"


LOSSLESS = Policies()


class Exceptional(NamedTuple):
    """How many values of one kind a slice has in one column, and by which policy they are stored."""

    column: str
    kind: Kind
    policy: Policy
    row_count: int


def kinds(base: str, decimal: bool) -> tuple[Kind, ...]:
    """The kinds of values that a column of this base type can hold and its own Parquet type cannot."""
    if base in FIRST_LATE:
        return ("infinity", "late_dates")
    return ("nan",) if decimal else ()


def find(values: "pl.Series", base: str) -> "dict[Kind, pl.Series]":
    """Mark the exceptional values of a column as read: as text, or as what ``FIRST_LATE`` makes the query send."""
    import polars as pl

    if base not in FIRST_LATE:
        return {"nan": values == "NaN"}
    if values.dtype == pl.String:
        # A year of six digits or more and no BC: PostgreSQL's calendar begins 4714 BC.
        year = values.str.extract(r"^(\d{6,})-").cast(pl.Int64)
        late = (year > 262142) | ((year == 262142) & (values >= FIRST_LATE[base]))
        return {"infinity": values.is_in(["infinity", "-infinity"]), "late_dates": late}
    ends = DATE_INFINITY if values.dtype == pl.Date() else TIMESTAMP_INFINITY
    counts = values.to_physical()
    return {"infinity": counts.is_in(list(ends)), "late_dates": counts == ends[1] - 1}


def settle(
    values: "pl.Series", base: str, policies: Policies, label: str, declared: str
) -> "tuple[pl.Series, tuple[Exceptional, ...]]":
    """Apply the policies to one column as read; the second part says what was found and done.

    Raises DataError, which names table, column and setting, for a value whose policy is ``error``.
    """
    import polars as pl

    found = []
    for kind, marked in find(values, base).items():
        count = int(marked.sum())
        if not count:
            continue
        policy: Policy = getattr(policies, kind)
        if policy == "error":
            raise refusal(label, values.name, declared, kind, count)
        if policy == "null":
            values = pl.select(pl.when(marked).then(None).otherwise(values).alias(values.name)).to_series()
        elif values.dtype == pl.String:
            policy = "text"  # text holds infinity too, whatever its own policy
        found.append(Exceptional(values.name, kind, policy, count))
    return values, tuple(found)


def refusal(label: str, column: str, declared: str, kind: Kind, count: int) -> DataError:
    """The error for values whose policy is ``error``."""
    rows = "one row" if count == 1 else f"{count} rows"
    alone = shlex.quote(json.dumps({label: {kind: "text"}}, ensure_ascii=False))  # for .env and for a shell
    return DataError(
        f"{label}: column {column!r} ({declared}) holds {_SAID[kind]}, in {rows} of those to be copied. Correct it in "
        f"the source, or set PG_BRONZE_{kind.upper()} to text, which stores such columns as PostgreSQL prints them, "
        f"or to null; for this table alone: PG_BRONZE_TABLES={alone}. Nothing of the table is copied meanwhile."
    )


def totals(found: Iterable[Exceptional]) -> dict[str, dict[str, int]]:
    """Sum what was found by column, then by kind and policy: ``{"price": {"nan as null": 3}}``."""
    said: dict[str, dict[str, int]] = {}
    for item in found:
        counts = said.setdefault(item.column, {})
        words = f"{item.kind} as {item.policy}"
        counts[words] = counts.get(words, 0) + item.row_count
    return said
