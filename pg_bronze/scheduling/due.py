"""Gates: whether a table needs looking at in this tick, from hints that may only ever postpone.

A gate never moves a horizon, and expires: however quiet a table seems, it is read once in a while.
No connection, no clock, no Dagster.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from pg_bronze.core.watermark import Watermark


@dataclass(frozen=True)
class Hint:
    """What the last ticks saw of a table.

    ``signature`` stands for its leaves and their counters, ``next_xid`` was the cluster's next transaction id when that
    signature was first seen. ``quiet_upto``: a read found nothing new below this transaction, in this ``generation``
    of the
    table (-1: nothing of it had been copied). ``due_at``: when it was last read or asked for, in seconds since 1970.
    ``asked``: how often it was asked for since a run last said what became of it.
    """

    signature: str = ""
    next_xid: int = 0
    quiet_upto: int = 0
    generation: int = -1
    due_at: float = 0.0
    asked: int = 0


@dataclass(frozen=True)
class Verdict:
    """Whether a table is due, the reason for people, and what to remember of it."""

    due: bool
    reason: str
    hint: Hint
    swept: int | None = None


def signature(leaves: Sequence[int], tuples: Sequence[int]) -> str:
    """A short text that changes when a leaf comes, goes or counts a changed row."""
    return hashlib.sha256(repr((tuple(leaves), tuple(tuples))).encode()).hexdigest()[:16]


def judge(
    watermark: Watermark | None,
    hint: Hint,
    leaves: Sequence[int],
    signature_now: str,
    next_xid: int,
    counted: bool,
    now: float,
    ungated_after_s: float,
) -> Verdict:
    """Decide whether a table is due.

    ``leaves`` are its physical tables now; ``counted`` says whether the signature's counters can be believed (a
    primary's); ``next_xid`` is the cluster's next transaction id, taken after the counters: every change in them has
    to lie below it.
    """
    generation = watermark.generation if watermark else -1
    if hint.generation != generation:
        # What was quiet before a reset has to be copied all over again.
        hint = dataclasses.replace(hint, quiet_upto=0, generation=generation)
    moved = hint.signature != signature_now
    seen = dataclasses.replace(hint, signature=signature_now, next_xid=next_xid) if moved else hint
    asked = dataclasses.replace(seen, due_at=now)
    states = [watermark.leaf(oid) for oid in leaves] if watermark else []
    if any(state.pending for state in states):
        return Verdict(True, "a first load or a large window goes on", asked)
    unread = not states or any(state.swept is None for state in states)
    if unread and not hint.quiet_upto:
        return Verdict(True, "nothing of it has been copied yet", asked)
    swept = max(hint.quiet_upto, 0 if unread else min(state.swept or 0 for state in states))
    if swept == next_xid:
        return Verdict(False, f"no transaction finished since {swept}", seen, swept)
    if swept > next_xid and counted:
        # Only a restored or failed-over database gets here, and the run is what says so.
        return Verdict(True, f"it is copied up to {swept}, and the next transaction is {next_xid}", asked, swept)
    if now - hint.due_at >= ungated_after_s:
        return Verdict(True, f"not read for {ungated_after_s:.0f} s", asked, swept)
    if swept > next_xid:
        return Verdict(False, f"this standby has not come as far as {swept}", seen, swept)
    if counted and hint.signature == signature_now and swept >= seen.next_xid:
        return Verdict(False, "no row was written", seen, swept)
    return Verdict(True, "rows may have been written", asked, swept)
