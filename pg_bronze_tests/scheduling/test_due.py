from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pg_bronze.core.band_rules import BandRules, Sweeps
from pg_bronze.core.leaf import Band, Leaf, Order, Sweep
from pg_bronze.core.ranges import HEARTBEAT_WIDTH
from pg_bronze.core.watermark import ControlVersion, Origin, Watermark
from pg_bronze.scheduling.due import (
    Cluster,
    Decision,
    Facts,
    Hint,
    after_asking,
    asks_fresh,
    decide,
    delivered_upto,
    failure_of,
    judge,
    remembered,
    signature,
    sweep_age_s,
)

UNGATED_S = 900
NOW = 1000.0
QUIET = "same"


def copied(*leaves, generation=0):
    place = Origin("7", 1, "0/1", 5, "bronze", checkpoint="0/1")
    return Watermark(place, 9, generation, 1).with_leaves(dict(enumerate(leaves, 9)))


def verdict(watermark, hint, leaves=(9,), seen=QUIET, next_xid=200, counted=True, now=NOW):
    cluster = Cluster(next_xid, next_xid, standby=not counted)
    return judge(watermark, hint, leaves, seen, cluster, now, UNGATED_S)


def hint(**more):
    """What is remembered of a table that was read a second ago and then seen at transaction 100."""
    return replace(Hint(QUIET, next_xid=100, generation=0, due_at=NOW - 1), **more)


def said(*arguments, **more):
    found = verdict(*arguments, **more)
    return found.due, found.reason


def test_a_table_never_copied_is_due():
    assert said(None, Hint()) == (True, "not copied yet")
    assert said(copied(Leaf(200)), hint(), leaves=(9, 10)) == (True, "not copied yet")


def test_a_window_in_blocks_goes_on_however_quiet_the_cluster_is():
    pending = Leaf(200, sweep=Sweep(200, 3, 1))
    assert said(copied(pending), hint()) == (True, "partly loaded")


def test_no_transaction_since_is_quiet_for_good():
    assert said(copied(Leaf(200)), hint(due_at=0), now=1e9) == (False, "unchanged")


def test_unchanged_counters_are_quiet_once_the_watermark_has_passed_them():
    assert said(copied(Leaf(150)), hint()) == (False, "unchanged")


def test_changed_counters_are_due():
    assert said(copied(Leaf(150)), hint(), seen="other") == (True, "may have new rows")


def test_a_table_is_read_once_in_a_while_however_quiet_it_seems():
    """A rewrite by ALTER TABLE is not counted, and neither is what a crashed server forgot."""
    assert said(copied(Leaf(150)), hint(due_at=NOW - UNGATED_S + 1)) == (False, "unchanged")
    assert said(copied(Leaf(150)), hint(due_at=NOW - UNGATED_S)) == (True, "not read for 900 s")


def test_a_quiet_table_keeps_the_time_it_was_last_due_and_a_due_one_starts_anew():
    """A clock set back at every look would never expire."""
    assert verdict(copied(Leaf(150)), hint()).hint.due_at == NOW - 1
    assert verdict(copied(Leaf(150)), hint(), seen="other").hint.due_at == NOW


def test_counters_that_moved_while_the_horizon_was_held_do_not_count_as_copied():
    """Transaction 120 wrote and ended while 110 held the horizon: the counters stand still, its row is not copied."""
    first = verdict(copied(Leaf(110)), hint(next_xid=90), seen="with 120", next_xid=130)
    assert (first.due, first.hint.next_xid) == (True, 130)

    held = verdict(copied(Leaf(110)), first.hint, seen="with 120", next_xid=140)
    passed = verdict(copied(Leaf(130)), held.hint, seen="with 120", next_xid=150)

    assert (held.due, passed.due) == (True, False)


def test_counters_that_come_late_are_due_when_they_come():
    """Transaction 120 is counted long after it ended; until then the table only seems quiet."""
    watermark = copied(Leaf(115))
    before = verdict(watermark, hint(next_xid=110), next_xid=121)
    after = verdict(watermark, before.hint, seen="with 120", next_xid=125)
    later = verdict(watermark, after.hint, seen="with 120", next_xid=126)
    assert (before.due, after.due, later.due) == (False, True, True)


