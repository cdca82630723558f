"""Key bounds: values that divide the keys of a table into ranges with about as many rows each."""

from pg_bronze.core.table import SourceTable
from pg_bronze.postgres.activity import Session

_HISTOGRAM = """select histogram_bounds::text::text[] from pg_stats
where schemaname = %(schema)s and tablename = %(table)s and attname = %(column)s and inherited = %(inherited)s"""


def of(session: Session, table: SourceTable) -> list[str]:
    """Return the bounds of the planner's histogram of the first key column, lowest first.

    Returns:
        Nothing if the table was not analyzed, or if the column has only a few different values.
    """
    found = session.ask(
        _HISTOGRAM,
        {
            "schema": table.schema,
            "table": table.name,
            "column": table.primary_key[0],
            "inherited": table.partitioned,
        },
    )
    return list(found[0][0] or ()) if found else []
