"""The read planner: what the reads of one run found, and which read comes next.

Belongs here: the size of the next slice, the floors, and the times that limit a run. Does not belong here: the decision
itself (``core.planning``) and the reads (``slice_source``).
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from types import MappingProxyType

from pg_bronze.core import band_planning, band_rules, planning, slice_size
from pg_bronze.core.band_rules import Counted
from pg_bronze.core.leaf import Order
from pg_bronze.core.next_read import FindFloor, Read, Run, TickState
from pg_bronze.core.slice_size import SliceSize
from pg_bronze.core.table import SourceTable
from pg_bronze.core.watermark import Watermark
from pg_bronze.postgres.connection import Source
from pg_bronze.sync import floors
from pg_bronze.sync.options import SyncOptions


class ReadPlanner:
    """Plans the reads of one table in one run.

    Attributes:
        horizon: Every transaction below it has finished; 0 until somebody sets it.
        horizon_at: When the horizon was read, in UTC.
        cache_blocks: The size of the server's cache in blocks; None if not known. A statement reads at most an eighth
            of it by block ranges, which would evict other pages.
        counted: Row versions written to the table so far, counted before the horizon was read; None if not known.
    """

    def __init__(self, source: Source, options: SyncOptions, now: Callable[[], datetime]) -> None:
        self.horizon = 0
        self.horizon_at = now()
        self.cache_blocks: int | None = None
        self.counted: Counted | None = None
        self._size: SliceSize | None = None
        self._source = source
        self._options = options
        self._orders: tuple[Order, ...] = ()
        self._state = TickState()
        self._loading_since: float | None = None
        self._copying_since: float | None = None
        self._last_read_s = 0.0

    def learn(self, table: SourceTable) -> None:
        """Note the table's definition, which may have changed, and estimate the size of its first slice."""
        options = self._options
        if self._size is None:
            self._size = slice_size.initial_size(table, options.slice_rows, options.slice_bytes)
        self._orders = tuple(band_rules.orders(table, options.cursor_names, options.cursor_column))

    def plan(self, planned: Watermark, table: SourceTable, range_blocks: int | None = None) -> planning.Plan:
        """Return the step after a watermark.

        Args:
            range_blocks: The blocks of the next range of a first load, if it is being read already.
        """
        return self._plan(planned, table, 0.0, range_blocks)

    def following(self, last: Read, table: SourceTable, sweeps: "band_rules.Sweeps | None") -> Iterator[Read]:
        """Yield the ranges of first loads after a range, as far as they begin within the run's time for the table.

        Args:
            sweeps: What is known for scheduling now; the range may have been planned some slices ago.
        """

        def plan_after(watermark: Watermark) -> planning.Plan:
            # Read now, a range has its turn when the ranges before it were read.
            return self._plan(dataclasses.replace(watermark, sweeps=sweeps), table, self._last_read_s)

        return planning.ranges_after(last, plan_after)

    def find_floor(self, step: FindFloor, table: SourceTable) -> None:
        """Ask the server for a floor that a step needs."""
        found = floors.find(self._source, table, step, self._options.bands)
        known = MappingProxyType({**self._state.floors, step.order: found})
        self._state = dataclasses.replace(self._state, floors=known)

    def divide(self, planned: Watermark, step: Read, table: SourceTable) -> Watermark:
        """Plan smaller reads after a region that contained too much, and return the watermark to plan from."""
        state = self._state
        if step.kind == "fresh":
            floors_known = {order: floor for order, floor in state.floors.items() if state.overflow}
            self._state = dataclasses.replace(state, overflow=state.overflow + 1, floors=MappingProxyType(floors_known))
        else:
            pages = sum(item.page_count for item in table.relations if item.oid in step.region.leaves)
            self._size = self.size_now.halved(step.blocks or pages)
            self._state = dataclasses.replace(state, by_blocks=state.by_blocks | set(step.region.leaves))
        return band_planning.urgent(planned) if self._is_scheduled(planned, table) else planned

    def noted(
        self, planned: Watermark, step: Read, table: SourceTable, row_count: int, size_bytes: int, seconds: float
    ) -> Read:
        """Adapt the next reads to what was read, and return the step with what it adds to the watermark.

        Args:
            planned: The watermark before the read.
            size_bytes: The size of the rows in memory.
            seconds: How long the read took.
        """
        state, is_range = self._state, step.region.blocks is not None
        commits = row_count > 0 or step.must_commit
        if commits:
            self._note_commit(planning.is_first_load(step, planned), time.monotonic() - seconds)
        if is_range:
            self._size = self.size_now.adjusted(row_count, size_bytes)
        self._last_read_s = seconds
        sweep_s = state.sweep_s + (0.0 if step.kind == "fresh" else seconds)
        empty_s = state.uncommitted_s + (seconds if is_range else 0.0)
        self._state = dataclasses.replace(state, uncommitted_s=0.0 if commits else empty_s, sweep_s=sweep_s)
        if not self._is_scheduled(planned, table):
            return step
        return dataclasses.replace(step, after=band_planning.noted(planned, step, table, row_count, seconds, self._run))

    @property
    def size_now(self) -> SliceSize:
        """How much the next slice may contain."""
        if self._size is None:
            raise RuntimeError("the table's definition was not read")
        return self._size

    def _plan(
        self, planned: Watermark, table: SourceTable, later_s: float, range_blocks: int | None = None
    ) -> planning.Plan:
        """Plan a step that begins ``later_s`` seconds from now."""
        state = dataclasses.replace(
            self._state,
            loading_s=_seconds_since(self._loading_since, later_s),
            copying_s=_seconds_since(self._copying_since, later_s),
            range_blocks=range_blocks,
        )
        standby = self._source.standby
        return planning.plan(planned, table, self.horizon, standby, self.size_now, state, self._run)

    @property
    def _run(self) -> Run:
        bands, options = self._options.bands, self._options
        if bands is not None and self.cache_blocks is not None:
            bands = dataclasses.replace(bands, chunk_blocks=min(bands.chunk_blocks, max(1, self.cache_blocks // 8)))
        is_idle = self._source.is_idle
        return Run(bands, self.horizon_at, self._orders, self.counted, is_idle, options.turn_s, options.share_s)

    def _is_scheduled(self, watermark: Watermark, table: SourceTable) -> bool:
        return band_rules.is_scheduled(table, watermark.sweeps, self._options.bands)

    def _note_commit(self, is_first_load: bool, since: float) -> None:
        if self._copying_since is None:
            self._copying_since = since
        if self._loading_since is None and is_first_load:
            self._loading_since = since


def _seconds_since(moment: float | None, later_s: float) -> float:
    return 0.0 if moment is None else time.monotonic() - moment + later_s
