"""The progress of a first load: what people are told about it. Values only; nothing is decided from it."""

from dataclasses import dataclass

from pg_bronze.core.table import SourceTable
from pg_bronze.core.watermark import Watermark


@dataclass(frozen=True)
class LoadProgress:
    """How far a first load is.

    Attributes:
        row_count: The rows that it has copied, in all its runs.
        size_bytes: The bytes of their objects.
        share: The share of the table's blocks that are copied, from 0 to 1.
        left_s: The expected seconds of loading that are left; None if not known.
    """

    row_count: int
    size_bytes: int
    share: float
    left_s: float | None

    def sentence(self, label: str) -> str:
        """Return the line of a log about it."""
        megabytes = f"{self.size_bytes / 1e6:,.1f} MB"
        left = "" if self.left_s is None else f", about {duration(self.left_s)} of loading left"
        return f"first load of {label}: {self.share:.1%} copied, {self.row_count:,} rows, {megabytes}{left}"


def is_loading(watermark: Watermark, table: SourceTable) -> bool:
    """Return whether a part of the table was never read."""
    return any(watermark.leaf(item.oid).swept is None for item in table.relations)


def share_of(watermark: Watermark, table: SourceTable) -> float:
    """Return the share of a table's blocks that are copied, from 0 to 1. Each leaf counts as one block at least."""
    blocks, loaded = 0, 0.0
    for item in table.relations:
        leaf, size = watermark.leaf(item.oid), max(1, item.page_count)
        blocks += size
        if leaf.swept is not None:
            loaded += size
        elif leaf.sweep is not None:
            loaded += size * min(1.0, leaf.sweep.block / (leaf.sweep.end or size))
    return loaded / blocks if blocks else 0.0


def left_s(share: float, begun_at: float, spent_s: float) -> float | None:
    """Return the expected seconds until a load is complete; None if its run has not advanced yet.

    Args:
        share: The share that is copied.
        begun_at: The share when the run began.
        spent_s: The seconds since then.
    """
    return None if share <= begun_at else (1 - share) / (share - begun_at) * spent_s


def duration(seconds: float) -> str:
    """Return a number of seconds as people say it: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
