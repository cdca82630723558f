"""The S3 IO manager: writes a table's stream of slices as Parquet objects, reads them back as one LazyFrame."""

import time
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
from pydantic import PrivateAttr

from pg_bronze.defs import failures, metadata
from pg_bronze.defs.resources import Bucket
from pg_bronze.errors import PgBronzeError
from pg_bronze.lake.keys import Layout
from pg_bronze.lake.reading import scan
from pg_bronze.settings.load import load_settings
from pg_bronze.settings.model import Settings
from pg_bronze.sync.table_sync import Slice, SliceStream


class S3ParquetIOManager(dg.ConfigurableIOManager):
    """Commits each slice of a stream as its own object while the next one is read."""

    bucket: dg.ResourceDependency[Bucket]

    _instance: dg.DagsterInstance | None = PrivateAttr(default=None)
    _run: dg.DagsterRun | None = PrivateAttr(default=None)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Keep what a failure is noted with."""
        self._instance, self._run = context.instance, context.run

    def handle_output(self, context: dg.OutputContext, obj: SliceStream) -> None:
        """Commit the slices; the materialization's metadata carries the watermark after the last."""
        try:
            for adopted in obj.adopted:
                uri = obj.copy.store.uri(adopted.key)
                context.log.info("adopted %s: %d rows written but not recorded", uri, adopted.row_count)
                _say_drift(context, obj, adopted.drift)
            for piece in obj:
                started = time.monotonic()
                committed = obj.commit(piece)
                if committed is None:
                    context.log.info("another writer copied %s first; its objects were adopted", obj.copy.label)
                    break
                _say_drift(context, obj, committed.drift)
                context.log.info(_line(obj, piece, committed.key, piece.seconds + time.monotonic() - started))
        except Exception as error:
            if self._instance is not None and self._run is not None:
                state = failures.state_of(load_settings().fingerprint(), obj.copy.table.fingerprint)
                failures.note(self._instance, self._run, context.asset_key, error, state)
            if isinstance(error, PgBronzeError):
                raise metadata.failure(error, obj.copy.label) from error
            raise
        context.add_output_metadata(metadata.of_stream(obj, _lag_s(obj)))

    def load_input(self, context: dg.InputContext) -> Any:
        """The slices of the requested days (all, if the asset downstream has no partitions) as one LazyFrame.

        An input with the metadata ``pg_bronze/versions: latest`` gets the newest version of each row.
        """
        settings = load_settings()
        layout = _layout(context.upstream_output, settings)
        versions: Any = (context.definition_metadata or {}).get(metadata.VERSIONS, "all")
        try:
            return scan.frame(self.bucket.open(), layout, settings.s3, versions, days=_days(context))
        except PgBronzeError as error:
            raise metadata.failure(error) from error


class NewestParquetIOManager(dg.ConfigurableIOManager):
    """Keeps a frame of a table's newest row versions as one Parquet object, replaced as a whole by every run.

    It lies where no table's objects can ever lie.
    """

    bucket: dg.ResourceDependency[Bucket]

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Write the frame, piece by piece; what was there before stays until all of it is written."""
        settings = load_settings()
        store, key = self.bucket.open(), _layout(context, settings).latest
        try:
            obj.sink_parquet(store.uri(key), **scan.storage(settings.s3))
            row_count = scan.row_count(store, key, settings.s3)
        except PgBronzeError as error:
            raise metadata.failure(error) from error
        context.log.info("wrote %s: %s rows", store.uri(key), metadata.number(row_count))
        context.add_output_metadata({"dagster/row_count": row_count, "dagster/uri": store.uri(key)})

    def load_input(self, context: dg.InputContext) -> Any:
        """The newest versions as they were last written, as a LazyFrame."""
        settings = load_settings()
        return scan.one_object(self.bucket.open(), _layout(context.upstream_output, settings).latest, settings.s3)


def _layout(output: dg.OutputContext | None, settings: Settings) -> Layout:
    """Where the objects of the table lie that an asset is about."""
    definition = (output.definition_metadata if output else None) or {}
    return Layout(settings.prefix, str(definition["pg_bronze/schema"]), str(definition["pg_bronze/table"]))


def _days(context: dg.InputContext) -> set[date] | None:
    """The days that are asked for; None for all of them, also those before the first partition."""
    if not context.has_asset_partitions:
        return None
    asked = set(context.asset_partition_keys)
    if asked == set(context.asset_partitions_def.get_partition_keys()):
        return None
    return {date.fromisoformat(key) for key in asked}


def _say_drift(context: dg.OutputContext, stream: SliceStream, drift: Sequence[str]) -> None:
    for sentence in drift:
        context.log.warning("%s: %s", stream.copy.label, sentence)


def _line(stream: SliceStream, piece: Slice, key: str, seconds: float) -> str:
    region, column = piece.claim.region, stream.copy.cursor_column
    value = stream.watermark.cursor
    line = metadata.slice_line(
        stream.copy.label,
        piece.row_count,
        region.start if region else None,
        region.end if region else None,
        (column.name, value) if column and value else None,
        stream.copy.store.uri(key),
        seconds,
    )
    return f"{line} ({piece.claim.reason})" if piece.claim.reason else line


def _lag_s(stream: SliceStream) -> float | None:
    """How old the newest cursor value is; None if it is not a time."""
    column, value = stream.copy.cursor_column, stream.watermark.cursor
    if column is None or value is None or column.kind != "timestamp" or value.endswith("BC"):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None  # beyond the year 9999
    return (datetime.now(UTC) - (moment if moment.tzinfo else moment.replace(tzinfo=UTC))).total_seconds()
