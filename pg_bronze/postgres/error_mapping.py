"""Error mapping: what PostgreSQL, psycopg and connectorx report, as the errors of pg_bronze.

Errors of the server are mapped by SQLSTATE, whatever the language of its messages (``lc_messages``). Nothing is decided
by the words of a server's message, and only messages that cannot contain a value of a row are repeated. Three texts of
pg_bronze itself, ``TOO_LARGE``, ``STALE`` and ``OTHER_SERVER``, are the exception: its queries make the server quote
them. Failed logins are mapped in ``login_errors``.

No connection is opened here.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import psycopg

from pg_bronze.core.table import quote, split_label
from pg_bronze.core.window_sql import STALE, TOO_LARGE
from pg_bronze.errors import (
    AccessDenied,
    DataError,
    NotUtf8,
    PgBronzeError,
    Retry,
    SliceTooLarge,
    SourceDamaged,
    SourceNotFit,
    SourceUnavailable,
    StaleSnapshot,
    TableChanged,
    TableLocked,
)
from pg_bronze.postgres.server_identity import OTHER_SERVER


class Case(NamedTuple):
    """One finding: the error to raise, and a text of what was found with ``{detail}`` and ``{table}`` to fill in."""

    error: type[PgBronzeError]
    text: str


_RETRIES: Mapping[Retry, str] = {
    "automatic": "It is retried at the next tick.",
    "after_fix": "It is retried after the fix.",
    "never": "A retry fails until then.",
}

# Reads of a slice.
_TOO_LARGE = Case(SliceTooLarge, "the window has more rows than one slice may hold. It is read in block ranges.")
_STALE = Case(
    StaleSnapshot,
    "the read used a snapshot older than its horizon, as behind a pooler that distributes over replicas or on a "
    "lagging standby. Nothing was copied.",
)
_OTHER_SERVER = Case(
    SourceUnavailable,
    "the read reached another server, timeline or database than the one that the horizon came from, as after a "
    "failover or behind a name or proxy with several servers. Nothing was copied.",
)
_FILTERED = Case(
    SourceNotFit,
    "a row security policy would hide rows from this role. Grant it bypassrls, or exclude the table "
    "(PG_BRONZE_EXCLUDE).",
)
_FORBIDDEN = Case(
    AccessDenied,
    "the role may not read the table ({detail}). Run: grant select on {table} to the role. If a function, a type or a "
    "schema is named in parentheses, grant execute or usage on it.",
)
_ALTERED = Case(TableChanged, "the table was dropped, renamed or altered during the read.")
_CANCELED = Case(
    SourceUnavailable,
    "the read was canceled, by its time limit or by a conflict with recovery. Raise PG_BRONZE_STATEMENT_TIMEOUT_S if "
    "it needs longer, or end the session that has locked the table.",
)
_NOT_UTF8 = Case(
    NotUtf8,
    "a text is not valid UTF-8, or has no equivalent in it. Correct it in the source, or exclude the table "
    "(PG_BRONZE_EXCLUDE).",
)
_UNDECODABLE = Case(
    DataError, "connectorx cannot decode a value. Exclude the table (PG_BRONZE_EXCLUDE) and report its column types."
)
_DAMAGED = Case(
    SourceDamaged,
    "the table is corrupted on disk: a page is damaged or a file is missing. The server's log names the place. Restore "
    "the table from a backup or a standby, or exclude it (PG_BRONZE_EXCLUDE).",
)
_NO_ROOM = Case(
    SourceUnavailable,
    "the server has too little memory or disk space for the read. The server's log names which.",
)
_VALUE = Case(
    DataError,
    "an expression fails for a row (SQLSTATE {detail}): of a generated column, a cast or a function of a type. Correct "
    "the row or the expression, or exclude the table (PG_BRONZE_EXCLUDE).",
)
_FAILED = Case(
    SourceUnavailable, "PostgreSQL ended the read with an error (SQLSTATE {detail}). The server's log has the message."
)
_LOCKED = Case(
    TableLocked,
    "another session holds or waits for a lock that keeps the table from being read, as ALTER TABLE and VACUUM FULL "
    "do.",
)
_INTERRUPTED = Case(
    SourceUnavailable,
    "the read was canceled or interrupted, as by a lost connection, an administrator or a conflict with recovery. The "
    "same read did not fail again at once.",
)
_BROKEN = Case(SourceUnavailable, "the connection to PostgreSQL was lost during the read, or could not be made for it.")
# SQLSTATEs as in the manual's appendix A. A conflict with recovery is a serialization failure (40001, 40P01).
_DAMAGED_STATES = ("XX001", "XX002", "58030", "58P01")
_SLICE_STATES: Mapping[str, Case] = {
    **dict.fromkeys(("42P01", "42703", "42704", "42883", "3F000"), _ALTERED),
    **dict.fromkeys(("57014", "40001", "40P01"), _CANCELED),
    "55P03": _LOCKED,
    **dict.fromkeys(("22021", "22P05"), _NOT_UTF8),
    **dict.fromkeys(_DAMAGED_STATES, _DAMAGED),
    **dict.fromkeys(("53100", "53200", "53400"), _NO_ROOM),
    **dict.fromkeys(("", "57P01", "57P02", "57P03", "57P05", "25P03"), _BROKEN),
    "42501": _FORBIDDEN,
}
# By the first two characters, where the whole SQLSTATE is not listed. Of the last ones most are raised by functions of
# users, 54 is an expression that is too complex.
_SLICE_CLASSES: Mapping[str, Case] = {
    "08": _BROKEN,
    "53": _NO_ROOM,
    **dict.fromkeys(("22", "23", "2F", "38", "39", "54", "P0"), _VALUE),
}
# Insufficient resources, a changed definition, a lost connection and the like. Functions of users raise the others.
_WITHOUT_VALUES = frozenset({"", "08", "25", "40", "42", "53", "54", "55", "57", "58", "XX"})
# Texts of pg_bronze that its queries cast to a number: the server quotes them with the SQLSTATE of an invalid text.
_INVALID_TEXT = "22P02"
_MARKERS: Sequence[tuple[str, Case]] = ((TOO_LARGE, _TOO_LARGE), (STALE, _STALE), (OTHER_SERVER, _OTHER_SERVER))

# Statements on the kept connection.
_STATEMENT_DENIED = Case(AccessDenied, "the server denied a statement ({detail}). Grant the right to the role.")
_STATEMENT_ALTERED = Case(TableChanged, "a table or column no longer exists ({detail}).")
_STATEMENT_NOT_UTF8 = Case(
    NotUtf8, "a name, a comment or a label is not valid UTF-8. Rename it, or set the comment or label again."
)
_STATEMENT_ENDED = Case(SourceUnavailable, "the server ended a statement ({detail}).")
_STATEMENT_CANCELED = Case(
    SourceUnavailable,
    "a statement was canceled, by its time limit or by an administrator. Raise PG_BRONZE_STATEMENT_TIMEOUT_S if it "
    "needs longer, or end the session that has locked the table.",
)
_STATEMENT_STATES: Mapping[str, Case] = {
    **dict.fromkeys(_DAMAGED_STATES, _DAMAGED),
    **dict.fromkeys(("42P01", "42703", "42704"), _STATEMENT_ALTERED),
    **dict.fromkeys(("22021", "22P05"), _STATEMENT_NOT_UTF8),
    "42501": _STATEMENT_DENIED,
    "57014": _STATEMENT_CANCELED,
    "55P03": _LOCKED,
}


def explain(error: psycopg.Error, name: str) -> PgBronzeError:
    """Return our error for a statement that failed on the kept connection.

    Args:
        name: The server or the table that the statement was about; the message begins with it.
    """
    state = error.sqlstate or ""
    if state == "42501":
        return error_of(_STATEMENT_DENIED, name, _denied(error))
    if state == _INVALID_TEXT and STALE in str(error):
        return error_of(_STALE, name)
    return error_of(_STATEMENT_STATES.get(state, _STATEMENT_ENDED), name, state or type(error).__name__)


def explain_sqlstate(error: psycopg.Error, label: str) -> PgBronzeError:
    """Return our error for a slice of table ``label`` that psycopg could not read."""
    state = error.sqlstate or ""
    if state == _INVALID_TEXT and (found := explain_marker(error, label)):
        return found
    if state == "42501":
        # The routine of the server that raised it; a missing right has the same SQLSTATE.
        filtered = error.diag.source_function == "check_enable_rls"
        return _slice_error(_FILTERED if filtered else _FORBIDDEN, label, _denied(error))
    case = _SLICE_STATES.get(state) or _SLICE_CLASSES.get(state[:2], _FAILED)
    return _slice_error(case, label, state)


def shown_cause(error: Exception) -> Exception | None:
    """Return the error itself if it may be shown as the cause of ours; None if its text may quote the value of a row.

    Dagster stores the text of every cause. A server's error is shown if its class (the first two characters of the
    SQLSTATE) is about the server, the connection or the definition of a table.
    """
    if isinstance(error, psycopg.Error):
        return error if (error.sqlstate or "")[:2] in _WITHOUT_VALUES else None
    # connectorx does not tell the SQLSTATE. It puts these words in front of every text of the server.
    return None if "db error" in str(error) else error


def explain_marker(error: BaseException, label: str) -> PgBronzeError | None:
    """Return our error if a text of pg_bronze made a read of table ``label`` fail on purpose, else None."""
    text = str(error)
    return next((_slice_error(case, label) for marker, case in _MARKERS if marker in text), None)


def canceled(label: str) -> PgBronzeError:
    """Return our error for a read of table ``label`` that took as long as it may."""
    return _slice_error(_CANCELED, label)


def locked(label: str) -> PgBronzeError:
    """Return our error for a read of table ``label`` that waited for a lock for as long as it may."""
    return _slice_error(_LOCKED, label)


def interrupted(label: str) -> PgBronzeError:
    """Return our error for a read of table ``label`` that failed once and not again."""
    return _slice_error(_INTERRUPTED, label)


def undecodable(label: str) -> PgBronzeError:
    """Return our error for rows of table ``label`` that connectorx cannot decode and psycopg can."""
    return _slice_error(_UNDECODABLE, label)


def explain_failing_column(label: str, column: str, error: PgBronzeError) -> DataError:
    """Return ``error``, the failure of an expression of table ``label``, with the name of the column."""
    return DataError(f"{label}: column {column!r}: {str(error).removeprefix(f'{label}: ')}")


def explain_bad_texts(label: str, found: Mapping[str, int]) -> NotUtf8:
    """Return our error for texts that are not UTF-8, with the number of such rows by column name."""
    columns = ", ".join(f"{column!r} ({count:,} row{'' if count == 1 else 's'})" for column, count in found.items())
    return NotUtf8(
        f"{label}: texts are not valid UTF-8 in column {columns}. The database's encoding, SQL_ASCII, accepts any "
        "bytes. Correct them in the source: if they are LATIN1, set the column to convert_from(convert(convert_to("
        "column, 'SQL_ASCII'), 'LATIN1', 'UTF8'), 'SQL_ASCII'). Or exclude the table (PG_BRONZE_EXCLUDE). "
        f"{_RETRIES[NotUtf8.retry]}"
    )


def error_of(case: Case, name: str, detail: str = "", table: str = "") -> PgBronzeError:
    """Return the error of a case; its message begins with ``name`` and ends with whether it is retried."""
    return case.error(f"{name}: {case.text.format(detail=detail, table=table)} {_RETRIES[case.error.retry]}")


def _denied(error: psycopg.Error) -> str:
    """Return the server's message about a missing right, which names an object and never a value."""
    routine, message = error.diag.source_function or "", error.diag.message_primary
    # A user's function may raise this SQLSTATE with any text.
    return message[:120] if message and routine.startswith("aclcheck_error") else "SQLSTATE 42501"


def _slice_error(case: Case, label: str, detail: str = "") -> PgBronzeError:
    # Quoted, because a name can be a key word.
    return error_of(case, label, detail, ".".join(map(quote, split_label(label))))
