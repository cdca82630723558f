"""The history check: whether a watermark still belongs to the database, the bucket and the point in history at hand.

Belongs here: comparing two origins, and the errors that stop a table when they do not match. Does not belong here:
finding out the current origin (``postgres`` does) and what to read (``planning``).
"""

from pg_bronze.core.table import shell_argument
from pg_bronze.core.watermark import ControlVersion, Origin, Watermark
from pg_bronze.core.window_sql import MASK
from pg_bronze.errors import HistoryChanged, PgBronzeError, StaleSnapshot, StateRestored

_STOPPED = "The table is not copied until then."
# Dagster's storage has one asset for each table name, so that two databases in it replace each other's watermarks.
_SHARED = (
    "If two databases share a DAGSTER_HOME, a storage of Dagster or a bucket, set PG_BRONZE_NAME and PG_BRONZE_PREFIX "
    "for one of them."
)


def check_origin(watermark: Watermark, origin: Origin, label: str, standby: bool = False) -> None:
    """Check that a watermark belongs to the current origin.

    Raises:
        HistoryChanged: The bucket, cluster, database or timeline differs.
        StateRestored: A primary was put back to an older state of the same cluster and timeline.
        StaleSnapshot: A standby has not replayed the log up to the watermark. It is retried at the next tick.
    """
    recorded = watermark.origin
    if recorded.bucket != origin.bucket:
        raise bucket_changed(watermark, origin.bucket, label)
    if recorded.database != origin.database and recorded.system_id == origin.system_id:
        raise HistoryChanged(
            f"{label}: the watermark belongs to another database of this cluster (oid {recorded.database}; this one "
            f"has oid {origin.database}). {_SHARED} Otherwise set PG_DB to the former database, or run "
            f"`pg-bronze reset {shell_argument(label)}` to copy the table again. {_STOPPED}"
        )
    if changed := _history_change(recorded, origin):
        raise HistoryChanged(f"{label}: {changed}. {_remedy(label)}")
    if not standby and (restored := _restored(recorded, origin)):
        raise StateRestored(f"{label}: {restored}: an older state was restored. {_remedy(label)}")
    if _lsn(origin.lsn) < _lsn(recorded.lsn):
        raise StaleSnapshot(
            f"{label}: this standby has replayed the log up to {origin.lsn}, and the watermark was made at "
            f"{recorded.lsn}. It lags behind the server that was read before. It is retried at the next tick."
        )


def continues(recorded: Origin, origin: Origin, standby: bool) -> bool:
    """Return whether an origin continues a recorded one; otherwise ``check_origin`` stops the table."""
    if (recorded.bucket, recorded.database) != (origin.bucket, origin.database):
        return False
    return _history_change(recorded, origin) is None and (standby or _restored(recorded, origin) is None)


def _history_change(recorded: Origin, origin: Origin) -> str | None:
    """Describe how cluster or timeline differ; None if they are the same."""
    if recorded.system_id != origin.system_id:
        return (
            f"the watermark belongs to the database cluster {recorded.system_id}, and this is cluster "
            f"{origin.system_id}"
        )
    if recorded.timeline != origin.timeline:
        return (
            f"the database changed from timeline {recorded.timeline} to {origin.timeline}. After a failover or a "
            "restore, transactions that were already copied may be lost"
        )
    return None


def _restored(recorded: Origin, origin: Origin) -> str | None:
    """Describe the evidence that a primary was put back to an older state; None if there is none.

    The log position alone shows it only until the server has written past the recorded one. A server that continues
    the recorded history makes a checkpoint after that position whenever it starts.
    """
    if _lsn(origin.lsn) < _lsn(recorded.lsn):
        return f"the database is at log position {origin.lsn}, before {recorded.lsn} where the watermark was made"
    if origin.checkpoint is None:
        return None
    if recorded.checkpoint is not None and _lsn(origin.checkpoint) < _lsn(recorded.checkpoint):
        return (
            f"the last checkpoint of the database is at log position {origin.checkpoint}, before {recorded.checkpoint} "
            "where it was when the watermark was made"
        )
    restarted = recorded.started is not None and recorded.started != origin.started
    if restarted and _lsn(origin.checkpoint) < _lsn(recorded.lsn):
        return (
            f"the database was started from a state at log position {origin.checkpoint}, before {recorded.lsn} where "
            "the watermark was made"
        )
    return None


def check_control(watermark: Watermark, found: ControlVersion | None, label: str) -> None:
    """Check that the control row is not older than the version that pg_bronze wrote before the watermark's object.

    A later version, another control table and a missing row prove nothing: people and older tools may write the row.

    Raises:
        StateRestored: The row is older.
    """
    if is_older(found, watermark.origin.control):
        raise StateRestored(
            f"{label}: the row of the table in etl_control is older than the one that was written before the last "
            f"object: an older state was restored. {_remedy(label)}"
        )


def is_older(found: ControlVersion | None, written: ControlVersion | None) -> bool:
    """Return whether a version of a control row is older than the one that was written; False if it is of another."""
    if written is None or found is None or (found.database, found.table) != (written.database, written.table):
        return False
    return 0 < (written.xid - found.xid) & MASK < 2**31


def _remedy(label: str) -> str:
    table = shell_argument(label)
    return (
        f"Run `pg-bronze reconcile {table}` to compare both sides and to continue if nothing was lost; "
        f"`pg-bronze continue {table}` if you know that this is the same data (a move with pg_upgrade, a failover "
        f"without loss); or `pg-bronze reset {table}` to copy the table again. {_STOPPED}"
    )


def bucket_changed(watermark: Watermark, bucket: str, label: str) -> HistoryChanged:
    """Return the error for a watermark that belongs to another bucket than ``bucket`` (``bucket/prefix``)."""
    return HistoryChanged(
        f"{label}: the watermark belongs to bucket {watermark.origin.bucket!r}, and this one is {bucket!r}. "
        f"{_SHARED} Otherwise set MINIO_BUCKET and PG_BRONZE_PREFIX to the former ones; or move all objects to this "
        "bucket, with the same prefix, and run `pg-bronze adopt`; or run "
        f"`pg-bronze reset {shell_argument(label)}` to copy the table again to this one. {_STOPPED}"
    )


def horizon_below_watermark(label: str, horizon: int, swept: int, standby: bool) -> PgBronzeError:
    """Return the error for a horizon below ``swept``: HistoryChanged on a primary, StaleSnapshot on a standby."""
    found = f"{label}: the horizon is {horizon}, below {swept}, up to which the table is already copied."
    if standby:
        return StaleSnapshot(
            f"{found} This standby lags behind the server that was read before. It is retried at the next tick."
        )
    return HistoryChanged(
        f"{found} The horizon of a primary never decreases: the database was restored, or its transaction ids were "
        f"reset. Run `pg-bronze reset {shell_argument(label)}` to copy the table again. {_STOPPED}"
    )


def _lsn(text: str) -> int:
    """Return a log position ``X/Y`` as a number."""
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) | int(low, 16)
