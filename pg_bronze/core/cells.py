"""Cells: the row versions that one state of a leaf delivers and another does not.

The rows of an object are the difference of its two watermarks. Belongs here: that difference as a value. Does not
belong here: the states (``leaf``) and its SQL (``window_sql``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from pg_bronze.core.leaf import Leaf, Order

START = (0, 0)


@dataclass(frozen=True)
class Cell:
    """Row versions of the transactions ``[start, end)`` in one band and one range of places.

    Attributes:
        start: None for no lower bound.
        floor: Rows above it; None for no such condition.
        ceiling: Rows not above it, NULL included; None for no such condition.
        first: The first block and line pointer of the range of places.
        last: The block and line pointer after it; None for the end of the table.
    """

    start: int | None
    end: int
    floor: str | None = None
    ceiling: str | None = None
    first: tuple[int, int] = START
    last: tuple[int, int] | None = None


def order_of(before: Leaf, after: Leaf) -> Order | None:
    """Return what divides the rows of two states. A state without bands has the order of the other.

    Raises:
        ValueError: The states have different orders.
    """
    if before.order and after.order and before.order != after.order:
        raise ValueError("two states with different orders have no difference")
    return before.order or after.order


def difference(before: Leaf, after: Leaf) -> tuple[Cell, ...]:
    """Return what ``after`` delivers and ``before`` does not, without empty cells, lowest band first.

    Raises:
        ValueError: ``after`` delivers less somewhere, or the orders differ.
    """
    order = order_of(before, after)
    before, after = replace(before, order=order), replace(after, order=order)
    floors: list[str] = []
    if order is not None:
        by_value = {order.key(band.floor): band.floor for leaf in (before, after) for band in leaf.upper}
        floors = [by_value[key] for key in sorted(by_value)]
    cuts = sorted({START, *(leaf.sweep.position for leaf in (before, after) if leaf.sweep)})
    cells: list[Cell] = []
    for floor, ceiling in pairwise([None, *floors, None]):
        cells += _merged_places(_cells_between(before, after, floor, ceiling, cuts))
    return _merged_bands(cells)


def _cells_between(
    before: Leaf, after: Leaf, floor: str | None, ceiling: str | None, cuts: Sequence[tuple[int, int]]
) -> Iterator[Cell]:
    for first, last in pairwise([*cuts, None]):
        if first is None:
            continue
        start, end = before.delivered(floor, first), after.delivered(floor, first)
        if (end or 0) < (start or 0):
            raise ValueError("what is delivered never shrinks within a generation")
        if end is not None and end != start:
            yield Cell(start, end, floor, ceiling, first, last)


def _merged_places(cells: Iterator[Cell]) -> list[Cell]:
    merged: list[Cell] = []
    for cell in cells:
        adjacent = bool(merged) and merged[-1].last == cell.first
        if adjacent and replace(merged[-1], last=cell.last) == replace(cell, first=merged[-1].first):
            merged[-1] = replace(merged[-1], last=cell.last)
        else:
            merged.append(cell)
    return merged


def _merged_bands(cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """Join cells of neighboring bands that differ in their floors only."""
    merged: list[Cell] = []
    for cell in cells:
        for place, other in enumerate(merged):
            adjacent = other.ceiling is not None and other.ceiling == cell.floor
            joined = replace(other, ceiling=cell.ceiling)
            if adjacent and joined == replace(cell, floor=other.floor):
                merged[place] = joined
                break
        else:
            merged.append(cell)
    return tuple(merged)
