"""Log lines of a run, and errors as Dagster shows them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from pg_bronze.defs import metadata
from pg_bronze.errors import PgBronzeError

if TYPE_CHECKING:
    from pg_bronze.lake.commit import Slice  # with all that writes objects, which a tick does not need


def of_slice(label: str, piece: "Slice", cursor: str | None, uri: str, seconds: float, late: int = 0) -> str:
    """Return the one log line of a slice: always the same fields in the same order.

    Args:
        late: How many of its rows are late.
    """
    region = piece.claim.region
    window = "no window"
    if region is not None:
        start = "first" if region.start is None else str(region.start)
        window = f"transactions [{start}, {region.end})"
    progress = f", {piece.cursor_column} up to {cursor}" if piece.cursor_column and cursor else ""
    reason = f" ({piece.claim.reason})" if piece.claim.reason else ""
    rows = f"{counted(piece.row_count, 'row')}{f' ({late:,} late)' if late else ''}"
    return f"copied {label}: {rows}, {window}{progress} -> {uri} in {seconds:.2f} s{reason}"


def of_batch(
    rows: Mapping[str, int],
    unchanged: Sequence[str],
    busy: Sequence[str] = (),
    left: Sequence[str] = (),
    failed: Sequence[str] = (),
) -> str:
    """Return the log line of a batch: how many new rows in how many tables.

    Args:
        rows: The new rows of each table that was copied.
        unchanged: The tables without new rows.
        busy: The tables that another run is copying.
        left: The tables that are left to a later tick, because no connection was free.
        failed: The tables whose copy failed.
    """
    counts = [count for count in rows.values() if count]
    text = f"{counted(sum(counts), 'new row')} in {counted(len(counts), 'table')}"
    for labels, what in (
        (unchanged, "unchanged"),
        (busy, "being copied by another run"),
        (left, "left to a later tick"),
        (failed, "failed"),
    ):
        text += f", {len(labels):,} {what}" if labels else ""
    return text


def dagster_failure(error: PgBronzeError, label: str = "") -> dg.Failure:
    """Return an error as Dagster shows it: the table's ``label``, the message, and what a retry requires.

    An error of the server has the same message for every table, so the label is put in front of it.
    """
    start = f"{label}: " if label else ""
    return dg.Failure(
        description=start + str(error).removeprefix(start),
        metadata={metadata.RETRY: error.retry},
        allow_retries=False,
    )


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: ``1 row``, ``1,812 rows``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