def test_after_a_reset_of_the_cursor_a_table_is_read_once_with_that_reason():
    """ "Not read for 900 s" would be false: the table may have been read a second ago."""
    assert said(copied(Leaf(150)), Hint(generation=0)) == (True, "not read yet since the cursor was reset")


def test_a_standby_has_no_counters_of_its_own():
    assert said(copied(Leaf(150)), hint(), counted=False) == (True, "may have new rows")


def test_a_primary_whose_ids_went_back_is_due_at_once():
    """After a restore the run has to say so; as a quiet table it would stay silent until the ids caught up."""
    assert said(copied(Leaf(300)), hint()) == (True, "copied further than this database")


def test_a_standby_that_lags_is_quiet_for_a_while():
    assert said(copied(Leaf(300)), hint(), counted=False) == (False, "copied further than this standby")
    late = hint(due_at=NOW - UNGATED_S)
    assert said(copied(Leaf(300)), late, counted=False) == (True, "not read for 900 s")


def test_the_leaf_that_is_furthest_behind_decides():
    assert verdict(copied(Leaf(200), Leaf(150)), hint(), leaves=(9, 10)).swept == 150
    assert not verdict(copied(Leaf(200), Leaf(150)), hint(), leaves=(9,)).due


def test_an_empty_read_counts_although_it_left_no_object():
    assert said(copied(Leaf(150)), hint(quiet_upto=200)) == (False, "unchanged")
    empty = Hint(QUIET, 100, quiet_upto=200, generation=-1, due_at=NOW)
    assert said(None, empty) == (False, "unchanged")


def test_a_hint_up_to_now_does_not_hide_a_change_of_the_counters():
    """After a crash the server hands out the id below again, and a row is written with it."""
    same, moved = hint(quiet_upto=200), "after a crash"
    assert said(copied(Leaf(199)), same) == (False, "unchanged")
    assert verdict(copied(Leaf(199)), same, seen=moved).swept == 199
    assert said(copied(Leaf(199)), same, seen=moved) == (True, "may have new rows")


def test_a_hint_does_not_hide_a_leaf_that_was_attached_since():
    attached = verdict(copied(Leaf(150)), hint(quiet_upto=200), leaves=(9, 10), seen="two leaves")
    assert (attached.due, attached.reason) == (True, "not copied yet")


def facts(*leaves: Leaf, **more) -> Facts:
    """A table that was copied up to the watermark of its leaves and whose counters have not moved since."""
    oids = tuple(range(9, 9 + max(1, len(leaves))))
    return Facts(**{"oid": 9, "leaves": oids, "counters": [0] * len(oids), "watermark": copied(*leaves), **more})


def decision(table: Facts, before: Hint, cluster: Cluster, next_try: float | None = None) -> Decision:
    return decide(table, before, cluster, NOW, UNGATED_S, next_try)


def counted(**more) -> Hint:
    """What is remembered of ``facts``."""
    return hint(signature=signature((9,), [0]), **more)


def test_an_exact_tick_asks_a_table_of_any_size_that_the_counters_show_unchanged():
    """A row that was committed just before `pg-bronze tick` may be counted after it."""
    table, cluster = facts(Leaf(150)), Cluster(200, 200)
    found = decide(table, counted(), cluster, NOW, UNGATED_S, None, exact=True)
    assert (found.due, found.ask) == (True, True)
    assert after_asking(found, True, Cluster(200, 200), NOW).reason == "may have new rows"
    assert not after_asking(found, False, Cluster(200, 200), NOW).due
    assert not decision(table, counted(), cluster).due


@pytest.mark.parametrize(
    "seconds, asks", [(1, True), (59, True), (60, False), (None, False), (-1, True), (-600, False)]
)
def test_a_table_that_was_copied_lately_is_asked_although_its_counters_stand_still(seconds, asks):
    """The server counts rows up to a minute after their commit, and the next tick must not miss them.

    The clock of the machine that copied may be ahead, and a clock may be set back.
    """
    copied_at = None if seconds is None else NOW - seconds
    found = decision(facts(Leaf(150), small=True, copied_at=copied_at), counted(), Cluster(200, 200))
    assert (found.due, found.ask) == (asks, asks)
    if asks:
        assert after_asking(found, True, Cluster(200, 200), NOW).reason == "may have new rows"
        assert after_asking(found, False, Cluster(200, 200), NOW).reason == "unchanged"


