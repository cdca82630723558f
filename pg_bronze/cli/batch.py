"""TODO cli.batch."""

import logging
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pg_bronze.cli.instance import open_instance
from pg_bronze.errors import SettingsError
from pg_bronze.scheduling import backoff

if TYPE_CHECKING:
    import dagster as dg

    from pg_bronze.scheduling.backoff import Failure


@dataclass
class BatchState:
    """What `pg-bronze run` keeps from batch to batch: what it has said, and which tables it leaves alone for a while.

    ``failures_by_table`` holds each failing table's failure_state, and settings and catalog as they were when it failed.
    """

    unattended: bool = False
    said: set[str] = field(default_factory=set)
    failures_by_table: "dict[str, tuple[Failure, object]]" = field(default_factory=dict)

    def once(self, sentence: str) -> None:
        """Print a sentence unless it was the last time, too."""
        if sentence not in self.said:
            self.said.add(sentence)
            print(sentence, flush=True)

    def waiting(self, state: object, now: float) -> dict[str, float]:
        """The tables that are not tried yet, and when they will be; none of them once ``state`` has changed."""
        found = {
            label: backoff.next_retry_at(failure_state, failure_state.state)
            for label, (failure_state, then) in self.failures_by_table.items()
            if then == state
        }
        return {label: moment for label, moment in found.items() if moment > now}


def _batch(tables: list[str], instance: "dg.DagsterInstance", told: BatchState) -> dict[str, str]:
    """Run one batch through the same assets as the UI; gives the sentence of each failed table by its label."""
    from datetime import UTC, datetime

    import dagster as dg

    from pg_bronze.defs import asset_keys, build, catalog_state, failures, metadata
    from pg_bronze.settings.load import load_settings

    settings = load_settings()
    _, state = catalog_state.load()
    if state.error and state.catalog is None:
        raise SettingsError(state.error)
    found = build.build_definitions(settings, state, _console())
    known = {table.label: table for table in state.catalog.tables} if state.catalog else {}
    for label in tables:
        if label not in known:
            raise SettingsError(
                f"there is no table {label!r} in the catalog (tables: {', '.join(sorted(known)) or 'none'})."
            )
    skipped = {
        label: why
        for label, table in known.items()
        if settings.wants(label) and (why := build.skipped(table, settings))
    }
    executable = found.resolve_asset_graph().executable_asset_keys
    keys = {asset_keys.bronze_key(table): label for label, table in known.items() if not tables or label in tables}
    for key, label in keys.items():
        if tables and key not in executable:
            why = skipped.get(label, "PG_BRONZE_INCLUDE, PG_BRONZE_EXCLUDE or PG_BRONZE_UNTRACKED leaves it out")
            raise SettingsError(f"{label} is not copied: {why}.")
    for label, why in skipped.items():
        told.once(f"skipped {label}: {why}")
    # With the secrets: whoever corrects a password does not wait for the pause to end.
    stamp = (settings, state.catalog.fingerprint if state.catalog else None)
    now = datetime.now(UTC).timestamp()
    waiting = told.waiting(stamp, now)
    if waiting:
        shown = {label: (told.failures_by_table[label][0], then) for label, then in waiting.items()}
        for sentence in backoff.sentences(shown, now):
            told.once(f"pg-bronze: {sentence}")
    selection = [key for key, label in keys.items() if key in executable and label not in waiting]
    if not selection:
        if not waiting:
            print("no table to copy", flush=True)
        return {}
    result = found.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        asset_selection=selection,
        partition_key=datetime.now(UTC).date().isoformat(),
        run_config={"loggers": {"console": {}}},
        raise_on_error=False,
        tags={metadata.BATCH_TAG: "run" if told.unattended else "command"},
    )
    by_step = {key.to_python_identifier(): label for key, label in keys.items()}
    failed: dict[str, str] = {}
    for event in result.all_events:
        if event.event_type == dg.DagsterEventType.STEP_FAILURE and event.step_key:
            error = event.step_failure_data.error
            if error is not None and error.cls_name == "DagsterExecutionInterruptedError":
                raise KeyboardInterrupt  # which Dagster took for a failure of the step
            label = by_step.get(event.step_key, event.step_key)
            # The table's name is said first anyway, and what several have in common is said once.
            failed[label] = _sentence(event).removeprefix(f"{label}: ")
    if not result.success and not failed:
        failed["the batch"] = "it could not be started; the lines above say why"
    for key in selection:
        told.failures_by_table.pop(keys[key], None)
        failure_state = failures.last_failure(instance, key) if told.unattended and keys[key] in failed else None
        if failure_state is not None:
            told.failures_by_table[keys[key]] = (failure_state, stamp)
    return failed


def _console() -> "dg.LoggerDefinition":
    """Prints what our own code says, without Dagster's prefix; failures are said once, at the end."""
    import dagster as dg

    class Plain(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            meta = getattr(record, "dagster_meta", {})
            if record.levelno in {logging.INFO, logging.WARNING} and meta.get("dagster_event") is None:
                # At once: into a pipe or a journal, the lines of a batch would come with those of a later one.
                print(meta.get("orig_message", record.getMessage()), flush=True)

    @dg.logger
    def plain(_context: dg.InitLoggerContext) -> logging.Logger:
        # Not getLogger: each batch gets its own, or a second one in this process would print every line twice.
        logger = logging.Logger("pg_bronze", logging.INFO)  # noqa: LOG001  (a logger of its own)
        logger.addHandler(Plain())
        return logger

    return plain


def _sentence(event: Any) -> str:
    data = event.step_failure_data
    if data.user_failure_data and data.user_failure_data.description:
        return str(data.user_failure_data.description)
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return str(error.message).strip() if error else "failed"


def run_batch(tables: list[str], told: BatchState) -> bool:
    with open_instance() as instance:
        failed = _batch(tables, instance, told)
    by_cause: dict[str, list[str]] = {}
    for label, sentence in sorted(failed.items()):
        by_cause.setdefault(sentence, []).append(label)
    for sentence, labels in by_cause.items():
        print(f"pg-bronze: {backoff.name_list(labels)} failed: {sentence}", file=sys.stderr)
    return not failed
