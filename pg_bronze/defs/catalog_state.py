"""The catalog that definitions are built from: read once when the code server starts, handed on to run workers.

When the database does not answer, the last known catalog is taken from the bucket; when that does not answer either,
the catalog is empty. Loading never fails: a code location that cannot load is not retried, one that loads heals itself.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import NamedTuple

import psycopg
from dagster._core.definitions.definitions_load_context import DefinitionsLoadContext, DefinitionsLoadType

from pg_bronze.core import drift
from pg_bronze.defs.resources import Bucket, open_source
from pg_bronze.errors import PgBronzeError, SettingsError
from pg_bronze.lake.keys import own_key
from pg_bronze.postgres.catalog import Catalog, read_catalog
from pg_bronze.postgres.error_mapping import explain
from pg_bronze.settings.load import load_settings
from pg_bronze.settings.model import Settings

KEY = "pg_bronze/catalog"


class Change(NamedTuple):
    """What the latest change of a table's columns was, and when it was noticed (a minute of UTC)."""

    at: str
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class CatalogState:
    """What definitions are built from; ``error`` says why the catalog is not the live one.

    ``changes`` holds the latest change of each table that has had one, by label.
    """

    catalog: Catalog | None
    first_day: date
    error: str | None = None
    changes: Mapping[str, Change] = field(default_factory=dict)

    def to_text(self) -> str:
        """JSON, for other processes and for the bucket."""
        return json.dumps(
            {
                "catalog": self.catalog.to_text() if self.catalog else None,
                "first_day": self.first_day.isoformat(),
                "error": self.error,
                "changes": self.changes,
            }
        )

    @classmethod
    def from_text(cls, text: str | bytes) -> "CatalogState":
        """Read what ``to_text`` gave."""
        data = json.loads(text)
        catalog = Catalog.from_text(data["catalog"]) if data["catalog"] else None
        changes = {label: Change(at, tuple(said)) for label, (at, said) in data.get("changes", {}).items()}
        return cls(catalog, date.fromisoformat(data["first_day"]), data["error"], changes)


def load() -> tuple[Settings | None, CatalogState]:
    """The settings (None if they are faulty) and the catalog, without ever raising for what an operator can retry."""
    context = DefinitionsLoadContext.get()
    known = (
        context.reconstruction_metadata.get(KEY) if context.load_type == DefinitionsLoadType.RECONSTRUCTION else None
    )
    today = datetime.now(UTC).date()
    try:
        settings = load_settings()
    except SettingsError as error:
        return None, CatalogState(None, today, str(error))
    if known is not None:
        return settings, CatalogState.from_text(known)
    state = _fetch(settings, today)
    context.add_to_pending_reconstruction_metadata(KEY, state.to_text())
    return settings, state


def _fetch(settings: Settings, today: date) -> CatalogState:
    remembered, store, problem = None, None, None
    key = own_key(settings.prefix, "catalog.json")
    try:
        store = Bucket.from_settings(settings).open()
        store.prepare(unfenced=True)  # creates the bucket; whether it is fit is asked before the first commit
        text = store.get(key)
        remembered = _remembered(text) if text else None
    except PgBronzeError as error:
        problem = str(error)
    first_day = settings.start_date or (remembered.first_day if remembered else today)
    try:
        catalog = live(settings)
    except PgBronzeError as error:
        changes = remembered.changes if remembered else {}
        return CatalogState(remembered.catalog if remembered else None, first_day, str(error), changes)
    state = CatalogState(catalog, first_day, problem, _changes(remembered, catalog, datetime.now(UTC)))
    if store is not None and problem is None and (remembered is None or remembered != state):
        try:
            store.replace(key, state.to_text().encode())
        except PgBronzeError:
            return state  # a hint that could not be kept; the sensor says what is wrong with the bucket
    return state


def _changes(remembered: CatalogState | None, catalog: Catalog, now: datetime) -> dict[str, Change]:
    """The latest change of each table that is there now."""
    if remembered is None or remembered.catalog is None or remembered.catalog.database_oid != catalog.database_oid:
        return {}
    known = {table.label: table for table in remembered.catalog.tables}
    found = {}
    for table in catalog.tables:
        before = known.get(table.label)
        if before is None or before.fingerprint == table.fingerprint:
            sentences: tuple[str, ...] = ()
        elif before.oid != table.oid:
            sentences = ("it is another table than before: dropped and made again, or swapped by rename",)
        else:
            sentences = drift.catalog_changes(before, table)
        if sentences:
            found[table.label] = Change(f"{now:%Y-%m-%d %H:%M} UTC", sentences)
        elif before is not None and table.label in remembered.changes:
            found[table.label] = remembered.changes[table.label]
    return found


def _remembered(text: bytes) -> CatalogState | None:
    """The last known catalog; None if it is damaged or of another version: it is a hint, and the next one replaces
    it."""
    try:
        return CatalogState.from_text(text)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def live(settings: Settings) -> Catalog:
    """The catalog as it is now. Raises a PgBronzeError."""
    with open_source(settings, "pg_bronze catalog") as source:
        try:
            with source.session() as connection:
                return read_catalog(connection)
        except psycopg.Error as error:
            raise explain(error, source.name) from error
