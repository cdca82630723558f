"""One batch of `pg-bronze tick` or `pg-bronze run`: checks which tables are due, and copies these.

The check needs the instance, the catalog, the source and the bucket. What a copy needs is imported if a table is due.
"""

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pg_bronze.cli import kept_memory, states_after
from pg_bronze.cli.batches import Batches
from pg_bronze.cli.instance import open_instance
from pg_bronze.cli.outcome import Copied, Failed, Outcome, StateAfter
from pg_bronze.cli.terminal import terminal
from pg_bronze.errors import NoConnectionFree, SettingsError
from pg_bronze.scheduling import backoff
from pg_bronze.scheduling import batches as scheduling_batches
from pg_bronze.settings import process

if TYPE_CHECKING:
    import dagster as dg

    from pg_bronze.core.table import SourceTable
    from pg_bronze.defs.catalog_state import CatalogState
    from pg_bronze.defs.due_tables import Check
    from pg_bronze.lake.object_store import Store
    from pg_bronze.postgres.activity import OldestTransaction
    from pg_bronze.settings.model import Settings

PRUNE_EVERY_S, PRUNE_QUIET_EVERY_S = 60.0, 600.0
# Of `pg-bronze run`: the other tables wait for its turn.
FIRST_LOADS_PER_BATCH = 1
# A database that is written to always has an open transaction.
BLOCKED_AFTER_S = 1.0


def run_batch(labels: Sequence[str], batches: Batches) -> Outcome:
    """Copy the named tables, the due ones or all, and print one sentence for each cause of a failure.

    Raises:
        PgBronzeError: No run was started, and no failure of a table was recorded.
    """
    with contextlib.ExitStack() as stack:
        with process.without_collector():
            instance = stack.enter_context(open_instance())
            _import_check()
            process.tune_process()
            checked = _check(labels, instance, batches)
            if not batches.unattended:
                process.exempt_from_collection()  # the first collection would traverse the facts about all tables
        outcome, explained = _copy(checked, instance, batches)
        if batches.with_states and checked.tables:
            states = states_after.read(instance, checked.settings, checked.tables)
            outcome = replace(outcome, states={**outcome.states, **states})
    revoked = {label: outcome.not_copied[label] for label in outcome.revoked}
    sentences = {label: item.sentence for label, item in outcome.failed.items()} | revoked
    by_cause: dict[str, list[str]] = {}
    for label, sentence in sorted(sentences.items()):
        if label in explained:
            continue
        by_cause.setdefault(sentence, []).append(label)
    for sentence, named in by_cause.items():
        terminal.complain(f"{backoff.name_list(named)} failed: {sentence}")
    for label, sentence in outcome.not_copied.items():
        if label not in {*revoked, *explained}:
            terminal.complain(sentence)
    return outcome


def _import_check() -> None:
    """Import what a check needs, before the objects of all modules are frozen."""
    import botocore.session  # noqa: F401  (used later)
    import psycopg  # noqa: F401  (used later)

    from pg_bronze.defs import due_tables, retention, skipped_tables  # noqa: F401  (used later)


@dataclass(frozen=True)
class _Checked:
    """What a batch copies, and what it does that with.

    Attributes:
        settings: The settings of this batch.
        store: The bucket.
        state: The catalog.
        tables: The tables to copy.
        revoked: A sentence for each table that is skipped now and was copied before, by label.
        former: A sentence for each other table that was copied before and is not any more, by label.
        blocked: Which transaction keeps new rows from being copied, as a sentence; None if none does.
        held: Of `tick --due`, the failing tables that are retried later, by label.
        states: Their states, by label.
    """

    settings: "Settings"
    store: "Store"
    state: "CatalogState"
    tables: "Sequence[SourceTable]"
    revoked: Mapping[str, str]
    former: Mapping[str, str]
    blocked: str | None = None
    held: Mapping[str, Failed] = field(default_factory=dict)
    states: Mapping[str, StateAfter] = field(default_factory=dict)


def _check(labels: Sequence[str], instance: "dg.DagsterInstance", batches: Batches) -> _Checked:
    """Find the tables to copy, and print why the others are not copied."""
    from pg_bronze.defs import catalog_state
    from pg_bronze.defs.connections import open_bucket
    from pg_bronze.settings.load import load_settings

    settings = load_settings()
    store = open_bucket(settings)
    state = catalog_state.read(settings, datetime.now(UTC), store)
    if state.error and state.catalog is None:
        raise SettingsError(state.error)
    if state.error and not state.remembered:
        store.check()  # the bucket did not answer, or rejects these keys: no failure of a table
    tables, revoked = _tables(labels, instance, settings, state, store, batches)
    former = {} if labels else {item.table.label: item.reason for item in state.former}
    rest = {label: reason for label, reason in former.items() if label not in revoked}
    checked = _Checked(settings, store, state, tables, revoked, rest)
    if not tables:
        batches.print_once("There is no table to copy.")
    elif labels and not batches.unattended:
        return replace(checked, blocked=_connect(settings))
    else:
        try:
            checked = _due(instance, checked, batches, of_some=bool(labels))
        except NoConnectionFree as error:
            terminal.print(f"The tables are left to a later tick. {error}")
            checked = replace(checked, tables=[])
        known = state.catalog.tables if labels and state.catalog else tables
        _prune(instance, known, settings, batches, quiet=not checked.tables)
    return checked