def test_a_table_that_is_asked_for_uncounted_rows_alone_is_not_blocked_by_an_open_transaction():
    """Its counters say that the open transaction has not written to it, as for any other unchanged table."""
    busy = Cluster(200, 205)
    found = decision(facts(Leaf(150), small=True, copied_at=NOW - 1), counted(), busy)
    answered = after_asking(found, False, busy, NOW)
    assert (found.ask, answered.due, answered.reason) == (True, False, "unchanged")
    assert remembered(answered, busy).covered == 205
    later = decision(facts(Leaf(150), small=True, copied_at=NOW - 90), answered.hint, Cluster(203, 210))
    assert (later.due, later.reason) == (False, "unchanged")


def test_a_table_that_is_asked_for_uncounted_rows_alone_needs_no_run_without_an_answer():
    """Another session has locked it, and a run would wait for the lock, each tick for a minute."""
    lately = {"small": True, "copied_at": NOW - 1}
    unchanged = decision(facts(Leaf(150), **lately), counted(), Cluster(200, 200))
    changed = decision(facts(Leaf(150), counters=[5], **lately), counted(), Cluster(200, 200))
    assert (unchanged.ask, changed.ask) == (True, True)
    unanswered = after_asking(unchanged, None, Cluster(200, 200), NOW)
    assert (unanswered.due, unanswered.hint.due_at) == (False, NOW - 1), "the table was not read"
    assert after_asking(changed, None, Cluster(200, 200), NOW).due


def test_an_id_that_only_a_question_has_passed_hides_no_row_after_a_crash():
    """The crashed server assigns ids again, and counts no row with ``track_counts = off``."""
    table = facts(Leaf(150), small=True, copied_at=NOW - 1)
    asked = after_asking(decision(table, counted(next_xid=150), Cluster(200, 200)), False, Cluster(200, 200), NOW)
    again = decision(table, asked.hint, Cluster(200, 200))
    assert (again.due, again.ask) == (True, True), "199 was assigned again, and is the id of a new row"
    later = decide(replace(table, copied_at=None), asked.hint, Cluster(200, 200), NOW + UNGATED_S, UNGATED_S, None)
    assert later.reason == "not read for 900 s"


def test_a_question_that_cannot_be_answered_in_milliseconds_waits_for_the_counters():
    """A table without an index is scanned as a whole, and where nothing was written there is nothing to ask."""
    lately, here = {"copied_at": NOW - 1}, Cluster(200, 200)
    assert not decision(facts(Leaf(150), small=False, **lately), counted(), here).due
    assert not decision(facts(Leaf(200), small=True, **lately), counted(), here).due
    far = Cluster(150 + HEARTBEAT_WIDTH + 1, 150 + HEARTBEAT_WIDTH + 1)
    assert not decision(facts(Leaf(150), small=True, **lately), counted(), far).due
    assert of_large(replace(large(top=150), **lately)).ask
    assert not of_large(replace(large(top=150, banded=False), **lately)).due


def test_an_exact_tick_trusts_the_watermark_alone():
    """A hint may come from a horizon that a crash took back, or from before a partition was attached."""
    found = decide(facts(Leaf(199)), counted(quiet_upto=200), Cluster(200, 200), NOW, UNGATED_S, None, exact=True)
    assert (found.due, found.ask) == (True, True)


def test_an_exact_tick_does_not_ask_where_no_transaction_has_finished_since():
    found = decide(facts(Leaf(200)), counted(), Cluster(200, 200), NOW, UNGATED_S, None, exact=True)
    assert (found.due, found.ask) == (False, False)


def test_a_question_begins_at_the_watermark_and_not_at_a_hint():
    """A crashed server reuses ids that no flushed record mentions, and a hint may be beyond them."""
    assert delivered_upto(facts(Leaf(150))) == 150
    assert delivered_upto(facts(Leaf(150), Leaf(120))) == 120
    assert delivered_upto(facts(Leaf(150), Leaf())) is None
    assert delivered_upto(facts(Leaf(150), oid=8, leaves=(8,))) is None


