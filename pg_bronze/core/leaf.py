"""What is delivered of one leaf: its bands, the order that divides its rows into them, and a sweep in progress.

Belongs here: the state of a leaf as a value, its JSON, its invariants, and how two floors compare. Does not belong
here: the difference of two states (``cells``), the steps from one to the next (``planning``), and the table
(``watermark``).
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from itertools import pairwise
from typing import Any

from pg_bronze.core.cursor_column import time_key
from pg_bronze.core.table import Relation

MAX_BANDS = 8
_NUMBERS = frozenset({"int2", "int4", "int8", "numeric", "float4", "float8"})
_TIMES = frozenset({"date", "timestamp", "timestamptz"})
ORDERED_TYPES = _NUMBERS | _TIMES


@dataclass(frozen=True)
class Order:
    """What divides the rows of a leaf into bands: a column, or the block number.

    Both are fixed for a row version, so that a version belongs to exactly one band.

    Attributes:
        attnum: The column; None for the block number.
        type: The base type of the column, one of ``ORDERED_TYPES``; ``""`` for the block number.
        relfilenode: The file whose block numbers count; None for a column.
        own: The number of the column in the leaf, if that is another one than in the root of the partitioned table.
    """

    attnum: int | None = None
    type: str = ""
    relfilenode: int | None = None
    own: int | None = None

    def holds(self, relation: Relation, types: Mapping[int, str]) -> bool:
        """Return whether the file or the column of a leaf is still that of the order.

        A column may have been replaced while the partition was detached: the table still has the former number.
        """
        if self.attnum is None:
            return self.relfilenode == relation.relfilenode
        if relation.own_attnum(self.attnum) != self.own:
            return False
        # A table whose timestamps get or lose a time zone is rewritten, or keeps their order and their text in UTC.
        now = types.get(self.attnum, "")
        return now == self.type or {now, self.type} == {"timestamp", "timestamptz"}

    @property
    def of_root(self) -> "Order":
        """The order as the root of the partitioned table knows it."""
        return replace(self, own=None)

    def key(self, floor: str) -> Any:
        """Return a key that sorts floors as PostgreSQL sorts their values."""
        if self.attnum is None:
            return int(floor)
        return time_key(floor) if self.type in _TIMES else Decimal(floor)


@dataclass(frozen=True)
class Band:
    """The rows above a floor, up to the floor of the next band: those of transactions below ``upto`` are delivered.

    A row is above a floor if its column is greater, or if its block number is at least the floor. NULL is above none.

    Attributes:
        floor: A value as PostgreSQL prints it in UTC, or a block number.
        upto: None if nothing is delivered.
    """

    floor: str
    upto: int | None


@dataclass(frozen=True)
class Sweep:
    """A sweep in progress: a window that is being read in block ranges.

    Of the rows that are not above ``below`` and of transactions below ``upto``, those in the blocks ``[0, block)`` are
    delivered, and those at the line pointers ``[0, line)`` of ``block``. A row version keeps its block and line pointer
    within one ``relfilenode``; a rewrite moves every row.

    Attributes:
        below: A floor; None for all rows.
        end: The number of blocks when the sweep began: blocks added later contain only transactions at or after
            ``upto``. None for the current end of the table.
        began_at: When ``upto`` was read, in UTC; for people, and to schedule the next sweep.
    """

    upto: int
    block: int
    relfilenode: int
    line: int = 0
    below: str | None = None
    end: int | None = None
    began_at: str | None = None

    @property
    def position(self) -> tuple[int, int]:
        """Block and line pointer, in the sort order of ``ctid``."""
        return self.block, self.line


@dataclass(frozen=True)
class Leaf:
    """What is delivered of one leaf.

    Attributes:
        swept: Transactions below it are delivered, whatever band their rows are in: the ``upto`` of the lowest band.
            None if nothing is.
        sweep: The sweep in progress.
        order: What divides the rows; None without upper bands.
        upper: The bands above the lowest one, floors ascending.
        swept_at: When ``swept`` was the horizon, in UTC.
    """

    swept: int | None = None
    sweep: Sweep | None = None
    order: Order | None = None
    upper: tuple[Band, ...] = ()
    swept_at: str | None = None

    @property
    def top(self) -> int | None:
        """The transaction up to which the highest band is delivered."""
        return self.upper[-1].upto if self.upper else self.swept

    @property
    def highest(self) -> int | None:
        """The highest horizon that any row is delivered up to; None if nothing is delivered."""
        uptos = [self.swept, self.top, self.sweep.upto if self.sweep else None]
        return max((upto for upto in uptos if upto is not None), default=None)

    def delivered(self, floor: str | None, place: tuple[int, int]) -> int | None:
        """Return the transaction below which rows are delivered just above a floor (None: below all) at a place."""
        key = self.order.key if self.order else None
        at = None if floor is None or key is None else key(floor)
        upto = self.swept
        for band in self.upper:
            if key is not None and at is not None and key(band.floor) <= at:
                upto = band.upto
        if self.sweep is None or place >= self.sweep.position:
            return upto
        below = self.sweep.below
        if below is not None and key is not None and at is not None and at >= key(below):
            return upto
        return max(upto or 0, self.sweep.upto)

    def capped(self, horizon: int) -> "Leaf":
        """Return the leaf with nothing delivered at or after a horizon, as if ids from it on were handed out again."""
        upper = tuple(replace(band, upto=_lower(band.upto, horizon)) for band in self.upper)
        sweep = self.sweep and replace(self.sweep, upto=min(self.sweep.upto, horizon))
        return replace(self, swept=_lower(self.swept, horizon), upper=upper, sweep=sweep)

    def holds(self, relation: Relation, types: Mapping[int, str]) -> bool:
        """Return whether the places and floors of the state still mean the same rows.

        Args:
            relation: The leaf now.
            types: The base type of each column of the table now, by attnum.
        """
        if self.sweep is not None and self.sweep.relfilenode != relation.relfilenode:
            return False
        return self.order is None or self.order.holds(relation, types)

    def problem(self) -> str | None:
        """Return which invariant the state violates; None if it violates none."""
        key: Callable[[str], Any] = self.order.key if self.order else lambda floor: floor
        floors = [key(band.floor) for band in self.upper]
        uptos = [self.swept or 0, *(band.upto or 0 for band in self.upper)]
        if (self.order is None) != (not self.upper):
            return "bands need an order, and an order needs bands"
        if any(a >= b for a, b in pairwise(floors)):
            return "floors do not ascend"
        if uptos != sorted(uptos):
            return "a band is delivered further than one above it"
        return self._problem_of_sweep(floors, uptos, key)

    def _problem_of_sweep(self, floors: list[Any], uptos: list[int], key: Callable[[str], Any]) -> str | None:
        if self.sweep is None:
            return None
        covered = len(uptos)
        if self.sweep.below is not None:
            if key(self.sweep.below) not in floors:
                return "a sweep ends at a floor that is not a floor"
            covered = 1 + floors.index(key(self.sweep.below))
        if any(upto > self.sweep.upto for upto in uptos[:covered]):
            return "a sweep is behind a band that it covers"
        if any(upto < self.sweep.upto for upto in uptos[covered:]):
            return "a sweep is ahead of a band above it"
        return None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        data: dict[str, Any] = {
            "order": None,
            "bands": [[None, self.swept], *([band.floor, band.upto] for band in self.upper)],
            "sweep": None,
            "swept_at": self.swept_at,
        }
        if self.order is not None:
            order = self.order
            column: dict[str, Any] = {"column": order.attnum, "type": order.type}
            if order.own is not None:
                column["own"] = order.own
            data["order"] = {"blocks": order.relfilenode} if order.attnum is None else column
        if self.sweep is not None:
            data["sweep"] = asdict(self.sweep)
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Leaf":
        """Read the JSON of ``to_json``, or of the formats 1 and 2."""
        if "bands" not in data:
            return _of_older_format(data)
        (_, swept), *upper = data["bands"]
        order = None if data["order"] is None else _order(data["order"])
        bands = tuple(Band(floor, upto) for floor, upto in upper)
        return cls(swept, data["sweep"] and Sweep(**data["sweep"]), order, bands, data["swept_at"])


def _lower(upto: int | None, horizon: int) -> int | None:
    return None if upto is None else min(upto, horizon)


def _order(data: Mapping[str, Any]) -> Order:
    if "blocks" in data:
        return Order(relfilenode=data["blocks"])
    return Order(data["column"], data["type"], own=data.get("own"))


def _of_older_format(data: Mapping[str, Any]) -> Leaf:
    """Return a leaf of format 1 or 2, whose ``box`` was never written."""
    if data["box"] is not None:
        raise ValueError("box")
    pending = data["pending"]
    return Leaf(data["swept"], pending and Sweep(**pending))
