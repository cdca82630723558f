"""The expected cost of reads."""

from pg_bronze.core import table_costs
from pg_bronze.core.band_rules import BandRules, Sweeps
from pg_bronze.core.table import Relation, SourceTable


def table(pages: int, rows: float = 0.0) -> SourceTable:
    relation = Relation(1, "public", "movie", 1, pages, pages // 10)
    return SourceTable(1, "public", "movie", False, None, (), (), (relation,), rows, None, "")


def test_a_small_table_is_swept_in_every_tick():
    costs = table_costs.of_table(table(100), None, BandRules(), ordered=True)

    assert costs.fresh == costs.sweep
    assert costs.sweep_every_s == 0
    assert costs.first_load.size_bytes == 110 * 8192


def test_a_fresh_read_of_a_large_table_reads_a_part_of_it_if_an_order_finds_new_rows():
    large = table(1_000_000, 50_000_000)

    ordered, other = (table_costs.of_table(large, None, BandRules(), ordered=found) for found in (True, False))

    assert ordered.fresh.size_bytes < ordered.sweep.size_bytes / 1000
    assert ordered.sweep_every_s == ordered.sweep.seconds * 100
    assert other.fresh == other.sweep


def test_a_measured_sweep_replaces_the_estimate():
    """A table that is not in the cache of the server takes many times as long."""
    measured = table_costs.of_table(table(1_000_000), Sweeps(block_us=80.0), BandRules(), ordered=True)

    assert measured.sweep.seconds == 80.0
