"""The edges of a sync on a simulated cluster and bucket. Every request is a step, at which something may happen."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import polars as pl

from pg_bronze.core.band_rules import BandRules
from pg_bronze.core.next_read import FindFloor
from pg_bronze.core.region import Region
from pg_bronze.core.table import SourceTable
from pg_bronze.core.watermark import Origin
from pg_bronze.errors import (
    PgBronzeError,
    StaleSnapshot,
)
from pg_bronze.lake.object_store import ObjectInfo
from pg_bronze.postgres.readers.sent_rows import SentRows
from pg_bronze_tests.harness.simulated_cluster import Cluster

START = datetime(2026, 1, 1, tzinfo=UTC)


class Crash(Exception):
    """The process is killed here."""


class StepCounter:
    """Counts the steps of a tick and calls a function before some of them."""

    def __init__(self, events: dict[int, Callable[[], None]]) -> None:
        self.events = events
        self.count = 0
        self.dead = False

    def __call__(self, _name: str = "") -> None:
        if self.dead:
            raise Crash
        self.count += 1
        event = self.events.pop(self.count, None)
        if event:
            event()

    def crash(self) -> None:
        self.dead = True
        raise Crash


class SimulatedStore:
    """A writer's connection to the bucket; every request is a step."""

    bucket, prefix, place = "lake", "", "lake"

    def __init__(self, objects: dict[str, bytes], steps: StepCounter) -> None:
        self.objects = objects
        self.steps = steps
        self.lose_reply = False

    def uri(self, key: str) -> str:
        return f"s3://lake/{key}"

    def create(self, key: str, body: bytes) -> bool:
        self.steps()
        if key in self.objects:
            return False
        self.objects[key] = body
        lost, self.lose_reply = self.lose_reply, False
        return not lost

    def get(self, key: str) -> bytes | None:
        self.steps()
        return self.objects.get(key)

    def tail(self, key: str, size_bytes: int) -> bytes | None:
        body = self.get(key)
        return body and body[-size_bytes:]

    def delete(self, key: str) -> None:
        self.steps()
        self.objects.pop(key, None)

    def move(self, key: str, to: str) -> None:
        self.steps()
        if key in self.objects:
            self.objects[to] = self.objects[key]
        self.delete(key)

    def list(self, prefix: str, start_after: str = "") -> list[ObjectInfo]:
        self.steps()
        return [
            ObjectInfo(key, len(body), START)
            for key, body in sorted(self.objects.items())
            if key.startswith(prefix) and key > start_after
        ]


class SimulatedSession:
    """One of several sessions that read at once."""

    def __init__(self, source: "SimulatedSource") -> None:
        self.read = source.read_sent

    def prepare(self) -> None:
        pass


class SimulatedSessions:
    """The methods of ``ReadSessions`` that the product calls."""

    def __init__(self, source: "SimulatedSource") -> None:
        self.first = SimulatedSession(source)
        self.source = source
        self.all = [self.first]

    def at_once(self, most: int) -> list[SimulatedSession]:
        self.all += [SimulatedSession(self.source) for _ in range(most - len(self.all))]
        return self.all

    def close_further(self) -> None:
        self.all = [self.first]


class SimulatedSource:
    """A writer's connection to the cluster.

    ``view`` is an older state that its reads return, as from a lagging server behind a pooler.
    """

    standby, server_version, poll = False, 170000, None

    def __init__(self, cluster: Cluster, steps: StepCounter, view: Cluster | None, horizon: int | None) -> None:
        self.cluster = cluster
        self.steps = steps
        self.view = view or cluster
        self.sessions = SimulatedSessions(self)
        self._horizon = horizon

    @contextmanager
    def session(self) -> Iterator["SimulatedSource"]:
        yield self

    def stop_reading(self) -> None:
        pass

    def database(self) -> dict[str, str]:
        return {}

    def place(self, bucket: str) -> Origin:
        self.cluster.log += 1
        return Origin("7", 1, f"0/{self.cluster.log:X}", 5, bucket)

    def held_back(self) -> str:
        return ""

    def horizon(self, at_least: int | None = None) -> int:
        self.steps()
        if self._horizon is None or self._horizon < (at_least or 0):
            self._horizon = self.cluster.horizon
        return self._horizon

    def try_lock(self, _oid: int) -> bool:
        return True  # as under transaction pooling: two writers may run at once

    def unlock(self, _oid: int) -> None:
        pass

    def guard(self, end: int) -> None:
        if self.view.horizon < end:
            raise StaleSnapshot(f"older than horizon {end}")

    def read_sent(self, query: tuple[Region, int | None], _label: str) -> SentRows:
        self.steps()
        region, limit = query
        self.guard(region.end)
        rows = self.view.select(region)[:limit]
        schema = {"id": pl.Int64, "updated_at": pl.Float64, "_pg_xid": pl.Int64}
        return SentRows(pl.DataFrame(rows, schema=schema, orient="row"))

    def measure(self, query: Region, _label: str) -> tuple[bool]:
        """Answer ``exists``."""
        self.steps()
        self.guard(query.end)
        return (bool(self.view.select(query)),)

    def ask(self, query: object) -> list[tuple[object, ...]]:
        """Answer with 1,000 shared buffers, and with no sample of an added column, which is NULL in older rows."""
        return [("1000",)] if "shared_buffers" in str(query) else []

    @property
    def is_idle(self) -> bool:
        return self.cluster.horizon == self.cluster.next_xid

    def counter(self, _oids: list[int]) -> tuple[int, str]:
        return self.cluster.written, "begin"

    def forget_horizon(self) -> None:
        pass


def find_floor(source: SimulatedSource, table: SourceTable, step: FindFloor, rules: BandRules | None) -> str | None:
    source.steps()
    if step.order.attnum is None:
        pages = table.relations[0].page_count
        return str(pages if step.newest else pages - 2) if pages > 2 else None
    return source.view.newest(0 if step.newest or rules is None else rules.rank)


def read_table(connection: SimulatedSource, _schema: str, _name: str) -> SourceTable:
    connection.steps()
    return connection.cluster.table()


class SimulatedFuture:
    """A read ahead that is done at once, or when its result is needed, so that a failing example repeats."""

    eager = True

    def __init__(self, work: Callable[[], object]) -> None:
        self.work = work
        self.outcome: tuple[object, Exception | None] | None = None
        if SimulatedFuture.eager:
            self._run()

    def _run(self) -> tuple[object, Exception | None]:
        if self.outcome is None:
            try:
                self.outcome = self.work(), None
            except (Crash, PgBronzeError) as error:
                self.outcome = None, error
        return self.outcome

    def cancel(self) -> bool:
        return self.outcome is None

    def done(self) -> bool:
        return self.outcome is not None

    def cancelled(self) -> bool:
        return self.outcome is None

    def exception(self, _timeout_s: float | None = None) -> Exception | None:
        return self._run()[1]

    def result(self) -> object:
        value, error = self._run()
        if error:
            raise error
        return value


class SimulatedPool:
    """The methods of ThreadPoolExecutor that the product calls."""

    def __init__(self, **_: object) -> None:
        pass

    def shutdown(self, wait: bool) -> None:
        pass

    def __enter__(self) -> "SimulatedPool":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, function: Callable[..., object], *arguments: object) -> SimulatedFuture:
        return SimulatedFuture(lambda: function(*arguments))
