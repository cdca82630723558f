"""Activity: what the server is doing now, and the point of its history that it has reached.

The probe of a tick, the horizon that reads rely on, and the transaction that holds it back. No row of a source table is
read here, and no connection is opened: each function runs its statements on a ``Session`` and returns plain values.
"""

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pg_bronze.core import window_sql
from pg_bronze.core.row_counts import Poll
from pg_bronze.core.watermark import Origin
from pg_bronze.errors import PgBronzeError, SourceUnavailable
from pg_bronze.postgres import server_identity

FLUSH_WAIT_S = 2.0
STALLED_AFTER_S = 60.0  # a transaction that is open for longer is named with the statement that ends it
NUDGE_AFTER_S = 0.02
# A flush position can be at the start of a page while the insert position already includes that page's header.
PAGE_BYTES, HEADER_BYTES = 8192, 40
# The flushed position: a crash of the server takes back what is written and not flushed, which is no restore.
_PLACE = f"""select {server_identity.SYSTEM_ID}, {server_identity.TIMELINE},
  textin(pg_lsn_out(case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_flush_lsn() end)),
  {server_identity.DATABASE},
  case when not pg_is_in_recovery() then concat(pg_postmaster_start_time() at time zone 'UTC') end,
  case when not pg_is_in_recovery() then (select concat(checkpoint_lsn) from pg_control_checkpoint()) end,
  pg_is_in_recovery()"""
_FLUSHED = """select pg_current_wal_flush_lsn() >= %(lsn)s::pg_lsn
  or (mod(pg_current_wal_flush_lsn() - '0/0'::pg_lsn, %(page)s::numeric) = 0::numeric
      and %(lsn)s::pg_lsn - pg_current_wal_flush_lsn() <= %(header)s::numeric)"""
_HOLDERS = """select concat('session ', pid, ' of ' || nullif(application_name, ''),
    ' (', coalesce(state, 'state hidden from this role'), ')'),
  extract(epoch from clock_timestamp() - xact_start)::float8, concat('select pg_terminate_backend(', pid, ')')
from pg_stat_activity where backend_xid is not null and pid <> pg_backend_pid()
  and age(backend_xid) >= (select max(age(backend_xid)) from pg_stat_activity)
union all
select concat('prepared transaction ', quote_literal(gid)), extract(epoch from clock_timestamp() - prepared)::float8,
  concat('rollback prepared ', quote_literal(gid), ' in database ', database)
from pg_prepared_xacts
order by 2 desc nulls last limit 1"""
# A name that is not UTF-8 would make the server refuse the whole answer; the catalog skips that table.
_RELATIONS = f"""select c.oid::bigint, n.nspname, c.relname,
  (select inhparent::bigint from pg_inherits where inhrelid = c.oid and c.relispartition), c.relfilenode::bigint,
  pg_stat_get_tuples_inserted(c.oid) + pg_stat_get_tuples_updated(c.oid)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
  and {window_sql.is_utf8("concat(n.nspname, '.', c.relname)")}"""
_IDS = "int8in(xid8out(pg_snapshot_xmin(s))), int8in(xid8out(pg_snapshot_xmax(s))), pg_is_in_recovery()"
_TRANSACTIONS = f"""select {_IDS}, array(select int8in(xid8out(x)) from pg_snapshot_xip(s) x)
from pg_current_snapshot() s"""
# A text that changes when the counters are reset, by a person or by a crash; empty while nothing is counted.
COUNTED_SINCE = """case when current_setting('track_counts') = 'on' then concat(pg_postmaster_start_time(), '/',
    pg_stat_get_bgwriter_stat_reset_time(), '/',
    pg_stat_get_db_stat_reset_time((select d.oid from pg_database d where d.datname = current_database())))
  else '' end"""
