"""Stuck tables: what is remembered of their failures, and how the next tick finds it.

A failure is an observation of the table's asset: it stands in the asset's history in the UI, survives every restart,
and costs nothing as long as nothing fails. It is reported beside the run, because a step that fails drops its events.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg

from pg_bronze.defs import metadata
from pg_bronze.errors import PgBronzeError, retry_of
from pg_bronze.scheduling import backoff
from pg_bronze.scheduling.backoff import Failure

# Of one table; somebody else may observe the same asset in between.
_LOOK_BACK = 5


@dataclass(frozen=True)
class Outcome:
    """What the last run said of a table it did not materialize: ``failure_state``, or up to where it found nothing new.

    ``quiet`` is ``(generation, transaction)``, ``(-1, 0)`` if it is not known. ``silent``: the run said nothing at all,
    as when its worker was killed or its settings were wrong.
    """

    failure_state: Failure | None = None
    quiet: tuple[int, int] = (-1, 0)
    silent: bool = False


def outcome(instance: dg.DagsterInstance, key: dg.AssetKey, run_id: str) -> Outcome:
    """What run ``run_id`` said of an asset that it did not materialize."""
    for record in instance.fetch_observations(key, limit=_LOOK_BACK).records:
        found = record.event_log_entry.asset_observation
        failure_state, said_by = metadata.failure_of(found)
        if failure_state is not None:
            return Outcome(failure_state if said_by == run_id else None, silent=said_by != run_id)
        if metadata.is_quiet(found):
            return Outcome(quiet=metadata.quiet_upto(found), silent=record.event_log_entry.run_id != run_id)
    return Outcome(silent=True)


def last_failure(instance: dg.DagsterInstance, key: dg.AssetKey) -> Failure | None:
    """The failure_state a table is in; None if it was materialized or found quiet since."""
    for record in instance.fetch_observations(key, limit=_LOOK_BACK).records:
        found = record.event_log_entry.asset_observation
        failure_state, _ = metadata.failure_of(found)
        if failure_state is None and not metadata.is_quiet(found):
            continue
        latest = instance.get_latest_materialization_event(key) if failure_state else None
        return None if latest and latest.timestamp > record.event_log_entry.timestamp else failure_state
    return None


def note(instance: dg.DagsterInstance, run: dg.DagsterRun, key: dg.AssetKey, error: Exception, state: str) -> None:
    """Remember that a run could not copy a table; ``state`` is ``state_of`` the table in that run."""
    if isinstance(error, PgBronzeError):
        sentence = str(error)
    else:
        # Its text is not ours and may hold a value of a row; the run's log has it.
        sentence = f"an unforeseen {type(error).__name__}; run {run.run_id[:8]} has the traceback."
    by_hand = run.tags.get(metadata.BATCH_TAG) not in metadata.UNATTENDED
    now = datetime.now(UTC).timestamp()
    failure_state = backoff.record_failure(last_failure(instance, key), sentence, retry_of(error), now, state, by_hand)
    instance.report_runless_asset_event(
        dg.AssetObservation(
            key, metadata=metadata.of_failure(failure_state, run.run_id, backoff.next_retry_at(failure_state, state))
        )
    )


def state_of(settings_fingerprint: str, table_fingerprint: str) -> str:
    """What stands for a table's settings and definition: once it differs, whatever was wrong may be right."""
    return f"{settings_fingerprint}-{table_fingerprint}"
