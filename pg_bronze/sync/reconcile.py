"""Reconciling: whether the lake contains what the source has, after a failover, a restore or a move.

Both sides are read completely. Three numbers are kept for each row, 24 bytes.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pg_bronze.core import column_types
from pg_bronze.core.table import shell_argument
from pg_bronze.core.watermark import Watermark
from pg_bronze.errors import HistoryChanged, SettingsError, TableChanged
from pg_bronze.lake.commit import SliceWriter
from pg_bronze.lake.ledger import Committed
from pg_bronze.lake.reading import scan
from pg_bronze.settings.bucket import S3Connection
from pg_bronze.sync.state_changes import current, require_lock, resume_compared
from pg_bronze.sync.table_sync import TableSync

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import polars as pl


@dataclass(frozen=True)
class Comparison:
    """What the lake lacks of the source, and has beyond it.

    ``missing``: live row versions of transactions already copied that are not in the lake with these values. ``ahead``:
    row versions in the lake that are later than the source's of the same key, or of transactions the source has not had
    yet; a reader would take them for the newest. ``to_come``: live rows of later transactions, which copying brings.
    ``gone``: primary keys that only the lake has, of rows deleted since or lost with their transaction; 0 without
    a primary key.
    """

    row_count: int
    missing: int
    ahead: int
    to_come: int
    gone: int

    @property
    def same(self) -> bool:
        """Whether copying may go on from here as if nothing had happened."""
        return not self.missing and not self.ahead


def compare(sync: TableSync, upto: int, connection: S3Connection) -> Comparison:
    """Compare a table, copied up to transaction ``upto``, with its newest generation in the lake.

    All columns that both sides have are compared. A row that only the lake has counts as deleted, unless its
    transaction is not below the horizon: once another transaction has used the id of a lost one, their rows cannot be
    told apart.
    """
    import polars as pl

    lake = scan.frame(sync.store, sync.layout, connection)
    lake_types = lake.collect_schema()
    xid = column_types.xid_column(sync.table.columns)
    shared: list[str] = []
    live: list[pl.DataFrame] = []
    for frame in _live_rows(sync):
        shared = [name for name, dtype in frame.schema.items() if name != xid and lake_types.get(name) == dtype]
        live.append(frame.select(_numbers(shared, sync.table.primary_key, xid)))
    if not live:
        shared = [column.name for column in sync.table.columns if column.name in lake_types]
        live = [sync.slices.no_rows().select(_numbers(shared, sync.table.primary_key, xid))]
    source = pl.concat(live)
    held = lake.select(_numbers(shared, sync.table.primary_key, xid)).collect(engine="streaming")
    copied = source.filter(pl.col("xid") < upto)
    return Comparison(
        row_count=source.height,
        missing=_missing(copied, held),
        ahead=_ahead(source, held, sync.horizon),
        to_come=source.height - copied.height,
        gone=_gone(source, held),
    )


def reconcile(
    sync: TableSync, recorded: Watermark | None, writer: SliceWriter, connection: S3Connection
) -> tuple[Committed, str]:
    """Continue from the current database if the lake contains all that was copied.

    Returns:
        The commit, and the sentence that says what was compared.

    Raises:
        HistoryChanged: Both sides differ, or a large window is only partly read. Nothing is changed.
        TableBusy: Another run holds the table's lock, or committed an object during the comparison.
    """
    require_lock(sync)
    _, watermark = current(sync, recorded)
    if watermark is None:
        raise SettingsError(f"{sync.label}: nothing of the table was copied yet, so there is nothing to compare.")
    command = f"`pg-bronze reset {shell_argument(sync.label)}`"
    if any(leaf.pending for leaf in watermark.leaves.values()):
        raise HistoryChanged(
            f"{sync.label}: a large window was only partly read, so the table cannot be compared. Nothing was changed. "
            f"Run {command} to copy the table again."
        )
    upto = max((leaf.swept or 0 for leaf in watermark.leaves.values()), default=0)
    compared = compare(sync, upto, connection)
    if not compared.same:
        raise HistoryChanged(
            f"{sync.label}: of {compared.row_count} live rows, {compared.missing} were copied before and are not in "
            f"the lake with their current values, and {compared.ahead} row versions in the lake are later than the "
            "database: transactions were lost, or their ids were used again. Nothing was changed. Run "
            f"{command} to copy the table again."
        )
    reason = f"reconciled: all {compared.row_count - compared.to_come} live rows copied so far are in the lake"
    if compared.gone:
        reason += f"; {compared.gone} more keys are only in the lake: deleted since, or lost"
    return resume_compared(sync, recorded, writer, watermark, reason), reason


def _live_rows(sync: TableSync) -> "Iterator[pl.DataFrame]":
    """Yield the table's rows below a new horizon as they would be stored; nothing is committed."""
    sync.source.forget_horizon()
    sync.slices.place = place = sync.source.place(sync.store.place)
    sync.slices.horizon = sync.source.horizon()
    sync.slices.refresh_table()
    state = Watermark(place, sync.table.oid)
    while (read := sync.slices.next_slice(state)) is not None:
        if read.claim.after.generation != state.generation:
            raise TableChanged(
                f"{sync.label}: the table was rewritten during the comparison. Nothing was changed. Run the command "
                "again."
            )
        yield read.frame
        state = read.claim.after


def _numbers(columns: "Sequence[str]", key: "Sequence[str]", xid: str) -> "list[pl.Expr]":
    """Three numbers that stand for a row: its key, its transaction, all its values."""
    import polars as pl

    known = all(column in columns for column in key) and bool(key)
    return [
        (pl.struct(list(key)).hash() if known else pl.lit(None, pl.UInt64)).alias("key"),
        pl.col(xid).alias("xid"),
        (pl.struct(list(columns)).hash() if columns else pl.lit(0, pl.UInt64)).alias("row"),
    ]


def _missing(source: "pl.DataFrame", held: "pl.DataFrame") -> int:
    """How many versions the lake lacks; rows that are equal in everything are counted, not merged."""
    import polars as pl

    there = held.group_by("xid", "row").len("there")
    counted = source.group_by("xid", "row").len("live").join(there, on=["xid", "row"], how="left")
    lacking = (pl.col("live").cast(pl.Int64) - pl.col("there").fill_null(0).cast(pl.Int64)).clip(lower_bound=0)
    return int(counted.select(lacking.sum()).item() or 0)


def _ahead(source: "pl.DataFrame", held: "pl.DataFrame", horizon: int) -> int:
    import polars as pl

    unborn = held.filter(pl.col("xid") >= horizon).height
    keyed = source.drop_nulls("key").select("key", live_xid="xid", live_row="row")
    later = held.filter(pl.col("xid") < horizon).join(keyed, on="key", how="inner")
    same_time = (pl.col("xid") == pl.col("live_xid")) & (pl.col("row") != pl.col("live_row"))
    return unborn + later.filter((pl.col("xid") > pl.col("live_xid")) | same_time).height


def _gone(source: "pl.DataFrame", held: "pl.DataFrame") -> int:
    # Without a primary key every key is null.
    return held.drop_nulls("key").select("key").unique().join(source, on="key", how="anti").height
