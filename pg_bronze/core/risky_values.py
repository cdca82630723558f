"""Risky values: columns whose type has values that stop the table, because the setting of its policy is ``error``.

Belongs here: which columns these are. Does not belong here: how such a value is stored (``value_policies``).
"""

from typing import NamedTuple

from pg_bronze.core.column_types import applicable_policies
from pg_bronze.core.table import Column, SourceTable
from pg_bronze.core.value_policies import Policies, ValueKind


class RiskyColumn(NamedTuple):
    """A column, and a kind of values that stops its table."""

    column: Column
    kind: ValueKind


SETTINGS: dict[ValueKind, str] = {
    "infinity": "PG_BRONZE_INFINITY",
    "late_dates": "PG_BRONZE_LATE_DATES",
    "nan": "PG_BRONZE_NAN",
}
# What the statistics of the server can show of each kind.
SHOWN: dict[ValueKind, str] = {"infinity": "infinity", "nan": "NaN"}


def of_table(table: SourceTable, policies: Policies) -> list[RiskyColumn]:
    """Return the columns of a table that can contain a value which stops it."""
    return [
        RiskyColumn(column, kind)
        for column in table.with_policies(policies).columns
        for kind, policy in applicable_policies(column).items()
        if policy == "error"
    ]
