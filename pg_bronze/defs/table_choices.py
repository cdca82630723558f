"""Table choices: the options of a table, from the settings, as the parts of pg_bronze take them."""

from pg_bronze.core.column_choices import ColumnChoices
from pg_bronze.core.table import SourceTable
from pg_bronze.lake.parquet import Codec
from pg_bronze.settings.model import Settings


def columns_of(settings: Settings, label: str) -> ColumnChoices:
    """Return which columns of a table are copied, and which of them are masked."""
    options = settings.table_options(label)
    return ColumnChoices(options.include_columns, options.exclude_columns, options.masks, settings.named_columns(label))


def as_copied(table: SourceTable, settings: Settings) -> SourceTable:
    """Return a table of the catalog with the columns that are copied."""
    return columns_of(settings, table.label).apply(table)


def codec_of(settings: Settings, label: str) -> Codec:
    """Return how the objects of a table are compressed."""
    options = settings.table_options(label)
    if options.compression is None:
        return Codec(settings.compression, settings.compression_level)
    return Codec(options.compression, options.compression_level)
