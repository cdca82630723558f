"""The console of the daemon: one line for each cause of failing sensors, and no line of a sensor that says nothing new.

The tick of a sensor has the whole error all the same. The daemon imports this module, so it is small.
"""

import logging
import re
import time
from typing import Any

from pg_bronze.scheduling.outages import Outages

# Dagster's name for the logger of the sensors' daemon.
SENSORS = "dagster.daemon.SensorDaemon"
# An error of pg_bronze in the text of another process.
_EXPLAINED = re.compile(r"pg_bronze\.errors\.\w+: (.+)", re.DOTALL)
_SENSOR = re.compile(r"evaluation_fn for sensor (\S+)")
_EVALUATED = re.compile(r"Sensor (\S+) skipped: |Launching run for (\S+)$")
_UNINTERESTING = re.compile(r"Checking for new runs for sensor: |No run requests returned for ")
_NUMBER = re.compile(r"\d[\d,.:]*")
# A sensor that says the same with other numbers.
_REPEATED_AFTER_S = 60.0


def install() -> None:
    """Replace how the daemon of this process prints the errors and the results of sensors. Repeating it is harmless."""
    from dagster._daemon.utils import DaemonErrorCapture

    logger = logging.getLogger(SENSORS)
    if any(isinstance(item, News) for item in logger.filters):
        return
    outages = Outages("sensor")
    logger.addFilter(News(outages))
    DaemonErrorCapture.process_exception = staticmethod(ErrorLines(outages))


class ErrorLines:
    """Prints an error of the daemon: one line if pg_bronze explains it, otherwise Dagster's traceback."""

    def __init__(self, outages: Outages) -> None:
        self._outages = outages

    def __call__(self, exc_info: Any, logger: logging.Logger, log_message: str) -> Any:
        """Print the error, and return it as Dagster stores it."""
        from dagster._utils.error import serializable_error_info_from_exc_info

        error = serializable_error_info_from_exc_info(exc_info)
        cause = _cause(error)
        if cause is None:
            logger.error(log_message, exc_info=exc_info)
        elif line := self._outages.failed(cause, _sensor(error), time.monotonic()):
            logger.error(line)
        return error


class News(logging.Filter):
    """Drops what the sensors' daemon prints in every tick, except for what was not printed within the last minute."""

    def __init__(self, outages: Outages) -> None:
        super().__init__()
        self._outages = outages
        self._printed: dict[str, tuple[str, float]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is printed."""
        text = record.getMessage()
        if record.levelno > logging.INFO:
            return True
        if _UNINTERESTING.match(text):
            return False
        found = _EVALUATED.match(text)
        if found is None:
            return True
        sensor, now = found[1] or found[2], time.monotonic()
        if line := self._outages.succeeded(sensor, now):
            logging.getLogger(SENSORS).warning(line)
        return found[1] is None or self._is_new(sensor, _NUMBER.sub("0", text), now)

    def _is_new(self, sensor: str, text: str, now: float) -> bool:
        known, at = self._printed.get(sensor, ("", 0.0))
        if text == known and now - at < _REPEATED_AFTER_S:
            return False
        self._printed[sensor] = text, now
        return True


def _cause(error: Any) -> str | None:
    """Return the sentence of the innermost error that pg_bronze has raised; None if there is none."""
    while error is not None:
        if found := _EXPLAINED.match(error.message):
            return found[1].strip()
        error = error.cause
    return None


def _sensor(error: Any) -> str:
    """Return the name of the sensor whose evaluation raised an error."""
    found = _SENSOR.search(str(error.message))
    return found[1] if found else "sensor"
