"""The catalog that definitions are built from: read when the code server starts, and named to run workers.

If the database does not answer, the catalog that was last stored in the bucket is used. If the bucket does not answer
either, the catalog is empty.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import NamedTuple, TypeVar

import psycopg
from dagster._core.definitions.definitions_load_context import DefinitionsLoadContext, DefinitionsLoadType

from pg_bronze.core import drift, former_tables
from pg_bronze.core.formats import CATALOG_FORMAT, check_format
from pg_bronze.core.former_tables import FormerTable
from pg_bronze.core.table import GONE, SourceTable
from pg_bronze.defs import skipped_tables
from pg_bronze.defs.connections import open_bucket, open_source
from pg_bronze.errors import FormatTooNew, LakeDamaged, PgBronzeError, SettingsError, StoreNotFit
from pg_bronze.lake.keys import own_key
from pg_bronze.lake.object_store import Store
from pg_bronze.postgres import catalog as source_catalog
from pg_bronze.postgres import catalog_query
from pg_bronze.postgres.catalog import Catalog, read_catalog
from pg_bronze.settings.model import Settings

KEY = "pg_bronze/catalog"
Answer = TypeVar("Answer")
# Nothing was copied before the first version of pg_bronze.
FIRST_POSSIBLE_DAY = date(2026, 1, 1)
# When a change was noticed, as text.
CHANGED_AT = "%Y-%m-%d %H:%M UTC"
# What this process loaded last, by the name of the source, with the catalog's fingerprint. A code server loads
# definitions twice, the second time from the reference.
_loaded: "dict[str | None, tuple[str, CatalogState]]" = {}
_REMEMBERED = (
    "The catalog could not be read, so the tables that were last stored in the bucket are used, and tables created "
    "since are not copied."
)


class Change(NamedTuple):
    """The latest change of a table's columns, and the minute at which it was noticed, in UTC."""

    at: str
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class CatalogState:
    """What definitions are built from.

    Attributes:
        catalog: The catalog; None if it could not be read anywhere.
        first_day: The first daily partition.
        error: Why the catalog is not the live one, or why the bucket could not be read.
        changes: The latest change of each table whose columns have changed, by label.
        remembered: Why the database's catalog could not be read and the one last stored is used; None if it is the live
            one. Tables created since are not in it.
        first_day_known: False if the bucket, where the first day is stored, did not answer. The partitions then begin
            with ``FIRST_POSSIBLE_DAY``, so that past days stay visible.
        former: Tables that were copied and are not copied any more.
        compared: An earlier catalog was known, so that ``former`` is complete. It is not stored.
        is_stored: The bucket had the same state when this one was read. It is not stored.
    """

    catalog: Catalog | None
    first_day: date
    error: str | None = None
    changes: Mapping[str, Change] = field(default_factory=dict)
    first_day_known: bool = True
    remembered: str | None = None
    former: tuple[FormerTable, ...] = ()
    compared: bool = field(default=False, compare=False)
    is_stored: bool = field(default=False, compare=False)

    def with_tables(self, tables: Sequence[SourceTable]) -> "CatalogState":
        """Return the state with these tables alone; definitions take time and memory for each table."""
        catalog = dataclasses.replace(self.catalog, tables=tuple(tables)) if self.catalog else None
        return dataclasses.replace(self, catalog=catalog)

    def to_text(self) -> str:
        """Return the state as JSON, for other processes and for the bucket."""
        return json.dumps(
            {
                "format": CATALOG_FORMAT,
                "catalog": self.catalog.to_text() if self.catalog else None,
                "first_day": self.first_day.isoformat(),
                "error": self.error,
                "changes": self.changes,
                "first_day_known": self.first_day_known,
                "remembered": self.remembered,
                "former": [dataclasses.asdict(item) for item in self.former],
            }
        )

    @classmethod
    def from_text(
        cls, text: str | bytes, what: str = "the stored catalog", live: Catalog | None = None
    ) -> "CatalogState":
        """Return the state that ``to_text`` wrote; ``what`` names it in an error.

        The catalog in it is usually the live one, and is not parsed then.

        Raises:
            FormatTooNew: A newer pg_bronze wrote it.
        """
        data = json.loads(text)
        check_format({"format": CATALOG_FORMAT, **data}, what, CATALOG_FORMAT)  # the first ones had no number
        is_live = live is not None and data.get("format") == CATALOG_FORMAT and data["catalog"] == live.to_text()
        catalog = live if is_live else Catalog.from_text(data["catalog"]) if data["catalog"] else None
        changes = {label: Change(at, tuple(sentences)) for label, (at, sentences) in data.get("changes", {}).items()}
        known = data.get("first_day_known", True)
        first_day = date.fromisoformat(data["first_day"])
        former = tuple(FormerTable(**item) for item in data.get("former", ()))
        return cls(catalog, first_day, data["error"], changes, known, data.get("remembered"), former)


