"""Silver: the newest row versions of a table as an asset, for the tables of ``PG_BRONZE_LATEST``.

A run reads all objects of its table, so ``sensors.silver`` requests one at most every five minutes.
"""

from typing import Any

import dagster as dg

from pg_bronze.core.table import SourceTable
from pg_bronze.defs import assets, bronze_specs, descriptions, metadata
from pg_bronze.defs.source_names import SILVER, SourceNames

IO_MANAGER = "silver_io_manager"


def build_latest(table: SourceTable, names: SourceNames, uri: str) -> dg.AssetsDefinition:
    """Return the asset ``silver/<table>_latest``: the newest copied version of each row.

    Args:
        uri: The address of its object.
    """

    @dg.asset(
        key=names.latest_key(table),
        ins={
            "versions": dg.AssetIn(
                names.bronze_key(table),
                metadata={metadata.VERSIONS: "latest"},
                input_manager_key=names.of(assets.IO_MANAGER),
            )
        },
        io_manager_key=names.of(IO_MANAGER),
        group_name=names.of(SILVER),
        kinds=bronze_specs.KINDS,
        pool=f"{names.pool(table)}_latest",
        description=descriptions.of_latest(table),
        metadata=metadata.of_copy(table, uri),
    )
    def latest(versions: Any) -> Any:
        return versions

    return latest
