"""Planning: which rows of a table the next slice reads.

Belongs here: the decision, made from the watermark, the table as it is now and the horizon. Does not belong here:
reads and writes, the SQL of a window (``window_sql``), how much one slice may contain (``slice_size``), and whether the
watermark still belongs to this database (``history_check``). ``band_planning`` decides for tables with bands, and
``ranges`` for all others. ``sync`` calls ``plan`` once per slice.
"""

from collections.abc import Callable, Iterator
from typing import TypeGuard

from pg_bronze.core import band_planning, lost_state, ranges
from pg_bronze.core.history_check import horizon_below_watermark
from pg_bronze.core.next_read import Doubt, FindFloor, NewGeneration, Plan, Quiet, Read, Run, TickState
from pg_bronze.core.ranges import HEARTBEAT_WIDTH, Situation
from pg_bronze.core.slice_size import SliceSize
from pg_bronze.core.table import SourceTable
from pg_bronze.core.watermark import Watermark

__all__ = ["Doubt", "FindFloor", "NewGeneration", "Plan", "Quiet", "Read", "Run", "TickState", "plan"]

NO_BANDS = Run()


def plan(
    watermark: Watermark,
    table: SourceTable,
    horizon: int,
    standby: bool,
    size: SliceSize,
    tick: TickState,
    run: Run = NO_BANDS,
) -> Plan:
    """Return the next step for a table at a horizon.

    Raises:
        HistoryChanged: The horizon of a primary is below what was already delivered.
        StaleSnapshot: The horizon of a standby is. It is retried at the next tick.
        OperatorError: A window is wider than transaction ids can tell apart.
    """
    if watermark.table != table.oid:
        return NewGeneration(
            f"the name now refers to another table (oid {table.oid}, previously {watermark.table}): "
            "the table was dropped and created again, or swapped by a rename"
        )
    known, doubt = lost_state.check(watermark, table)
    if doubt is not None:
        return doubt
    for relation in table.relations:
        top = watermark.leaf(relation.oid).top
        if top is not None and horizon < top:
            raise horizon_below_watermark(table.label, horizon, top, standby)
    at = Situation(known, table, horizon, size, tick, run)
    step = band_planning.next_step(at) if at.scheduled else ranges.next_step(at)
    if isinstance(step, Read) and (reason := _gives_way(step, at)):
        return Quiet(reason, partial=True)
    return step or Quiet(f"no transaction finished since {horizon}" if table.relations else "it has no partitions yet")


def is_first_load(step: Read, watermark: Watermark) -> bool:
    """Return whether a step reads a part of a first load, other than the newest rows of a large table."""
    return step.kind != "fresh" and any(watermark.leaf(oid).swept is None for oid in step.region.leaves)


def is_load_range(step: Plan) -> TypeGuard[Read]:
    """Return whether a step reads whole blocks of a first load, which may be read before the step has its turn.

    Its rows are those of transactions below the horizon at which its sweep began, whenever they are read.
    """
    if not isinstance(step, Read) or step.kind != "sweep" or step.region.blocks is None:
        return False
    return step.region.start is None and step.region.lines == (0, 0)


def ranges_after(step: Read, plan_after: Callable[[Watermark], Plan]) -> Iterator[Read]:
    """Yield the block ranges of first loads that follow a step, as far as they can be planned before it is read.

    Args:
        plan_after: Returns the next step after a watermark.
    """
    while is_load_range(following := plan_after(step.after)):
        yield following
        step = following


def _gives_way(step: Read, at: Situation) -> str | None:
    """Return why a table has had its turn in this run; None if it goes on. It has committed a slice then.

    The sweeps of a schedule have a budget, and would never begin in a table whose new rows fill its share.
    """
    turn_s, share_s = at.run.turn_s, at.run.share_s
    if turn_s is not None and at.tick.loading_s > turn_s and is_first_load(step, at.watermark):
        return "its first load goes on in the next tick, after that of other tables"
    if share_s is not None and at.tick.copying_s > share_s and not (at.scheduled and step.kind == "sweep"):
        return f"its copy took more than {share_s:.0f} s and goes on in the next tick, apart from the other tables"
    return None


def due_for_heartbeat(watermark: Watermark, table: SourceTable, horizon: int) -> bool:
    """Return whether an empty object must close the window of a quiet table because of the window's width."""
    leaves = [watermark.leaf(relation.oid) for relation in table.relations]
    return any(leaf.swept is not None and horizon - leaf.swept > HEARTBEAT_WIDTH for leaf in leaves)
