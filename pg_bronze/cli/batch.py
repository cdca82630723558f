"""One batch of `pg-bronze tick` or `pg-bronze run`: materializes the assets in this process."""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pg_bronze.cli import kept_memory
from pg_bronze.cli.instance import open_instance
from pg_bronze.cli.progress_bars import bars
from pg_bronze.cli.terminal import terminal
from pg_bronze.errors import NoConnectionFree, SettingsError
from pg_bronze.scheduling import backoff
from pg_bronze.scheduling.backoff import Failure

if TYPE_CHECKING:
    import dagster as dg

    from pg_bronze.core.table import SourceTable
    from pg_bronze.defs.catalog_state import CatalogState
    from pg_bronze.defs.table_facts import Process
    from pg_bronze.scheduling.memory import Memory
    from pg_bronze.settings.model import Settings

# A run keeps its definitions, its plan and its events in memory until it ends.
TABLES_PER_RUN = 500
PRUNE_EVERY_S = 60.0
# Of `pg-bronze run`: the other tables wait for its turn.
FIRST_LOADS_PER_BATCH = 1
# Of the control table and the reader: the same for all tables of a run.
_NOTICES = ("etl_control is not mirrored", "Slices are read with COPY")


@dataclass
class Batches:
    """The state that one command keeps between batches.

    Attributes:
        unattended: True for `pg-bronze run`, which copies the tables that are due, as the sensor does. False is a batch
            that a person requested: it copies every committed row, and retries failing tables at once.
        printed: Sentences that are not repeated.
        notices: What the runs of this batch said about the control table and the reader.
        former_notices: What those of the last batch with runs said; it is not repeated.
        reported: The time of the last failure of each table that was printed.
        memory: What the last check returned; None before the first one.
        process: What this process keeps between checks.
        stored: The catalog was stored in the bucket.
        pruned_at: When Dagster's storage was last pruned, in seconds since 1970.
        large_tables: The number of tables that are swept by a schedule, as the last check found it.
        large: The tables of this batch whose first load takes long.
    """

    unattended: bool = False
    printed: set[str] = field(default_factory=set)
    notices: set[str] = field(default_factory=set)
    former_notices: set[str] = field(default_factory=set)
    reported: dict[str, float] = field(default_factory=dict)
    memory: "Memory | None" = None
    process: "Process | None" = None
    stored: bool = False
    pruned_at: float = 0.0
    large_tables: int = 0
    large: Collection[str] = ()

    def print_once(self, sentence: str) -> None:
        """Print a sentence unless this command has printed it before."""
        if sentence not in self.printed:
            self.printed.add(sentence)
            terminal.print(sentence)

    def knows(self, notice: str) -> bool:
        """Return whether the batch before this one, or a run of this one, has said the same."""
        known = notice in self.former_notices | self.notices
        self.notices.add(notice)
        return known

    def report(self, failing: Mapping[str, tuple[Failure, float]]) -> None:
        """Print one sentence for each cause of failures that were not printed yet.

        Args:
            failing: The failure of each table and the time of its next retry, by label.
        """
        new = {name: found for name, found in failing.items() if self.reported.get(name) != found[0].last}
        self.reported |= {name: failure.last for name, (failure, _) in new.items()}
        for sentence in backoff.sentences(new, datetime.now(UTC).timestamp()):
            terminal.complain(sentence)


def run_batch(labels: Sequence[str], batches: Batches) -> bool:
    """Copy the named tables, the due ones or all, and print one sentence for each cause of a failure.

    Returns:
        Whether no table failed.
    """
    with open_instance() as instance:
        failed, explained = _copy(labels, instance, batches)
    by_cause: dict[str, list[str]] = {}
    for label, sentence in sorted(failed.items()):
        if label in explained:
            continue
        by_cause.setdefault(sentence, []).append(label)
    for sentence, named in by_cause.items():
        terminal.complain(f"{backoff.name_list(named)} failed: {sentence}")
    return not failed