def test_a_small_table_is_not_asked_when_its_window_has_to_be_closed():
    """Only a run writes the empty object that keeps the window narrower than 2^31."""
    far = 150 + HEARTBEAT_WIDTH + 1
    wide, narrow = (
        decision(facts(Leaf(150), small=True, counters=[5]), counted(quiet_upto=far - 9), Cluster(end, end))
        for end in (far, far - 1)
    )
    assert (wide.due, wide.ask) == (True, False)
    assert (narrow.due, narrow.ask) == (True, True)


def test_a_table_whose_run_is_not_finished_is_not_requested_again():
    table = facts(Leaf(100), counters=[5], running=True)

    assert (
        decision(table, counted(), Cluster(200, 200)).due,
        decision(table, counted(), Cluster(200, 200)).reason,
    ) == (
        False,
        "running",
    )


def test_rows_behind_an_open_transaction_cost_no_run():
    blocked = decision(facts(Leaf(150), counters=[5]), counted(), Cluster(horizon=150, next_xid=200))

    assert (blocked.due, blocked.reason) == (False, "blocked by an open transaction")
    assert blocked.hint.due_at == NOW - 1, "the table was not read, so the time of its last read must not move"


def test_a_table_copied_further_than_a_primary_is_due():
    """A restored database: only a run can stop the table and explain."""
    ahead = decision(facts(Leaf(180)), counted(), Cluster(horizon=150, next_xid=200))

    assert (ahead.due, ahead.reason) == (True, "copied further than this database")


def test_a_failing_table_is_held_back_until_its_next_retry_and_then_tried_whatever_the_hints_are():
    table = facts(Leaf(200))

    assert decision(table, counted(), Cluster(200, 200), next_try=NOW + 1).reason == "failing"
    retried = decision(table, counted(), Cluster(200, 200), next_try=NOW)
    assert (retried.due, retried.reason) == (True, "retried after a failure")


def test_requests_without_a_result_are_counted_until_a_run_reports_one():
    """A worker that is killed for its memory reports nothing, and would be started again every ten seconds."""
    silent = facts(counters=[5], watermark=None, silent=True)
    once = decision(silent, counted(generation=-1), Cluster(200, 200)).hint
    twice = decision(silent, once, Cluster(200, 200), next_try=NOW).hint

    assert failure_of(silent, counted(generation=-1)) is None
    assert [failure_of(silent, before).count for before in (once, twice)] == [1, 2]
    assert decision(facts(Leaf(200)), twice, Cluster(200, 200)).hint.asked == 0


def test_a_small_table_is_asked_for_rows_before_a_run_is_requested():
    ask = decision(facts(Leaf(150), counters=[5], small=True), counted(), Cluster(200, 200))

    assert (ask.due, ask.ask) == (True, True)
    assert after_asking(ask, True, Cluster(200, 200), NOW).due
    empty = after_asking(ask, False, Cluster(200, 200), NOW)
    assert (empty.due, empty.reason, empty.hint.quiet_upto, empty.hint.asked) == (False, "unchanged", 200, 0)
    assert after_asking(ask, False, Cluster(200, 201), NOW).reason == "blocked by an open transaction", (
        "201 may have rows"
    )


def test_what_the_last_run_found_unchanged_is_not_requested_again():
    moved = facts(Leaf(150), counters=[5])
    before = hint(signature=signature((9,), [5]), next_xid=190)

    assert decision(moved, before, Cluster(200, 200)).due
    assert not decision(replace(moved, quiet=(0, 195)), before, Cluster(200, 200)).due
    assert decision(replace(moved, quiet=(1, 195)), before, Cluster(200, 200)).due, "of another generation"


def test_a_hint_beyond_the_next_transaction_hides_nothing():
    """The cursor of a sensor can be edited, and a database can be exchanged."""
    assert decision(facts(Leaf(150)), counted(quiet_upto=10**9), Cluster(200, 200)).due is False
    assert decision(facts(Leaf(150), counters=[5]), counted(quiet_upto=10**9), Cluster(200, 200)).due


@pytest.mark.parametrize("generation", [-1, 0, 2])
def test_a_hint_of_another_generation_is_forgotten(generation):
    """After a reset everything is due, also in a cluster where nothing happens."""
    fresh = Watermark(Origin("7", 1, "0/1", 5, "bronze"), 9, 1, 2)
    assert verdict(fresh, hint(quiet_upto=200, generation=generation)).due


