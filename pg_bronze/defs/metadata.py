"""Metadata: the entries of materializations, observations and definitions, and how they are read back."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, get_args

import dagster as dg

from pg_bronze.core import column_types, value_policies, watermark_text
from pg_bronze.core.band_notes import BandNotes
from pg_bronze.core.load_progress import LoadProgress
from pg_bronze.core.table import Column, SourceTable
from pg_bronze.core.watermark import Watermark
from pg_bronze.errors import FormatTooNew, LakeDamaged, PgBronzeError, Retry
from pg_bronze.scheduling import batches
from pg_bronze.scheduling.backoff import Failure

if TYPE_CHECKING:
    from pg_bronze.sync.report import SyncReport  # with all that reads footers, which a tick does not need

WATERMARK = "pg_bronze/watermark"
QUIET_UPTO = "pg_bronze/quiet_upto"
GENERATION = "pg_bronze/generation"
QUIET = "pg_bronze/quiet"
VERSIONS = "pg_bronze/versions"
DRIFT = "pg_bronze/drift"
ROWS = "pg_bronze/rows"
CONTROL_MIRROR = "pg_bronze/control_mirror"
BATCH_TAG = "pg_bronze/batch"
# The number of tables that are swept by a schedule, which share a budget.
LARGE_TABLES_TAG = "pg_bronze/large_tables"
# A run that only copies one table, whose first load takes long. dagster.yaml limits how many of them run at once.
FIRST_LOAD_TAG = "pg_bronze/first_load"
# A run of tables whose last copy took long, so that they do not hold up others. dagster.yaml limits it likewise.
SLOW_TAG = "pg_bronze/slow"
DURATION = "pg_bronze/duration_s"
# Another session's lock kept the table from being read in a run of several tables.
LOCKED = "pg_bronze/locked"
PROGRESS = "pg_bronze/progress"
# What a tick reads of the last materialization of each table.
OF_A_TICK = frozenset({WATERMARK, DURATION, LOCKED})
# Batches that no person requested: those of the sensor and of `pg-bronze run`.
UNATTENDED = ["tick", "run"]
LOAD_ROWS, LOAD_BYTES = "pg_bronze/load_rows", "pg_bronze/load_bytes"
LOAD_SHARE, LOAD_LEFT = "pg_bronze/load_share", "pg_bronze/load_left_s"
RETRY = "pg_bronze/retry"
# Rows of the table and of the day in the lake, and those that a copy by `column > last value` would have lost.
ROW_COUNT, DAY_ROW_COUNT = "dagster/row_count", "dagster/partition_row_count"
LATE_ROWS, LATE_ROWS_TOTAL = "pg_bronze/late_rows", "pg_bronze/late_rows_total"
ORDER = "pg_bronze/order"
SWEEP_AGE, CURSOR_AGE = "pg_bronze/sweep_age_s", "pg_bronze/cursor_age_s"
COPIED_UP_TO = "pg_bronze/copied_up_to"
_FAILED, _COUNT = "pg_bronze/failed", "pg_bronze/failures_in_a_row"
_SINCE, _LAST, _NEXT = "pg_bronze/failing_since", "pg_bronze/failed_at", "pg_bronze/next_retry"
_STATE, _RUN = "pg_bronze/state", "pg_bronze/run"
_OBJECTS = re.compile(r", (\d+) objects$")
_ID = re.compile(r"-?[0-9]{1,19}", re.ASCII)


def watermark_of(event: dg.EventLogEntry | None) -> Watermark | None:
    """Return the watermark in a materialization; None if it has none, as after a wipe or a manual report.

    Raises:
        FormatTooNew: A newer pg_bronze wrote it.
        LakeDamaged: It cannot be read. The message names the asset and the remedy.
    """
    materialization = event.asset_materialization if event else None
    return watermark_in(materialization.asset_key, values_of(materialization)) if materialization else None


def values_of(event: dg.AssetMaterialization | dg.AssetObservation | None) -> dict[str, Any]:
    """Return the values of the metadata of an event."""
    return {name: entry.value for name, entry in event.metadata.items()} if event else {}


def watermark_in(key: dg.AssetKey, values: Mapping[str, Any]) -> Watermark | None:
    """Return the watermark in the metadata of a materialization, as ``watermark_of`` does."""
    if (value := values.get(WATERMARK)) is None:
        return None
    asset = key.to_user_string()
    try:
        return _watermark_in(value)
    except FormatTooNew as error:
        raise FormatTooNew(f"{asset}: in its last materialization, {error}") from error
    except LakeDamaged as error:
        raise LakeDamaged(
            f"{asset}: its last materialization contains a watermark that cannot be read ({error}). Wipe the "
            "materializations of the asset; the watermark is then rebuilt from the newest object."
        ) from error


def _watermark_in(value: Any) -> Watermark | None:
    """Return the watermark of a metadata value: its text, or its JSON, as older versions wrote it."""
    if isinstance(value, Mapping):
        return Watermark.from_json(value)
    return watermark_text.from_text(value) if isinstance(value, str) and value.startswith("{") else None


def quiet_upto(observation: dg.AssetObservation | None) -> tuple[int, int]:
    """Return ``(generation, transaction)``: a read found nothing new below it; ``(-1, 0)`` if not known."""
    entries = observation.metadata if observation else {}
    generation, upto = (_id(entries[name].value) if name in entries else None for name in (GENERATION, QUIET_UPTO))
    return (-1, 0) if generation is None or upto is None else (generation, upto)


def _id(value: Any) -> int | None:
    """Return a number that is stored as a text, because its plot means nothing; older versions stored a number."""
    if isinstance(value, str):
        return int(value) if _ID.fullmatch(value) else None
    return value if isinstance(value, int) else None


def progress_of(observation: dg.AssetObservation | None) -> Watermark | None:
    """Return what a run read after its last commit and found empty; None if it recorded nothing that can be read."""
    entry = observation.metadata.get(PROGRESS) if observation else None
    try:
        return None if entry is None else _watermark_in(entry.value)
    except PgBronzeError:
        return None  # it is read again


def with_progress(watermark: Watermark | None, progress: Watermark | None) -> Watermark | None:
    """Return a watermark with what was read after it, if that continues it."""
    if watermark is None or progress is None:
        return watermark
    known = (watermark.table, watermark.generation, watermark.seq)
    return progress if known == (progress.table, progress.generation, progress.seq) else watermark


def of_progress(progress: Watermark | None) -> dict[str, Any]:
    """Return what the next run continues from, of tables that are too large to be read in every tick."""
    return {PROGRESS: watermark_text.to_text(progress)} if progress else {}


def of_load(progress: LoadProgress | None) -> dict[str, Any]:
    """Return how far a first load is; nothing if there is none."""
    if progress is None:
        return {}
    entries = {
        LOAD_ROWS: progress.row_count,
        LOAD_BYTES: progress.size_bytes,
        LOAD_SHARE: round(progress.share, 4),
    }
    return entries if progress.left_s is None else {**entries, LOAD_LEFT: round(progress.left_s)}


def loaded_before(event: dg.EventLogEntry | None) -> tuple[int, int]:
    """Return the rows and bytes that a first load had copied at the end of its last run; zeros if not known."""
    materialization = event.asset_materialization if event else None
    entries = materialization.metadata if materialization else {}
    rows, size = (entries[name].value if name in entries else None for name in (LOAD_ROWS, LOAD_BYTES))
    return (rows, size) if isinstance(rows, int) and isinstance(size, int) else (0, 0)


def of_duration(seconds: float) -> dict[str, Any]:
    """Return how long a table's copy took in its run; the next tick decides by it which runs it requests."""
    return {DURATION: round(seconds, 1)}


