import dataclasses
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pg_bronze.core.leaf import Band, Leaf, Order, Sweep
from pg_bronze.core.next_read import COMMIT_AFTER_S, Doubt, NewGeneration, Quiet, Read, Run, TickState
from pg_bronze.core.planning import due_for_heartbeat, is_load_range, plan, ranges_after
from pg_bronze.core.ranges import HEARTBEAT_WIDTH
from pg_bronze.core.region import Region
from pg_bronze.core.slice_size import LINES_PER_BLOCK, SliceSize
from pg_bronze.core.watermark import Seed
from pg_bronze.core.window_sql import MAX_WIDTH
from pg_bronze.errors import HistoryChanged, OperatorError, StaleSnapshot
from pg_bronze_tests.core.test_cells import ROWS, in_cells, is_delivered
from pg_bronze_tests.core.test_cells import states as band_states
from pg_bronze_tests.harness.literals import mark, sized_table

SMALL = SliceSize(row_limit=100, byte_limit=2**20, blocks=10)


def planned(watermark, of, horizon=70, standby=False, size=SMALL, tick=None, run=None):
    return plan(watermark, of, horizon, standby, size, tick or TickState(), run or Run())


def test_a_quiet_table_reports_the_horizon_it_is_copied_up_to():
    assert planned(mark({9: Leaf(70)}), sized_table(3)) == Quiet("no transaction finished since 70")


def test_a_table_without_partitions_is_quiet():
    assert planned(mark(), sized_table()) == Quiet("it has no partitions yet")


def test_a_small_first_load_is_one_read():
    region = Region("public", "movie", True, (9,), None, 70)
    assert planned(mark(), sized_table(10)) == Read(region, mark({9: Leaf(70)}))


def test_small_unread_leaves_are_read_together_up_to_the_size_of_a_slice():
    """Hundreds of small partitions would otherwise take hundreds of reads and objects."""
    first = planned(mark(), sized_table(3, 0, 5, 4))
    assert (first.region.leaves, first.region.only, first.region.blocks) == ((10, 11, 12), False, None)
    assert planned(first.after, sized_table(3, 0, 5, 4)).region.leaves == (13,)
    assert planned(mark(), sized_table(3, 0, 5, 4), tick=TickState(frozenset({10}))).region.leaves == (10,)


def test_a_large_first_load_is_read_in_block_ranges():
    step = planned(mark(), sized_table(11))
    assert step.region.blocks == (0, 10)
    assert step.after.leaf(9) == Leaf(None, sweep=Sweep(upto=70, block=10, relfilenode=1))
    assert not step.must_commit


def test_a_pending_window_keeps_the_horizon_it_started_with():
    """Its first blocks were read up to that horizon, so a later one would leave a gap in them."""
    step = planned(mark({9: Leaf(50, sweep=Sweep(60, 10, 1))}), sized_table(25), horizon=99)
    assert (step.region.start, step.region.end, step.region.blocks) == (50, 60, (10, 20))
    assert step.after.leaf(9) == Leaf(50, sweep=Sweep(60, 20, 1))


LOADING = Leaf(None, sweep=Sweep(60, 10, 1))


@pytest.mark.parametrize("state", [LOADING, Leaf()])
def test_a_first_load_gives_way_after_its_turn(state):
    """One large table would otherwise occupy a run until it is loaded, and get no new rows."""
    late = TickState(loading_s=61.0)
    assert planned(mark({9: state}), sized_table(25), tick=late, run=Run(turn_s=60.0)).partial
    assert isinstance(planned(mark({9: state}), sized_table(25), tick=TickState(), run=Run(turn_s=0.0)), Read)
    assert isinstance(planned(mark({9: state}), sized_table(25), tick=late, run=Run(turn_s=None)), Read)
    assert isinstance(planned(mark({9: state}), sized_table(25), tick=late, run=Run(turn_s=61.0)), Read)


