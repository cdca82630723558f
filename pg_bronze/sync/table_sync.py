"""The sync of one table: recover, plan, read. Slices go out through a ``SliceStream``; somebody else writes them."""

import dataclasses
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

import psycopg

from pg_bronze.core import column_types, cursor_column, planning
from pg_bronze.core.planning import NewGeneration, Outlook, Quiet, Read
from pg_bronze.core.table import SourceTable
from pg_bronze.core.value_policies import LOSSLESS, Exceptional, Policies
from pg_bronze.core.watermark import Place, Watermark
from pg_bronze.core.window_sql import Region
from pg_bronze.errors import SourceNotFit, TableChanged
from pg_bronze.lake.claim import Claim
from pg_bronze.lake.commit import Slice, Step, ignore_step
from pg_bronze.lake.footer import footer_of
from pg_bronze.lake.keys import Layout, next_time
from pg_bronze.lake.ledger import Ledger, Recovered
from pg_bronze.lake.object_store import Store
from pg_bronze.lake.parquet import Codec
from pg_bronze.postgres import catalog
from pg_bronze.postgres.connection import Source
from pg_bronze.postgres.control_table import Control, ControlRow, Mirrored
from pg_bronze.postgres.error_mapping import explain
from pg_bronze.sync import redo, slice_reader, takeover
from pg_bronze.sync.column_history import ColumnHistory, ColumnSnapshot
from pg_bronze.sync.slice_stream import SliceStream

if TYPE_CHECKING:
    import polars as pl

TABLE_CHANGED_TRIES = 3


@dataclass(frozen=True)
class SyncOptions:
    """What can be set for one table.

    Attributes:
        slice_rows: Most rows in a slice; None derives the limit from ``slice_bytes``.
        slice_bytes: Most bytes in a slice as PostgreSQL's COPY sends them.
        codec: How objects are compressed that verification writes again.
        dated: Put objects into ``date=YYYY-MM-DD/`` folders.
        unfenced: The bucket may ignore create-only writes, so every report says that rows may be duplicated.
    """

    slice_rows: int | None = None
    slice_bytes: int = 32 * 2**20
    codec: Codec = field(default_factory=Codec)
    dated: bool = False
    cursor_names: tuple[str, ...] = cursor_column.NAMES
    cursor_column: str | None = None
    takeover: str | None = None
    unfenced: bool = False
    policies: Policies = LOSSLESS


