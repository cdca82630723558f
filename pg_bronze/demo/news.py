"""News: what a person wants to read of Dagster's log while it grows. One line a slice, one line an error."""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# 2026-11-24 06:50:00 +0000 - dagster.daemon.SensorDaemon - ERROR - message
_RECORD = re.compile(r"^(?:\S+ )?(\d\d:\d\d:\d\d) \S+ - (\S+) - ([A-Z]+) - (.*)$")
# The web server's own: ERROR:    [Errno 98] ...
_PLAIN = re.compile(r"^(?:ERROR|CRITICAL): +(.+)$")
# What a failed step or tick says of itself stands on a line of its own, below records that only say that it failed.
_REASON = re.compile(r"^(?:dagster\S*\.Failure|pg_bronze\.errors\.\w+): (.+)$")
_ONLY_FAILED = re.compile(r" - (?:STEP|RUN)_FAILURE - |Sensor tick caught an error|Sensor daemon caught an error")
_WARNING = re.compile(r" - bronze__\S+ - (.+)$")
_SLICE = re.compile(r"(?:^| - )(copied \S+: .*)$")
_WIDTH = 300


def of(line: str) -> str | None:
    """Return what to show of one line of the log, None for nothing."""
    text = _COLOUR.sub("", line).rstrip()
    if plain := _PLAIN.match(text):
        return _cut(f"error: {plain[1]}")
    if reason := _REASON.match(text):
        return f"error: {reason[1]}"  # whole: the remedy stands at its end
    record = _RECORD.match(text)
    if record is None:
        return None
    time, logger, level, message = record.groups()
    if slice_line := _SLICE.search(message):
        return f"{time}  {slice_line[1]}"
    if _ONLY_FAILED.search(message):
        return None
    if level == "WARNING" and (warning := _WARNING.search(message)):
        return f"{time}  {warning[1]}"
    return _cut(f"{time}  {level.lower()} in {logger}: {message}") if level in ("ERROR", "CRITICAL") else None


def _cut(text: str) -> str:
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"


def is_slice(shown: str) -> bool:
    """Tell whether a shown line is about a slice."""
    return _SLICE.search(shown.partition("  ")[2]) is not None


class Tail:
    """The whole lines that are added to a file, from its end at the time this is made."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._offset = file.stat().st_size if file.exists() else 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def lines(self) -> Iterator[str]:
        """Yield the lines completed since the last call."""
        if not self._file.exists():
            return
        with self._file.open("rb") as file:
            file.seek(self._offset)
            added = file.read()
        self._offset += len(added)
        *whole, self._rest = (self._rest + self._decoder.decode(added)).split("\n")
        yield from whole
