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

from pg_bronze.core import column_types, cursor_column, planning, slice_size
from pg_bronze.core.cursor_column import CursorColumn
from pg_bronze.core.planning import NewGeneration, Quiet, Read, TickState
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
from pg_bronze.postgres import catalog
from pg_bronze.postgres.connection import Source
from pg_bronze.postgres.error_mapping import explain
from pg_bronze.sync import slice_reader
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
        place: The database and the bucket that new watermarks belong to.
        sign: Called once, before the first claim, with ``place``; returns the place with the signed control row.
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
        self.table = table.with_policies(options.policies)
        self.cursor_column: CursorColumn | None = None
        self.horizon = 0
        self.place: Origin | None = None
        self.sign: Callable[[Origin], Origin] | None = None
        self._ledger = ledger
        self._options = options
        self._now = now
        self._on_step = on_step
        self._columns = ColumnHistory(source, ledger, options.cursor_names, options.cursor_column)
        self._size = slice_size.SliceSize(1, 1, 1)
        self._tick_state = TickState()

    def next_slice(self, watermark: Watermark) -> Slice | None:
        """Plan and read the slice after a committed watermark; None when the table is copied up to the horizon.

        An empty window only advances what is planned next, until a row or the end of a pending window commits it.

        Raises:
            TableChanged: The table was altered during each of three reads, or does not exist.
        """
        planned, change_count = watermark, 0
        while True:
            step = planning.plan(planned, self.table, self.horizon, self.source.standby, self._size, self._tick_state)
            if isinstance(step, Quiet):
                return self._heartbeat(watermark, planned)
            if isinstance(step, NewGeneration):
                if planned is watermark:
                    return self.empty_slice(watermark, self.new_generation(watermark), step.reason)
                planned = watermark  # the rewritten window has no committed part yet, so it starts over
                continue
            attempt = self._read(step.region)
            if attempt.changed:
                change_count += 1
                self._check_change_count(change_count)
            elif attempt.rows is None:
                self._divide(step.region)
            else:
                commits = attempt.rows[0].height > 0 or step.must_commit
                self._note_rows(step.region, attempt.rows[0], commits)
                if commits:
                    self._on_step("read")
                    return self._slice(watermark, step, attempt.rows, attempt)
                planned = step.after

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

    def _divide(self, region: Region) -> None:
        """Plan smaller ranges after a region that held too much."""
        pages = sum(item.page_count for item in self.table.relations if item.oid in region.leaves)
        self._size = self._size.halved(pages)
        by_blocks = self._tick_state.by_blocks | set(region.leaves)
        self._tick_state = dataclasses.replace(self._tick_state, by_blocks=by_blocks)

    def _note_rows(self, region: Region, frame: "pl.DataFrame", commits: bool) -> None:
        """Adapt the size of ranges to what was read, and count the empty blocks since the last commit."""
        if region.blocks is not None:
            self._size = self._size.adjusted(frame.height, int(frame.estimated_size()))
        blocks = self._size.blocks if region.blocks and not self._size.lines else 0
        uncommitted = 0 if commits else self._tick_state.uncommitted_blocks + blocks
        self._tick_state = dataclasses.replace(self._tick_state, uncommitted_blocks=uncommitted)

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
        claim = Claim(secrets.token_hex(8), before, self._numbered(before, after, snapshot, key), None, {}, reason)
        return self.slice_of(claim, self.no_rows(), snapshot, redo=key is not None)

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
            raise explain(error, label) from error
        if table is None:
            raise TableChanged(
                f"{label}: the table does not exist any more. The catalog is read again within a minute."
            )
        if table.skipped:
            raise SourceNotFit(f"{label} cannot be copied: {table.skipped}.")
        if table.fingerprint != self.table.fingerprint or self.cursor_column is None:
            self.cursor_column = cursor_column.choose(table, self._options.cursor_names, self._options.cursor_column)
        if self._size.byte_limit == 1:
            self._size = slice_size.initial_size(table, self._options.slice_rows, self._options.slice_bytes)
        self.table = table.with_policies(self._options.policies)
        return table.fingerprint
