"""Schema: what a source table looks like, and how each of its columns travels into Parquet.

No connection, no clock, no Dagster, no psycopg: the catalog fills these values in, and all of it is tested
with literals. Polars is imported only by what touches data: every process that knows the catalog imports this module.
"""

import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import chain, count
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pg_bronze import policies
from pg_bronze.errors import DataError, SettingsError, TableChanged
from pg_bronze.policies import LOSSLESS, Exceptional, Policies

if TYPE_CHECKING:
    import polars as pl

XID_NAME = "_pg_xid"
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
                {name: value for name, value in _declared(column).items() if value is not None}
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


def _declared(column: Column) -> dict[str, Any]:
    """What the catalog says of a column."""
    said = dict(vars(column))
    del said["policies"]
    return said


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


@dataclass(frozen=True)
class Rule:
    """How one column travels: the SQL that reads it, what connectorx makes of that, and what is stored.

    ``{c}`` stands for the column in ``expression``.
    """

    expression: str
    read: "pl.DataType"
    stored: "pl.DataType"


_TEXT: dict[str, str] = {
    "money": "{c}::numeric::text",  # money's own text depends on lc_monetary
    "_money": "{c}::numeric[]::text",
    "inet": "abbrev({c}::inet)",  # what psql prints; ::text would add /32 to a host
}


@cache
def _native() -> "dict[str, pl.DataType]":
    # Only types that connectorx 0.4.6 reads exactly under the binary protocol. It rounds numeric to ten decimals,
    # sends json through float64, turns time 24:00 into 00:00 and panics on 51 further types: those travel as text.
    import polars as pl

    return {
        "bool": pl.Boolean(),
        "int2": pl.Int16(),
        "int4": pl.Int32(),
        "int8": pl.Int64(),
        "oid": pl.UInt32(),
        "float4": pl.Float32(),
        "float8": pl.Float64(),
        "text": pl.String(),
        "varchar": pl.String(),
        "bpchar": pl.String(),
        "name": pl.String(),
        "uuid": pl.String(),
        "bytea": pl.Binary(),
        "date": pl.Date(),
        "timestamp": pl.Datetime("us"),
        "timestamptz": pl.Datetime("us", "UTC"),
    }


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


def rule(column: Column) -> Rule:
    """Decide how a column travels.

    Every expression casts to the type it expects, even where the column already has it: connectorx asks for
    the types first and for the rows later, and an ALTER TYPE in between would be read as the old type's bytes.
    """
    import polars as pl

    if "text" in policy(column).values():
        return Rule("{c}::text", pl.String(), pl.String())
    if last := policies.FIRST_LATE.get(column.base):
        cast, moment = f"{{c}}::{column.base}", f"'{last}'::{column.base}"
        # What connectorx could not decode or would take for infinity is sent as the last value before that: 25 ns a
        # value on the server. NULL falls through to the end.
        bounded = f"case when {cast} < {moment} then {cast} when isfinite({cast}) then {moment} else {cast} end"
        return Rule(bounded, _native()[column.base], _native()[column.base])
    if native := _native().get(column.base):
        return Rule(f"{{c}}::{column.base}", native, native)
    if decimal := _decimal(column):
        return Rule("{c}::text", pl.String(), decimal)
    return Rule(_TEXT.get(column.base, "{c}::text"), pl.String(), pl.String())


def policy(column: Column) -> dict[policies.Kind, policies.Policy]:
    """What is done with each kind of value that the column can hold and its own Parquet type cannot."""
    kinds = policies.kinds(column.base, _decimal(column) is not None)
    return {kind: getattr(column.policies, kind) for kind in kinds}


def _decimal(column: Column) -> "pl.Decimal | None":
    """Give the type that holds every number of a numeric(p,s); None without p, beyond 38 digits or for other types."""
    import polars as pl

    typmod = column.typmod
    if column.base != "numeric" or typmod < 4:
        return None
    precision = (typmod - 4) >> 16 & 0xFFFF
    scale = ((typmod - 4 & 0x7FF) ^ 1024) - 1024  # signed since PostgreSQL 15, and the same bits before
    digits = max(precision, scale) if scale >= 0 else precision - scale
    return pl.Decimal(digits, max(scale, 0)) if digits <= 38 else None


def projection(columns: Sequence[Column], relation_alias: str = "t", as_text: bool = False) -> str:
    """Write the select list for the columns, each cast and named: ``t."c"::int4 as "c"``.

    ``as_text`` gives the text of what would be stored instead.
    """
    alias = quote(relation_alias) if relation_alias != "t" else "t"
    cast = "({})::text" if as_text else "{}"
    return ", ".join(
        f"{cast.format(rule(column).expression.format(c=f'{alias}.{quote(column.name)}'))} as {quote(column.name)}"
        for column in columns
    )


def projection_as(wanted: Sequence[Column], present: Sequence[Column]) -> str:
    """Write the select list that gives the columns as they once were, from those the table has now.

    They are told apart by attnum. A dropped column is NULL; one whose type has changed goes through its text, which
    every type has a cast from.
    """
    now = {column.attnum: column for column in present}
    return ", ".join(
        f"{rule(column).expression.format(c=_as_before(column, now.get(column.attnum)))} as {quote(column.name)}"
        for column in wanted
    )


def _as_before(column: Column, now: Column | None) -> str:
    if now is None:
        return "null::text"
    return f"t.{quote(now.name)}" if now.base == column.base else f"t.{quote(now.name)}::text"