def is_slow(values: Mapping[str, Any]) -> bool:
    """Return whether a table took so long in its last run, or was locked, that it gets a run apart from the others."""
    duration_s = values.get(DURATION)
    return LOCKED in values or (isinstance(duration_s, int | float) and duration_s > batches.SLOW_AFTER_S)


def is_quiet(observation: dg.AssetObservation | None) -> bool:
    """Return whether an observation was recorded by a run that had nothing to copy."""
    return observation is not None and bool({QUIET, QUIET_UPTO} & set(observation.metadata))


def of_failure(failure: Failure, run_id: str, next_retry: float) -> dict[str, Any]:
    """Return a failure as the asset's history shows it; ``next_retry`` is in seconds since 1970."""
    return {
        _FAILED: failure.sentence,
        RETRY: failure.retry,
        _COUNT: failure.count,
        _SINCE: dg.MetadataValue.timestamp(failure.since),
        _LAST: dg.MetadataValue.timestamp(failure.last),
        _NEXT: dg.MetadataValue.timestamp(next_retry),
        _STATE: failure.state,
        _RUN: dg.MetadataValue.dagster_run(run_id),
    }


def failure_of(observation: dg.AssetObservation | None) -> tuple[Failure | None, str]:
    """Return the failure in an observation and the id of its run; ``(None, "")`` if it contains none."""
    entries = {name: entry.value for name, entry in observation.metadata.items()} if observation else {}
    sentence, count, since, last, state = (entries.get(name) for name in (_FAILED, _COUNT, _SINCE, _LAST, _STATE))
    for retry in get_args(Retry):
        if (
            retry == entries.get(RETRY)
            and isinstance(sentence, str)
            and isinstance(count, int)
            and isinstance(since, float)
            and isinstance(last, float)
            and isinstance(state, str)
        ):
            return Failure(sentence, retry, count, since, last, state), str(entries.get(_RUN, ""))
    return None, ""


