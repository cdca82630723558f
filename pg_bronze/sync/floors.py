"""Floors: asks the source where the newest rows of a table begin, in the order that divides them."""

from collections.abc import Mapping
from typing import Any

from pg_bronze.core import band_rules, floor_sql
from pg_bronze.core.band_rules import BandRules
from pg_bronze.core.leaf import Order
from pg_bronze.core.next_read import FindFloor
from pg_bronze.core.table import SourceTable, literal, quote
from pg_bronze.postgres.connection import Source

# A sequential scan of so few blocks is no sign of an index that cannot be used.
FEW_BLOCKS = 1000


def find(source: Source, table: SourceTable, step: FindFloor, rules: BandRules | None) -> str | None:
    """Return a floor; None if there is none, or if PostgreSQL would not use an index to read the rows above it."""
    order = step.order
    if order.attnum is None:
        pages = table.relations[0].page_count
        return str(pages) if step.newest else band_rules.block_floor(pages, source.server_version)
    rank = (rules or BandRules()).rank
    query = floor_sql.newest(table, order) if step.newest else floor_sql.at_rank(table, order, rank)
    found = source.ask(query)
    if not found:
        return None
    floor = str(found[0][0])
    return floor if step.newest or _uses_index(source, table, order, floor) else None


def _uses_index(source: Source, table: SourceTable, order: Order, floor: str) -> bool:
    large = {(item.schema, item.name) for item in table.relations if item.page_count > FEW_BLOCKS}
    if not large:
        return True
    only = "" if table.partitioned else "only "
    condition = f"t.{quote(table.names_by_attnum[order.attnum or 0])} > {literal(floor)}"
    options = "format json, costs off, verbose"
    answer = source.ask(f"explain ({options}) select 1 from {only}{table.sql} t where {condition}")
    scanned = {
        (node["Schema"], node["Relation Name"])
        for node in _nodes(answer[0][0][0]["Plan"])
        if node["Node Type"] == "Seq Scan"
    }
    return not scanned & large


def _nodes(node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    below = [found for child in node.get("Plans", ()) for found in _nodes(child)]
    return [node, *below]
