"""The lines of Dagster's log that the demo prints: one line for a slice, a warning or an error."""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

_COLOR = re.compile(r"\x1b\[[0-9;]*m")
# 2026-11-24 06:50:00 +0000 - dagster.daemon.SensorDaemon - ERROR - message
_RECORD = re.compile(r"^(?:\S+ )?(\d\d:\d\d:\d\d) \S+ - (\S+) - ([A-Z]+) - (.*)$")
# Of the web server: ERROR:    [Errno 98] ...
_PLAIN = re.compile(r"^(?:ERROR|CRITICAL): +(.+)$")
# The message of a failed step or tick is a separate line below records that only report the failure.
_REASON = re.compile(r"^(?:dagster\S*\.Failure|pg_bronze\.errors\.\w+): (.+)$")
_ONLY_FAILED = re.compile(r" - (?:STEP|RUN)_FAILURE - |Sensor tick caught an error|Sensor daemon caught an error")
# Of a run, and of the sensors' daemon: lines that are complete without their logger.
_OF_TABLE = re.compile(r" - bronze__\S+ - (.+)$")
_SENSORS = "dagster.daemon.SensorDaemon"
_SLICE = re.compile(r"(?:^| - )(copied \S+: .*)$")
_FAILURE = re.compile(r"^(\d\d:\d\d:\d\d  )?error: (?:(.+?): )?(.*)$")
_LATE = re.compile(r" \(([\d,]+) late\), ")
_WIDTH = 300


def summarize(line: str) -> str | None:
    """Return what to print for one line of the log, None for nothing."""
    text = _COLOR.sub("", line).rstrip()
    if plain := _PLAIN.match(text):
        return _cut(f"error: {plain[1]}")
    if reason := _REASON.match(text):
        return f"error: {reason[1]}"  # not cut: the remedy is at the end
    record = _RECORD.match(text)
    if record is None:
        return None
    time, logger, level, message = record.groups()
    if slice_line := _SLICE.search(message):
        return f"{time}  {slice_line[1]}"
    if _ONLY_FAILED.search(message):
        return None
    if logger == _SENSORS and level == "ERROR":
        return f"{time}  error: {message}"
    if level in ("WARNING", "ERROR") and (found := _OF_TABLE.search(message)):
        return f"{time}  {'error: ' if level == 'ERROR' else ''}{found[1]}"
    return _cut(f"{time}  {level.lower()} in {logger}: {message}") if level in ("ERROR", "CRITICAL") else None


def _cut(text: str) -> str:
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"


def failure(summary: str) -> tuple[str, str, str] | None:
    """Return the time, what failed and the cause of a printed line about an error; None for any other line."""
    found = _FAILURE.match(summary)
    return (found[1] or "", found[2] or "", found[3]) if found else None


def copied(summary: str) -> str | None:
    """Return the table of a printed line about a slice; None for any other line."""
    found = _SLICE.search(summary.partition("  ")[2])
    return found[1].removeprefix("copied ").partition(": ")[0] if found else None


def is_slice(summary: str) -> bool:
    """Return whether a printed line is about a slice."""
    return _SLICE.search(summary.partition("  ")[2]) is not None


def late_row_count(summary: str) -> int:
    """Return the number of late rows in a printed line about a slice; 0 in any other line."""
    found = _LATE.search(summary) if is_slice(summary) else None
    return int(found[1].replace(",", "")) if found else 0


def last_lines(log: Path, line_count: int) -> str:
    """Return the last lines of a log file; an empty text if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8192))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return ""
    return "\n".join(lines[-line_count:])


class LogTail:
    """The complete lines that are appended to a file after this object is created."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._offset = file.stat().st_size if file.exists() else 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def lines(self) -> Iterator[str]:
        """Yield the lines that were completed since the last call."""
        if not self._file.exists():
            return
        with self._file.open("rb") as file:
            file.seek(self._offset)
            added = file.read()
        self._offset += len(added)
        *whole, self._rest = (self._rest + self._decoder.decode(added)).split("\n")
        yield from whole
