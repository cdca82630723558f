"""The slice builder: describes what was read of a table as a slice, with its claim, its footer and its watermark.

Belongs here: columns, cursor value, number and key of an object. Does not belong here: which rows are read
(``read_planner``) and reading them (``slice_source``).
"""

import dataclasses
import secrets
from collections.abc import Callable
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING

from pg_bronze.core import column_types, cursor_column
from pg_bronze.core.cursor_column import CursorColumn
from pg_bronze.core.next_read import Read
from pg_bronze.core.table import SourceTable
from pg_bronze.core.value_policies import ExceptionalCount
from pg_bronze.core.watermark import Origin, Watermark
from pg_bronze.lake.claim import Claim
from pg_bronze.lake.commit import Slice
from pg_bronze.lake.footer import footer_of
from pg_bronze.lake.keys import next_time
from pg_bronze.lake.ledger import Ledger
from pg_bronze.postgres.connection import Source
from pg_bronze.sync import slice_counts
from pg_bronze.sync.column_history import ColumnHistory, ColumnSnapshot
from pg_bronze.sync.options import SyncOptions

if TYPE_CHECKING:
    import polars as pl

    from pg_bronze.sync.slice_reader import Rows


class SliceBuilder:
    """Builds the slices of one table, each after a watermark.

    Attributes:
        cursor_column: The column that shows progress, or None.
        place: The database and the bucket that new watermarks belong to.
        sign: Called once, before the first claim, with ``place``; returns the place with the signed control row.
    """

    def __init__(self, source: Source, ledger: Ledger, options: SyncOptions, now: Callable[[], datetime]) -> None:
        self.cursor_column: CursorColumn | None = None
        self.place: Origin | None = None
        self.sign: Callable[[Origin], Origin] | None = None
        self._source = source
        self._layout = ledger.layout
        self._now = now
        self._columns = ColumnHistory(source, ledger, options.cursor_names, options.cursor_column)

    def of_rows(self, watermark: Watermark, step: Read, rows: "Rows", table: SourceTable, seconds: float) -> Slice:
        """Return the slice of the rows that a step has read.

        Args:
            watermark: The committed watermark, which the slice continues.
            table: The table during the read.
            seconds: How long it took.
        """
        frame, policy_counts = rows
        snapshot = self.describe(watermark, step.after, table)
        newest = cursor_column.newest_value(frame, self.cursor_column) if self.cursor_column else None
        highest = self._highest(None if snapshot.cursor_moved else watermark.cursor, newest)
        after = self._numbered(watermark, dataclasses.replace(step.after, cursor=highest), snapshot)
        nodes = {item.oid: item.relfilenode for item in table.relations if item.oid in step.region.leaves}
        claim = Claim(secrets.token_hex(8), watermark, after, step.region, nodes)
        return self.of_claim(claim, frame, snapshot, seconds=seconds, policy_counts=policy_counts)

    def of_claim(
        self,
        claim: Claim,
        frame: "pl.DataFrame",
        snapshot: ColumnSnapshot,
        redo: bool = False,
        seconds: float = 0.0,
        policy_counts: tuple[ExceptionalCount, ...] = (),
    ) -> Slice:
        """Return the slice of a claim with the footer that describes it."""
        source, described = self._source, snapshot.description
        claim = slice_counts.counted(self.cursor_column, source.poll, self._layout, claim, frame, snapshot, redo)
        footer = footer_of(
            claim, frame.height, described, source.server_version, source.database(), policy_counts, snapshot.drift
        )
        column = self.cursor_column.name if self.cursor_column else None
        return Slice(claim, frame, footer, redo, seconds, column)

    def empty(
        self, before: Watermark, after: Watermark, reason: str, table: SourceTable, key: str | None = None
    ) -> Slice:
        """Return a slice without rows that commits ``after``, for a ``reason`` that its footer keeps.

        Args:
            key: The key of an open claim, which the slice redoes; None claims a new one.
        """
        snapshot = self.describe(before, after, table)
        if snapshot.cursor_moved:
            after = dataclasses.replace(after, cursor=None)
        claim = Claim(secrets.token_hex(8), before, self._numbered(before, after, snapshot, key), None, {}, reason)
        return self.of_claim(claim, column_types.empty_slice(table.columns), snapshot, redo=key is not None)

    def describe(self, before: Watermark, after: Watermark, table: SourceTable) -> ColumnSnapshot:
        """Return the columns of the object that leads from one watermark to the next."""
        return self._columns.describe(before, after, table)

    def _numbered(
        self, before: Watermark, after: Watermark, snapshot: ColumnSnapshot, key: str | None = None
    ) -> Watermark:
        """Return ``after`` with number, key and columns of the object that will commit it, and the current place."""
        layout = self._layout
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


def new_generation(watermark: Watermark, table: SourceTable) -> Watermark:
    """Return the watermark of a new generation of a table, in which nothing is copied yet."""
    return dataclasses.replace(
        watermark,
        table=table.oid,
        generation=watermark.generation + 1,
        cursor=None,
        seed=None,
        leaves=MappingProxyType({}),
        sweeps=None,
    )
