"""Resources: the source database and the bucket, one of each for a run."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster_aws.s3 import S3Resource
from pydantic import Field, PrivateAttr, SecretStr

from pg_bronze.core import band_rules
from pg_bronze.core.band_rules import BandRules
from pg_bronze.core.table import SourceTable
from pg_bronze.core.value_policies import Policies
from pg_bronze.defs import log_lines, metadata, run_tags, run_watchdog, table_choices
from pg_bronze.defs.connections import open_control, open_source
from pg_bronze.errors import AccessDenied, PgBronzeError, SourceUnavailable, StoreUnavailable
from pg_bronze.lake import request_count, s3_client
from pg_bronze.lake.object_store import Store
from pg_bronze.postgres.connection import Source
from pg_bronze.postgres.control_table import Control
from pg_bronze.scheduling import batches, first_loads
from pg_bronze.settings.bucket import S3Connection
from pg_bronze.settings.model import Settings
from pg_bronze.settings.process import lower_priority, tune_process
from pg_bronze.sync.options import SyncOptions
from pg_bronze.sync.table_sync import TableSync

SOURCE_DATABASE = "source_database"


class Bucket(S3Resource):
    """An S3 bucket, with the configuration of dagster-aws.

    The credentials are not part of the configuration, because the UI shows it. They are read from the settings.
    """

    bucket: str = Field(description="Bucket to write to; `MINIO_BUCKET`.")
    prefix: str = Field(default="", description="Key prefix inside the bucket; `PG_BRONZE_PREFIX`.")
    settings: dg.ResourceDependency[Settings]

    @classmethod
    def from_settings(cls, settings: Settings) -> "Bucket":
        """Return the bucket that the settings name."""
        s3 = settings.s3
        return cls(
            bucket=settings.minio_bucket,
            prefix=settings.prefix,
            endpoint_url=s3.endpoint_url,
            region_name=s3.region,
            use_ssl=s3.use_ssl,
            settings=resource_of(settings),
        )

    @property
    def connection(self) -> S3Connection:
        """The connection of this configuration: the settings, as far as the configuration does not replace them."""
        s3 = self.settings.s3
        endpoint_url = self.endpoint_url or ""
        return replace(
            s3,
            endpoint_url=endpoint_url,
            region=self.region_name or s3.region,
            use_ssl=endpoint_url.startswith("https://") if endpoint_url else bool(self.use_ssl),
            verify=self.verify is not False,
            **self._replaced_keys(s3),
        )

    def _replaced_keys(self, s3: S3Connection) -> dict[str, Any]:
        access_key, secret_key = self.aws_access_key_id, self.aws_secret_access_key
        if not (access_key or secret_key):
            return {}
        return {
            "source": "keys",
            "access_key": SecretStr(access_key) if access_key else s3.access_key,
            "secret_key": SecretStr(secret_key) if secret_key else s3.secret_key,
            "session_token": SecretStr(self.aws_session_token or "") if access_key else s3.session_token,
        }

    def get_client(self) -> Any:
        """Return a botocore client whose timeouts are shorter than a tick; see ``s3_client.shared``."""
        return s3_client.shared(self.connection)

    def open(self) -> Store:
        """Return the bucket, with a client that other runs of this process may use too."""
        return Store(self.get_client(), self.bucket, self.prefix, self.connection)


def resource_of(settings: Settings) -> Any:
    """Return the settings as a resource without configuration, so that the UI does not show them."""
    return dg.ResourceDefinition.hardcoded_resource(settings)


def sync_options(
    settings: Settings,
    label: str,
    rules: BandRules | None = None,
    turn_s: float | None = None,
    share_s: float | None = None,
) -> SyncOptions:
    """Return the options of one table.

    Args:
        rules: The limits of bands and sweeps; None reads the table completely.
        turn_s: The seconds after which a first load stops; None loads to the end.
        share_s: The seconds after which any table stops; None copies to the end.
    """
    table = settings.table_options(label)
    return SyncOptions(
        slice_rows=table.slice_rows,
        slice_bytes=table.slice_bytes or settings.slice_bytes,
        codec=table_choices.codec_of(settings, label),
        dated=settings.layout == "date",
        cursor_names=settings.cursor_names,
        cursor_column=table.cursor_column,
        takeover=table.takeover,
        unfenced=settings.unfenced,
        policies=Policies(table.infinity, table.late_dates, table.nan),
        columns=table_choices.columns_of(settings, label),
        bands=rules.with_budget(table.sweep_budget) if rules and table.bands == "auto" else None,
        load_parallel=settings.load_parallel,
        turn_s=turn_s,
        share_s=share_s,
    )


class SourceDatabase(dg.ConfigurableResource[None]):
    """The PostgreSQL database that tables are copied from. All tables of a run share one connection."""

    host: str = Field(description="Host name or address; `PG_HOST`.")
    port: int = Field(description="Port; `PG_PORT`.")
    database: str = Field(description="Database; `PG_DB`.")
    user: str = Field(description="User; `PG_USER`. The password, `PG_PASS`, is not part of this configuration.")
    bucket: dg.ResourceDependency[Bucket]
    settings: dg.ResourceDependency[Settings]

    _source: Source | None = PrivateAttr(default=None)
    _control: Control | None = PrivateAttr(default=None)
    _store: Store | None = PrivateAttr(default=None)
    _rows: dict[str, int] = PrivateAttr(default_factory=dict)
    _unchanged: list[str] = PrivateAttr(default_factory=list)
    _busy: list[str] = PrivateAttr(default_factory=list)
    _left: list[str] = PrivateAttr(default_factory=list)
    _failed: list[str] = PrivateAttr(default_factory=list)
    _logged: set[str] = PrivateAttr(default_factory=set)
    _must_recheck: bool = PrivateAttr(default=False)
    _down: PgBronzeError | None = PrivateAttr(default=None)
    _requests: Counter[str] = PrivateAttr(default_factory=Counter)
    _rules: BandRules | None = PrivateAttr(default=None)
    _turn_s: float | None = PrivateAttr(default=None)
    _share_s: float | None = PrivateAttr(default=None)

    @classmethod
    def from_settings(cls, settings: Settings, bucket: Bucket) -> "SourceDatabase":
        """Return the database that the settings name."""
        return cls(
            host=settings.pg_host,
            port=settings.pg_port,
            database=settings.pg_db,
            user=settings.pg_user,
            bucket=bucket,
            settings=resource_of(settings),
        )

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Prepare the run. The first table opens the connections."""
        tune_process()
        self._requests = request_count.current()
        run_id, tags = (context.run.run_id, context.run.tags) if context.run else ("", {})
        # A person expects every committed row; the sensor and `pg-bronze run` come again.
        complete = tags.get(metadata.BATCH_TAG) not in metadata.UNATTENDED
        large_tables = int(tags.get(metadata.LARGE_TABLES_TAG, "0"))
        self._rules = band_rules.rules_of(self.settings.interval_s, large_tables, complete)
        is_load = metadata.FIRST_LOAD_TAG in tags and tags.get(metadata.BATCH_TAG) == "tick"
        self._turn_s = first_loads.turn_s(attended=complete, alone=is_load)
        if is_load:
            lower_priority()
        # Other tables of the run wait for a table that is locked or has much to copy.
        shared = not complete and not tags.keys() & {metadata.FIRST_LOAD_TAG, metadata.SLOW_TAG}
        self._share_s = batches.SHARE_S if shared else None
        self._source = open_source(
            self.settings,
            run_watchdog.session_name(run_id),
            ends_at=_ends_at(context, self.settings),
            lock_timeout_s=batches.LOCK_WAIT_S if shared else 0.0,
            connected=run_watchdog.server_recorder(context.instance, context.run),
        )

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Close the connection, and write what the run copied to its log and tags."""
        if self._source is not None:
            self._source.close()
        others = [*self._unchanged, *self._busy, *self._left]
        copied = bool(self._rows or others or self._failed)
        if copied and context.log is not None:
            counts = log_lines.of_batch(self._rows, self._unchanged, self._busy, self._left, self._failed)
            context.log.info("batch: %s", counts)
        if context.instance is not None and context.run:
            known = not copied or run_tags.TABLES in context.run.tags
            tags = run_tags.copied(self._rows, others, self._failed, known)
            if requests := request_count.to_text(request_count.current() - self._requests):
                tags[run_tags.REQUESTS] = requests
            if tags:
                context.instance.add_run_tags(context.run.run_id, tags)

    @contextmanager
    def table_sync(self, table: SourceTable) -> Iterator[TableSync]:
        """Open the sync of one table with this run's connections, and hold the table's lock."""
        with self.unlocked_sync(table) as sync, sync:
            yield sync

    @contextmanager
    def unlocked_sync(self, table: SourceTable) -> Iterator[TableSync]:
        """Open the sync of one table with this run's connections.

        After an error of the server or the bucket, the connections are checked before the next table uses them.
        """
        try:
            source, store, control = self._open()
            options = sync_options(self.settings, table.label, self._rules, self._turn_s, self._share_s)
            yield TableSync(source, store, table, options, control, now=_now)
        except (SourceUnavailable, StoreUnavailable, AccessDenied):
            self._must_recheck = True
            raise

    def _open(self) -> tuple[Source, Store, Control]:
        if self._source is None:
            raise RuntimeError("the resource is used outside a run")
        if self._down is not None:
            # Otherwise each of a hundred tables would wait for the timeout. The next run connects again.
            raise type(self._down)(str(self._down))
        try:
            if self._store is None:
                store = self.bucket.open()
                store.prepare(self.settings.unfenced)
                self._store = store
            elif self._must_recheck:
                self._store.check()
            if self._must_recheck:
                self._source.check()
            # Replaces a connection that was lost while it was not used; the control table would find it closed.
            self._source.connection  # noqa: B018  (the property connects)
            if self._control is None or self._control.broken:
                self._control = open_control(self.settings, self._source)
        except PgBronzeError as error:
            self._down = error
            raise
        self._must_recheck = False
        return self._source, self._store, self._control

    @property
    def reader_note(self) -> str | None:
        """Why slices are read with COPY although that was not chosen; None before the first read."""
        found = self._source.limitation if self._source else None
        return f"Slices are read with COPY: connectorx {found}." if found else None

    def first_time(self, sentence: str) -> bool:
        """Return whether this run has not logged the sentence yet, so that a cause of all tables is logged once."""
        known = sentence in self._logged
        self._logged.add(sentence)
        return not known

    def count(self, label: str, row_count: int) -> None:
        """Count the new rows of a table for the summary of the batch."""
        self._rows[label] = row_count

    def count_without_rows(self, label: str, busy: bool) -> None:
        """Count a table that was found unchanged, or ``busy`` because another run is copying it."""
        (self._busy if busy else self._unchanged).append(label)

    @property
    def failed(self) -> list[str]:
        """The tables whose copy failed, to which the asset and its IO manager add."""
        return self._failed

    def count_left(self, label: str) -> None:
        """Count a table that is left to a later tick, because this run got no connection or the table is locked."""
        self._left.append(label)


def _ends_at(context: dg.InitResourceContext, settings: Settings) -> float:
    """Return the ``time.monotonic`` at which Dagster ends this run because of its length; reads end before."""
    limit_s, spent_s = float(settings.max_run_s), 0.0
    if context.run is not None and context.instance is not None:
        monitored_s = context.instance.run_monitoring_max_runtime_seconds
        limit_s = float(context.run.tags.get("dagster/max_runtime") or monitored_s or limit_s)
        record = context.instance.get_run_record_by_id(context.run.run_id)
        if record is not None and record.start_time is not None:
            spent_s = max(0.0, time.time() - record.start_time)
    return time.monotonic() + limit_s - spent_s


def _now() -> datetime:
    return datetime.now(UTC)
