"""Specs of bronze assets: key, group, description, owners, tags and metadata of each table."""

import dagster as dg

from pg_bronze.core.table import SourceTable
from pg_bronze.defs import descriptions, metadata, table_choices
from pg_bronze.defs.descriptions import Changed
from pg_bronze.defs.source_names import SourceNames
from pg_bronze.settings.model import Settings

KINDS = {"polars", "parquet", "s3"}


def of_table(table: SourceTable, settings: Settings, changed: Changed | None) -> dg.AssetSpec:
    """Return the spec of a table's bronze asset.

    Args:
        settings: Have the options of the table.
        changed: The latest change of the table's columns; None if there was none.
    """
    names, options = SourceNames(settings), settings.table_options(table.label)
    as_copied = table_choices.as_copied(table, settings)
    description = descriptions.of_bronze(as_copied, settings, changed)
    if options.description:
        description = options.description.format(
            table=table.label, comment=table.comment or "", description=description
        )
    return dg.AssetSpec(
        names.bronze_key(table),
        deps=[names.source_key(table, settings.pg_db)],
        description=description,
        group_name=options.group or names.of("bronze"),
        kinds=KINDS,
        owners=list(options.owners),
        tags=dict(options.tags),
        metadata=metadata.of_copy(as_copied, descriptions.folder_uri(table, settings)),
    )
