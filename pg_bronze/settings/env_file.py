"""The ``.env`` file: its variables, and the lines that cannot be parsed.

``dotenv_values`` skips a faulty line and logs a warning that contains the line number. The skipped line may set a
password or a table list, so the warnings are collected here and returned. No message contains the line itself, because
it may contain a password.
"""

import io
import logging
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dotenv import dotenv_values

from pg_bronze.settings.files import read_text

_LOGGER_LOCK = threading.Lock()


def read_env_file(file: Path) -> tuple[dict[str, str], list[str]]:
    """Return the variables of a ``.env`` file, and one sentence for each faulty line.

    A missing file has no variables. Values are taken literally: ``${…}`` is not expanded, because a password may
    contain it. Raises SettingsError if the file cannot be read.
    """
    text = read_text(file, str(file)) or ""
    with _parser_warnings() as warnings:
        values = dotenv_values(stream=io.StringIO(text), interpolate=False)
    lines = dict(enumerate(text.split("\n"), 1))
    problems = [f"{file}, line {_faulty_line(warning, lines)}: expected NAME=value." for warning in warnings]
    for name in (name for name, value in values.items() if value is None):
        problems.append(f"{file}, line {_bare_line(name, lines)}: {name} has no =.")
    return {name: value for name, value in values.items() if value is not None}, problems


def _faulty_line(warning: str, lines: Mapping[int, str]) -> int | str:
    """Return the line number in a warning of ``dotenv_values``, which counts from preceding blank lines."""
    found = re.search(r"line (\d+)", warning)
    if not found:
        return "unknown"
    return next((number for number in lines if number >= int(found[1]) and lines[number].strip()), int(found[1]))


def _bare_line(name: str, lines: Mapping[int, str]) -> int | str:
    """Return the number of the first line that contains only the name."""
    bare = re.compile(rf"\s*(export\s+)?'?{re.escape(name)}'?\s*(#.*)?")
    return next((number for number, line in lines.items() if bare.fullmatch(line)), "unknown")


@contextmanager
def _parser_warnings() -> Iterator[list[str]]:
    """Collect the warnings of ``dotenv_values``, at any log level, instead of printing them.

    Its logger is global, hence the lock: the sensors of one process load the settings in several threads.
    """
    messages: list[str] = []

    def collect(record: logging.LogRecord) -> bool:
        messages.append(record.getMessage())
        return False

    logger = logging.getLogger(dotenv_values.__module__)
    with _LOGGER_LOCK:
        level, disabled = logger.level, logger.disabled
        logger.setLevel(logging.WARNING)
        logger.disabled = False
        logger.addFilter(collect)
        try:
            yield messages
        finally:
            logger.removeFilter(collect)
            logger.setLevel(level)
            logger.disabled = disabled
