"""`pg-bronze reconcile --check movie`: compares a whole table with its objects, and changes nothing."""

from dataclasses import asdict

from pg_bronze.cli.opened import opened
from pg_bronze.cli.state_changes import live_table, table_syncs
from pg_bronze.cli.terminal import terminal

# Of PG_BRONZE_RECONCILE_MB: a part of 1 GB takes some 300 MB of memory.
_PARTS_OF = 4


def run_compare(label: str, as_json: bool) -> int:
    """Compare a table, print the result, and return the exit code: 1 if the lake lacks something."""
    from pg_bronze.defs import metadata
    from pg_bronze.defs.source_names import SourceNames
    from pg_bronze.sync import standing_check

    with opened() as of_project:
        settings = of_project.settings
        table = live_table(settings, label)
        event = of_project.instance.get_latest_materialization_event(SourceNames(settings).bronze_key(table))
        recorded = metadata.watermark_of(event)
        with table_syncs(of_project) as sync_of:
            part_bytes = int(_PARTS_OF * settings.reconcile_mb * 1e6)
            found = standing_check.check_completely(sync_of(table), recorded, settings.s3, part_bytes)
    if as_json:
        numbers = asdict(found.comparison) if found.comparison else None
        terminal.document({"table": label, "same": found.passed, "sentence": found.sentence, "rows": numbers})
    else:
        (terminal.print if found.passed else terminal.complain)(f"{label}: {found.sentence}")
    return 0 if found.passed else 1
