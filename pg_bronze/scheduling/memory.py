"""What is remembered from tick to tick, as the text that Dagster keeps as the sensor's cursor. Hints only."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from pg_bronze.scheduling.due import Hint


@dataclass(frozen=True)
class Memory:
    """What the last tick knew. Losing it is harmless: every table is then read once.

    Attributes:
        hints: The hint of each table by its asset key.
        horizon: The horizon of the last tick.
        horizon_since: Since when the horizon has not moved, in seconds since 1970.
    """

    hints: Mapping[str, Hint] = field(default_factory=dict)
    horizon: int = 0
    horizon_since: float = 0.0

    @classmethod
    def from_cursor(cls, text: str | None) -> "Memory":
        """Return the memory in a cursor; a cursor that cannot be read counts as empty."""
        try:
            data = json.loads(text or "")
            hints = {key: Hint(**hint) for key, hint in data["hints"].items()}
            memory = cls(hints, data["horizon"], data["horizon_since"])
            items: list[Memory | Hint] = [memory, *hints.values()]
            return memory if all(_has_types(item) for item in items) else cls()
        except (ValueError, KeyError, TypeError, AttributeError):
            return cls()

    def to_cursor(self) -> str:
        """Return the text that ``from_cursor`` reads."""
        return json.dumps(asdict(self))


def _has_types(item: "Memory | Hint") -> bool:
    """Return whether every field has the type of its default: a cursor can be edited in the UI."""
    return all(
        isinstance(getattr(item, entry.name), (int, float) if isinstance(entry.default, float) else type(entry.default))
        for entry in dataclasses.fields(item)
        if entry.default is not dataclasses.MISSING
    )
