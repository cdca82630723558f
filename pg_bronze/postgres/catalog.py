"""The catalog: which tables a database has, what they look like, and why some of them cannot be copied.

Reads the system catalogs through a connection somebody else opened, whose client_encoding must be UTF8 (psycopg gives
bytes for text otherwise). Needs no right beyond CONNECT, and works on a hot standby. Errors of the connection pass
through as psycopg raises them.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import psycopg
from psycopg.rows import DictRow, dict_row

from pg_bronze.core.table import Column, Relation, SourceTable, quote
from pg_bronze.errors import SourceNotFit

CONTROL_TABLE = "etl_control"
_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}


@dataclass(frozen=True)
class Catalog:
    """Every table of one database, copied or skipped, ordered by schema and name."""

    database: str
    database_oid: int
    server_version: int  # 150018 for 15.18
    tables: tuple[SourceTable, ...]

    @property
    def fingerprint(self) -> str:
        """A digest that differs when tables or columns come, go or change; sizes and leaves do not count."""
        seen = [
            [
                *(table.schema, table.name, table.partitioned, table.comment, table.primary_key, table.skipped),
                [tuple(vars(column).values()) for column in table.columns],
            ]
            for table in self.tables
        ]
        return _digest([self.database, seen])

    def table(self, schema: str, name: str) -> SourceTable | None:
        """Find a table by name; None if the database had none of that name."""
        return next((table for table in self.tables if (table.schema, table.name) == (schema, name)), None)

    def to_text(self) -> str:
        """Give the catalog as JSON text, to be handed to another process."""
        data = {"database": self.database, "database_oid": self.database_oid, "server_version": self.server_version}
        return json.dumps(data | {"tables": [table.to_json() for table in self.tables]}, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> "Catalog":
        """Read what ``to_text`` gave."""
        data = json.loads(text)
        return cls(**{**data, "tables": tuple(SourceTable.from_json(table) for table in data["tables"])})


# One statement, so one snapshot: definition and fingerprint always belong together. A row is one relation of a
# table: the table itself, and under a partitioned one every partition at any depth. The columns come with the root.
_QUERY = """
with recursive
domain as materialized (
  select oid, typbasetype as base, typtypmod as typmod
  from pg_type
  where typtype = 'd'
),
step as (
  select oid, base, typmod
  from domain
  union all
  select step.oid, d.base, case when step.typmod = -1 then d.typmod else step.typmod end
  from step join domain d on d.oid = step.base
),
resolved as materialized (
  select *
  from step
  where base not in (select oid from domain)
),
tree as (
  select c.oid as root, c.oid, ''::text as attached
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where {which}
    and c.relkind in ('r', 'p', 'v', 'm', 'f')
    and not c.relispartition
    and c.relpersistence <> 't'
    and c.relname <> 'etl_control'
    and n.nspname <> 'information_schema'
    and n.nspname !~ '^pg_'
  union all
  select tree.root, i.inhrelid, i.xmin::text
  from tree
  join pg_class p on p.oid = tree.oid and p.relkind = 'p'
  join pg_inherits i on i.inhparent = p.oid and not i.inhdetachpending
)
select tree.root, tree.oid, n.nspname as schema, c.relname as name, c.relkind as kind, c.relpersistence as persistence,
  c.relfilenode, c.reltuples as row_estimate, {pages}, am.amname as method, current_user as role,
  pg_is_in_recovery() as standby,
  has_schema_privilege(n.oid, 'usage') is not false as may_enter,
  row_security_active(c.oid) as filtered,
  case when has_table_privilege(c.oid, 'select') is not false then null else (
    select array_agg(a.attname::text order by a.attnum)
    from pg_attribute a
    where a.attrelid = c.oid
      and (a.attnum > 0 or a.attname in ('ctid', 'xmin', 'tableoid'))
      and not a.attisdropped
      and not has_column_privilege(c.oid, a.attnum, 'select')
  ) end as hidden,
  c.xmin::text || '/' || n.xmin::text || '/' || tree.attached || '/' || (
    select md5(coalesce(string_agg(a.attnum || ':' || a.xmin::text, ',' order by a.attnum), ''))
    from pg_attribute a
    where a.attrelid = c.oid and a.attnum > 0
  ) as versions,
  case when tree.oid = tree.root then obj_description(c.oid, 'pg_class') end as comment,
  case when tree.oid = tree.root then (
    select k.conkey
    from pg_constraint k
    where k.conrelid = c.oid and k.contype = 'p'
  ) end as key,
  case when tree.oid = tree.root and c.relkind in ('r', 'p') then (
    select json_agg(json_build_array(
        a.attnum, a.attname, format_type(a.atttypid, a.atttypmod),
        case when tn.nspname = 'pg_catalog' then t.typname::text else tn.nspname || '.' || t.typname end,
        coalesce(resolved.typmod, a.atttypmod), a.attnotnull, col_description(c.oid, a.attnum),
        (select co_n.nspname || '.' || co.collname
         from pg_collation co join pg_namespace co_n on co_n.oid = co.collnamespace
         where co.oid = a.attcollation and co.oid <> t.typcollation),
        {details}
      ) order by a.attnum)
    from pg_attribute a
    left join resolved on resolved.oid = a.atttypid
    join pg_type t on t.oid = coalesce(resolved.base, a.atttypid)
    join pg_namespace tn on tn.oid = t.typnamespace
    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
  ) end as columns
