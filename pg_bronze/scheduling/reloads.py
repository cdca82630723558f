"""Reloads: when a code location is reloaded again that did not take over a changed catalog. Pure."""

import json
from dataclasses import asdict, dataclass

# Shorter than the 15 s between two evaluations of the sensor, which are not exact.
FIRST_WAIT_S = 12.0
LONGEST_WAIT_S = 3600.0


@dataclass(frozen=True)
class ReloadRequest:
    """The last request for a reload, as the catalog sensor keeps it in its cursor.

    Attributes:
        fingerprint: The catalog that was to be loaded.
        count: How often in a row it was requested.
        at: When it was last requested, in seconds since 1970.
    """

    fingerprint: str
    count: int = 0
    at: float = 0.0

    @classmethod
    def from_cursor(cls, text: str | None, fingerprint: str) -> "ReloadRequest":
        """Return the requests for this catalog so far; none if the cursor is of another catalog or cannot be read."""
        try:
            data = json.loads(text or "")
            found = cls(data["fingerprint"], int(data["count"]), float(data["at"]))
            return found if found.fingerprint == fingerprint else cls(fingerprint)
        except (ValueError, TypeError, KeyError, OverflowError):
            return cls(fingerprint)

    def to_cursor(self) -> str:
        """Return the text that ``from_cursor`` reads."""
        return json.dumps(asdict(self))

    @property
    def next_at(self) -> float:
        """When it is requested again: 12 s after the first time, then after twice as long each time, up to an hour."""
        if self.count <= 0:
            return 0.0
        return self.at + min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(self.count - 1, 20))

    def again(self, now: float) -> "ReloadRequest":
        """Return this request repeated at ``now``."""
        return ReloadRequest(self.fingerprint, self.count + 1, now)
