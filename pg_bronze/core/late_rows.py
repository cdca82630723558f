"""Late rows: row versions that a copy by ``column > last value`` would never have seen.

Belongs here: which row versions of a slice are late, and what the rows of later slices are compared with. Does not
belong here: the cursor column and its values (``cursor_column``). Nothing decides by these numbers what is copied.

The imagined copy queries the table whenever pg_bronze reads a horizon up to which it commits an object, and continues
after the highest value that it has seen. A row version is late if its value is not above the highest value that was
seen by the last query that did not see its transaction, or if it is NULL. So a version is late that was committed after
one with a higher value was seen, and so is every update that does not raise the value. Rows that one query sees are
never compared with each other, so neither are the slices of one window. Where not all rows of a query are copied yet,
its highest value may be too low, and fewer rows count as late.
"""

import dataclasses
from collections.abc import Sequence
from decimal import ROUND_FLOOR, Context, Decimal
from typing import TYPE_CHECKING

from pg_bronze.core import cursor_column
from pg_bronze.core.cursor_column import CursorColumn, time_key
from pg_bronze.core.region import Region
from pg_bronze.core.row_counts import Poll, RowCounts
from pg_bronze.core.watermark import Watermark

if TYPE_CHECKING:
    import polars as pl

# More than one is needed while a transaction is open, and for the rows that the next sweep of a large table finds. Each
# takes 45 bytes in every event of Dagster.
MAX_POLLS = 4
_EXACT = Context(prec=1000)


def counted(
    before: Watermark,
    after: Watermark,
    frame: "pl.DataFrame",
    region: Region | None,
    xid_column: str,
    column: CursorColumn | None,
    poll: Poll | None,
    *,
    moved: bool,
    same_day: bool,
) -> Watermark:
    """Return the watermark after a slice with its row counts.

    Args:
        before: The watermark that the slice follows.
        after: The watermark that it commits, with the highest cursor value.
        frame: Its rows as they are stored.
        region: Its region; None if it has no rows.
        column: The cursor column; None if the table has none.
        poll: What was visible at the horizon of the slice; None if not known.
        moved: Another column was the cursor column until now, so there is nothing to compare with.
        same_day: The object is of the same UTC day as the one before it.
    """
    row_count, frame = frame.height, frame.select(xid_column, *([column.name] if column else ()))
    known = before.counts or RowCounts(None, None)
    if not before.seq or before.generation != after.generation:
        known, same_day = RowCounts(), False
    polls, late = known.polls, known.late
    if column is not None:
        is_first_load = region is None or region.start is None
        polls = () if moved else _raised(_polls(before, known), frame, xid_column, column)
        late = (late or 0) + (0 if is_first_load else _count(polls, frame, xid_column, column))
        polls = _next(polls, after, poll)
    rows = None if known.rows is None else known.rows + row_count
    day_rows = known.day_rows if same_day else 0
    day_rows = None if day_rows is None else day_rows + row_count
    return dataclasses.replace(after, counts=RowCounts(rows, day_rows, late, polls))


def late_between(before: Watermark, after: Watermark) -> int:
    """Return the late rows of the object between two watermarks."""
    if after.counts is None or before.generation != after.generation:
        return 0
    return (after.counts.late or 0) - ((before.counts.late if before.counts else None) or 0)


def last_poll(watermark: Watermark) -> Poll | None:
    """Return the last poll of a watermark, for a slice that is written again; None if it names none."""
    return watermark.counts.polls[-1] if watermark.counts and watermark.counts.polls else None


def _polls(watermark: Watermark, known: RowCounts) -> tuple[Poll, ...]:
    """Return the polls before a slice. Where none is stored, the watermark is the only one."""
    horizon = watermark.highest_horizon
    if known.polls or horizon is None:
        return known.polls
    return (Poll(horizon, horizon, highest=watermark.cursor),)


def _visible(poll: Poll, xids: "pl.Series") -> "pl.Series":
    visible = xids < poll.next_xid
    for unfinished in poll.open:
        visible &= xids != unfinished
    return visible


def _raised(
    polls: tuple[Poll, ...], frame: "pl.DataFrame", xid_column: str, column: CursorColumn | None
) -> tuple[Poll, ...]:
    """Return the polls with the highest values that they would have seen in the rows of a slice."""
    if column is None or not frame.height:
        return polls
    first, last = _limits(frame[xid_column])
    found = []
    for poll in polls:
        highest = poll.highest
        if first < poll.next_xid:
            everything = last < poll.next_xid and not poll.open
            visible = frame if everything else frame.filter(_visible(poll, frame[xid_column]))
            seen = cursor_column.newest_value(visible, column)
            highest = cursor_column.later_value(highest, seen, column)
        found.append(dataclasses.replace(poll, highest=highest))
    return tuple(found)


def _count(polls: Sequence[Poll], frame: "pl.DataFrame", xid_column: str, column: CursorColumn) -> int:
    """Count the rows that are not above the highest value of the last poll that did not see them."""
    late, rest = 0, frame
    first, last = _limits(frame[xid_column]) if frame.height else (0, 0)
    for poll in reversed(polls):
        if first >= poll.next_xid:  # as in most slices: the poll saw none of the rows
            return late + int(not_above(rest[column.name], poll.highest, column).sum())
        if last < poll.next_xid and not poll.open:
            continue
        visible = _visible(poll, rest[xid_column])
        late += int(not_above(rest.filter(~visible)[column.name], poll.highest, column).sum())
        rest = rest.filter(visible)
        if not rest.height:
            break
    return late


