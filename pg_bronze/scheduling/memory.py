"""What is remembered from tick to tick, as the text that Dagster keeps as the sensor's cursor. Hints only.

Dagster stores the cursor with every tick, so it is small: about 20 bytes a table.
"""

import base64
import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from pg_bronze.core.formats import CURSOR_FORMAT
from pg_bronze.scheduling.coverage import Coverage
from pg_bronze.scheduling.due import SIGNATURE_DIGITS, Hint

PLACE_DIGITS = 8
# The fields of a hint that are whole numbers. `due_at` is stored in milliseconds.
_NUMBERS = ("next_xid", "quiet_upto", "generation", "due_at", "asked", "covered")
_MS = 1000


@lru_cache(maxsize=20_000)  # each tick asks twice for each table
def place_of(name: str) -> str:
    """Return the place of a table's hint, by the name of its asset: 8 hexadecimal digits.

    Two tables with the same digits share a hint. Its signature fits one of them only, so the other one is read.
    """
    return hashlib.sha256(name.encode()).hexdigest()[:PLACE_DIGITS]


@dataclass(frozen=True)
class Memory:
    """What the last tick knew. Losing it is harmless: every table is then read once.

    Attributes:
        hints: The hint of each table by ``place_of`` its asset key.
        horizon: The horizon of the last tick.
        horizon_since: Since when the horizon has not moved, in seconds since 1970.
        coverage: When which transaction id was the next one.
        tick: What distinguishes the tick of a sensor from all others; "" if that is not known.
    """

    hints: Mapping[str, Hint] = field(default_factory=dict)
    horizon: int = 0
    horizon_since: float = 0.0
    coverage: Coverage = field(default_factory=Coverage)
    tick: str = ""

    def keeping(self, places: Iterable[str], before: "Memory") -> "Memory":
        """Return the memory with some hints of before: those of tables that are not checked any more."""
        kept = {place: before.hints[place] for place in places if place in before.hints}
        return replace(self, hints={**kept, **self.hints}) if kept else self

    @classmethod
    def from_cursor(cls, text: str | None) -> "Memory":
        """Return the memory in a cursor; one that cannot be read, or of another format, counts as empty."""
        try:
            data = json.loads(text or "")
            if data.get("format", CURSOR_FORMAT) != CURSOR_FORMAT:
                return cls()
            coverage = Coverage.from_numbers([int(number) for number in data.get("coverage", [])])
            horizon, since = int(data["horizon"]), float(data["horizon_since"])
            return cls(_unpacked(data["hints"]), horizon, since, coverage, str(data.get("tick", "")))
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError, zlib.error):
            return cls()

    def to_cursor(self) -> str:
        """Return the text that ``from_cursor`` reads."""
        state = {
            "format": CURSOR_FORMAT,
            "horizon": self.horizon,
            "horizon_since": self.horizon_since,
            "coverage": self.coverage.to_numbers(),
            "tick": self.tick,
        }
        return json.dumps({**state, "hints": _packed(self.hints)}, separators=(",", ":"))


def _packed(hints: Mapping[str, Hint]) -> str:
    """Return the hints by columns, compressed: the numbers of most tables are the same or close."""
    places = sorted(hints)
    found = [hints[place] for place in places]
    digits = "".join(places) + "".join(hint.signature.ljust(SIGNATURE_DIGITS, "0") for hint in found)
    columns = [_deltas([_number(hint, name) for hint in found]) for name in _NUMBERS]
    # The first byte keeps signatures apart that are not set.
    known = "".join("01"[bool(hint.signature)] for hint in found)
    text = json.dumps([len(found), known, columns], separators=(",", ":"))
    body = len(text).to_bytes(4, "big") + text.encode() + bytes.fromhex(digits)
    return base64.b85encode(zlib.compress(body, 9)).decode()


def _unpacked(text: str) -> dict[str, Hint]:
    body = zlib.decompress(base64.b85decode(text))
    end = 4 + int.from_bytes(body[:4], "big")
    count, known, columns = json.loads(body[4:end])
    digits = body[end:].hex()
    rows = list(zip(*(_sums(column) for column in columns), strict=True))
    hints = {}
    for number in range(count):
        first = count * PLACE_DIGITS + number * SIGNATURE_DIGITS
        signature = digits[first : first + SIGNATURE_DIGITS] if known[number] == "1" else ""
        values: dict[str, Any] = dict(zip(_NUMBERS, rows[number], strict=True))
        values["due_at"] /= _MS
        hints[digits[number * PLACE_DIGITS : (number + 1) * PLACE_DIGITS]] = Hint(signature, **values)
    return hints


def _number(hint: Hint, name: str) -> int:
    value = getattr(hint, name)
    return round(value * _MS) if name == "due_at" else int(value)


def _deltas(numbers: Sequence[int]) -> list[int]:
    """Return the smallest number and the distances from it."""
    least = min(numbers, default=0)
    return [least, *(number - least for number in numbers)]


def _sums(deltas: Sequence[int]) -> list[int]:
    least, *others = (int(number) for number in deltas)
    return [least + number for number in others]
