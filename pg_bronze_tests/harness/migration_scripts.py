"""Dagster's migration scripts, read once per process.

Dagster reads all of them for each database that it creates or opens, that of a single run included: half of the CPU
time of a new storage.
"""

from typing import Any

from alembic.script import ScriptDirectory
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.sql import get_alembic_config

_from_config = ScriptDirectory.from_config
_read: dict[str, ScriptDirectory] = {}


def keep(config: Any) -> ScriptDirectory:
    """Return the scripts of a configuration's folder."""
    folder = str(config.get_main_option("script_location"))
    if folder not in _read:
        _read[folder] = _from_config(config)
    return _read[folder]


def install() -> None:
    """Let Dagster use what was read before."""
    ScriptDirectory.from_config = keep  # type: ignore[method-assign]


def preload() -> None:
    """Read the scripts, which all storages share, now: for the processes that are forked from this one."""
    install()
    keep(get_alembic_config(str(sqlite_run_storage.__file__))).get_revisions("head")