_FIXED_BYTES = {
    "bool": 1, "int2": 2, "int4": 4, "oid": 4, "float4": 4, "date": 4, "int8": 8, "float8": 8, "timestamp": 8,
    "timestamptz": 8, "time": 8, "timetz": 12, "interval": 16, "uuid": 16, "money": 8, "macaddr": 6, "macaddr8": 8,
    "point": 16, "lseg": 32, "box": 32, "line": 24, "circle": 24, "name": 64, "char": 1, "xid": 4, "xid8": 8, "cid": 4,
    "tid": 6, "pg_lsn": 8,
}  # fmt: skip
_SHORT_TYPMOD = 64


def memory_bytes(columns: Sequence[Column]) -> int:
    """Bytes that one row takes at least, in a frame or on its way, whatever is NULL or empty in it."""
    return sum(4 + _FIXED_BYTES.get(column.base, 12) for column in columns)


def widths(columns: Sequence[Column]) -> list[str]:
    """SQL for the bytes of each column that can hold a value of any size, NULL for NULL."""
    return [_width(column) for column in columns if not _is_narrow(column)]


def _is_narrow(column: Column) -> bool:
    if column.base in {"varchar", "bpchar"}:
        return 0 <= column.typmod - 4 <= _SHORT_TYPMOD
    return column.base in _FIXED_BYTES or (column.base == "numeric" and column.typmod >= 0)


def _width(column: Column) -> str:
    name = f"t.{quote(column.name)}"
    if column.base in {"text", "varchar", "bpchar", "bytea"}:
        return f"octet_length({name})"  # known without fetching or decompressing the value
    return f"octet_length(({rule(column).expression.format(c=name)})::text)"


def read_schema(columns: Sequence[Column]) -> "pl.Schema":
    """Give the schema in which connectorx returns the projection."""
    import polars as pl

    return pl.Schema([(column.name, rule(column).read) for column in columns])


def stored_schema(columns: Sequence[Column]) -> "pl.Schema":
    """Give the schema in which the columns are written to Parquet."""
    import polars as pl

    return pl.Schema([(column.name, rule(column).stored) for column in columns])


def xid_column(columns: Sequence[Column]) -> str:
    """Name the transaction id column added to every row: ``_pg_xid``, or ``_pg_xid_1`` if the source has that one."""
    taken = {column.name for column in columns}
    names = chain([XID_NAME], (f"{XID_NAME}_{number}" for number in count(1)))
    return next(name for name in names if name not in taken)


def no_rows(columns: Sequence[Column]) -> "pl.DataFrame":
    """Give a slice of these columns without a row."""
    import polars as pl

    return pl.DataFrame(schema={**stored_schema(columns), xid_column(columns): pl.Int64()})


def conform(
    frame: "pl.DataFrame", columns: Sequence[Column], label: str
) -> "tuple[pl.DataFrame, tuple[Exceptional, ...]]":
    """Turn what was read into what is stored; the second part counts values that a policy was applied to.

    The frame holds exactly the columns of the projection, and after them perhaps the transaction id column. Raises
    DataError for values that the policy refuses, TableChanged for what only an ALTER during the read can bring about;
    both name the table ``label`` and the column.
    """
    import polars as pl

    expected = list(read_schema(columns).items())
    if frame.width == len(expected) + 1:
        expected.append((xid_column(columns), pl.Int64()))
    found = list(frame.schema.items())
    if found != expected:
        names = ", ".join(repr(name) for name, dtype in found if (name, dtype) not in expected) or "the order"
        raise DataError(
            f"{label}: the columns read are not the columns asked for (different: {names}). "
            "The table was altered during the read, or the reader was given another projection."
        )
    stored: list[pl.Series] = []
    counted: list[Exceptional] = []
    for column in columns:
        if policy(column):
            values, exceptional = _stored(frame[column.name], column, label)
            stored.append(values)
            counted += exceptional
    return frame.with_columns(stored), tuple(counted)


def _stored(values: "pl.Series", column: Column, label: str) -> "tuple[pl.Series, tuple[Exceptional, ...]]":
    wanted = rule(column).stored
    if values.dtype == wanted:
        return policies.settle(values, column.base, column.policies, label, column.declared)
    if (number := _number(values, wanted)) is not None:
        return number, ()
    values, exceptional = policies.settle(values, column.base, column.policies, label, column.declared)
    if (number := _number(values, wanted)) is not None:
        return number, exceptional
    # The server keeps every number within a column's precision, so this is not about the data.
    raise TableChanged(
        f"{label}: column {column.name!r} ({column.declared}) was given more digits by an ALTER TABLE while it was "
        "read; the next tick looks again."
    )


def _number(text: "pl.Series", wanted: "pl.DataType") -> "pl.Series | None":
    """The text as decimals, None if one of them is not exactly that."""
    import polars as pl

    try:
        number = text.cast(wanted, strict=True)
    except pl.exceptions.InvalidOperationError:
        return None
    # Polars rounds surplus decimals away in silence, so compare with what the server printed.
    return number if (number.cast(pl.String) == text).all() else None


def describe(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Describe the columns for a footer: what the source declared, what is stored, and by which policy.

    What a column has not is left out: this stands uncompressed in every object, and most have few rows.
    """
    return [
        {name: list(said) if name == "labels" else said for name, said in _declared(column).items() if said is not None}
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
            columns=tuple({**_declared(column), "stored": None} for column in table.columns),
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
