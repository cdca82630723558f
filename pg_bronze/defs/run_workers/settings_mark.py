"""The mark of the settings in the metadata of a code location. Only locations of pg_bronze have it."""

from collections.abc import Mapping
from typing import Any

SETTINGS_MARK = "pg_bronze/settings_mark"


def of_metadata(metadata: Mapping[str, Any] | None) -> tuple[str, bool]:
    """Return a text that changes with the settings of each source, and whether a source has a name.

    The text is empty for a location without pg_bronze.
    """
    found = {name: str(value.value) for name, value in (metadata or {}).items() if name.startswith(SETTINGS_MARK)}
    if len(found) == 1 and SETTINGS_MARK in found:
        return found[SETTINGS_MARK], False
    return " ".join(f"{name.removeprefix(SETTINGS_MARK)}={mark}" for name, mark in sorted(found.items())), bool(found)