def _copy(
    labels: Sequence[str], instance: "dg.DagsterInstance", batches: Batches
) -> tuple[dict[str, str], Collection[str]]:
    """Run one batch; return the sentence of each failed table by its label, and the labels that it has printed."""
    from pg_bronze.defs import build, catalog_state
    from pg_bronze.settings.load import load_settings
    from pg_bronze.settings.process import tune_process

    tune_process()
    settings = load_settings()
    state = catalog_state.load(settings)
    if state.error and state.catalog is None:
        raise SettingsError(state.error)
    tables = _tables(labels, settings, state, batches)
    if not tables:
        terminal.print("There is no table to copy.")
    elif not labels:
        _prune(instance, tables, settings, batches)
        try:
            tables = _due(instance, tables, settings, batches)
        except NoConnectionFree as error:
            terminal.print(f"The tables are left to a later tick. {error}")
            tables = []
    failed: dict[str, str] = {}
    explained: set[str] = set()
    if tables:
        batches.former_notices, batches.notices = batches.notices, set()
    for together in _groups(tables, batches.large):
        with bars() as shown:
            watch = shown.show if shown else None
            definitions = build.build_definitions(settings, state.with_tables(together), _console(batches), watch)
            found = _run(definitions, instance, together, _tags(together, batches))
        if batches.unattended:
            explained |= _explain(instance, [table for table in together if table.label in found], batches)
        failed |= found
    if state.remembered:
        failed["the catalog"] = state.remembered
    if not failed and not batches.stored:
        catalog_state.store_in_bucket(settings, state)
        batches.stored = True
    return failed, explained


def _groups(tables: "Sequence[SourceTable]", large: Collection[str]) -> "Iterator[Sequence[SourceTable]]":
    """Yield the tables of each run: those with little to copy come first, a large first load is alone."""
    small = [table for table in tables if table.label not in large]
    for first in range(0, len(small), TABLES_PER_RUN):
        yield small[first : first + TABLES_PER_RUN]
    for table in tables:
        if table.label in large:
            yield [table]


def _tags(tables: "Sequence[SourceTable]", batches: Batches) -> dict[str, str]:
    from pg_bronze.defs import metadata

    kind = "run" if batches.unattended else "command"
    tags = {metadata.BATCH_TAG: kind, metadata.LARGE_TABLES_TAG: str(batches.large_tables)}
    is_load = any(table.label in batches.large for table in tables)
    return tags | ({metadata.FIRST_LOAD_TAG: "true"} if is_load else {})


def _explain(instance: "dg.DagsterInstance", tables: "Sequence[SourceTable]", batches: Batches) -> set[str]:
    """Print since when tables fail and when they are retried; return the labels of those of which that is known."""
    from pg_bronze.defs import asset_keys, failures

    found = {table.label: failures.last_failure(instance, asset_keys.bronze_key(table)) for table in tables}
    known = {
        label: (failure, backoff.next_retry_at(failure, failure.state)) for label, failure in found.items() if failure
    }
    batches.report(known)
    return set(known)


def _tables(
    labels: Sequence[str], settings: "Settings", state: "CatalogState", batches: Batches
) -> "list[SourceTable]":
    """Return the named tables, or all that are copied, and print why tables are skipped.

    Raises:
        SettingsError: A named table does not exist or is not copied.
    """
    from pg_bronze.defs import new_tables

    known = {table.label: table for table in state.catalog.tables} if state.catalog else {}
    included = {label: table for label, table in known.items() if settings.wants(label)}
    skipped = {
        label: reason for label, table in included.items() if (reason := new_tables.skip_reason(table, settings))
    }
    for label in labels:
        if label not in known:
            names = ", ".join(sorted(known)) or "none"
            raise SettingsError(f"There is no table {label!r} in the catalog. The tables are: {names}.")
        if label not in included or label in skipped:
            reason = skipped.get(label, "PG_BRONZE_INCLUDE or PG_BRONZE_EXCLUDE excludes it")
            raise SettingsError(f"{label} is not copied: {reason}.")
    for pattern in () if labels else settings.unmatched(known):
        batches.print_once(f"PG_BRONZE_INCLUDE: no table matches {pattern!r}")
    for label, reason in skipped.items():
        batches.print_once(f"skipped {label}: {reason}")
    return [table for label, table in included.items() if label not in skipped and (not labels or label in labels)]


