"""Metadata: the names under which a materialization says what happened, and the watermark in it."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, get_args

import dagster as dg

from pg_bronze.core import value_policies
from pg_bronze.core.cursor_column import CursorColumn
from pg_bronze.core.table import Column, SourceTable
from pg_bronze.core.watermark import Watermark
from pg_bronze.errors import FormatTooNew, LakeDamaged, PgBronzeError, Retry
from pg_bronze.lake.commit import Slice
from pg_bronze.scheduling.backoff import Failure
from pg_bronze.sync.report import SyncReport

WATERMARK = "pg_bronze/watermark"
QUIET_UPTO = "pg_bronze/quiet_upto"
GENERATION = "pg_bronze/generation"
QUIET = "pg_bronze/quiet"
VERSIONS = "pg_bronze/versions"
DRIFT = "pg_bronze/drift"
ROWS_TAG = "pg_bronze/new_rows"
BATCH_TAG = "pg_bronze/batch"
# Batches nobody asked for by hand: the sensor's, and those of `pg-bronze run`.
UNATTENDED = ("tick", "run")
_FAILED, _RETRY, _FAILURES = "pg_bronze/failed", "pg_bronze/retry", "pg_bronze/failures_in_a_row"
_SINCE, _LAST, _NEXT = "pg_bronze/failing_since", "pg_bronze/failed_at", "pg_bronze/next_try"
_STATE, _RUN = "pg_bronze/state", "pg_bronze/run"


def watermark_of(event: dg.EventLogEntry | None) -> Watermark | None:
    """The watermark in a materialization; None if it holds none (wiped, or reported by hand).

    Raises FormatTooNew or LakeDamaged, naming the asset.
    """
    materialization = event.asset_materialization if event else None
    value = materialization.metadata.get(WATERMARK) if materialization else None
    if materialization is None or value is None or not isinstance(value.value, Mapping):
        return None
    asset = materialization.asset_key.to_user_string()
    try:
        return Watermark.from_json(value.value)
    except FormatTooNew as error:
        raise FormatTooNew(f"{asset}: in its last materialization, {error}") from error
    except LakeDamaged as error:
        raise LakeDamaged(
            f"{asset}: its last materialization holds a watermark that cannot be read ({error}). Wipe the "
            "materializations of the asset: its state is then taken from the newest object."
        ) from error


def quiet_upto(observation: dg.AssetObservation | None) -> tuple[int, int]:
    """The generation, and the transaction up to which a read found nothing new in it; ``(-1, 0)`` if unknown."""
    entries = observation.metadata if observation else {}
    generation, upto = (entries[name].value if name in entries else None for name in (GENERATION, QUIET_UPTO))
    return (generation, upto) if isinstance(generation, int) and isinstance(upto, int) else (-1, 0)


def is_quiet(observation: dg.AssetObservation | None) -> bool:
    """Whether an observation is one of a run that had nothing to copy."""
    return observation is not None and bool({QUIET, QUIET_UPTO} & set(observation.metadata))


def of_failure(failure_state: Failure, run_id: str, next_try: float) -> dict[str, Any]:
    """A failure as the asset's history shows it; ``next_try`` is in seconds since 1970."""
    return {
        _FAILED: failure_state.sentence,
        _RETRY: failure_state.retry,
        _FAILURES: failure_state.count,
        _SINCE: dg.MetadataValue.timestamp(failure_state.since),
        _LAST: dg.MetadataValue.timestamp(failure_state.last),
        _NEXT: dg.MetadataValue.timestamp(next_try),
        _STATE: failure_state.state,
        _RUN: dg.MetadataValue.dagster_run(run_id),
    }


def failure_of(observation: dg.AssetObservation | None) -> tuple[Failure | None, str]:
    """What ``of_failure`` wrote, with the run's id; ``(None, "")`` if it is something else."""
    entries = {name: entry.value for name, entry in observation.metadata.items()} if observation else {}
    sentence, count, since, last, state = (entries.get(name) for name in (_FAILED, _FAILURES, _SINCE, _LAST, _STATE))
    for retry in get_args(Retry):
        if (
            retry == entries.get(_RETRY)
            and isinstance(sentence, str)
            and isinstance(count, int)
            and isinstance(since, float)
            and isinstance(last, float)
            and isinstance(state, str)
        ):
            return Failure(sentence, retry, count, since, last, state), str(entries.get(_RUN, ""))
    return None, ""


def of_watermark(watermark: Watermark) -> dict[str, Any]:
    """The one entry every materialization must have, or the next run would have to rebuild it from footers."""
    return {WATERMARK: dg.MetadataValue.json(watermark.to_json())}


