"""The catalog: which tables a database has, how they are defined, and why some of them cannot be copied.

Reads the system catalogs through an open connection whose client_encoding is UTF8 (with SQL_ASCII psycopg returns text
as bytes). Errors of the connection pass through as psycopg raises them.
"""

import dataclasses
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import psycopg
from psycopg.rows import DictRow, dict_row

from pg_bronze.core import caveats
from pg_bronze.core.table import WITHOUT_TRANSACTIONS, Column, Relation, SourceTable, quote
from pg_bronze.errors import SourceNotFit
from pg_bronze.postgres import catalog_query, unreadable_tables

_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}
_PROVIDERS = {"b": "builtin", "c": "libc", "i": "icu"}
_RELATION_FIELDS = ("oid", "schema", "name", "relfilenode", "page_count", "toast_page_count")


@dataclass(frozen=True)
class Catalog:
    """Every table of one database, copied or skipped, ordered by schema and name; without the control table."""

    database: str
    database_oid: int
    server_version: int  # 150018 for 15.18
    tables: tuple[SourceTable, ...]

    @property
    def fingerprint(self) -> str:
        """A digest that changes when a table or column is added, dropped or altered; sizes and leaves do not count."""
        return _digest([self.database, [table.definition for table in self.tables]])

    def table(self, schema: str, name: str) -> SourceTable | None:
        """Return the table of that name, or None if the catalog has none."""
        return next((table for table in self.tables if (table.schema, table.name) == (schema, name)), None)

    def to_text(self) -> str:
        """Return the catalog as JSON, for another process."""
        return self._text

    @cached_property
    def _text(self) -> str:
        data = {"database": self.database, "database_oid": self.database_oid, "server_version": self.server_version}
        return json.dumps(data | {"tables": [table.to_json() for table in self.tables]}, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> "Catalog":
        """Return the catalog that ``to_text`` wrote."""
        data = json.loads(text)
        return cls(**{**data, "tables": tuple(SourceTable.from_json(table) for table in data["tables"])})


def read_catalog(conn: psycopg.Connection[Any]) -> Catalog:
    """Read the whole catalog of the connection's database, in a few round trips."""
    with conn.cursor(row_factory=dict_row) as cursor:
        where = cursor.execute("select datname, oid from pg_database where datname = current_database()").fetchone()
    if where is None:
        raise SourceNotFit("pg_database has no row for the connection's own database. The server is not PostgreSQL.")
    tables = _with_caveats(conn, unreadable_tables.tables(conn, _read))
    tables.sort(key=lambda table: (table.schema, table.name))
    return Catalog(where["datname"], where["oid"], conn.info.server_version, tuple(tables))


def tables_mark(conn: psycopg.Connection[Any]) -> tuple[int, int]:
    """Return the number of tables and the highest oid among them: they change when a table is created or dropped."""
    query = b"select count(*), coalesce(max(oid::bigint), 0) from pg_class where relkind in ('r', 'p')"
    count, newest = conn.execute(query + b" and relpersistence <> 't'").fetchone() or (0, 0)
    return int(count), int(newest)


def _with_caveats(conn: psycopg.Connection[Any], tables: list[SourceTable]) -> list[SourceTable]:
    labels = {table.oid: table.label for table in tables}
    composite, heirs = defaultdict(set), defaultdict(list)
    for oid, attnum, heir in conn.execute(catalog_query.CAVEATS.encode()).fetchall():
        if attnum is not None:
            composite[oid].add(attnum)
        elif heir in labels:
            heirs[oid].append(labels[heir])
    found = ((table, (table.columns, composite[table.oid], sorted(heirs[table.oid]))) for table in tables)
    return [dataclasses.replace(table, caveats=caveats.sentences(*parts)) for table, parts in found]


def _read(conn: psycopg.Connection[Any], which: str) -> list[SourceTable]:
    query = catalog_query.render(which, catalog_query.ESTIMATED, "null")
    with conn.cursor(row_factory=dict_row) as cursor:
        return list(_tables(cursor.execute(query.encode()).fetchall()))


def read_table(conn: psycopg.Connection[Any], schema: str, name: str) -> SourceTable | None:
    """Read one table with the sizes of its files.

    The query waits while another session holds the table in access exclusive mode.

    Returns:
        None if there is no such table. Two equal fingerprints mean that the table was not changed in between.
    """
    which = "n.nspname = %s and c.relname = %s"
    query = catalog_query.render(which, catalog_query.MEASURED, catalog_query.DETAILS)
    with conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(query.encode(), (schema, name)).fetchall()
    return next(_tables(rows), None)


def describe_database(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a footer records of the database: its name, encoding and locale.

    Args:
        row: The row of ``pg_database`` that ``catalog_query.DATABASE`` returns.
    """
    provider = row.get("datlocprovider")  # since PostgreSQL 15
    return {
        "name": row["datname"],
        "encoding": row["encoding"],
        "collation": row["datcollate"],
        "character_type": row["datctype"],
        "locale_provider": _PROVIDERS.get(provider, provider) if provider else None,
        "locale": row.get("datlocale", row.get("daticulocale")),
        "collation_version": row.get("datcollversion"),
    }


def _tables(rows: list[DictRow]) -> Iterator[SourceTable]:
    for root, group in groupby(rows, key=lambda row: row["root"]):
        nodes = list(group)
        yield _table(next(node for node in nodes if node["oid"] == root), nodes)


def _table(root: DictRow, nodes: list[DictRow]) -> SourceTable:
    leaves = [node for node in nodes if node["kind"] != "p"]
    columns = tuple(_column(values) for values in root["columns"] or ())
    names = {column.attnum: column.name for column in columns}
    skipped, forbidden = _skipped(root, nodes, columns)
    return SourceTable(
        oid=root["oid"],
        schema=root["schema"],
        name=root["name"],
        partitioned=root["kind"] == "p",
        comment=root["comment"],
        columns=columns,
        primary_key=tuple(names[attnum] for attnum in root["key"] or ()),
        relations=tuple(_relation(leaf) for leaf in leaves),
        row_estimate=sum(max(leaf["row_estimate"], 0.0) for leaf in leaves),
        skipped=skipped,
        fingerprint=_fingerprint(nodes, columns),
        forbidden=forbidden,
    )


def _relation(node: DictRow) -> Relation:
    fields = {name: node[name] for name in _RELATION_FIELDS}
    moved = tuple((root, own) for root, own in node["moved_columns"] or ())
    return Relation(**fields, ordered_by=tuple(sorted(node["ordered_by"])), moved_columns=moved)


def _fingerprint(nodes: list[DictRow], columns: tuple[Column, ...]) -> str:
    # ``versions`` has the xmin of catalog rows, the transactions that last wrote the definition. VACUUM and ANALYZE
    # update their statistics in place and keep it. A rename there and back is two writes.
    return _digest(
        [
            [[node["oid"], node["relfilenode"], node["versions"]] for node in nodes],
            [(column.name, column.declared, column.base, column.typmod) for column in columns],
        ]
    )


def _column(values: list[Any]) -> Column:
    column = Column(*values)
    return dataclasses.replace(column, labels=tuple(column.labels)) if column.labels else column


def _skipped(root: DictRow, nodes: list[DictRow], columns: tuple[Column, ...]) -> tuple[str | None, bool]:
    """Return why a table cannot be copied, as a sentence without a period, and whether the cause is a missing right.

    None if it can be copied.
    """
    if kind := _KINDS.get(root["kind"]):
        return f"it is {kind}, {WITHOUT_TRANSACTIONS}", False
    for node in nodes:
        if node["kind"] == "p" and node is not root:
            continue  # rows are read through the root or from a leaf, never through a table in between
        what = "it" if node is root else f"its partition {node['schema']}.{node['name']}"
        if reason := _unreadable(node):
            return f"{what} {reason}", False
        if reason := _forbidden(node, root["kind"] == "p", columns):
            return f"{what} {reason}", True
    return None, False


def _unreadable(node: DictRow) -> str | None:
    """Return why one relation of a table cannot be read exactly, as a predicate without its subject."""
    if kind := _KINDS.get(node["kind"]):
        return f"is {kind}, {WITHOUT_TRANSACTIONS}"
    if node["kind"] == "r" and node["method"] != "heap":
        return f"uses the access method {node['method']}; only heap stores the transaction id of a row"
    if node["persistence"] == "u" and node["standby"]:
        return "is unlogged, and a standby has no rows of unlogged tables; read it from the primary"
    return None


def _forbidden(node: DictRow, partitioned: bool, columns: tuple[Column, ...]) -> str | None:
    """Return which right the role lacks on a relation, and the statement that grants it."""
    role, relation = quote(node["role"]), f"{quote(node['schema'])}.{quote(node['name'])}"
    if not node["may_enter"]:
        return f"is in a schema that this role may not use; grant usage on schema {quote(node['schema'])} to {role}"
    system = ("xmin", "ctid", "tableoid") if partitioned else ("xmin", "ctid")
    wanted = [*system, *(column.name for column in columns)]
    hidden = [name for name in wanted if name in set(node["hidden"] or ())]
    if len(hidden) == len(wanted):
        return f"may not be read by this role; grant select on {relation} to {role}"
    if hidden:
        names = ", ".join(name if name in system else quote(name) for name in hidden)
        return (
            f"has columns that this role may not read; grant select on {relation} to {role}, "
            f"or grant select ({names}) on {relation} to {role}"
        )
    if node["filtered"]:
        return (
            "has row-level security, which would hide rows from this role; "
            f"alter role {role} bypassrls, or read as the owner where the table does not force it"
        )
    return None


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, separators=(",", ":")).encode()).hexdigest()[:32]
