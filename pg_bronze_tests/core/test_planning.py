import dataclasses
import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pg_bronze.core.column_types import memory_bytes
from pg_bronze.core.planning import (
    BLOCK_BYTES,
    EMPTY_BLOCKS_PER_COMMIT,
    HEARTBEAT_WIDTH,
    LINES_PER_BLOCK,
    NewGeneration,
    Outlook,
    Quiet,
    Read,
    Sizing,
    certain,
    check_place,
    due_for_heartbeat,
    names_by_attnum,
    plan,
    sizing,
)
from pg_bronze.core.table import Column, Relation, SourceTable
from pg_bronze.core.watermark import Box, Leaf, Pending, Place, Seed, Watermark
from pg_bronze.core.window_sql import MAX_WIDTH, Region
from pg_bronze.errors import HistoryChanged, OperatorError, StaleSnapshot

PLACE = Place("7", 1, "0/FF", 5, "bronze")
SMALL = Sizing(row_limit=100, byte_limit=2**20, blocks=10)


def table(*pages, oid=9, partitioned=None, rows=0.0, node=1):
    """A table with one file of each size, in blocks: leaves 10, 11, … of a partitioned one, or itself."""
    partitioned = len(pages) != 1 if partitioned is None else partitioned
    relations = tuple(
        Relation(10 + n if partitioned else oid, "public", f"movie_{n}" if partitioned else "movie", node, size, 0)
        for n, size in enumerate(pages)
    )
    column = Column(1, "movie_id", "integer", "int4", -1, not_null=True)
    return SourceTable(oid, "public", "movie", partitioned, None, (column,), (), relations, rows, None, "f")


def mark(leaves=None, **more):
    return Watermark(PLACE, 9, **more).with_leaves(leaves or {})


def planned(watermark, of, horizon=70, standby=False, size=SMALL, outlook=None):
    return plan(watermark, of, horizon, standby, size, outlook or Outlook())


def test_a_quiet_table_says_since_when():
    assert planned(mark({9: Leaf(70)}), table(3)) == Quiet("no transaction finished since 70")


def test_a_table_without_partitions_is_quiet():
    assert planned(mark(), table()) == Quiet("it has no partitions yet")


def test_a_small_first_load_is_one_read():
    region = Region("public", "movie", True, (9,), None, 70)
    assert planned(mark(), table(10)) == Read(region, mark({9: Leaf(70)}))


def test_small_leaves_never_read_are_one_read_as_far_as_they_fit():
    """Hundreds of partitions would be hundreds of objects, and a read each."""
    first = planned(mark(), table(3, 0, 5, 4))
    assert (first.region.leaves, first.region.only, first.region.blocks) == ((10, 11, 12), False, None)
    assert planned(first.after, table(3, 0, 5, 4)).region.leaves == (13,)
    assert planned(mark(), table(3, 0, 5, 4), outlook=Outlook(frozenset({10}))).region.leaves == (10,)


def test_a_large_first_load_goes_by_ranges_of_blocks():
    step = planned(mark(), table(11))
    assert step.region.blocks == (0, 10)
    assert step.after.leaf(9) == Leaf(None, pending=Pending(upto=70, block=10, relfilenode=1))
    assert not step.must_commit


def test_a_pending_window_goes_on_with_the_horizon_it_began_with():
    """Its first blocks were read below that horizon; a later one would leave a gap in them."""
    step = planned(mark({9: Leaf(50, pending=Pending(60, 10, 1))}), table(25), horizon=99)
    assert (step.region.start, step.region.end, step.region.blocks) == (50, 60, (10, 20))
    assert step.after.leaf(9) == Leaf(50, pending=Pending(60, 20, 1))


@pytest.mark.parametrize("pages", [0, 20, 25, 30])
def test_the_last_range_has_no_end_because_a_table_grows_while_it_is_read(pages):
    step = planned(mark({9: Leaf(50, pending=Pending(60, 20, 1))}), table(pages), horizon=99)
    assert step.region.blocks == (20, None)
    assert step.after.leaf(9) == Leaf(60)
    assert step.must_commit


def test_an_ordinary_window_is_one_read():
    region = Region("public", "movie", True, (9,), 50, 70)
    assert planned(mark({9: Leaf(50)}), table(100_000)) == Read(region, mark({9: Leaf(70)}))


