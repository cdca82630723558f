"""Metrics: what the monitor knows, as metric families of Prometheus.

Belongs here: names, units, labels and help texts. Does not belong here: reading anything. A scrape builds the families
from what the last evaluation found, so it neither asks the database nor waits for it. Labels are names of tables and
words of pg_bronze, never values.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client import Metric
from prometheus_client.registry import Collector

from pg_bronze import __version__
from pg_bronze.defs.status import Status, TableStatus
from pg_bronze.lake.storage_size import StorageSize
from pg_bronze.scheduling import health

# Evaluations may be late by this time before the tables count as not checked.
_LATE_S = 60.0
_Samples = Iterable[tuple[Mapping[str, str], float]]


@dataclass(frozen=True)
class Snapshot:
    """What the monitor knows at one moment.

    Attributes:
        every_s: The seconds between two evaluations.
        status: The result of the last successful evaluation; None before the first one.
        up: The last evaluation was successful, and the bucket answered.
        folders: The folder of each table in the bucket, by label.
        duration_s: How long the last successful evaluation took.
        evaluations: The number of evaluations so far.
        errors: The number of evaluations that failed, by the class of the error.
        interval_s: The seconds between two ticks of the sensor.
        connections: The open connections of pg_bronze to the source database; None if not known.
        storage: The size of the bucket; None if not known.
        storage_at: When the size was measured, in seconds since 1970.
        last_tick: When the sensor last checked the tables, in seconds since 1970; None if not known.
        s3_requests: Requests to the bucket since the monitor started, by operation.
        sent: The number of alerts that were sent.
        not_sent: The number of attempts to send an alert that failed.
    """

    every_s: float
    status: Status | None = None
    up: bool = False
    folders: Mapping[str, str] = field(default_factory=dict)
    duration_s: float = 0.0
    evaluations: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    interval_s: float = 0.0
    connections: int | None = None
    storage: StorageSize | None = None
    storage_at: float = 0.0
    last_tick: float | None = None
    s3_requests: Mapping[str, int] = field(default_factory=dict)
    sent: int = 0
    not_sent: int = 0

    def is_up(self, now: float) -> bool:
        """Return whether the last evaluation succeeded and is not overdue: a server that hangs returns no error."""
        return self.up and self.status is not None and now - self.status.checked_at <= 3 * self.every_s + _LATE_S


class Metrics(Collector):
    """The families of the latest snapshot.

    Args:
        snapshot: Returns the latest snapshot.
        clock: Returns the time in seconds since 1970.
    """

    def __init__(self, snapshot: Callable[[], Snapshot], clock: Callable[[], float]) -> None:
        self._snapshot = snapshot
        self._clock = clock

    def collect(self) -> Iterable[Metric]:
        """Return all families that have a value now."""
        return families(self._snapshot(), self._clock())


def families(snapshot: Snapshot, now: float) -> Iterator[Metric]:
    """Yield all families that have a value at this moment, in seconds since 1970."""
    yield _gauge("build_info", "The version of pg_bronze that exports these metrics.", [({"version": __version__}, 1)])
    yield from _of_monitor(snapshot, now)
    if snapshot.status is not None:
        yield from _of_source(snapshot, snapshot.status)
        yield from _of_tables(snapshot.status.tables, None if snapshot.is_up(now) else now)
        if snapshot.storage is not None:
            yield from _of_storage(snapshot, snapshot.storage)


def _of_monitor(snapshot: Snapshot, now: float) -> Iterator[Metric]:
    yield _gauge("up", "1 if the last evaluation of all tables succeeded, 0 if not.", [({}, snapshot.is_up(now))])
    yield _counter("evaluations", "Evaluations of all tables since the start.", [({}, snapshot.evaluations)])
    errors = [({"class": name}, count) for name, count in sorted(snapshot.errors.items())]
    yield _counter("evaluation_errors", "Evaluations that failed, by the class of the error.", errors)
    results = [({"result": "sent"}, snapshot.sent), ({"result": "failed"}, snapshot.not_sent)]
    yield _counter("alerts", "Attempts to send an alert to PG_BRONZE_ALERT_URL.", results)
    if snapshot.status is not None:
        text = "Time of the last successful evaluation, in seconds since 1970."
        yield _gauge("last_evaluation_timestamp_seconds", text, [({}, snapshot.status.checked_at)])
        yield _gauge("evaluation_duration_seconds", "Duration of the last one.", [({}, snapshot.duration_s)])


def _of_source(snapshot: Snapshot, status: Status) -> Iterator[Metric]:
    text = "For how long an open transaction has kept new rows from being copied; 0 if none does."
    yield _gauge("blocked_seconds", text, [({}, status.blocked_s if status.blocked else 0.0)])
    counts = health.counts([item.health for item in status.tables])
    yield _gauge("tables", "Tables in each state.", [({"state": state}, count) for state, count in counts.items()])
    yield _gauge(
        "tick_interval_seconds", "The interval of the sensor, PG_BRONZE_INTERVAL_S.", [({}, snapshot.interval_s)]
    )
    if snapshot.last_tick is not None:
        text = "Time at which the sensor last checked the tables, in seconds since 1970."
        yield _gauge("last_tick_timestamp_seconds", text, [({}, snapshot.last_tick)])
    if snapshot.connections is not None:
        text = "Open connections of pg_bronze to the source database, that of the monitor included."
        yield _gauge("source_connections", text, [({}, snapshot.connections)])

    text = "Requests to the bucket of runs that ended since the monitor started, and of the monitor, by operation."
    requests = [({"operation": name}, count) for name, count in sorted(snapshot.s3_requests.items())]
    yield _counter("s3_requests", text, requests)


def _of_tables(tables: Sequence[TableStatus], now: float | None) -> Iterator[Metric]:
    """Yield the families with one sample for each table.

    Args:
        now: The time up to which the lag has grown since the last evaluation; None for the lag found there.
    """
    states = [({"table": item.health.label, "state": item.health.state}, 1.0) for item in tables]
    yield _gauge("table_state", "1 for the current state of each table.", states)
    text = "Seconds up to the last evaluation, or up to now if that failed, of which changes may not be in the lake."
    lags = [item.health.lag_s if now is None else max(0.0, now - item.health.covered_at) for item in tables]
    yield _gauge("table_lag_seconds", text, _each(tables, lags))
    text = "The highest accepted lag of each table, PG_BRONZE_LAG_TARGET_S or its option."
    yield _gauge("table_lag_target_seconds", text, _each(tables, [item.health.lag_target_s for item in tables]))
    text = "Large tables: age of the oldest change of an old row that may not be in the lake."
    yield _gauge("table_sweep_age_seconds", text, _each(tables, [item.health.sweep_age_s for item in tables]))
    text = "Failures in a row of tables that fail or are stuck, by what a retry requires."
    failures = [(item.health.label, item.health.failure) for item in tables if item.health.failure]
    samples = [({"table": label, "retry": failure.retry}, failure.count) for label, failure in failures]
    yield _gauge("table_failures", text, samples)
    text = "Rows in the lake; it begins again with each generation."
    yield _counter("table_rows", text, _each(tables, [item.row_count for item in tables]))
    text = "Rows in the lake that a copy by `cursor column > last value` would have lost."
    yield _counter("table_late_rows", text, _each(tables, [item.late_rows for item in tables]))
    text = "Time at which the last object was recorded, in seconds since 1970."
    yield _gauge("table_last_copy_timestamp_seconds", text, _each(tables, [item.copied_at for item in tables]))
    text = "Tables that are copied for the first time: the share that is copied, from 0 to 1."
    yield _gauge("table_load_ratio", text, _each(tables, [_load_share(item) for item in tables]))


def _load_share(item: TableStatus) -> float | None:
    return (item.load_share or 0.0) if item.health.state == "loading" else None


def _of_storage(snapshot: Snapshot, storage: StorageSize) -> Iterator[Metric]:
    known = [(label, folder) for label, folder in snapshot.folders.items() if folder in storage.size_bytes]
    sizes = [({"table": label}, storage.size_bytes[folder]) for label, folder in known]
    yield _gauge("table_storage_bytes", "Size of the current objects.", sizes)
    counts = [({"table": label}, storage.object_count[folder]) for label, folder in known]
    yield _gauge("table_storage_objects", "Number of the current objects.", counts)
    kinds = {"current": sum(storage.size_bytes.values()), "old": storage.old_bytes, "other": storage.other_bytes}
    text = "Size of all objects below the prefix: current ones, those of earlier generations, and others."
    yield _gauge("storage_bytes", text, [({"kind": kind}, size) for kind, size in kinds.items()])
    text = "1 if the size covers all objects, 0 if there were too many to list."
    yield _gauge("storage_complete", text, [({}, storage.complete)])
    text = "Time at which the size was measured, in seconds since 1970."
    yield _gauge("storage_timestamp_seconds", text, [({}, snapshot.storage_at)])


def _each(tables: Sequence[TableStatus], values: Sequence[float | None]) -> _Samples:
    """Return a sample for each table that has a value."""
    found = zip(tables, values, strict=True)
    return [({"table": item.health.label}, value) for item, value in found if value is not None]


def _gauge(name: str, text: str, samples: _Samples) -> Metric:
    return _family(name, text, "gauge", name, samples)


def _counter(name: str, text: str, samples: _Samples) -> Metric:
    return _family(name, text, "counter", f"{name}_total", samples)


def _family(name: str, text: str, kind: str, sample: str, samples: _Samples) -> Metric:
    metric = Metric(f"pg_bronze_{name}", text, kind)
    for labels, value in samples:
        metric.add_sample(f"pg_bronze_{sample}", dict(labels), float(value))
    return metric
