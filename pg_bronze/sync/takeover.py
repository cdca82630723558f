"""Taking over from the original system: what its objects and its control row mean for a table's first load."""

import psycopg
from psycopg import sql

from pg_bronze.core.table import SourceTable
from pg_bronze.core.watermark import Seed
from pg_bronze.errors import SettingsError, TakeoverUndecided
from pg_bronze.postgres.connection import Source
from pg_bronze.postgres.control_table import ControlRow


def initial_seed(
    source: Source, table: SourceTable, row: ControlRow | None, foreign_uri: str, takeover: str | None
) -> Seed | None:
    """Return what bounds the first load of a table that pg_bronze has not copied yet; None for all rows.

    Args:
        row: The table's row in ``etl_control``, or None.
        foreign_uri: The newest object in the table's folder that pg_bronze did not write; ``""`` for none.
        takeover: The setting ``PG_BRONZE_TAKEOVER``.

    Raises:
        TakeoverUndecided: The original system left objects or a row, and the setting is missing.
        SettingsError: The row does not contain a value of a column of the table.
    """
    if not foreign_uri and (row is None or row.value is None):
        return None
    if takeover == "fresh":
        return None
    if takeover == "adopt-seed":
        return _seed_of(source, table, row)
    traces = [
        f"the bucket contains {foreign_uri}, which pg_bronze did not write" if foreign_uri else "",
        "etl_control has a row for the table" if row else "",
    ]
    raise TakeoverUndecided(
        f"{table.label}: pg_bronze has not written any objects for this table to this bucket, but "
        f"{' and '.join(filter(None, traces))}. If MINIO_BUCKET or PG_BRONZE_PREFIX is wrong, correct it. Otherwise "
        "set PG_BRONZE_TAKEOVER to fresh to copy the whole table, or to adopt-seed to leave out rows up to the control "
        "row's value. With adopt-seed, late or updated rows that were never copied stay missing."
    )


def _seed_of(source: Source, table: SourceTable, row: ControlRow | None) -> Seed:
    columns = {column.name: column for column in table.columns}
    column = columns.get(row.column or "") if row else None
    if column is not None and column.mask:
        raise SettingsError(
            f"{table.label}: PG_BRONZE_TAKEOVER is adopt-seed, and column {column.name!r}, whose value etl_control "
            "has, is masked. Set it to fresh, or remove the mask."
        )
    if row is None or row.value is None or column is None:
        raise SettingsError(
            f"{table.label}: PG_BRONZE_TAKEOVER is adopt-seed, but etl_control has no row with a value and a column of "
            "this table. Set it to fresh, or correct the row."
        )
    try:
        with source.session() as connection:
            connection.execute(sql.SQL("select {}::{}").format(sql.Literal(row.value), sql.SQL(column.declared)))
    except psycopg.Error:
        raise SettingsError(
            f"{table.label}: the value in etl_control is not a {column.declared}, the type of column {column.name!r}. "
            "Set PG_BRONZE_TAKEOVER to fresh, or correct the row."
        ) from None  # the server quotes the value
    return Seed(column.attnum, row.value)
