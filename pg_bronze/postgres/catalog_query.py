"""The SQL of the catalog: which tables exist, how they are defined, and what the role may read.

Needs no right beyond CONNECT, and works on a hot standby. The control table is left out: the table to which the
unqualified name ``etl_control`` resolves for the role. In other schemas that name is a source table like any other.

The session's search_path is ``pg_catalog``. Values become text by ``concat``, which uses their output functions: where
a database has implicit casts of its own, a cast would call them and ``||`` would be ambiguous.
"""

from pg_bronze.postgres.session_settings import SCHEMAS

# One statement, so one snapshot: definition and fingerprint always belong together. A row is one relation of a table:
# the table itself, or a partition of it at any depth. The row of the table itself has the columns.
QUERY = """
with recursive
control as materialized (
  select c.oid
  from pg_class c join pg_namespace n on n.oid = c.relnamespace,
    {schemas} as path
  where c.relname = 'etl_control' and n.nspname = any (path)
  order by array_position(path, n.nspname)
  limit 1
),
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
    and c.oid is distinct from (select oid from control)
    and n.nspname <> 'information_schema'
    and n.nspname !~ '^pg_'
  union all
  select tree.root, i.inhrelid, concat(i.xmin)
  from tree
  join pg_class p on p.oid = tree.oid and p.relkind = 'p'
  join pg_inherits i on i.inhparent = p.oid and not i.inhdetachpending
)
select tree.root, tree.oid, n.nspname as schema, c.relname as name, c.relkind as kind, c.relpersistence as persistence,
  c.relfilenode, c.reltuples as row_estimate, {pages}, {orders} as ordered_by,
  case when tree.oid <> tree.root then (
    select json_agg(json_build_array(r.attnum, l.attnum) order by r.attnum)
    from pg_attribute r
    join pg_attribute l on l.attrelid = tree.oid and l.attname = r.attname and l.attnum <> r.attnum
    where r.attrelid = tree.root and r.attnum > 0 and not r.attisdropped
  ) end as moved_columns,
  am.amname as method, current_user as role,
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
  concat(c.xmin, '/', n.xmin, '/', tree.attached, '/', (
    select md5(coalesce(string_agg(concat(a.attnum, ':', a.xmin), ',' order by a.attnum), ''))
    from pg_attribute a
    where a.attrelid = c.oid and a.attnum > 0
  )) as versions,
  case when tree.oid = tree.root then (
    select d.description
    from pg_description d
    where d.objoid = c.oid and d.classoid = 'pg_class'::regclass and d.objsubid = 0
  ) end as comment,
  case when tree.oid = tree.root then (
    select k.conkey
    from pg_constraint k
    where k.conrelid = c.oid and k.contype = 'p'
  ) end as key,
  case when tree.oid = tree.root and c.relkind in ('r', 'p') then (
    select json_agg(json_build_array(
        a.attnum, a.attname, format_type(a.atttypid, a.atttypmod),
        case when tn.nspname = 'pg_catalog' then t.typname::text else concat(tn.nspname, '.', t.typname) end,
        coalesce(resolved.typmod, a.atttypmod), a.attnotnull,
        (select d.description
         from pg_description d
         where d.objoid = c.oid and d.classoid = 'pg_class'::regclass and d.objsubid = a.attnum),
        (select concat(co_n.nspname, '.', co.collname)
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
# Further facts that a footer records of a column. The value of rows older than the column is an array of one element in
# the catalog. array_to_string prints it by the output function of its type; here it is what the lake stores. money is
# printed as in the locale C, "-$1,234.56", of which the numbers remain.
DETAILS = """case when a.atthasmissing then (
          select case
            when tn.nspname <> 'pg_catalog' then m.value
            when t.typname = 'bool' then case m.value when 't' then 'true' else 'false' end
            when t.typname in ('money', '_money')
            then translate(regexp_replace(m.value, ',(\\d)', '\\1', 'g'), '$"', '')
            else m.value
          end
          from (select array_to_string(a.attmissingval, ',') as value) m
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
        ),
        (
          select co.collisdeterministic
          from pg_collation co
          where co.oid = a.attcollation and co.oid <> t.typcollation
        ),
        (
          select e.extname
          from pg_depend d join pg_extension e on e.oid = d.refobjid
          where d.classid = 'pg_type'::regclass and d.objid = t.oid and d.deptype = 'e' and t.typcategory <> 'A'
            and d.refclassid = 'pg_extension'::regclass
        )"""
# What core.caveats needs: the tables that inherit from a table, and the columns of composite types, of arrays, domains
# and ranges of them. Numbers only, which every encoding can send.
CAVEATS = """
with recursive made as materialized (
  select oid, typbasetype as part
  from pg_type
  where typtype = 'd'
  union all
  select typarray, oid
  from pg_type
  where typarray <> 0
  union all
  select rngtypid, rngsubtype
  from pg_range
  union all
  select rngmultitypid, rngsubtype
  from pg_range
),
composite as (
  select oid
  from pg_type
  where typtype = 'c'
  union
  select made.oid
  from composite join made on made.part = composite.oid
)
select i.inhparent::bigint as oid, null::int as attnum, i.inhrelid::bigint as heir
from pg_inherits i join pg_class p on p.oid = i.inhparent
where p.relkind = 'r'
union all
select a.attrelid::bigint, a.attnum::int, null
from pg_attribute a join pg_class c on c.oid = a.attrelid
where c.relkind in ('r', 'p') and a.attnum > 0 and not a.attisdropped and a.atttypid in (select oid from composite)
"""
# File sizes are measured for one table at a time; for a whole database the planner's estimates are enough.
ESTIMATED = "c.relpages as page_count, coalesce(toast.relpages, 0) as toast_page_count"
MEASURED = """
  coalesce(pg_relation_size(c.oid), 0) / int4in(textout(current_setting('block_size'))) as page_count,
  coalesce(pg_relation_size(toast.oid), 0) / int4in(textout(current_setting('block_size'))) as toast_page_count"""
# The columns that lead an index which PostgreSQL can use for "column > value" on every row, and for the newest values:
# it has to be ascending, or descending, with NULL where PostgreSQL puts it by default.
ORDERS = """array(
    select distinct a.attname::text
    from pg_index x
    join pg_class i on i.oid = x.indexrelid and i.relkind = 'i'
    join pg_am m on m.oid = i.relam and m.amname = 'btree'
    join pg_opclass o on o.oid = x.indclass[0] and o.opcdefault
    join pg_attribute a on a.attrelid = x.indrelid and a.attnum = x.indkey[0]
    where x.indrelid = c.oid and x.indisvalid and x.indisready and x.indislive
      and x.indpred is null and x.indexprs is null and x.indoption[0] in (0, 3)
  )"""
DATABASE = """select to_jsonb(d) || jsonb_build_object('encoding', pg_encoding_to_char(d.encoding))
from pg_database d where datname = current_database()"""


def everything() -> str:
    """Return the text of all queries here, to find in it what the role may not execute."""
    return "\n".join([render("true", MEASURED, DETAILS), CAVEATS, DATABASE])


def render(which: str, pages: str, details: str) -> str:
    """Return the catalog query of the tables that meet a condition.

    Args:
        which: The condition.
        pages: ``ESTIMATED`` or ``MEASURED``.
        details: ``DETAILS`` or ``null``.
    """
    return QUERY.format(which=which, pages=pages, details=details, orders=ORDERS, schemas=SCHEMAS)
