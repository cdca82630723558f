"""The states of tables after a batch, for its document: what `pg-bronze status` would show of them now."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pg_bronze.cli import kept_memory
from pg_bronze.cli.outcome import StateAfter
from pg_bronze.errors import PgBronzeError

if TYPE_CHECKING:
    import dagster as dg

    from pg_bronze.core.table import SourceTable
    from pg_bronze.settings.model import Settings


def read(
    instance: "dg.DagsterInstance", settings: "Settings", tables: "Sequence[SourceTable]"
) -> dict[str, StateAfter]:
    """Return the state of each table by label; nothing if the database does not answer any more."""
    from pg_bronze.defs import status
    from pg_bronze.defs.connections import open_source
    from pg_bronze.defs.table_facts import Process
    from pg_bronze.scheduling import batches

    kept, now = kept_memory.load(instance, settings), datetime.now(UTC).timestamp()
    try:
        with open_source(settings, "pg_bronze status", "short", lock_timeout_s=batches.ASK_WAIT_S) as source:
            found = status.read(instance, tables, settings, source, kept, Process(settings), now)
    except PgBronzeError:
        return {}  # the copy has ended, and its outcome is known
    return {table.health.label: StateAfter(table.health.state, table.health.lag_s) for table in found.tables}
