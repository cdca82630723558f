"""The steps that ``planning`` returns, and what it is told about the run. Values only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Literal

from pg_bronze.core.band_rules import BandRules, Counted
from pg_bronze.core.leaf import Order
from pg_bronze.core.region import Region
from pg_bronze.core.watermark import Watermark

# An empty part of a sweep is committed after this many seconds of reading, so that a crash does not lose more.
COMMIT_AFTER_S = 10.0


@dataclass(frozen=True)
class Read:
    """Read ``region``; once its rows are committed, the watermark is ``after``.

    Attributes:
        must_commit: Commit an object even if the region has no rows, because it ends or advances a sweep.
        kind: ``window`` for all rows of some leaves, ``fresh`` for the rows above a floor, ``sweep`` for a part of a
            sweep.
        begins: The sweep begins with this part.
        ends: It ends with this part, or with this window.
        moves: The top floor is set with this fresh read.
        blocks: The number of blocks that are read; 0 for a fresh read.
    """

    region: Region
    after: Watermark
    must_commit: bool = False
    kind: Literal["window", "fresh", "sweep"] = "window"
    begins: bool = False
    ends: bool = False
    moves: bool = False
    blocks: int = 0


@dataclass(frozen=True)
class FindFloor:
    """Ask the server for a floor of ``order`` before the next step.

    Attributes:
        newest: The newest value, because the rows above the usual floor exceed a slice.
    """

    order: Order
    newest: bool = False


@dataclass(frozen=True)
class Doubt:
    """Ask whether ``region`` has any row.

    If it has none, an empty object commits ``after``. Otherwise nobody can tell which of its rows were copied, and a
    new generation begins; ``reason`` is a sentence.
    """

    region: Region
    after: Watermark
    reason: str


@dataclass(frozen=True)
class Quiet:
    """There is nothing to read now; ``reason`` is a sentence for an operator.

    ``partial``: the rest of the table is read later: by its next sweep, or by the next run of its first load.
    """

    reason: str
    partial: bool = False


@dataclass(frozen=True)
class NewGeneration:
    """The copied rows no longer describe the table, so a new first load follows; ``reason`` is a sentence."""

    reason: str


Plan = Read | FindFloor | Doubt | Quiet | NewGeneration


@dataclass(frozen=True)
class Run:
    """What is the same for all reads of a table in one run.

    Attributes:
        bands: The limits of bands and sweeps; None reads every table completely in every tick.
        now: The time at which the horizon was read, in UTC.
        orders: What may divide the table's rows into bands, best first.
        counted: Row versions written to the table so far, counted before the horizon was read; None if not known.
        idle: No transaction was open at the horizon.
        turn_s: A first load stops after so many seconds, with its current slice; None for no such limit.
        share_s: Every read does, except those of scheduled sweeps, because other tables wait; None for no such limit.
    """

    bands: BandRules | None = None
    now: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    orders: tuple[Order, ...] = ()
    counted: Counted | None = None
    idle: bool = False
    turn_s: float | None = None
    share_s: float | None = None


@dataclass(frozen=True)
class TickState:
    """What the earlier reads of this tick found, in addition to the watermark.

    Attributes:
        by_blocks: The oids of leaves whose window exceeded the size of a slice, and is read in block ranges.
        uncommitted_s: Seconds spent on parts of a sweep since the last commit, all of them empty.
        sweep_s: Seconds spent on sweeps that have a budget.
        floors: The floor that was found for each order; None if it has none.
        overflow: How often the rows above the top floor exceeded the size of a slice.
        loading_s: Seconds since the first slice of a first load was begun that this tick commits; 0 before its end.
        copying_s: The same of any slice.
        range_blocks: The blocks of the next block range of a first load, because it is being read already; None if it
            is not.
    """

    by_blocks: frozenset[int] = field(default_factory=frozenset)
    uncommitted_s: float = 0.0
    sweep_s: float = 0.0
    floors: Mapping[Order, str | None] = field(default_factory=lambda: MappingProxyType({}))
    overflow: int = 0
    loading_s: float = 0.0
    copying_s: float = 0.0
    range_blocks: int | None = None
