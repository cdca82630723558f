"""Taking over from the original system: what its objects and its control row mean for a table's first load."""

import psycopg
from psycopg import sql

from pg_bronze.core.table import SourceTable
from pg_bronze.core.watermark import Seed
from pg_bronze.errors import SettingsError, TakeoverUndecided
from pg_bronze.postgres.connection import Source
from pg_bronze.postgres.control_table import ControlRow


def decide(
    source: Source, table: SourceTable, row: ControlRow | None, foreign_uri: str, takeover: str | None
) -> Seed | None:
    """What bounds the first load of a table of which nothing is ours yet; None for a load of everything.

    ``row`` is its control row, ``foreign_uri`` the newest object in its folder that is not ours (``""`` for none),
    ``takeover`` the setting. Raises TakeoverUndecided if there are traces and no setting, SettingsError if the row
    cannot serve as the seed.
    """
    if not foreign_uri and (row is None or row.value is None):
        return None
    if takeover == "fresh":
        return None
    if takeover == "adopt-seed":
        return _seed(source, table, row)
    traces = [
        f"the bucket holds {foreign_uri}, which is not pg_bronze's" if foreign_uri else "",
        "etl_control has a row for it" if row else "",
    ]
    raise TakeoverUndecided(
        f"{table.label}: nothing of it is in this bucket by pg_bronze, but {' and '.join(filter(None, traces))}. If "
        "MINIO_BUCKET or PG_BRONZE_PREFIX is wrong, correct it. Otherwise set PG_BRONZE_TAKEOVER=fresh to copy the "
        "whole table, or adopt-seed to leave out what lies at or below the control row's value (late, updated or NULL "
        "rows that were never copied stay missing)."
    )


def _seed(source: Source, table: SourceTable, row: ControlRow | None) -> Seed:
    columns = {column.name: column for column in table.columns}
    column = columns.get(row.column or "") if row else None
    if row is None or row.value is None or column is None:
        raise SettingsError(
            f"{table.label}: takeover is adopt-seed, but etl_control has no value and column of this table for it. "
            "Set takeover to fresh, or correct the row."
        )
    try:
        source.connection.execute(sql.SQL("select {}::{}").format(sql.Literal(row.value), sql.SQL(column.declared)))
    except psycopg.Error as error:
        raise SettingsError(
            f"{table.label}: the value in etl_control is not a {column.declared}, the type of {column.name!r}. "
            "Set takeover to fresh, or correct the row."
        ) from error
    return Seed(column.attnum, row.value)
