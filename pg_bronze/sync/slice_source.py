"""The slices of one table: planned, read and described, one after the other, up to one horizon."""

import dataclasses
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING

import psycopg

from pg_bronze.core import (
    band_notes,
    band_planning,
    band_rules,
    column_types,
    cursor_column,
    planning,
    slice_size,
    window_sql,
)
from pg_bronze.core.band_notes import BandNotes
from pg_bronze.core.band_rules import Counted
from pg_bronze.core.cursor_column import CursorColumn
from pg_bronze.core.leaf import Order
from pg_bronze.core.next_read import Doubt, FindFloor, NewGeneration, Quiet, Read, Run, TickState
from pg_bronze.core.region import Region
from pg_bronze.core.table import SourceTable
from pg_bronze.core.value_policies import ExceptionalCount
from pg_bronze.core.watermark import Origin, Watermark
from pg_bronze.errors import SourceNotFit, TableChanged
from pg_bronze.lake.claim import Claim
from pg_bronze.lake.commit import Slice, Step
from pg_bronze.lake.footer import footer_of
from pg_bronze.lake.keys import next_time
from pg_bronze.lake.ledger import Ledger
from pg_bronze.postgres import catalog, catalog_query
from pg_bronze.postgres.connection import Source
from pg_bronze.sync import floors, slice_counts, slice_reader
from pg_bronze.sync.column_history import ColumnHistory, ColumnSnapshot
from pg_bronze.sync.options import SyncOptions

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
        cursor_column: The column that shows progress, or None.
        horizon: Every transaction below it has finished; 0 until somebody sets it.
        horizon_at: When the horizon was read, in UTC.
        cache_blocks: The size of the server's cache in blocks; None if not known. A statement reads at most an eighth
            of it by block ranges, which would evict other pages.
        place: The database and the bucket that new watermarks belong to.
        sign: Called once, before the first claim, with ``place``; returns the place with the signed control row.
        waiting: Why a part of the table was not read, as a sentence; None if all of it was.
        counted: Row versions written to the table so far, counted before the horizon was read; None if not known.
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
        self.cursor_column: CursorColumn | None = None
        self.horizon = 0
        self.horizon_at = now()
        self.place: Origin | None = None
        self.sign: Callable[[Origin], Origin] | None = None
        self._progress: tuple[Watermark, Watermark] | None = None
        self.waiting: str | None = None
        self.counted: Counted | None = None
        self.cache_blocks: int | None = None
        self._ledger = ledger
        self._options = options
        self._now = now
        self._on_step = on_step
        self._columns = ColumnHistory(source, ledger, options.cursor_names, options.cursor_column)
        self._size = slice_size.SliceSize(1, 1, 1)
        self._tick_state = TickState()
        self._orders: tuple[Order, ...] = ()
        self._loading_since: float | None = None
        self._copying_since: float | None = None

    def next_slice(self, watermark: Watermark) -> Slice | None:
        """Plan and read the slice after a committed watermark; None when the table is copied up to the horizon.

        An empty window only advances what is planned next, until a row or the end of a pending window commits it.

        Raises:
            TableChanged: The table was altered during each of three reads, or does not exist.
        """
        planned, change_count = self._remembered(watermark), 0
        while True:
            step = self._plan(planned)
            if isinstance(step, Quiet):
                self._note_end(watermark, planned, step)
                return self._heartbeat(watermark, planned)
            if isinstance(step, FindFloor):
                self._note_floor(step)
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
            attempt = self._read(step.region)
            if attempt.changed:
                change_count += 1
                self._check_change_count(change_count)
            elif attempt.rows is None:
                planned = self._divide(planned, step)
            else:
                commits = attempt.rows[0].height > 0 or step.must_commit
                step = self._noted(planned, step, attempt, commits)
                if commits:
                    self._on_step("read")
                    return self._slice(watermark, step, attempt.rows, attempt)
                planned = step.after

    def _plan(self, planned: Watermark) -> planning.Plan:
        standby = self.source.standby
        loading_s, copying_s = _seconds_since(self._loading_since), _seconds_since(self._copying_since)
        state = dataclasses.replace(self._tick_state, loading_s=loading_s, copying_s=copying_s)
        return planning.plan(planned, self.table, self.horizon, standby, self._size, state, self._run)

    @property
    def _run(self) -> Run:
        bands = self._options.bands
        if bands is not None and self.cache_blocks is not None:
            bands = dataclasses.replace(bands, chunk_blocks=min(bands.chunk_blocks, max(1, self.cache_blocks // 8)))
        is_idle, options = self.source.is_idle, self._options
        return Run(bands, self.horizon_at, self._orders, self.counted, is_idle, options.turn_s, options.share_s)

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
            self._progress = watermark, dataclasses.replace(planned, origin=self.place or planned.origin)

    def _note_floor(self, step: FindFloor) -> None:
        found = floors.find(self.source, self.table, step, self._options.bands)
        state = self._tick_state
        self._tick_state = dataclasses.replace(state, floors=MappingProxyType({**state.floors, step.order: found}))

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

    def _read(self, region: Region) -> _Attempt:
        """Read a region, and compare the table's definition before and after."""
        started, table = time.monotonic(), self.table
        rows = None
        try:
            rows = slice_reader.read(self.source, table, region, self._size)
        except TableChanged:
            changed = self.refresh_table() != table.fingerprint
            if not changed:
                raise
        else:
            changed = self.refresh_table() != table.fingerprint
        # Rows of a changed table are dropped here: they would stay in memory while they are read again.
        return _Attempt(table, None if changed else rows, changed, time.monotonic() - started)

    def _check_change_count(self, count: int) -> None:
        if count >= TABLE_CHANGED_TRIES:
            raise TableChanged(
                f"{self.table.label}: the table was altered during each of {count} reads. It is retried at the next "
                "tick."
            )

    def _divide(self, planned: Watermark, step: Read) -> Watermark:
        """Plan smaller reads after a region that contained too much, and return the watermark to plan from."""
        state = self._tick_state
        if step.kind == "fresh":
            floors_known = {order: floor for order, floor in state.floors.items() if state.overflow}
            self._tick_state = dataclasses.replace(
                state, overflow=state.overflow + 1, floors=MappingProxyType(floors_known)
            )
        else:
            pages = sum(item.page_count for item in self.table.relations if item.oid in step.region.leaves)
            self._size = self._size.halved(step.blocks or pages)
            self._tick_state = dataclasses.replace(state, by_blocks=state.by_blocks | set(step.region.leaves))
        return band_planning.urgent(planned) if self._is_scheduled(planned) else planned

    def _is_scheduled(self, watermark: Watermark) -> bool:
        return band_rules.is_scheduled(self.table, watermark.sweeps, self._options.bands)

    def _noted(self, planned: Watermark, step: Read, attempt: _Attempt, commits: bool) -> Read:
        """Adapt the next reads to what was read, and return the step with what it adds to the watermark."""
        if attempt.rows is None:
            return step
        frame, _ = attempt.rows
        state, region = self._tick_state, step.region
        if commits:
            self._note_commit(planning.is_first_load(step, planned), time.monotonic() - attempt.seconds)
        if region.blocks is not None:
            self._size = self._size.adjusted(frame.height, int(frame.estimated_size()))
        sweep_s = state.sweep_s + (0.0 if step.kind == "fresh" else attempt.seconds)
        empty_s = state.uncommitted_s + (attempt.seconds if region.blocks is not None else 0.0)
        self._tick_state = dataclasses.replace(state, uncommitted_s=0.0 if commits else empty_s, sweep_s=sweep_s)
        if not self._is_scheduled(planned):
            return step
        after = band_planning.noted(planned, step, attempt.table, frame.height, attempt.seconds, self._run)
        return dataclasses.replace(step, after=after)

    def _note_commit(self, is_first_load: bool, since: float) -> None:
        if self._copying_since is None:
            self._copying_since = since
        if self._loading_since is None and is_first_load:
            self._loading_since = since

    def _heartbeat(self, watermark: Watermark, planned: Watermark) -> Slice | None:
        if not planning.due_for_heartbeat(watermark, self.table, self.horizon):
            return None
        reason = "a quiet table's window is closed before transaction ids wrap around"
        return self.empty_slice(watermark, planned, reason)

    def _slice(self, watermark: Watermark, step: Read, rows: "slice_reader.Rows", attempt: _Attempt) -> Slice:
        frame, policy_counts = rows
        snapshot = self.describe(watermark, step.after, attempt.table)
        newest = cursor_column.newest_value(frame, self.cursor_column) if self.cursor_column else None
        highest = self._highest(None if snapshot.cursor_moved else watermark.cursor, newest)
        after = self._numbered(watermark, dataclasses.replace(step.after, cursor=highest), snapshot)
        nodes = {item.oid: item.relfilenode for item in attempt.table.relations if item.oid in step.region.leaves}
        claim = Claim(secrets.token_hex(8), watermark, after, step.region, nodes)
        return self.slice_of(claim, frame, snapshot, seconds=attempt.seconds, policy_counts=policy_counts)

    def slice_of(
        self,
        claim: Claim,
        frame: "pl.DataFrame",
        snapshot: ColumnSnapshot,
        redo: bool = False,
        seconds: float = 0.0,
        policy_counts: tuple[ExceptionalCount, ...] = (),
    ) -> Slice:
        """Return the slice of a claim with the footer that describes it."""
        source, described = self.source, snapshot.description
        claim = slice_counts.counted(self, self._ledger.layout, claim, frame, snapshot, redo)
        footer = footer_of(
            claim, frame.height, described, source.server_version, source.database(), policy_counts, snapshot.drift
        )
        column = self.cursor_column.name if self.cursor_column else None
        return Slice(claim, frame, footer, redo, seconds, column)

    def empty_slice(self, before: Watermark, after: Watermark, reason: str, key: str | None = None) -> Slice:
        """Return a slice without rows that commits ``after``, for a ``reason`` that its footer keeps.

        Args:
            key: The key of an open claim, which the slice redoes; None claims a new one.
        """
        snapshot = self.describe(before, after, self.table)
        if snapshot.cursor_moved:
            after = dataclasses.replace(after, cursor=None)
        claim = Claim(secrets.token_hex(8), before, self._numbered(before, after, snapshot, key), None, {}, reason)
        return self.slice_of(claim, self.no_rows(), snapshot, redo=key is not None)

    def notes(self, watermark: Watermark) -> BandNotes | None:
        """Return what people are told about a table that is swept by a schedule; None for any other table."""
        return band_notes.of_table(self.table, watermark, self._options.bands, self._now())

    def no_rows(self) -> "pl.DataFrame":
        """Return a frame with this table's stored columns and no row."""
        return column_types.empty_slice(self.table.columns)

    def describe(self, before: Watermark, after: Watermark, table: SourceTable) -> ColumnSnapshot:
        """Return the columns of the object that leads from one watermark to the next."""
        return self._columns.describe(before, after, table)

    def new_generation(self, watermark: Watermark) -> Watermark:
        """Return the watermark of a new generation, in which nothing is copied yet."""
        return dataclasses.replace(
            watermark,
            table=self.table.oid,
            generation=watermark.generation + 1,
            cursor=None,
            seed=None,
            leaves=MappingProxyType({}),
            sweeps=None,
        )

    def _numbered(
        self, before: Watermark, after: Watermark, snapshot: ColumnSnapshot, key: str | None = None
    ) -> Watermark:
        """Return ``after`` with number, key and columns of the object that will commit it, and the current place."""
        layout = self._ledger.layout
        if self.place is not None and self.sign is not None:
            self.place, self.sign = self.sign(self.place), None
        key = key or layout.key(next_time(self._now(), layout.time(before.key)), layout.next_style(before))
        first_key = key if after.generation != before.generation else after.first_key
        numbered = dataclasses.replace(
            after,
            origin=self.place or after.origin,
            seq=before.seq + 1,
            key=key,
            first_key=first_key,
            next_layout=layout.style if layout.style_of(key) != layout.style else "",
        )
        return snapshot.add_to(numbered, before)

    def _highest(self, known: str | None, newest: str | None) -> str | None:
        """Return the later of two cursor values; a value of another cursor column does not count."""
        if self.cursor_column is None:
            return known
        try:
            return cursor_column.later_value(known, newest, self.cursor_column)
        except (ArithmeticError, ValueError):
            return newest

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
            self.cursor_column = cursor_column.choose(self.table, options.cursor_names, options.cursor_column)
        if self._size.byte_limit == 1:
            self._size = slice_size.initial_size(self.table, options.slice_rows, options.slice_bytes)
        self._orders = tuple(band_rules.orders(self.table, options.cursor_names, options.cursor_column))


def _seconds_since(moment: float | None) -> float:
    return 0.0 if moment is None else time.monotonic() - moment