@pytest.mark.parametrize("leaf", [Leaf(50), Leaf(50, sweep=Sweep(60, 10, 1)), Leaf()])
def test_a_table_gives_way_after_its_share_of_a_run(leaf):
    """The other tables of the run would wait until millions of changed rows are copied."""
    late, state = TickState(copying_s=11.0), mark({9: leaf})
    quiet = planned(state, sized_table(25), tick=late, run=Run(share_s=10.0))
    assert quiet == Quiet(
        "its copy took more than 10 s and goes on in the next tick, apart from the other tables", partial=True
    )
    for tick, share_s in ((late, None), (late, 11.0), (TickState(), 0.0)):
        assert isinstance(planned(state, sized_table(25), tick=tick, run=Run(share_s=share_s)), Read)


def test_only_a_first_load_gives_way():
    """A window of a table that is copied has a horizon, which its next run would read again."""
    window = mark({9: Leaf(50, sweep=Sweep(60, 10, 1))})
    late = TickState(loading_s=61.0)
    assert isinstance(planned(window, sized_table(25), tick=late, run=Run(turn_s=60.0)), Read)


@pytest.mark.parametrize("pages", [0, 20, 25, 30])
def test_the_last_range_is_open_ended_because_a_table_grows_while_it_is_read(pages):
    step = planned(mark({9: Leaf(50, sweep=Sweep(60, 20, 1))}), sized_table(pages), horizon=99)
    assert step.region.blocks == (20, None)
    assert step.after.leaf(9) == Leaf(60)
    assert step.must_commit


def test_an_ordinary_window_is_one_read():
    step = planned(mark({9: Leaf(50)}), sized_table(100_000))
    assert (step.region, step.after) == (Region("public", "movie", True, (9,), 50, 70), mark({9: Leaf(70)}))


def test_a_window_with_too_many_rows_is_read_in_block_ranges():
    step = planned(mark({9: Leaf(50)}), sized_table(100), tick=TickState(by_blocks=frozenset({9})))
    assert (step.region.start, step.region.blocks) == (50, (0, 10))
    assert step.after.leaf(9) == Leaf(50, sweep=Sweep(70, 10, 1))


def test_a_small_first_load_with_too_many_rows_is_read_in_block_ranges():
    step = planned(mark(), sized_table(3), size=SMALL.halved(3), tick=TickState(by_blocks=frozenset({9})))
    assert step.region.blocks == (0, 1)


def test_a_block_that_exceeds_a_slice_is_read_in_ranges_of_line_pointers():
    """Its rows may point to any amount of TOAST data."""
    inside = dataclasses.replace(SMALL, blocks=1, lines=100)
    pending = mark({9: Leaf(50, sweep=Sweep(60, 3, 1))})

    first = planned(pending, sized_table(25), horizon=99, size=inside)
    second = planned(first.after, sized_table(25), horizon=99, size=inside)
    last = planned(second.after, sized_table(25), horizon=99, size=inside)

    assert [(step.region.blocks, step.region.lines) for step in (first, second, last)] == [
        ((3, 3), (0, 100)),
        ((3, 3), (100, 200)),
        ((3, 4), (200, 0)),
    ]
    assert first.after.leaf(9) == Leaf(50, sweep=Sweep(60, 3, 1, line=100))
    assert last.after.leaf(9) == Leaf(50, sweep=Sweep(60, 4, 1))


def test_a_range_that_starts_inside_a_block_may_end_with_the_table():
    step = planned(mark({9: Leaf(50, sweep=Sweep(60, 3, 1, line=7))}), sized_table(5), horizon=99)
    assert (step.region.blocks, step.region.lines) == ((3, None), (7, 0))
    assert step.after.leaf(9) == Leaf(60)
    assert step.must_commit


def test_a_long_empty_stretch_is_committed():
    """A crash at its end would otherwise start the whole table again."""
    step = SliceSize(100, 1, 10)
    before = planned(mark(), sized_table(5000), size=step, tick=TickState(uncommitted_s=COMMIT_AFTER_S - 0.1))
    assert not before.must_commit
    assert planned(mark(), sized_table(5000), size=step, tick=TickState(uncommitted_s=COMMIT_AFTER_S)).must_commit


