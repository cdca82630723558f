"""What Dagster loads: workspace.yaml and pyproject.toml name this module."""

import dagster as dg

from pg_bronze.defs.component import BronzeTables


@dg.definitions
def defs() -> dg.Definitions:
    """Load the settings and the catalog, and return the definitions of this code location."""
    return BronzeTables.definitions_from_environment()
