"""Dagster's SQLite storage with connections that are kept between statements.

The storage of Dagster opens a connection for each statement and closes it afterwards. SQLite then reads the schema
again and writes its log back into the database file, and SQLAlchemy compiles the statement again. The files are the
same: ``dagster.yaml`` may name either storage at any time.

This module is loaded by the web server and the daemon, so it imports nothing else of pg_bronze.
"""

import atexit
import os
import sqlite3
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME, SqliteEventLogStorage
from dagster._core.storage.runs.sqlite.sqlite_run_storage import SqliteRunStorage
from dagster._core.storage.schedules.sqlite.sqlite_schedule_storage import SqliteScheduleStorage
from dagster._core.storage.sql import create_engine
from dagster._core.storage.sqlite import create_db_conn_string
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData
from filelock import FileLock
from sqlalchemy import Connection, Engine, NullPool, QueuePool, event

from pg_bronze.defs.known_empty import KnownEmptyRuns
from pg_bronze.defs.known_records import KnownRecords

# Databases that stay open: the three of an instance, and those of single runs, of which a process rarely reads more
# alternately.
_MOST_OPEN = 7
# Seconds that a statement waits for the lock of another process; that of Dagster's event storage.
_BUSY_S = 60
Storage = TypeVar("Storage", "PooledRunStorage", "PooledScheduleStorage")


def _engine(url: str) -> Engine:
    """Return an engine that keeps its connections.

    After a power failure the last events may be missing. The bucket has the watermarks, so no row is lost or doubled.
    """
    made = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=2,
        max_overflow=50,
        connect_args={"timeout": _BUSY_S, "check_same_thread": False},
    )
    event.listen(made, "connect", lambda connection, _: connection.execute("pragma synchronous = normal"))
    return made


def _identity(file: str) -> tuple[int, int] | None:
    """Return what distinguishes a file from one of the same name; None if there is no file."""
    with suppress(FileNotFoundError):
        found = os.stat(file)
        return found.st_dev, found.st_ino
    return None


class _Engines:
    """The engines of this process by file, for all instances: a code server opens one for each sensor evaluation.

    A file that was replaced or removed gets a new engine.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[tuple[int, int] | None, Engine]] = OrderedDict()
        self._lock = threading.RLock()

    def get(self, file: str, url: str, prepare: Callable[[], None]) -> Engine:
        """Return the engine of a database; ``prepare`` is called before, unless this process knows the file."""
        with self._lock:
            known, engine = self._kept.get(file, (None, None))
            if engine is None or known != _identity(file):
                self._close(file)
                prepare()
                engine = _engine(url)
                self._kept[file] = _identity(file), engine
                for other in list(self._kept)[:-_MOST_OPEN]:
                    self._close(other)
            self._kept.move_to_end(file)
            return engine

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for file in list(self._kept):
                self._close(file)

    def forget(self) -> None:
        """Forget the engines of the parent process; SQLite's connections must not be used after a fork."""
        self._kept, self._lock = OrderedDict(), threading.RLock()

    def _close(self, file: str) -> None:
        if file in self._kept:
            self._kept.pop(file)[1].dispose()


_engines = _Engines()
atexit.register(_engines.close)
os.register_at_fork(after_in_child=_engines.forget)


