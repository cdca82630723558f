"""Asset records that a process keeps: a tick reads those of all tables, of which few have changed.

Dagster stores the last materialization of an asset as text in the asset's row, and parses it at each read: half of the
CPU time of a tick with 1,000 tables. This module is loaded by the web server and the daemon, so it imports nothing of
pg_bronze.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from dagster import AssetKey
from dagster._core.storage.event_log.base import AssetRecord
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage

# About 10 kB each.
_MOST_KEPT = 10_000
# What a record is made of. Everything else in it is the same for all rows.
_COLUMNS = ("id", "last_materialization", "last_run_id", "asset_details", "cached_status_data")


class _Kept:
    """The records of this process by storage and asset, each with the columns that it was made of."""

    def __init__(self) -> None:
        self._records: OrderedDict[tuple[str, str], tuple[tuple[Any, ...], AssetRecord]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[str, str], columns: tuple[Any, ...]) -> AssetRecord | None:
        """Return the record of an asset; None if its row has changed, or was not read yet."""
        with self._lock:
            known, record = self._records.get(key, ((), None))
            if record is None or known != columns:
                return None
            self._records.move_to_end(key)
            return record

    def put(self, key: tuple[str, str], columns: tuple[Any, ...], record: AssetRecord) -> None:
        """Keep the record of an asset, and drop the one that was not asked for the longest time."""
        with self._lock:
            self._records[key] = columns, record
            self._records.move_to_end(key)
            if len(self._records) > _MOST_KEPT:
                self._records.popitem(last=False)


_kept = _Kept()


class KnownRecords(SqlEventLogStorage):
    """Parses the row of an asset only if it has changed since this process read it."""

    @property
    def place(self) -> str:
        """What distinguishes this storage from others that the process opens."""
        raise NotImplementedError

    def get_asset_records(self, asset_keys: Sequence[AssetKey] | None = None) -> Sequence[AssetRecord]:
        """Return the records of some assets, or of all."""
        rows = self._fetch_asset_rows(asset_keys=asset_keys)
        columns = [tuple(row.get(name) for name in _COLUMNS) for row in rows]
        keys = [(self.place, str(row["asset_key"])) for row in rows]
        found = [_kept.get(key, values) for key, values in zip(keys, columns, strict=True)]
        changed = [place for place, record in enumerate(found) if record is None]
        for place, record in zip(changed, self._parse([rows[place] for place in changed]), strict=True):
            found[place] = record
            if record is not None and record.asset_entry.last_materialization_record is not None:
                _kept.put(keys[place], columns[place], record)
        return [record for record in found if record is not None]

    def _parse(self, rows: Sequence[Any]) -> list[AssetRecord | None]:
        if not rows:
            return []
        latest, cached = self._get_latest_materialization_records(rows), self.can_read_asset_status_cache()
        keys = [AssetKey.from_db_string(row["asset_key"]) for row in rows]
        return [
            self._construct_asset_record_from_row(row, latest.get(key), cached) if key else None
            for row, key in zip(rows, keys, strict=True)
        ]
