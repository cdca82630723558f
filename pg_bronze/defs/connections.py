"""Connections: the source database, the bucket and the control table, as the settings name them.

Imports neither Dagster nor Polars: a tick without due tables needs nothing else of this package's heavy parts.
"""

from collections.abc import Callable

import psycopg

from pg_bronze.lake import s3_client
from pg_bronze.lake.object_store import Store
from pg_bronze.postgres import passwords
from pg_bronze.postgres.connection import Source
from pg_bronze.postgres.connection_limit import ConnectionLimit, Use
from pg_bronze.postgres.control_table import Control
from pg_bronze.settings.model import Settings


def open_bucket(settings: Settings) -> Store:
    """Return the bucket that the settings name."""
    return Store(s3_client.connect_to(settings.s3), settings.minio_bucket, settings.prefix, settings.s3)


def open_source(
    settings: Settings,
    application_name: str,
    use: Use = "run",
    ends_at: float | None = None,
    lock_timeout_s: float = 0.0,
    connected: Callable[[str], None] | None = None,
) -> Source:
    """Return the source database that the settings name. It connects on first use.

    Args:
        use: As in ``ConnectionLimit``.
        ends_at: As in ``Source``.
        lock_timeout_s: As in ``Source``.
        connected: As in ``Source``.
    """
    limit = None
    if settings.max_connections is not None and settings.run_slots is not None:
        place = f"{settings.pg_host}:{settings.pg_port}/{settings.pg_db}"
        limit = ConnectionLimit(settings.max_connections, settings.run_slots, place, use)
    return Source(
        settings.source_conninfo(application_name),
        settings.source_url(),
        settings.statement_timeout_s,
        settings.reader,
        ends_at,
        None if settings.reader == "copy" else settings.connectorx_limitation,
        limit,
        lock_timeout_s,
        passwords.of(settings),
        connected,
    )


def open_control(settings: Settings, source: Source) -> Control:
    """Return the control table that the settings name: in the source database, in another one, or none."""
    if settings.control_mirror == "source":
        return Control(source.connection)
    conninfo = settings.control_conninfo("pg_bronze control")
    if conninfo is None:
        return Control(None, "etl_control is not mirrored: PG_CONTROL_URL is off")
    try:
        # No prepared statements, because a pooler may be in front of the database.
        connection = psycopg.connect(**conninfo, autocommit=True, prepare_threshold=None)
        return Control(connection, source=settings.control_source)
    except psycopg.Error as error:
        # The mirror is not needed for a copy. The next run connects again.
        found = error.sqlstate or type(error).__name__
        return Control(
            None,
            f"etl_control is not mirrored: the database of PG_CONTROL_URL refuses the connection or does not answer "
            f"({found}). Check PG_CONTROL_URL, or set it to off.",
        )
