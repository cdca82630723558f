"""TODO core.drift."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pg_bronze.core.column_types import policy, rule, xid_column
from pg_bronze.core.table import Column, SourceTable, declared_as


@dataclass(frozen=True)
class Description:
    """What the rows of one object look like, in plain JSON: its columns as ``describe`` gives them, key and xid column.

    ``primary_key`` holds names in key order, ``xid_column`` is the name of the added column, ``table`` says which table
    it is.
    """

    columns: tuple[Mapping[str, Any], ...]
    primary_key: tuple[str, ...]
    xid_column: str
    table: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def digest(self) -> str:
        """A short text that differs when a reader has to treat the columns differently; comments do not count."""
        seen = [[column.get(name) for name in _DIGESTED] for column in self.columns]
        text = json.dumps([seen, self.primary_key, self.xid_column], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def source_columns(self) -> tuple[Column, ...]:
        """The columns as the catalog declared them."""
        return tuple(Column.from_description(column) for column in self.columns)


_DIGESTED = ("attnum", "name", "base", "typmod", "stored", "policy", "missing", "generated", "generated_as", "labels")


def describe(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Describe the columns for a footer: what the source declared, what is stored, and by which policy.

    What a column has not is left out: this stands uncompressed in every object, and most have few rows.
    """
    return [
        {
            name: list(said) if name == "labels" else said
            for name, said in declared_as(column).items()
            if said is not None
        }
        | {"stored": str(rule(column).stored)}
        | ({"policy": said} if (said := policy(column)) else {})
        for column in columns
    ]


def description(table: SourceTable) -> Description:
    """Describe the rows of a table as they are stored now."""
    return Description(
        columns=tuple(describe(table.columns)),
        primary_key=table.primary_key,
        xid_column=xid_column(table.columns),
        table={
            "schema": table.schema,
            "name": table.name,
            "comment": table.comment,
            "partitioned": table.partitioned,
        },
    )


def changes(before: SourceTable, after: SourceTable) -> tuple[str, ...]:
    """Say what changed between two looks at the catalog, one sentence each; without Polars, so without stored types."""
    was, now = (
        Description(
            columns=tuple({**declared_as(column), "stored": None} for column in table.columns),
            primary_key=table.primary_key,
            xid_column=xid_column(table.columns),
        )
        for table in (before, after)
    )
    return drift(was, now, rows=False)


def drift(before: Description, after: Description, rows: bool = True) -> tuple[str, ...]:
    """Say what changed between two slices of a table, one sentence each, and what it means for rows copied before.

    Columns are told apart by attnum, so that a rename is a rename. Without ``rows`` nothing is said of those.
    """
    old = {column["attnum"]: column for column in before.columns}
    new = {column["attnum"]: column for column in after.columns}
    said = [f"column {_named(column)} was dropped" for number, column in old.items() if number not in new]
    added = [column for number, column in new.items() if number not in old]
    said += [f"column {_named(column)} was added{f'; {_added(column)}' if rows else ''}" for column in added]
    for was, now in ((old[number], new[number]) for number in old if number in new):
        said += _changed(was, now)
    if before.primary_key != after.primary_key:
        said.append(f"the primary key is now {_key(after)}, before {_key(before)}")
    if before.xid_column != after.xid_column:
        said.append(f"the added transaction id is now called {after.xid_column!r}, before {before.xid_column!r}")
    return tuple(said)


def _named(column: Mapping[str, Any]) -> str:
    return f"{column['name']!r} ({column['declared']})"


def _key(described: Description) -> str:
    return f"({', '.join(described.primary_key)})" if described.primary_key else "none"


def _added(column: Mapping[str, Any]) -> str:
    if column.get("missing") is not None:
        return "rows copied before hold its default, which this object's footer keeps"
    if column.get("generated") == "virtual":
        return "rows copied before do not hold what it computes"
    return "rows copied before hold NULL unless they come again"


def _changed(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    said = []
    name = now["name"]
    if was["name"] != name:
        said.append(f"column {was['name']!r} is now called {name!r}")
    if any(was[part] != now[part] for part in ("declared", "base", "typmod")):
        said.append(f"column {name!r} changed its type from {was['declared']} to {now['declared']}")
    if was["stored"] != now["stored"]:
        said.append(f"column {name!r} is stored as {now['stored']} from here on, before as {was['stored']}")
    if was["stored"] == now["stored"] and was.get("policy") != now.get("policy"):
        said.append(f"column {name!r} is copied by another policy from here on: {now.get('policy')}")
    if (was.get("generated"), was.get("generated_as")) != (now.get("generated"), now.get("generated_as")):
        how = f"computed by {now['generated_as']}" if now.get("generated") else "no longer computed"
        said.append(f"column {name!r} is now {how}; rows copied before keep the values they had")
    labels, former = now.get("labels") or (), was.get("labels") or ()
    if labels and former and (gone := [label for label in former if label not in labels]):
        lost = ", ".join(map(repr, gone))
        said.append(f"column {name!r} has no value {lost} any more; rows copied before keep the old text")
    if labels and former and (more := [label for label in labels if label not in former]):
        said.append(f"column {name!r} may hold {', '.join(map(repr, more))} now")
    return said
