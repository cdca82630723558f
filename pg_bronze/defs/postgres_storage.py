"""Dagster's PostgreSQL storage with connections that are kept between statements.

The storage of Dagster connects for each statement, which takes most of the server's CPU time. Tables and contents are
the same: ``dagster.yaml`` may name either storage at any time.

This module is loaded by the web server and the daemon, so it imports nothing else of pg_bronze.
"""

import select
import time
from typing import Any

from dagster._serdes import ConfigurableClassData
from dagster_postgres.event_log import PostgresEventLogStorage
from dagster_postgres.storage import DagsterPostgresStorage
from dagster_postgres.utils import get_token_provider_from_config, pg_url_from_config
from sqlalchemy import Engine, event
from sqlalchemy.exc import DisconnectionError

from pg_bronze.defs.known_records import KnownRecords

# Seconds after which a connection is replaced, for load balancers and rotated credentials.
_RECYCLE_S = 300
# Beyond the one connection that is kept.
_MOST_MORE = 50
# Seconds after which an idle connection is tested before it is used. Until then only its socket is checked.
_TEST_AFTER_S = 5.0


class PooledPostgresEventLogStorage(KnownRecords, PostgresEventLogStorage):
    """The event log."""

    @property
    def place(self) -> str:
        """The database, without a password."""
        return str(self._engine.url)


class PooledPostgresStorage(DagsterPostgresStorage):
    """All three storages, in the tables of Dagster's ``storage: postgres``. Each keeps one connection in a process."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        stock = self._event_log_storage  # it has created the tables
        self._event_log_storage = PooledPostgresEventLogStorage(
            stock.postgres_url, should_autocreate_tables=False, token_provider=stock._token_provider
        )
        for storage in (self._run_storage, self._event_log_storage, self._schedule_storage):
            # What Dagster's web server does with each storage; 0 is no limit for statements.
            storage.optimize_for_webserver(0, _RECYCLE_S, _MOST_MORE)
            _test_before_use(storage._engine)

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> "PooledPostgresStorage":
        """Return the storage that ``dagster.yaml`` configures."""
        return cls(
            inst_data=inst_data,
            postgres_url=pg_url_from_config(config_value),
            should_autocreate_tables=config_value.get("should_autocreate_tables", True),
            token_provider=get_token_provider_from_config(config_value),
        )


def _test_before_use(engine: Engine) -> None:
    """Replace connections that the server has closed, so that a restart of the server fails no statement."""

    @event.listens_for(engine, "checkin")
    def note_time(_connection: Any, record: Any) -> None:
        record.info["idle_since"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def test(connection: Any, record: Any, _proxy: Any) -> None:
        idle_s = time.monotonic() - record.info.get("idle_since", time.monotonic())
        try:
            # Before a server closes a connection, it sends a message.
            closed = bool(select.select([connection], [], [], 0)[0])
            if not closed and idle_s > _TEST_AFTER_S:
                with connection.cursor() as cursor:
                    cursor.execute("select 1")
        except Exception as error:
            raise DisconnectionError from error
        if closed:
            raise DisconnectionError
