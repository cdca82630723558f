"""What only a diagnosis asks the server: its clock, triggers, and exceptional values that its statistics contain.

No row of a source table is read. Each function runs one statement on a ``Session`` and returns plain values.
"""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from pg_bronze.postgres.activity import Session

_CLOCK = "select extract(epoch from clock_timestamp())::float8"
# 1 is "for each row", 2 "before", 16 "update". A trigger of an extension has the name of the column as an argument.
_UNTRIGGERED = """select w.oid::bigint, w.name
from unnest(%(oids)s::oid[], %(names)s::text[]) as w (oid, name)
where not exists (
  select 1
  from pg_trigger t join pg_proc p on p.oid = t.tgfoid
  where t.tgrelid = w.oid and not t.tgisinternal and t.tgenabled <> 'D' and t.tgtype & 19 = 19
    and (position(w.name in p.prosrc) > 0 or position(w.name in encode(t.tgargs, 'escape')) > 0)
)"""
# The greatest value of a sample is the last bound of its histogram, unless it is one of the most common values.
_EXCEPTIONAL = """select distinct s.schemaname::text, s.tablename::text, s.attname::text
from pg_stats s
where s.schemaname !~ '^pg_' and s.schemaname <> 'information_schema'
  and concat(s.most_common_vals, s.histogram_bounds) ~ '[{,](-?infinity|NaN)[,}]'"""


def clock(session: Session) -> datetime:
    """Return the clock of the server, in UTC."""
    return datetime.fromtimestamp(session.ask(_CLOCK)[0][0], UTC)


def untriggered(session: Session, columns: Sequence[tuple[int, str]]) -> set[tuple[int, str]]:
    """Return which columns are set by no trigger before an update of a row.

    Args:
        columns: Pairs of the oid of a table and the name of a column.
    """
    parameters = {"oids": [oid for oid, _ in columns], "names": [name for _, name in columns]}
    return {(oid, name) for oid, name in session.ask(_UNTRIGGERED, parameters)} if columns else set()


def exceptional(session: Session) -> Collection[tuple[str, str, str]]:
    """Return the columns of which ANALYZE found infinity or NaN, or such a text: schema, table and column."""
    return {(schema, table, column) for schema, table, column in session.ask(_EXCEPTIONAL)}