def test_a_rewrite_of_a_pending_table_puts_rows_of_its_window_in_doubt():
    pending = mark({9: Leaf(50, sweep=Sweep(60, 10, 1))})
    step = planned(pending, sized_table(25, node=2))
    region = Region("public", "movie", True, (9,), 50, 60)
    reason = "movie was rewritten while it was being read in block ranges"
    assert step == Doubt(region, mark({9: Leaf(60)}), reason)


def test_a_rewrite_of_any_other_table_changes_nothing():
    assert planned(mark({9: Leaf(50)}), sized_table(3, node=2)) == planned(mark({9: Leaf(50)}), sized_table(3))


def test_a_rewrite_of_a_second_pending_leaf_is_detected_immediately():
    leaves = {10: Leaf(sweep=Sweep(60, 10, 1)), 11: Leaf(sweep=Sweep(60, 10, 3))}
    assert isinstance(planned(mark(leaves), sized_table(25, 25)), Doubt)


def test_another_table_behind_the_name_is_a_new_generation():
    step = planned(mark({9: Leaf(70)}), sized_table(3, oid=12))
    assert isinstance(step, NewGeneration)
    assert "oid 12, previously 9" in step.reason


def test_leaves_with_the_same_state_are_read_together_through_the_root():
    step = planned(mark({10: Leaf(50), 11: Leaf(50)}), sized_table(3, 4))
    assert step.region == Region("public", "movie", False, (10, 11), 50, 70)
    assert step.after == mark({10: Leaf(70), 11: Leaf(70)})


def test_leaves_with_different_states_are_read_separately():
    before = mark({10: Leaf(50), 11: Leaf(40), 12: Leaf(50)})
    step = planned(before, sized_table(3, 4, 5))
    assert (step.region.leaves, step.region.start) == ((10, 12), 50)
    step = planned(step.after, sized_table(3, 4, 5))
    assert (step.region.leaves, step.region.start) == ((11,), 40)
    assert isinstance(planned(step.after, sized_table(3, 4, 5)), Quiet)


def test_an_unknown_leaf_is_a_separate_first_load():
    """If it were read with the others, every row older than their watermark would be lost."""
    step = planned(mark({10: Leaf(50)}), sized_table(3, 4))
    assert step.region == Region("public", "movie_1", True, (11,), None, 70)
    assert step.after == mark({10: Leaf(50), 11: Leaf(70)})


def test_pending_leaves_precede_new_leaves_and_both_precede_the_others():
    before = mark({10: Leaf(50), 12: Leaf(50, sweep=Sweep(60, 10, 1))})
    assert planned(before, sized_table(3, 4, 25)).region.leaves == (12,)


def test_only_a_leaf_with_too_many_rows_is_read_in_block_ranges():
    before = mark({10: Leaf(50), 11: Leaf(50)})
    step = planned(before, sized_table(3, 40), tick=TickState(by_blocks=frozenset({11})))
    assert (step.region.name, step.region.only, step.region.blocks) == ("movie_1", True, (0, 10))


def test_an_empty_leaf_counts_as_one_block():
    """A thousand empty partitions would otherwise be read in one query."""
    step = planned(mark(), sized_table(0, 0, 0), size=SliceSize(100, 1, 2))
    assert step.region.leaves == (10, 11)


@pytest.mark.parametrize(
    "pending, must_commit", [(None, False), (Sweep(60, 0, 1, line=1), True), (Sweep(60, 1, 1), True)]
)
def test_the_end_of_a_window_is_committed_only_after_an_earlier_range(pending, must_commit):
    """Objects of earlier ranges need an end; a window of one empty range needs no object."""
    step = planned(mark({9: Leaf(50, sweep=pending)}), sized_table(3), tick=TickState(by_blocks=frozenset({9})))
    assert step.region.blocks[1] is None
    assert step.must_commit == must_commit


