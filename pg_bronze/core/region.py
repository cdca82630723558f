"""Regions: the row versions of one slice, as a value.

Belongs here: a region, its JSON in claims and footers, and its description in words. Does not belong here: choosing a
region (``planning``) and its SQL (``window_sql``).
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from pg_bronze.core.cells import START, Cell, difference, order_of
from pg_bronze.core.leaf import Leaf, Order
from pg_bronze.core.watermark import Seed


@dataclass(frozen=True)
class Region:
    """The row versions of one slice.

    Attributes:
        schema: The schema of the relation that is read.
        name: The name of the relation: one leaf, or the root of a partitioned table.
        only: Whether that relation is read alone, without its partitions.
        leaves: The oids of the leaves whose rows the slice contains.
        start: The first transaction of the window ``[start, end)``; None for a first load, which has no lower bound.
        end: The first transaction after the window.
        blocks: The half-open range of heap blocks, its end None for the end of the table; None for all blocks.
        seed: What a first load excludes.
        lines: The line pointers at which the range starts and ends in these blocks; both 0 for whole blocks.
        order: What divides the rows of ``cells`` into bands.
        cells: The parts of the window, if not all of its rows are read; empty for all of them.
    """

    schema: str
    name: str
    only: bool
    leaves: tuple[int, ...]
    start: int | None
    end: int
    blocks: tuple[int, int | None] | None = None
    seed: Seed | None = None
    lines: tuple[int, int] = (0, 0)
    order: Order | None = None
    cells: tuple[Cell, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON, for claims and footers."""
        data = dataclasses.asdict(self)
        if self.lines == (0, 0):  # as in objects written before ranges could start inside a block
            del data["lines"]
        if not self.cells:  # as in objects written before there were bands
            del data["order"], data["cells"]
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Return the region that ``to_json`` wrote, or an older version.

        Raises:
            ValueError: It has a ``box``, which no version wrote.
        """
        values = dict(data)
        if values.pop("box", None) is not None:
            raise ValueError("box")
        values["leaves"] = tuple(values["leaves"])
        values["blocks"] = tuple(values["blocks"]) if values["blocks"] else None
        values["lines"] = tuple(values.get("lines", (0, 0)))
        values["seed"] = Seed(**values["seed"]) if values["seed"] else None
        values["order"] = Order(**values["order"]) if values.get("order") else None
        values["cells"] = tuple(_cell(cell) for cell in values.get("cells", ()))
        return cls(**values)


def _cell(data: Mapping[str, Any]) -> Cell:
    last = data["last"]
    return Cell(**{**data, "first": tuple(data["first"]), "last": None if last is None else tuple(last)})


def with_difference(region: Region, before: Leaf, after: Leaf) -> Region | None:
    """Return the region that reads exactly what one state of its leaves delivers and another does not.

    Returns:
        None if the states do not differ in what they deliver.

    Raises:
        ValueError: There is no such region: ``after`` delivers less somewhere, or the orders differ.
    """
    cells = difference(before, after)
    if not cells:
        return None
    starts = [cell.start for cell in cells if cell.start is not None]
    lasts = [cell.last for cell in cells if cell.last is not None]
    first, last = min(cell.first for cell in cells), max(lasts) if len(lasts) == len(cells) else None
    whole = dataclasses.replace(
        region,
        start=min(starts) if len(starts) == len(cells) else None,
        end=max(cell.end for cell in cells),
        blocks=None if first == START and last is None else (first[0], last[0] if last else None),
        lines=(first[1], last[1] if last else 0),
        order=None,
        cells=(),
    )
    if len(cells) == 1 and cells[0].floor is None and cells[0].ceiling is None:
        return whole
    return dataclasses.replace(whole, order=order_of(before, after), cells=cells)


def describe_region(region: Region) -> str:
    """Describe the rows of a region in words, for the footer of an object."""
    if region.start is None:
        text = f"the row versions written by transactions before {region.end} (the first load)"
    else:
        text = f"the row versions written by transactions in [{region.start}, {region.end})"
    if region.blocks is not None:
        text += _describe_blocks(region.blocks, region.lines)
    if region.cells:
        text += f", in {_describe_bands(region)}"
    if region.seed is not None:
        text += ", without those that the original system had copied"
    return f"{text}, that were current when they were read"


def _describe_blocks(blocks: tuple[int, int | None], lines: tuple[int, int]) -> str:
    first, end = blocks
    if lines != (0, 0):
        upper = "" if end is None else f" and before ({end},{lines[1]})"
        return f", with a ctid at or after ({first},{lines[0]}){upper}"
    return f", in blocks [{first}, {end}) of the table" if end is not None else f", in blocks from {first} on"


def _describe_bands(region: Region) -> str:
    of = "block numbers" if region.order and region.order.attnum is None else "one column"
    count = len({(cell.floor, cell.ceiling) for cell in region.cells})
    return f"{count} {'band' if count == 1 else 'bands'} by {of} as far as each was not copied yet"
