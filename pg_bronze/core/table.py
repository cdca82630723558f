"""TODO core.table."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pg_bronze.core.value_policies import LOSSLESS, Policies
from pg_bronze.errors import DataError, SettingsError

_LABEL = re.compile(r'(?:("(?:[^"]|"")+"|[^."]+)\.)?("(?:[^"]|"")+"|[^."]+)', re.DOTALL)


@dataclass(frozen=True)
class Column:
    """One column of a source table, as the catalog declares it.

    What follows the collation is read for one table at a time only, when its rows are.
    """

    attnum: int  # stays the same through a rename, and is never used again after a drop
    name: str
    declared: str  # as psql shows it: "numeric(10,2)", "mood"
    base: str  # domains resolved: "numeric", "int4", "_int4" for built-in types, "schema.name" for others
    typmod: int  # domains resolved; -1 for none
    not_null: bool  # since PostgreSQL 18 also while rows from before the constraint may still hold NULL
    comment: str | None = None
    collation: str | None = None  # "schema.name" where it is not the type's default
    # What a row written before ADD COLUMN … DEFAULT holds without having been rewritten, as the text of what is stored;
    # None where there is no such value, or a rewrite of the table has put it into every row since.
    missing: str | None = None
    generated: str | None = None  # "stored", "virtual"
    generated_as: str | None = None  # the expression it is computed by
    identity: str | None = None  # "always", "by default"
    dimensions: int | None = None  # of an array as it was declared; PostgreSQL does not enforce it
    labels: tuple[str, ...] | None = None  # of an enum, or of an array's, in sort order
    policies: Policies = LOSSLESS  # set by the table's options, and no part of the catalog

    @classmethod
    def from_description(cls, described: Mapping[str, Any]) -> "Column":
        """The column a footer describes; what this version does not know is left out."""
        known = {name: described[name] for name in cls.__dataclass_fields__ if name in described}
        known["labels"] = tuple(known["labels"]) if known.get("labels") else None
        given = {kind: said for kind, said in described.get("policy", {}).items() if kind in Policies._fields}
        return cls(**known, policies=Policies(**given))


@dataclass(frozen=True)
class Relation:
    """One physical table: an ordinary table, or one leaf of a partitioned table.

    ``page_count`` and ``toast_page_count`` are blocks of the file as it is now when ``read_table`` looked,
    and the planner's last estimate when ``read_catalog`` did.
    """

    oid: int
    schema: str
    name: str
    relfilenode: int
    page_count: int
    toast_page_count: int

    @property
    def sql(self) -> str:
        """The relation as SQL names it, quoted and with its schema."""
        return f"{quote(self.schema)}.{quote(self.name)}"


@dataclass(frozen=True)
class SourceTable:
    """One table of the source database, or something like a table that is skipped for the reason in ``skipped``."""

    oid: int
    schema: str
    name: str
    partitioned: bool
    comment: str | None
    columns: tuple[Column, ...]  # dropped ones left out, by attnum
    primary_key: tuple[str, ...]  # in key order; empty if there is none
    relations: tuple[Relation, ...]  # itself, or its leaves by oid; a partitioned table may have none
    row_estimate: float  # what the planner last knew; 0 for never analyzed
    skipped: str | None
    fingerprint: str  # differs after any change to the definition, the files or the set of leaves

    @property
    def label(self) -> str:
        """The name for messages and ``etl_control``: ``movie``, or ``sales.movie`` outside ``public``.

        A part that holds a dot or a quote is quoted, so that no two tables share a label.
        """
        return label(self.schema, self.name)

    @property
    def sql(self) -> str:
        """The table as SQL names it, quoted and with its schema."""
        return f"{quote(self.schema)}.{quote(self.name)}"

    def under(self, given: Policies) -> "SourceTable":
        """The same table with the policies that its columns are copied by."""
        return replace(self, columns=tuple(replace(column, policies=given) for column in self.columns))

    def to_json(self) -> dict[str, Any]:
        """Give the table as plain dicts, lists, strings and numbers, without policies."""
        # Not asdict(), which copies every value and takes 150 ms for 1,000 tables.
        return {
            **vars(self),
            "columns": [
                {name: value for name, value in declared_as(column).items() if value is not None}
                for column in self.columns
            ],
            "primary_key": list(self.primary_key),
            "relations": [dict(vars(relation)) for relation in self.relations],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "SourceTable":
        """Read what ``to_json`` gave, with or without a turn through JSON text."""
        return cls(
            **{
                **data,
                "columns": tuple(Column.from_description(column) for column in data["columns"]),
                "primary_key": tuple(data["primary_key"]),
                "relations": tuple(Relation(**relation) for relation in data["relations"]),
            }
        )


def declared_as(column: Column) -> dict[str, Any]:
    """What the catalog says of a column."""
    said = dict(vars(column))
    del said["policies"]
    return said


def label(schema: str, name: str) -> str:
    """Name a table as ``SourceTable.label`` does."""
    parts = (name,) if schema == "public" else (schema, name)
    return ".".join(quote(part) if set(part) & set('."') else part for part in parts)


def split_label(text: str) -> tuple[str, str]:
    """Give schema and name of a label: the inverse of ``label``; ``public`` may be written too."""
    found = _LABEL.fullmatch(text)
    if found is None:
        raise SettingsError(
            f"{text!r} names no table. It must be movie, or sales.movie outside the schema public; a part that holds a "
            'dot or a double quote goes into double quotes: sales."movie.old".'
        )
    parts = [part[1:-1].replace('""', '"') if part.startswith('"') else part for part in found.groups() if part]
    return (parts[0], parts[1]) if len(parts) == 2 else ("public", parts[0])


def argument(label: str) -> str:
    """Write a label as an argument of a command that a message tells somebody to run: ``'sales."movie.old"'``."""
    quoted = shlex.quote(label)
    return f"-- {quoted}" if label.startswith("-") else quoted


def quote(identifier: str) -> str:
    """Quote one identifier for SQL; different identifiers stay different."""
    if not identifier or "\0" in identifier:
        raise SettingsError("An identifier is empty or holds a NUL character; PostgreSQL allows neither.")
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Render one string literal for SQL that cannot be given parameters.

    Backslashes stand for themselves, which needs ``standard_conforming_strings = on``, PostgreSQL's default.
    """
    if "\0" in text:
        raise DataError("A text holds a NUL character, which PostgreSQL cannot store or compare.")
    return "'" + text.replace("'", "''") + "'"
