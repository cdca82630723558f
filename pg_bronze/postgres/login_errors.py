"""Login errors: why no connection to PostgreSQL could be made, as the errors of pg_bronze.

If the server refused the login, its SQLSTATE counts, whatever the language of its message. psycopg does not report it.
libpq includes it in the text of a failed connection only on request, and the request (``PQsetErrorVerbosity``) has to
be made between the start of a connection and its first answer. psycopg offers neither, so a refused login is made once
more, through psycopg's own libpq.

If no server answered, libpq's own text counts. libpq translates it by the ``LC_MESSAGES`` of this process, which is
``C``, because Python sets ``LC_CTYPE`` alone.
"""

import ctypes
import importlib
import re
import select
import time
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

from pg_bronze.errors import AccessDenied, PgBronzeError, SourceUnavailable
from pg_bronze.postgres.error_mapping import Case, error_of

# Refused logins, by SQLSTATE. The server's message is repeated: a login involves no values of rows.
_NOT_ADMITTED = Case(
    AccessDenied,
    "the server does not admit this role to the database ({detail}). Grant login and connect to it, check PG_USER and "
    "PG_DB, or add an entry to pg_hba.conf that admits this role from this host. If the entry requires encryption, "
    "check PG_SSLMODE.",
)
_PASSWORD = Case(AccessDenied, "the server rejected the user name or password. Check PG_USER and {detail}.")
# The SQLSTATEs of a rejected password; the first one as by PAM, with which AWS checks a token of IAM.
REJECTED = ("28000", "28P01")
_LOGIN_STATES: Mapping[str, Case] = {
    **dict.fromkeys(("28000", "42501", "55000"), _NOT_ADMITTED),
    "28P01": _PASSWORD,
    "3D000": Case(AccessDenied, "the database does not exist. Check PG_DB."),
    "53300": Case(
        SourceUnavailable,
        "the server has no free connection for this role or database. Raise its connection limit, or end sessions.",
    ),
    "57P03": Case(SourceUnavailable, "the server is starting up, shutting down or in recovery."),
}
# Poolers and providers have messages and SQLSTATEs of their own.
_REFUSED = Case(SourceUnavailable, "PostgreSQL, or a proxy in front of it, refused the connection ({detail}).")
# Connections that no server refused, by libpq's text.
_LIBPQ: Sequence[tuple[str, Case]] = (
    (
        "does not match host name",
        Case(
            AccessDenied,
            "the server's certificate is for another host name. Set PG_HOST to the name in the certificate, or set "
            "PG_SSLMODE to verify-ca, which does not check the name.",
        ),
    ),
    (
        "definition of service|service file",
        Case(
            AccessDenied,
            "libpq cannot use the service that PGSERVICE names. Unset PGSERVICE: the server is named by PG_HOST and "
            "PG_PORT.",
        ),
    ),
    (
        "certificate|SSL",
        Case(AccessDenied, "the encrypted connection could not be made. Check PG_SSLMODE and PG_SSLROOTCERT."),
    ),
    (
        "(?i:name or service not known|name resolution)|translate host",
        Case(SourceUnavailable, "the host name cannot be resolved. Check PG_HOST."),
    ),
)
_UNREACHABLE = Case(
    SourceUnavailable,
    "no connection to PostgreSQL. Check that the server is running, and that PG_HOST and PG_PORT are right.",
)
_ONLY_SQLSTATE = 3  # PQERRORS_SQLSTATE: severity and SQLSTATE instead of the message
_TIMEOUT_S = 10.0


def explain_connection(
    error: psycopg.OperationalError, name: str, state: str = "", setting: str = "PG_PASS"
) -> PgBronzeError:
    """Return our error for a connection to ``name`` that could not be made.

    Args:
        state: The SQLSTATE with which the server refused the login, from ``sqlstate``; empty if not known.
        setting: Where the password comes from.
    """
    message = server_message(error)
    if message is None and error.pgconn is not None and error.pgconn.needs_password:
        return error_of(_PASSWORD, name, setting)
    if message is None:
        return error_of(_libpq_case(str(error)), name)
    case = _LOGIN_STATES.get(state, _REFUSED)
    return error_of(case, name, setting if case is _PASSWORD else message[:200])


def with_variables(error: PgBronzeError, variables: Sequence[str]) -> PgBronzeError:
    """Return the error with the variables of libpq that took part in the login, which no setting mentions."""
    if not variables:
        return error
    return type(error)(
        f"{error} The login also used {', '.join(variables)} of the environment or of libpq's service file: unset what "
        "belongs to another server."
    )


def server_message(error: psycopg.OperationalError) -> str | None:
    """Return the server's last message in a failed login; None if no server refused it.

    libpq puts two spaces between severity and message, in every language.
    """
    # Other lines, such as DETAIL, have nothing before the severity.
    text = str(error)
    messages = re.findall(r": \S+:  (.+)", text) or re.findall(r":  (.+)", text)[:1]
    return messages[-1] if messages else None


def sqlstate(conninfo: Mapping[str, Any], error: psycopg.OperationalError) -> str:
    """Return the SQLSTATE with which the server refused a login; empty if none did, or the login succeeds now.

    Args:
        conninfo: psycopg's keyword arguments of the login.
        error: The login's error.
    """
    if server_message(error) is None:
        return ""
    connection: Any = pq.PGconn.connect_start(make_conninfo(**conninfo).encode())
    try:
        _libpq().PQsetErrorVerbosity(ctypes.c_void_p(connection.pgconn_ptr), _ONLY_SQLSTATE)
        _log_in(connection, time.monotonic() + _TIMEOUT_S)
        states = re.findall(r":  ([0-9A-Z]{5})$", connection.get_error_message(), re.MULTILINE)
    finally:
        connection.finish()
    return states[-1] if states else ""


def _libpq() -> ctypes.CDLL:
    """Return the libpq that psycopg uses. A symbol of a library is found through the libraries that depend on it."""
    if pq.__impl__ == "python":
        return ctypes.CDLL(str(importlib.import_module("psycopg.pq.misc").find_libpq_full_path()))
    module = importlib.import_module("psycopg_binary.pq" if pq.__impl__ == "binary" else "psycopg_c.pq")
    return ctypes.CDLL(str(module.__file__))


def _log_in(connection: Any, deadline: float) -> None:
    while connection.status != pq.ConnStatus.BAD and (left_s := deadline - time.monotonic()) > 0:
        match connection.connect_poll():
            case pq.PollingStatus.READING:
                select.select([connection.socket], [], [], left_s)
            case pq.PollingStatus.WRITING:
                select.select([], [connection.socket], [], left_s)
            case _:
                return


def _libpq_case(text: str) -> Case:
    return next((case for pattern, case in _LIBPQ if re.search(pattern, text)), _UNREACHABLE)
