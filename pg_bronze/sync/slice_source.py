"""The slices of one table: planned, read and described, one after the other, up to one horizon."""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import psycopg

from pg_bronze.core import band_notes, column_types, cursor_column, planning, window_sql
from pg_bronze.core.band_notes import BandNotes
from pg_bronze.core.cursor_column import CursorColumn
from pg_bronze.core.next_read import Doubt, FindFloor, NewGeneration, Quiet, Read
from pg_bronze.core.table import SourceTable
from pg_bronze.core.watermark import Watermark
from pg_bronze.errors import SourceNotFit, TableChanged
from pg_bronze.lake.commit import Slice, Step
from pg_bronze.lake.ledger import Ledger
from pg_bronze.postgres import catalog, catalog_query
from pg_bronze.postgres.connection import Source
from pg_bronze.sync import slice_builder, slice_reader
from pg_bronze.sync.options import SyncOptions
from pg_bronze.sync.read_planner import ReadPlanner
from pg_bronze.sync.reads_ahead import ReadsAhead
from pg_bronze.sync.slice_builder import SliceBuilder

if TYPE_CHECKING:
    import polars as pl

TABLE_CHANGED_TRIES = 3


@dataclass(frozen=True)
class _Attempt:
    """One read of a region, made while the table was ``table``.

    ``rows`` is None if they are too many for one slice, or if the table changed during the read.
    """

    table: SourceTable
    rows: "slice_reader.Rows | None"
    changed: bool
    seconds: float


