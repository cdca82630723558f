"""Error mapping: what PostgreSQL, psycopg and connectorx report, as the errors of pg_bronze.

psycopg's errors are mapped by SQLSTATE, connectorx's and failed logins by their text; the first match counts. The
server's own text may quote values of rows and is not repeated. No connection is opened here.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import psycopg

from pg_bronze.core.table import quote, split_label
from pg_bronze.core.window_sql import TOO_LARGE
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
)


class Case(NamedTuple):
    """One finding: the error to raise, and what was found with the remedy. ``{detail}`` is filled in."""

    error: type[PgBronzeError]
    text: str


_RETRIES: Mapping[Retry, str] = {
    "automatic": "It is retried at the next tick.",
    "after_fix": "It is retried after the fix.",
    "never": "A retry fails until then.",
}

# Failed logins, by libpq's text. It may hold the attempts at several hosts.
_LOGIN: Sequence[tuple[str, Case]] = (
    (
        "password authentication failed|no password supplied",
        Case(AccessDenied, "the server rejected the user name or password. Check PG_USER and PG_PASS."),
    ),
    (
        'database ".*" does not exist|no such database',  # the second is pgbouncer's
        Case(AccessDenied, "the database does not exist. Check PG_DB."),
    ),
    ('role ".*" does not exist', Case(AccessDenied, "the role does not exist. Check PG_USER.")),
    (
        r"pg_hba\.conf",
        Case(
            AccessDenied,
            "pg_hba.conf on the server has no entry that admits this user from this host. Add an entry, or check "
            "PG_SSLMODE.",
        ),
    ),
    (
        "does not match host name",
        Case(
            AccessDenied,
            "the server's certificate is for another host name. Set PG_HOST to the name in the certificate, or set "
            "PG_SSLMODE to verify-ca, which does not check the name.",
        ),
    ),
    (
        "certificate|SSL",
        Case(AccessDenied, "the encrypted connection could not be made. Check PG_SSLMODE and PG_SSLROOTCERT."),
    ),
    (
        "too many clients|remaining connection slots|too many connections",
        Case(
            SourceUnavailable,
            "the server has no free connection for this role or database. Raise its connection limit, or end sessions.",
        ),
    ),
    (
        "(?i:name or service not known|name resolution)|translate host",
        Case(SourceUnavailable, "the host name cannot be resolved. Check PG_HOST."),
    ),
    (
        "starting up|shutting down|recovery",
        Case(SourceUnavailable, "the server is starting up, shutting down or in recovery."),
    ),
)
# Other logins that a server refused, by its last FATAL message. It is repeated: poolers and providers have messages of
# their own, and a login involves no values of rows.
_REFUSED: Sequence[tuple[str, Case]] = (
    (
        "is not permitted to log in|permission denied for database|not currently accepting connections",
        Case(
            AccessDenied,
            "the server does not admit this role to the database ({detail}). Grant login and connect to it, or check "
            "PG_USER and PG_DB.",
        ),
    ),
    ("", Case(SourceUnavailable, "PostgreSQL, or a proxy in front of it, refused the connection ({detail}).")),
)
_UNREACHABLE = Case(
    SourceUnavailable,
    "no connection to PostgreSQL. Check that the server is running, and that PG_HOST and PG_PORT are right.",
)

# Reads of a slice.
_TOO_LARGE = Case(SliceTooLarge, "the window has more rows than one slice may hold. It is read in block ranges.")
_STALE = Case(
    StaleSnapshot,
    "the read used a snapshot older than its horizon, as behind a pooler that distributes over replicas or on a "
    "lagging standby. Nothing was copied.",
)
_FILTERED = Case(
    SourceNotFit,
    "a row security policy would hide rows from this role. Grant it bypassrls, or exclude the table "
    "(PG_BRONZE_EXCLUDE).",
)
_FORBIDDEN = Case(AccessDenied, "the role may not read the table. Run: grant select on {detail} to the role.")
_ALTERED = Case(TableChanged, "the table was dropped, renamed or altered during the read.")
_CANCELED = Case(
    SourceUnavailable,
    "the read was canceled, by its time limit or by a conflict with recovery. Raise PG_BRONZE_STATEMENT_TIMEOUT_S if "
    "it needs longer.",
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
_FAILED = Case(SourceUnavailable, "PostgreSQL ended the read with an error. The server's log has the message.")
_BROKEN = Case(SourceUnavailable, "the connection to PostgreSQL was lost during the read, or could not be made for it.")
# SQLSTATEs as in the manual's appendix A. A conflict with recovery is a serialization failure (40001, 40P01).
_DAMAGED_STATES = ("XX001", "XX002", "58030", "58P01")
_SLICE_STATES: Mapping[str, Case] = {
    **dict.fromkeys(("42P01", "42703", "42704", "42883", "3F000"), _ALTERED),
    **dict.fromkeys(("57014", "40001", "40P01"), _CANCELED),
    **dict.fromkeys(("22021", "22P05"), _NOT_UTF8),
    **dict.fromkeys(_DAMAGED_STATES, _DAMAGED),
    **dict.fromkeys(("53100", "53200", "53400"), _NO_ROOM),
    **dict.fromkeys(("", "57P01", "57P02", "57P03", "57P05"), _BROKEN),
    "42501": _FORBIDDEN,
}
# What only the message tells, also where there is a SQLSTATE.
_SLICE_TEXTS: Sequence[tuple[str, Case]] = (
    (re.escape(TOO_LARGE), _TOO_LARGE),
    ("older than horizon", _STALE),
    ("row-level security|row security", _FILTERED),
)
# From PostgreSQL 18's bufmgr.c, md.c, slru.c, toast_internals.c and detoast.c.
_DAMAGE = (
    r"ERROR: (invalid page in block|could not (open file|read blocks?|access status of transaction)|"
    r"(missing|unexpected) chunk number|compressed \w+ data is corrupt)"
)
# connectorx's errors, by type and text: it reports no SQLSTATE.
_CONNECTORX: Sequence[tuple[str, Case]] = (
    *_SLICE_TEXTS,
    ("permission denied", _FORBIDDEN),
    # The rule table requests no value that is too large, unless the column was altered after the catalog was read.
    ("does not exist|too large to decode|decimal", _ALTERED),
    ("statement timeout|canceling statement", _CANCELED),
    ("invalid byte sequence|invalid utf-8|has no equivalent in encoding", _NOT_UTF8),
    (r"\APanicException: ", _UNDECODABLE),
    (_DAMAGE, _DAMAGED),
    ("ERROR: (out of memory|temporary file size exceeds|.*No space left on device)", _NO_ROOM),
    (r"\A\w+: db error: (?!FATAL|PANIC)", _FAILED),
    ("", _BROKEN),
)

# Statements on the kept connection.
_STATEMENT_DENIED = Case(AccessDenied, "the server denied a statement ({detail}). Grant the right to the role.")
_STATEMENT_ALTERED = Case(TableChanged, "a table or column no longer exists ({detail}).")
_STATEMENT_ENDED = Case(SourceUnavailable, "the server ended a statement ({detail}).")
_STATEMENT_CANCELED = Case(
    SourceUnavailable,
    "a statement was canceled, by its time limit or by an administrator. Raise PG_BRONZE_STATEMENT_TIMEOUT_S if it "
    "needs longer.",
)
_STATEMENT_STATES: Mapping[str, Case] = {
    **dict.fromkeys(_DAMAGED_STATES, _DAMAGED),
    **dict.fromkeys(("42P01", "42703", "42704"), _STATEMENT_ALTERED),
    "42501": _STATEMENT_DENIED,
    "57014": _STATEMENT_CANCELED,
}


def explain_connection(error: psycopg.OperationalError, name: str) -> PgBronzeError:
    """Return our error for a connection to ``name`` that could not be made."""
    text = str(error)
    reasons = re.findall(r"FATAL:\s+(.+)", text)
    reason = reasons[-1] if reasons else ""
    case = _first(_LOGIN, text) or (_first(_REFUSED, reason) if reasons else None) or _UNREACHABLE
    return _error(case, name, reason[:200])


def explain(error: psycopg.Error, name: str) -> PgBronzeError:
    """Return our error for a statement that failed on the kept connection.

    Args:
        name: The server or the table that the statement was about; the message begins with it.
    """
    state = error.sqlstate or ""
    if state == "42501":  # of all messages the one that names an object and never a value
        return _error(_STATEMENT_DENIED, name, (error.diag.message_primary or "permission denied")[:120])
    if state not in _STATEMENT_STATES and "older than horizon" in str(error):
        return _error(_STALE, name)
    return _error(_STATEMENT_STATES.get(state, _STATEMENT_ENDED), name, state or type(error).__name__)


def explain_sqlstate(error: psycopg.Error, label: str) -> PgBronzeError:
    """Return our error for a slice of table ``label`` that psycopg could not read."""
    state = error.sqlstate or ""
    default = _BROKEN if state.startswith("08") else _FAILED
    return _slice_error(_first(_SLICE_TEXTS, str(error)) or _SLICE_STATES.get(state, default), label)


def explain_connectorx(error: BaseException, label: str) -> PgBronzeError:
    """Return our error for a slice of table ``label`` that connectorx could not read."""
    return _slice_error(_first(_CONNECTORX, f"{type(error).__name__}: {error}") or _BROKEN, label)


def explain_bad_texts(label: str, found: Mapping[str, int]) -> NotUtf8:
    """Return our error for texts that are not UTF-8, with the number of such rows by column name."""
    columns = ", ".join(f"{column!r} ({count:,} row{'' if count == 1 else 's'})" for column, count in found.items())
    return NotUtf8(
        f"{label}: texts are not valid UTF-8 in column {columns}. The database's encoding, SQL_ASCII, accepts any "
        "bytes. Correct them in the source: if they are LATIN1, set the column to convert_from(convert(convert_to("
        "column, 'SQL_ASCII'), 'LATIN1', 'UTF8'), 'SQL_ASCII'). Or exclude the table (PG_BRONZE_EXCLUDE). "
        f"{_RETRIES[NotUtf8.retry]}"
    )


def _first(cases: Sequence[tuple[str, Case]], text: str) -> Case | None:
    return next((case for pattern, case in cases if re.search(pattern, text)), None)


def _error(case: Case, name: str, detail: str = "") -> PgBronzeError:
    return case.error(f"{name}: {case.text.format(detail=detail)} {_RETRIES[case.error.retry]}")


def _slice_error(case: Case, label: str) -> PgBronzeError:
    # Quoted, because a name can be a key word.
    return _error(case, label, ".".join(map(quote, split_label(label))) if case is _FORBIDDEN else "")
