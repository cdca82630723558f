"""What people are told about bands: the order and why, how old a change may be, and which index would help.

Belongs here: sentences, made from the table and its watermark. Does not belong here: where they are shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pg_bronze.core import band_rules
from pg_bronze.core.band_rules import UPDATED_NAMES, BandRules
from pg_bronze.core.leaf import ORDERED_TYPES, Order
from pg_bronze.core.table import SourceTable, quote
from pg_bronze.core.watermark import Watermark


@dataclass(frozen=True)
class BandNotes:
    """What a large table's newest materialization shows.

    Attributes:
        order: What divides the rows and why, as a sentence without a period; None without bands.
        sweep_every_s: The expected seconds between two sweeps.
        sweep_age_s: The age of the oldest row version that may be missing, in seconds; None before the first sweep.
        fresh_share: Which share of the new row versions arrived by fresh reads before the last sweep.
        fresh_end: The transaction up to which the newest rows are copied.
        swept_blocks: How far the sweep in progress is, as a share of the blocks; None if there is none.
        advice: The statement that would let new rows arrive in every tick; None if they do.
    """

    order: str | None
    sweep_every_s: float
    sweep_age_s: float | None
    fresh_share: float | None
    fresh_end: int
    swept_blocks: float | None
    advice: str | None


def of_table(table: SourceTable, watermark: Watermark, rules: BandRules | None, now: datetime) -> BandNotes | None:
    """Return what people are told about a table that is swept by a schedule; None for any other table."""
    sweeps = watermark.sweeps
    if rules is None or sweeps is None or not band_rules.is_scheduled(table, sweeps, rules):
        return None
    leaves = [watermark.leaf(item.oid) for item in table.relations]
    order = next((leaf.order for leaf in leaves if leaf.order), None)
    times = [datetime.fromisoformat(leaf.swept_at) for leaf in leaves if leaf.swept_at]
    blocks = sum(item.page_count for item in table.relations)
    done = [leaf.sweep.block for leaf in leaves if leaf.sweep]
    return BandNotes(
        order=None if order is None else describe_order(table, order),
        sweep_every_s=rules.period_s(band_rules.sweep_s(table, sweeps)),
        sweep_age_s=(now - min(times)).total_seconds() if len(times) == len(leaves) and times else None,
        fresh_share=sweeps.share,
        fresh_end=min((leaf.top or 0 for leaf in leaves), default=0),
        swept_blocks=round(min(1.0, sum(done) / blocks), 4) if done and blocks else None,
        advice=missing_index(table, order),
    )


def describe_order(table: SourceTable, order: Order) -> str:
    """Return what divides the rows of a table into bands, and why."""
    if order.attnum is None:
        return "block number: no column that could show new rows leads an index, and new rows go to the end of the file"
    name = table.names_by_attnum.get(order.attnum, "?")
    why = "every update changes a column with this name" if name in UPDATED_NAMES else "new rows have its newest values"
    return f"{name}: it leads an index, and {why}"


def missing_index(table: SourceTable, order: Order | None) -> str | None:
    """Return the statement that creates the index which would find new rows best; None if there is such an index."""
    by_name = {column.name: column for column in table.columns if column.ordered_as in ORDERED_TYPES}
    wanted = next((by_name[name] for name in UPDATED_NAMES if name in by_name), None)
    if wanted is None and order is not None and order.attnum is not None:
        return None
    wanted = wanted or next((by_name[name] for name in _keys(table) if name in by_name), None)
    if wanted is None or all(wanted.name in relation.ordered_by for relation in table.relations):
        return None
    concurrently = "" if table.partitioned else "concurrently "
    return f"create index {concurrently}on {table.sql} ({quote(wanted.name)})"


def _keys(table: SourceTable) -> Sequence[str]:
    return ["created_at", *(table.primary_key if len(table.primary_key) == 1 else ())]


def outlook(table: SourceTable, names: Sequence[str], configured: str | None, rules: BandRules) -> str:
    """Return when rows of a large table are expected to arrive, from its definition alone, as a paragraph."""
    every = f"about {rules.period_s(band_rules.sweep_s(table, None)):.0f} s"
    order = next(iter(band_rules.orders(table, names, configured)), None)
    advice = missing_index(table, order)
    found = f"No index finds its new rows, so it is read completely every {every}."
    if order is not None:
        found = f"New rows are found by {describe_order(table, order)}. Other changes arrive within {every}."
    return f"**Large table**: {found}" + (f" More rows would arrive in every tick after `{advice}`." if advice else "")


def overdue(label: str, sweep_age_s: float, sweep_every_s: float, target_s: float | None = None) -> str | None:
    """Return that a sweep is overdue, as a sentence; None if it is not.

    Args:
        target_s: The highest accepted age; None for one that follows from the time between two sweeps.
    """
    if sweep_age_s <= (2 * sweep_every_s + 60 if target_s is None else target_s):
        return None
    return (
        f"{label}: changes of its older rows of the last {sweep_age_s:.0f} s may be missing; a sweep is expected every "
        f"{sweep_every_s:.0f} s"
    )