def of_watermark(watermark: Watermark) -> dict[str, Any]:
    """Return the one entry that every materialization needs; without it the next run rebuilds it from footers."""
    return {WATERMARK: watermark_text.to_text(watermark)}


def of_quiet(reason: str, horizon: int, generation: int) -> dict[str, Any]:
    """Return the observation of a table without new rows; horizon 0 means that nothing was read."""
    return {QUIET_UPTO: str(horizon), GENERATION: str(generation)} if horizon else {QUIET: reason}


def of_report(
    report: "SyncReport",
    uri: str | None,
    duration_s: float,
    load: LoadProgress | None = None,
    day_row_count: int | None = None,
) -> dict[str, Any]:
    """Return a materialization's metadata, in the order in which a person reads it; the watermark is last.

    It is small, because Dagster stores it twice. Dagster plots every number, so those that are no quantity are texts.

    Args:
        uri: The URI of the newest object.
        duration_s: How long the table's copy took.
        load: How far the table's first load is; None if there is none.
        day_row_count: The rows of the partition in the lake; None if not known.
    """
    entries: dict[str, Any] = {
        ROWS: report.row_count,
        "pg_bronze/bytes": report.size_bytes,
        **of_duration(duration_s),
        LATE_ROWS: report.late_row_count,
        SWEEP_AGE: _rounded(report.bands.sweep_age_s) if report.bands else None,
        "dagster/uri": uri,
        **of_totals(report.watermark, day_row_count, with_late=report.cursor_column is not None),
        **of_load(load),
        CURSOR_AGE: _cursor_age_s(report),
        COPIED_UP_TO: _copied_up_to(report),
        **_of_bands(report.bands),
        **_of_trouble(report),
        **of_watermark(report.watermark),
    }
    return {name: value for name, value in entries.items() if value is not None}


def of_totals(watermark: Watermark, day_row_count: int | None, *, with_late: bool = False) -> dict[str, Any]:
    """Return how many rows the lake has of a table and of a day, as far as that is known."""
    counts = watermark.counts
    totals = {
        ROW_COUNT: counts.rows if counts else None,
        DAY_ROW_COUNT: day_row_count,
        LATE_ROWS_TOTAL: counts.late if counts and with_late else None,
    }
    return {name: value for name, value in totals.items() if value is not None}


def _copied_up_to(report: "SyncReport") -> str:
    """Return how far the table is copied, in one text: an entry of its own costs 150 bytes for each of its parts."""
    watermark, column = report.watermark, report.cursor_column
    swept = [leaf.swept for leaf in watermark.leaves.values() if leaf.swept is not None]
    end, count = min(swept, default=0), len(report.objects)
    fresh = f" (newest rows: {report.bands.fresh_end})" if report.bands else ""
    parts = [
        f"{column.name} = {watermark.cursor}" if column and watermark.cursor is not None else "",
        f"transaction {end}{fresh}",
        f"generation {watermark.generation}" if watermark.generation else "",
        f"{count} objects" if count != 1 else "",
    ]
    return ", ".join(filter(None, parts))


