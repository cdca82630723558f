"""The console of runs: Dagster's lines, with one line instead of a traceback for each cause that pg_bronze explains.

Dagster prints every failed step with its tracebacks, some 40 lines for each table of a bucket that does not answer. The
page of the run has them all the same. Runs that a person starts in the UI keep Dagster's console.
"""

import logging
import time
from typing import Any

import dagster as dg

from pg_bronze.defs import metadata
from pg_bronze.scheduling.outages import Outages

# Without it, Dagster prints the log of a run with a logger of its own, and every event in it.
RUN_CONFIG: dict[str, Any] = {"loggers": {"console": {}}}
_CONFIG = {
    "log_level": dg.Field(str, is_required=False, default_value="INFO", description="The lowest level to print."),
    "name": dg.Field(str, is_required=False, default_value="dagster", description="The name of the logger."),
}


@dg.logger(config_schema=_CONFIG, description="Dagster's console logger, with one line for each cause of failures.")
def run_console(context: dg.InitLoggerContext) -> logging.Logger:
    """Return the logger that prints the log of one run."""
    logger = dg.colored_console_logger.logger_fn(context)
    logger.addFilter(Explained())
    return logger


class Explained(logging.Filter):
    """Replaces the record of a failed step by one line, and drops what repeats it.

    One for each run: the next run may be executed by another process, and nobody here sees when a cause has passed.
    """

    def __init__(self) -> None:
        super().__init__()
        self._outages = Outages("table")
        self._has_others = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is printed."""
        details: dict[str, Any] = getattr(record, "dagster_meta", {})
        event = details.get("dagster_event")
        if event is None:
            return True
        if event.event_type == dg.DagsterEventType.RUN_FAILURE:
            return self._has_others
        if event.event_type != dg.DagsterEventType.STEP_FAILURE:
            return True
        sentence = explanation(event)
        if sentence is None:
            self._has_others = True
            return True
        label, _, cause = sentence.partition(": ")
        line = self._outages.failed(cause, label, time.monotonic())
        record.msg = " - ".join(
            [str(details["job_name"]), str(details["run_id"]), str(details["step_key"]), line or ""]
        )
        return line is not None


def explanation(event: dg.DagsterEvent) -> str | None:
    """Return the sentence of a failed step, beginning with its table; None if the error is not one of pg_bronze."""
    failure = event.step_failure_data.user_failure_data
    if failure is None or metadata.RETRY not in failure.metadata:
        return None
    return failure.description
