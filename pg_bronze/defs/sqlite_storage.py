"""Dagster's SQLite storage with connections that are kept between statements.

The storage of Dagster opens a connection for each statement and closes it afterwards. SQLite then reads the schema
again and writes its log back into the database file, and SQLAlchemy compiles the statement again. The files are the
same: ``dagster.yaml`` may name either storage at any time.

This module is loaded by the web server and the daemon, so it imports nothing of pg_bronze.
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME, SqliteEventLogStorage
from dagster._core.storage.runs.sqlite.sqlite_run_storage import SqliteRunStorage
from dagster._core.storage.schedules.sqlite.sqlite_schedule_storage import SqliteScheduleStorage
from dagster._core.storage.sql import create_engine
from dagster._core.storage.sqlite import create_db_conn_string
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData
from filelock import FileLock
from sqlalchemy import Connection, Engine, QueuePool, event, text

# Databases of single runs that stay open; a process rarely reads more of them alternately.
_RUNS_OPEN = 4
# Seconds that a statement waits for the lock of another process; that of Dagster's event storage.
_BUSY_S = 60


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


def _is_stamped(connection: Connection) -> bool:
    """Return whether a database was created before, by this version or an older one.

    Dagster does nothing then, but executes its hundred files of migrations to find out which is the newest one: a tenth
    of the CPU time of `pg-bronze tick`. ``instance_info`` is a table that it added without a migration.
    """
    tables = set(connection.execute(text("select name from sqlite_master where type = 'table'")).scalars())
    if "alembic_version" not in tables or ("runs" in tables and "instance_info" not in tables):
        return False
    return connection.execute(text("select 1 from alembic_version")).first() is not None


class _Kept:
    """The engines of one storage by name: the last ones that were used, and those that are always open."""

    def __init__(self, always: str) -> None:
        self._always = always
        self._engines: OrderedDict[str, Engine] = OrderedDict()

    def get(self, name: str, url: str, prepare: Callable[[Engine], None] | None = None) -> Engine:
        """Return the engine of a database; ``prepare`` replaces it and is called with the new one."""
        if prepare is not None and name in self._engines:
            self._engines.pop(name).dispose()
        if name not in self._engines:
            self._engines[name] = _engine(url)
            for other in [item for item in self._engines if item not in (name, self._always)][:-_RUNS_OPEN]:
                self._engines.pop(other).dispose()
        self._engines.move_to_end(name)
        if prepare is not None:
            prepare(self._engines[name])
        return self._engines[name]

    def dispose(self) -> None:
        """Close all connections."""
        while self._engines:
            self._engines.popitem()[1].dispose()


class PooledEventLogStorage(SqliteEventLogStorage):
    """The event log: one database for each run and an index of all asset events."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._kept = _Kept(INDEX_SHARD_NAME)
        self._migrated: set[str] = set()
        super().__init__(base_dir, inst_data)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock:
            # The retention removes the name of a run whose file it has removed.
            known = shard in self._initialized_dbs
            engine = self._kept.get(shard, self.conn_string_for_shard(shard), None if known else self._initdb)
            self._initialized_dbs.add(shard)
            with engine.begin() as connection:
                yield connection

    def _initdb(self, engine: Engine, for_index_shard: bool = False) -> None:
        with engine.connect() as connection:
            known = _is_stamped(connection)
        if not known:
            super()._initdb(engine, for_index_shard)

    def has_secondary_index(self, name: str) -> bool:
        """Return whether a migration is complete, which is asked for in every query and never undone."""
        if name not in self._migrated and super().has_secondary_index(name):
            self._migrated.add(name)
        return name in self._migrated

    def dispose(self) -> None:
        """Close all connections."""
        super().dispose()
        self._kept.dispose()


class _Pooled:
    """Keeps the connections of a storage that has one database, ``file``."""

    file: ClassVar[str]

    def __init__(self, conn_string: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._kept = _engine(conn_string)
        super().__init__(conn_string, inst_data)  # type: ignore[call-arg]  # of the storage, the next base class

    @classmethod
    def from_local(cls, base_dir: str, inst_data: ConfigurableClassData | None = None) -> Any:
        """Return the storage in a folder, and create its database if it is missing."""
        if os.path.isfile(os.path.join(base_dir, f"{cls.file}.db")):
            storage = cls(create_db_conn_string(base_dir, cls.file), inst_data)
            with storage.connect() as connection:
                known = _is_stamped(connection)
            if known:
                return storage
            storage.dispose()
        return super().from_local(base_dir, inst_data)  # type: ignore[misc]  # of the storage, the next base class

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Yield a connection in a transaction."""
        with self._kept.begin() as connection:
            yield connection

    def dispose(self) -> None:
        """Close all connections."""
        super().dispose()  # type: ignore[misc]  # of the storage, the next base class
        self._kept.dispose()


class PooledRunStorage(_Pooled, SqliteRunStorage):
    """Runs, their tags and snapshots."""

    file = "runs"


class PooledScheduleStorage(_Pooled, SqliteScheduleStorage):
    """Sensors and their ticks."""

    file = "schedules"


class PooledSqliteStorage(DagsterSqliteStorage):
    """All three storages, in the folders of Dagster's ``storage: sqlite``."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        # Not that of DagsterSqliteStorage, which would open the stock storages too.
        super(DagsterSqliteStorage, self).__init__()  # type: ignore[no-untyped-call]  # Dagster has no type there
        self.base_dir, self._inst_data = base_dir, inst_data
        # Of eight processes that create the files at the same time, two end with "table already exists" otherwise.
        with FileLock(os.path.join(base_dir, "creation.lock"), timeout=_BUSY_S):
            self._run_storage = PooledRunStorage.from_local(os.path.join(base_dir, "history", ""))
            self._event_log_storage = PooledEventLogStorage(os.path.join(base_dir, "history", "runs", ""))
            self._schedule_storage = PooledScheduleStorage.from_local(os.path.join(base_dir, "schedules"))

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> "PooledSqliteStorage":
        """Return the storage that ``dagster.yaml`` configures."""
        return cls.from_local(inst_data=inst_data, **config_value)
