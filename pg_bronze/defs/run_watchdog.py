"""The watchdog of runs: ends runs whose worker process does not exist any more.

A killed worker leaves its run in the state STARTED, which keeps the pools of its tables occupied. Dagster's run
monitoring ends such a run only after the maximum run time.

A session is seen only on the server that has it. So each run has a tag with the server that it reads from, and a run
that reads from another one, or through a pooler, is left to Dagster's run monitoring.
"""

from collections.abc import Callable, Collection

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from pg_bronze.postgres.connection import Source

# A worker has a session from its first table to its last one, and writes events for each table. It takes 5 s to start
# and 1 s to end, so 90 s without session and event mean that it does not exist any more.
SILENT_S = 90.0
# `Source.server` of the run. The sensor requests a run with that of its own connection, so that a worker that reaches
# the same server writes nothing. Dagster hides tags that begin like this.
SERVER_TAG = ".dagster/pg_bronze_server"


def session_name(run_id: str) -> str:
    """Return the application name of a run's session in the source database."""
    return f"pg_bronze run {run_id[:8]}"


def server_recorder(instance: dg.DagsterInstance | None, run: dg.DagsterRun | None) -> Callable[[str], None]:
    """Return what a run's ``Source`` calls with its server; it changes the tag if that is another one."""
    known = [run.tags.get(SERVER_TAG) if run else None]

    def record(server: str) -> None:
        if instance is not None and run is not None and server != known[0]:
            instance.add_run_tags(run.run_id, {SERVER_TAG: server})
            known[0] = server

    return record


def end_abandoned_runs(
    instance: dg.DagsterInstance, source: Source, keys: Collection[dg.AssetKey], now: float
) -> list[str]:
    """Mark runs as failed that have no session and wrote no event for 90 s, and return their ids.

    If the worker of such a run is alive nevertheless, the claims of the commit prevent duplicates.

    Args:
        keys: The bronze assets. Runs of other assets are left alone.
        now: Seconds since 1970.
    """
    ended = []
    for record in instance.get_run_records(RunsFilter(statuses=[DagsterRunStatus.STARTED]), limit=200):
        run = record.dagster_run
        if not run.asset_selection or not run.asset_selection <= set(keys):
            continue
        events = instance.get_records_for_run(run.run_id, limit=1, ascending=False).records
        last = events[0].timestamp if events else record.update_timestamp.timestamp()
        if now - last < SILENT_S or source.has_session(session_name(run.run_id)):
            continue
        # Read again: the worker may have connected to another server since.
        if not _is_visible(instance.get_run_by_id(run.run_id), source.server):
            continue
        instance.report_run_failed(
            run,
            f"The worker of this run does not exist any more: it has no session in the source database and wrote no "
            f"event for {now - last:.0f} s. Committed objects are kept, and the next tick continues after them.",
        )
        ended.append(run.run_id)
    return ended


def _is_visible(run: dg.DagsterRun | None, server: str) -> bool:
    """Return whether a session of the run would be seen on ``server``. A run without the tag has not connected yet."""
    return run is not None and bool(server) and run.tags.get(SERVER_TAG, server) == server