from tree
join pg_class c on c.oid = tree.oid
join pg_namespace n on n.oid = c.relnamespace
left join pg_class toast on toast.oid = c.reltoastrelid
left join pg_am am on am.oid = c.relam
order by tree.root, tree.oid
"""
# What a footer says of a column beyond that. The value of rows from before the column was there stands in the catalog
# as an array of one element, printed as the type does: here as it is stored. Its parts are joined again because an
# array of boxes does not quote its commas, which one of texts takes for its own.
_DETAILS = """case when a.atthasmissing then (
          select case
            when t.typnamespace <> 'pg_catalog'::regnamespace then m.value
            when t.typname = 'bool' then m.value::bool::text
            when t.typname = 'money' then m.value::money::numeric::text
            when t.typname = '_money' then m.value::money[]::numeric[]::text
            when t.typname = 'inet' then abbrev(m.value::inet)
            else m.value
          end
          from (select array_to_string(a.attmissingval::text::text[], ',') as value) m
        ) end,
        case a.attgenerated when 's' then 'stored' when 'v' then 'virtual' end,
        case when a.attgenerated <> '' then (
          select pg_get_expr(d.adbin, d.adrelid)
          from pg_attrdef d
          where d.adrelid = a.attrelid and d.adnum = a.attnum
        ) end,
        case a.attidentity when 'a' then 'always' when 'd' then 'by default' end,
        nullif(a.attndims, 0),
        (
          select json_agg(e.enumlabel order by e.enumsortorder)
          from pg_enum e
          where e.enumtypid in (t.oid, t.typelem)
        )"""
# Sizes of files are asked for one table at a time: for a whole database the planner's estimates are enough.
_ESTIMATED = "c.relpages as page_count, coalesce(toast.relpages, 0) as toast_page_count"
_MEASURED = """
  coalesce(pg_relation_size(c.oid), 0) / current_setting('block_size')::int as page_count,
  coalesce(pg_relation_size(toast.oid), 0) / current_setting('block_size')::int as toast_page_count"""


def read_catalog(conn: psycopg.Connection[Any]) -> Catalog:
    """Read the whole catalog of the connection's database, in two round trips.

    SourceNotFit means that the server is too old.
    """
    _check_version(conn)
    with conn.cursor(row_factory=dict_row) as cursor:
        where = cursor.execute("select datname, oid from pg_database where datname = current_database()").fetchone()
        rows = cursor.execute(_QUERY.format(which="true", pages=_ESTIMATED, details="null")).fetchall()
    if where is None:
        raise SourceNotFit("The server does not know the database of its own connection; is this PostgreSQL?")
    tables = sorted(_tables(rows), key=lambda table: (table.schema, table.name))
    return Catalog(where["datname"], where["oid"], conn.info.server_version, tuple(tables))


def read_table(conn: psycopg.Connection[Any], schema: str, name: str) -> SourceTable | None:
    """Read one table as it is now, with the sizes of its files; None if there is no table of that name.

    Two equal fingerprints mean that nothing happened to the table in between. Waits while somebody holds the
    table in access exclusive mode, for as long as the connection's timeouts allow.
    """
    _check_version(conn)
    query = _QUERY.format(which="n.nspname = %s and c.relname = %s", pages=_MEASURED, details=_DETAILS)
    with conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(query, (schema, name)).fetchall()
    return next(_tables(rows), None)


def _check_version(conn: psycopg.Connection[Any]) -> None:
    if conn.info.server_version < 140000:
        raise SourceNotFit(
            f"The server is PostgreSQL {conn.info.server_version // 10000}; 14 or later is needed, because earlier "
            "ones cannot read a table by ranges of row versions. Upgrade the server."
        )


def _tables(rows: list[DictRow]) -> Iterator[SourceTable]:
    for root, group in groupby(rows, key=lambda row: row["root"]):
        nodes = list(group)
        yield _table(next(node for node in nodes if node["oid"] == root), nodes)


def _table(root: DictRow, nodes: list[DictRow]) -> SourceTable:
    partitioned = root["kind"] == "p"
    leaves = [node for node in nodes if node["kind"] != "p"]
    columns = tuple(_column(values) for values in root["columns"] or ())
    names = {column.attnum: column.name for column in columns}
    return SourceTable(
        oid=root["oid"],
        schema=root["schema"],
        name=root["name"],
        partitioned=partitioned,
        comment=root["comment"],
        columns=columns,
        primary_key=tuple(names[attnum] for attnum in root["key"] or ()),
        relations=tuple(Relation(**{field: leaf[field] for field in _RELATION_FIELDS}) for leaf in leaves),
        row_estimate=sum(max(leaf["row_estimate"], 0.0) for leaf in leaves),
        skipped=_skipped(root, nodes, columns),
        # pg_class.xmin and its kin are the transactions that last wrote the definition; VACUUM and ANALYZE
        # update their statistics in place and leave them. A rename there and back is two writes.
        fingerprint=_digest(
            [
                [[node["oid"], node["relfilenode"], node["versions"]] for node in nodes],
                [(column.name, column.declared, column.base, column.typmod) for column in columns],
            ]
        ),
    )


def _column(values: list[Any]) -> Column:
    column = Column(*values)
    return dataclasses.replace(column, labels=tuple(column.labels)) if column.labels else column


_RELATION_FIELDS = ("oid", "schema", "name", "relfilenode", "page_count", "toast_page_count")


def _skipped(root: DictRow, nodes: list[DictRow], columns: tuple[Column, ...]) -> str | None:
    """Say why a table cannot be copied; None if it can."""
    if kind := _KINDS.get(root["kind"]):
        return f"it is {kind}, whose rows carry no transaction id"
    for node in nodes:
        if node["kind"] == "p" and node is not root:
            continue  # rows are read through the root or from a leaf, never through a table between
        what = "it" if node is root else f"its partition {node['schema']}.{node['name']}"
        if reason := _unreadable(node, root["kind"] == "p", columns):
            return f"{what} {reason}"
    return None


def _unreadable(node: DictRow, partitioned: bool, columns: tuple[Column, ...]) -> str | None:
    """Say why one relation of a table cannot be read exactly, as the end of a sentence."""
    if kind := _KINDS.get(node["kind"]):
        return f"is {kind}, whose rows carry no transaction id"
    if node["kind"] == "r" and node["method"] != "heap":
        return f"is stored by the access method {node['method']}, and only heap keeps a row's transaction id"
    if node["persistence"] == "u" and node["standby"]:
        return "is unlogged, and a standby has no rows of unlogged tables; read it from the primary"
    role, relation = quote(node["role"]), f"{quote(node['schema'])}.{quote(node['name'])}"
    if not node["may_enter"]:
        return f"lies in a schema closed to this role; grant usage on schema {quote(node['schema'])} to {role}"
    system = ("xmin", "ctid", "tableoid") if partitioned else ("xmin", "ctid")
    wanted = [*system, *(column.name for column in columns)]
    hidden = [name for name in wanted if name in set(node["hidden"] or ())]
    if len(hidden) == len(wanted):
        return f"may not be read by this role; grant select on {relation} to {role}"
    if hidden:
        names = ", ".join(name if name in system else quote(name) for name in hidden)
        return (
            f"may be read by this role only in part; grant select on {relation} to {role}, "
            f"or grant select ({names}) on {relation} to {role}"
        )
    if node["filtered"]:
        return (
            "has row-level security, which would hide rows from this role; "
            f"alter role {role} bypassrls, or read as the owner where the table does not force it"
        )
    return None


def _digest(seen: Any) -> str:
    return hashlib.sha256(json.dumps(seen, separators=(",", ":")).encode()).hexdigest()[:32]