class TableSync:
    """Copies one table up to one horizon.

    Use it as a context manager, which holds the table's advisory lock. ``now`` returns the current time as aware UTC.
    ``on_step`` is called with ``recover`` and ``read`` after these steps.
    """

    def __init__(
        self,
        source: Source,
        store: Store,
        table: SourceTable,
        options: SyncOptions,
        control: Control | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        on_step: Step = ignore_step,
    ) -> None:
        self.source = source
        self.store = store
        self.table = table.under(options.policies)
        self.options = options
        self.control = control or Control(None)
        self.now = now
        self.label = table.label
        self.layout = Layout(store.prefix, table.schema, table.name, "date" if options.dated else "flat")
        self.ledger = Ledger(store, self.layout)
        self.columns = ColumnHistory(source, self.ledger, options.cursor_names, options.cursor_column)
        self.cursor_column: cursor_column.CursorColumn | None = None
        self.horizon = 0
        self.generation = -1
        self.place: Place | None = None
        self.locked = False
        self.on_step = on_step
        self._size = planning.Sizing(1, 1, 1)
        self._outlook = Outlook()
        self._mirrored_before: str | None = None

    def __enter__(self) -> Self:
        self.locked = self.source.try_lock(self.table.oid)
        return self

    def __exit__(self, *_: object) -> None:
        if self.locked:
            self.source.unlock(self.table.oid)
            self.locked = False

    def start(self, recorded: Watermark | None, new: bool = True) -> SliceStream | Quiet:
        """Recover, plan and read the first slice.

        Args:
            recorded: The watermark of the latest materialization, or None if it has none.
            new: False reads nothing new: objects that were not recorded are adopted, and an open claim is redone.

        Returns:
            Quiet if there is nothing to commit and nothing to record.
        """
        if not self.locked:
            return Quiet("another run is copying the table")
        if recorded is not None and recorded.place.bucket != self.store.place:
            raise planning.other_bucket(recorded, self.store.place, self.label)
        recovered = self.ledger.recover(recorded, self.now())
        self.on_step("recover")
        watermark = self._check_history(recovered)
        newest = recovered.redo.after if recovered.redo else watermark
        self.horizon = self.source.horizon(at_least=newest.highest if newest else None)
        self.refresh_table()
        if watermark is None:
            watermark = self._beginning(recovered.foreign_key)
        # The writer of an adopted object may have ended before it wrote the control row.
        self._mirrored_before = None if recovered.adopted else watermark.cursor
        first = self._first_slice(recovered, watermark, new)
        if first is None and not recovered.adopted and not recovered.rebuilt:
            return Quiet(f"no new row up to transaction {self.horizon}")
        if first is not None and recovered.watermark is not None:
            self.ledger.look_back(recovered.watermark, self.now())
        return SliceStream(self, recovered, watermark, first, read_on=new)

    def record_only(self, recorded: Watermark | None) -> SliceStream:
        """Return a stream without slices, which only records the watermark again."""
        recovered = self.ledger.recover(recorded, self.now())
        watermark = recovered.watermark or self._beginning(recovered.foreign_key)
        return SliceStream(self, recovered, watermark, None)

    def recover_after_conflict(self, watermark: Watermark) -> Recovered:
        """Adopt what another writer committed after a watermark."""
        return self.ledger.recover(watermark if watermark.seq else None, self.now())

    def _check_history(self, recovered: Recovered) -> Watermark | None:
        """Compare the recovered watermark with the database's history and return it; None before the first object."""
        # The watermark first, the place second. The other order would take what another writer committed in between
        # for a restored database.
        self.place = self.source.place(self.store.place)
        watermark = recovered.watermark
        if watermark is None and recovered.redo is not None:
            watermark = recovered.redo.before
        self.generation = watermark.generation if watermark else -1
        if watermark is not None:
            planning.check_place(watermark, self.place, self.label, self.source.standby)
            if watermark.generation:
                self.ledger.move_old(watermark)
        return watermark

    def _first_slice(self, recovered: Recovered, watermark: Watermark, new: bool) -> Slice | None:
        if recovered.redo:
            return redo.slice_of(self, recovered.redo)
        return self.next_slice(watermark) if new else None

    def live_rows(self) -> "Iterator[pl.DataFrame]":
        """Yield the table's rows below a new ``horizon`` as they would be stored; nothing is committed.

        Raises:
            TableChanged: The table was rewritten during the read.
        """
        self.source.forget_horizon()
        self.place = self.source.place(self.store.place)
        self.horizon = self.source.horizon()
        self.refresh_table()
        state = Watermark(self.place, self.table.oid)
        while (piece := self.next_slice(state)) is not None:
            if piece.claim.after.generation != state.generation:
                raise TableChanged(
                    f"{self.label}: the table was rewritten during the comparison. Run the command again."
                )
            yield piece.frame
            state = piece.claim.after

    def next_slice(self, watermark: Watermark) -> Slice | None:
        """Plan and read the slice after a committed watermark; None when the table is copied up to the horizon.

        An empty window only advances what is planned next, until a row or the end of a pending window commits it.
        """
        ahead, change_count = watermark, 0
        while True:
            step = planning.plan(ahead, self.table, self.horizon, self.source.standby, self._size, self._outlook)
            if isinstance(step, Quiet):
                return self._heartbeat(watermark, ahead)
            if isinstance(step, NewGeneration) and ahead is watermark:
                return self.empty_slice(watermark, self.forgotten(watermark), step.reason)
            if isinstance(step, NewGeneration):
                # The rewritten window has no committed part yet, so it starts over.
                ahead = watermark
                continue
            started, table = time.monotonic(), self.table
            rows, changed = self._read_stable(step.region)
            if changed:
                change_count += 1
                self._check_change_count(change_count)
            elif rows is None:
                self._divide(step.region)
            elif rows[0].height == 0 and not step.must_commit:
                self._note_rows(step.region, rows[0], committed=False)
                ahead = step.after
            else:
                self._note_rows(step.region, rows[0], committed=True)
                self.on_step("read")
                return self._slice(watermark, step, rows, table, time.monotonic() - started)

    def _read_stable(self, region: Region) -> "tuple[slice_reader.Rows | None, bool]":
        """Read a region; the second value says that the table changed during the read, and the rows are dropped."""
        fingerprint = self.table.fingerprint
        try:
            rows = slice_reader.read(self.source, self.table, region, self._size)
        except TableChanged:
            if self.refresh_table() == fingerprint:
                raise
            return None, True
        if self.refresh_table() != fingerprint:
            return None, True
        return rows, False

    def _check_change_count(self, count: int) -> None:
        if count >= TABLE_CHANGED_TRIES:
            raise TableChanged(
                f"{self.label}: the table was altered {count} times during the read. It is retried at the next tick."
            )

    def _divide(self, region: Region) -> None:
        """Plan smaller ranges after a region that held too much."""
        pages = sum(item.page_count for item in self.table.relations if item.oid in region.leaves)
        self._size = self._size.halved(pages)
        by_blocks = self._outlook.by_blocks | set(region.leaves)
        self._outlook = dataclasses.replace(self._outlook, by_blocks=by_blocks)

    def _note_rows(self, region: Region, frame: "pl.DataFrame", committed: bool) -> None:
        """Adapt the size of ranges to what was read, and count the empty blocks since the last commit."""
        if region.blocks is not None:
            self._size = self._size.after(frame.height, int(frame.estimated_size()))
        blocks = self._size.blocks if region.blocks and not self._size.lines else 0
        uncommitted = 0 if committed else self._outlook.uncommitted_blocks + blocks
        self._outlook = dataclasses.replace(self._outlook, uncommitted_blocks=uncommitted)

    def _heartbeat(self, watermark: Watermark, ahead: Watermark) -> Slice | None:
        if not planning.due_for_heartbeat(watermark, self.table, self.horizon):
            return None
        return self.empty_slice(watermark, ahead, "a quiet table's window is closed before transaction ids wrap around")

    def _slice(
        self, watermark: Watermark, step: Read, rows: "slice_reader.Rows", table: SourceTable, seconds: float
    ) -> Slice:
        frame, policy_counts = rows
        snapshot = self.columns.look(watermark, step.after, table)
        newest = cursor_column.newest(frame, self.cursor_column) if self.cursor_column else None
        highest = self._highest(None if snapshot.cursor_moved else watermark.cursor, newest)
        after = self.numbered(watermark, dataclasses.replace(step.after, cursor=highest), snapshot)
        nodes = {item.oid: item.relfilenode for item in table.relations if item.oid in step.region.leaves}
        claim = Claim(secrets.token_hex(8), watermark, after, step.region, nodes)
        return self.slice_of(claim, frame, snapshot, seconds=seconds, policy_counts=policy_counts)

    def slice_of(
        self,
        claim: Claim,
        frame: "pl.DataFrame",
        snapshot: ColumnSnapshot,
        redo: bool = False,
        seconds: float = 0.0,
        policy_counts: tuple[Exceptional, ...] = (),
    ) -> Slice:
        """Return the slice of a claim with the footer that describes it."""
        source, described = self.source, snapshot.description
        footer = footer_of(
            claim, frame.height, described, source.server_version, source.database(), policy_counts, snapshot.drift
        )
        column = self.cursor_column.name if self.cursor_column else None
        return Slice(claim, frame, footer, redo, seconds, column)

    def empty_slice(self, before: Watermark, after: Watermark, reason: str) -> Slice:
        """Return a slice without rows that commits ``after``, for a ``reason`` that its footer keeps."""
        snapshot = self.columns.look(before, after, self.table)
        claim = Claim(secrets.token_hex(8), before, self.numbered(before, after, snapshot), None, {}, reason)
        return self.slice_of(claim, self.no_rows(), snapshot)

    def no_rows(self) -> "pl.DataFrame":
        """Return a frame with this table's stored columns and no row."""
        return column_types.no_rows(self.table.columns)

    def forgotten(self, watermark: Watermark) -> Watermark:
        """Return the watermark of a new generation of which nothing is copied yet."""
        return dataclasses.replace(
            watermark,
            table=self.table.oid,
            generation=watermark.generation + 1,
            cursor=None,
            seed=None,
            leaves=MappingProxyType({}),
        )

    def numbered(self, before: Watermark, after: Watermark, snapshot: ColumnSnapshot) -> Watermark:
        """Return ``after`` with number, key and columns of the object that will commit it, and the current place."""
        key = self.layout.key(next_time(self.now(), self.layout.time(before.key)))
        first_key = key if after.generation != before.generation else after.first_key
        numbered = dataclasses.replace(
            after, place=self.place or after.place, seq=before.seq + 1, key=key, first_key=first_key
        )
        return snapshot.onto(numbered, before)

    def _highest(self, known: str | None, newest: str | None) -> str | None:
        """Return the later of two cursor values; a value of another cursor column does not count."""
        if self.cursor_column is None:
            return known
        try:
            return cursor_column.later(known, newest, self.cursor_column)
        except (ArithmeticError, ValueError):
            return newest

    def refresh_table(self) -> str:
        """Read the table's definition again and return its fingerprint."""
        try:
            with self.source.session() as connection:
                table = catalog.read_table(connection, self.table.schema, self.table.name)
        except psycopg.Error as error:
            raise explain(error, self.label) from error
        if table is None:
            raise TableChanged(
                f"{self.label}: the table does not exist any more. The catalog is read again within a minute."
            )
        if table.skipped:
            raise SourceNotFit(f"{self.label} cannot be copied: {table.skipped}.")
        if table.fingerprint != self.table.fingerprint or self.cursor_column is None:
            self.cursor_column = cursor_column.choose(table, self.options.cursor_names, self.options.cursor_column)
        if self._size.byte_limit == 1:
            self._size = planning.sizing(table, self.options.slice_rows, self.options.slice_bytes)
        self.table = table.under(self.options.policies)
        return table.fingerprint

    def _beginning(self, foreign_key: str) -> Watermark:
        """Return the watermark before the first object, bounded by what the original system had copied if asked for."""
        place = self.place or self.source.place(self.store.place)
        uri = self.store.uri(foreign_key) if foreign_key else ""
        try:
            row = self.control.last_value(self.label)
        except psycopg.Error as error:
            raise explain(error, "etl_control") from error
        seed = takeover.decide(self.source, self.table, row, uri, self.options.takeover)
        started = Watermark(place, self.table.oid, key=foreign_key)
        return started if seed is None else dataclasses.replace(started, seed=seed, cursor=seed.value)

    def mirror(self, watermark: Watermark) -> Mirrored:
        """Write the table's row in ``etl_control``; call it after the watermark was recorded."""
        column = self.cursor_column.name if self.cursor_column else None
        try:
            return self.control.mirror(ControlRow(self.label, watermark.cursor, column), self._mirrored_before)
        except psycopg.Error as error:
            raise explain(error, "etl_control") from error
