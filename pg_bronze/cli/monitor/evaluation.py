"""The evaluation: reads the status of all tables over one connection to the source, as `pg-bronze status` does."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType

from pg_bronze.cli import kept_memory
from pg_bronze.cli.instance import open_instance
from pg_bronze.cli.monitor.request_meter import RequestMeter
from pg_bronze.core.former_tables import FormerTable
from pg_bronze.core.table import SourceTable
from pg_bronze.defs import catalog_state, skipped_tables, status
from pg_bronze.defs.connections import open_source
from pg_bronze.defs.source_names import SourceNames
from pg_bronze.defs.status import Status
from pg_bronze.defs.table_facts import Process
from pg_bronze.errors import PgBronzeError, SourceUnavailable
from pg_bronze.lake import keys
from pg_bronze.lake.object_store import Store
from pg_bronze.postgres import activity
from pg_bronze.postgres.connection import Source
from pg_bronze.postgres.connection_limit import Use
from pg_bronze.scheduling import batches
from pg_bronze.scheduling.memory import Memory
from pg_bronze.settings.model import Settings

# Reading the catalog of 1,000 tables takes a second. A created or dropped table is noticed after this time.
CATALOG_EVERY_S = 300.0


@dataclass(frozen=True)
class Evaluated:
    """The result of one evaluation.

    Attributes:
        status: The state of all tables.
        folders: The folder of each table in the bucket, by label.
        connections: The open connections of pg_bronze to the source database.
        last_tick: When the sensor last checked the tables, in seconds since 1970; None if it is not in use.
        s3_requests: Requests to the bucket since the monitor started, by operation.
        problem: Why the bucket cannot be used; None if it can.
    """

    status: Status
    folders: Mapping[str, str] = field(default_factory=dict)
    connections: int | None = None
    last_tick: float | None = None
    s3_requests: Mapping[str, int] = field(default_factory=dict)
    problem: PgBronzeError | None = None


class Evaluation:
    """Evaluates all tables again and again.

    Args:
        settings: The settings of this process.
        store: The bucket.
    """

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        # With a limit, a standing connection would be one more than was allowed: the short one is opened each time.
        self._keeps = settings.max_connections is None
        use: Use = "sensor" if self._keeps else "short"
        self._source = open_source(settings, "pg_bronze monitor", use, lock_timeout_s=batches.ASK_WAIT_S)
        self._process = Process(settings)
        self._memory: Memory | None = None
        self._tables: list[SourceTable] = []
        self._former: tuple[FormerTable, ...] = ()
        self._catalog_at = float("-inf")
        self._requests = RequestMeter(datetime.now(UTC), SourceNames(settings).tags)

    @property
    def source(self) -> Source:
        """The source database."""
        return self._source

    def __call__(self) -> Evaluated:
        """Return the state of all tables now.

        Raises:
            PgBronzeError: The source database does not answer, or Dagster's storage cannot be opened.
        """
        try:
            with open_instance() as instance:
                return self._read(instance, datetime.now(UTC))
        finally:
            if not self._keeps:
                self._source.close()

    def _read(self, instance: dg.DagsterInstance, now: datetime) -> Evaluated:
        if now.timestamp() - self._catalog_at >= CATALOG_EVERY_S:
            self._read_catalog(now)
        kept = kept_memory.load(instance, self._settings)
        found = status.read(
            instance, self._tables, self._settings, self._source, kept, self._process, now.timestamp(), self._memory
        )
        self._memory = found.memory
        folders = {table.label: keys.folder(table.schema, table.name) for table in self._tables}
        connections = activity.sessions(self._source, "pg_bronze")
        found = status.with_former(instance, found, self._former, SourceNames(self._settings))
        problem = self._problem()
        return Evaluated(found, folders, connections, last_tick(instance), self._requests.read(instance), problem)

    def _read_catalog(self, now: datetime) -> None:
        state = catalog_state.read(self._settings, now, self._store)
        if state.catalog is None or state.remembered:
            raise SourceUnavailable(state.remembered or state.error or "The catalog cannot be read.")
        wanted = [table for table in state.catalog.tables if self._settings.wants(table.label)]
        self._tables = [table for table in wanted if skipped_tables.reason(table, self._settings) is None]
        self._former = state.former
        self._catalog_at = now.timestamp()

    def _problem(self) -> PgBronzeError | None:
        """Return why the bucket cannot be used. The state of the tables is known all the same."""
        try:
            self._store.check()
        except PgBronzeError as error:
            return error
        return None


def last_tick(instance: dg.DagsterInstance) -> float | None:
    """Return when the sensor was last evaluated; None if it never was, or is switched off."""
    if instance.schedule_storage is None:
        return None  # an instance in memory
    states = instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
    times = [
        getattr(state.instigator_data, "last_tick_timestamp", None)
        for state in states
        if state.instigator_name == status.TICK_SENSOR and state.is_running
    ]
    return max((time for time in times if time), default=None)
