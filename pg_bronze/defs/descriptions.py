"""Descriptions of assets, in Markdown: what a table is, how it is copied, where it is stored, and how to read it.

Pure functions of the settings and of the table's definition. They are short, because the definitions of 1,000 tables
contain one each, and the web server reads all of them.
"""

import json
from collections.abc import Sequence

from pg_bronze.core import band_notes, band_rules, column_types, cursor_column
from pg_bronze.core.band_rules import BandRules
from pg_bronze.core.table import SourceTable
from pg_bronze.errors import SettingsError
from pg_bronze.lake.keys import Layout
from pg_bronze.settings.model import Settings

_AFTER_FIX = (
    "Dagster notices a change of `.env` within a minute. After a change of the environment, start it again. All "
    "settings: `docs/settings.md`."
)
# Changes of a table's columns are described with the time at which they were noticed.
Changed = tuple[str, Sequence[str]]


def of_source(table: SourceTable, skipped: str | None) -> str:
    """Return the description of a source table.

    Args:
        skipped: Why the table has no bronze asset; None if it has one.
    """
    description = table.comment or f"Table {table.label} of the source database."
    return f"{description}\n\n**Skipped**: {skipped}." if skipped else description


def of_bronze(table: SourceTable, settings: Settings, changed: Changed | None) -> str:
    """Return the description of a bronze asset.

    Args:
        table: The table with the columns that are copied.
        changed: The latest change of the table's columns; None if there was none.
    """
    paragraphs = [
        table.comment or f"Every row version of {table.label}.",
        f"**Copied** {_how(table, settings)} {_cursor(table, settings)}",
        *_columns(table),
        *_large(table, settings),
        *(f"**Limit**: {caveat}." for caveat in table.caveats),
        *([f"**Changed**, noticed at {changed[0]}: {'; '.join(changed[1])}."] if changed else ()),
        _stored(table, settings),
        _reading(table, settings),
    ]
    return "\n\n".join(paragraphs)


def of_former(table: SourceTable, reason: str, settings: Settings) -> str:
    """Return the description of a table that was copied and is not copied any more.

    Args:
        table: The table with its name alone.
        reason: Why it is not copied, as a sentence with the remedy.
    """
    return "\n\n".join([f"**Not copied any more.** {reason}", _stored(table, settings), _reading(table, settings)])


def of_latest(table: SourceTable) -> str:
    """Return the description of the silver asset of a table."""
    return (
        f"The newest version of each row of {table.label}, as one Parquet object. It also contains rows that were "
        "deleted, and the old primary key of rows whose primary key was updated."
    )


def of_problem(error: str) -> str:
    """Return the description of the asset that the UI shows while the settings are invalid."""
    return f"**No table is copied**, because the settings are not valid.\n\n{error}\n\n{_AFTER_FIX}"


def reading_lines(table: SourceTable) -> tuple[str, str]:
    """Return two lines of Python that read the first rows of a table: with Polars, and with DuckDB."""
    scan = f"pg_bronze.scan({json.dumps(table.label, ensure_ascii=False)})"
    return (
        f"import pg_bronze; print({scan}.head(10).collect())",
        f'import duckdb, pg_bronze; rows = {scan}; print(duckdb.sql("from rows limit 10"))',
    )


def folder_uri(table: SourceTable, settings: Settings) -> str:
    """Return the address of the folder that a table is copied to."""
    return f"s3://{settings.minio_bucket}/{Layout(settings.prefix, table.schema, table.name).folder}/"


def latest_uri(table: SourceTable, settings: Settings) -> str:
    """Return the address of the object with the newest row versions of a table."""
    return f"s3://{settings.minio_bucket}/{Layout(settings.prefix, table.schema, table.name).latest}"


def _how(table: SourceTable, settings: Settings) -> str:
    every = f"every {settings.interval_s:g} s, if it may have new rows."
    rules = _rules(table, settings)
    if not band_rules.is_scheduled(table, None, rules):
        return f"{every} It is read completely then, in at most {rules.one_band_s:g} s."
    if settings.table_options(table.label).bands == "off":
        return f"{every} It is read completely then, because `bands` is `off`."
    return every


def _rules(table: SourceTable, settings: Settings) -> BandRules:
    budget = settings.table_options(table.label).sweep_budget
    return band_rules.rules_of(settings.interval_s, 0).with_budget(budget)


def _cursor(table: SourceTable, settings: Settings) -> str:
    try:
        column = cursor_column.choose(table, settings.cursor_names, settings.table_options(table.label).cursor_column)
    except SettingsError as error:
        # The run fails with the same sentence: the table is not copied until the setting is valid.
        return f"**Invalid setting**: {error}"
    if column is None:
        return "No cursor column. The table is copied by transaction ids alone."
    return f"Cursor column `{column.name}`: {column.reason}."


def _columns(table: SourceTable) -> list[str]:
    """Return which columns the options exclude and mask; nothing if there are none."""
    masked = [f"`{column.name}` ({column.mask.kind})" for column in table.columns if column.mask]
    excluded = [f"`{name}`" for _, name in table.excluded]
    notes = [f"**Excluded columns**: {', '.join(excluded)}."] if excluded else []
    return [*notes, f"**Masked columns**: {', '.join(masked)}."] if masked else notes


def _large(table: SourceTable, settings: Settings) -> list[str]:
    """Return when rows of a large table arrive, as far as the planner's estimates tell; nothing for other tables."""
    options, rules = settings.table_options(table.label), _rules(table, settings)
    if options.bands == "off" or not band_rules.is_scheduled(table, None, rules):
        return []
    return [band_notes.outlook(table, settings.cursor_names, options.cursor_column, rules)]


def _stored(table: SourceTable, settings: Settings) -> str:
    xid = column_types.xid_column(table.columns)
    return f"**Stored** in `{folder_uri(table, settings)}`. `{xid}` is the transaction that wrote a row version."


def _reading(table: SourceTable, settings: Settings) -> str:
    lines = "\n\n".join(f"```python\n{line}\n```" for line in reading_lines(table))
    newest = '\n\n`versions="latest"` returns the newest version of each row.' if table.primary_key else ""
    # The settings of a component are not those of the shell in which a person reads.
    own = ""
    if settings.name:
        known = {"MINIO_ENDPOINT": settings.minio_endpoint, "MINIO_BUCKET": settings.minio_bucket}
        texts = [f"`{name}={value}`" for name, value in {**known, "PG_BRONZE_PREFIX": settings.prefix}.items() if value]
        own = f"In the environment: {', '.join(texts)}, and the keys of the bucket.\n\n"
    return f"**Read** all row versions:\n\n{own}{lines}{newest}"
