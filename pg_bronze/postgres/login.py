"""Login: how a connection to the source database is opened, whether it still is, and whether connectorx can repeat it.

libpq takes what the settings leave open from its environment variables, from a service file, and from files in
``~/.postgresql``. connectorx knows none of them. So connectorx is used only if libpq found nothing that connectorx
lacks: ``limitation`` compares every parameter that this libpq has, new ones too, with its default.
"""

import math
import selectors
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg import pq

from pg_bronze.errors import PgBronzeError, SourceNotFit
from pg_bronze.postgres import login_errors, passwords
from pg_bronze.postgres.passwords import Password

OLDEST_SERVER = 140000  # the first that reads a table by ranges of row versions (TID Range Scan)
# A connection that was not used for so long is tried before it is used.
IDLE_S = 10.0
# The service's other parameters are compared themselves. Whether a password came from a file, the connection knows.
_WITHOUT_EFFECT = {"service", "servicefile", "passfile"}
# connectorx never asks for encryption by GSSAPI.
_SAME = {("gssencmode", "disable")}
# libpq checks the server's certificate against these, whatever the settings are.
_USER_FILES = ("~/.postgresql/root.crt", "~/.postgresql/root.crl")
# Whether the session's client showed a certificate, and whether it uses GSSAPI; every role may see it of itself.
METHODS = """select (select client_dn is not null from pg_stat_ssl where pid = pg_backend_pid()),
  (select gss_authenticated or encrypted from pg_stat_gssapi where pid = pg_backend_pid())"""


class Accepted:
    """When the server last accepted a login with the password of ``PG_PASS``, or without one."""

    def __init__(self) -> None:
        self._at = -math.inf

    def note(self) -> None:
        """Record that a login was accepted now."""
        self._at = time.monotonic()

    @property
    def is_recent(self) -> bool:
        """Whether that was a moment ago."""
        return time.monotonic() - self._at < passwords.ACCEPTED_S


def connect(
    conninfo: Mapping[str, Any], name: str, password: Password | None = None, accepted: Accepted | None = None
) -> psycopg.Connection:
    """Open a connection in autocommit mode. Raises SourceUnavailable or AccessDenied, with ``name`` in front.

    Args:
        conninfo: psycopg's keyword arguments.
        name: The server, for messages.
        password: What replaces the password in ``conninfo``, if that may change. If the server rejects it, it is read
            again, and another one is tried once.
        accepted: Records the login if its password does not change.
    """
    if password is None:
        connection = _open(conninfo, name)
        if accepted is not None:
            accepted.note()
        return connection
    value = password.current(name)
    try:
        connection = _open({**conninfo, "password": value}, name, password)
    except _Rejected as error:
        other = password.renewed(value, name)
        if other is None:
            raise error.found from error.__cause__
        value = other
        try:
            connection = _open({**conninfo, "password": value}, name, password)
        except _Rejected as again:
            raise again.found from again.__cause__
    password.accept(value)
    return connection


class _Rejected(Exception):
    """The server rejected a password that may have changed."""

    def __init__(self, found: PgBronzeError) -> None:
        super().__init__(str(found))
        self.found = found


def _open(conninfo: Mapping[str, Any], name: str, password: Password | None = None) -> psycopg.Connection:
    try:
        return psycopg.connect(**conninfo, autocommit=True)
    except psycopg.OperationalError as error:
        state = login_errors.sqlstate(conninfo, error)
        found = login_errors.explain_connection(error, name, state, password.setting if password else "PG_PASS")
        found = login_errors.with_variables(found, ambient(conninfo))
        if password is not None and state in login_errors.REJECTED:
            raise _Rejected(found) from error
        raise found from error


