"""The runs of one batch: the definitions of its tables are built and executed in this process.

Imported only if a table is due, because it loads everything that a copy needs.
"""

import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, get_args

import dagster as dg

from pg_bronze.cli.outcome import Copied, Failed, Outcome
from pg_bronze.cli.progress_bars import bars
from pg_bronze.cli.terminal import terminal
from pg_bronze.core.table import SourceTable
from pg_bronze.defs import build, metadata, run_tags, run_watchdog
from pg_bronze.defs.catalog_state import CatalogState
from pg_bronze.defs.run_console import RUN_CONFIG
from pg_bronze.defs.source_names import SourceNames
from pg_bronze.errors import Retry
from pg_bronze.settings.model import Settings

if TYPE_CHECKING:
    from pg_bronze.cli.batches import Batches

# A run keeps its definitions, its plan and its events in memory until it ends.
TABLES_PER_RUN = 500
# Of the control table and the reader: the same for all tables of a run.
_NOTICES = ("etl_control is not mirrored", "Slices are read with COPY")
_QUIET = re.compile(r": no new row up to transaction \d+|^batch: 0 new rows in 0 tables, [\d,]+ unchanged$")


def groups(
    tables: Sequence[SourceTable], large: Collection[str], slow: Collection[str]
) -> Iterator[Sequence[SourceTable]]:
    """Yield the tables of each run: those with little to copy first, then each slow table and large first load."""
    small = [table for table in tables if table.label not in large and table.label not in slow]
    for first in range(0, len(small), TABLES_PER_RUN):
        yield small[first : first + TABLES_PER_RUN]
    for alone in (slow, large):
        yield from ([table] for table in tables if table.label in alone)


def copy(
    tables: Sequence[SourceTable],
    instance: dg.DagsterInstance,
    settings: Settings,
    state: CatalogState,
    batches: "Batches",
) -> Outcome:
    """Copy tables in one run; return what was copied and what failed."""
    with bars() as shown:
        watch = shown.show if shown else None
        definitions = build.build_definitions(
            settings, state.with_tables(tables), _console(batches), watch, with_checks=False
        )
        names = SourceNames(settings)
        return _run(definitions, instance, tables, names, {**_tags(tables, batches), **names.tags})


def _tags(tables: Sequence[SourceTable], batches: "Batches") -> dict[str, str]:
    tags = {metadata.BATCH_TAG: batches.kind} | run_tags.requested([table.label for table in tables], ())
    if batches.server:
        tags[run_watchdog.SERVER_TAG] = batches.server
    if batches.large_tables:
        tags[metadata.LARGE_TABLES_TAG] = str(batches.large_tables)
    for tag, labels in ((metadata.FIRST_LOAD_TAG, batches.large), (metadata.SLOW_TAG, batches.slow)):
        if any(table.label in labels for table in tables):
            tags[tag] = "true"
    return tags


def _run(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    tables: Sequence[SourceTable],
    names: SourceNames,
    tags: Mapping[str, str],
) -> Outcome:
    """Materialize today's partition of the tables; return what was copied and what failed."""
    keys = {names.bronze_key(table): table.label for table in tables}
    result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        asset_selection=list(keys),
        partition_key=datetime.now(UTC).date().isoformat(),
        run_config=RUN_CONFIG,
        raise_on_error=False,
        tags=dict(tags),
    )
    failed = _failed(result, {key.to_python_identifier(): label for key, label in keys.items()})
    if not result.success and not failed:
        failed["the batch"] = Failed("it could not be started. See the lines above.")
    read = {label: Copied() for label in keys.values() if label not in failed}
    return Outcome({} if "the batch" in failed else read | _copied(result, keys), failed)


def _copied(result: dg.ExecuteInProcessResult, labels: Mapping[dg.AssetKey, str]) -> dict[str, Copied]:
    copied: dict[str, Copied] = {}
    for event in result.all_events:
        if event.event_type != dg.DagsterEventType.ASSET_MATERIALIZATION:
            continue
        materialization = event.step_materialization_data.materialization
        entries: dict[str, Any] = {name: entry.value for name, entry in materialization.metadata.items()}
        if metadata.ROWS in entries:  # not one of another day, which has the watermark alone
            rows, size, slices = entries[metadata.ROWS], entries["pg_bronze/bytes"], metadata.object_count(entries)
            copied[labels[materialization.asset_key]] = Copied(rows, slices, size, entries.get("dagster/uri"))
    return copied


def _failed(result: dg.ExecuteInProcessResult, labels: Mapping[str, str]) -> dict[str, Failed]:
    failed: dict[str, Failed] = {}
    for event in result.all_events:
        if event.event_type == dg.DagsterEventType.STEP_FAILURE and event.step_key:
            error = event.step_failure_data.error
            if error is not None and error.cls_name == "DagsterExecutionInterruptedError":
                raise KeyboardInterrupt  # Dagster reports an interrupt as a failure of the step
            label = labels.get(event.step_key, event.step_key)
            # The caller prints the label in front of the sentence, and a cause of several tables once.
            failed[label] = Failed(_sentence(event).removeprefix(f"{label}: "), _retry(event))
    return failed


def _sentence(event: Any) -> str:
    data = event.step_failure_data
    if data.user_failure_data and data.user_failure_data.description:
        return str(data.user_failure_data.description)
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return str(error.message).strip() if error else "failed"


def _retry(event: Any) -> Retry:
    """Return what a retry requires; an unexpected error is retried automatically."""
    failure = event.step_failure_data.user_failure_data
    entry = failure.metadata.get(metadata.RETRY) if failure else None
    return next((retry for retry in get_args(Retry) if entry is not None and retry == entry.value), "automatic")


class _PlainLines(logging.Handler):
    """Prints the log lines of a run without Dagster's prefix. Failures are printed at the end of the batch.

    What every run of a process would say again is printed once, until a run does not say it.
    """

    def __init__(self, batches: "Batches") -> None:
        super().__init__()
        self._batches = batches

    def emit(self, record: logging.LogRecord) -> None:
        meta = getattr(record, "dagster_meta", {})
        if record.levelno in {logging.INFO, logging.WARNING} and meta.get("dagster_event") is None:
            text = str(meta.get("orig_message", record.getMessage()))
            if not (text.startswith(_NOTICES) and self._batches.knows(text)) and not self._is_quiet(text):
                terminal.print(text)

    def _is_quiet(self, text: str) -> bool:
        """Return whether a command that runs for months leaves a line out, because nothing was copied."""
        return self._batches.unattended and bool(_QUIET.search(text))


def _console(batches: "Batches") -> dg.LoggerDefinition:
    @dg.logger
    def plain(_context: dg.InitLoggerContext) -> logging.Logger:
        # Not getLogger: a second batch in this process would add a second handler, and print every line twice.
        logger = logging.Logger("pg_bronze", logging.INFO)  # noqa: LOG001  (see above)
        logger.addHandler(_PlainLines(batches))
        return logger

    return plain
