"""Asset records that a process keeps: a tick reads those of all tables, of which few have changed.

Dagster stores the last materialization of an asset as text in the asset's row, and parses it at each read: half of the
CPU time of a tick with 1,000 tables. A new process has no records yet, and a tick needs three of 20 metadata entries:
these are read without Dagster's classes. This module is loaded by the web server and the daemon, so it imports little.
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from dagster import AssetKey
from dagster._core.storage.event_log.base import AssetEntry, AssetRecord

from pg_bronze.defs.known_schema import KnownSchema

# About 10 kB each.
_MOST_KEPT = 10_000
# What a record is made of. Everything else in it is the same for all rows.
_COLUMNS = ("id", "last_materialization", "last_run_id", "asset_details", "cached_status_data")
# How Dagster stores a text and a number of the metadata, and the field with the value.
_VALUES = {
    "TextMetadataEntryData": "text",
    "IntMetadataEntryData": "value",
    "FloatMetadataEntryData": "value",
    "BoolMetadataEntryData": "value",
}
Record = TypeVar("Record")


class LastMaterialization(NamedTuple):
    """A part of the last materialization of an asset: its run, its time in seconds since 1970, and some metadata."""

    run_id: str
    timestamp: float
    values: Mapping[str, Any]


class AssetFacts(NamedTuple):
    """A part of the record of an asset: its last run, whatever it did, and its last materialization."""

    last_run_id: str | None
    last: LastMaterialization | None


def facts_of(entry: AssetEntry, labels: frozenset[str]) -> AssetFacts:
    """Return a part of a record that Dagster has read, with these entries of the metadata."""
    event = entry.last_materialization
    if event is None:
        return AssetFacts(entry.last_run_id, None)
    found = event.asset_materialization.metadata if event.asset_materialization else {}
    values = {label: value.value for label, value in found.items() if label in labels}
    return AssetFacts(entry.last_run_id, LastMaterialization(event.run_id, event.timestamp, values))


def _last_materialization(text: str, labels: frozenset[str]) -> LastMaterialization | None:
    """Return a part of a stored materialization; None if it is stored in a form that only Dagster knows."""
    try:
        record = json.loads(text)
        entry = record["event_log_entry"]
        event = entry["dagster_event"]
        if record["__class__"] != "EventLogRecord" or event["event_type_value"] != "ASSET_MATERIALIZATION":
            return None
        stored = event["event_specific_data"]["materialization"]["metadata_entries"]
        found = {item["label"]: item["entry_data"] for item in stored if item["label"] in labels}
        values = {label: data[_VALUES[data["__class__"]]] for label, data in found.items()}
        return LastMaterialization(entry["run_id"], entry["timestamp"], values)
    except (ValueError, KeyError, TypeError):
        return None


def _facts(row: Any, labels: frozenset[str]) -> AssetFacts | None:
    """Return a part of the record of a row; None if it was wiped or not materialized, or is stored in another form."""
    if row["asset_details"] or not row["last_materialization"]:
        return None
    last = _last_materialization(row["last_materialization"], labels)
    return last and AssetFacts(row["last_run_id"], last)


def _sources(storage: str, row: Any, labels: frozenset[str]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return what facts are kept by, and the columns that they were made of."""
    return (storage, row["asset_key"], labels), tuple(row.get(name) for name in _COLUMNS)


class _Kept(Generic[Record]):
    """The records of this process by storage and asset, each with the columns that it was made of."""

    def __init__(self) -> None:
        self._records: OrderedDict[tuple[Any, ...], tuple[tuple[Any, ...], Record]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[Any, ...], columns: tuple[Any, ...]) -> Record | None:
        """Return the record of an asset; None if its row has changed, or was not read yet."""
        with self._lock:
            known, record = self._records.get(key, ((), None))
            if record is None or known != columns:
                return None
            self._records.move_to_end(key)
            return record

    def put(self, key: tuple[Any, ...], columns: tuple[Any, ...], record: Record) -> None:
        """Keep the record of an asset, and drop the one that was not asked for the longest time."""
        with self._lock:
            self._records[key] = columns, record
            self._records.move_to_end(key)
            if len(self._records) > _MOST_KEPT:
                self._records.popitem(last=False)


_kept: _Kept[AssetRecord] = _Kept()
_kept_facts: _Kept[AssetFacts] = _Kept()


class KnownRecords(KnownSchema):
    """Parses the row of an asset only if it has changed since this process read it."""

    def get_asset_records(self, asset_keys: Sequence[AssetKey] | None = None) -> Sequence[AssetRecord]:
        """Return the records of some assets, or of all."""
        rows = self._fetch_asset_rows(asset_keys=asset_keys)
        columns = [tuple(row.get(name) for name in _COLUMNS) for row in rows]
        storage = self.place
        keys = [(storage, str(row["asset_key"])) for row in rows]
        found = [_kept.get(key, values) for key, values in zip(keys, columns, strict=True)]
        changed = [place for place, record in enumerate(found) if record is None]
        for place, record in zip(changed, self._parse([rows[place] for place in changed]), strict=True):
            found[place] = record
            if record is not None and record.asset_entry.last_materialization_record is not None:
                _kept.put(keys[place], columns[place], record)
        return [record for record in found if record is not None]

    def get_asset_facts(self, asset_keys: Sequence[AssetKey], labels: frozenset[str]) -> dict[AssetKey, AssetFacts]:
        """Return a part of the records of some assets, with these entries of the metadata."""
        keys, facts, left = {key.to_string(): key for key in asset_keys}, {}, []
        storage = self.place
        for row in self._fetch_asset_rows(asset_keys=asset_keys):
            found = _kept_facts.get(*_sources(storage, row, labels))
            if found is None and (found := _facts(row, labels)) is not None:
                _kept_facts.put(*_sources(storage, row, labels), found)
            if found is None:
                left.append(row)
            else:
                facts[keys[row["asset_key"]]] = found
        for row, record in zip(left, self._parse(left), strict=True):
            if record is not None:
                found = facts[record.asset_entry.asset_key] = facts_of(record.asset_entry, labels)
                if found.last is not None:
                    _kept_facts.put(*_sources(storage, row, labels), found)
        return facts

    def _parse(self, rows: Sequence[Any]) -> list[AssetRecord | None]:
        if not rows:
            return []
        latest, cached = self._get_latest_materialization_records(rows), self.can_read_asset_status_cache()
        keys = [AssetKey.from_db_string(row["asset_key"]) for row in rows]
        return [
            self._construct_asset_record_from_row(row, latest.get(key), cached) if key else None
            for row, key in zip(rows, keys, strict=True)
        ]