def accepted_url(
    url: str, conninfo: Mapping[str, Any], name: str, password: Password | None, accepted: Accepted
) -> str:
    """Return the URL for connectorx with a password that the server accepted a moment ago. Never log it.

    connectorx repeats a rejected login seven times within 30 s: its pool has no other limit (r2d2, and
    ``PostgresSource::new`` in connectorx 0.4.6). ``connect_timeout`` in the URL limits one of them, which the server
    answers at once, and ``connection_timeout`` is an unknown option. A login with psycopg takes 2.5 ms.

    Args:
        url: The URL; without a password if that may change.
        conninfo: psycopg's keyword arguments for the same server.
        name: The server, for messages.
        password: The password for both, if it may change.
        accepted: The last login with a password that does not change.
    """
    if password is None:
        if not accepted.is_recent:
            connect(conninfo, name, None, accepted).close()
        return url
    value = password.current(name)
    if not password.is_accepted(value):
        connect(conninfo, name, password).close()
        value = password.current(name)
    scheme, rest = url.split("://", 1)
    user, server = rest.split("@", 1)
    return f"{scheme}://{user}:{quote(value, safe='')}@{server}"


def version_of(connection: psycopg.Connection, name: str) -> int:
    """Return the server's version, such as 180000. Raises SourceNotFit if it is too old, with ``name`` in front."""
    found = connection.info.server_version
    if found < OLDEST_SERVER:
        raise SourceNotFit(
            f"{name}: the server is PostgreSQL {found // 10000}. Version 14 or later is required; upgrade it. It is "
            "retried after the fix."
        )
    return found


class Idle:
    """How long a kept connection was not used. Servers, firewalls and poolers end connections that are not used."""

    def __init__(self) -> None:
        self._used = time.monotonic()

    def is_usable(self, connection: psycopg.Connection) -> bool:
        """Return whether the connection can be used now; a connection in a transaction is not tried.

        A server that ended the session has sent its reason and the end of the stream, which makes the socket readable.
        A firewall sends nothing, so a connection that was not used for long runs a statement.
        """
        idle_s, self._used = time.monotonic() - self._used, time.monotonic()
        if connection.closed or connection.broken:
            return False
        if connection.pgconn.transaction_status != pq.TransactionStatus.IDLE:
            return True
        if idle_s < IDLE_S and not _is_readable(connection):
            return True
        try:
            connection.execute("select 1")
        except psycopg.Error:
            connection.close()
            return False
        return True


def limitation(
    conninfo: Mapping[str, Any],
    connection: psycopg.Connection,
    certificate: bool,
    gss: bool,
    changing_password: bool = False,
) -> str | None:
    """Return what connectorx cannot repeat of the login of ``connection``, as a predicate; None if it can log in so.

    Args:
        conninfo: psycopg's keyword arguments of the login.
        certificate: The server received a client certificate.
        gss: The server authenticated the client by GSSAPI, or encrypts with it.
        changing_password: The password is not in ``conninfo``, because it may change.
    """
    if found := ambient(conninfo):
        return f"does not use {', '.join(found)}"
    if connection.pgconn.used_password and not (conninfo.get("password") or changing_password):
        return "does not read password files, and the password came from one"
    if certificate:
        return "has no client certificate, and libpq has found one"
    if gss:
        return "does not use GSSAPI, and this session does"
    if connection.pgconn.ssl_in_use:
        for file in _USER_FILES:
            if Path(file).expanduser().is_file():
                return f"does not read {file}"
    return None


def ambient(conninfo: Mapping[str, Any]) -> list[str]:
    """Return the parameters that libpq takes from its environment or a service file, by the variable's name."""
    explicit = psycopg.conninfo.conninfo_to_dict(**conninfo)
    found = []
    for option in pq.Conninfo.get_defaults():
        name, value = option.keyword.decode(), option.val
        if name in explicit or name in _WITHOUT_EFFECT or not value or value == option.compiled:
            continue
        if (name, value.decode(errors="replace")) not in _SAME:
            found.append(option.envvar.decode() if option.envvar else name)
    return found


def _is_readable(connection: psycopg.Connection) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(connection.fileno(), selectors.EVENT_READ)
        return bool(selector.select(0))