def load(settings: Settings) -> CatalogState:
    """Return the catalog to build definitions from. Reads the database and the bucket, and writes neither.

    A run worker receives a reference to the state that the code server loaded, because Dagster stores what it receives
    in the snapshot of every execution plan. An unavailable database or bucket raises no error:
    Dagster does not retry a code location that failed to load, while one without assets recovers without a restart.
    """
    state = read(settings, datetime.now(UTC))
    context = DefinitionsLoadContext.get()
    context.add_to_pending_reconstruction_metadata(_key(settings.name), reference(state, settings.name))
    return state


def received_reference(source: str | None) -> str | None:
    """Return the reference that this process received with a run; None if the definitions are not loaded for a run.

    Args:
        source: The name of the source.
    """
    context = DefinitionsLoadContext.get()
    if context.load_type != DefinitionsLoadType.RECONSTRUCTION:
        return None
    return context.reconstruction_metadata.get(_key(source))


def _key(source: str | None) -> str:
    return f"{KEY}/{source}" if source else KEY


def is_named(text: str, state: CatalogState) -> bool:
    """Return whether the state has the catalog that a reference names, and not a later one."""
    fingerprint = json.loads(text).get("fingerprint")
    return state.catalog is not None and state.catalog.fingerprint == fingerprint


def reference(state: CatalogState, source: str | None) -> str:
    """Return a text that ``resolve`` finds the state with: the catalog's fingerprint, and the names of its tables.

    Args:
        source: The name of the source.
    """
    _loaded.pop(source, None)
    if state.catalog is None:
        return state.to_text()
    fingerprint = state.catalog.fingerprint
    _loaded[source] = fingerprint, state
    # Which tables have changes, because these have a check more; what changed is in the bucket.
    marked = {label: Change(change.at, ()) for label, change in state.changes.items()}
    rest = dataclasses.replace(state, catalog=None, changes=marked, former=())
    # 32 bytes a table, 2 compressed, so that a run knows each of its tables, also after it was dropped.
    names = [[table.schema, table.name] for table in state.catalog.tables if not table.skipped]
    return json.dumps({"fingerprint": fingerprint, "rest": rest.to_text(), "tables": names})


def resolve(text: str, settings: Settings) -> CatalogState:
    """Return the state that a reference names: from this process, from the bucket, or else from the database.

    The catalog sensor stores the catalog within half a minute after a load. Until then, and after a later change, the
    live catalog is used. What the reference names and that catalog does not have is added, because Dagster ends a run
    with a table that has no asset, and all others of the run with it. The copy of the table fails instead.
    """
    data = json.loads(text)
    fingerprint = data.get("fingerprint")
    if fingerprint is None:
        return CatalogState.from_text(text)
    known = _loaded.get(settings.name)
    if known is not None and known[0] == fingerprint:
        return known[1]
    rest = CatalogState.from_text(data["rest"])
    stored = None
    with suppress(FormatTooNew):  # in a rolling upgrade; the format of each object decides whether it is read
        stored, _ = _stored_in(open_bucket(settings), settings)
    catalog = stored.catalog if stored else None
    if stored is not None and catalog is not None and catalog.fingerprint == fingerprint:
        rest = dataclasses.replace(rest, changes={**rest.changes, **stored.changes})
    else:
        # If the database is down, the run of a table that was stored before reports that.
        with suppress(PgBronzeError):
            catalog = live(settings)
    names = [(schema, name) for schema, name in data.get("tables", ())]
    return dataclasses.replace(rest, catalog=_with_tables(catalog or Catalog(settings.pg_db, 0, 0, ()), names))


