"""Silver: the newest row versions of chosen tables as assets of their own, the layer after bronze.

A sensor of their own writes them again when something was copied since, at most every five minutes: a run reads every
object of its table. It asks once a minute with one question to Dagster's storage, so that the tick of every ten seconds
stays as cheap as it is without them.
"""

from typing import Any

import dagster as dg

from pg_bronze.core.table import SourceTable
from pg_bronze.defs import asset_keys, assets, metadata

GROUP = "silver"
IO_MANAGER = "silver_io_manager"


def build_latest(table: SourceTable) -> dg.AssetsDefinition:
    """The asset ``silver/<table>_latest``: one row for each primary key, as it was when it was last copied."""

    @dg.asset(
        key=asset_keys.latest_key(table),
        ins={
            "versions": dg.AssetIn(
                asset_keys.bronze_key(table),
                metadata={metadata.VERSIONS: "latest"},
                input_manager_key=assets.IO_MANAGER,
            )
        },
        io_manager_key=IO_MANAGER,
        group_name=GROUP,
        kinds={"polars", "parquet", "s3"},
        pool=f"{asset_keys.pool(table)}_latest",
        description=f"The newest version of each row of {table.label}, as one Parquet object. Deleted rows still stand "
        "in it, and a row whose primary key was updated stands there under the old key too.",
        metadata={
            **metadata.of_columns(table),
            "pg_bronze/schema": table.schema,
            "pg_bronze/table": table.name,
        },
    )
    def latest(versions: Any) -> Any:
        return versions

    return latest
