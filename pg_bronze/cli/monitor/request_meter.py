"""The request meter: adds up the requests to the bucket of all runs that end, and those of this process."""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from pg_bronze.defs import run_tags
from pg_bronze.lake import request_count

_ENDED = [DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED]
# A run may be stored a little later than the time at which it says it was updated.
_OVERLAP = timedelta(seconds=60)


class RequestMeter:
    """The requests since a moment.

    Args:
        since: Runs that ended before are not counted.
        tags: Runs without these are not counted.
    """

    def __init__(self, since: datetime, tags: Mapping[str, str] = MappingProxyType({})) -> None:
        self._tags = tags
        self._since = since
        self._seen: dict[str, datetime] = {}
        self._of_runs: Counter[str] = Counter()

    def read(self, instance: dg.DagsterInstance) -> Counter[str]:
        """Return the requests so far, by operation."""
        begun = datetime.now(UTC)
        found = instance.get_run_records(RunsFilter(statuses=_ENDED, updated_after=self._since, tags=self._tags))
        for record in found:
            if record.dagster_run.run_id not in self._seen:
                self._seen[record.dagster_run.run_id] = begun
                self._of_runs += request_count.from_text(record.dagster_run.tags.get(run_tags.REQUESTS, ""))
        self._since = max(self._since, begun - _OVERLAP)
        self._seen = {run: at for run, at in self._seen.items() if at >= self._since - _OVERLAP}
        return self._of_runs + request_count.current()
