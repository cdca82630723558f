"""Errors: what can go wrong, and what has to happen before a retry can succeed.

    PgBronzeError
    ├── TransientError            retried automatically at the next tick
    │   ├── SourceUnavailable     the database does not answer, or a read was interrupted
    │   │   └── NoConnectionFree  all connections that PG_BRONZE_MAX_CONNECTIONS allows are in use
    │   ├── StoreUnavailable      the bucket does not answer
    │   ├── StaleSnapshot         a read used a snapshot older than its horizon
    │   ├── TableChanged          the table's definition changed during a read
    │   ├── TableBusy             another run is copying the table
    │   ├── TableLocked           another session's lock keeps the table from being read
    │   ├── SliceTooLarge         a read returned more rows than one slice may hold
    │   └── Superseded            another writer committed the slice first
    ├── OperatorError             somebody has to change something; retried after the fix
    │   ├── SettingsError         a setting is missing, unknown or invalid
    │   ├── AccessDenied          the database or the bucket rejects the credentials or lacks a grant
    │   ├── SourceDamaged         the table is corrupted on disk
    │   ├── SourceNotFit          the source cannot be read exactly (version, encoding, row security)
    │   ├── StoreNotFit           the bucket cannot hold a commit (ignores If-None-Match, is missing or full)
    │   ├── HistoryChanged        the watermark belongs to another database, cluster, timeline or bucket
    │   │   └── StateRestored     an older state of the same cluster was restored; the table stays stopped
    │   ├── NothingCopied         there is no object of the table to read
    │   ├── LakeDamaged           objects are missing, foreign, or do not continue the watermark
    │   ├── FormatTooNew          a newer pg_bronze wrote this watermark, claim or footer
    │   └── TakeoverUndecided     the original system left data, and no setting decides how to treat it
    └── DataError                 a value cannot be stored as its column's type; a retry fails the same way
        └── NotUtf8               a text is not valid UTF-8; a second query finds the column

No I/O, no clock, no Dagster. Each message names the table or setting, what was found, and what to do next. A message
never contains a password, a URL with credentials, or a value of a row.
"""

from typing import ClassVar, Literal

Retry = Literal["automatic", "after_fix", "never"]


class PgBronzeError(Exception):
    """Any error that pg_bronze raises on purpose.

    ``retry`` is what a successful retry requires: nothing (``automatic``), a change by a person (``after_fix``), or it
    cannot succeed (``never``) because the cause is in the data or in pg_bronze. ``scheduling.backoff`` derives the
    pauses between attempts from it.
    """

    retry: ClassVar[Retry] = "after_fix"


class TransientError(PgBronzeError):
    """Retried automatically at the next tick."""

    retry = "automatic"


class SourceUnavailable(TransientError):
    """The source database did not answer, or a read was interrupted."""


class NoConnectionFree(SourceUnavailable):
    """Runs use all connections that ``PG_BRONZE_MAX_CONNECTIONS`` allows. A run leaves its tables to a later tick."""


class StoreUnavailable(TransientError):
    """The bucket did not answer, or returned a server error."""


class StaleSnapshot(TransientError):
    """A read used a snapshot older than its horizon, as on a lagging standby or behind a load balancer."""


class TableChanged(TransientError):
    """The table was altered, renamed, attached, detached or rewritten during a read."""


class TableBusy(TransientError):
    """Another run is copying the table and holds its lock."""


class TableLocked(TransientError):
    """Another session's lock keeps the table from being read, for longer than a run of several tables waits."""


class SliceTooLarge(TransientError):
    """A read returned more rows than one slice may hold; it is repeated in smaller ranges."""


class Superseded(TransientError):
    """Another writer committed this slice first; recovery adopts the other writer's object."""


class OperatorError(PgBronzeError):
    """Somebody has to change something before a retry can succeed."""

    retry = "after_fix"


class SettingsError(OperatorError):
    """A setting is missing, unknown or invalid; the message names it."""


class AccessDenied(OperatorError):
    """The database or the bucket rejects the credentials or lacks a grant."""


class SourceDamaged(OperatorError):
    """The table is corrupted on disk: a page is damaged or a file is missing."""


class SourceNotFit(OperatorError):
    """The source cannot be read exactly, because of its version, its encoding or a row security policy."""


class StoreNotFit(OperatorError):
    """The bucket cannot hold a commit: it ignores ``If-None-Match``, does not exist, or is full."""


class HistoryChanged(OperatorError):
    """The watermark belongs to another database, cluster, timeline or bucket."""


class StateRestored(HistoryChanged):
    """The same cluster was put back to an older state. The table stays stopped when the evidence is gone."""


class NothingCopied(OperatorError):
    """There is no object of the table to read: the name is wrong, or nothing was copied yet."""


class LakeDamaged(OperatorError):
    """Objects of the table are missing, foreign, or do not continue its watermark."""


class FormatTooNew(OperatorError):
    """A newer pg_bronze wrote this watermark, claim or footer; this version does not interpret it."""


class TakeoverUndecided(OperatorError):
    """Objects or a control row of the original system exist, and no setting decides how to treat them."""


class DataError(PgBronzeError):
    """A value cannot be stored as its column's type; every read fails until the value changes."""

    retry = "never"


class NotUtf8(DataError):
    """A text is not valid UTF-8, or has no equivalent in it."""


def retry_of(error: BaseException) -> Retry:
    """Return what a retry requires after any error; an unexpected error is retried automatically."""
    return error.retry if isinstance(error, PgBronzeError) else "automatic"
