"""Skipped tables: why a table has no bronze asset, and which of them were copied before their right was revoked."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice

import dagster as dg

from pg_bronze.core import cursor_column
from pg_bronze.core.table import GONE, SourceTable, shell_argument
from pg_bronze.defs import table_choices
from pg_bronze.defs.source_names import SourceNames
from pg_bronze.errors import PgBronzeError, SettingsError
from pg_bronze.lake.keys import Layout, search_starts
from pg_bronze.lake.ledger import Ledger
from pg_bronze.lake.object_store import Store
from pg_bronze.settings.model import Settings

# Of each listing: every object of the original system would be read otherwise.
_FOOTERS_READ = 100
_REVOKED = (
    "{reason}. The table was copied before, so a right was revoked, and its new rows are missing. If that is "
    "intended, run `pg-bronze forget {label}`. It is retried after the fix."
)


def reason(table: SourceTable, settings: Settings) -> str | None:
    """Return why a table that the settings include has no bronze asset; None if it has one."""
    if table.skipped:
        return table.skipped
    if table.oid == GONE:
        return None  # the run reports that the table does not exist
    options = settings.table_options(table.label)
    if options.untracked != "skip":
        return None
    try:
        as_copied = table_choices.as_copied(table, settings)
        column = cursor_column.choose(as_copied, settings.cursor_names, options.cursor_column)
    except SettingsError:
        return None  # the run reports it
    return None if column else "it has no cursor column and PG_BRONZE_UNTRACKED is skip"


def revoked(
    instance: dg.DagsterInstance, tables: Iterable[SourceTable], names: SourceNames, store: Store
) -> dict[str, str]:
    """Return a sentence, with the statement that grants the right, for each table that was copied before, by label.

    A table that was never readable is no failure. Nothing is read without a table whose right is missing; the objects
    of such a table are looked for if Dagster's storage does not know it.
    """
    forbidden = {names.bronze_key(table): table for table in tables if table.forbidden}
    if not forbidden:
        return {}
    entries = [record.asset_entry for record in instance.get_asset_records(list(forbidden))]
    known = {entry.asset_key for entry in entries if entry.last_materialization}
    rest = {key: table for key, table in forbidden.items() if key not in known}
    known |= _with_objects(rest, store)
    copied = [table for key, table in forbidden.items() if key in known]
    return {table.label: _REVOKED.format(reason=table.skipped, label=shell_argument(table.label)) for table in copied}


def _with_objects(tables: Mapping[dg.AssetKey, SourceTable], store: Store) -> set[dg.AssetKey]:
    """Return the tables of which the bucket has an object that pg_bronze wrote; none if the bucket does not answer."""
    if not tables:
        return set()
    layouts = {key: Layout(store.prefix, table.schema, table.name) for key, table in tables.items()}
    now = datetime.now(UTC)
    with suppress(PgBronzeError):
        folders = set(store.folders(f"{store.prefix}/" if store.prefix else ""))
        return {key for key, item in layouts.items() if item.stem in folders and _is_copied(Ledger(store, item), now)}
    return set()


def _is_copied(ledger: Ledger, now: datetime) -> bool:
    """Return whether pg_bronze wrote one of the objects. The original system may have written to the same folder."""
    found = (ledger.footers_from(start) for start in search_starts(now))
    return any(footer is not None for footers in found for _, footer in islice(footers, _FOOTERS_READ))
