"""Refusals: what PostgreSQL, psycopg and connectorx say when something does not work, as our errors.

The words of the server may quote values of rows and are never repeated; cases are told apart by SQLSTATE, and by words
where there is nothing else. No connection is made here.
"""

import re
from collections.abc import Mapping

import psycopg

from pg_bronze.core.table import quote, split_label
from pg_bronze.core.window_sql import TOO_LARGE
from pg_bronze.errors import (
    AccessDenied,
    DataError,
    NotUtf8,
    PgBronzeError,
    SliceTooLarge,
    SourceDamaged,
    SourceNotFit,
    SourceUnavailable,
    StaleSnapshot,
    TableChanged,
)

_PLAIN = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?")
# SQLSTATEs as in the manual's appendix A: what is stored cannot be read, the machine has no room, the session ended.
_DAMAGED = {"XX001", "XX002", "58030", "58P01"}
_NO_ROOM = {"53100", "53200", "53400"}
_ENDED = {"", "57P01", "57P02", "57P03", "57P05"}
_DAMAGED_WORDS = re.compile(
    r"ERROR: (invalid page in block|could not (open file|read blocks?|access status of transaction)"
    r"|(missing|unexpected) chunk number|compressed \w+ data is corrupt)"
)
_NO_ROOM_WORDS = re.compile(r"ERROR: (out of memory|temporary file size exceeds|.*No space left on device)")
_FAILED_WORDS = re.compile(r"db error: (?!FATAL|PANIC)")
_KEPT_OUT = ("is not permitted to log in", "permission denied for database", "not currently accepting connections")


def explain_connection(error: psycopg.OperationalError, name: str) -> PgBronzeError:
    """Our error for a connection that could not be made.

    libpq's text tells cases apart. Of it only what a server said when it refused is repeated, where no sentence of ours
    says it better: poolers and hosts have words of their own, and a login has no values of rows yet.
    """
    text = str(error)
    refused = re.findall(r"FATAL:\s+(.+)", text)
    if "password authentication failed" in text or "no password supplied" in text:
        return AccessDenied(f"{name}: the server refused the user or password. Check PG_USER and PG_PASS.")
    # The second is pgbouncer's.
    if re.search(r'database ".*" does not exist|no such database', text):
        return AccessDenied(f"{name}: there is no such database. Check PG_DB.")
    if re.search(r'role ".*" does not exist', text):
        return AccessDenied(f"{name}: there is no such role. Check PG_USER.")
    if "pg_hba.conf" in text:
        return AccessDenied(
            f"{name}: the server's pg_hba.conf does not let this user in from here. Add a line for it, or "
            "check PG_SSLMODE."
        )
    if "does not match host name" in text:
        return AccessDenied(
            f"{name}: the server's certificate is for another host name. Write PG_HOST as the certificate does; "
            "PG_SSLMODE verify-ca does without the name."
        )
    if "certificate" in text or "SSL" in text:
        return AccessDenied(f"{name}: the encrypted connection could not be made. Check PG_SSLMODE and PG_SSLROOTCERT.")
    if any(words in text for words in ("too many clients", "remaining connection slots", "too many connections")):
        return SourceUnavailable(
            f"{name}: the server has no free connection for this role or database. Raise its limit, or end "
            "sessions; the next tick tries again."
        )
    if "name or service not known" in text.lower() or "name resolution" in text.lower() or "translate host" in text:
        return SourceUnavailable(f"{name}: the host name cannot be resolved. Check PG_HOST; the next tick tries again.")
    if "starting up" in text or "shutting down" in text or "recovery" in text:
        return SourceUnavailable(f"{name}: the server is starting or stopping. The next tick tries again.")
    if refused and any(words in refused[-1] for words in _KEPT_OUT):
        return AccessDenied(
            f"{name}: the server does not let this role into the database ({refused[-1][:200]}). Grant it login and "
            "connect, or check PG_USER and PG_DB."
        )
    if refused:
        return SourceUnavailable(
            f"{name}: PostgreSQL, or what stands before it, refused the connection ({refused[-1][:200]}); the next "
            "tick tries again."
        )
    return SourceUnavailable(
        f"{name}: no connection to PostgreSQL. Check that it is up and that PG_HOST and PG_PORT are right; "
        "the next tick tries again."
    )


def explain(error: psycopg.Error, name: str) -> PgBronzeError:
    """Our error for a failed statement, from its SQLSTATE; the server's text may quote values and is not repeated."""
    state = error.sqlstate or ""
    if state == "42501":
        return AccessDenied(f"{name}: the role may not read this ({_first_words(error)}). Grant select to it.")
    if state in _DAMAGED:
        return _damaged(name)
    if state in {"42P01", "42703", "42704"}:
        return TableChanged(f"{name}: a table or column is not there any more ({state}); the next tick looks again.")
    if state == "57014":
        return SourceUnavailable(
            f"{name}: a statement was cancelled, by its time limit or an administrator. "
            "Raise PG_BRONZE_STATEMENT_TIMEOUT_S if it needs longer; the next tick tries again."
        )
    if "older than horizon" in str(error):
        return StaleSnapshot(
            f"{name}: a read saw an older state of the database than its horizon; the next tick tries again."
        )
    return SourceUnavailable(
        f"{name}: the server ended the statement ({state or type(error).__name__}); the next tick tries again."
    )


def _first_words(error: psycopg.Error) -> str:
    """The part of a permission error that names the object: PostgreSQL puts no row value into it."""
    primary = error.diag.message_primary or "permission denied"
    return primary[:120]