def test_a_signature_tells_leaves_and_counters_apart():
    assert signature([1, 2], [3, 4]) == signature((1, 2), (3, 4))
    assert (
        len({signature([1, 2], [3, 4]), signature([1], [3]), signature([1, 2], [4, 3]), signature([12], [3, 4])}) == 4
    )


@dataclass
class Counted:
    """A primary as the gates see it: transactions that write one row each, counted when the server gets to it."""

    next_xid: int = 100
    open: tuple[int, ...] = ()
    written: tuple[int, ...] = ()
    uncounted: tuple[int, ...] = ()
    swept: int = 100
    hint: Hint = field(default_factory=Hint)

    def begin(self) -> None:
        self.open = (*self.open, self.next_xid)
        self.next_xid += 1

    def finish(self, writes: bool, at_once: bool) -> None:
        xid, *rest = self.open[::-1]
        self.open = tuple(rest[::-1])
        if writes:
            self.written = (*self.written, xid)
            self.uncounted = () if at_once else (*self.uncounted, xid)

    @property
    def horizon(self) -> int:
        return min(self.open, default=self.next_xid)

    def look(self) -> bool:
        """One look of the sensor; whether the table is due."""
        counters = len(self.written) - len(self.uncounted)
        cluster = Cluster(self.horizon, self.next_xid)
        found = judge(copied(Leaf(self.swept)), self.hint, (9,), str(counters), cluster, 0, UNGATED_S)
        self.hint = found.hint
        return found.due


@settings(max_examples=300)
@given(
    st.lists(st.sampled_from(["begin", "begin", "write", "write late", "nothing", "count", "look", "look and read"]))
)
def test_no_row_stays_behind_unchanged_counters(steps):
    """Whatever happened before: once the counters have come and the horizon is free, a look finds the row."""
    cluster = Counted(hint=Hint(generation=0))
    for step in [*steps, *["nothing"] * steps.count("begin"), "count", "look"]:
        if step == "begin":
            cluster.begin()
        elif step == "count":
            cluster.uncounted = ()
        elif step.startswith("look"):
            if cluster.look() and step == "look and read":
                cluster.swept = cluster.horizon
        elif cluster.open:
            cluster.finish(step != "nothing", step == "write")
    missing = [xid for xid in cluster.written if xid >= cluster.swept]
    assert cluster.look() or not missing


@pytest.mark.parametrize(
    "now",
    [
        {"timeline": 2, "lsn": "0/9"},
        {"system_id": "8"},
        {"database": 6},
        {"bucket": "other"},
        {"lsn": "0/0"},
        {"checkpoint": "0/0"},
    ],
)
def test_a_quiet_table_whose_history_does_not_continue_is_due_at_once(now):
    """After a failover its newest versions may be lost in the database, and no counter shows that."""
    place = Origin("7", 1, "0/1", 5, "bronze", checkpoint="0/1")
    same, other = (
        decision(facts(Leaf(200)), counted(), Cluster(200, 200, origin=at)) for at in (place, replace(place, **now))
    )
    assert not same.due
    assert (other.due, other.reason, other.ask) == (True, "copied from another history", False)


@pytest.mark.parametrize(
    "found, standby, due",
    [
        (ControlVersion(5, 7, 99), False, True),
        (ControlVersion(5, 7, 2**32 - 9), False, True),  # the id before the wraparound
        (ControlVersion(5, 7, 100), False, False),
        (ControlVersion(5, 7, 101), False, False),
        (ControlVersion(5, 8, 99), False, False),
        (ControlVersion(6, 7, 99), False, False),
        (None, False, False),
        (ControlVersion(5, 7, 99), True, False),
    ],
)
def test_a_quiet_table_whose_control_row_is_older_than_written_is_due_at_once(found, standby, due):
    """After a restore this row may be the only trace, and a table without new rows is not read."""
    place = Origin("7", 1, "0/1", 5, "bronze", checkpoint="0/1", control=ControlVersion(5, 7, 100))
    seen = facts(Leaf(200))
    seen = replace(seen, watermark=replace(seen.watermark, origin=place), control=found)

    decided = decision(seen, counted(), Cluster(200, 200, standby, place))

    assert (decided.due, decided.reason == "copied from another history") == (due, due)


