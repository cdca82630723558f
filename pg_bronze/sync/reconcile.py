"""Reconcile: compare a table with its lake after a failover, a restore or a move, and continue if nothing is missing.

Both sides are read completely. Three numbers are kept in memory for each row, 24 bytes.
"""

from typing import TYPE_CHECKING

from pg_bronze.core import column_types
from pg_bronze.core.leaf import Leaf
from pg_bronze.core.region import Region, with_difference
from pg_bronze.core.table import Column, SourceTable, shell_argument
from pg_bronze.core.watermark import Watermark
from pg_bronze.errors import HistoryChanged, SettingsError, TableChanged
from pg_bronze.lake.commit import SliceWriter
from pg_bronze.lake.ledger import Committed
from pg_bronze.lake.reading import scan
from pg_bronze.settings.bucket import S3Connection
from pg_bronze.sync import comparison, slice_reader
from pg_bronze.sync.comparison import Comparison
from pg_bronze.sync.state_changes import current, require_lock, resume_compared
from pg_bronze.sync.table_sync import TableSync

if TYPE_CHECKING:
    from collections.abc import Iterator

    import polars as pl


# Types whose output function prints the name of an object, a role or a privilege's holder.
_NAMES = frozenset({
    "regclass", "regproc", "regprocedure", "regoper", "regoperator", "regtype", "regrole", "regnamespace", "regconfig",
    "regdictionary", "regcollation", "regdatabase", "aclitem",
})  # fmt: skip


def compare(
    sync: TableSync,
    upto: int,
    connection: S3Connection,
    watermark: Watermark | None = None,
    *,
    while_copying: bool = False,
) -> Comparison:
    """Compare a table, copied up to transaction ``upto``, with its newest generation in the lake.

    Args:
        watermark: Which rows of later transactions were copied too, by fresh reads and by a sweep in progress; None
            if there are none.
        while_copying: Ignore what the lake has of later transactions, because another run may be copying them.

    All columns that both sides have are compared, except those that some objects lack because they were excluded, or
    have with another mask. A row that only the lake has counts as deleted, unless its transaction is not below the
    horizon: once another transaction has used the id of a lost one, their rows cannot be told apart.
    """
    import polars as pl

    lake = scan.frame(sync.store, sync.layout, connection)
    lake_types = lake.collect_schema()
    xid = column_types.xid_column(sync.table.columns)
    if while_copying:
        lake = lake.filter(pl.col(xid) < upto)
    forms = comparison.key_forms(sync)
    for name in comparison.stored_otherwise(sync):
        lake_types.pop(name, None)
    shared: list[str] = []
    live: list[pl.DataFrame] = []
    for frame in _live_rows(sync):
        shared = [name for name, dtype in frame.schema.items() if name != xid and lake_types.get(name) == dtype]
        live.append(frame.select(comparison.numbers(shared, forms, xid)))
    if not live:
        shared = [column.name for column in sync.table.columns if column.name in lake_types]
        live = [sync.slices.no_rows().select(comparison.numbers(shared, forms, xid))]
    source = pl.concat(live)
    copied = lake.select(comparison.numbers(shared, forms, xid)).collect(engine="streaming")
    later = [frame.select(comparison.numbers(shared, forms, xid)) for frame in _copied_later(sync, watermark, upto)]
    expected = pl.concat([source.filter(pl.col("xid") < upto), *later])
    return comparison.of_rows(source, expected, copied, sync.horizon)


