"""Abandoned runs: runs whose worker is gone, so that nobody waits for them.

A worker that is killed, or whose machine goes away, leaves its run "started"; Dagster's own monitoring ends it only
after the longest time a run may take, and until then its tables' pools are taken.
"""

from collections.abc import Collection

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from pg_bronze.postgres.connection import Source

# A worker writes an event for every table and holds its session from the first table to the last. Both missing for this
# long means that it is gone: starting takes it 5 s, ending 1 s.
SILENT_S = 90.0


def session_name(run_id: str) -> str:
    """The application name of a run's session in the source database."""
    return f"pg_bronze run {run_id[:8]}"


def end(instance: dg.DagsterInstance, source: Source, ours: Collection[dg.AssetKey], now: float) -> list[str]:
    """Mark runs of our assets as failed that have no session and wrote no event for 90 s; gives their ids.

    ``now`` is in seconds since 1970. Should such a run be alive after all, claims keep it from doubling anything.
    """
    ended = []
    for record in instance.get_run_records(RunsFilter(statuses=[DagsterRunStatus.STARTED]), limit=200):
        run = record.dagster_run
        if not run.asset_selection or not run.asset_selection <= set(ours):
            continue
        events = instance.get_records_for_run(run.run_id, limit=1, ascending=False).records
        last = events[0].timestamp if events else record.update_timestamp.timestamp()
        if now - last < SILENT_S or source.has_session(session_name(run.run_id)):
            continue
        instance.report_run_failed(
            run,
            f"Its worker is gone: no session in the source database and no event for {now - last:.0f} s. What it had "
            "committed is in the bucket, and the next tick goes on from there.",
        )
        ended.append(run.run_id)
    return ended
