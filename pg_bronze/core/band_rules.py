"""Band rules: when a table is divided into bands, and when its lower bands are swept.

Belongs here: the limits, the expected time of a sweep, the choice of the order, and what reads found so far. Does not
belong here: the states (``leaf``), the steps between them (``band_steps``) and the next read (``planning``). Nothing
here decides what is delivered: any order, floor and time of a sweep is correct, and only cost depends on it.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from pg_bronze.core.leaf import ORDERED_TYPES, Leaf, Order
from pg_bronze.core.table import SourceTable

# Columns that applications set with every update. Their newest values contain every new row version.
UPDATED_NAMES = (
    "updated_at",
    "modified_at",
    "last_update",
    "last_updated",
    "last_modified",
    "update_time",
    "updated_on",
    "modified_on",
    "changed_at",
    "updated",
    "modified",
)
# 5 million rows in 66,700 blocks took 0.25 s of CPU (PostgreSQL 18, cached).
CACHED_BLOCK_US = 4.0
# A session extends a table by up to this many blocks at once, and every session fills blocks of its own.
EXTENDED_BLOCKS, EXTENDED_BLOCKS_BEFORE_16 = 64, 512
SHARE_OF_ALL = 0.05
POOR_SHARE, POOR_SWEEPS = 0.5, 3
LONGEST_POSTPONED_S = 86_400.0
# The time of a range with many rows is that of sending them.
FEW_ROWS = 1000
# Row versions written so far, and a text that changes when the server starts to count again.
Counted = tuple[int, str]
BLOCKS = 0  # stands for the block number among the attnums of rejected orders


@dataclass(frozen=True)
class BandRules:
    """The limits of bands and sweeps.

    Attributes:
        complete: Sweep every table in this run, whatever its schedule.
        one_band_s: A table whose sweep takes no longer is read completely in every tick, and has one band.
        share: The share of time that sweeps of one table may take.
        stretch: All periods grow by this factor, because the sweeps of all tables together would take too long.
        chunk_s: The longest part of a sweep in one statement, and the longest sweep in one run, in seconds.
        chunk_blocks: The most blocks in one statement. Ranges of blocks evict other pages from the server's cache.
        rank: The top floor is set below so many of the newest values.
        top_rows: The top floor is moved after so many rows above it.
        shared: The table has no budget of its own, and its sweeps count with those of all such tables.
    """

    complete: bool = False
    one_band_s: float = 0.1
    share: float = 0.01
    stretch: float = 1.0
    chunk_s: float = 1.0
    chunk_blocks: int = 2**20
    rank: int = 5000
    top_rows: int = 20_000
    shared: bool = True

    def with_budget(self, share: float | None) -> Self:
        """Return the rules of a table with a budget of its own, which other tables do not shorten; None keeps them."""
        if share is None:
            return self
        one_band_s = self.one_band_s / self.share * share
        return dataclasses.replace(self, share=share, one_band_s=one_band_s, stretch=1.0, shared=False)

    def period_s(self, sweep_s: float) -> float:
        """Return the seconds between the begins of two sweeps that take ``sweep_s``; 0 to sweep in every tick."""
        return 0.0 if sweep_s <= self.one_band_s else sweep_s / self.share * self.stretch


@dataclass(frozen=True)
class Sweeps:
    """What the reads of one table found, for scheduling only.

    Attributes:
        blocks: The number of blocks of all leaves at the last part of a sweep.
        block_us: Microseconds to sweep one block, as last measured.
        counter: Row versions written to the table before the horizon of the last finished sweep, as the server's
            statistics counted them; None if not known.
        next_counter: The same for the sweep in progress.
        since: Since when the server counted these; the two cannot be compared with later ones otherwise.
        fresh: Row versions delivered by fresh reads since the last sweep began.
        covered: Row versions that fresh reads had delivered of those that the sweep in progress covers.
        found: Row versions that the sweep in progress delivered.
        above: Row versions delivered above the top floor since it was set.
        share: Which share of the new row versions came by fresh reads before the last sweep; None if there were none.
        poor: The number of sweeps in a row before which that share was below half.
        rejected: The attnums of columns that did not work as the order; 0 stands for the block number.
        urgent: The next sweep, or the one in progress, has no budget: it contains more new rows than a fresh read.
    """

    blocks: int = 0
    block_us: float = CACHED_BLOCK_US
    counter: int | None = None
    next_counter: int | None = None
    since: str = ""
    fresh: int = 0
    covered: int = 0
    found: int = 0
    above: int = 0
    share: float | None = None
    poor: int = 0
    rejected: tuple[int, ...] = ()
    urgent: bool = False

    def after_fresh(self, rows: int, moved: bool) -> Self:
        """Return what is known after a fresh read.

        Args:
            moved: The top floor was set with it.
        """
        return dataclasses.replace(self, fresh=self.fresh + rows, above=0 if moved else self.above + rows)

    def after_begin(self, counted: Counted | None) -> Self:
        """Return what is known after a sweep began.

        Args:
            counted: None also if a transaction was open at the horizon: its rows may be counted and not copied.
        """
        count, since = counted or (None, "")
        counter = self.counter if since == self.since else None
        return dataclasses.replace(
            self, counter=counter, next_counter=count, since=since, covered=self.fresh, fresh=0, found=0
        )

    def after_range(self, rows: int, blocks: int, seconds: float, table_blocks: int) -> Self:
        """Return what is known after a part of a sweep."""
        paced = self.block_us
        if rows < FEW_ROWS and blocks > 0:
            paced = min(1e6, max(0.1, (self.block_us + seconds / blocks * 1e6) / 2))
        return dataclasses.replace(self, blocks=table_blocks, found=self.found + rows, block_us=round(paced, 2))

    def after_end(self, counts: bool) -> Self:
        """Return what is known after a sweep ended.

        Args:
            counts: The sweep shows how well the order works: it is neither a first load nor a rest of a fresh read.
        """
        total = self.covered + self.found
        share, poor = self.share, self.poor
        if total and counts:
            share = round(self.covered / total, 4)
            poor = poor + 1 if self.covered < POOR_SHARE * total else 0
        return dataclasses.replace(
            self, counter=self.next_counter, next_counter=None, covered=0, found=0, share=share, poor=poor, urgent=False
        )

    def rejecting(self, order: Order) -> Self:
        """Return what is known once an order did not work."""
        return dataclasses.replace(self, rejected=(*self.rejected, order.attnum or BLOCKS), poor=0, share=None)

    def allows(self, order: Order) -> bool:
        """Return whether an order was not given up."""
        return (order.attnum or BLOCKS) not in self.rejected

    def is_unneeded(self, counted: Counted | None) -> bool:
        """Return whether the server's counters show that a sweep would find nothing: all writes arrived fresh."""
        if counted is None or self.counter is None or counted[1] != self.since:
            return False
        return 0 <= counted[0] - self.counter <= self.fresh

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {**dataclasses.asdict(self), "rejected": list(self.rejected)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read the JSON of ``to_json``."""
        return cls(**{**data, "rejected": tuple(data["rejected"])})


def sweep_s(table: SourceTable, sweeps: Sweeps | None) -> float:
    """Return the seconds that a sweep of all leaves of a table is expected to take.

    The planner's estimates of the catalog may be older than what the last sweep found.
    """
    known = sweeps or Sweeps()
    return max(known.blocks, sum(relation.page_count for relation in table.relations)) * known.block_us / 1e6


def rules_of(interval_s: float, large_tables: int, complete: bool = False) -> BandRules:
    """Return the rules of one run.

    Args:
        interval_s: Seconds between two ticks.
        large_tables: The number of tables that are swept by a schedule and have no budget of their own. All their
            sweeps together take at most 5 % of the time.
        complete: A person requested the run.
    """
    share = BandRules.share
    stretch = max(1.0, large_tables * share / SHARE_OF_ALL)
    return BandRules(complete=complete, one_band_s=interval_s * share, stretch=stretch)


def seconds_to_sweep(
    leaves: Sequence[Leaf], sweeps: Sweeps, period_s: float, counted: Counted | None, now: datetime
) -> float:
    """Return the seconds until the next sweep of a table; at most 0 if it is due.

    Args:
        leaves: What is delivered of each of its leaves.
        period_s: The seconds between the begins of two sweeps.
        counted: Row versions written to the table so far; None if not known.
        now: In UTC.
    """
    times = [leaf.swept_at for leaf in leaves]
    known = [datetime.fromisoformat(time) for time in times if time is not None]
    if len(known) < len(times) or not known or max(known) > now:
        return 0.0  # a sweep in the future shows that a clock was wrong
    left_s = period_s - (now - min(known)).total_seconds()
    if left_s <= 0 and sweeps.is_unneeded(counted):
        left_s += max(0.0, LONGEST_POSTPONED_S - period_s)
    return left_s


def is_scheduled(table: SourceTable, sweeps: Sweeps | None, rules: BandRules | None) -> bool:
    """Return whether a table is too large to be read completely in every tick."""
    return rules is not None and rules.period_s(sweep_s(table, sweeps)) > 0


def orders(table: SourceTable, names: Sequence[str], configured: str | None) -> list[Order]:
    """Return what may divide the rows of a table into bands, best first.

    A column must lead a usable index of every leaf. The block number comes last, and not for partitioned tables: each
    leaf would need a floor of its own.

    Args:
        names: The usual names of cursor columns, best first.
        configured: The configured cursor column; None for none.
    """
    by_name = {column.name: column for column in table.columns if column.ordered_as in ORDERED_TYPES}
    wanted = [*UPDATED_NAMES, *([configured] if configured else []), *names]
    if len(table.primary_key) == 1:
        wanted += table.primary_key
    found: list[Order] = []
    for name in wanted:
        column = by_name.get(name)
        if column is None or column.generated == "virtual":
            continue
        order = Order(column.attnum, column.base)
        if order not in found and all(name in relation.ordered_by for relation in table.relations):
            found.append(order)
    if not table.partitioned and table.relations:
        found.append(Order(relfilenode=table.relations[0].relfilenode))
    return found


def block_floor(page_count: int, server_version: int) -> str | None:
    """Return the floor of a table that is divided by block number; None if the table is too small for one."""
    extended = EXTENDED_BLOCKS if server_version >= 160000 else EXTENDED_BLOCKS_BEFORE_16
    return str(page_count - extended) if page_count > extended else None
