"""Random histories of one leaf: the steps of ``core.band_steps`` in any order, with the two states of each object."""

import random
from collections.abc import Iterator, Sequence

from pg_bronze.core import band_steps
from pg_bronze.core.leaf import Leaf, Order


def history(
    rnd: random.Random,
    order: Order,
    floors: Sequence[str],
    first_horizon: int,
    blocks: int,
    steps: int,
    last_horizon: int | None = None,
) -> Iterator[tuple[Leaf, Leaf]]:
    """Yield the states before and after each of a number of random steps.

    Args:
        floors: Values that a split may use.
        first_horizon: Horizons start above it and rise by up to three.
        blocks: The number of blocks of the leaf.
        last_horizon: The highest horizon; None for any.
    """
    leaf, horizon = Leaf(), first_horizon
    for _ in range(steps):
        horizon = min(horizon + rnd.randrange(4), horizon + 3 if last_horizon is None else last_horizon)
        before, leaf = leaf, _step(rnd, leaf, order, floors, horizon, blocks)
        yield before, leaf


def _step(rnd: random.Random, leaf: Leaf, order: Order, floors: Sequence[str], horizon: int, blocks: int) -> Leaf:
    sweep = leaf.sweep
    if sweep is not None and (sweep.below is None or rnd.random() < 0.5):
        block, line = sweep.block + rnd.randrange(2), rnd.randrange(4)
        block, line = max(sweep.position, (block, line))
        return (
            band_steps.ended(leaf) if band_steps.is_last(leaf, block, blocks) else band_steps.advance(leaf, block, line)
        )
    choice = rnd.random()
    if choice < 0.4 and floors:
        return band_steps.split(leaf, order, rnd.choice(floors))
    if choice < 0.8 and leaf.upper:
        lowest = order.key(band_steps.lowest_floor(leaf))
        possible = [band.floor for band in leaf.upper if order.key(band.floor) >= lowest]
        return band_steps.fresh(leaf, rnd.choice(possible), horizon)
    if sweep is not None:
        return leaf
    if leaf.upper and leaf.top is not None and rnd.random() < 0.8:
        return band_steps.begin(leaf, 1, blocks)
    return band_steps.begin_everything(leaf, horizon, 1, _end(rnd, blocks))


def _end(rnd: random.Random, blocks: int) -> int | None:
    """Return a fixed end of a sweep, or None as in sweeps of older versions."""
    return rnd.choice([None, blocks])
