"""Run tags: what the list of runs shows of each run. Strings only; where they are set is the caller's matter.

The names have no namespace, because the list of runs shows them as they are. Dagster allows no spaces in them.
"""

from collections.abc import Collection, Mapping, Sequence

TABLES = "tables"
# Those of the tables that are copied for the first time.
FIRST_LOAD = "first_load"
ROWS = "rows"
FAILED = "failed"
# The requests to the bucket, as `put 2, list 1`. For the metrics, so it has a namespace.
REQUESTS = "pg_bronze/s3_requests"
_NAMES_SHOWN = 2
# Of a value in Dagster's storage on MySQL.
_LONGEST = 255


def requested(labels: Sequence[str], first: Collection[str]) -> dict[str, str]:
    """Return the tags of a run that copies tables.

    Args:
        labels: The tables of the run.
        first: Tables, of this run or another one, that are copied for the first time.
    """
    loaded = [label for label in labels if label in first]
    return {TABLES: names(labels)} | ({FIRST_LOAD: names(loaded)} if loaded else {})


def copied(rows: Mapping[str, int], others: Collection[str], failed: Sequence[str], known: bool) -> dict[str, str]:
    """Return the tags that are added when a run ends.

    Args:
        rows: The new rows of each table that was copied.
        others: The tables without new rows.
        failed: The tables whose copy failed.
        known: The run was requested with the names of its tables. Runs of the UI are not.
    """
    tags = {} if known else {TABLES: names(sorted({*rows, *others, *failed}))}
    if rows:
        tags[ROWS] = str(sum(rows.values()))
    return tags | ({FAILED: names(failed)} if failed else {})


def names(labels: Sequence[str]) -> str:
    """Return the first names, and how many more there are: ``movie, person (+2)``."""
    more = len(labels) - _NAMES_SHOWN
    rest = f" (+{more})" if more > 0 else ""
    shown = ", ".join(labels[:_NAMES_SHOWN])
    most = _LONGEST - len(rest)
    return (shown if len(shown) <= most else f"{shown[: most - 1]}…") + rest