def explain_state(error: psycopg.Error, label: str) -> PgBronzeError:
    """Our error for a slice that could not be read, from its SQLSTATE; the server's words may quote values."""
    state = error.sqlstate or ""
    text = str(error)
    if TOO_LARGE in text:
        return SliceTooLarge(f"{label}: a window holds more than one slice may; it is read in block ranges.")
    if "older than horizon" in text:
        return _stale(label)
    if state == "42501":
        return _hidden(label) if "row-level security" in text or "row security" in text else _forbidden(label)
    if state in {"42P01", "42703", "42704", "42883", "3F000"}:
        return _altered(label)
    # A conflict with recovery is a serialization failure to PostgreSQL.
    if state in {"57014", "40001", "40P01"}:
        return _cancelled(label)
    if state in {"22021", "22P05"}:
        return _not_utf8(label)
    if state in _DAMAGED:
        return _damaged(label)
    if state in _NO_ROOM:
        return _no_room(label)
    return _broken(label) if state in _ENDED or state.startswith("08") else _failed(label)


def explain_text(error: BaseException, label: str) -> PgBronzeError:
    """The same for connectorx, which gives text only."""
    text = str(error)
    if TOO_LARGE in text:
        return SliceTooLarge(f"{label}: a window holds more than one slice may; it is read in block ranges.")
    if "older than horizon" in text:
        return _stale(label)
    if "row-level security" in text or "row security" in text:
        return _hidden(label)
    if "permission denied" in text:
        return _forbidden(label)
    if "does not exist" in text:
        return _altered(label)
    if "too large to decode" in text or "decimal" in text:
        # The rule table sends no such value: only a column altered between two looks does.
        return _altered(label)
    if "statement timeout" in text or "canceling statement" in text:
        return _cancelled(label)
    if "invalid byte sequence" in text or "invalid utf-8" in text or "has no equivalent in encoding" in text:
        return _not_utf8(label)
    if type(error).__name__ == "PanicException":
        return DataError(f"{label}: the reader gave up on a value it cannot decode. Exclude the table and report it.")
    if _DAMAGED_WORDS.search(text):
        return _damaged(label)
    if _NO_ROOM_WORDS.search(text):
        return _no_room(label)
    return _failed(label) if _FAILED_WORDS.match(text) else _broken(label)


def _stale(label: str) -> StaleSnapshot:
    return StaleSnapshot(
        f"{label}: the read saw an older state of the database than its horizon, as behind a pooler that spreads "
        "over replicas or on a standby that lags. Nothing was copied; the next tick tries again."
    )


def _hidden(label: str) -> SourceNotFit:
    return SourceNotFit(
        f"{label}: a row security policy would hide rows from this role. Grant it bypassrls, or exclude the table "
        "(PG_BRONZE_EXCLUDE)."
    )


def _forbidden(label: str) -> AccessDenied:
    # SQL folds case and knows words of its own, so only what needs no quotes for certain goes without.
    table = label if _PLAIN.fullmatch(label) else ".".join(map(quote, split_label(label)))
    return AccessDenied(f"{label}: the role may not read it. Run: grant select on {table} to the role.")


def _altered(label: str) -> TableChanged:
    return TableChanged(f"{label}: it was dropped, renamed or altered while it was read; the next tick looks again.")


def _cancelled(label: str) -> SourceUnavailable:
    return SourceUnavailable(
        f"{label}: the read was cancelled, by its time limit or a conflict with recovery. Raise "
        "PG_BRONZE_STATEMENT_TIMEOUT_S if it needs longer; the next tick tries again."
    )


def _not_utf8(label: str) -> NotUtf8:
    return NotUtf8(
        f"{label}: a text is not valid UTF-8, or has no equivalent in it. Correct it in the source, or exclude the "
        "table (PG_BRONZE_EXCLUDE)."
    )


def explain_bad_texts(label: str, found: Mapping[str, int]) -> NotUtf8:
    """Our error for texts that are not UTF-8, once it is known how many rows have them in which column."""
    named = ", ".join(f"{column!r} ({count} row{'' if count == 1 else 's'})" for column, count in found.items())
    return NotUtf8(
        f"{label}: texts are not valid UTF-8 in column {named}; the database's encoding, SQL_ASCII, lets in any bytes. "
        "Correct them in the source: if they are LATIN1, set the column to convert_from(convert(convert_to(column, "
        "'SQL_ASCII'), 'LATIN1', 'UTF8'), 'SQL_ASCII'). Or exclude the table (PG_BRONZE_EXCLUDE)."
    )


def _damaged(label: str) -> SourceDamaged:
    return SourceDamaged(
        f"{label}: PostgreSQL cannot read what it stored of it: a page is damaged, or a file is missing. Its log names "
        "the place. Restore the table from a backup or a standby, or exclude it (PG_BRONZE_EXCLUDE)."
    )


def _no_room(label: str) -> SourceUnavailable:
    return SourceUnavailable(
        f"{label}: the server has too little memory or disk for the read; its log says which. The next tick tries "
        "again."
    )


def _failed(label: str) -> SourceUnavailable:
    return SourceUnavailable(
        f"{label}: PostgreSQL ended the read with an error. Its log says which; the next tick tries again."
    )


def _broken(label: str) -> SourceUnavailable:
    return SourceUnavailable(
        f"{label}: the connection to PostgreSQL broke or could not be made while reading; the next tick tries again."
    )
