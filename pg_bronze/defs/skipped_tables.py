"""Skipped tables: why a table has no bronze asset."""

from pg_bronze.core import cursor_column
from pg_bronze.core.table import SourceTable
from pg_bronze.defs import catalog_state
from pg_bronze.errors import SettingsError
from pg_bronze.settings.model import Settings


def reason(table: SourceTable, settings: Settings) -> str | None:
    """Return why a table that the settings include has no bronze asset; None if it has one."""
    if table.skipped:
        return table.skipped
    if table.oid == catalog_state.GONE:
        return None  # the run reports that the table does not exist
    options = settings.table_options(table.label)
    if options.untracked != "skip":
        return None
    try:
        column = cursor_column.choose(table, settings.cursor_names, options.cursor_column)
    except SettingsError:
        return None  # the run reports it
    return None if column else "it has no cursor column and PG_BRONZE_UNTRACKED is skip"
