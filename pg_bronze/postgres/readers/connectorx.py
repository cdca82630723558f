"""TODO postgres.readers.connectorx."""

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import quote

import psycopg

from pg_bronze.postgres.error_mapping import explain_text
from pg_bronze.postgres.readers.reading import BEGIN, session_settings

if TYPE_CHECKING:
    import polars as pl


class ConnectorxReader:
    """connectorx: the fastest, and it cannot be interrupted. Each read is a connection of its own.

    ``url`` holds the password. Its sessions are called ``name``, and ``connect`` opens another connection to the same
    server. ``encrypted`` says whether it answers with TLS to what the URL asks for.
    """

    def __init__(self, url: str, name: str, connect: Callable[[], psycopg.Connection], encrypted: bool) -> None:
        self._url = f"{url}{'&' if '?' in url else '?'}application_name={quote(name, safe='')}"
        if not encrypted:
            # With any other mode connectorx reads the system's root certificates in every read, before it asks the
            # server whether it speaks TLS at all: 15 of 19 ms of CPU. The last value of a parameter counts.
            self._url += "&sslmode=disable"
        self._name = name
        self._connect = connect

    def read(self, query: str, label: str, timeout_s: float) -> "pl.DataFrame":
        """Read one slice."""
        import connectorx

        try:
            frame: pl.DataFrame = connectorx.read_sql(
                self._url,
                query,
                return_type="polars",
                protocol="binary",  # the csv protocol drops rows, simple and cursor cannot read all types
                pre_execution_query=[BEGIN, session_settings(timeout_s)],
            )
            return frame
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # connectorx panics with a class derived from BaseException
            raise explain_text(error, label) from error

    def stop(self) -> None:
        """End the session: connectorx's statements can only be cancelled from outside."""
        with contextlib.suppress(psycopg.Error), self._connect() as connection:
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name = %s", (self._name,)
            )

    def close(self) -> None:
        """Keep nothing."""
