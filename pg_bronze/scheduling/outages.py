"""Outages: which lines a console shows of a cause that many tables and many ticks report.

One line when a cause appears, one now and then while it lasts, one when it has passed. No clock and no console: the
caller passes the time and prints what it gets.
"""

from dataclasses import dataclass, field

# Between two lines about the same cause.
_SAID_EVERY_S = 40.0
# A retry is at most 2 minutes later, so that a cause that was not reported for longer has passed unseen.
_FORGOTTEN_AFTER_S = 300.0


@dataclass
class _Outage:
    since: float
    said_at: float
    seen_at: float
    names: set[str] = field(default_factory=set)


class Outages:
    """The causes that are reported now, and what each of them keeps from being done."""

    def __init__(self, noun: str) -> None:
        """Start without causes; ``noun`` is the kind of what fails: ``table``, ``sensor``."""
        self._noun = noun
        self._known: dict[str, _Outage] = {}

    def failed(self, cause: str, name: str, now: float) -> str | None:
        """Return the line about one more report of a cause; None if it was printed just before.

        Args:
            cause: The sentence of an error, the same for all that it has the same cause for.
            name: What failed; empty if that is not known.
            now: In seconds, of any clock that does not go back.
        """
        known = self._known.get(cause)
        if known is None or now - known.seen_at > _FORGOTTEN_AFTER_S:
            self._known[cause] = _Outage(now, now, now, {name})
            return f"{name}: {cause}" if name else cause
        known.seen_at = now
        known.names.add(name)
        if now - known.said_at < _SAID_EVERY_S:
            return None
        known.said_at = now
        return f"still failing after {now - known.since:.0f} s ({self._count(known)}): {_short(cause)}"

    def succeeded(self, name: str, now: float) -> str | None:
        """Return the line about the end of a cause; None if ``name`` did not fail.

        Others that failed for the same cause may have nothing to do now. If one fails again, it is a new outage.
        """
        for cause, known in self._known.items():
            if name in known.names:
                del self._known[cause]
                return f"recovered after {now - known.since:.0f} s: {_short(cause)}"
        return None

    def _count(self, known: _Outage) -> str:
        count = len(known.names)
        return f"{count} {self._noun}{'' if count == 1 else 's'}"


def _short(cause: str) -> str:
    """Return the first sentence of a cause, without its remedy."""
    return cause.partition("\n")[0].partition(". ")[0].rstrip(".:")