def _with_tables(catalog: Catalog, names: Sequence[tuple[str, str]]) -> Catalog:
    """Return the catalog with an entry, not skipped, for each of the names."""
    gone = {name: SourceTable(GONE, *name, False, None, (), (), (), 0.0, None, "") for name in names}
    found = {(table.schema, table.name): table for table in catalog.tables}
    copied = {name: table for name, table in found.items() if not table.skipped}
    every = found | gone | copied
    return dataclasses.replace(catalog, tables=tuple(every[name] for name in sorted(every)))


def store_in_bucket(settings: Settings, state: CatalogState, store: Store | None = None, fresh: bool = False) -> bool:
    """Store the catalog in the bucket for a start without the database; create the bucket if it is missing.

    For runs and sensors. The first day that is already stored is kept, because partitions must not disappear.

    Args:
        store: The bucket; None opens it with a new client.
        fresh: The state was read a moment ago, so it is not compared again if it was stored then.

    Returns:
        Whether the definitions should be loaded again, because the bucket did not answer when they were loaded.

    Raises:
        FormatTooNew: A newer pg_bronze stored the catalog.
        PgBronzeError: The bucket cannot be used.
    """
    store, key = store or open_bucket(settings), own_key(settings.prefix, "catalog.json")
    store.prepare(settings.unfenced)
    if fresh and state.is_stored:
        return False
    text = store.get(key)
    if not state.first_day_known:
        return True
    if text == dataclasses.replace(state, error=None, remembered=None).to_text().encode():
        return False  # the usual case, found without parsing the stored catalog
    stored = _stored(text, key) if text else None
    first_day = min(state.first_day, stored.first_day) if stored and not settings.start_date else state.first_day
    wanted = dataclasses.replace(state, first_day=first_day, error=None, remembered=None)
    body = wanted.to_text().encode()
    if state.catalog is not None and body != text:
        store.replace(key, body)
    return False


def read(settings: Settings, now: datetime, store: Store | None = None) -> CatalogState:
    """Return the catalog of the database, or the one that was last stored. An error is part of the result.

    There are no tables if a newer pg_bronze has stored the catalog: after a downgrade nothing is copied.

    Args:
        store: The bucket; None opens it with a new client, which takes 20 ms of CPU time.
    """
    text, problem = _text_in(store or open_bucket(settings), settings)
    try:
        catalog, failure = live(settings), ""
    except PgBronzeError as error:
        catalog, failure = None, str(error)
    try:
        stored = _stored(text, own_key(settings.prefix, "catalog.json"), catalog) if text else None
    except FormatTooNew as error:
        return CatalogState(None, FIRST_POSSIBLE_DAY, str(error), first_day_known=False)
    known = settings.start_date is not None or problem is None
    first_day = settings.start_date or (stored.first_day if stored else now.date() if known else FIRST_POSSIBLE_DAY)
    if catalog is None:
        if stored is None or stored.catalog is None:
            return CatalogState(None, first_day, failure, {}, known)
        remembered = f"{_REMEMBERED} {failure}"
        return CatalogState(stored.catalog, first_day, failure, stored.changes, known, remembered, stored.former)
    changes, former = _changes(stored, catalog, now), _former(stored, catalog, settings, now)
    compared = stored is not None and stored.catalog is not None
    state = CatalogState(catalog, first_day, problem, changes, known, former=former, compared=compared)
    is_stored = stored is not None and stored.catalog is catalog and stored == state
    return dataclasses.replace(state, is_stored=is_stored)


def _former(
    stored: CatalogState | None, catalog: Catalog, settings: Settings, now: datetime
) -> tuple[FormerTable, ...]:
    """Return the tables that were copied and are not copied any more, of those that the settings include."""
    if stored is None or stored.catalog is None or stored.catalog.database_oid != catalog.database_oid:
        return ()
    tables = {table.label: table for table in catalog.tables}
    reasons = {label: skipped_tables.reason(table, settings) for label, table in tables.items()}
    skipped = {label: reason for label, reason in reasons.items() if reason}
    before = [
        table
        for table in stored.catalog.tables
        if settings.wants(table.label) and skipped_tables.reason(table, settings) is None
    ]
    known = [item for item in stored.former if settings.wants(item.table.label)]
    found = former_tables.find(before, known, tables, skipped, now.timestamp())
    return tuple(former_tables.unexpired(found, now.timestamp(), settings.forget_after_h * 3600))


