"""Reconciling: does the lake hold what the source has?

Asked after a failover, a restore or a move that may have lost something. Both sides are read whole; of each row only
three numbers are kept, 24 bytes.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pg_bronze import read, schema
from pg_bronze.copy import SliceStream, TableCopy
from pg_bronze.errors import HistoryChanged
from pg_bronze.settings import S3Connection
from pg_bronze.watermark import Watermark

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl


@dataclass(frozen=True)
class Comparison:
    """What the lake lacks of the source below ``horizon``, and has beyond it.

    ``missing``: live row versions that are not in the lake with these values. ``ahead``: row versions in the lake that
    are later than the source's of the same key, or of transactions the source has not had yet; a reader would take them
    for the newest.
    """

    horizon: int
    row_count: int
    missing: int
    ahead: int

    @property
    def same(self) -> bool:
        """Whether copying may go on from here as if nothing had happened."""
        return not self.missing and not self.ahead


def compare(copy: TableCopy, connection: S3Connection) -> Comparison:
    """Compare a table with its newest generation in the lake, by all columns both have.

    A row that only the lake has counts as deleted, unless its transaction is still to come.
    """
    import polars as pl

    lake = read.frame(copy.store, copy.layout, connection)
    held_types = lake.collect_schema()
    xid = schema.xid_column(copy.table.columns)
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
    return Comparison(copy.horizon, source.height, _missing(source, held), _ahead(source, held, copy.horizon))


def reconcile(copy: TableCopy, recorded: Watermark | None, connection: S3Connection) -> SliceStream:
    """Go on from the database as it is now if the lake holds all it has; else say what differs and change nothing.

    Raises HistoryChanged if they differ.
    """
    found = compare(copy, connection)
    if found.same:
        return copy.go_on_from(recorded, f"reconciled: all {found.row_count} live rows are in the lake")
    raise HistoryChanged(
        f"{copy.label}: of {found.row_count} live rows {found.missing} are not in the lake as they are now, and "
        f"{found.ahead} row versions in it are later than the database: transactions were lost or copied nowhere. Run "
        f"`pg-bronze reset {schema.argument(copy.label)}` to copy the table again; nothing was changed."
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
