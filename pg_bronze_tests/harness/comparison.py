"""The comparison of a table in the lake with its source, row version by row version and value by value."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl

from pg_bronze.core.value_policies import DATE_INFINITY, TIMESTAMP_INFINITY

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Difference:
    """How the lake differs from the source. Every count must be 0.

    Attributes:
        lost: Live rows whose key is not in the lake.
        stale: Live rows whose current version is not in the lake with all its values.
        doubled: Copies of a row version beyond those in the source.
        wrong_latest: Keys whose highest ``_pg_xid`` is not the live version.
    """

    lost: int = 0
    stale: int = 0
    doubled: int = 0
    wrong_latest: int = 0

    def __add__(self, other: "Difference") -> "Difference":
        return Difference(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


SAME = Difference()


def difference(live: Iterable[tuple], copied: Iterable[tuple], key: int | None) -> Difference:
    """Compare rows ``(xid, *values)``; live rows have 32-bit transaction ids, copied rows 64-bit ones.

    Args:
        key: The position of the primary key in a row, or None if the whole row is its key.
    """
    live_count = Counter(live)
    copied_count: Counter = Counter()
    newest: dict[Any, int] = {}
    latest: dict[Any, set] = defaultdict(set)
    for xid, *values in copied:
        version = (xid % 2**32, *values)
        copied_count[version] += 1
        name = tuple(values) if key is None else values[key - 1]
        if xid > newest.get(name, -1):
            newest[name], latest[name] = xid, set()
        if xid == newest[name]:
            latest[name].add(version)
    lost = stale = wrong = 0
    for version, count in live_count.items():
        name = tuple(version[1:]) if key is None else version[key]
        if name not in newest:
            lost += count
        elif copied_count[version] < count:
            stale += 1
        if name in newest and version not in latest[name]:
            wrong += key is not None
    doubled = sum(max(0, count - max(1, live_count[version])) for version, count in copied_count.items())
    return Difference(lost, stale, doubled, wrong)


def texts(series: pl.Series) -> list[str | None]:
    """Return a column of the lake in the text that PostgreSQL prints for it (UTC, ISO)."""
    if isinstance(series.dtype, pl.Datetime):
        zone = "+00" if series.dtype.time_zone else ""
        return [_moment(value, TIMESTAMP_INFINITY, 1, zone) for value in series.to_physical().to_list()]
    if series.dtype == pl.Date:
        return [_moment(value, DATE_INFINITY, 86_400_000_000, None) for value in series.to_physical().to_list()]
    return [_text(value) for value in series.to_list()]


def _moment(value: int | None, infinity: tuple[int, int], unit_us: int, zone: str | None) -> str | None:
    if value is None:
        return None
    if value in infinity:
        return "infinity" if value == infinity[1] else "-infinity"
    moment = EPOCH + timedelta(microseconds=value * unit_us)
    if zone is None:
        return f"{moment:%Y-%m-%d}"
    text = moment.replace(tzinfo=None).isoformat(sep=" ")
    return (text.rstrip("0") if "." in text else text) + zone


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:f}" if isinstance(value, Decimal) else str(value)