def test_the_width_of_a_pending_window_counts_from_its_start():
    leaf = Leaf(50, sweep=Sweep(60, 10, 1))
    with pytest.raises(OperatorError, match=f"movie: {MAX_WIDTH} transactions have finished"):
        planned(mark({9: leaf}), sized_table(30), horizon=50 + MAX_WIDTH)


def test_a_detached_leaf_keeps_its_entry():
    """After ATTACH it continues where it was; a first load would copy every row twice."""
    before = mark({10: Leaf(50), 11: Leaf(60)})
    step = planned(before, sized_table(3, partitioned=True))
    assert step.after == mark({10: Leaf(70), 11: Leaf(60)})
    again = planned(step.after, sized_table(3, 4))
    assert (again.region.leaves, again.region.start) == ((11,), 60)


def test_a_detached_pending_leaf_does_not_block_the_others():
    before = mark({10: Leaf(50), 11: Leaf(sweep=Sweep(60, 10, 1))})
    assert planned(before, sized_table(3, partitioned=True, node=2)).region.leaves == (10,)


@pytest.mark.parametrize("standby, error", [(False, HistoryChanged), (True, StaleSnapshot)])
def test_a_horizon_below_the_watermark_stops_a_primary_and_is_retried_on_a_standby(standby, error):
    with pytest.raises(error, match=r"movie: the horizon is 69, below 70") as raised:
        planned(mark({9: Leaf(70)}), sized_table(3), horizon=69, standby=standby)
    assert ("pg-bronze reset movie" in str(raised.value)) == (not standby)


def test_a_window_of_the_maximum_width_is_read_and_a_wider_one_stops_the_table():
    """PostgreSQL reuses transaction ids, so a wider window would contain other rows."""
    assert isinstance(planned(mark({9: Leaf(50)}), sized_table(3), horizon=50 + MAX_WIDTH - 1), Read)
    with pytest.raises(OperatorError, match="pg-bronze reset movie"):
        planned(mark({9: Leaf(50)}), sized_table(3), horizon=50 + MAX_WIDTH)


@pytest.mark.parametrize("leaf", [Leaf(50, sweep=Sweep(60, 10, 1)), Leaf(None, sweep=Sweep(60, 10, 1))])
def test_a_pending_window_that_is_too_wide_stops_the_table(leaf):
    """In a partition that was detached half read and attached years later, ages do not tell old ids from new ones."""
    assert isinstance(planned(mark({9: leaf}), sized_table(30), horizon=50 + MAX_WIDTH - 1), Read)
    with pytest.raises(OperatorError, match="pg-bronze reset movie"):
        planned(mark({9: leaf}), sized_table(30), horizon=60 + MAX_WIDTH)


def test_a_quiet_table_is_due_for_a_heartbeat_before_its_window_is_too_wide():
    assert not due_for_heartbeat(mark({9: Leaf(50)}), sized_table(1), 50 + HEARTBEAT_WIDTH)
    assert due_for_heartbeat(mark({9: Leaf(50)}), sized_table(1), 51 + HEARTBEAT_WIDTH)
    assert not due_for_heartbeat(mark(), sized_table(1), 2**40)
    assert HEARTBEAT_WIDTH < MAX_WIDTH


def test_a_detached_partition_does_not_require_a_heartbeat():
    """No read closes its window while it is detached, so an empty object would be written every tick."""
    assert not due_for_heartbeat(mark({10: Leaf(2**31), 77: Leaf(50)}), sized_table(1, 1), 2**31)


def test_a_seed_restricts_first_loads_only():
    seed = Seed(1, "500")
    assert planned(mark(seed=seed), sized_table(3)).region.seed == seed
    assert planned(mark(seed=seed), sized_table(30)).region.seed == seed
    assert planned(mark({9: Leaf(50)}, seed=seed), sized_table(3)).region.seed is None
    later = {9: Leaf(50, sweep=Sweep(60, 10, 1))}
    assert planned(mark(later, seed=seed), sized_table(30)).region.seed is None


POINTS = [
    SimpleNamespace(leaf=leaf, xid=xid, place=(block, line))
    for leaf in (10, 11)
    for xid in range(4)
    for block in range(5)
    for line in (1, 2)
]


