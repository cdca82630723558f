"""Caveats: what the objects of a table do not contain although a query of the table returns it, one sentence each.

docs/types.md has the same limits. They are in the description of the asset.
"""

from collections.abc import Collection, Sequence

from pg_bronze.core.table import Column

_NAMES_SHOWN = 3


def sentences(columns: Sequence[Column], composite: Collection[int], heirs: Sequence[str]) -> tuple[str, ...]:
    """Return the caveats of one table.

    Args:
        columns: The columns of the table.
        composite: The attnums of columns whose type is composite, or is made of a composite type.
        heirs: The labels of the tables that inherit from it; partitions do not count.
    """
    found = []
    if heirs:
        found.append(
            f"Tables inherit from this one: {_listed(heirs)}. It is copied without their rows, which are in the "
            "folders of these tables"
        )
    if oids := [_named(column) for column in columns if column.base == "oid"]:
        found.append(f"Large objects are not copied, only their ids, if there are any in {_listed(oids)}")
    if types := [_named(column) for column in columns if column.attnum in composite]:
        found.append(
            "When attributes are added to a composite type or dropped from it, rows copied before keep the old ones in "
            f"{_listed(types)}"
        )
    return tuple(found)


def _named(column: Column) -> str:
    return f"`{column.name}` ({column.declared})"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} and {len(names) - _NAMES_SHOWN:,} more"
