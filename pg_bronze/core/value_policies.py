"""Value policies: how a value is stored that the Parquet type of its column cannot represent.

There are three kinds of exceptional values. *infinity*: ±infinity in a date or timestamp. *late_dates*: a date or
timestamp at or after the end of the year 262142, where the reader's calendar ends. *nan*: NaN in a numeric with a
precision.

Belongs here: finding these values in a column, applying the configured policy, and counting them. Does not belong
here: the type of a column (``column_types``). Polars is imported only by functions that touch data.
"""

import json
import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, NamedTuple

from pg_bronze.errors import DataError
from pg_bronze.settings.choices import Infinity, LateDates, Nan

if TYPE_CHECKING:
    import polars as pl


ValueKind = Literal["infinity", "late_dates", "nan"]
Policy = Literal["sentinel", "text", "null", "error"]
# connectorx 0.4.6 reads ±infinity as the first and last value of chrono's calendar, so they sort where infinity sorts.
# No finite value is read as one: PostgreSQL's calendar starts in 4714 BC, and FIRST_LATE_VALUE replaces late values.
DATE_INFINITY = (-96465292, 95026236)  # days since 1970-01-01
TIMESTAMP_INFINITY = (-8334601228800000000, 8210266876799999999)  # microseconds since 1970-01-01
# NaN in a decimal that is read as a whole number: no decimal of 18 digits is read as it.
SCALED_NAN = -(2**63)
# The first finite value that counts as late, by base type: the last but one of chrono's calendar. The query replaces
# every later value with it, because connectorx cannot decode those or reads them as infinity.
FIRST_LATE_VALUE = {
    "date": "262142-12-30",
    "timestamp": "262142-12-31 23:59:59.999998",
    "timestamptz": "262142-12-31 23:59:59.999998+00",
}
_DESCRIPTIONS: dict[ValueKind, str] = {
    "infinity": "±infinity",
    "late_dates": "a date beyond the year 262142, the last year that pg_bronze can store in Parquet",
    "nan": "NaN, which a Parquet decimal cannot represent",
}


class Policies(NamedTuple):
    """How each kind of exceptional value is stored for one table. The defaults lose nothing.

    ``sentinel`` stores the first or last value of the calendar. ``text`` stores every column of the table that can
    contain such a value as PostgreSQL prints it. ``null`` stores NULL and counts it. ``error`` stops the table.
    """

    infinity: Infinity = "sentinel"
    late_dates: LateDates = "error"
    nan: Nan = "error"


DEFAULT_POLICIES = Policies()


class ExceptionalCount(NamedTuple):
    """The number of values of one kind in one column of a slice, and the policy by which they are stored."""

    column: str
    kind: ValueKind
    policy: Policy
    row_count: int


def possible_kinds(base: str, decimal: bool) -> tuple[ValueKind, ...]:
    """Return the kinds of exceptional values that a column of this base type can contain."""
    if base in FIRST_LATE_VALUE:
        return ("infinity", "late_dates")
    return ("nan",) if decimal else ()


def apply_policies(
    values: "pl.Series", base: str, policies: Policies, label: str, declared: str
) -> "tuple[pl.Series, tuple[ExceptionalCount, ...]]":
    """Apply the policies to one column as it was read.

    Returns:
        The column to store, and the exceptional values that were found.

    Raises:
        DataError: The policy of a value is ``error``. The message names the table, the column and the setting.
    """
    import polars as pl

    counts = []
    for kind, marked in _mark_exceptional(values, base).items():
        row_count = int(marked.sum())
        if not row_count:
            continue
        policy: Policy = getattr(policies, kind)
        if policy == "error":
            raise _policy_error(label, values.name, declared, kind, row_count)
        if policy == "null":
            values = pl.select(pl.when(marked).then(None).otherwise(values).alias(values.name)).to_series()
        elif values.dtype == pl.String:
            policy = "text"  # a column stored as text keeps infinity as text, whatever the policy of infinity is
        counts.append(ExceptionalCount(values.name, kind, policy, row_count))
    return values, tuple(counts)


def _mark_exceptional(values: "pl.Series", base: str) -> "dict[ValueKind, pl.Series]":
    """Return a boolean column for each kind.

    The values are text, whole numbers instead of decimals, or dates and timestamps with late ones replaced.
    """
    import polars as pl

    if base not in FIRST_LATE_VALUE:
        return {"nan": values == ("NaN" if values.dtype == pl.String else SCALED_NAN)}
    if values.dtype == pl.String:
        # A year of six or more digits is never BC: PostgreSQL's calendar starts in 4714 BC.
        year = values.str.extract(r"^(\d{6,})-").cast(pl.Int64)
        late = (year > 262142) | ((year == 262142) & (values >= FIRST_LATE_VALUE[base]))
        return {"infinity": values.is_in(["infinity", "-infinity"]), "late_dates": late}
    ends = DATE_INFINITY if values.dtype == pl.Date() else TIMESTAMP_INFINITY
    counts = values.to_physical()
    return {"infinity": counts.is_in(list(ends)), "late_dates": counts == ends[1] - 1}


def _policy_error(label: str, column: str, declared: str, kind: ValueKind, row_count: int) -> DataError:
    rows = "1 row" if row_count == 1 else f"{row_count} rows"
    override = shlex.quote(json.dumps({label: {kind: "text"}}, ensure_ascii=False))  # valid in .env and in a shell
    return DataError(
        f"{label}: column {column!r} ({declared}) contains {_DESCRIPTIONS[kind]}, in {rows} of the slice. Correct it "
        f"in the source, or set PG_BRONZE_{kind.upper()} to text, which stores such columns as PostgreSQL prints "
        f"them, or to null; for this table only: PG_BRONZE_TABLES={override}. A retry fails until then."
    )


def count_by_column(counts: Iterable[ExceptionalCount]) -> dict[str, dict[str, int]]:
    """Sum the counts by column, then by kind and policy: ``{"price": {"nan as null": 3}}``."""
    sums: dict[str, dict[str, int]] = {}
    for item in counts:
        of_column = sums.setdefault(item.column, {})
        name = f"{item.kind} as {item.policy}"
        of_column[name] = of_column.get(name, 0) + item.row_count
    return sums
