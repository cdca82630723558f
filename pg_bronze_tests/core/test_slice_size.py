import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pg_bronze.core.region import Region
from pg_bronze.core.row_width import min_row_bytes
from pg_bronze.core.slice_size import (
    BLOCK_BYTES,
    LINES_PER_BLOCK,
    SliceSize,
    certainly_fits,
    initial_size,
)
from pg_bronze.core.table import Relation
from pg_bronze_tests.harness.literals import sized_table


def test_a_range_that_exceeds_a_limit_is_halved_down_to_one_row():
    assert SliceSize(100, 1, 8).halved(100) == SliceSize(100, 1, 4)
    assert SliceSize(100, 1, 8).halved(3) == SliceSize(100, 1, 1)
    assert SliceSize(100, 1, 2).halved(2) == SliceSize(100, 1, 1)
    assert SliceSize(100, 1, 1, 3).halved(100) == SliceSize(100, 1, 1, 1)
    assert SliceSize(100, 1, 1).halved(100) == SliceSize(100, 1, 1, LINES_PER_BLOCK // 2)
    assert SliceSize(100, 1, 8).halved(0) == SliceSize(100, 1, 1, LINES_PER_BLOCK // 2)
    assert SliceSize(100, 1, 1, 2).halved(100) == SliceSize(100, 1, 1, 1)
    assert SliceSize(100, 1, 1, 1).is_single_row
    assert not SliceSize(100, 1, 1, 2).is_single_row
    assert not SliceSize(100, 1, 1).is_single_row


def test_ranges_grow_while_they_are_less_than_a_quarter_full():
    assert SliceSize(100, 1, 8).adjusted(24, 0).blocks == 16
    assert SliceSize(100, 1, 8).adjusted(25, 0).blocks == 8
    assert SliceSize(100, 1, 60_000).adjusted(0, 0).blocks == 64_000
    assert SliceSize(100, 400, 8).adjusted(24, 99).blocks == 16
    assert SliceSize(100, 400, 8).adjusted(24, 100).blocks == 8, "a few rows can fill a slice"


def test_the_rows_of_a_slice_grow_if_the_statistics_were_wrong_about_them():
    """After a large insert into a small table each slice had 1,000 to 4,000 rows, a hundredth of what fits."""
    size = initial_size(sized_table(10_000, rows=5_000), None, 2**25)
    first = size.row_limit
    for _ in range(20):
        size = size.adjusted(size.row_limit, 40 * size.row_limit)
    assert first == 2**25 // BLOCK_BYTES
    assert 2**25 // 4 <= 40 * size.row_limit <= 2**25 // 2
    configured = initial_size(sized_table(10_000, rows=5_000), 100, 2**25)
    assert configured.adjusted(100, 4000).row_limit == 100


def test_ranges_inside_a_block_grow_to_whole_blocks():
    assert SliceSize(100, 400, 1, 2).adjusted(0, 0) == SliceSize(100, 400, 1, 4)
    assert SliceSize(100, 400, 1, 100).adjusted(0, 0) == SliceSize(100, 400, 1, 200)
    assert SliceSize(100, 400, 1, LINES_PER_BLOCK // 2).adjusted(0, 0) == SliceSize(100, 400, 1, 0)


@pytest.mark.parametrize(
    "size, start, end",
    [
        (SliceSize(1, 1, 8), (3, 0), (11, 0)),
        (SliceSize(1, 1, 8), (3, 100), (11, 0)),
        (SliceSize(1, 1, 1, 100), (3, 0), (3, 100)),
        (SliceSize(1, 1, 1, 100), (3, LINES_PER_BLOCK - 101), (3, LINES_PER_BLOCK - 1)),
        (SliceSize(1, 1, 1, 100), (3, LINES_PER_BLOCK - 100), (4, 0)),
    ],
)
def test_a_range_ends_at_a_line_pointer_or_at_the_end_of_a_block(size, start, end):
    assert size.range_end(*start) == end


def test_the_initial_size_depends_on_the_size_of_a_row():
    assert initial_size(sized_table(100, rows=8000), None, 2**25) == SliceSize(
        327_680, 2**25, 3584, most_rows=2**25 // 24
    )
    assert initial_size(sized_table(100, rows=8000), 50, 2**25) == SliceSize(50, 2**25, 1, most_rows=50)
    assert initial_size(sized_table(1, rows=80), None, 2**25).row_limit == 327_680
    assert initial_size(sized_table(1, rows=1), None, 2**25).row_limit == 2**25 // BLOCK_BYTES


def test_the_initial_size_of_an_unknown_table_assumes_100_bytes_a_row():
    assert initial_size(sized_table(0), None, 2**25).row_limit == 2**25 // 100
    assert initial_size(sized_table(0, rows=8000), None, 2**25).row_limit == 2**25 // 100
    assert initial_size(sized_table(8), None, 2**25).row_limit == 2**25 // 100


@pytest.mark.parametrize("rows", [1_000, 8_000, 20_000])
@pytest.mark.parametrize("row_estimate_error", [0.9, 1.0, 1.1])
def test_a_range_of_rows_like_the_average_stays_within_the_limits(rows, row_estimate_error):
    """A full range exceeds its limit by a row in every second table: it is read, discarded and read again in halves."""
    size = initial_size(sized_table(100, rows=rows * row_estimate_error), None, 2**25)
    assert size.blocks * rows / 100 <= size.row_limit
    assert size.blocks * BLOCK_BYTES <= size.byte_limit
    assert size.blocks * BLOCK_BYTES >= size.byte_limit * 0.8 or size.blocks * rows / 100 >= size.row_limit * 0.75


def test_a_slice_may_have_at_least_1000_rows():
    assert initial_size(sized_table(100, rows=8000), None, 1).row_limit == 1000


def test_the_initial_number_of_blocks_accounts_for_toast():
    """Measuring 4,096 blocks that point to 130 MB each would take hours."""
    wide = sized_table(100, rows=8000)
    (relation,) = wide.relations
    wide = dataclasses.replace(wide, relations=(dataclasses.replace(relation, toast_page_count=100 * 1023),))
    assert initial_size(wide, None, 2**25).blocks == 3
    single = sized_table(1, rows=80)
    single = dataclasses.replace(single, relations=(dataclasses.replace(single.relations[0], toast_page_count=3),))
    assert initial_size(single, None, 2**25).blocks == 896


def test_the_initial_size_accounts_for_columns_that_are_null():
    """1,600 of them take no space in the table and 20 KB in memory."""
    wide = sized_table(100, rows=8000)
    wide = dataclasses.replace(wide, columns=wide.columns * 1600)
    assert initial_size(wide, None, 2**25).row_limit == 2**25 // (1600 * min_row_bytes(wide.columns[:1]))


def test_only_a_small_table_without_toast_certainly_fits():
    region = Region("public", "movie", True, (9,), None, 70)
    assert certainly_fits(sized_table(16), region, 2**25)
    assert not certainly_fits(sized_table(17), region, 2**25)
    assert certainly_fits(sized_table(1), region, BLOCK_BYTES * 255)
    assert not certainly_fits(sized_table(1), region, BLOCK_BYTES * 255 - 1)
    toasted = dataclasses.replace(sized_table(1), relations=(Relation(9, "public", "movie", 1, 1, 1),))
    assert not certainly_fits(toasted, region, 2**25)


@given(
    pages=st.integers(0, 10**6),
    rows=st.floats(-1, 1e12) | st.just(math.inf),
    slice_rows=st.none() | st.integers(1, 10**6),
    slice_bytes=st.integers(1, 2**30),
)
def test_any_statistics_result_in_a_usable_size(pages, rows, slice_rows, slice_bytes):
    size = initial_size(sized_table(pages, rows=rows), slice_rows, slice_bytes)
    assert size.row_limit >= 1
    assert 1 <= size.blocks <= max(1, slice_bytes // BLOCK_BYTES)
