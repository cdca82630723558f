"""Reads the rows of one region as one slice, or finds that they are too many for one."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from pg_bronze.core import column_types, row_width, slice_size, window_sql
from pg_bronze.core.region import Region
from pg_bronze.core.slice_size import SliceSize
from pg_bronze.core.table import SourceTable
from pg_bronze.core.value_policies import ExceptionalCount
from pg_bronze.errors import DataError, NotUtf8, PgBronzeError, SliceTooLarge
from pg_bronze.postgres.connection import Source
from pg_bronze.postgres.error_mapping import explain_bad_texts, explain_failing_column
from pg_bronze.postgres.readers.sent_rows import SentRows

if TYPE_CHECKING:
    import polars as pl

Rows: TypeAlias = "tuple[pl.DataFrame, tuple[ExceptionalCount, ...]]"


def read(source: Source, table: SourceTable, region: Region, size: SliceSize) -> "Rows | None":
    """Read the rows of a region as they are stored, with counts of the values that a policy changed.

    Returns:
        None if the rows are more than one slice may hold and the region can be divided. A region that cannot be
        divided (one row) is read at any size.
    """
    sent = read_sent(source, table, region, size)
    return None if sent is None else conformed(sent, table)


def read_sent(source: Source, table: SourceTable, region: Region, size: SliceSize) -> SentRows | None:
    """Read the rows of a region as they are sent; see ``read``."""
    text = measured(source, table, region, size)
    if text is None:
        return None
    return fetch(lambda query, _label: _rows(source, table, region, query), region, size, text, table.label)


def conformed(sent: SentRows, table: SourceTable) -> Rows:
    """Return rows as they are stored, with counts of the values that a policy changed.

    Args:
        sent: The rows as they were sent while the table was ``table``.
    """
    return column_types.conform(sent.frame(), table.columns, table.label)


def measured(source: Source, table: SourceTable, region: Region, size: SliceSize) -> str | None:
    """Return the query of a region within the limits; None if its rows are more than one slice may hold.

    They are measured on the kept connection first, unless the query itself ends beyond the limits.
    """
    if region.start is not None and (region.blocks is None or region.cells):
        return bounded(table, region, size)
    if widths := _widths(table, region, size):
        query_of_size = window_sql.measure(region, widths, table.names_by_attnum)
        rows, size_bytes = source.measure(query_of_size, table.label)
        if rows > size.row_limit or (size_bytes > size.byte_limit and rows > 1):
            return None
    return query(table, region, _row_limit(region, size))


def bounded(table: SourceTable, region: Region, size: SliceSize) -> str:
    """Return a query of a region that itself ends beyond the limits of a slice."""
    widths = _widths(table, region, size)
    bound = window_sql.ByteLimit(size.byte_limit, widths) if widths else None
    return query(table, region, _row_limit(region, size), bound)


def _widths(table: SourceTable, region: Region, size: SliceSize) -> list[str]:
    """Return what adds up to the bytes of a row; nothing if no limit applies or can be exceeded."""
    if not _is_divisible(region, size) or slice_size.certainly_fits(table, region, size.byte_limit):
        return []
    return row_width.width_expressions(table.columns)


def _is_divisible(region: Region, size: SliceSize) -> bool:
    return region.blocks is None or not size.is_single_row


def _row_limit(region: Region, size: SliceSize) -> int | None:
    return size.row_limit + 1 if _is_divisible(region, size) else None


def fetch(
    read: Callable[[str, str], SentRows], region: Region, size: SliceSize, text: str, label: str
) -> SentRows | None:
    """Return the rows of a query of ``measured`` or ``bounded``; None if they are more than one slice may hold.

    Args:
        read: Runs a query for a table of some label, such as ``ReadSession.read``.
        label: The name of the table for messages.
    """
    try:
        sent = read(text, label)
    except SliceTooLarge:
        return None
    return None if _is_divisible(region, size) and sent.height > size.row_limit else sent


def query(
    table: SourceTable, region: Region, row_limit: int | None = None, bound: "window_sql.ByteLimit | None" = None
) -> str:
    """Return the query of a region.

    Raises:
        KeyError: A column that bounds the region was dropped.
    """
    columns, names = table.columns, table.names_by_attnum
    projection, xid_column = column_types.projection(columns), column_types.xid_column(columns)
    return window_sql.select(region, projection, xid_column, names, row_limit, bound)


def read_all(source: Source, table: SourceTable, region: Region, text: str) -> Rows:
    """Read all rows of a region with its query at any size, as for a slice that is redone."""
    return conformed(_rows(source, table, region, text), table)


def _rows(source: Source, table: SourceTable, region: Region, text: str) -> SentRows:
    try:
        return source.read_sent(text, table.label)
    except NotUtf8 as error:
        # Neither the server nor connectorx names the column, so a second query counts the rows of each.
        columns = [column for column in table.columns if column.mask is None]  # of others no text is sent
        texts = [name for name, dtype in column_types.read_schema(columns).items() if str(dtype) == "String"]
        count_query = window_sql.not_utf8(region, texts, table.names_by_attnum)
        counts = dict(zip(texts, source.measure(count_query, table.label), strict=True))
        if invalid := {name: count for name, count in counts.items() if count}:
            raise explain_bad_texts(table.label, invalid) from error
        raise
    except DataError as error:
        if failing := _failing_column(source, table, region):
            raise explain_failing_column(table.label, failing, error) from error
        raise


def _failing_column(source: Source, table: SourceTable, region: Region) -> str | None:
    """Return the first column that cannot be read alone, or None. Neither the server nor psycopg names it."""
    for column in table.columns:
        query = window_sql.evaluate(region, column_types.projection([column]), table.names_by_attnum)
        try:
            source.measure(query, table.label)
        except DataError:
            return column.name
        except PgBronzeError:
            return None
    return None