_PROBE = f"select {_IDS}, {COUNTED_SINCE} from pg_current_snapshot() s"
# The size of a locked table would wait for the lock, so it is not asked for; the time limit is for a lock since then.
_SIZES = """with wait as materialized (select set_config('lock_timeout', '500ms', true) as limited)
select o::bigint, pg_table_size(o)
from wait, unnest(%(oids)s::oid[]) o
where not exists (select 1 from pg_locks where relation = o and mode = 'AccessExclusiveLock')"""
_SESSIONS = """select count(*) from pg_stat_activity
where starts_with(application_name, %(name)s) and datname = current_database()"""
_HAS_SESSION = "select exists (select 1 from pg_stat_activity where starts_with(application_name, %(name)s))"


class Session(Protocol):
    """What these functions need of a connection; ``connection.Source`` provides it."""

    @property
    def name(self) -> str:
        """The database and server, for messages."""

    def ask(self, query: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows. Raises a PgBronzeError."""


@dataclass(frozen=True)
class Activity:
    """One probe: the horizon, the next transaction id, and the tables of the database.

    ``oids`` maps ``(schema, name)`` to an oid, ``children`` the oid of a partitioned table to those of its partitions,
    and ``tuples`` an oid to the row versions inserted and updated so far according to the statistics. ``counted_since``
    is a text that changes when these begin again, and empty if they do not count. ``nodes`` maps an oid to its file,
    which is another one after a rewrite: ALTER TABLE counts no row that it rewrites.
    """

    horizon: int
    next_xid: int
    standby: bool
    oids: Mapping[tuple[str, str], int]
    children: Mapping[int, tuple[int, ...]]
    tuples: Mapping[int, int]
    counted_since: str = ""
    nodes: Mapping[int, int] = field(default_factory=dict)

    def leaves(self, oid: int) -> tuple[int, ...]:
        """Return the leaf partitions of a table, or the table itself, in ascending order."""
        below = self.children.get(oid)
        if below is None:
            return (oid,)
        return tuple(sorted(leaf for child in below for leaf in self.leaves(child)))


def read(session: Session) -> Activity:
    """Probe the database, in two round trips."""
    oids: dict[tuple[str, str], int] = {}
    children: dict[int, list[int]] = {}
    tuples: dict[int, int] = {}
    nodes: dict[int, int] = {}
    # The counters first, the ids second: every change counted then is below next_xid. The other order would miss a row
    # counted between the two for good, because its counter never changes again.
    for oid, schema, name, parent, node, count in session.ask(_RELATIONS):
        oids[(schema, name)] = oid
        tuples[oid], nodes[oid] = count, node
        if parent is not None:
            children.setdefault(parent, []).append(oid)
    horizon, next_xid, standby, since = session.ask(_PROBE)[0]
    partitions = {oid: tuple(below) for oid, below in children.items()}
    return Activity(horizon, next_xid, standby, oids, partitions, tuples, since, nodes)


def place(session: Session, bucket: str) -> tuple[Origin, bool]:
    """Return the cluster, database and point of history that rows are read from, and whether it is a standby."""
    system_id, timeline, lsn, database, started, checkpoint, standby = session.ask(_PLACE)[0]
    return Origin(system_id, timeline, lsn, database, bucket, started, checkpoint), standby


def durable_horizon(session: Session) -> tuple[int, int, bool, Poll]:
    """Return a horizon that no crash of the server can take back, the next id, and whether the server is a standby.

    Every transaction below the horizon has finished. On a primary this waits until the write-ahead log is flushed. The
    last value is what a query at that moment would have seen.

    Raises:
        SourceUnavailable: The log was not flushed within 2 s.
    """
    horizon, next_xid, standby, unfinished = session.ask(_TRANSACTIONS)[0]
    if not standby:
        _wait_until_durable(session)
    return horizon, next_xid, standby, Poll.of_snapshot(horizon, next_xid, unfinished, standby)


def _wait_until_durable(session: Session) -> None:
    # After a crash a primary reuses ids that no flushed record mentions. Without this wait, rows written under such an
    # id are below a horizon already passed, and lost. It has to be the connection that read the horizon.
    lsn = session.ask("select textin(pg_lsn_out(pg_current_wal_insert_lsn()))")[0][0]
    started = time.monotonic()
    pause_s, nudged = 0.001, False
    while not session.ask(_FLUSHED, {"lsn": lsn, "page": PAGE_BYTES, "header": HEADER_BYTES})[0][0]:
        waited_s = time.monotonic() - started
        if waited_s > FLUSH_WAIT_S:
            raise SourceUnavailable(
                f"{session.name}: the server did not flush its write-ahead log to {lsn} within {FLUSH_WAIT_S:.0f} s, "
                "so a crash could still undo transactions. It is retried at the next tick."
            )
        if waited_s > NUDGE_AFTER_S and not nudged:
            nudged = True
            _nudge_log(session)
        time.sleep(pause_s)  # the server offers no event to wait for
        pause_s = min(pause_s * 2, 0.05)


def _nudge_log(session: Session) -> None:
    # Only the background writer, every 15 s, flushes the records of an open transaction or of pruning in a read that
    # was rolled back. An empty message (64 bytes, no transaction id) gets them flushed in 0.2 s:
    # test_an_open_transaction_on_an_idle_server_does_not_postpone_the_tick.
    with contextlib.suppress(PgBronzeError):
        session.ask("select pg_logical_emit_message(false, 'pg_bronze', '')")


def counter(session: Session, oids: Sequence[int]) -> tuple[int, str]:
    """Return how many row versions were written to some relations, and a text that changes when the count restarts."""
    query = f"""select
  coalesce(sum(pg_stat_get_tuples_inserted(o) + pg_stat_get_tuples_updated(o)), 0::numeric)::bigint,
  {COUNTED_SINCE}
from unnest(%(oids)s::oid[]) o"""
    count, since = session.ask(query, {"oids": list(oids)})[0]
    return int(count), str(since)


def sizes(session: Session, oids: Sequence[int]) -> dict[int, int]:
    """Return the bytes of some relations with their TOAST values.

    Those that do not exist, and those that another session has locked or waits to lock exclusively, are left out.
    """
    return {oid: size for oid, size in session.ask(_SIZES, {"oids": list(oids)}) if size is not None}


def cache_blocks(session: Session) -> int:
    """Return the size of the server's shared buffers in blocks."""
    return int(session.ask("select setting from pg_settings where name = 'shared_buffers'")[0][0])


@dataclass(frozen=True)
class OldestTransaction:
    """The oldest open transaction with an id. It holds the horizon back.

    Attributes:
        who: Its session, or its name if it is prepared.
        open_s: The seconds since its begin; None if this role may not see it.
        remedy: The statement that ends it.
    """

    who: str
    open_s: float | None
    remedy: str

    def sentence(self, remedy_after_s: float = 0.0) -> str:
        """Describe it; ``remedy_after_s`` is as in ``holder``."""
        duration = "" if self.open_s is None else f" for {self.open_s:.0f} s"
        end = f"; to end it: {self.remedy}" if (self.open_s or 0.0) >= remedy_after_s else ""
        return f"{self.who} has held the horizon{duration}{end}"


def oldest_transaction(session: Session) -> OldestTransaction | None:
    """Return the oldest open transaction with an id; None if this role can see none."""
    rows = session.ask(_HOLDERS)
    return OldestTransaction(*rows[0]) if rows else None


def holder(session: Session, remedy_after_s: float = 0.0) -> str | None:
    """Describe the transaction that holds the horizon back, for how long, and how to end it.

    Args:
        remedy_after_s: Seconds after which the statement that ends it is named. Most transactions end by themselves.

    Returns:
        A sentence, or None if this role can see no such transaction.
    """
    found = oldest_transaction(session)
    return found.sentence(remedy_after_s) if found else None


def has_session(session: Session, application_name: str) -> bool:
    """Return whether a session is connected whose application name begins with the one given."""
    return bool(session.ask(_HAS_SESSION, {"name": application_name})[0][0])


def sessions(session: Session, application_name: str) -> int:
    """Return how many sessions are connected to this database whose application name begins with the one given."""
    return int(session.ask(_SESSIONS, {"name": application_name})[0][0])
