"""What Dagster loads: workspace.yaml and pyproject.toml name this module."""

import dagster as dg

from pg_bronze.defs.build import load_definitions


@dg.definitions
def defs() -> dg.Definitions:
    """Load the settings and the catalog, and return the definitions of this code location."""
    return load_definitions()