def _due(
    instance: "dg.DagsterInstance", tables: "Sequence[SourceTable]", settings: "Settings", batches: Batches
) -> "list[SourceTable]":
    """Return the tables that have to be copied now, and print why the others are not."""
    from pg_bronze.defs import due_tables
    from pg_bronze.defs.resources import open_bucket, open_source
    from pg_bronze.defs.table_facts import Process
    from pg_bronze.lake import generations

    attended = not batches.unattended
    batches.process = batches.process or Process()
    memory = batches.memory or kept_memory.load(instance, settings)
    now = datetime.now(UTC).timestamp()
    moved = generations.newest_old(open_bucket(settings), settings.prefix) if attended else {}
    with open_source(settings, "pg_bronze run") as source:
        checked = due_tables.check(
            instance, tables, settings, source, memory, batches.process, now, attended, moved, FIRST_LOADS_PER_BATCH
        )
    batches.memory, batches.large_tables = checked.memory, checked.large_tables
    batches.large = {item.table.label for item in checked.due if item.large}
    if attended:
        kept_memory.store(instance, settings, checked.memory)
    if batches.unattended:
        failing = {item.table.label: (item.failure, item.next_retry) for item in checked.tables if item.failure}
        batches.report(failing)
    if not checked.due:
        terminal.print(". ".join(part for part in (checked.summary, checked.blocked) if part))
    return [item.table for item in checked.due]


def _prune(
    instance: "dg.DagsterInstance", tables: "Sequence[SourceTable]", settings: "Settings", batches: Batches
) -> None:
    """Remove old runs and events from Dagster's storage, at most once a minute."""
    from datetime import UTC, datetime

    from pg_bronze.defs import asset_keys, retention

    now = datetime.now(UTC).timestamp()
    if now - batches.pruned_at >= PRUNE_EVERY_S:
        retention.prune(instance, [asset_keys.bronze_key(table) for table in tables], settings, now)
        batches.pruned_at = now


def _run(
    definitions: "dg.Definitions",
    instance: "dg.DagsterInstance",
    tables: "Sequence[SourceTable]",
    tags: dict[str, str],
) -> dict[str, str]:
    """Materialize today's partition of the tables; return the sentence of each failed one by its label."""
    from pg_bronze.defs import asset_keys

    keys = {asset_keys.bronze_key(table): table.label for table in tables}
    result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        asset_selection=list(keys),
        partition_key=datetime.now(UTC).date().isoformat(),
        run_config={"loggers": {"console": {}}},
        raise_on_error=False,
        tags=tags,
    )
    failed = _failed(result, {key.to_python_identifier(): label for key, label in keys.items()})
    if not result.success and not failed:
        failed["the batch"] = "it could not be started. See the lines above."
    return failed


def _failed(result: "dg.ExecuteInProcessResult", labels: Mapping[str, str]) -> dict[str, str]:
    import dagster as dg

    failed: dict[str, str] = {}
    for event in result.all_events:
        if event.event_type == dg.DagsterEventType.STEP_FAILURE and event.step_key:
            error = event.step_failure_data.error
            if error is not None and error.cls_name == "DagsterExecutionInterruptedError":
                raise KeyboardInterrupt  # Dagster reports an interrupt as a failure of the step
            label = labels.get(event.step_key, event.step_key)
            # The caller prints the label in front of the sentence, and a cause of several tables once.
            failed[label] = _sentence(event).removeprefix(f"{label}: ")
    return failed


def _sentence(event: Any) -> str:
    data = event.step_failure_data
    if data.user_failure_data and data.user_failure_data.description:
        return str(data.user_failure_data.description)
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return str(error.message).strip() if error else "failed"


class _PlainLines(logging.Handler):
    """Prints the log lines of a run without Dagster's prefix. Failures are printed at the end of the batch.

    What every run of a process would say again is printed once, until a run does not say it.
    """

    def __init__(self, batches: Batches) -> None:
        super().__init__()
        self._batches = batches

    def emit(self, record: logging.LogRecord) -> None:
        meta = getattr(record, "dagster_meta", {})
        if record.levelno in {logging.INFO, logging.WARNING} and meta.get("dagster_event") is None:
            text = str(meta.get("orig_message", record.getMessage()))
            if not (text.startswith(_NOTICES) and self._batches.knows(text)):
                terminal.print(text)


def _console(batches: Batches) -> "dg.LoggerDefinition":
    import dagster as dg

    @dg.logger
    def plain(_context: dg.InitLoggerContext) -> logging.Logger:
        # Not getLogger: a second batch in this process would add a second handler, and print every line twice.
        logger = logging.Logger("pg_bronze", logging.INFO)  # noqa: LOG001
        logger.addHandler(_PlainLines(batches))
        return logger

    return plain