def _connect(settings: "Settings") -> str | None:
    """Log in to the source before a run is started, and return which transaction blocks new rows.

    A wrong password in the shell of one person is an error of this command. In a run it would be recorded as the
    failure of the table, for everybody.
    """
    from pg_bronze.defs.connections import open_source
    from pg_bronze.postgres import activity

    try:
        with open_source(settings, "pg_bronze run") as source:
            source.horizon()
            oldest = None if source.is_idle or source.standby else activity.oldest_transaction(source)
    except NoConnectionFree:
        return None  # the run leaves its tables to a later tick
    if oldest is None or not _lasts(oldest):
        return None
    sentence = f"New rows are blocked: {oldest.sentence(activity.STALLED_AFTER_S)}"
    terminal.complain(sentence)
    return sentence


def _lasts(oldest: "OldestTransaction") -> bool:
    """Return whether an open transaction is a reason for an exit status; most end in milliseconds."""
    return oldest.open_s is None or oldest.open_s >= BLOCKED_AFTER_S


def _copy(checked: _Checked, instance: "dg.DagsterInstance", batches: Batches) -> tuple[Outcome, Collection[str]]:
    """Copy the tables; return the outcome, and the labels of those tables whose failure it has printed."""
    from pg_bronze.defs import catalog_state

    settings, state, tables = checked.settings, checked.state, checked.tables
    copied, explained = _copy_due(tables, instance, settings, state, batches) if tables else (Outcome(), set())
    failed = {**checked.held, **copied.failed}
    if state.remembered:
        failed["the catalog"] = Failed(state.remembered)
    if not failed and batches.stored != state.former:
        catalog_state.store_in_bucket(settings, state, checked.store, fresh=not tables)
        batches.stored = state.former
    not_copied = {**checked.former, **checked.revoked}
    outcome = Outcome(copied.copied, failed, not_copied, set(checked.revoked), checked.blocked, checked.states)
    return outcome, {*explained, *checked.held} | batches.repeated(not_copied)


def _copy_due(
    tables: "Sequence[SourceTable]",
    instance: "dg.DagsterInstance",
    settings: "Settings",
    state: "CatalogState",
    batches: Batches,
) -> tuple[Outcome, set[str]]:
    from pg_bronze.cli import runs

    copied: dict[str, Copied] = {}
    failed: dict[str, Failed] = {}
    explained: set[str] = set()
    batches.former_notices, batches.notices = batches.notices, set()
    for together in runs.groups(tables, batches.large, batches.slow):
        found = runs.copy(together, instance, settings, state, batches)
        if batches.unattended:
            explained |= _explain(
                instance, [table for table in together if table.label in found.failed], settings, batches
            )
        copied |= found.copied
        failed |= found.failed
    return Outcome(copied, failed), explained


def _explain(
    instance: "dg.DagsterInstance", tables: "Sequence[SourceTable]", settings: "Settings", batches: Batches
) -> set[str]:
    """Print since when tables fail and when they are retried; return the labels of those of which that is known."""
    from pg_bronze.defs import failures
    from pg_bronze.defs.source_names import SourceNames

    names = SourceNames(settings)
    found = {table.label: failures.last_failure(instance, names.bronze_key(table)) for table in tables}
    known = {
        label: (failure, backoff.next_retry_at(failure, failure.state)) for label, failure in found.items() if failure
    }
    batches.report(known)
    return set(known)