def reconcile(
    sync: TableSync, recorded: Watermark | None, writer: SliceWriter, connection: S3Connection
) -> tuple[Committed, str]:
    """Continue from the current database if the lake contains all that was copied.

    Returns:
        The commit, and a sentence with the result of the comparison.

    Raises:
        HistoryChanged: Both sides differ, or the first load has not ended. Nothing is changed.
        TableBusy: Another run holds the table's lock, or committed an object during the comparison.
    """
    require_lock(sync)
    _, watermark = current(sync, recorded)
    if watermark is None:
        raise SettingsError(f"{sync.label}: nothing of the table was copied yet, so there is nothing to compare.")
    if any(leaf.sweep and leaf.swept is None for leaf in watermark.leaves.values()):
        raise HistoryChanged(
            f"{sync.label}: the first load has not ended, so the table cannot be compared. Nothing was changed. "
            f"Run `pg-bronze reset {shell_argument(sync.label)}` to copy the table again."
        )
    # Only below it, rows of every band and leaf are in the lake.
    attached = [leaf for oid, leaf in watermark.leaves.items() if oid not in watermark.detached]
    upto = min((leaf.swept or 0 for leaf in attached), default=0)
    compared = compare(sync, upto, connection, watermark)
    if not compared.same:
        raise _difference(sync.table, compared)
    reason = f"reconciled: all {compared.row_count - compared.not_copied} live rows copied so far are in the lake"
    if compared.only_in_lake:
        reason += f"; {compared.only_in_lake} more keys are only in the lake: deleted since, or lost"
    return resume_compared(sync, recorded, writer, watermark, reason), reason


def _difference(table: SourceTable, compared: Comparison) -> HistoryChanged:
    named = [f"{column.name!r} ({column.declared})" for column in table.columns if _prints_names(column)]
    other = ""
    if named:
        other = (
            f" Or something that a value of column {', '.join(named)} names was renamed or dropped since, which "
            f"changes its text and no row: then `pg-bronze continue {shell_argument(table.label)}` keeps the objects."
        )
    return HistoryChanged(
        f"{table.label}: of {compared.row_count} live rows, {compared.missing} were copied before and are not in the "
        f"lake with their current values, and {compared.ahead} row versions in the lake are later than the database: "
        f"transactions were lost, or their ids were used again.{other} Nothing was changed. Run "
        f"`pg-bronze reset {shell_argument(table.label)}` to copy the table again."
    )


def _prints_names(column: Column) -> bool:
    """Return whether the text of a value contains names from the catalog, so that a rename changes it."""
    return column.labels is not None or column.base.removeprefix("_") in _NAMES


def _live_rows(sync: TableSync) -> "Iterator[pl.DataFrame]":
    """Yield the table's rows below a new horizon as they would be stored; nothing is committed."""
    sync.source.forget_horizon()
    sync.slices.builder.place = place = sync.source.place(sync.store.place)
    sync.slices.planner.horizon = sync.source.horizon()
    sync.slices.refresh_table()
    state = Watermark(place, sync.table.oid)
    while (read := sync.slices.next_slice(state)) is not None:
        if read.claim.region is None:
            raise TableChanged(
                f"{sync.label}: the table was rewritten during the comparison. Nothing was changed. Run the command "
                "again."
            )
        yield read.frame
        state = read.claim.after


def _copied_later(sync: TableSync, watermark: Watermark | None, upto: int) -> "Iterator[pl.DataFrame]":
    """Yield the live rows at or after a transaction that a watermark calls copied.

    Raises:
        HistoryChanged: The places or floors of the watermark mean other rows in this database.
    """
    table, types = sync.table, sync.table.types_by_attnum
    for relation in table.relations if watermark else ():
        leaf = watermark.leaf(relation.oid).capped(sync.horizon) if watermark else Leaf()
        if not leaf.holds(relation, types):
            raise HistoryChanged(
                f"{sync.label}: {relation.name} was rewritten while a part of it was copied, so the table cannot be "
                f"compared. Nothing was changed. Run `pg-bronze reset {shell_argument(sync.label)}` to copy the table "
                "again."
            )
        whole = Region(relation.schema, relation.name, True, (relation.oid,), None, 0)
        region = with_difference(whole, Leaf(min(upto, sync.horizon)), leaf)
        if region is not None:
            yield slice_reader.read_all(sync.source, table, region, slice_reader.query(table, region))[0]
