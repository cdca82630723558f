"""The next read of a table with bands: a fresh read of the newest rows, or a part of a sweep of all others.

Belongs here: which step comes next, and what a read adds to what is known for scheduling. Does not belong here: the
states after each step (``band_steps``) and the limits (``band_rules``).
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pg_bronze.core import band_rules, band_steps, ranges
from pg_bronze.core.band_rules import POOR_SWEEPS, BandRules, Sweeps
from pg_bronze.core.cells import Cell, difference
from pg_bronze.core.leaf import MAX_BANDS, Leaf, Order
from pg_bronze.core.next_read import FindFloor, Quiet, Read, Run
from pg_bronze.core.ranges import HEARTBEAT_WIDTH, Situation
from pg_bronze.core.region import Region, with_difference
from pg_bronze.core.table import Relation, SourceTable
from pg_bronze.core.watermark import Watermark


def next_step(at: Situation) -> Read | FindFloor | Quiet | None:
    """Return the next step of a table that is too large to be read completely in every tick."""
    tick = _Tick(at, at.run.bands or BandRules(), at.watermark.sweeps or Sweeps())
    if tick.covers_all():
        return tick.part_of_sweep() or tick.waiting()
    return tick.floor() or tick.fresh() or tick.part_of_sweep() or tick.begin() or tick.whole() or tick.waiting()


def noted(watermark: Watermark, step: Read, table: SourceTable, rows: int, seconds: float, run: Run) -> Watermark:
    """Return the watermark after a read, with what it adds to what is known for scheduling.

    Args:
        watermark: The watermark before the read.
    """
    after, sweeps = step.after, watermark.sweeps or Sweeps()
    if step.kind == "fresh":
        return dataclasses.replace(after, sweeps=sweeps.after_fresh(rows, step.moves))
    if step.begins:
        sweeps = sweeps.after_begin(run.counted if run.idle else None)
    table_blocks = sum(item.page_count for item in table.relations)
    sweeps = sweeps.after_range(rows, step.blocks, seconds, table_blocks)
    if step.ends and len({after.leaf(item.oid).swept for item in table.relations}) == 1:
        before = watermark.leaf(step.region.leaves[0])
        gave_up = before.order is not None and after.leaf(step.region.leaves[0]).order is None
        works = not gave_up and before.order is not None and before.swept is not None and not sweeps.urgent
        rejected = before.order if gave_up and sweeps.poor >= POOR_SWEEPS else None
        sweeps = sweeps.after_end(counts=works)
        sweeps = sweeps.rejecting(rejected) if rejected else sweeps
    return dataclasses.replace(after, sweeps=sweeps)


def urgent(watermark: Watermark) -> Watermark:
    """Return the watermark with a next sweep that has no budget."""
    return dataclasses.replace(watermark, sweeps=dataclasses.replace(watermark.sweeps or Sweeps(), urgent=True))


def fresh_region(region: Region, leaf: Leaf, horizon: int) -> Region | None:
    """Return the rows that the next fresh read of a leaf contains; None if it has no bands or nothing is left.

    Args:
        region: Names the leaf.
    """
    floor = fresh_floor(leaf)
    if floor is None or (leaf.top or 0) >= horizon:
        return None
    return with_difference(region, leaf, band_steps.fresh(leaf, floor, horizon))


def fresh_floor(leaf: Leaf) -> str | None:
    """Return the floor above which a fresh read of a leaf starts; None without bands."""
    return leaf.upper[-1].floor if leaf.upper else None


@dataclass(frozen=True)
class _Tick:
    """The arguments of ``next_step``; each public method returns a step of its kind, or None if there is none."""

    at: Situation
    rules: BandRules
    sweeps: Sweeps

    @property
    def _leaves(self) -> list[tuple[Relation, Leaf]]:
        return [(item, self.at.watermark.leaf(item.oid)) for item in self.at.table.relations]

    def _order(self) -> Order | None:
        """The order of the leaves that have one, while an index provides it; otherwise the best that has a floor."""
        used = self._used_order()
        if used is not None:
            usable = any(_same(order, used) for order in self._orders) or self._gives_up()
            return used if usable and not self._is_stuck(used) else None
        found = self.at.tick.floors
        candidates = (order for order in self._orders if found.get(order, "") is not None and not self._is_stuck(order))
        return next(candidates, None)

    @property
    def _orders(self) -> list[Order]:
        return [order for order in self.at.run.orders if self.sweeps.allows(order)]

    def _used_order(self) -> Order | None:
        return next((leaf.order.of_root for _, leaf in self._leaves if leaf.order), None)

    def _gives_up(self) -> bool:
        """Whether the order finds so few of the new row versions that the next one is tried after the next sweep."""
        return self.sweeps.poor >= POOR_SWEEPS and self._used_order() is not None

    def _is_stuck(self, order: Order) -> bool:
        """Whether the rows above every possible floor exceed a slice, as with many infinite values."""
        if not self.at.tick.overflow:
            return False
        tops = [leaf.upper[-1].floor for _, leaf in self._leaves if leaf.upper]
        newest = self.at.tick.floors.get(order)
        rises = order not in self.at.tick.floors or (
            newest is not None and all(order.key(newest) >= order.key(top) for top in tops)
        )
        return self.at.tick.overflow > 1 or not rises

    def covers_all(self) -> bool:
        """Return whether a sweep of all rows is in progress, during which nothing else may be read."""
        return any(leaf.sweep is not None and leaf.sweep.below is None for _, leaf in self._leaves)

    def floor(self) -> FindFloor | None:
        """Ask for a floor where one has to be set or moved."""
        order = self._order()
        if order is None or order in self.at.tick.floors:
            return None
        unset = not any(leaf.upper for _, leaf in self._leaves)
        crowded = self.sweeps.above >= self.rules.top_rows
        if unset or crowded or self.at.tick.overflow or self._begins_round():
            return FindFloor(order, newest=self.at.tick.overflow > 0)
        return None

    def _begins_round(self) -> bool:
        """Whether a fresh read and the begin of a sweep follow. A floor that is too high or too low is noticed then."""
        return self._due() and not self._at_horizon() and not any(leaf.sweep for _, leaf in self._leaves)

    def _at_horizon(self) -> bool:
        return all(leaf.top == self.at.horizon for _, leaf in self._leaves)

    def fresh(self) -> Read | None:
        """Read the rows above the top floor, of all leaves for which these are the same."""
        order = self._order()
        if order is None:
            return None
        groups: dict[tuple[Order, tuple[Cell, ...]], dict[int, tuple[Leaf, Leaf]]] = {}
        # Leaves that were attached since come first, so that the description of the object says so.
        for relation, leaf in sorted(self._leaves, key=lambda item: item[1].top is not None):
            if leaf.top == self.at.horizon or (leaf.sweep is not None and leaf.sweep.below is None):
                continue
            own = relation.own_attnum(order.attnum) if order.attnum is not None else None
            states = self._fresh_states(leaf, leaf.order or dataclasses.replace(order, own=own))
            if states is not None:
                groups.setdefault(((leaf.order or order).of_root, difference(*states)), {})[relation.oid] = states
        for changed in groups.values():
            before, after = next(iter(changed.values()))
            alone = self._relation(*changed) if len(changed) == 1 else None
            region = ranges.region_of(self.at, alone, before, list(changed), self.at.horizon)
            region = dataclasses.replace(
                ranges.between(region, before, after), seed=self.at.watermark.seed if before.top is None else None
            )
            return Read(
                region,
                self.at.watermark.with_leaves({oid: state for oid, (_, state) in changed.items()}),
                kind="fresh",
                moves=self.at.tick.floors.get(order) is not None,
            )
        return None

    def _fresh_states(self, leaf: Leaf, order: Order) -> tuple[Leaf, Leaf] | None:
        """Return a leaf before and after its fresh read; None if it has no floor to start from."""
        wanted = self.at.tick.floors.get(order.of_root) or self._floor_of_others(order.of_root)
        top = fresh_floor(leaf)
        if wanted is None and top is None:
            return None
        divided = leaf if wanted is None else band_steps.split(leaf, order, wanted)
        if not divided.upper:
            return None
        start = divided.upper[-1].floor
        if top is not None and not self.at.tick.overflow:
            # Rows between the former floor and a higher one would wait for the sweep.
            start = min(top, start, key=order.key)
        if wanted is not None and not self.at.tick.overflow and leaf.swept is not None:
            start = min(start, wanted, key=order.key)
        if len(divided.upper) + 1 >= MAX_BANDS:
            start = min(start, band_steps.lowest_floor(divided), key=order.key)
        start = max(start, band_steps.lowest_floor(divided), key=order.key)
        after = band_steps.fresh(divided, start, self.at.horizon)
        return divided, after if wanted is None else band_steps.split(after, order, wanted)

    def _floor_of_others(self, order: Order) -> str | None:
        """The top floor of the leaves with an order, for those that were attached since."""
        if all(leaf.upper for _, leaf in self._leaves):
            return None
        return next((fresh_floor(leaf) for _, leaf in self._leaves if leaf.order and leaf.order.of_root == order), None)

    def _relation(self, oid: int) -> Relation:
        return next(item for item in self.at.table.relations if item.oid == oid)

    def part_of_sweep(self) -> Read | None:
        """Continue the first sweep in progress, within the budget."""
        for relation, leaf in self._leaves:
            if leaf.sweep is not None:
                return ranges.block_range(self.at, relation) if self._has_budget([relation], leaf) else None
        return None

    def _has_budget(self, relations: Sequence[Relation], leaf: Leaf) -> bool:
        if self.rules.complete or self.sweeps.urgent or leaf.swept is None or self._is_wide():
            return True
        blocks = min(self.at.chunk_blocks, sum(item.page_count for item in relations))
        spent_s = self.at.tick.sweep_s
        return not spent_s or spent_s + blocks * self.sweeps.block_us / 1e6 <= self.rules.chunk_s

    def _is_wide(self) -> bool:
        """Whether the window of the lowest band is so wide that only a sweep keeps transaction ids comparable."""
        lows = [leaf.swept for _, leaf in self._leaves if leaf.swept is not None]
        return any(self.at.horizon - low > HEARTBEAT_WIDTH for low in lows)

    def _due(self) -> bool:
        """Whether the next round of sweeps may begin."""
        if self.rules.complete or self.sweeps.urgent or self._is_wide():
            return True
        if any(leaf.swept is None for _, leaf in self._leaves):
            return True
        return self._seconds_left() <= 0

    def _seconds_left(self) -> float:
        leaves, period_s = [leaf for _, leaf in self._leaves], self.rules.period_s(self.at.sweep_s)
        return band_rules.seconds_to_sweep(leaves, self.sweeps, period_s, self.at.run.counted, self.at.run.now)

    def begin(self) -> Read | None:
        """Begin the next sweep of the rows below the top floor: the first of a round, or one that the round lacks."""
        if self._order() is None or self._gives_up():
            return None
        for upto, began_at, chosen in self._candidates():
            relations = [relation for relation, _ in chosen]
            leaf = chosen[0][1]
            if not self._has_budget(relations, leaf):
                return None
            divided = any(item.oid in self.at.tick.by_blocks for item in relations) or leaf.swept is None
            if divided or self.at.needs_ranges(relations):
                first = relations[0]
                began = band_steps.begin(leaf, first.relfilenode, first.page_count, began_at, upto)
                step = ranges.block_range(self.at, first, began)
                return dataclasses.replace(step, begins=upto == self.at.horizon)
            return self._whole_sweep(relations, leaf, upto, began_at)
        return None

    def _whole_sweep(self, relations: Sequence[Relation], leaf: Leaf, upto: int, began_at: str | None) -> Read:
        """Begin and end a sweep with one statement."""
        ranges.check_width(self.at, leaf.swept)
        after = band_steps.ended(band_steps.begin(leaf, relations[0].relfilenode, 0, began_at, upto))
        oids = [item.oid for item in relations]
        region = ranges.region_of(self.at, relations[0] if len(relations) == 1 else None, leaf, oids, upto)
        region = dataclasses.replace(
            ranges.between(region, leaf, after), seed=self.at.watermark.seed if leaf.swept is None else None
        )
        return Read(
            region,
            self.at.watermark.with_leaves(dict.fromkeys(oids, after)),
            kind="sweep",
            begins=upto == self.at.horizon,
            ends=True,
            blocks=sum(item.page_count for item in relations),
        )

    def _candidates(self) -> Iterator[tuple[int, str | None, list[tuple[Relation, Leaf]]]]:
        """Yield the sweeps that may begin: up to which transaction, when that was the horizon, and of which leaves."""
        banded = [(item, leaf) for item, leaf in self._leaves if leaf.upper and leaf.top is not None]
        lows = {leaf.swept for _, leaf in banded}
        known = [(leaf.swept, leaf.swept_at) for _, leaf in banded if leaf.swept is not None]
        upto, began_at = max(known, key=lambda item: item[0], default=(self.at.horizon, None))
        if len(lows) <= 1 or None in lows:
            if not self._due() or not self._at_horizon():
                return
            upto, began_at = self.at.horizon, self.at.swept_at
        groups: dict[Leaf, list[tuple[Relation, Leaf]]] = {}
        for item, leaf in banded:
            if (leaf.swept or 0) < upto and (None not in lows or leaf.swept is None):
                groups.setdefault(leaf, []).append((item, leaf))
        for chosen in groups.values():
            # A part of the leaves is not read through the root, which would scan all of them.
            together = len(chosen) == len(self._leaves) and not self.at.needs_ranges([item for item, _ in chosen])
            yield upto, began_at, chosen if together else chosen[:1]

    def whole(self) -> Read | None:
        """Read a table that has no usable order completely, by the schedule of its sweeps."""
        if unread := ranges.first_load(self.at):
            return unread
        usable = self._order() is not None and not self._gives_up()
        if usable or not self._due() or not self._has_budget(self.at.table.relations, Leaf(0)):
            return None
        return ranges.window(self.at)

    def waiting(self) -> Quiet | None:
        """Return that only the budget or the schedule of the sweeps keeps the rest of the table from being read."""
        if all(leaf.swept == self.at.horizon for _, leaf in self._leaves):
            return None
        left_s = max(0.0, self._seconds_left())
        when = f"the next sweep begins in {left_s:.0f} s" if left_s else "the sweep goes on in the next tick"
        return Quiet(f"no row with one of the newest values since {self.at.horizon}; {when}", partial=True)


def _same(order: Order, other: Order) -> bool:
    """Return whether two orders are the same; a timestamp may have gained or lost its time zone."""
    return (order.attnum, order.relfilenode) == (other.attnum, other.relfilenode)
