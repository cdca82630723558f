"""Due: whether a table is copied in this tick. The only place that decides it, for the sensor and the command line.

Hints may postpone a read. They never move a horizon, and they expire: however quiet a table seems, it is read once in a
while. No connection, no clock, no Dagster: the caller collects the facts and passes them in.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pg_bronze.core import band_rules, history_check
from pg_bronze.core.band_rules import BandRules, Sweeps
from pg_bronze.core.leaf import Leaf
from pg_bronze.core.ranges import HEARTBEAT_WIDTH
from pg_bronze.core.watermark import ControlVersion, Origin, Watermark
from pg_bronze.scheduling.backoff import Failure

# A changed table with the signature of before would be read later, at most by PG_BRONZE_UNGATED_AFTER_S: 1 in 2^40.
SIGNATURE_DIGITS = 10
# A session reports what it wrote at most once a second, and the rest 10 s later, or 60 s later if it is busy
# (PGSTAT_MIN_INTERVAL, PGSTAT_IDLE_INTERVAL and PGSTAT_MAX_INTERVAL of PostgreSQL's pgstat.c).
COUNTED_LATE_S = 60.0
MAY_HAVE_ROWS = "may have new rows"
DUE_FOR_SWEEP = "due for a sweep"
UNCHANGED = "unchanged"
OTHER_HISTORY = "copied from another history"
BLOCKED = "blocked by an open transaction"
SILENT = "the last run ended without reporting a result. See the page of that run for the reason."


@dataclass(frozen=True)
class Hint:
    """What earlier ticks found about a table.

    Attributes:
        signature: Represents the table's leaves and their counters.
        next_xid: The cluster's next transaction id when that signature was first seen.
        quiet_upto: A read found nothing new below this transaction, in this ``generation`` of the table.
        generation: -1 if nothing of the table was copied.
        due_at: When the table was last read or requested, in seconds since 1970.
        asked: How often the table was requested since a run last reported a result for it.
        covered: The next transaction id when the table was last found unchanged: every change before is copied.
    """

    signature: str = ""
    next_xid: int = 0
    quiet_upto: int = 0
    generation: int = -1
    due_at: float = 0.0
    asked: int = 0
    covered: int = 0


@dataclass(frozen=True)
class Cluster:
    """The database cluster in this tick.

    Attributes:
        horizon: Every transaction below it has finished.
        next_xid: The next transaction id, read after the counters: every change they counted has a lower id.
        standby: The server is a hot standby, whose counters say nothing and whose horizon may be older than before.
        origin: The database and the point of its history; None if it is not compared with the watermarks.
    """

    horizon: int
    next_xid: int
    standby: bool = False
    origin: Origin | None = None


@dataclass(frozen=True)
class Facts:
    """One table in this tick.

    Attributes:
        oid: The table's oid in the catalog.
        leaves: The oids of its physical tables.
        counters: Row versions inserted and updated so far in each leaf.
        watermark: How far the table is copied; None before the first copy.
        running: A run that copies the table is not finished.
        quiet: ``(generation, transaction)`` below which the last run found nothing new; ``(-1, 0)`` if not known.
        silent: The last run reported nothing about the table.
        failure: Why the last run could not copy the table, or None.
        small: The table is so small that asking for new rows costs less than a run.
        rules: The limits of its bands and sweeps; None if it is read completely in every tick.
        sweep_s: The expected seconds of a sweep.
        counted_since: Since when the server counts ``counters``; empty if it does not.
        nodes: The file of each leaf, which is another one after a rewrite.
        slow: Its last copy took so long that it would hold up the others of its run.
        copied_at: When its last copy was recorded, in seconds since 1970; None before the first one.
        control: The current version of the table's row in the control table; None if not known.
    """

    oid: int
    leaves: Sequence[int]
    counters: Sequence[int]
    watermark: Watermark | None = None
    running: bool = False
    quiet: tuple[int, int] = (-1, 0)
    silent: bool = False
    failure: Failure | None = None
    small: bool = False
    control: ControlVersion | None = None
    rules: BandRules | None = None
    sweep_s: float = 0.0
    counted_since: str = ""
    nodes: Sequence[int] = ()
    slow: bool = False
    copied_at: float | None = None

    @property
    def scheduled(self) -> bool:
        """Whether the table is too large to be read completely in every tick."""
        return self.rules is not None and self.rules.period_s(self.sweep_s) > 0


@dataclass(frozen=True)
class Decision:
    """Whether a table is due.

    Attributes:
        reason: A phrase that fits behind a number of tables, as in "9 unchanged".
        hint: What to remember until the next tick.
        swept: The transaction up to which the table is copied, or None if it has leaves that were never read. Of a
            table with bands, only the rows with one of the newest values are copied that far.
        ask: The table is due only if it has a row that ``delivered_upto`` does not include; see ``after_asking``. With
            the reason ``UNCHANGED``, the counters show no change, and the question is about rows not counted yet.
    """

    due: bool
    reason: str
    hint: Hint = field(default_factory=Hint)
    swept: int | None = None
    ask: bool = False


def signature(leaves: Sequence[int], counters: Sequence[int], nodes: Sequence[int] = ()) -> str:
    """Return a short text that changes when a leaf is added, removed or rewritten, or counts a changed row."""
    found = (tuple(leaves), tuple(counters), tuple(nodes))
    return hashlib.sha256(repr(found).encode()).hexdigest()[:SIGNATURE_DIGITS]


def failure_of(facts: Facts, hint: Hint) -> Failure | None:
    """Return the failure that the table is retried for; a requested run that reported nothing counts as one."""
    if facts.silent and hint.asked:
        return Failure(SILENT, "automatic", hint.asked, hint.due_at, hint.due_at)
    return facts.failure


def delivered_upto(facts: Facts) -> int | None:
    """Return the transaction below which the lake has every row of a table; None if a leaf was never read.

    A question for new rows begins there and not at a hint: after a crash the server reuses ids that a hint passed.
    """
    return min((leaf.swept or 0 for leaf in _states(facts)), default=0) or None


def copied_upto(facts: Facts) -> int | None:
    """Return the transaction below which every row of a table is copied, of a large one its newest rows.

    Returns:
        None if a leaf was never read completely.
    """
    tops = [leaf.top for leaf in _states(facts)]
    return None if None in tops else min((top for top in tops if top is not None), default=None)


def _states(facts: Facts) -> list[Leaf]:
    watermark = _watermark(facts)
    return [watermark.leaf(oid) for oid in facts.leaves] if watermark else []


def decide(
    facts: Facts,
    hint: Hint,
    cluster: Cluster,
    now: float,
    ungated_after_s: float,
    next_try: float | None,
    exact: bool = False,
) -> Decision:
    """Decide whether a table is due.

    Args:
        now: Seconds since 1970.
        ungated_after_s: Seconds after which a table is read even if it seems unchanged.
        next_try: When a failing table is retried, in seconds since 1970; None for a table that is not failing.
        exact: Ask every table that its watermark does not show to be copied up to the horizon. The server may update
            counters seconds after a commit, and a hint may come from before a crash.
    """
    if facts.running:
        return Decision(False, "running", hint)
    if hint.asked and not facts.silent:
        hint = dataclasses.replace(hint, asked=0)
    decision = _by_horizon(_by_hints(facts, hint, cluster, now, ungated_after_s), hint, cluster, now)
    decision = _by_schedule(decision, facts, hint, cluster, now)
    if _has_other_history(facts, cluster):
        decision = Decision(True, OTHER_HISTORY, dataclasses.replace(decision.hint, due_at=now))
    if next_try is not None:
        return _retried(decision, hint, next_try, now)
    delivered = delivered_upto(facts)
    if exact and not decision.due and (delivered or 0) < cluster.horizon:
        requested = dataclasses.replace(decision.hint, due_at=now)
        # A question reads the newest rows of a table with bands alone; the run reads all of it.
        return _requested(Decision(True, MAY_HAVE_ROWS, requested, delivered, ask=not facts.scheduled), hint)
    behind = decision.swept is not None and decision.swept < cluster.horizon
    # Only a run moves the watermark of a table that was not written for a billion transactions.
    narrow = cluster.horizon - (delivered or cluster.horizon) <= HEARTBEAT_WIDTH
    cheap = asks_fresh(facts) if facts.scheduled and not exact else facts.small and not facts.scheduled
    asks = behind and narrow and cheap and decision.reason != DUE_FOR_SWEEP
    lately = facts.copied_at is not None and abs(now - facts.copied_at) < COUNTED_LATE_S
    if asks and lately and decision.reason == UNCHANGED:
        decision = dataclasses.replace(decision, due=True)
    return dataclasses.replace(_requested(decision, hint), ask=asks and decision.due)


def asks_fresh(facts: Facts) -> bool:
    """Return whether a question for new rows reads the newest rows alone, through an index."""
    tops = {state.upper[-1] if state.upper else None for state in _states(facts)}
    return facts.scheduled and len(tops) == 1 and None not in tops


def sweep_age_s(facts: Facts, cluster: Cluster, now: float) -> float | None:
    """Return the age in seconds of the oldest change of a large table that may not be copied.

    Returns:
        None if it is not known, or if the counters show that all of them are copied.
    """
    watermark, states = _watermark(facts), _states(facts)
    times = [datetime.fromisoformat(state.swept_at).timestamp() for state in states if state.swept_at]
    if watermark is None or not times or len(times) < len(states):
        return None
    unneeded = (watermark.sweeps or Sweeps()).is_unneeded(_counted(facts, cluster))
    if unneeded or all(state.swept == cluster.horizon for state in states):
        return None
    return now - min(times)


def _counted(facts: Facts, cluster: Cluster) -> band_rules.Counted | None:
    if cluster.standby or not facts.counted_since:
        return None
    return sum(facts.counters), facts.counted_since


def after_asking(decision: Decision, has_rows: bool | None, cluster: Cluster, now: float) -> Decision:
    """Return the decision about a table that was asked for new rows below the horizon.

    Args:
        has_rows: The answer; None if there is none.
        now: Seconds since 1970.
    """
    # Nothing is remembered of a question that no counter gave rise to: a crashed server may assign the ids again that
    # it has passed, and not count their rows.
    if decision.reason == UNCHANGED and not has_rows:
        return dataclasses.replace(decision, due=False, ask=False, hint=dataclasses.replace(decision.hint, asked=0))
    if has_rows is not False:
        reason = MAY_HAVE_ROWS if decision.reason == UNCHANGED else decision.reason
        hint = dataclasses.replace(decision.hint, due_at=now)
        return dataclasses.replace(decision, reason=reason, hint=hint, ask=False)
    hint = dataclasses.replace(decision.hint, quiet_upto=cluster.horizon, asked=0)
    reason = UNCHANGED if cluster.horizon >= cluster.next_xid else BLOCKED
    return Decision(False, reason, hint, cluster.horizon)


def remembered(decision: Decision, cluster: Cluster) -> Hint:
    """Return what the next tick knows about a table: also that nothing of it was missing in this one."""
    if decision.reason != UNCHANGED:
        return decision.hint
    return dataclasses.replace(decision.hint, covered=cluster.next_xid)


def _by_hints(facts: Facts, hint: Hint, cluster: Cluster, now: float, ungated_after_s: float) -> Decision:
    """Decide from counters and hints, and from what the last run found if that alone would make the table due."""
    watermark = _watermark(facts)
    seen = signature(facts.leaves, facts.counters, facts.nodes)
    decision = judge(watermark, _plausible(hint, cluster), facts.leaves, seen, cluster, now, ungated_after_s)
    generation, upto = facts.quiet
    known = hint.signature == decision.hint.signature and generation == decision.hint.generation
    if decision.due and known and upto > decision.hint.quiet_upto:
        hint = _plausible(dataclasses.replace(hint, quiet_upto=upto, generation=generation), cluster)
        return judge(watermark, hint, facts.leaves, seen, cluster, now, ungated_after_s)
    return decision


def _has_other_history(facts: Facts, cluster: Cluster) -> bool:
    """Return whether the watermark does not belong to this point of history, which a run explains."""
    if facts.watermark is None or cluster.origin is None:
        return False
    recorded = facts.watermark.origin
    if not cluster.standby and history_check.is_older(facts.control, recorded.control):
        return True
    return not history_check.continues(recorded, cluster.origin, cluster.standby)


def _watermark(facts: Facts) -> Watermark | None:
    """Return the watermark if it is that of this table, and not of one of the same name before it."""
    return facts.watermark if facts.watermark and facts.watermark.table == facts.oid else None


def _plausible(hint: Hint, cluster: Cluster) -> Hint:
    """Drop a hint from another cluster, or one that somebody edited: it would hide rows."""
    if hint.quiet_upto > cluster.next_xid and not cluster.standby:
        return dataclasses.replace(hint, quiet_upto=0)
    return hint


def judge(
    watermark: Watermark | None,
    hint: Hint,
    leaves: Sequence[int],
    signature_now: str,
    cluster: Cluster,
    now: float,
    ungated_after_s: float,
) -> Decision:
    """Decide from the watermark, the counters and the hint alone whether a read may find something."""
    generation = watermark.generation if watermark else -1
    if hint.generation != generation:
        # What was quiet before a reset has to be copied again.
        hint = dataclasses.replace(hint, quiet_upto=0, covered=0, generation=generation)
    moved = hint.signature != signature_now
    if moved and hint.quiet_upto >= cluster.next_xid and not cluster.standby:
        # A crashed server assigns ids again that a hint has passed. Its counters then show the rows written with them.
        hint = dataclasses.replace(hint, quiet_upto=0)
    seen = dataclasses.replace(hint, signature=signature_now, next_xid=cluster.next_xid) if moved else hint
    requested = dataclasses.replace(seen, due_at=now)
    states = [watermark.leaf(oid) for oid in leaves] if watermark else []
    if any(state.sweep for state in states):
        return Decision(True, "partly loaded", requested)
    unread = not states or any(state.top is None for state in states)
    if unread and (moved or not hint.quiet_upto):
        return Decision(True, "not copied yet", requested)
    swept = max(hint.quiet_upto, 0 if unread else min(state.top or 0 for state in states))
    if swept == cluster.next_xid:
        return Decision(False, UNCHANGED, seen, swept)
    if swept > cluster.next_xid and not cluster.standby:
        # Only a restored or failed-over database gets here, and the run explains it.
        return Decision(True, "copied further than this database", requested, swept)
    if not hint.due_at:
        # The sensor's cursor is new or was reset, so nothing is known of earlier reads.
        return Decision(True, "not read yet since the cursor was reset", requested, swept)
    if now - hint.due_at >= ungated_after_s:
        return Decision(True, f"not read for {ungated_after_s:.0f} s", requested, swept)
    if swept > cluster.next_xid:
        return Decision(False, "copied further than this standby", seen, swept)
    if not cluster.standby and not moved and swept >= seen.next_xid:
        return Decision(False, UNCHANGED, seen, swept)
    return Decision(True, MAY_HAVE_ROWS, requested, swept)


def _by_horizon(decision: Decision, before: Hint, cluster: Cluster, now: float) -> Decision:
    """Correct a decision by the horizon, which only rises on a primary: a table copied up to it cannot be read yet."""
    if cluster.standby or decision.swept is None or decision.swept < cluster.horizon:
        return decision
    if decision.swept > cluster.horizon:
        # A restored or exchanged cluster: no counter shows it, and only a run can stop the table and explain.
        hint = dataclasses.replace(decision.hint, due_at=now)
        return Decision(True, "copied further than this database", hint, decision.swept)
    if not decision.due:
        return decision
    hint = dataclasses.replace(decision.hint, due_at=before.due_at)
    return Decision(False, BLOCKED, hint, decision.swept)


def _by_schedule(decision: Decision, facts: Facts, before: Hint, cluster: Cluster, now: float) -> Decision:
    """Correct a decision about a large table, of which only a part is read in every tick."""
    watermark, states = _watermark(facts), _states(facts)
    if not facts.scheduled or facts.rules is None or watermark is None or not states:
        return decision
    if all(state.swept == cluster.horizon for state in states) or any(state.top is None for state in states):
        return decision
    sweeps, counted = watermark.sweeps or Sweeps(), _counted(facts, cluster)
    period_s = facts.rules.period_s(facts.sweep_s)
    wide = any(cluster.horizon - (state.swept or cluster.horizon) > HEARTBEAT_WIDTH for state in states)
    left_s = band_rules.seconds_to_sweep(states, sweeps, period_s, counted, datetime.fromtimestamp(now, UTC))
    if left_s <= 0 or wide or sweeps.urgent or any(state.sweep for state in states):
        return Decision(True, DUE_FOR_SWEEP, dataclasses.replace(decision.hint, due_at=now), decision.swept)
    if decision.due and decision.swept is not None and not any(state.upper for state in states):
        hint = dataclasses.replace(decision.hint, due_at=before.due_at)
        return Decision(False, "waiting for the next sweep", hint, decision.swept)
    return decision


def _retried(decision: Decision, before: Hint, next_try: float, now: float) -> Decision:
    """Hold back a failing table until its next retry, which takes place whatever the hints are."""
    if next_try > now:
        hint = dataclasses.replace(decision.hint, due_at=before.due_at)
        return Decision(False, "failing", hint, decision.swept)
    hint = dataclasses.replace(decision.hint, due_at=now)
    return _requested(Decision(True, "retried after a failure", hint, decision.swept), before)


def _requested(decision: Decision, before: Hint) -> Decision:
    if not decision.due:
        return decision
    return dataclasses.replace(decision, hint=dataclasses.replace(decision.hint, asked=before.asked + 1))
