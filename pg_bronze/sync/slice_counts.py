"""The row counts of a slice: what its object adds to those of its table."""

import dataclasses
from typing import TYPE_CHECKING

from pg_bronze.core import late_rows
from pg_bronze.core.cursor_column import CursorColumn
from pg_bronze.core.row_counts import Poll
from pg_bronze.lake.claim import Claim
from pg_bronze.lake.keys import Layout
from pg_bronze.sync.column_history import ColumnSnapshot

if TYPE_CHECKING:
    import polars as pl


def counted(
    column: CursorColumn | None,
    poll: Poll | None,
    layout: Layout,
    claim: Claim,
    frame: "pl.DataFrame",
    snapshot: ColumnSnapshot,
    redo: bool,
) -> Claim:
    """Return a claim whose watermark counts the rows of its slice.

    A slice that is written again may have fewer rows than its claim counted. What was visible at the horizon of the
    first attempt is in the claim.

    Args:
        column: The cursor column.
        poll: What a query at the horizon of this run would have seen.
        redo: The claim is that of another writer.
    """
    before, after = claim.before, claim.after
    poll = late_rows.last_poll(after) if redo else poll
    xid_column, moved = snapshot.description.xid_column, snapshot.cursor_moved
    same_day = layout.day(before.key) == layout.day(after.key)

    def count(moved: bool) -> Claim:
        counts = late_rows.counted(
            before, after, frame, claim.region, xid_column, column, poll, moved=moved, same_day=same_day
        )
        return dataclasses.replace(claim, after=counts)

    try:
        return count(moved)
    except (ArithmeticError, ValueError):
        return count(True)  # the values before are those of a column of another type