class SliceSource:
    """Plans and reads the slices of one table.

    Attributes:
        table: The table as the catalog last described it.
        planner: Plans the reads, up to its horizon.
        builder: Describes what was read as slices.
        waiting: Why a part of the table was not read, as a sentence; None if all of it was.
    """

    def __init__(
        self,
        source: Source,
        ledger: Ledger,
        table: SourceTable,
        options: SyncOptions,
        now: Callable[[], datetime],
        on_step: Step,
    ) -> None:
        self.source = source
        self.table = options.applied(table)
        self.planner = ReadPlanner(source, options, now)
        self.builder = SliceBuilder(source, ledger, options, now)
        self.waiting: str | None = None
        self._ahead = ReadsAhead(source, options.load_parallel)
        self._progress: tuple[Watermark, Watermark] | None = None
        self._options = options
        self._now = now
        self._on_step = on_step

    @property
    def cursor_column(self) -> CursorColumn | None:
        """The column that shows progress, or None."""
        return self.builder.cursor_column

    def next_slice(self, watermark: Watermark) -> Slice | None:
        """Plan and read the slice after a committed watermark; None when the table is copied up to the horizon.

        An empty window only advances what is planned next, until a row or the end of a pending window commits it.

        Raises:
            TableChanged: The table was altered during each of three reads, or does not exist.
        """
        planned, change_count = self._remembered(watermark), 0
        while True:
            step = self.planner.plan(planned, self.table, self._ahead.next_blocks)
            self._ahead.keep(step, self.table)
            if isinstance(step, Quiet):
                self._note_end(watermark, planned, step)
                return self._heartbeat(watermark, planned)
            if isinstance(step, FindFloor):
                self.planner.find_floor(step, self.table)
                continue
            if not isinstance(step, Read):
                if planned is watermark:
                    settled = self._settle(watermark, step)
                    if settled is not None:
                        return settled
                    change_count += 1
                    self._check_change_count(change_count)
                planned = watermark  # what is lost has no committed part yet, so it starts over
                continue
            attempt = self._read(step, planned)
            if attempt.changed:
                change_count += 1
                self._check_change_count(change_count)
            elif attempt.rows is None:
                self._ahead.drop()  # their ranges are as large
                planned = self.planner.divide(planned, step, self.table)
            else:
                step = self._noted(planned, step, attempt, attempt.rows[0])
                if attempt.rows[0].height > 0 or step.must_commit:
                    self._on_step("read")
                    return self._slice(watermark, step, attempt.rows, attempt)
                planned = step.after

    def close(self) -> None:
        """End what is read ahead."""
        self._ahead.close()

    def stop(self) -> None:
        """End the current read of another thread, if it reads now; has to be repeated until that thread has ended."""
        self._ahead.stop()
        self.source.stop_reading()

    def remember(self, watermark: Watermark, progress: Watermark) -> None:
        """Continue ``watermark`` with what an earlier run read after it and found empty."""
        self._progress = watermark, progress

    def progress_after(self, watermark: Watermark) -> Watermark | None:
        """Return what was read after a watermark and found empty; None if that is nothing that costs much.

        A slice read ahead of a commit may end with progress after a watermark that is then not committed.
        """
        return self._progress[1] if self._progress and self._progress[0] == watermark else None

    def _remembered(self, watermark: Watermark) -> Watermark:
        progress = self.progress_after(watermark)
        return watermark if progress is None else dataclasses.replace(progress, origin=watermark.origin)

    def _note_end(self, watermark: Watermark, planned: Watermark, step: Quiet) -> None:
        self.waiting = step.reason if step.partial else None
        if planned is not watermark and planned.sweeps is not None:
            self._progress = watermark, dataclasses.replace(planned, origin=self.builder.place or planned.origin)

    def _settle(self, watermark: Watermark, step: Doubt | NewGeneration) -> Slice | None:
        """Return the slice that continues after the table was rewritten or replaced; None if it was altered since."""
        if isinstance(step, Doubt):
            fingerprint = self.table.fingerprint
            query = window_sql.exists(step.region, self.table.names_by_attnum)
            in_doubt = self.source.measure(query, self.table.label)[0]
            if self.refresh_table() != fingerprint:
                return None
            if not in_doubt:
                reason = f"{step.reason}; all its rows are newer, so the copy continues"
                return self.empty_slice(watermark, step.after, reason)
        return self.empty_slice(watermark, self.new_generation(watermark), step.reason)

    def _read(self, step: Read, planned: Watermark) -> _Attempt:
        """Read a region, and compare the table's definition before and after."""
        started, table = time.monotonic(), self.table
        rows, seconds = None, None
        try:
            rows, seconds = self._rows(step, planned)
        except TableChanged:
            changed = self.refresh_table() != table.fingerprint
            if not changed:
                raise
        else:
            changed = self.refresh_table() != table.fingerprint
        # Rows of a changed table are dropped here: they would stay in memory while they are read again.
        return _Attempt(table, None if changed else rows, changed, seconds or time.monotonic() - started)

    def _rows(self, step: Read, planned: Watermark) -> "tuple[slice_reader.Rows | None, float | None]":
        """Return the rows of a region, and how long it took to read them if that was ahead."""
        table, size = self.table, self.planner.size_now
        found = self._ahead.read(step, table, size, lambda last: self.planner.following(last, table, planned.sweeps))
        return found or (slice_reader.read(self.source, table, step.region, size), None)

    def _check_change_count(self, count: int) -> None:
        if count >= TABLE_CHANGED_TRIES:
            raise TableChanged(
                f"{self.table.label}: the table was altered during each of {count} reads. It is retried at the next "
                "tick."
            )

    def _noted(self, planned: Watermark, step: Read, attempt: _Attempt, frame: "pl.DataFrame") -> Read:
        size_bytes = int(frame.estimated_size())
        return self.planner.noted(planned, step, attempt.table, frame.height, size_bytes, attempt.seconds)

    def _heartbeat(self, watermark: Watermark, planned: Watermark) -> Slice | None:
        if not planning.due_for_heartbeat(watermark, self.table, self.planner.horizon):
            return None
        reason = "a quiet table's window is closed before transaction ids wrap around"
        return self.empty_slice(watermark, planned, reason)

    def _slice(self, watermark: Watermark, step: Read, rows: "slice_reader.Rows", attempt: _Attempt) -> Slice:
        piece = self.builder.of_rows(watermark, step, rows, attempt.table, attempt.seconds)
        if piece.bulky:
            self._ahead.give_up()
        return piece

    def empty_slice(self, before: Watermark, after: Watermark, reason: str, key: str | None = None) -> Slice:
        """Return a slice without rows that commits ``after``; see ``SliceBuilder.empty``."""
        return self.builder.empty(before, after, reason, self.table, key)

    def notes(self, watermark: Watermark) -> BandNotes | None:
        """Return what people are told about a table that is swept by a schedule; None for any other table."""
        return band_notes.of_table(self.table, watermark, self._options.bands, self._now())

    def no_rows(self) -> "pl.DataFrame":
        """Return a frame with this table's stored columns and no row."""
        return column_types.empty_slice(self.table.columns)

    def new_generation(self, watermark: Watermark) -> Watermark:
        """Return the watermark of a new generation, in which nothing is copied yet."""
        return slice_builder.new_generation(watermark, self.table)

    def refresh_table(self) -> str:
        """Read the table's definition again and return its fingerprint.

        Raises:
            TableChanged: The table does not exist.
            SourceNotFit: The table cannot be copied any more.
        """
        label = self.table.label
        try:
            with self.source.session() as connection:
                table = catalog.read_table(connection, self.table.schema, self.table.name)
        except psycopg.Error as error:
            raise self.source.explain(error, catalog_query.everything(), label) from error
        if table is None:
            raise TableChanged(
                f"{label}: the table does not exist any more. The catalog is read again within a minute."
            )
        if table.skipped:
            raise SourceNotFit(f"{label} cannot be copied: {table.skipped}.")
        self._take(table)
        return table.fingerprint

    def _take(self, table: SourceTable) -> None:
        """Continue with a definition of the table, after a check of the options against it."""
        options, former = self._options, self.table.fingerprint
        options.columns.check(table)
        self.table = options.applied(table)
        options.columns.check_values(self.table)
        if table.fingerprint != former or self.cursor_column is None:
            names, configured = options.cursor_names, options.cursor_column
            self.builder.cursor_column = cursor_column.choose(self.table, names, configured)
        self.planner.learn(self.table)