def _tables(
    labels: Sequence[str],
    instance: "dg.DagsterInstance",
    settings: "Settings",
    state: "CatalogState",
    store: "Store",
    batches: Batches,
) -> "tuple[list[SourceTable], dict[str, str]]":
    """Return the named tables, or all that are copied, and print why tables are skipped.

    The second value has a sentence for each table that is skipped now and was copied before, by label.

    Raises:
        SettingsError: A named table does not exist or is not copied.
    """
    from pg_bronze.defs import skipped_tables
    from pg_bronze.defs.source_names import SourceNames

    known = {table.label: table for table in state.catalog.tables} if state.catalog else {}
    included = {label: table for label, table in known.items() if settings.wants(label)}
    skipped = {label: reason for label, table in included.items() if (reason := skipped_tables.reason(table, settings))}
    for label in labels:
        if label not in known:
            names = ", ".join(sorted(known)) or "none"
            raise SettingsError(f"There is no table {label!r} in the catalog. The tables are: {names}.")
        if label not in included or label in skipped:
            reason = skipped.get(label, "PG_BRONZE_INCLUDE or PG_BRONZE_EXCLUDE excludes it")
            raise SettingsError(f"{label} is not copied: {reason}.")
    for pattern in () if labels else settings.unmatched(known):
        batches.print_once(f"PG_BRONZE_INCLUDE: no table matches {pattern!r}")
    for sentence in () if labels else settings.unknown_tables(known):
        batches.print_once(sentence)
    former = {item.table.label for item in state.former}
    # A table that is skipped, and that the stored catalog does not name, was never copied, or was forgotten.
    doubtful = [] if labels else [label for label in skipped if label in former or not state.compared]
    suspects = [included[label] for label in doubtful if label not in batches.never_copied]
    revoked = skipped_tables.revoked(instance, suspects, SourceNames(settings), store)
    batches.never_copied = set(skipped) - set(revoked) if not labels else set()
    for label, reason in skipped.items():
        if label not in revoked:
            batches.print_once(f"skipped {label}: {reason}")
    chosen = [table for label, table in included.items() if label not in skipped and (not labels or label in labels)]
    return chosen, revoked


def _due(instance: "dg.DagsterInstance", checked: _Checked, batches: Batches, of_some: bool) -> _Checked:
    """Return what has to be copied now, and which transaction blocks new rows; print why other tables are not.

    Args:
        of_some: The tables are not all that are copied.
    """
    from pg_bronze.defs import due_tables, run_watchdog
    from pg_bronze.defs.connections import open_source
    from pg_bronze.defs.source_names import SourceNames
    from pg_bronze.defs.table_facts import Process
    from pg_bronze.lake import generations
    from pg_bronze.postgres import activity

    settings, tables = checked.settings, checked.tables
    attended = not batches.unattended
    batches.process = batches.process or Process()
    memory = batches.memory or kept_memory.load(instance, settings)
    now = datetime.now(UTC).timestamp()
    moved = generations.newest_old(checked.store, settings.prefix) if attended else {}
    with open_source(settings, "pg_bronze run", lock_timeout_s=scheduling_batches.ASK_WAIT_S) as source:
        run_watchdog.end_abandoned_runs(instance, source, SourceNames(settings).bronze_keys(tables), now)
        found = due_tables.check(
            instance, tables, settings, source, memory, batches.process, now, attended, moved, FIRST_LOADS_PER_BATCH
        )
        oldest = activity.oldest_transaction(source) if found.blocked else None
        batches.server = source.server
    batches.remember(found)
    kept_memory.store(instance, settings, found.memory, of_some)
    _explain_check(found, batches)
    held = [item for item in found.tables if item.failure and not item.decision.due] if batches.is_scheduled else []
    states = {item.label: StateAfter(item.state, item.lag_s) for item in found.health}
    return replace(
        checked,
        tables=[item.table for item in found.due],
        blocked=found.blocked if oldest and _lasts(oldest) else None,
        held={item.table.label: Failed(item.failure.sentence, item.failure.retry) for item in held if item.failure},
        states={item.table.label: states[item.table.label] for item in held},
    )


def _explain_check(found: "Check", batches: Batches) -> None:
    """Print which tables fail and what blocks new rows, and a summary if nothing is copied."""
    if batches.unattended:
        failing = {item.table.label: (item.failure, item.next_retry) for item in found.tables if item.failure}
        batches.report(failing)
        batches.report_blocked(found.blocked)
    elif found.blocked:
        terminal.complain(found.blocked)
    if (batches.is_scheduled or not batches.unattended) and not found.due:
        terminal.print(found.summary)


def _prune(
    instance: "dg.DagsterInstance", tables: "Sequence[SourceTable]", settings: "Settings", batches: Batches, quiet: bool
) -> None:
    """Remove old runs and events from Dagster's storage: at most once a minute, in ten minutes if no table is due."""
    from pg_bronze.defs import retention
    from pg_bronze.defs.source_names import SourceNames

    now, names = datetime.now(UTC).timestamp(), SourceNames(settings)
    # Without a run, only time makes anything too old; a pass takes a tenth of the CPU time of a quiet tick.
    pause_s = PRUNE_QUIET_EVERY_S if quiet else PRUNE_EVERY_S if batches.is_scheduled else 0.0
    if pause_s and now - retention.last_at(instance, names) < pause_s:
        return
    if now - batches.pruned_at >= PRUNE_EVERY_S:
        retention.prune(instance, names.bronze_keys(tables), settings, now, names=names)
        batches.pruned_at = now
