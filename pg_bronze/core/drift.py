"""Drift: what changed in a table's columns between two slices, as sentences, and the description of columns in footers.

Belongs here: describing the rows of an object as plain JSON, and comparing two descriptions. Does not belong here:
reading columns (``postgres.catalog``), and finding the previous description (``sync.column_history``).
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pg_bronze.core.column_types import applicable_policies, rule, xid_column
from pg_bronze.core.key_identity import CITEXT
from pg_bronze.core.table import Column, SourceTable

_UNTIL_COPIED = "; rows copied earlier have NULL until they are copied again"
_DIGESTED = ("attnum", "name", "base", "typmod", "stored", "policy", "missing", "generated", "generated_as", "labels")


@dataclass(frozen=True)
class Description:
    """The rows of one object, described as plain JSON.

    Attributes:
        columns: The columns, as ``describe_columns`` returns them.
        primary_key: The names of the key columns, in key order.
        xid_column: The name of the added column.
        table: The schema, name and comment of the table.
    """

    columns: tuple[Mapping[str, Any], ...]
    primary_key: tuple[str, ...]
    xid_column: str
    table: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def digest(self) -> str:
        """A short text that changes when a reader must treat the columns differently; comments do not count."""
        compared = [[column.get(name) for name in _digested(column)] for column in self.columns]
        # Only where it matters, so that the digests of other tables are those of earlier versions.
        excluded = [sorted(self.excluded)] if self.excluded else []
        text = json.dumps([compared, self.primary_key, self.xid_column, *excluded], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def excluded(self) -> Mapping[int, str]:
        """The names of the columns that the options excluded, by attnum."""
        return dict(self.table.get("excluded", ()))

    @property
    def source_columns(self) -> tuple[Column, ...]:
        """The columns as the catalog declared them."""
        return tuple(Column.from_description(column) for column in self.columns)


def _digested(column: Mapping[str, Any]) -> tuple[str, ...]:
    # Only where it matters, so that the digests of other columns are those of earlier versions.
    deterministic = ("deterministic",) if column.get("deterministic") is False else ()
    extension = ("extension",) if column.get("extension") == CITEXT else ()
    mask = ("mask",) if column.get("mask") else ()
    return (*_DIGESTED, *deterministic, *extension, *mask)


def describe_columns(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Describe columns for a footer: the declaration, the stored type, and the policies.

    Entries without a value are omitted: the footer is uncompressed, and most objects have few rows.
    """
    return [_describe_column(column) for column in columns]


def _describe_column(column: Column) -> dict[str, Any]:
    described = {name: value for name, value in column.catalog_fields().items() if value is not None}
    if column.labels is not None:
        described["labels"] = list(column.labels)
    described["stored"] = str(rule(column).stored)
    if policies := applicable_policies(column):
        described["policy"] = policies
    if column.mask:
        described["mask"] = [part for part in column.mask if part is not None]
    return described


def describe_table(table: SourceTable) -> Description:
    """Describe the rows of a table as they are stored now."""
    return Description(
        columns=tuple(describe_columns(table.columns)),
        primary_key=table.primary_key,
        xid_column=xid_column(table.columns),
        table={
            "schema": table.schema,
            "name": table.name,
            "comment": table.comment,
            "partitioned": table.partitioned,
            **({"excluded": [list(column) for column in table.excluded]} if table.excluded else {}),
        },
    )


def catalog_changes(before: SourceTable, after: SourceTable) -> tuple[str, ...]:
    """Return what changed between two reads of the catalog, one sentence each.

    Stored types are not compared, because that needs Polars, which the code server does not import.
    """
    return drift(_describe_declaration(before), _describe_declaration(after), rows=False)


def _describe_declaration(table: SourceTable) -> Description:
    return Description(
        columns=tuple({**column.catalog_fields(), "stored": None} for column in table.columns),
        primary_key=table.primary_key,
        xid_column=xid_column(table.columns),
    )


def drift(before: Description, after: Description, rows: bool = True) -> tuple[str, ...]:
    """Return what changed between two slices of a table, one sentence each.

    Columns are matched by attnum, so a renamed column is not reported as dropped and added.

    Args:
        before: The previous slice.
        after: The current slice.
        rows: Whether to add what an added column contains in the rows copied before.
    """
    old = {column["attnum"]: column for column in before.columns}
    new = {column["attnum"]: column for column in after.columns}
    sentences = [
        f"column {_named(column)} {'is excluded now' if attnum in after.excluded else 'was dropped'}"
        for attnum, column in old.items()
        if attnum not in new
    ]
    for attnum, column in new.items():
        if attnum in before.excluded:
            sentences.append(f"column {_named(column)} is not excluded any more{_UNTIL_COPIED if rows else ''}")
        elif attnum not in old:
            consequence = f"; {_in_copied_rows(column)}" if rows else ""
            sentences.append(f"column {_named(column)} was added{consequence}")
    for attnum, column in old.items():
        if attnum in new:
            sentences += _column_drift(column, new[attnum])
    if before.primary_key != after.primary_key:
        sentences.append(f"the primary key changed from {_key(before)} to {_key(after)}")
    if before.xid_column != after.xid_column:
        sentences.append(f"the added column was renamed from {before.xid_column!r} to {after.xid_column!r}")
    return tuple(sentences)


def _named(column: Mapping[str, Any]) -> str:
    return f"{column['name']!r} ({column['declared']})"


def _key(described: Description) -> str:
    return f"({', '.join(described.primary_key)})" if described.primary_key else "none"


def _in_copied_rows(column: Mapping[str, Any]) -> str:
    if column.get("missing") is not None:
        return "rows copied earlier have its default, which is in this object's footer"
    if column.get("generated") == "virtual":
        return "rows copied earlier do not have its computed values"
    return _UNTIL_COPIED.removeprefix("; ")


def _column_drift(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    name = new["name"]
    if old["name"] != name:
        yield f"column {old['name']!r} was renamed to {name!r}"
    if any(old[part] != new[part] for part in ("base", "typmod")) or not _same_declaration(old, new):
        yield f"column {name!r} changed its type from {old['declared']} to {new['declared']}"
    if old.get("mask") != new.get("mask"):
        how = f"masked by {new['mask'][0]} now" if new.get("mask") else "not masked any more"
        yield f"column {name!r} is {how}; rows copied earlier keep what was stored"
    if old["stored"] != new["stored"]:
        yield f"column {name!r} is now stored as {new['stored']}, previously as {old['stored']}"
    elif old.get("policy") != new.get("policy"):
        yield f"column {name!r} is now stored by another policy: {new.get('policy')}"
    if (old.get("generated"), old.get("generated_as")) != (new.get("generated"), new.get("generated_as")):
        how = f"computed as {new['generated_as']}" if new.get("generated") else "no longer computed"
        yield f"column {name!r} is now {how}; rows copied earlier keep their values"
    yield from _label_drift(name, old.get("labels") or (), new.get("labels") or ())


def _same_declaration(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    # Older objects omit the schema of a type that the role's search_path contained.
    return new["declared"] == old["declared"] or str(new["declared"]).endswith(f".{old['declared']}")


def _label_drift(name: str, old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    if not old or not new:
        return
    if removed := [label for label in old if label not in new]:
        yield (
            f"column {name!r} no longer allows {', '.join(map(repr, removed))}; rows copied earlier keep the old text"
        )
    if added := [label for label in new if label not in old]:
        yield f"column {name!r} now also allows {', '.join(map(repr, added))}"