def delivered(watermark):
    """The delivered points, by the definition in ``docs/architecture.md``."""

    def of(leaf, point):
        sweep = leaf.sweep
        return (leaf.swept is not None and point.xid < leaf.swept) or (
            sweep and point.place < sweep.position and point.xid < sweep.upto
        )

    return {n for n, point in enumerate(POINTS) if of(watermark.leaf(point.leaf), point)}


def selected(region):
    """The points that the SQL of ``window_sql.where`` selects."""

    def chosen(point):
        first, last = region.blocks or (0, None)
        return (
            point.leaf in region.leaves
            and (region.start is None or point.xid >= region.start)
            and point.xid < region.end
            and (first, region.lines[0]) <= point.place
            and (last is None or point.place < (last, region.lines[1]))
        )

    return {n for n, point in enumerate(POINTS) if chosen(point)}


@st.composite
def leaves(draw):
    swept, sweep = draw(st.none() | st.integers(0, 3)), None
    if draw(st.booleans()):
        sweep = Sweep(draw(st.integers(swept or 0, 4)), draw(st.integers(0, 5)), 1, draw(st.integers(0, 3)))
    return Leaf(swept, sweep)


sizes = st.builds(SliceSize, st.just(1), st.just(1), st.integers(1, 6)) | st.builds(
    SliceSize, st.just(1), st.just(1), st.just(1), st.sampled_from([1, 2, 3, LINES_PER_BLOCK - 1])
)


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from([10, 11]), leaves()), st.data())
def test_every_read_delivers_new_rows_and_all_reads_deliver_every_row(state, data):
    """A point read twice is a row copied twice; a point never read is a lost row."""
    watermark, horizon, by_blocks = mark(state), 4, frozenset()
    pages = data.draw(st.tuples(st.integers(0, 5), st.integers(0, 5)))
    for turn in range(80):
        size = data.draw(sizes) if turn < 40 else SMALL
        by_blocks |= data.draw(st.frozensets(st.sampled_from([10, 11])))
        step = planned(watermark, sized_table(*pages), horizon, size=size, tick=TickState(by_blocks))
        if isinstance(step, Quiet):
            break
        before, region = delivered(watermark), selected(step.region)
        assert not before & region
        assert delivered(step.after) == before | region
        watermark = step.after
    assert delivered(watermark) == set(range(len(POINTS)))


@settings(max_examples=40)
@given(band_states(), st.integers(0, 4), st.data())
def test_a_leaf_with_bands_is_copied_completely_into_one_band(state, pages, data):
    """No plan divides a table yet, but a state with bands is read for what it says."""
    if state.order is not None and state.order.attnum is not None:
        state = dataclasses.replace(state, order=dataclasses.replace(state.order, type="int4"))
    watermark, horizon, by_blocks = mark({9: state}), 106, frozenset()
    seen = {n for n, row in enumerate(ROWS) if is_delivered(state, row)}
    for turn in range(40):
        size = data.draw(sizes) if turn < 10 else SMALL
        by_blocks |= data.draw(st.frozensets(st.just(9)))
        step = planned(watermark, sized_table(pages), horizon, size=size, tick=TickState(by_blocks))
        if isinstance(step, Quiet):
            break
        read = {n for n, row in enumerate(ROWS) if in_region(step.region, row)}
        assert not read & seen, "read twice"
        seen |= read
        watermark = step.after
        assert seen == {n for n, row in enumerate(ROWS) if is_delivered(watermark.leaf(9), row)}
    assert seen == set(range(len(ROWS)))
    assert watermark.leaf(9) == Leaf(106)


def in_region(region, row):
    first, last = region.blocks or (0, None)
    return (
        (region.start is None or row.xid >= region.start)
        and row.xid < region.end
        and row.place >= (first, region.lines[0])
        and (last is None or row.place < (last, region.lines[1]))
        and (not region.cells or in_cells(region.cells, region.order, row))
    )


