"""The steps of a leaf from one state to the next: split, fresh read, and the begin, the ranges and the end of a sweep.

Belongs here: the states after each step. The rows that a step reads are the difference of its two states (``cells``).
Does not belong here: which step comes next (``planning``). Every function raises ValueError for a step that would
violate an invariant of ``leaf``.
"""

from dataclasses import replace

from pg_bronze.core.leaf import MAX_BANDS, Band, Leaf, Order, Sweep


def split(leaf: Leaf, order: Order, floor: str) -> Leaf:
    """Return the leaf with one band divided in two at a floor; nothing is read, because both are delivered as far.

    Returns:
        The leaf itself if it has this floor or the highest number of bands, or if a sweep covers the floor: what a
        sweep reads must not change while it is in progress.
    """
    if leaf.order is not None and leaf.order != order:
        raise ValueError("a leaf has one order")
    key, at = order.key, order.key(floor)
    if leaf.sweep is not None and (leaf.sweep.below is None or at < key(leaf.sweep.below)):
        return leaf
    if any(key(band.floor) == at for band in leaf.upper) or len(leaf.upper) + 1 >= MAX_BANDS:
        return leaf
    lower = tuple(band for band in leaf.upper if key(band.floor) < at)
    upto = lower[-1].upto if lower else leaf.swept
    return _checked(replace(leaf, order=order, upper=(*lower, Band(floor, upto), *leaf.upper[len(lower) :])))


def fresh(leaf: Leaf, floor: str, horizon: int) -> Leaf:
    """Return the leaf after a fresh read: all rows above a floor are delivered up to a horizon, as one band."""
    if leaf.order is None:
        raise ValueError("a fresh read needs bands")
    key, sweep = leaf.order.key, leaf.sweep
    if sweep is not None and (sweep.below is None or key(floor) < key(sweep.below)):
        raise ValueError("a fresh read must not include rows that a sweep covers")
    if horizon < (leaf.highest or 0):
        raise ValueError("the horizon is below what is delivered")
    kept = tuple(band for band in leaf.upper if key(band.floor) < key(floor))
    return _checked(replace(leaf, upper=(*kept, Band(floor, horizon))))


def lowest_floor(leaf: Leaf) -> str:
    """Return the lowest floor from which a fresh read may start: no sweep covers the rows above it."""
    sweep = leaf.sweep
    return leaf.upper[0].floor if sweep is None or sweep.below is None else sweep.below


def begin(leaf: Leaf, relfilenode: int, end: int, began_at: str | None = None, upto: int | None = None) -> Leaf:
    """Return the leaf with a sweep up to a transaction, of the bands that are not delivered that far.

    Call it after a fresh read of the same run and with its result, committed or not. A sweep up to the transaction of
    the last committed fresh read would deliver nothing while all changes are to old rows.

    Args:
        end: The number of blocks, read after the horizon.
        began_at: When ``upto`` was the horizon, in UTC.
        upto: The transaction of the top band if None; less to bring a leaf to where others of its table are.
    """
    upto = upto or leaf.top or 0
    below = next((band.floor for band in leaf.upper if (band.upto or 0) >= upto), None)
    if not upto or below is None or leaf.sweep is not None:
        raise ValueError("a sweep below the top band needs one that was read, and no other sweep")
    return _checked(replace(leaf, sweep=Sweep(upto, 0, relfilenode, below=below, end=end, began_at=began_at)))


def begin_everything(
    leaf: Leaf, horizon: int, relfilenode: int, end: int | None = None, began_at: str | None = None
) -> Leaf:
    """Return the leaf with a sweep of all rows up to a horizon. No fresh read may run until it has ended."""
    if leaf.sweep is not None or horizon < (leaf.highest or 0):
        raise ValueError("a sweep of all rows needs a horizon that nothing is ahead of, and no other sweep")
    return _checked(replace(leaf, sweep=Sweep(horizon, 0, relfilenode, end=end, began_at=began_at)))


def advance(leaf: Leaf, block: int, line: int = 0) -> Leaf:
    """Return the leaf after the next range of its sweep, which ends before a block and line pointer."""
    if leaf.sweep is None or (block, line) < leaf.sweep.position:
        raise ValueError("a sweep goes forward")
    return _checked(replace(leaf, sweep=replace(leaf.sweep, block=block, line=line)))


def is_last(leaf: Leaf, block: int, page_count: int) -> bool:
    """Return whether the range of a sweep that ends before a block is the last one, which has no upper bound.

    Args:
        page_count: The number of blocks now, for a sweep without a fixed end.
    """
    sweep = leaf.sweep
    if sweep is None:
        raise ValueError("there is no sweep")
    end = page_count if sweep.end is None else sweep.end
    if sweep.below is not None and leaf.order is not None and leaf.order.attnum is None:
        end = min(end, int(sweep.below))
    return block >= end


def ended(leaf: Leaf) -> Leaf:
    """Return the leaf after the last range of its sweep: the bands that it covered become one."""
    sweep = leaf.sweep
    if sweep is None:
        raise ValueError("there is no sweep")
    if sweep.below is None or leaf.order is None:
        return _checked(Leaf(sweep.upto, swept_at=sweep.began_at))
    key = leaf.order.key
    kept = tuple(band for band in leaf.upper if key(band.floor) >= key(sweep.below))
    return _checked(Leaf(sweep.upto, None, leaf.order, kept, sweep.began_at))


def _checked(leaf: Leaf) -> Leaf:
    if problem := leaf.problem():
        raise ValueError(problem)
    return leaf
