"""Failing tables: how a failure is recorded, and how it is found again.

A failure is stored as an observation of the table's asset. It is visible in the asset's history, survives a restart,
and costs nothing while no table fails. It is reported outside the run, because Dagster drops the events of a failing
step. The asset, the IO manager, the sensor and the command line use this module. ``scheduling.backoff`` decides when a
failing table is retried.
"""

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import dagster as dg

from pg_bronze.core.table import SourceTable
from pg_bronze.core.watermark import Watermark
from pg_bronze.defs import log_lines, metadata
from pg_bronze.errors import PgBronzeError, retry_of
from pg_bronze.scheduling import backoff
from pg_bronze.scheduling.backoff import Failure

# Newest observations of a table to search, because users may add observations to the same asset.
_OBSERVATION_LIMIT = 5


@dataclass(frozen=True)
class LastRun:
    """What the last run reported about a table that it did not materialize.

    Attributes:
        failure: The failure of the table, or None.
        quiet: ``(generation, transaction)``: nothing new was found below this transaction; ``(-1, 0)`` if not known.
        silent: The run reported nothing, as after its worker was killed or with invalid settings.
        progress: What it read of a large table and found empty.
        slow: It took long, or another session's lock kept the table from being read.
    """

    failure: Failure | None = None
    quiet: tuple[int, int] = (-1, 0)
    silent: bool = False
    progress: Watermark | None = None
    slow: bool = False


def last_run(instance: dg.DagsterInstance, key: dg.AssetKey, run_id: str) -> LastRun:
    """Return what a run reported about an asset that it did not materialize."""
    for record in instance.fetch_observations(key, limit=_OBSERVATION_LIMIT).records:
        observation = record.event_log_entry.asset_observation
        failure, reported_by = metadata.failure_of(observation)
        if failure is not None:
            is_its = reported_by == run_id
            return LastRun(
                failure if is_its else None, silent=not is_its, slow=metadata.is_slow(metadata.values_of(observation))
            )
        if observation is not None and metadata.is_quiet(observation):
            return replace(_quiet(observation), silent=record.event_log_entry.run_id != run_id)
    return LastRun(silent=True)


def quiet_in_run(instance: dg.DagsterInstance, run_id: str) -> dict[dg.AssetKey, LastRun]:
    """Return the assets of which a run reported that it found nothing new, with one query for all of them."""
    records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_OBSERVATION).records
    observations = (record.event_log_entry.asset_observation for record in records)
    return {
        observation.asset_key: _quiet(observation)
        for observation in observations
        if observation is not None and metadata.is_quiet(observation)
    }


def _quiet(observation: dg.AssetObservation) -> LastRun:
    progress, slow = metadata.progress_of(observation), metadata.is_slow(metadata.values_of(observation))
    return LastRun(quiet=metadata.quiet_upto(observation), progress=progress, slow=slow)


def last_progress(instance: dg.DagsterInstance, key: dg.AssetKey) -> Watermark | None:
    """Return what the last run of a large table read and found empty; None if it recorded nothing."""
    records = instance.fetch_observations(key, limit=_OBSERVATION_LIMIT).records
    found = (metadata.progress_of(record.event_log_entry.asset_observation) for record in records)
    return next((progress for progress in found if progress), None)


def last_failure(instance: dg.DagsterInstance, key: dg.AssetKey) -> Failure | None:
    """Return the failure of a table, or None if it was materialized or found unchanged since."""
    for record in instance.fetch_observations(key, limit=_OBSERVATION_LIMIT).records:
        observation = record.event_log_entry.asset_observation
        failure, _ = metadata.failure_of(observation)
        if failure is None and not metadata.is_quiet(observation):
            continue
        latest = instance.get_latest_materialization_event(key) if failure else None
        return None if latest and latest.timestamp > record.event_log_entry.timestamp else failure
    return None


@contextmanager
def recorded(
    instance: dg.DagsterInstance, run: dg.DagsterRun, key: dg.AssetKey, label: str, state: str, failed: list[str]
) -> Iterator[None]:
    """Record every error that is raised in the block, and raise errors of pg_bronze as Dagster shows them.

    Args:
        label: The table as messages name it.
        state: ``state_of`` the table in this run.
        failed: The tables of this run whose copy failed; this one is added then.
    """
    started = time.monotonic()
    try:
        yield
    except Exception as error:
        failed.append(label)
        _record(instance, run, key, error, state, time.monotonic() - started)
        if isinstance(error, PgBronzeError):
            raise log_lines.dagster_failure(error, label) from error
        raise


def _record(
    instance: dg.DagsterInstance, run: dg.DagsterRun, key: dg.AssetKey, error: Exception, state: str, seconds: float
) -> None:
    if isinstance(error, PgBronzeError):
        sentence = str(error)
    else:
        # The text of an unexpected error may contain a value of a row, so it is in the run's log only.
        sentence = f"unexpected {type(error).__name__}; see the traceback in the log of run {run.run_id[:8]}."
    manual = run.tags.get(metadata.BATCH_TAG) not in metadata.UNATTENDED
    now = datetime.now(UTC).timestamp()
    failure = backoff.record_failure(last_failure(instance, key), sentence, retry_of(error), now, state, manual)
    entries = metadata.of_failure(failure, run.run_id, backoff.next_retry_at(failure, state))
    entries |= metadata.of_duration(seconds)
    instance.report_runless_asset_event(dg.AssetObservation(key, metadata=entries))


def state_of(settings_fingerprint: str, table: SourceTable) -> str:
    """Return a text that changes with a table's settings or definition: the cause of a failure may be fixed then.

    The sensor and the run worker may have read the catalog at different times, so it depends only on what makes the
    definitions load again. After a GRANT or VACUUM FULL they would differ for good, and each tick would retry.
    """
    definition = json.dumps(table.definition, default=repr, sort_keys=True)
    return f"{settings_fingerprint}-{hashlib.sha256(definition.encode()).hexdigest()[:16]}"
