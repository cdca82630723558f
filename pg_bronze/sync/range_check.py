"""The range check: compare a part of a large table's keys with the lake, in short statements through an index.

A range of keys is first compared by numbers: how many rows it has, and a checksum of their keys and transactions. Only
a range that differs is compared key by key. What is compared is which row version each key has, not its values.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pg_bronze.core import column_types, key_ranges
from pg_bronze.core.key_ranges import Bound, KeyRange
from pg_bronze.core.region import Region
from pg_bronze.core.table import SourceTable, shell_argument
from pg_bronze.core.watermark import Watermark
from pg_bronze.errors import SettingsError
from pg_bronze.lake.reading import scan
from pg_bronze.lake.reading.table_objects import TableObjects
from pg_bronze.postgres import key_bounds
from pg_bronze.settings.bucket import S3Connection
from pg_bronze.sync import comparison
from pg_bronze.sync.comparison import Comparison
from pg_bronze.sync.table_sync import TableSync

if TYPE_CHECKING:
    import polars as pl

# Of one table on one day, so that a thousand large tables do not take the night.
TIME_LIMIT_S = 60.0
_STATEMENT_LIMIT_S = 10.0
_STATEMENT_GOAL_S = 1.0
_FIRST_ROWS, _MOST_ROWS = 20_000, 500_000


@dataclass(frozen=True)
class Part:
    """What is compared on one day.

    Attributes:
        number: The number of the part, from 0.
        count: Into how many parts the table is divided.
    """

    number: int
    count: int

    @property
    def text(self) -> str:
        """The part in words: ``part 3 of 12``."""
        return f"part {self.number + 1} of {self.count}"


@dataclass(frozen=True)
class PartCompared:
    """The result of a comparison of a part.

    Attributes:
        comparison: How the lake differs. Rows of transactions that were not copied yet count once.
        range_count: How many ranges were compared by their numbers.
        by_key: How many of these were compared key by key.
        complete: False if the time limit was reached.
    """

    comparison: Comparison
    range_count: int
    by_key: int
    complete: bool


def divided(sync: TableSync, size_bytes: int, budget_bytes: int, again: Part | None) -> tuple[Part, KeyRange] | str:
    """Return the part of a table that is compared today.

    Args:
        again: A part that differed before and is compared again, also if the number of parts has changed since.

    Returns:
        Why the table cannot be divided, as a sentence without a period.
    """
    bounds = _bounds(sync)
    if isinstance(bounds, str):
        return bounds
    count = key_ranges.part_count(size_bytes, budget_bytes, bounds)
    number = key_ranges.number_on(sync.now().toordinal(), count)
    if again is not None:
        number = min(count - 1, again.number * count // again.count)
    return Part(number, count), key_ranges.part(bounds, count, number)


def all_parts(sync: TableSync, size_bytes: int, budget_bytes: int) -> list[KeyRange] | str:
    """Return the parts of a table, each key in one of them; or why it cannot be divided, as ``divided`` does."""
    bounds = _bounds(sync)
    if isinstance(bounds, str):
        return bounds
    count = key_ranges.part_count(size_bytes, budget_bytes, bounds)
    return [key_ranges.part(bounds, count, number, early=0) for number in range(count)]


def _bounds(sync: TableSync) -> list[str] | str:
    database = sync.source.database()
    if reason := key_ranges.no_ranges(sync.table, str(database.get("locale") or database.get("character_type") or "")):
        return reason
    bounds = key_bounds.of(sync.source, sync.table)
    if len(bounds) < 2:
        return f"the planner has no histogram of the first column of its primary key: run `analyze {sync.table.sql}`"
    return bounds


def compare(
    sync: TableSync,
    watermark: Watermark,
    upto: int,
    keys: KeyRange,
    objects: TableObjects,
    connection: S3Connection,
    time_limit_s: float = TIME_LIMIT_S,
) -> PartCompared:
    """Compare the rows of a range of keys, as far as they are copied up to transaction ``upto``.

    Raises:
        SettingsError: The key columns cannot be compared.
        PgBronzeError: The database or the bucket did not answer.
    """
    ends_at = time.monotonic() + time_limit_s
    lake = _Lake(sync, upto, keys, objects, connection, ends_at)
    return _compared(_Source(sync, watermark, upto), lake, keys, ends_at)


def _compared(source: "_Source", lake: "_Lake", keys: KeyRange, ends_at: float) -> PartCompared:
    found: list[Comparison] = []
    by_key, range_count = 0, 0
    for piece, summary in source.pieces(keys) if lake.complete else ():
        range_count += 1
        if lake.has(piece, summary):
            found.append(Comparison(summary.rows, 0, 0, summary.rows - summary.copied, 0))
        else:
            by_key += 1
            found.append(lake.difference(piece, source.pairs(piece)))
        if time.monotonic() > ends_at:
            return PartCompared(total(found), range_count, by_key, False)
    return PartCompared(total(found), range_count, by_key, lake.complete)


def total(found: list[Comparison]) -> Comparison:
    """Return the comparison of all rows from those of ranges."""
    transactions = sorted({xid for item in found for xid in item.transactions})
    return Comparison(
        sum(item.row_count for item in found),
        sum(item.missing for item in found),
        sum(item.ahead for item in found),
        sum(item.not_copied for item in found),
        sum(item.only_in_lake for item in found),
        tuple(transactions[: comparison.TRANSACTIONS_SHOWN]),
    )


@dataclass(frozen=True)
class _Summary:
    """The rows of a range in the source: all, those that are copied, and the checksum of these."""

    rows: int
    copied: int
    checksum: int
    last: str | None


class _Source:
    """The rows of the table, in ranges that take about a second each."""

    def __init__(self, sync: TableSync, watermark: Watermark, upto: int) -> None:
        table = sync.table
        # The rows of a leaf that was attached since are not copied yet, whatever their transactions are.
        leaves = tuple(item.oid for item in table.relations if item.oid in watermark.leaves)
        self._region = Region(table.schema, table.name, not table.partitioned, leaves, None, upto)
        self._sync = sync
        self._columns = key_ranges.key_columns(table)

    def pieces(self, keys: KeyRange) -> Iterator[tuple[KeyRange, _Summary]]:
        """Yield the ranges that together have all keys of a range, each with its summary."""
        row_limit, lower = _FIRST_ROWS, keys.lower
        while True:
            rest, started = KeyRange(lower, keys.upper), time.monotonic()
            summary = self._summary(rest, row_limit)
            if summary.rows < row_limit or summary.last is None:
                yield rest, summary
                return
            yield KeyRange(lower, Bound(summary.last, True)), summary
            lower = Bound(summary.last, False)
            row_limit = _next_limit(row_limit, time.monotonic() - started)

    def _summary(self, keys: KeyRange, row_limit: int) -> _Summary:
        query = key_ranges.summary(self._region, self._columns, keys, row_limit)
        rows, copied, checksum, last = self._sync.source.measure(
            query, self._sync.label, limit_s=_STATEMENT_LIMIT_S, by_index=True
        )
        return _Summary(rows, copied, int(checksum), last)

    def pairs(self, keys: KeyRange) -> "pl.DataFrame":
        """Return the key and the transaction of each live row; no transaction if that was not copied."""
        frame = self._sync.source.read(key_ranges.pairs(self._region, self._columns, keys), self._sync.label)
        return column_types.conform(frame, self._columns, self._sync.label)[0]


def _next_limit(rows: int, seconds: float) -> int:
    if seconds > _STATEMENT_GOAL_S:
        return max(1, rows // 2)
    return min(_MOST_ROWS, rows * 2) if seconds < _STATEMENT_GOAL_S / 3 else rows


class _Lake:
    """The copied row versions of a range of keys.

    Attributes:
        complete: False if the time limit was reached before all objects were read.
    """

    def __init__(
        self,
        sync: TableSync,
        upto: int,
        keys: KeyRange,
        objects: TableObjects,
        connection: S3Connection,
        ends_at: float,
    ) -> None:
        self._columns = key_ranges.key_columns(sync.table)
        self._horizon = sync.horizon
        self._xid = column_types.xid_column(sync.table.columns)
        self._forms = comparison.key_forms(sync)
        parts = scan.in_parts(objects, connection)
        _check_types(sync.table, parts[0].collect_schema(), comparison.stored_otherwise(sync))
        self._rows, self.complete = self._read(parts, upto, keys, ends_at)
        newest = self._rows.sort("xid").unique("key", keep="last", maintain_order=True)
        self._newest = newest.select("lead", "mixed")

    def _read(
        self, parts: "list[pl.LazyFrame]", upto: int, keys: KeyRange, ends_at: float
    ) -> "tuple[pl.DataFrame, bool]":
        import polars as pl

        lead, names = self._columns[0], [column.name for column in self._columns]
        known = key_ranges.has_checksum(self._columns)
        frames = []
        for part in parts:
            wanted = part.filter(key_ranges.within(keys, lead, pl.col(lead.name)) & (pl.col(self._xid) < upto))
            frames.append(
                wanted.select(
                    pl.col(lead.name).alias("lead"),
                    (key_ranges.mixed(self._columns, self._xid) if known else pl.lit(0, pl.Int64)).alias("mixed"),
                    *comparison.numbers(names, self._forms, self._xid),
                ).collect(engine="streaming")
            )
            if time.monotonic() > ends_at:
                return pl.concat(frames), False
        return pl.concat(frames), True

    def has(self, keys: KeyRange, summary: _Summary) -> bool:
        """Return whether the newest versions of a range are those of the source, as far as numbers tell."""
        import polars as pl

        if not key_ranges.has_checksum(self._columns):
            return summary.rows == 0 and not self._within(self._newest, keys).height
        found = self._within(self._newest, keys).get_column("mixed")
        return (found.len(), found.cast(pl.Int128).sum()) == (summary.copied, summary.checksum)

    def difference(self, keys: KeyRange, live: "pl.DataFrame") -> Comparison:
        """Compare a range key by key."""
        import polars as pl

        names = [column.name for column in self._columns]
        source = live.select(comparison.numbers(names, self._forms, column_types.xid_column(self._columns)))
        copied = self._within(self._rows, keys)
        expected = source.filter(pl.col("xid").is_not_null())
        return comparison.of_rows(source, expected, copied, self._horizon)

    def _within(self, rows: "pl.DataFrame", keys: KeyRange) -> "pl.DataFrame":
        import polars as pl

        return rows.filter(key_ranges.within(keys, self._columns[0], pl.col("lead")))


def _check_types(table: SourceTable, stored: "pl.Schema", otherwise: set[str]) -> None:
    for column in key_ranges.key_columns(table):
        if column.name in otherwise or stored.get(column.name) != column_types.rule(column).stored:
            raise SettingsError(
                f"{table.label}: key column {column.name!r} had another name, type or mask when it was copied. "
                f"`pg-bronze reset {shell_argument(table.label)}` copies the table again."
            )