def cursor_of(entries: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the cursor column and its newest value in the values of a materialization's entries; None if none."""
    column, equals, rest = str(entries.get(COPIED_UP_TO, "")).partition(" = ")
    if equals:
        return column, rest.partition(", transaction ")[0]
    return entries.get("pg_bronze/cursor_column"), entries.get("pg_bronze/cursor_value")  # of an older version


def object_count(entries: Mapping[str, Any]) -> int:
    """Return the number of objects in the values of a materialization's entries."""
    found = _OBJECTS.search(str(entries.get(COPIED_UP_TO, "")))
    return int(found[1]) if found else 1


def _of_trouble(report: "SyncReport") -> dict[str, Any]:
    """Return what is not as usual."""
    entries: dict[str, Any] = {}
    if report.adopted:
        entries["pg_bronze/adopted_slices"] = str(len(report.adopted))
    if counts := value_policies.count_by_column(value for item in report.objects for value in item.exceptional):
        entries["pg_bronze/exceptional_values"] = dg.MetadataValue.json(counts)
    if report.drift:
        entries[DRIFT] = "\n".join(report.drift)
    if report.unfenced:
        entries["pg_bronze/unfenced"] = "PG_BRONZE_UNFENCED is set: two writers at once may have duplicated rows"
    if report.control_off:
        entries[CONTROL_MIRROR] = report.control_off
    return entries


def _of_bands(notes: BandNotes | None) -> dict[str, Any]:
    """Return what a table shows that is swept by a schedule."""
    if notes is None:
        return {}
    return {
        "pg_bronze/sweep_every_s": round(notes.sweep_every_s),
        ORDER: notes.order or "none: the table is read completely in each sweep",
        "pg_bronze/fresh_share": notes.fresh_share,
        "pg_bronze/sweep_progress": notes.swept_blocks,
        "pg_bronze/missing_index": notes.advice,
    }


def _rounded(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds)


def _cursor_age_s(report: "SyncReport") -> float | None:
    """Return the age of the newest cursor value in seconds; None if it is not a time."""
    column, value = report.cursor_column, report.watermark.cursor
    if column is None or value is None or column.kind != "timestamp" or value.endswith("BC"):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None  # a year after 9999
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round((datetime.now(UTC) - moment).total_seconds(), 1)


def of_definition(table: SourceTable, database: str) -> dict[str, Any]:
    """Return the metadata of a source table: its name, and its columns with types and comments."""
    columns = [_column(table, column) for column in table.columns]
    return {
        "dagster/table_name": f"{database}.{table.schema}.{table.name}",
        "dagster/column_schema": dg.TableSchema(columns=columns),
    }


def of_copy(table: SourceTable, uri: str) -> dict[str, Any]:
    """Return the metadata of an asset with the rows of a table: its address, its columns, and its table.

    Args:
        uri: The address of the folder or object. The UI shows it as the storage of the asset.
    """
    columns = [_column(table, column) for column in table.columns]
    return {
        "dagster/uri": uri,
        "dagster/column_schema": dg.TableSchema(
            columns=[*columns, _xid_column(column_types.xid_column(table.columns))]
        ),
        "pg_bronze/schema": table.schema,
        "pg_bronze/table": table.name,
    }


def _column(table: SourceTable, column: Column) -> dg.TableColumn:
    mask = f"Masked: {column.mask.kind}." if column.mask else None
    is_key = column.name in table.primary_key
    return dg.TableColumn(
        name=column.name,
        type=column.declared,
        description=" ".join(filter(None, [column.comment, mask])) or None,
        constraints=dg.TableColumnConstraints(
            nullable=not column.not_null,
            unique=table.primary_key == (column.name,),
            other=["primary key"] if is_key else None,
        ),
    )


@cache
def _xid_column(name: str) -> dg.TableColumn:
    return dg.TableColumn(
        name=name,
        type="bigint",
        description="Transaction that wrote the row version.",
        constraints=dg.TableColumnConstraints(nullable=False),
    )
