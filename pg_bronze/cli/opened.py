"""What most commands begin with: Dagster's instance, the settings, and the bucket."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pg_bronze.cli.instance import open_instance

if TYPE_CHECKING:
    import dagster as dg

    from pg_bronze.core.table import SourceTable
    from pg_bronze.lake.object_store import Store
    from pg_bronze.settings.model import Settings


@dataclass(frozen=True)
class Opened:
    """The instance, the settings and the bucket of one command."""

    instance: "dg.DagsterInstance"
    settings: "Settings"
    store: "Store"


@contextmanager
def opened() -> Iterator[Opened]:
    """Open Dagster's instance in the project folder, and load the settings there.

    Raises:
        SettingsError: A setting is invalid, or the instance cannot be opened.
    """
    from pg_bronze.defs.connections import open_bucket
    from pg_bronze.settings.load import load_settings
    from pg_bronze.settings.process import tune_process

    with open_instance() as instance:  # which changes to the folder that holds .env
        tune_process()
        settings = load_settings()
        yield Opened(instance, settings, open_bucket(settings))


def copied(tables: "list[SourceTable]", settings: "Settings") -> "tuple[list[SourceTable], dict[str, str]]":
    """Return the tables that are copied, and why the others that the settings include are not, by label."""
    from pg_bronze.defs import skipped_tables

    included = [table for table in tables if settings.wants(table.label)]
    skipped = {table.label: reason for table in included if (reason := skipped_tables.reason(table, settings))}
    return [table for table in included if table.label not in skipped], skipped