def former_changed(settings: Settings, state: CatalogState, now: datetime) -> bool:
    """Return whether a former table was forgotten, or has been shown for long enough."""
    if not state.former:
        return False
    kept = former_tables.unexpired(state.former, now.timestamp(), settings.forget_after_h * 3600)
    stored, _ = _stored_in(open_bucket(settings), settings)
    return len(kept) < len(state.former) or (stored is not None and stored.former != state.former)


def forget(settings: Settings, label: str) -> None:
    """Stop showing a former table. Its objects stay in the bucket.

    Raises:
        SettingsError: There is no such former table.
        PgBronzeError: The bucket did not answer.
    """
    store, key = open_bucket(settings), own_key(settings.prefix, "catalog.json")
    text = store.get(key)
    stored = _stored(text, key) if text else None
    former = stored.former if stored else ()
    left = tuple(item for item in former if item.table.label != label)
    if stored is None or len(left) == len(former):
        names = ", ".join(item.table.label for item in former) or "none"
        raise SettingsError(f"{label} is not a table that was copied and is not copied any more. These are: {names}.")
    store.replace(key, dataclasses.replace(stored, former=left).to_text().encode())


def _stored_in(store: Store, settings: Settings) -> "tuple[CatalogState | None, str | None]":
    """Return the stored state or None, and the reason if the bucket could not be read.

    Raises:
        FormatTooNew: A newer pg_bronze stored it.
    """
    text, problem = _text_in(store, settings)
    return (_stored(text, own_key(settings.prefix, "catalog.json")) if text else None), problem


def _text_in(store: Store, settings: Settings) -> "tuple[bytes | None, str | None]":
    """Return the stored state as it is stored or None, and the reason if the bucket could not be read."""
    try:
        return store.get(own_key(settings.prefix, "catalog.json")), None
    except StoreNotFit:
        return None, None  # the bucket does not exist yet
    except PgBronzeError as error:
        return None, str(error)


def _changes(stored: CatalogState | None, catalog: Catalog, now: datetime) -> dict[str, Change]:
    """Return the latest change of each table in the catalog."""
    if stored is None or stored.catalog is None or stored.catalog.database_oid != catalog.database_oid:
        return {}
    known = {table.label: table for table in stored.catalog.tables}
    found = {}
    for table in catalog.tables:
        before = known.get(table.label)
        if before is None or before.fingerprint == table.fingerprint:
            sentences: tuple[str, ...] = ()
        elif before.oid != table.oid:
            sentences = ("the table was replaced: dropped and created again, or renamed",)
        else:
            sentences = drift.catalog_changes(before, table)
        if sentences:
            found[table.label] = Change(now.strftime(CHANGED_AT), sentences)
        elif before is not None and table.label in stored.changes:
            found[table.label] = stored.changes[table.label]
    return found


def _stored(text: bytes, key: str, live: Catalog | None = None) -> CatalogState | None:
    """Return the stored state; None if it is damaged, and then the next store replaces it.

    Raises:
        FormatTooNew: A newer pg_bronze stored it. The first day and the former tables in it are not replaced.
    """
    try:
        return CatalogState.from_text(text, f"the catalog {key}", live)
    except (ValueError, KeyError, TypeError, AttributeError, LakeDamaged):
        return None


def live(settings: Settings) -> Catalog:
    """Return the catalog of the database now.

    Raises:
        PgBronzeError: The database cannot be read.
    """
    return _ask(settings, read_catalog)


def tables_mark(settings: Settings) -> tuple[int, int]:
    """Return two numbers that a created or dropped table changes: in milliseconds, also with 1,000 tables."""
    return _ask(settings, source_catalog.tables_mark)


def _ask(settings: Settings, query: Callable[[psycopg.Connection], Answer]) -> Answer:
    with open_source(settings, "pg_bronze catalog", "short") as source:
        try:
            with source.session() as connection:
                return query(connection)
        except psycopg.Error as error:
            raise source.explain(error, catalog_query.everything(), source.name) from error
