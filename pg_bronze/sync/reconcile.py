"""Reconciling: does the lake hold what the source has?

Asked after a failover, a restore or a move that may have lost something. Both sides are read whole; of each row only
three numbers are kept, 24 bytes.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pg_bronze.core import column_types, table
from pg_bronze.core.watermark import Watermark
from pg_bronze.errors import HistoryChanged, SettingsError
from pg_bronze.lake.reading import scan
from pg_bronze.settings.model import S3Connection
from pg_bronze.sync.table_sync import SliceStream, TableSync

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def compare(copy: TableSync, upto: int, connection: S3Connection) -> Comparison:
    """Compare a table, copied up to transaction ``upto``, with its newest generation in the lake.

    All columns count that both have. A row that only the lake has counts as deleted, unless its transaction is still to
    come: when others have used the id of a lost transaction, nothing tells its rows from deleted ones.
    """
    import polars as pl

    lake = scan.frame(copy.store, copy.layout, connection)
    held_types = lake.collect_schema()
    xid = column_types.xid_column(copy.table.columns)
    shared: list[str] = []
    live: list[pl.DataFrame] = []
    for frame in copy.live_rows():
        shared = [name for name, dtype in frame.schema.items() if name != xid and held_types.get(name) == dtype]
        live.append(frame.select(_numbers(shared, copy.table.primary_key, xid)))
    if not live:
        shared = [column.name for column in copy.table.columns if column.name in held_types]
        live = [copy.no_rows().select(_numbers(shared, copy.table.primary_key, xid))]
    source = pl.concat(live)
    held = lake.select(_numbers(shared, copy.table.primary_key, xid)).collect(engine="streaming")
    copied = source.filter(pl.col("xid") < upto)
    return Comparison(
        row_count=source.height,
        missing=_missing(copied, held),
        ahead=_ahead(source, held, copy.horizon),
        to_come=source.height - copied.height,
        gone=_gone(source, held),
    )


def reconcile(copy: TableSync, recorded: Watermark | None, connection: S3Connection) -> SliceStream:
    """Go on from the database as it is now if the lake holds all that was copied; else say what differs.

    Raises HistoryChanged if they differ, or if a large window is only half read; nothing is changed then.
    """
    watermark = copy.objects.recover(recorded, copy.now(), allow_gaps=True).watermark or recorded
    if watermark is None:
        raise SettingsError(f"{copy.label}: nothing of it has been copied yet, so there is nothing to compare.")
    if any(leaf.pending for leaf in watermark.leaves.values()):
        raise HistoryChanged(
            f"{copy.label}: a large window of it is only half read, so it cannot be compared. Run "
            f"`pg-bronze reset {table.shell_argument(copy.label)}` to copy the table again; nothing was changed."
        )
    upto = max((leaf.swept or 0 for leaf in watermark.leaves.values()), default=0)
    found = compare(copy, upto, connection)
    if found.same:
        here = found.row_count - found.to_come
        reason = f"reconciled: all {here} live rows copied so far are in the lake"
        if found.gone:
            reason += f"; of {found.gone} more the keys are in the lake alone: deleted since, or lost"
        return copy.resume_from(recorded, reason)
    raise HistoryChanged(
        f"{copy.label}: of {found.row_count} live rows {found.missing} should have been copied and are not in the lake "
        f"as they are now, and {found.ahead} row versions in it are later than the database: transactions were lost, "
        f"or their ids were used again. Run `pg-bronze reset {table.shell_argument(copy.label)}` to copy the table "
        "again; nothing was changed."
    )


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
