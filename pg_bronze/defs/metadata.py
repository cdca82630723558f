"""Metadata: the names under which a materialization says what happened, and the watermark in it."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import dagster as dg

from pg_bronze.core import value_policies
from pg_bronze.core.table import Column, SourceTable
from pg_bronze.core.watermark import Watermark
from pg_bronze.errors import FormatTooNew, LakeDamaged, PgBronzeError, Retry
from pg_bronze.scheduling.backoff import Failure
from pg_bronze.sync.table_sync import SliceStream

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


def of_stream(stream: SliceStream, lag_s: float | None) -> dict[str, Any]:
    """What a run committed or adopted of one table: rows, bytes, window, cursor value, lag, newest object.

    Kept small: Dagster stores it twice. ``lag_s`` is how far the newest cursor value lies in the past.
    """
    done = [*stream.adopted, *stream.committed]
    watermark = stream.watermark
    swept = [leaf.swept for leaf in watermark.leaves.values() if leaf.swept is not None]
    entries: dict[str, Any] = {
        "pg_bronze/rows": stream.row_count,
        "pg_bronze/bytes": sum(item.size_bytes for item in done),
        "pg_bronze/slices": len(done),
        "pg_bronze/window_end": min(swept, default=0),
        GENERATION: watermark.generation,
        **of_watermark(watermark),
    }
    if stream.adopted:
        entries["pg_bronze/adopted_slices"] = len(stream.adopted)
    if stream.copy.cursor_column is not None and watermark.cursor is not None:
        entries["pg_bronze/cursor_column"] = stream.copy.cursor_column.name
        entries["pg_bronze/cursor_value"] = watermark.cursor
    if found := value_policies.count_by_column(value for item in done for value in item.exceptional):
        entries["pg_bronze/exceptional_values"] = dg.MetadataValue.json(found)
    if stream.drift:
        entries[DRIFT] = "\n".join(stream.drift)
    if lag_s is not None:
        entries["pg_bronze/lag_s"] = round(lag_s, 1)
    if watermark.key:
        entries["dagster/uri"] = stream.copy.store.uri(watermark.key)
    if stream.copy.options.unfenced:
        entries["pg_bronze/unfenced"] = "PG_BRONZE_UNFENCED is set: two writers at once may have doubled rows"
    if not stream.copy.control.off:
        return entries
    return {**entries, "pg_bronze/control_mirror": stream.copy.control.off}


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


def number(value: int) -> str:
    """A number with its thousands apart, as in the log line: ``91 204``."""
    return f"{value:,}".replace(",", " ")


def slice_line(
    label: str,
    row_count: int,
    start: int | None,
    end: int | None,
    cursor: tuple[str, str] | None,
    uri: str,
    seconds: float,
) -> str:
    """The one line a slice gets in the log: always the same fields in the same order."""
    window = (
        "no window" if end is None else f"transactions [{'first' if start is None else number(start)}, {number(end)})"
    )
    upto = f", {cursor[0]} up to {cursor[1]}" if cursor else ""
    rows = f"{number(row_count)} row{'' if row_count == 1 else 's'}"
    return f"copied {label}: {rows}, {window}{upto} -> {uri} in {seconds:.2f} s"


def summary(rows: Mapping[str, int], quiet: Sequence[str]) -> str:
    """The line a batch gets: how many new rows in which tables."""
    found = {label: count for label, count in rows.items() if count}
    total = sum(found.values())
    text = f"{number(total)} new row{'' if total == 1 else 's'} in {len(found)} table{'' if len(found) == 1 else 's'}"
    return f"{text}, {len(quiet)} quiet" if quiet else text


def failure(error: PgBronzeError, label: str = "") -> dg.Failure:
    """An error of ours as Dagster shows it: the table's ``label``, the sentence, and whether the next tick may retry it.

    What is wrong with a server is the same sentence for every table, and names none.
    """
    start = f"{label}: " if label else ""
    return dg.Failure(
        description=start + str(error).removeprefix(start), metadata={_RETRY: error.retry}, allow_retries=False
    )
