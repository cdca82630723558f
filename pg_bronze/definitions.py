"""TODO definitions."""

import dagster as dg

from pg_bronze.defs import catalog_state
from pg_bronze.defs.build import build_definitions


@dg.definitions
def defs() -> dg.Definitions:
    """What `dagster dev` and every run worker load."""
    settings, state = catalog_state.load()
    return build_definitions(settings, state)
