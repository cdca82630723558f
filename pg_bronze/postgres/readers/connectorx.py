"""connectorx: the fast reader, a Rust library that runs a binary COPY and returns Arrow arrays.

Each read opens a connection of its own. A read cannot be interrupted from inside the process: another connection
terminates its session. Errors arrive as text without a SQLSTATE, or as a panic, which is a BaseException.
"""

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import quote

import psycopg

from pg_bronze.postgres.error_mapping import explain_connectorx
from pg_bronze.postgres.readers.reading import opening

if TYPE_CHECKING:
    import polars as pl


# Decides what a query means; everything else is set before it runs.
_DESCRIBED_WITH = "-c search_path=pg_catalog,pg_temp -c standard_conforming_strings=on"


class ConnectorxReader:
    """Reads slices with connectorx.

    Args:
        url: Connection URL; it holds the password.
        name: ``application_name`` of its sessions, by which ``stop`` finds them.
        connect: Opens another connection to the same server.
        encrypted: Whether the server answers the URL's ``sslmode`` with TLS.
        direct: Whether no pooler is in between.
    """

    def __init__(
        self,
        url: str,
        name: str,
        connect: Callable[[], psycopg.Connection],
        encrypted: bool,
        direct: bool = True,
    ) -> None:
        self._url = f"{url}{'&' if '?' in url else '?'}application_name={quote(name, safe='')}"
        if not encrypted:
            # With any other mode connectorx reads the system's root certificates in every read, before it asks the
            # server for TLS: 15 of 19 ms of CPU. The last value of a repeated parameter counts.
            self._url += "&sslmode=disable"
        if direct:
            # connectorx has the query described before it runs the statements of ``opening``. Not through a pooler:
            # pgbouncer refuses options in the startup message.
            self._url += f"&options={quote(_DESCRIBED_WITH)}"
        self._name = name
        self._connect = connect

    def read(self, query: str, label: str, timeout_s: float) -> "pl.DataFrame":
        """Read one slice; see ``Reader.read``."""
        import connectorx

        try:
            frame: pl.DataFrame = connectorx.read_sql(
                self._url,
                query,
                return_type="polars",
                protocol="binary",  # csv drops rows with NULL; simple and cursor cannot read all types
                pre_execution_query=opening(timeout_s),
            )
            return frame
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # connectorx panics with a class derived from BaseException
            raise explain_connectorx(error, label) from error

    def stop(self) -> None:
        """Terminate the session: connectorx offers no way to cancel its statement."""
        with contextlib.suppress(psycopg.Error), self._connect() as connection:
            connection.execute(
                "select pg_catalog.pg_terminate_backend(pid) from pg_catalog.pg_stat_activity "
                "where application_name operator(pg_catalog.=) %s",
                (self._name,),
            )

    def close(self) -> None:
        """Do nothing: no connection is kept."""
