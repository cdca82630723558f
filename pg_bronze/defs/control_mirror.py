"""The mirror in Dagster's storage: whether the last run before this one wrote a table's row in ``etl_control``."""

import dagster as dg

from pg_bronze.defs import metadata

# Newest events of each kind to search; users may add events to the same asset.
_LIMIT = 10


def was_on(instance: dg.DagsterInstance, key: dg.AssetKey, run_id: str) -> bool:
    """Return whether the last run that copied the table, other than ``run_id``, mirrored it; False if not known.

    A row that no run has written cannot have been edited or deleted.
    """
    records = [
        *instance.fetch_materializations(key, limit=_LIMIT).records,
        *instance.fetch_observations(key, limit=_LIMIT).records,
    ]
    for record in sorted(records, key=lambda record: record.storage_id, reverse=True):
        event = record.event_log_entry
        found = event.asset_materialization or event.asset_observation
        if event.run_id == run_id or found is None:
            continue
        if metadata.CONTROL_MIRROR in found.metadata:
            return False
        if metadata.ROWS in found.metadata:
            return True
    return False
