"""Source tables: columns, relations, and the names by which SQL, messages and commands refer to a table.

Belongs here: what the catalog declares, as values, and every quoting function. Does not belong here: reading the
catalog (``postgres.catalog``) and how a column is stored (``column_types``).
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pg_bronze.core.value_policies import DEFAULT_POLICIES, Policies
from pg_bronze.errors import DataError, SettingsError
from pg_bronze.settings.choices import Mask

# Why a relation without rows of its own is skipped, after what it is.
WITHOUT_TRANSACTIONS = "whose rows carry no transaction id"
# The oid of a table that a run was requested for and that the catalog does not have: 0 is none in PostgreSQL.
GONE = 0
_LABEL = re.compile(r'(?:("(?:[^"]|"")+"|[^."]+)\.)?("(?:[^"]|"")+"|[^."]+)', re.DOTALL)


@dataclass(frozen=True)
class Column:
    """One column of a source table, as the catalog declares it.

    The attributes after ``collation`` are read when the table is copied, not for the whole catalog.

    Attributes:
        attnum: The column number. It survives a rename and is not reused after a drop.
        name: The name.
        declared: The type as psql shows it: ``numeric(10,2)``, ``mood``.
        base: The type after resolving domains: ``numeric``, ``_int4`` for built-in types, ``schema.name`` for others.
        typmod: The type modifier after resolving domains; -1 for none.
        not_null: Whether the column is declared NOT NULL. Since PostgreSQL 18, rows from before the constraint may
            still contain NULL.
        comment: The comment.
        collation: ``schema.name``, if it is not the default of the type.
        missing: The value of rows that were written before ``ADD COLUMN ... DEFAULT`` and not rewritten since, as the
            text of what is stored; None if there are no such rows.
        generated: ``stored`` or ``virtual``.
        generated_as: The expression of a generated column.
        identity: ``always`` or ``by default``.
        dimensions: The declared number of dimensions of an array, which PostgreSQL does not enforce.
        labels: The labels of an enum, or of an array of one, in sort order.
        deterministic: Whether equal texts have equal bytes under ``collation``; None without it, and in footers from
            before this entry.
        extension: The extension that the type ``base`` belongs to; None for an array, and in footers from before this
            entry.
        policies: How exceptional values are stored. Set from the table's options; not part of the catalog.
        mask: What is stored instead of the values; None stores them. Set from the table's options as well.
    """

    attnum: int
    name: str
    declared: str
    base: str
    typmod: int
    not_null: bool
    comment: str | None = None
    collation: str | None = None
    missing: str | None = None
    generated: str | None = None
    generated_as: str | None = None
    identity: str | None = None
    dimensions: int | None = None
    labels: tuple[str, ...] | None = None
    deterministic: bool | None = None
    extension: str | None = None
    policies: Policies = DEFAULT_POLICIES
    mask: Mask | None = None

    @property
    def ordered_as(self) -> str:
        """The base type, by which values are compared and printed; empty for a masked column, where neither happens."""
        return "" if self.mask else self.base

    @classmethod
    def from_description(cls, described: Mapping[str, Any]) -> "Column":
        """Return the column that a footer describes, without entries that this version does not know."""
        known = {name: described[name] for name in cls.__dataclass_fields__ if name in described}
        known["labels"] = tuple(known["labels"]) if known.get("labels") else None
        policies = {kind: value for kind, value in described.get("policy", {}).items() if kind in Policies._fields}
        known["mask"] = Mask(*described["mask"]) if described.get("mask") else None
        return cls(**known, policies=Policies(**policies))

    def catalog_fields(self) -> dict[str, Any]:
        """Return what the catalog declares, by attribute name; without what the options set."""
        # Not asdict(), which copies every value and takes 150 ms for 1,000 tables.
        return {name: value for name, value in vars(self).items() if name not in ("policies", "mask")}


@dataclass(frozen=True)
class Relation:
    """One physical table: an ordinary table, or one leaf of a partitioned table.

    ``page_count`` and ``toast_page_count`` are the current number of blocks after ``read_table``, and the planner's
    last estimate after ``read_catalog``. ``ordered_by`` has the columns that lead a usable index. ``moved_columns`` has
    the columns of a partition whose attnum is not that of the root: pairs of the root's attnum and its own.
    """

    oid: int
    schema: str
    name: str
    relfilenode: int
    page_count: int
    toast_page_count: int
    ordered_by: tuple[str, ...] = ()
    moved_columns: tuple[tuple[int, int], ...] = ()

    def own_attnum(self, attnum: int) -> int | None:
        """Return the attnum in this partition of a column of the root; None if it is the same."""
        return dict(self.moved_columns).get(attnum)

    @property
    def sql(self) -> str:
        """The quoted name with its schema."""
        return f"{quote(self.schema)}.{quote(self.name)}"


@dataclass(frozen=True)
class SourceTable:
    """One table of the source database, or a relation that is skipped.

    Attributes:
        oid: The oid of the table, or of the root of a partitioned table.
        schema: The schema.
        name: The name.
        partitioned: Whether it is a partitioned table.
        comment: The comment.
        columns: The columns in order of attnum, without dropped ones.
        primary_key: The columns of the primary key in key order; empty if there is none.
        relations: The table itself, or its leaves in order of oid; a partitioned table may have none.
        row_estimate: The planner's estimate of the number of rows; 0 if the table was never analyzed.
        skipped: Why the relation is skipped; None if it is copied.
        fingerprint: A text that changes with the definition, the relfilenodes and the set of leaves.
        caveats: What its objects do not contain, one sentence each, without periods; after ``read_catalog`` only.
        forbidden: It is skipped because the role lacks a right; ``skipped`` has the statement that grants it.
        excluded: The columns that the options leave out of ``columns``: pairs of attnum and name.
    """

    oid: int
    schema: str
    name: str
    partitioned: bool
    comment: str | None
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]
    relations: tuple[Relation, ...]
    row_estimate: float
    skipped: str | None
    fingerprint: str
    caveats: tuple[str, ...] = ()
    forbidden: bool = False
    excluded: tuple[tuple[int, str], ...] = ()

    @property
    def label(self) -> str:
        """The name in messages and in ``etl_control``; see ``label``."""
        return label(self.schema, self.name)

    @property
    def sql(self) -> str:
        """The quoted name with its schema."""
        return f"{quote(self.schema)}.{quote(self.name)}"

    @property
    def definition(self) -> list[Any]:
        """What Dagster's definitions are loaded again for if it changes: neither sizes nor leaves, files or grants."""
        return [
            *(self.schema, self.name, self.partitioned, self.comment, self.primary_key, self.skipped, self.caveats),
            [tuple(vars(column).values()) for column in self.columns],
        ]

    @property
    def types_by_attnum(self) -> dict[int, str]:
        """The base type of each column whose values may be compared with stored ones, by attnum."""
        return {column.attnum: column.ordered_as for column in self.columns}

    @property
    def names_by_attnum(self) -> dict[int, str]:
        """The name of each column, by attnum."""
        return {column.attnum: column.name for column in self.columns}

    def with_policies(self, policies: Policies) -> "SourceTable":
        """Return the table with these policies set for all its columns."""
        return replace(self, columns=tuple(replace(column, policies=policies) for column in self.columns))

    def to_json(self) -> dict[str, Any]:
        """Return the table as plain JSON, without what the options set."""
        return {
            **{name: value for name, value in vars(self).items() if name != "excluded"},
            "columns": [
                {name: value for name, value in column.catalog_fields().items() if value is not None}
                for column in self.columns
            ],
            "primary_key": list(self.primary_key),
            "relations": [
                {
                    **vars(relation),
                    "ordered_by": list(relation.ordered_by),
                    "moved_columns": [list(pair) for pair in relation.moved_columns],
                }
                for relation in self.relations
            ],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "SourceTable":
        """Return the table that ``to_json`` wrote."""
        return cls(
            **{
                **data,
                "columns": tuple(Column.from_description(column) for column in data["columns"]),
                "primary_key": tuple(data["primary_key"]),
                "relations": tuple(_relation(relation) for relation in data["relations"]),
                "caveats": tuple(data.get("caveats", ())),
            }
        )


def _relation(data: Mapping[str, Any]) -> Relation:
    moved = tuple((root, own) for root, own in data.get("moved_columns", ()))
    return Relation(**{**data, "ordered_by": tuple(data.get("ordered_by", ())), "moved_columns": moved})


def label(schema: str, name: str) -> str:
    """Return the name of a table for messages: ``movie``, or ``sales.movie`` outside ``public``.

    A part that contains a dot or a double quote is quoted, so that no two tables share a label.
    """
    parts = (name,) if schema == "public" else (schema, name)
    return ".".join(quote(part) if set(part) & set('."') else part for part in parts)


def split_label(text: str) -> tuple[str, str]:
    """Return the schema and the name of a label, which may include the schema ``public``.

    Raises:
        SettingsError: The text is not a label.
    """
    found = _LABEL.fullmatch(text)
    if found is None:
        raise SettingsError(
            f"{text!r} is not a table name. Write movie, or sales.movie outside the schema public. Put a part that "
            'contains a dot or a double quote in double quotes: sales."movie.old".'
        )
    parts = [part[1:-1].replace('""', '"') if part.startswith('"') else part for part in found.groups() if part]
    return (parts[0], parts[1]) if len(parts) == 2 else ("public", parts[0])


def shell_argument(label: str) -> str:
    """Return a label as an argument of a shell command, for commands in messages: ``'sales."movie.old"'``."""
    quoted = shlex.quote(label)
    return f"-- {quoted}" if label.startswith("-") else quoted


def quote(identifier: str) -> str:
    """Return one quoted SQL identifier.

    Raises:
        SettingsError: The identifier is empty or contains a NUL character.
    """
    if not identifier or "\0" in identifier:
        raise SettingsError("An identifier is empty or contains a NUL character. PostgreSQL allows neither.")
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return one SQL string literal, for queries that take no parameters.

    Backslashes are not escaped, which requires ``standard_conforming_strings = on``.

    Raises:
        DataError: The text contains a NUL character.
    """
    if "\0" in text:
        raise DataError("A text contains a NUL character, which PostgreSQL cannot store or compare.")
    return "'" + text.replace("'", "''") + "'"