def test_a_standby_that_lags_continues_the_history():
    behind = Origin("7", 1, "0/0", 5, "bronze")
    assert not decision(facts(Leaf(200)), counted(), Cluster(200, 200, standby=True, origin=behind)).due


RULES = BandRules()


def ago(seconds):
    return datetime.fromtimestamp(NOW - seconds, UTC).isoformat()


def large(*, swept=150, top=200, seconds=50, banded=True, sweep=None, sweeps=Sweeps(), counters=(7,)):  # noqa: B008
    """A table whose sweep takes a second, which is due every 100 seconds."""
    order, upper = (Order(1, "int8"), (Band("5", top),)) if banded else (None, ())
    leaf = Leaf(swept, sweep, order, upper, ago(seconds))
    watermark = replace(copied(leaf), sweeps=sweeps)
    return Facts(9, (9,), counters, watermark, rules=RULES, sweep_s=1.0, counted_since="begin")


def of_large(facts, *, horizon=200, exact=False, standby=False):
    seen = replace(hint(next_xid=horizon), signature=signature(facts.leaves, facts.counters, facts.nodes))
    return decide(facts, seen, Cluster(horizon, horizon, standby), NOW, UNGATED_S, None, exact)


def test_a_large_table_with_bands_is_due_if_it_may_have_fresh_rows():
    found = of_large(large(), horizon=300)
    assert (found.due, found.ask, found.reason) == (True, True, "may have new rows")
    assert asks_fresh(large())


def test_a_large_table_whose_newest_rows_are_copied_is_due_for_its_sweep_only():
    """Its lower bands are behind in every tick between two sweeps."""
    assert not of_large(large()).due
    found = of_large(large(seconds=101))
    assert (found.due, found.ask, found.reason) == (True, False, "due for a sweep")


def test_a_large_table_is_due_while_a_sweep_is_in_progress():
    assert of_large(large(sweep=Sweep(200, 3, 1, 0, "5", 9))).reason == "due for a sweep"


def test_a_sweep_is_not_due_if_the_counters_show_that_every_write_arrived_fresh():
    known = Sweeps(counter=5, since="begin", fresh=2)
    assert not of_large(large(seconds=101, sweeps=known, counters=(7,))).due
    assert of_large(large(seconds=101, sweeps=known, counters=(8,))).due
    assert of_large(large(seconds=101, sweeps=known), standby=True).due


def test_a_large_table_without_an_index_waits_for_its_schedule():
    """One row a second would otherwise scan 100 million rows in every tick."""
    found = of_large(large(banded=False, swept=150), horizon=300)
    assert (found.due, found.reason) == (False, "waiting for the next sweep")
    assert of_large(large(banded=False, swept=150, seconds=101), horizon=300).due


def test_a_person_who_asks_for_a_tick_gets_every_row_of_a_large_table():
    found = of_large(large(), exact=True)
    assert (found.due, found.ask) == (True, False)
    assert not of_large(large(swept=200), exact=True).due


def test_a_window_of_a_billion_transactions_is_due_for_a_sweep():
    far = 150 + HEARTBEAT_WIDTH + 1
    assert of_large(large(top=far), horizon=far).reason == "due for a sweep"


def test_the_age_of_a_sweep_is_that_of_the_oldest_change_that_may_be_missing():
    here = Cluster(200, 200)
    assert sweep_age_s(large(seconds=70), here, NOW) == 70
    assert sweep_age_s(large(seconds=70, swept=200), here, NOW) is None
    assert (
        sweep_age_s(large(seconds=70, sweeps=Sweeps(counter=5, since="begin", fresh=2), counters=(7,)), here, NOW)
        is None
    )


def test_a_tick_that_finds_a_table_unchanged_remembers_up_to_when():
    quiet = decision(facts(Leaf(200)), counted(), Cluster(200, 205))
    assert quiet.reason == "unchanged"
    assert remembered(quiet, Cluster(200, 205)).covered == 205
    due_now = decision(facts(Leaf(150), counters=[5]), counted(), Cluster(200, 205))
    assert remembered(due_now, Cluster(200, 205)).covered == 0