def test_lost_bands_put_the_rows_in_doubt_that_only_some_bands_had_delivered():
    """A row that was delivered with one band would be read again with another."""
    by_column = Leaf(50, None, Order(1, "int8"), (Band("5", 60),))
    assert "lost the column" in planned(mark({9: by_column}), sized_table(3)).reason
    by_blocks = Leaf(50, None, Order(relfilenode=1), (Band("5", 60),))
    assert isinstance(planned(mark({9: by_blocks}), sized_table(3)), Read)
    lost = planned(mark({9: by_blocks}), sized_table(3, node=2))
    assert (lost.region.start, lost.region.end, lost.after.leaf(9)) == (50, 60, Leaf(60))


def test_lost_bands_that_were_delivered_equally_far_put_no_row_in_doubt():
    by_blocks = Leaf(60, None, Order(relfilenode=1), (Band("5", 60),))
    step = planned(mark({9: by_blocks}), sized_table(3, node=2))
    assert (step.region.start, step.region.end, step.region.cells) == (60, 70, ())


def ranges_of(watermark, of, tick=None, run=None, **others):
    def after(mark):
        return planned(mark, of, tick=tick, run=run, **others)

    first = after(watermark)
    return [first, *ranges_after(first, after)]


def test_the_ranges_of_a_first_load_can_be_planned_before_any_is_read():
    steps = ranges_of(mark(), sized_table(25))
    assert [step.region.blocks for step in steps] == [(0, 10), (10, 20), (20, None)]
    assert {step.region.end for step in steps} == {70}
    assert steps[-1].after.leaf(9) == Leaf(70)


def test_the_ranges_of_the_next_partition_follow_those_of_the_first():
    steps = ranges_of(mark(), sized_table(15, 12))
    assert [(step.region.leaves, step.region.blocks) for step in steps] == [
        ((10,), (0, 10)), ((10,), (10, None)), ((11,), (0, 10)), ((11,), (10, None)),
    ]  # fmt: skip


def test_a_part_of_a_window_or_of_a_block_is_not_read_ahead():
    """Rows of a copied table are few, and a row in a range of lines may be as large as a slice."""
    assert not is_load_range(planned(mark({9: Leaf(50, sweep=Sweep(60, 10, 1))}), sized_table(25)))
    assert not is_load_range(planned(mark(), sized_table(10)))
    of_lines = dataclasses.replace(SMALL, blocks=1, lines=4)
    assert not is_load_range(planned(mark(), sized_table(25), size=of_lines, tick=TickState(frozenset({9}))))
    assert not is_load_range(Quiet("no transaction finished since 70"))


def test_a_range_that_is_being_read_keeps_its_size():
    """The size changes with every read, and the ranges that are being read would be read again."""
    pending = mark({9: Leaf(None, sweep=Sweep(70, 10, 1))})
    step = planned(pending, sized_table(55), size=dataclasses.replace(SMALL, blocks=40), tick=TickState(range_blocks=5))
    assert (step.region.blocks, step.blocks) == ((10, 15), 5)


def test_ranges_that_would_begin_after_the_turn_of_a_load_are_not_read_ahead():
    tick, run = TickState(loading_s=61.0), Run(turn_s=60.0)
    pending = mark({9: Leaf(None, sweep=Sweep(70, 10, 1))})
    first = planned(pending, sized_table(55))
    assert list(ranges_after(first, lambda at: planned(at, sized_table(55), tick=tick, run=run))) == []


@given(st.integers(11, 60), st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_ranges_of_any_sizes_cover_each_block_once(pages, sizes):
    """Each is planned with the size of the one that is being read, whatever was found since."""
    watermark, found = mark(), []
    for number in range(100):
        step = planned(
            watermark, sized_table(pages), tick=TickState(frozenset({9}), range_blocks=sizes[number % len(sizes)])
        )
        if not is_load_range(step):
            break
        found.append(step.region.blocks)
        watermark = step.after
    assert found[0][0] == 0
    assert [end for _, end in found[:-1]] == [first for first, _ in found[1:]]
    assert found[-1][1] is None
