"""The cost of reading a table: what a fresh read, a sweep and a first load are expected to take. Nothing is decided.

Estimates from the planner's statistics and from measurements in ``docs/operations.md``, right within a factor of three
on a server whose cache contains the table.
"""

from dataclasses import dataclass

from pg_bronze.core import band_rules
from pg_bronze.core.band_rules import BandRules, Sweeps
from pg_bronze.core.slice_size import BLOCK_BYTES, UNKNOWN_ROW_BYTES
from pg_bronze.core.table import SourceTable

# One new row in a table of 5 or 50 million rows, with the statements of its run.
FRESH_READ_S = 0.012
# A table of 400 MB was loaded in 4.4 s, by one core, with the bucket on the same one.
LOADED_BYTES_PER_S = 90_000_000


@dataclass(frozen=True)
class Cost:
    """What one read is expected to take: seconds, and bytes that the server reads."""

    seconds: float
    size_bytes: int

    def to_json(self) -> dict[str, float | int]:
        """Return it as plain JSON."""
        return {"seconds": round(self.seconds, 3), "bytes": self.size_bytes}


@dataclass(frozen=True)
class TableCosts:
    """What the reads of one table are expected to take.

    Attributes:
        fresh: The read of a tick with new rows.
        sweep: The read that finds all changes. Of a small table it is the read of a tick.
        sweep_every_s: The seconds between two sweeps; 0 if the table is swept in every tick that has changes.
        first_load: The copy of all rows.
    """

    fresh: Cost
    sweep: Cost
    sweep_every_s: float
    first_load: Cost


def of_table(table: SourceTable, sweeps: Sweeps | None, rules: BandRules, ordered: bool) -> TableCosts:
    """Estimate the reads of a table.

    Args:
        sweeps: What its reads found so far; None before the first one.
        rules: When it is swept.
        ordered: Something divides its rows into bands, so that new rows are found without a sweep.
    """
    blocks = sum(relation.page_count for relation in table.relations)
    toast = sum(relation.toast_page_count for relation in table.relations)
    seconds = band_rules.sweep_s(table, sweeps)
    sweep = Cost(seconds, max(blocks, sweeps.blocks if sweeps else 0) * BLOCK_BYTES)
    size_bytes = (blocks + toast) * BLOCK_BYTES
    first_load = Cost(size_bytes / LOADED_BYTES_PER_S, size_bytes)
    period_s = rules.period_s(seconds)
    fresh = sweep
    if period_s > 0 and ordered:
        row_bytes = blocks * BLOCK_BYTES / table.row_estimate if table.row_estimate > 0 else UNKNOWN_ROW_BYTES
        fresh = Cost(min(FRESH_READ_S, seconds), min(sweep.size_bytes, int(rules.top_rows * row_bytes)))
    return TableCosts(fresh, sweep, period_s, first_load)
