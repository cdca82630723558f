"""What can go wrong, and who can cure it.

    PgBronzeError
    ├── TransientError            the next tick may cure it by itself
    │   ├── SourceUnavailable     the database does not answer, or a read was cut off
    │   ├── StoreUnavailable      the bucket does not answer
    │   ├── StaleSnapshot         a read saw an older state of the database than its horizon
    │   ├── TableChanged          the table's definition moved while it was read
    │   ├── SliceTooLarge         a read was given up because its rows are more than one slice may hold
    │   └── Superseded            another writer committed the slice first
    ├── OperatorError             a person has to change something; until then every tick says so again
    │   ├── SettingsError         a setting is missing, unknown or wrong
    │   ├── AccessDenied          the database or the bucket refuses the credentials or the right
    │   ├── SourceDamaged         the database cannot read what it stored
    │   ├── SourceNotFit          the source cannot be read exactly (version, encoding, row security)
    │   ├── StoreNotFit           the bucket cannot hold a commit (ignores If-None-Match, is gone or full)
    │   ├── HistoryChanged        another database, cluster, timeline or bucket than the watermark's
    │   ├── NothingCopied         there is no object of the table to read
    │   ├── LakeDamaged           objects are gone, foreign, or do not continue the watermark
    │   ├── FormatTooNew          a newer pg_bronze wrote this watermark, claim or footer
    │   └── TakeoverUndecided     the original system's traces are there, and nobody said what they mean
    └── DataError                 a value cannot be written as its column's type: no retry ever cures that
        └── NotUtf8               a text cannot be read as UTF-8; asking again tells in which column

No I/O, no clock, no Dagster. Messages name the table or setting, what was found and what to do next;
they never hold a password, a URL with credentials, or a value of a row.
"""

from typing import ClassVar, Literal

Cure = Literal["next tick", "operator", "never"]


class PgBronzeError(Exception):
    """Any error pg_bronze raises on purpose.

    ``cure`` says who can heal it: the ``next tick`` may, only an ``operator`` can, or trying again ``never`` does,
    because what is wrong is in the data or in pg_bronze itself. ``retries`` makes the pauses between tries from it.
    """

    cure: ClassVar[Cure] = "operator"


class TransientError(PgBronzeError):
    """The next tick may cure it."""

    cure = "next tick"


class SourceUnavailable(TransientError):
    """The source database did not answer, or cut a read off."""


class StoreUnavailable(TransientError):
    """The bucket did not answer, or answered with a server fault."""


class StaleSnapshot(TransientError):
    """A read's snapshot is older than its horizon: a lagging standby or a pooler stands in between."""


class TableChanged(TransientError):
    """The table was altered, renamed, attached, detached or rewritten while it was being read."""


class SliceTooLarge(TransientError):
    """A read's rows are more than one slice may hold: smaller ranges have to be asked for."""


class Superseded(TransientError):
    """Another writer committed this slice first; recovering adopts what it wrote."""


class OperatorError(PgBronzeError):
    """A person has to change something before this can work."""

    cure = "operator"


class SettingsError(OperatorError):
    """A setting is missing, unknown or wrong; the message names it."""


class AccessDenied(OperatorError):
    """The database or the bucket refuses the credentials or the right."""


class SourceDamaged(OperatorError):
    """The database cannot read what it stored of the table: a page is damaged or a file is missing."""


class SourceNotFit(OperatorError):
    """The source cannot be read exactly: its version, its encoding or a row security policy is in the way."""


class StoreNotFit(OperatorError):
    """The bucket cannot hold a commit: it ignores ``If-None-Match``, does not exist, or its server is full."""


class HistoryChanged(OperatorError):
    """The watermark belongs to another database, cluster, timeline or bucket."""


class NothingCopied(OperatorError):
    """There is no object of the table to read: a wrong name, or nothing was copied yet."""


class LakeDamaged(OperatorError):
    """Objects of the table are gone, foreign, or do not continue its watermark."""


class FormatTooNew(OperatorError):
    """A newer pg_bronze wrote this watermark, claim or footer; this one must not guess."""


class TakeoverUndecided(OperatorError):
    """The original system's objects or control row are there, and no setting says what they mean."""


class DataError(PgBronzeError):
    """A value cannot be written as its column's type; as long as it stands there, every read meets it again."""

    cure = "never"


def cure_of(error: BaseException) -> Cure:
    """Who can cure any error; one that is not ours is a fault nobody foresaw, and may be gone by the next tick."""
    return error.cure if isinstance(error, PgBronzeError) else "next tick"


class NotUtf8(DataError):
    """A text is not valid UTF-8, or has no equivalent in it."""
