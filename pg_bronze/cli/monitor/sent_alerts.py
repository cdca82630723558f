"""Sent alerts: what was last sent about each cause, in Dagster's storage, so that a restart repeats no message."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import dagster as dg

from pg_bronze.cli.instance import open_instance
from pg_bronze.scheduling.alerts import Cause, Sent


class SentAlerts:
    """Where a monitor keeps what it sent.

    Args:
        source: The name of the source database. Monitors of several may have one storage.
    """

    def __init__(self, source: str) -> None:
        self._key = f"pg_bronze/monitor/{source}"

    def load(self) -> dict[str, Sent]:
        """Return what was kept; nothing if there is nothing, or the storage does not answer."""
        found: dict[str, Sent] = {}
        with suppress(Exception), open_instance() as instance:
            found = _read(instance, self._key)
        return found

    def store(self, sent: Mapping[str, Sent]) -> None:
        """Replace what is kept. A storage that does not answer keeps what it has: at worst, a message is repeated."""
        with suppress(Exception), open_instance() as instance:
            text = json.dumps({key: asdict(item) for key, item in sent.items()})
            instance.daemon_cursor_storage.set_cursor_values({self._key: text})


def _read(instance: dg.DagsterInstance, key: str) -> dict[str, Sent]:
    stored = json.loads(instance.daemon_cursor_storage.get_cursor_values({key})[key])
    return {name: _sent(item) for name, item in stored.items()}


def _sent(item: dict[str, Any]) -> Sent:
    cause = {**item["cause"], "tables": tuple(item["cause"]["tables"])}
    return Sent(**{**item, "cause": Cause(**cause)})