def _is_complete(file: str) -> bool:
    """Return whether a database was created before, by this version of Dagster or an older one.

    Dagster does nothing then, but executes its hundred files of migrations to find out which is the newest one: a tenth
    of the CPU time of `pg-bronze tick`. It writes the version last; ``instance_info`` is a table that it added without
    a migration.
    """
    if not os.path.isfile(file):
        return False
    with suppress(sqlite3.Error), closing(sqlite3.connect(file, timeout=_BUSY_S)) as connection:
        tables = {name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")}
        if "alembic_version" in tables and ("runs" not in tables or "instance_info" in tables):
            return connection.execute("select 1 from alembic_version").fetchone() is not None
    return False


class PooledEventLogStorage(KnownRecords, SqliteEventLogStorage):
    """The event log: one database for each run and an index of all asset events."""

    @property
    def place(self) -> str:
        """The folder of the databases, and the file of their index: another file has another schema."""
        return f"{self._base_dir} {_identity(self.path_for_shard(INDEX_SHARD_NAME))}"

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock:
            url = self.conn_string_for_shard(shard)
            engine = _engines.get(self.path_for_shard(shard), url, lambda: self._prepare(shard))
            self._initialized_dbs.add(shard)
            with engine.begin() as connection:
                yield connection

    def _prepare(self, shard: str) -> None:
        """Create the database of a run, unless another process has done so."""
        file = self.path_for_shard(shard)
        if shard != INDEX_SHARD_NAME and not os.path.exists(file):
            # A copy: creating 20 tables and indexes costs more than all events of a small run.
            _write_new(Path(file), _empty_run())
        if not _is_complete(file):
            self._initdb(create_engine(self.conn_string_for_shard(shard), poolclass=NullPool))


@cache
def _empty_run() -> bytes:
    """Return the database of a run without events, as Dagster creates it."""
    with tempfile.TemporaryDirectory(prefix="pg_bronze-") as folder:
        storage = SqliteEventLogStorage(folder)
        storage._initdb(create_engine(storage.conn_string_for_shard("run"), poolclass=NullPool))
        return Path(storage.path_for_shard("run")).read_bytes()


def _write_new(file: Path, content: bytes) -> None:
    """Write a file at once, unless another process has written it."""
    part = file.with_name(f"{file.name}.{os.getpid()}.{threading.get_ident()}.new")
    part.write_bytes(content)
    with suppress(FileExistsError):
        os.link(part, file)
    part.unlink()


class _Pooled:
    """Keeps the connections of a storage that has one database."""

    _conn_string: str

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Yield a connection in a transaction."""
        file = self._conn_string.removeprefix("sqlite:///")
        with _engines.get(file, self._conn_string, lambda: None).begin() as connection:
            yield connection


class PooledRunStorage(KnownEmptyRuns, _Pooled, SqliteRunStorage):
    """Runs, their tags and snapshots."""

    _has_run_stats = False

    @property
    def file(self) -> str:
        """The path of the database."""
        return self._conn_string.removeprefix("sqlite:///")

    def has_run_stats_index_cols(self) -> bool:
        """Return whether a migration is complete, which is asked for in every query and never undone."""
        self._has_run_stats = self._has_run_stats or super().has_run_stats_index_cols()
        return self._has_run_stats


class PooledScheduleStorage(_Pooled, SqliteScheduleStorage):
    """Sensors and their ticks."""

    _complete: frozenset[str] = frozenset()

    def has_instigators_table(self) -> bool:
        """Return whether a migration is complete, which is asked for in every query and never undone."""
        return self._remembered("instigators", super().has_instigators_table)

    def has_built_index(self, migration_name: str) -> bool:
        """Return whether a migration is complete, likewise."""
        return self._remembered(
            migration_name, lambda: super(PooledScheduleStorage, self).has_built_index(migration_name)
        )

    def _has_instigators_table(self, conn: Connection) -> bool:
        return self._remembered("instigators", lambda: super(PooledScheduleStorage, self)._has_instigators_table(conn))

    def _remembered(self, name: str, ask: Callable[[], bool]) -> bool:
        if name not in self._complete and ask():
            self._complete |= {name}
        return name in self._complete


class PooledSqliteStorage(DagsterSqliteStorage):
    """All three storages, in the folders of Dagster's ``storage: sqlite``."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        # Not that of DagsterSqliteStorage, which would open the stock storages too.
        super(DagsterSqliteStorage, self).__init__()  # type: ignore[no-untyped-call]  # Dagster has no type there
        self.base_dir, self._inst_data = base_dir, inst_data
        # Of eight processes that create the files at the same time, two end with "table already exists" otherwise.
        with FileLock(os.path.join(base_dir, "creation.lock"), timeout=_BUSY_S):
            self._run_storage = _open(PooledRunStorage, os.path.join(base_dir, "history", ""), "runs")
            self._event_log_storage = PooledEventLogStorage(os.path.join(base_dir, "history", "runs", ""))
            self._schedule_storage = _open(PooledScheduleStorage, os.path.join(base_dir, "schedules"), "schedules")

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> "PooledSqliteStorage":
        """Return the storage that ``dagster.yaml`` configures."""
        return cls.from_local(inst_data=inst_data, **config_value)


def _open(kind: type[Storage], base_dir: str, name: str) -> Storage:
    """Open a storage, and create its file if it is missing."""
    url = create_db_conn_string(base_dir, name)
    if _is_complete(url.removeprefix("sqlite:///")):
        return kind(url)
    made: Any = kind.from_local(base_dir)
    return cast("Storage", made)