def of_quiet(reason: str, horizon: int, generation: int) -> dict[str, Any]:
    """Return what a run records of a table without new rows; horizon 0 means that nothing was read."""
    return {QUIET_UPTO: horizon, GENERATION: generation} if horizon else {QUIET: reason}


def of_report(report: SyncReport, uri: str | None) -> dict[str, Any]:
    """Return a materialization's metadata: rows, bytes, window, cursor value, lag, newest object, watermark.

    It is kept small, because Dagster stores it twice. ``uri`` is the newest object's.
    """
    watermark = report.watermark
    swept = [leaf.swept for leaf in watermark.leaves.values() if leaf.swept is not None]
    entries: dict[str, Any] = {
        "pg_bronze/rows": report.row_count,
        "pg_bronze/bytes": report.size_bytes,
        "pg_bronze/slices": len(report.objects),
        "pg_bronze/window_end": min(swept, default=0),
        GENERATION: watermark.generation,
        **of_watermark(watermark),
        **_of_cursor(report),
    }
    if report.adopted:
        entries["pg_bronze/adopted_slices"] = len(report.adopted)
    if counts := value_policies.count_by_column(value for item in report.objects for value in item.exceptional):
        entries["pg_bronze/exceptional_values"] = dg.MetadataValue.json(counts)
    if report.drift:
        entries[DRIFT] = "\n".join(report.drift)
    if uri:
        entries["dagster/uri"] = uri
    if report.unfenced:
        entries["pg_bronze/unfenced"] = "PG_BRONZE_UNFENCED is set: two writers at once may have duplicated rows"
    if report.control_off:
        entries["pg_bronze/control_mirror"] = report.control_off
    return entries


def _of_cursor(report: SyncReport) -> dict[str, Any]:
    column, value = report.cursor_column, report.watermark.cursor
    if column is None or value is None:
        return {}
    entries: dict[str, Any] = {"pg_bronze/cursor_column": column.name, "pg_bronze/cursor_value": value}
    lag_s = _lag_s(column, value)
    return entries if lag_s is None else {**entries, "pg_bronze/lag_s": round(lag_s, 1)}


def _lag_s(column: CursorColumn, value: str) -> float | None:
    """Return the age of the newest cursor value in seconds; None if it is not a time."""
    if column.kind != "timestamp" or value.endswith("BC"):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None  # beyond the year 9999
    return (datetime.now(UTC) - (moment if moment.tzinfo else moment.replace(tzinfo=UTC))).total_seconds()


def of_definition(table: SourceTable, database: str) -> dict[str, Any]:
    """What is known of a table before any run: its columns with types and comments."""
    return {
        "dagster/table_name": f"{database}.{table.schema}.{table.name}",
        **of_columns(table),
    }


def of_columns(table: SourceTable) -> dict[str, Any]:
    """The columns of a table with types and comments."""
    return {"dagster/column_schema": dg.TableSchema(columns=[_column(table, column) for column in table.columns])}


def _column(table: SourceTable, column: Column) -> dg.TableColumn:
    return dg.TableColumn(
        name=column.name,
        type=column.declared,
        description=column.comment,
        constraints=dg.TableColumnConstraints(nullable=not column.not_null, unique=table.primary_key == (column.name,)),
    )


def slice_line(label: str, piece: Slice, cursor: str | None, uri: str, seconds: float) -> str:
    """Return the one log line of a slice: always the same fields in the same order."""
    region, rows = piece.claim.region, piece.row_count
    window = "no window"
    if region is not None:
        start = "first" if region.start is None else f"{region.start:,}"
        window = f"transactions [{start}, {region.end:,})"
    progress = f", {piece.cursor_column} up to {cursor}" if piece.cursor_column and cursor else ""
    counted = f"{rows:,} row{'' if rows == 1 else 's'}"
    reason = f" ({piece.claim.reason})" if piece.claim.reason else ""
    return f"copied {label}: {counted}, {window}{progress} -> {uri} in {seconds:.2f} s{reason}"


def summary(rows: Mapping[str, int], unchanged: Sequence[str]) -> str:
    """Return the line of a batch: how many new rows in how many tables."""
    counts = [count for count in rows.values() if count]
    total, tables = sum(counts), len(counts)
    text = f"{total:,} new row{'' if total == 1 else 's'} in {tables} table{'' if tables == 1 else 's'}"
    return f"{text}, {len(unchanged)} unchanged" if unchanged else text


def dagster_failure(error: PgBronzeError, label: str = "") -> dg.Failure:
    """Return an error as Dagster shows it: the table's ``label``, the message, and what a retry requires.

    The cause of a server's failure is the same sentence for every table and names none.
    """
    start = f"{label}: " if label else ""
    return dg.Failure(
        description=start + str(error).removeprefix(start), metadata={_RETRY: error.retry}, allow_retries=False
    )
