"""What a batch remembers for the next command, in Dagster's storage: hints only, as the sensor keeps in its cursor."""

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from pg_bronze.scheduling.memory import Memory

if TYPE_CHECKING:
    import dagster as dg

    from pg_bronze.settings.model import Settings

_KEY = "pg_bronze/command_line"


def load(instance: "dg.DagsterInstance", settings: "Settings") -> Memory:
    """Return the memory of the last batch with these settings; an empty one if there is none."""
    key = _key(settings)
    text = instance.daemon_cursor_storage.get_cursor_values({key}).get(key, "")
    try:
        stored = json.loads(text)
        return Memory.from_cursor(stored["cursor"]) if stored["settings"] == settings.fingerprint() else Memory()
    except (ValueError, KeyError, TypeError):
        return Memory()


def store(instance: "dg.DagsterInstance", settings: "Settings", memory: Memory, of_some: bool = False) -> None:
    """Replace the stored memory.

    Args:
        of_some: It is that of some tables, and the hints of the others are kept. Of two commands at the same moment,
            one may lose its hints: its tables are then asked once more.
    """
    if of_some:
        memory = replace(memory, hints={**load(instance, settings).hints, **memory.hints})
    text = json.dumps({"settings": settings.fingerprint(), "cursor": memory.to_cursor()})
    instance.daemon_cursor_storage.set_cursor_values({_key(settings): text})


def _key(settings: "Settings") -> str:
    return f"{_KEY}/{settings.name}" if settings.name else _KEY
