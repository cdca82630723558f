"""Lost state: the table was rewritten or altered, so that floors or places of a state mean other rows than before.

Belongs here: finding out from the catalog what is lost, and which rows are then in doubt: copied or not, nobody can
tell. Does not belong here: asking the server whether there are any (``sync``).
"""

import dataclasses
from collections.abc import Mapping

from pg_bronze.core import band_steps
from pg_bronze.core.leaf import Leaf
from pg_bronze.core.next_read import Doubt
from pg_bronze.core.region import Region, with_difference
from pg_bronze.core.table import Relation, SourceTable
from pg_bronze.core.watermark import Watermark


def check(watermark: Watermark, table: SourceTable) -> tuple[Watermark, Doubt | None]:
    """Return the watermark without what was lost and leaves no row in doubt, and the first doubt that remains.

    Rows are in doubt only if they are below a transaction that some of them were delivered up to. A rewrite that gives
    every row a new transaction id (TRUNCATE, most ALTER TABLE) leaves none; VACUUM FULL and CLUSTER keep the ids.
    """
    types = table.types_by_attnum
    settled: dict[int, Leaf] = {}
    for relation in table.relations:
        leaf = watermark.leaf(relation.oid)
        if leaf.holds(relation, types):
            continue
        before, after, reason = _lost(leaf, relation, types)
        whole = Region(relation.schema, relation.name, True, (relation.oid,), before.swept, 0)
        region = with_difference(whole, before, after)
        if region is not None:
            return watermark, Doubt(region, watermark.with_leaves({**settled, relation.oid: after}), reason)
        settled[relation.oid] = after
    return (watermark.with_leaves(settled) if settled else watermark), None


def _lost(leaf: Leaf, relation: Relation, types: Mapping[int, str]) -> tuple[Leaf, Leaf, str]:
    """Return a state that delivers nothing in doubt, one that delivers all of it, and what was lost."""
    if leaf.order is not None and not leaf.order.holds(relation, types):
        reason = f"{relation.name} lost the column or the blocks that divided its rows into bands"
        return Leaf(leaf.swept), Leaf(leaf.highest, swept_at=leaf.swept_at), reason
    reason = f"{relation.name} was rewritten while it was being read in block ranges"
    return dataclasses.replace(leaf, sweep=None), band_steps.ended(leaf), reason
