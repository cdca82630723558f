"""IO managers: write slices as Parquet objects to S3, and read them back as one LazyFrame."""

import time
from collections.abc import Callable
from datetime import date
from typing import Any

import dagster as dg
from pydantic import PrivateAttr

from pg_bronze.core.load_progress import LoadProgress
from pg_bronze.defs import failures, log_lines, metadata, table_choices
from pg_bronze.defs.assets import BronzeOutput
from pg_bronze.defs.resources import Bucket
from pg_bronze.errors import PgBronzeError
from pg_bronze.lake.commit import Slice, SliceWriter, write_all
from pg_bronze.lake.keys import Layout
from pg_bronze.lake.ledger import Committed, Ledger
from pg_bronze.lake.object_store import Store
from pg_bronze.lake.reading import latest_object, scan
from pg_bronze.settings.model import Settings

# A slice takes some seconds, so that the progress of a load is never older than 30 s while slices are written.
PROGRESS_EVERY_S = 20.0
Watch = Callable[[str, LoadProgress], None]


class S3ParquetIOManager(dg.ConfigurableIOManager):
    """Writes each slice of a table as its own object while the next slice is read."""

    bucket: dg.ResourceDependency[Bucket]
    settings: dg.ResourceDependency[Settings]
    # Called with a table's label and the progress of its first load after each slice; None in a run worker.
    watch: dg.ResourceDependency[Any]

    _instance: dg.DagsterInstance | None = PrivateAttr(default=None)
    _run: dg.DagsterRun | None = PrivateAttr(default=None)
    _store: Store | None = PrivateAttr(default=None)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Keep the instance and the run, which a failure is recorded with."""
        self._instance, self._run = context.instance, context.run

    def handle_output(self, context: dg.OutputContext, obj: BronzeOutput) -> None:
        """Write the slices, and add the watermark after the last one to the materialization."""
        if self._instance is None or self._run is None:
            raise RuntimeError("the IO manager is used outside a run")
        with failures.recorded(self._instance, self._run, context.asset_key, obj.label, obj.state, obj.failed):
            self._store = store = self._store or self.bucket.open()
            codec = table_choices.codec_of(self.settings, obj.label)
            writer = SliceWriter(Ledger(store, _layout(context, self.settings)), codec)
            report = write_all(obj.slices, writer, _SliceLog(context, store, obj, self.watch))
            _log_rest(context, obj)
        for adopted in report.adopted:
            context.log.info(
                "adopted %s: %s rows were written and not recorded", store.uri(adopted.key), f"{adopted.row_count:,}"
            )
            _log_drift(context, obj.label, adopted)
        uri = store.uri(report.watermark.key) if report.watermark.key else None
        day_rows = report.day_row_count(day, writer.ledger.layout.day) if (day := _day(context)) else None
        duration_s = time.monotonic() - obj.started
        context.add_output_metadata(metadata.of_report(report, uri, duration_s, obj.load.progress, day_rows))

    def load_input(self, context: dg.InputContext) -> Any:
        """Return the objects of the requested days as one LazyFrame, or all if the downstream asset has no partitions.

        An input with the metadata ``pg_bronze/versions: latest`` receives the newest version of each row.
        """
        layout = _layout(context.upstream_output, self.settings)
        versions: Any = (context.definition_metadata or {}).get(metadata.VERSIONS, "all")
        try:
            return scan.frame(self.bucket.open(), layout, self.bucket.connection, versions, days=_days(context))
        except PgBronzeError as error:
            raise log_lines.dagster_failure(error) from error


class NewestParquetIOManager(dg.ConfigurableIOManager):
    """Writes the newest row versions of a table as one Parquet object, which every run replaces.

    The object is stored outside the tables' folders, so no scan or recovery of a table reads it.
    """

    bucket: dg.ResourceDependency[Bucket]
    settings: dg.ResourceDependency[Settings]

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Stream the frame into the object. The previous object is kept until the new one is complete."""
        store, layout = self.bucket.open(), _layout(context, self.settings)
        try:
            row_count = latest_object.write(obj, store, layout, self.bucket.connection)
        except PgBronzeError as error:
            raise log_lines.dagster_failure(error) from error
        uri = store.uri(layout.latest)
        context.log.info("wrote %s: %s rows", uri, f"{row_count:,}")
        context.add_output_metadata({"dagster/row_count": row_count, "dagster/uri": uri})

    def load_input(self, context: dg.InputContext) -> Any:
        """Return the object as a LazyFrame."""
        return latest_object.read(
            self.bucket.open(), _layout(context.upstream_output, self.settings), self.bucket.connection
        )


class _SliceLog:
    """Writes one log line for each slice, always with the same fields in the same order.

    While a first load runs, it also writes how far that is: a line and an observation every 20 s.
    """

    def __init__(self, context: dg.OutputContext, store: Store, output: BronzeOutput, watch: Watch | None) -> None:
        self._context = context
        self._store = store
        self._label = output.label
        self._load = output.load
        self._watch = watch
        self._shown_at = time.monotonic()

    def __call__(self, piece: Slice, committed: Committed | None, seconds: float) -> None:
        if committed is None:
            self._context.log.info("another writer has the next object of %s; what it wrote is adopted", self._label)
            return
        _log_drift(self._context, self._label, committed)
        uri, cursor = self._store.uri(committed.key), committed.watermark.cursor
        seconds, late = piece.seconds + seconds, committed.late_row_count
        self._context.log.info(log_lines.of_slice(self._label, piece, cursor, uri, seconds, late))
        self._show(self._load.add(committed))

    def _show(self, progress: LoadProgress | None) -> None:
        if progress is None:
            return
        if self._watch is not None:
            self._watch(self._label, progress)
        now = time.monotonic()
        if now - self._shown_at >= PROGRESS_EVERY_S:
            self._shown_at = now
            self._context.log.info(progress.sentence(self._label))
            # Stored at once; the materialization is stored after the last slice.
            self._context.log_event(dg.AssetObservation(self._context.asset_key, metadata=metadata.of_load(progress)))


def _log_rest(context: dg.OutputContext, output: BronzeOutput) -> None:
    """Log how far a first load is that stops before its end."""
    if output.load.progress is not None and output.load.is_loading:
        context.log.info("%s; the next run continues it", output.load.progress.sentence(output.label))


def _log_drift(context: dg.OutputContext, label: str, item: Committed) -> None:
    for sentence in item.drift:
        context.log.warning("%s: %s", label, sentence)


def _layout(output: dg.OutputContext | None, settings: Settings) -> Layout:
    """Return the layout of the table that an asset belongs to."""
    definition = (output.definition_metadata if output else None) or {}
    return Layout(settings.prefix, str(definition["pg_bronze/schema"]), str(definition["pg_bronze/table"]))


def _day(context: dg.OutputContext) -> date | None:
    """Return the day that is materialized; None if there are several, which share their metadata."""
    keys = context.asset_partition_keys if context.has_asset_partitions else ()
    return date.fromisoformat(keys[0]) if len(keys) == 1 else None


def _days(context: dg.InputContext) -> set[date] | None:
    """Return the requested days, or None for all of them, including days before the first partition."""
    if not context.has_asset_partitions:
        return None
    requested = set(context.asset_partition_keys)
    if requested == set(context.asset_partitions_def.get_partition_keys()):
        return None
    return {date.fromisoformat(key) for key in requested}