def _limits(xids: "pl.Series") -> tuple[int, int]:
    return int(str(xids.min())), int(str(xids.max()))


def _next(polls: tuple[Poll, ...], after: Watermark, poll: Poll | None) -> tuple[Poll, ...]:
    """Return what the rows after a slice are compared with; empty if the watermark alone says it."""
    horizon = after.highest_horizon
    if horizon is None:
        return ()
    polls = tuple(item for item in polls if item.horizon <= horizon)
    if not polls or polls[-1].horizon < horizon:
        same = poll is not None and poll.horizon == horizon
        new = poll if poll is not None and same else Poll(horizon, horizon)
        polls = (*polls, dataclasses.replace(new, highest=after.cursor))
    low = _lowest(after, horizon)
    while len(polls) > 1 and polls[1].next_xid <= low:
        polls = polls[1:]
    while len(polls) > MAX_POLLS:
        gaps = {n: polls[n + 1].horizon - polls[n - 1].horizon for n in range(1, len(polls) - 2)}
        dropped = min(gaps, key=gaps.__getitem__)
        polls = polls[:dropped] + polls[dropped + 1 :]
    return () if polls == (Poll(horizon, horizon, highest=after.cursor),) else polls


def _lowest(after: Watermark, horizon: int) -> int:
    """Return the lowest transaction of which rows that are not first loads may still be copied."""
    lows = [horizon]
    for oid, leaf in after.leaves.items():
        low = leaf.swept
        if low is None and leaf.sweep is not None:
            low = leaf.sweep.upto
        if low is not None and oid not in after.detached:
            lows.append(low)
    return min(lows)


def not_above(values: "pl.Series", highest: str | None, column: CursorColumn) -> "pl.Series":
    """Return for each value of the cursor column whether it is not above another one; NULL is above none.

    Values are compared exactly, as PostgreSQL orders them: NaN and infinity are above every finite value.

    Args:
        highest: A value as ``cursor_column.newest_value`` returns it. None is below everything, NULL included: a copy
            that has seen no value has no condition yet.
    """
    import polars as pl

    if highest is None:
        return pl.Series([False] * len(values), dtype=pl.Boolean)
    return _compared(values, highest, column).fill_null(True)


def _compared(values: "pl.Series", highest: str, column: CursorColumn) -> "pl.Series":
    import polars as pl

    if isinstance(values.dtype, pl.Date | pl.Datetime):
        bound = _time_count(highest, days=isinstance(values.dtype, pl.Date))
        return values.to_physical() <= bound
    if values.dtype == pl.String:
        return _texts_compared(values, highest, column)
    if values.dtype.is_float():
        # Polars sorts NaN above all other values, too.
        rounded: float = pl.Series([float(highest)], dtype=pl.Float64).cast(values.dtype)[0]
        return values <= rounded
    scale = values.dtype.scale if isinstance(values.dtype, pl.Decimal) else 0
    bound = int(Decimal(highest).scaleb(scale, _EXACT).to_integral_value(ROUND_FLOOR))
    units = values.to_physical().cast(pl.Int128)
    return units <= pl.Series([max(-(2**127), min(bound, 2**127 - 1))], dtype=pl.Int128)


def _texts_compared(values: "pl.Series", highest: str, column: CursorColumn) -> "pl.Series":
    import polars as pl

    found, unsure = pl.repeat(None, len(values), dtype=pl.Boolean, eager=True), values.is_not_null()
    if column.kind == "number":
        # Rounding to float64 keeps the order, so only values that round to the same float need exact arithmetic.
        rounded, bound = values.cast(pl.Float64, strict=False), float(highest)
        found, unsure = rounded < bound, unsure & ((rounded == bound) | rounded.is_null())
    texts = values.filter(unsure)
    known = {text: _text_not_above(text, highest, column) for text in texts.unique()}
    exact = pl.Series([known[text] for text in texts], dtype=pl.Boolean)
    return found.scatter(unsure.arg_true(), exact) if len(exact) else found


def _text_not_above(text: str, highest: str, column: CursorColumn) -> bool:
    if text in ("NaN", "Infinity", "infinity"):
        return False
    if text in ("-Infinity", "-infinity"):
        return True
    return Decimal(text) <= Decimal(highest) if column.kind == "number" else time_key(text) <= time_key(highest)


def _time_count(text: str, *, days: bool) -> int:
    """Return a date or timestamp, as PostgreSQL prints it, as days or microseconds since 1970."""
    year, month, day, hour, minute, second, microsecond = time_key(text)
    # The arithmetic of ``cursor_column``: years begin in March, so that a leap day is the last day of its year.
    era, year_of_era = divmod(year - (month <= 2), 400)
    day_of_year = (153 * ((month - 3) % 12) + 2) // 5 + day - 1
    count = era * 146_097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719_468
    return count if days else ((count * 24 + hour) * 60 + minute) * 60_000_000 + second * 1_000_000 + microsecond