def test_a_window_with_too_many_rows_goes_by_blocks():
    step = planned(mark({9: Leaf(50)}), table(100), outlook=Outlook(by_blocks=frozenset({9})))
    assert (step.region.start, step.region.blocks) == (50, (0, 10))
    assert step.after.leaf(9) == Leaf(50, pending=Pending(70, 10, 1))


def test_a_small_first_load_with_too_many_rows_goes_by_blocks():
    step = planned(mark(), table(3), size=SMALL.halved(3), outlook=Outlook(by_blocks=frozenset({9})))
    assert step.region.blocks == (0, 1)


def test_a_range_with_too_many_rows_is_halved_down_to_one_row():
    assert Sizing(100, 1, 8).halved(100) == Sizing(100, 1, 4)
    assert Sizing(100, 1, 8).halved(3) == Sizing(100, 1, 1)
    assert Sizing(100, 1, 1).halved(100) == Sizing(100, 1, 1, LINES_PER_BLOCK // 2)
    assert Sizing(100, 1, 8).halved(0) == Sizing(100, 1, 1, LINES_PER_BLOCK // 2)
    assert Sizing(100, 1, 1, 2).halved(100) == Sizing(100, 1, 1, 1)
    assert Sizing(100, 1, 1, 1).smallest
    assert not Sizing(100, 1, 1, 2).smallest
    assert not Sizing(100, 1, 1).smallest


def test_ranges_grow_while_they_come_back_nearly_empty():
    assert Sizing(100, 1, 8).after(24, 0).blocks == 16
    assert Sizing(100, 1, 8).after(25, 0).blocks == 8
    assert Sizing(100, 1, 60_000).after(0, 0).blocks == 64_000
    assert Sizing(100, 400, 8).after(24, 99).blocks == 16
    assert Sizing(100, 400, 8).after(24, 100).blocks == 8, "a few rows can fill a slice"


def test_ranges_inside_a_block_grow_to_whole_blocks_again():
    assert Sizing(100, 400, 1, 2).after(0, 0) == Sizing(100, 400, 1, 4)
    assert Sizing(100, 400, 1, LINES_PER_BLOCK // 2).after(0, 0) == Sizing(100, 400, 1, 0)


def test_a_block_that_holds_too_much_is_read_in_ranges_of_its_lines():
    """Its rows may point to any number of megabytes out of line."""
    inside = dataclasses.replace(SMALL, blocks=1, lines=100)
    pending = mark({9: Leaf(50, pending=Pending(60, 3, 1))})

    first = planned(pending, table(25), horizon=99, size=inside)
    second = planned(first.after, table(25), horizon=99, size=inside)
    last = planned(second.after, table(25), horizon=99, size=inside)

    assert [(step.region.blocks, step.region.lines) for step in (first, second, last)] == [
        ((3, 3), (0, 100)),
        ((3, 3), (100, 200)),
        ((3, 4), (200, 0)),
    ]
    assert first.after.leaf(9) == Leaf(50, pending=Pending(60, 3, 1, line=100))
    assert last.after.leaf(9) == Leaf(50, pending=Pending(60, 4, 1))


def test_a_range_that_begins_inside_a_block_may_end_with_the_table():
    step = planned(mark({9: Leaf(50, pending=Pending(60, 3, 1, line=7))}), table(5), horizon=99)
    assert (step.region.blocks, step.region.lines) == ((3, None), (7, 0))
    assert step.after.leaf(9) == Leaf(60)
    assert step.must_commit


def test_a_long_empty_stretch_is_committed():
    """A crash at its end would begin the whole table again."""
    step = Sizing(100, 1, 10)
    before = planned(mark(), table(5000), size=step, outlook=Outlook(uncommitted_blocks=EMPTY_BLOCKS_PER_COMMIT - 11))
    assert not before.must_commit
    now = planned(mark(), table(5000), size=step, outlook=Outlook(uncommitted_blocks=EMPTY_BLOCKS_PER_COMMIT - 10))
    assert now.must_commit


def test_a_rewrite_of_a_pending_table_is_a_new_generation():
    pending = mark({9: Leaf(50, pending=Pending(60, 10, 1))})
    step = planned(pending, table(25, node=2))
    assert step == NewGeneration("movie was rewritten while it was being read in block ranges")


def test_a_rewrite_of_any_other_table_changes_nothing():
    assert planned(mark({9: Leaf(50)}), table(3, node=2)) == planned(mark({9: Leaf(50)}), table(3))


def test_a_rewrite_of_a_second_pending_leaf_is_seen_at_once():
    leaves = {10: Leaf(pending=Pending(60, 10, 1)), 11: Leaf(pending=Pending(60, 10, 3))}
    assert isinstance(planned(mark(leaves), table(25, 25)), NewGeneration)


def test_another_table_behind_the_name_is_a_new_generation():
    step = planned(mark({9: Leaf(70)}), table(3, oid=12))
    assert isinstance(step, NewGeneration)
    assert "oid 12, before 9" in step.reason


def test_leaves_of_equal_state_are_one_read_through_the_root():
    step = planned(mark({10: Leaf(50), 11: Leaf(50)}), table(3, 4))
    assert step.region == Region("public", "movie", False, (10, 11), 50, 70)
    assert step.after == mark({10: Leaf(70), 11: Leaf(70)})


def test_leaves_of_different_state_are_read_apart():
    before = mark({10: Leaf(50), 11: Leaf(40), 12: Leaf(50)})
    step = planned(before, table(3, 4, 5))
    assert (step.region.leaves, step.region.start) == ((10, 12), 50)
    step = planned(step.after, table(3, 4, 5))
    assert (step.region.leaves, step.region.start) == ((11,), 40)
    assert isinstance(planned(step.after, table(3, 4, 5)), Quiet)


def test_an_unknown_leaf_is_a_first_load_of_its_own():
    """Read together with the others it would lose every row older than their watermark."""
    step = planned(mark({10: Leaf(50)}), table(3, 4))
    assert step.region == Region("public", "movie_1", True, (11,), None, 70)
    assert step.after == mark({10: Leaf(50), 11: Leaf(70)})


def test_a_pending_leaf_comes_before_a_new_one_and_both_before_the_rest():
    before = mark({10: Leaf(50), 12: Leaf(50, pending=Pending(60, 10, 1))})
    assert planned(before, table(3, 4, 25)).region.leaves == (12,)


def test_only_leaves_with_too_many_rows_go_by_blocks_alone():
    before = mark({10: Leaf(50), 11: Leaf(50)})
    step = planned(before, table(3, 40), outlook=Outlook(by_blocks=frozenset({11})))
    assert (step.region.name, step.region.only, step.region.blocks) == ("movie_1", True, (0, 10))


def test_a_detached_leaf_keeps_its_entry():
    """Attached again, it goes on where it was; as a first load it would double every row."""
    before = mark({10: Leaf(50), 11: Leaf(60)})
    step = planned(before, table(3, partitioned=True))
    assert step.after == mark({10: Leaf(70), 11: Leaf(60)})
    again = planned(step.after, table(3, 4))
    assert (again.region.leaves, again.region.start) == ((11,), 60)


def test_a_detached_leaf_that_was_pending_holds_nobody_up():
    before = mark({10: Leaf(50), 11: Leaf(pending=Pending(60, 10, 1))})
    assert planned(before, table(3, partitioned=True, node=2)).region.leaves == (10,)


@pytest.mark.parametrize("standby, error", [(False, HistoryChanged), (True, StaleSnapshot)])
def test_a_horizon_below_what_is_copied_stops_a_primary_and_postpones_a_standby(standby, error):
    with pytest.raises(error, match=r"movie: the horizon is 69, below 70") as raised:
        planned(mark({9: Leaf(70)}), table(3), horizon=69, standby=standby)
    assert ("pg-bronze reset movie" in str(raised.value)) == (not standby)


def test_a_window_just_narrow_enough_is_read_and_a_wider_one_stops():
    """PostgreSQL hands ids out again: a wider window would hold other rows than it says."""
    assert isinstance(planned(mark({9: Leaf(50)}), table(3), horizon=50 + MAX_WIDTH - 1), Read)
    with pytest.raises(OperatorError, match="pg-bronze reset movie"):
        planned(mark({9: Leaf(50)}), table(3), horizon=50 + MAX_WIDTH)


@pytest.mark.parametrize("leaf", [Leaf(50, pending=Pending(60, 10, 1)), Leaf(None, pending=Pending(60, 10, 1))])
def test_a_pending_window_that_lay_too_long_stops_too(leaf):
    """A partition detached half read comes back years later: its ages no longer tell old ids from new ones."""
    assert isinstance(planned(mark({9: leaf}), table(30), horizon=50 + MAX_WIDTH - 1), Read)
    with pytest.raises(OperatorError, match="pg-bronze reset movie"):
        planned(mark({9: leaf}), table(30), horizon=60 + MAX_WIDTH)


def test_a_quiet_table_is_due_for_a_heartbeat_long_before_that():
    assert not due_for_heartbeat(mark({9: Leaf(50)}), table(1), 50 + HEARTBEAT_WIDTH)
    assert due_for_heartbeat(mark({9: Leaf(50)}), table(1), 51 + HEARTBEAT_WIDTH)
    assert not due_for_heartbeat(mark(), table(1), 2**40)
    assert HEARTBEAT_WIDTH < MAX_WIDTH


def test_a_partition_detached_long_ago_asks_for_no_heartbeat():
    """Nothing closes its window while it is away: an empty object would be written every tick."""
    assert not due_for_heartbeat(mark({10: Leaf(2**31), 77: Leaf(50)}), table(1, 1), 2**31)


def test_a_seed_bounds_first_loads_only():
    seed = Seed(1, "500")
    assert planned(mark(seed=seed), table(3)).region.seed == seed
    assert planned(mark(seed=seed), table(30)).region.seed == seed
    assert planned(mark({9: Leaf(50)}, seed=seed), table(3)).region.seed is None
    later = {9: Leaf(50, pending=Pending(60, 10, 1))}
    assert planned(mark(later, seed=seed), table(30)).region.seed is None


def test_a_sweep_moves_a_box_along_and_leaves_its_floor():
    step = planned(mark({9: Leaf(50, Box(1, "7", 60))}), table(3))
    assert step.region.box == Box(1, "7", 60)
    assert step.after.leaf(9) == Leaf(70, Box(1, "7", 70))


def test_the_first_guess_follows_the_size_of_a_row():
    assert sizing(table(100, rows=8000), None, 2**25) == Sizing(327_680, 2**25, 4096)
    assert sizing(table(100, rows=8000), 50, 2**25) == Sizing(50, 2**25, 1)
    assert sizing(table(0), None, 2**25).row_limit == 2**25 // 100


def test_the_first_guess_of_blocks_counts_what_lies_out_of_line():
    """Measuring 4,096 blocks that point to 130 MB each would itself take hours."""
    wide = table(100, rows=8000)
    (relation,) = wide.relations
    wide = dataclasses.replace(wide, relations=(dataclasses.replace(relation, toast_page_count=100 * 1023),))
    assert sizing(wide, None, 2**25).blocks == 4


def test_the_first_guess_counts_columns_that_are_null():
    """1,600 of them take nothing in the table and 20 KB in memory."""
    wide = table(100, rows=8000)
    wide = dataclasses.replace(wide, columns=wide.columns * 1600)
    assert sizing(wide, None, 2**25).row_limit == 2**25 // (1600 * memory_bytes(wide.columns[:1]))


def test_only_a_small_table_without_values_out_of_line_is_certain_to_fit():
    region = Region("public", "movie", True, (9,), None, 70)
    assert certain(table(16), region, 2**25)
    assert not certain(table(17), region, 2**25)
    toasted = dataclasses.replace(table(1), relations=(Relation(9, "public", "movie", 1, 1, 1),))
    assert not certain(toasted, region, 2**25)


@given(
    pages=st.integers(0, 10**6),
    rows=st.floats(-1, 1e12) | st.just(math.inf),
    slice_rows=st.none() | st.integers(1, 10**6),
    slice_bytes=st.integers(1, 2**30),
)
def test_any_statistics_lead_to_a_guess_that_gets_on(pages, rows, slice_rows, slice_bytes):
    found = sizing(table(pages, rows=rows), slice_rows, slice_bytes)
    assert found.row_limit >= 1
    assert 1 <= found.blocks <= max(1, slice_bytes // BLOCK_BYTES)


def test_columns_are_named_by_attnum():
    assert names_by_attnum(table(3)) == {1: "movie_id"}


PLACES = {
    "bucket": ("other", "MINIO_BUCKET", "'bronze'.*'other'"),
    "system_id": ("8", "pg-bronze continue movie", "cluster 7.*8"),
    "database": (6, "PG_DB", "oid 5, this one is 6"),
    "timeline": (2, "pg-bronze continue movie", "timeline 1 to 2"),
    "lsn": ("0/FE", "pg-bronze continue movie", "position 0/FE, before 0/FF"),
}


@pytest.mark.parametrize("name", PLACES)
def test_another_place_stops_the_table_says_why_and_what_to_do(name):
    value, remedy, found = PLACES[name]
    with pytest.raises(HistoryChanged, match=f"(?s)movie: .*{found}") as raised:
        check_place(mark(), dataclasses.replace(PLACE, **{name: value}), "movie")
    assert remedy in str(raised.value)
    assert "pg-bronze reset movie" in str(raised.value)


@pytest.mark.parametrize("lsn", ["0/FF", "0/100", "1/0"])
def test_the_same_place_further_on_is_fine(lsn):
    check_place(mark(), dataclasses.replace(PLACE, lsn=lsn), "movie")


def test_a_log_position_is_a_number_and_not_a_text():
    later = dataclasses.replace(mark(), place=dataclasses.replace(PLACE, lsn="9/FFFFFFFF"))
    check_place(later, dataclasses.replace(PLACE, lsn="10/0"), "movie")
    with pytest.raises(HistoryChanged):
        check_place(later, dataclasses.replace(PLACE, lsn="9/FFFFFFFE"), "movie")


def test_a_standby_that_has_not_come_so_far_is_asked_again():
    with pytest.raises(StaleSnapshot, match="0/FE"):
        check_place(mark(), dataclasses.replace(PLACE, lsn="0/FE"), "movie", standby=True)


def test_a_standby_on_another_timeline_stops_all_the_same():
    with pytest.raises(HistoryChanged):
        check_place(mark(), dataclasses.replace(PLACE, lsn="0/FE", timeline=2), "movie", standby=True)


# What is delivered of a leaf, and what a read adds to it: every slice is new, and all together are everything.

POINTS = [
    SimpleNamespace(leaf=leaf, xid=xid, place=(block, line), cursor=cursor)
    for leaf in (10, 11)
    for xid in range(4)
    for block in range(5)
    for line in (1, 2)
    for cursor in (None, 1, 2)
]


def delivered(watermark):
    """D, as the design defines it."""

    def of(leaf, point):
        box, pending = leaf.box, leaf.pending
        return (
            (leaf.swept is not None and point.xid < leaf.swept)
            or (
                box
                and box.floor
                and point.cursor is not None
                and point.cursor > int(box.floor)
                and point.xid < box.upto
            )
            or (pending and point.place < pending.place and point.xid < pending.upto)
        )

    return {n for n, point in enumerate(POINTS) if of(watermark.leaf(point.leaf), point)}


def selected(region):
    """What ``window.where`` says in SQL."""

    def chosen(point):
        start, box = region.start, region.box
        if box and box.floor and point.cursor is not None and point.cursor > int(box.floor):
            start = box.upto
        first, last = region.blocks or (0, None)
        return (
            point.leaf in region.leaves
            and (start is None or point.xid >= start)
            and point.xid < region.end
            and (first, region.lines[0]) <= point.place
            and (last is None or point.place < (last, region.lines[1]))
        )

    return {n for n, point in enumerate(POINTS) if chosen(point)}


@st.composite
def leaves(draw):
    swept = draw(st.none() | st.integers(0, 3))
    box = pending = None
    if swept is not None and draw(st.booleans()):
        box = Box(1, draw(st.sampled_from([None, "1"])), draw(st.integers(swept, 4)))
    if draw(st.booleans()):
        upto = draw(st.integers(max(swept or 0, box.upto if box else 0), 4))
        pending = Pending(upto, draw(st.integers(0, 5)), 1, draw(st.integers(0, 3)))
    return Leaf(swept, box, pending)


sizes = st.builds(Sizing, st.just(1), st.just(1), st.integers(1, 6)) | st.builds(
    Sizing, st.just(1), st.just(1), st.just(1), st.sampled_from([1, 2, 3, LINES_PER_BLOCK - 1])
)


@given(st.dictionaries(st.sampled_from([10, 11]), leaves()), st.data())
def test_every_read_is_new_and_all_together_are_everything(state, data):
    """A point read twice is a doubled row; one that is passed over is lost."""
    watermark, horizon, by_blocks = mark(state), 4, frozenset()
    pages = data.draw(st.tuples(st.integers(0, 5), st.integers(0, 5)))
    for turn in range(80):
        size = data.draw(sizes) if turn < 40 else SMALL
        by_blocks |= data.draw(st.frozensets(st.sampled_from([10, 11])))
        step = planned(watermark, table(*pages), horizon, size=size, outlook=Outlook(by_blocks))
        if isinstance(step, Quiet):
            break
        before, region = delivered(watermark), selected(step.region)
        assert not before & region
        assert delivered(step.after) == before | region
        watermark = step.after
    assert delivered(watermark) == set(range(len(POINTS)))
