"""The history in Dagster's storage: finds and removes runs, events and snapshots, with SQLite and PostgreSQL.

Dagster has no method that removes a run and keeps the materializations of its assets, so the tables are changed
directly. This is the only module that knows them. ``test_dagster_history.py`` compares them with the installed version.
"""

import re
import sqlite3
import zlib
from collections.abc import Collection, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa
from dagster import DagsterRunStatus
from dagster._core.scheduler.instigation import TickStatus
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.runs.schema import RunsTable, RunTagsTable, SnapshotsTable
from dagster._core.storage.runs.sql_run_storage import SqlRunStorage

from pg_bronze.scheduling.retention import Event

# The history of assets. Everything else belongs to a run and is removed with it. The results of checks are stored once
# more, in a table of their own.
ASSET_HISTORY = ("ASSET_MATERIALIZATION", "ASSET_OBSERVATION")
CHECK_RESULT = "ASSET_CHECK_EVALUATION"
STORAGE_ERRORS = (sa.exc.DBAPIError, sqlite3.Error)
ORPHAN_AFTER_S = 3600.0
VACUUM_FREE_BYTES = 8 * 2**20
# The entries of an event in the indexes, and the space that removed ones keep until autovacuum has freed it.
ROW_BYTES = 1000
# The ids of snapshots in the body of a run.
_ID = re.compile(r"[0-9a-f]{40}")
_PARENT = re.compile(r'"parent_snapshot_id": ?"([0-9a-f]{40})"')
_RUN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class DagsterHistory:
    """The history of one Dagster instance.

    Attributes:
        instance: The instance.
    """

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self._events: Any = instance.event_log_storage
        self._runs: Any = instance.run_storage
        self._ticks: Any = instance.schedule_storage

    @property
    def unsupported(self) -> str | None:
        """Why nothing can be removed; None if the storage is known."""
        if isinstance(self._events, SqlEventLogStorage) and isinstance(self._runs, SqlRunStorage):
            return None
        return f"Dagster's storage is {type(self._events).__name__}, which pg_bronze does not know. Nothing is removed."

    def created_at(
        self, tag: str, values: Collection[str], statuses: Collection[DagsterRunStatus], place: int
    ) -> float | None:
        """Return when the run at a place was created, 0 for the newest one with a tag; None if there is none."""
        query = (
            sa.select(RunsTable.c.create_timestamp)
            .join(RunTagsTable, RunTagsTable.c.run_id == RunsTable.c.run_id)
            .where(RunTagsTable.c.key == tag, RunTagsTable.c.value.in_(values))
            .where(RunsTable.c.status.in_([status.value for status in statuses]))
            .order_by(RunsTable.c.id.desc())
            .offset(place)
            .limit(1)
        )
        with self._runs.connect() as connection:
            found = connection.execute(query).scalar()
        return None if found is None else found.replace(tzinfo=UTC).timestamp()

    def size_of(self, run_ids: Collection[str]) -> int:
        """Return about how many bytes the events of runs take."""
        if isinstance(self._events, SqliteEventLogStorage):
            # The index has the events of assets once more, which stay longer.
            files = (Path(self._events.path_for_shard(run_id)) for run_id in run_ids)
            return sum(file.stat().st_size for file in files if file.exists())
        events = SqlEventLogStorageTable.c
        size = sa.func.sum(sa.func.length(events.event) + ROW_BYTES)
        with self._events.index_connection() as connection:
            return int(connection.execute(sa.select(size).where(events.run_id.in_(run_ids))).scalar() or 0)

    def remove_runs(self, run_ids: Collection[str]) -> None:
        """Remove runs with their events, logs and tags, and keep the history of their assets.

        The row of the run is removed last, so that an interrupted removal is repeated.
        """
        if not run_ids:
            return
        events = SqlEventLogStorageTable
        # `not in` is not true of null, the type of a plain log line.
        of_run = sa.or_(events.c.dagster_event_type.is_(None), events.c.dagster_event_type.not_in(ASSET_HISTORY))
        with self._events.index_connection() as connection:
            connection.execute(events.delete().where(events.c.run_id.in_(run_ids), of_run))
        for run_id in run_ids:
            self._remove_files(run_id)
        with self._runs.connect() as connection:
            # SQLite does not enforce the foreign key that would remove the tags.
            connection.execute(RunTagsTable.delete().where(RunTagsTable.c.run_id.in_(run_ids)))
            connection.execute(RunsTable.delete().where(RunsTable.c.run_id.in_(run_ids)))

    def _remove_files(self, run_id: str) -> None:
        # Not every manager of compute logs can remove them.
        with suppress(NotImplementedError, AttributeError):
            self.instance.compute_log_manager.delete_logs(prefix=[run_id])
        if isinstance(self._events, SqliteEventLogStorage):
            for ending in ("", "-wal", "-shm"):
                Path(self._events.path_for_shard(run_id) + ending).unlink(missing_ok=True)
            # Otherwise this process would read a new file without creating its tables.
            self._events._initialized_dbs.discard(run_id)

    def remove_orphaned_files(self, now: float) -> int:
        """Remove the event files of runs that do not exist, and return their number. SQLite only.

        Dagster leaves the file of a deleted run, and creates one when the events of a deleted run are read.
        """
        if not isinstance(self._events, SqliteEventLogStorage):
            return 0
        folder = Path(self._events.path_for_shard("")).parent
        old = [file.stem for file in folder.glob("?*.db") if file.stat().st_mtime < now - ORPHAN_AFTER_S]
        orphans = [name for name in old if _RUN_ID.fullmatch(name) and not self._runs.has_run(name)]
        for run_id in orphans:
            self._remove_files(run_id)
        return len(orphans)

    def remove_copies_outside_runs(self, before: float) -> None:
        """Remove the second copies of events that were reported outside of runs. SQLite only: its file for no run."""
        if isinstance(self._events, SqliteEventLogStorage):
            events = SqlEventLogStorageTable
            with self._events.run_connection("") as connection:
                connection.execute(events.delete().where(events.c.timestamp < datetime.fromtimestamp(before, UTC)))

    def asset_events(self, kind: str, first: int, limit: int) -> list[Event]:
        """Return the events of one type from an id on, in the order of their ids."""
        events = SqlEventLogStorageTable.c
        query = (
            sa.select(events.id, events.asset_key, events.partition, events.timestamp)
            .where(events.dagster_event_type == kind, events.id >= first, events.asset_key.is_not(None))
            .order_by(events.id)
            .limit(limit)
        )
        with self._events.index_connection() as connection:
            rows = connection.execute(query).fetchall()
        return [Event(row[0], row[1], row[2], row[3].replace(tzinfo=UTC).timestamp()) for row in rows]

    def remove_events(self, ids: Sequence[int]) -> None:
        """Remove events of assets, and their tags."""
        with self._events.index_connection() as connection:
            for first in range(0, len(ids), 500):
                some = ids[first : first + 500]
                connection.execute(AssetEventTagsTable.delete().where(AssetEventTagsTable.c.event_id.in_(some)))
                connection.execute(SqlEventLogStorageTable.delete().where(SqlEventLogStorageTable.c.id.in_(some)))

    def check_results(self, first: int, limit: int) -> list[Event]:
        """Return the results of checks from an id on, in the order of their ids; an asset here is one check of it."""
        results = AssetCheckExecutionsTable.c
        query = (
            sa.select(results.id, results.asset_key, results.check_name, results.partition, results.create_timestamp)
            .where(results.id >= first)
            .order_by(results.id)
            .limit(limit)
        )
        with self._events.index_connection() as connection:
            rows = connection.execute(query).fetchall()
        return [
            Event(number, f"{asset}\n{check}", partition, at.replace(tzinfo=UTC).timestamp())
            for number, asset, check, partition, at in rows
        ]

    def remove_check_results(self, ids: Sequence[int]) -> None:
        """Remove results of checks."""
        results = AssetCheckExecutionsTable
        with self._events.index_connection() as connection:
            for first in range(0, len(ids), 500):
                connection.execute(results.delete().where(results.c.id.in_(ids[first : first + 500])))

    def remove_copies_of_check_results(self, before: float) -> None:
        """Remove the events of check results that were reported outside of runs; the results stay."""
        events = SqlEventLogStorageTable
        old = events.c.timestamp < datetime.fromtimestamp(before, UTC).replace(tzinfo=None)
        with self._events.index_connection() as connection:
            kind = events.c.dagster_event_type == CHECK_RESULT
            connection.execute(events.delete().where(kind, events.c.run_id == "", old))

    def unused_snapshots(self) -> set[str]:
        """Return the ids of snapshots that no run names."""
        snapshots = SnapshotsTable.c
        with self._runs.connect() as connection:
            known = set(connection.execute(sa.select(snapshots.snapshot_id)).scalars())
            for snapshot_id, body in connection.execute(sa.select(RunsTable.c.snapshot_id, RunsTable.c.run_body)):
                known -= {snapshot_id, *_ID.findall(body)}
            # The job of a run with a selection names the job without one.
            named = sa.select(snapshots.snapshot_body).where(
                snapshots.snapshot_id.in_(sa.select(RunsTable.c.snapshot_id)), snapshots.snapshot_type == "PIPELINE"
            )
            for body in connection.execute(named).scalars():
                known -= set(_PARENT.findall(zlib.decompress(body).decode()))
        return known

    def remove_snapshots(self, ids: Collection[str]) -> None:
        """Remove snapshots."""
        with self._runs.connect() as connection:
            connection.execute(SnapshotsTable.delete().where(SnapshotsTable.c.snapshot_id.in_(ids)))

    def purge_ticks(self, sensors: Collection[str], before: float, failed_before: float) -> None:
        """Remove old ticks of sensors. `retention` in ``dagster.yaml`` counts in days and keeps failed ones longer."""
        if self._ticks is None:
            return
        for state in self.instance.all_instigator_state():
            if state.instigator_name in sensors:
                statuses = [TickStatus.SKIPPED, TickStatus.SUCCESS]
                self.instance.purge_ticks(state.instigator_origin_id, state.selector_id, before, statuses)
                failed = [TickStatus.FAILURE]
                self.instance.purge_ticks(state.instigator_origin_id, state.selector_id, failed_before, failed)

    def shrink(self) -> None:
        """Rewrite SQLite files of which more than half is free. PostgreSQL reuses the space by itself."""
        connects = [self._events.index_connection, self._runs.connect]
        if self._ticks is not None:
            connects.append(self._ticks.connect)
        if isinstance(self._events, SqliteEventLogStorage):
            connects.append(lambda: self._events.run_connection(""))
        for connect in connects:
            with connect() as connection:
                url = connection.engine.url
            if url.get_backend_name() == "sqlite" and url.database and Path(url.database).is_file():
                _vacuum(url.database)


def _vacuum(path: str) -> None:
    with closing(sqlite3.connect(path, timeout=30)) as connection:
        pages, free, size = (
            connection.execute(f"pragma {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        if free * 2 > pages and free * size > VACUUM_FREE_BYTES:
            connection.execute("vacuum")
            connection.execute("pragma wal_checkpoint(truncate)")
