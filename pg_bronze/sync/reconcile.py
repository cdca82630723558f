"""Reconcile: compare a table with its lake after a failover, a restore or a move, and continue if nothing is missing.

Both sides are read completely. Three numbers are kept in memory for each row, 24 bytes.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pg_bronze.core import column_types
from pg_bronze.core.key_identity import key_identity
from pg_bronze.core.leaf import Leaf
from pg_bronze.core.region import Region, with_difference
from pg_bronze.core.table import Column, SourceTable, shell_argument
from pg_bronze.core.watermark import Watermark
from pg_bronze.errors import HistoryChanged, SettingsError, TableChanged
from pg_bronze.lake.commit import SliceWriter
from pg_bronze.lake.ledger import Committed
from pg_bronze.lake.reading import scan, table_objects
from pg_bronze.settings.bucket import S3Connection
from pg_bronze.sync import slice_reader
from pg_bronze.sync.state_changes import current, require_lock, resume_compared
from pg_bronze.sync.table_sync import TableSync

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import polars as pl


_TRANSACTIONS_SHOWN = 5
# Types whose output function prints the name of an object, a role or a privilege's holder.
_NAMES = frozenset({
    "regclass", "regproc", "regprocedure", "regoper", "regoperator", "regtype", "regrole", "regnamespace", "regconfig",
    "regdictionary", "regcollation", "regdatabase", "aclitem",
})  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """How the lake differs from the source.

    Attributes:
        row_count: Live rows in the source.
        missing: Live row versions of copied transactions that are not in the lake with these values.
        ahead: Row versions in the lake that are later than the source's version of the same key, or that belong to
            transactions the source has not reached. A reader would take them for the newest.
        not_copied: Live rows of later transactions, which the next tick copies.
        only_in_lake: Primary keys that only the lake has, of rows that were deleted or lost with their transaction; 0
            without a primary key.
        transactions: Some of those that wrote the missing row versions.
    """

    row_count: int
    missing: int
    ahead: int
    not_copied: int
    only_in_lake: int
    transactions: tuple[int, ...] = ()

    @property
    def same(self) -> bool:
        """Return whether copying can continue from the watermark."""
        return not self.missing and not self.ahead


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
    forms = _key_forms(sync)
    for name in _stored_otherwise(sync):
        lake_types.pop(name, None)
    shared: list[str] = []
    live: list[pl.DataFrame] = []
    for frame in _live_rows(sync):
        shared = [name for name, dtype in frame.schema.items() if name != xid and lake_types.get(name) == dtype]
        live.append(frame.select(_numbers(shared, forms, xid)))
    if not live:
        shared = [column.name for column in sync.table.columns if column.name in lake_types]
        live = [sync.slices.no_rows().select(_numbers(shared, forms, xid))]
    source = pl.concat(live)
    copied = lake.select(_numbers(shared, forms, xid)).collect(engine="streaming")
    later = [frame.select(_numbers(shared, forms, xid)) for frame in _copied_later(sync, watermark, upto)]
    expected = pl.concat([source.filter(pl.col("xid") < upto), *later])
    missing = _missing(expected, copied)
    return Comparison(
        row_count=source.height,
        missing=int(missing["missing"].sum()),
        ahead=_ahead(source, copied, sync.horizon),
        not_copied=source.height - expected.height,
        only_in_lake=_only_in_lake(source, copied),
        transactions=tuple(missing["xid"].unique().sort().head(_TRANSACTIONS_SHOWN)),
    )


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


def _stored_otherwise(sync: TableSync) -> set[str]:
    """Return the columns that some objects do not have because they were excluded, or have with another mask."""
    eras = table_objects.find(sync.store, sync.layout).eras
    return {
        column.name
        for column in sync.table.columns
        for era in eras
        if column.attnum in era.excluded or era.by_attnum.get(column.attnum, column).mask != column.mask
    }


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


def _key_forms(sync: TableSync) -> "dict[str, pl.Expr]":
    """Return the primary key's columns in the form in which PostgreSQL compares them.

    The widest form is used: if it merges too many keys, a row of the lake may count as later than another row, and
    never the other way round.

    Raises:
        SettingsError: Equal keys cannot be found without the server.
    """
    import polars as pl

    database = sync.source.database()
    locale = str(database.get("locale") or database.get("character_type") or "")
    columns = {column.name: column for column in sync.table.columns}
    found = {}
    for name in sync.table.primary_key:
        stored = column_types.rule(columns[name]).stored
        identity = key_identity([columns[name]], locale, stored, name)
        if isinstance(identity, str):
            raise SettingsError(
                f"{sync.label}: {identity}, so both sides cannot be compared. Nothing was changed. Run "
                f"`pg-bronze reset {shell_argument(sync.label)}` to copy the table again."
            )
        form = identity.widest or identity.form
        found[name] = form(pl.col(name)) if form else pl.col(name)
    return found


def _numbers(columns: "Sequence[str]", key: "Mapping[str, pl.Expr]", xid: str) -> "list[pl.Expr]":
    """Return the three numbers that represent a row: its key, its transaction, and all its values."""
    import polars as pl

    known = all(column in columns for column in key) and bool(key)
    forms = [form.alias(name) for name, form in key.items()]
    return [
        (pl.struct(forms).hash() if known else pl.lit(None, pl.UInt64)).alias("key"),
        pl.col(xid).alias("xid"),
        (pl.struct(list(columns)).hash() if columns else pl.lit(0, pl.UInt64)).alias("row"),
    ]


def _missing(source: "pl.DataFrame", copied: "pl.DataFrame") -> "pl.DataFrame":
    """Return the versions that the lake lacks, with their number; rows with equal values are counted, not merged."""
    import polars as pl

    in_lake = copied.group_by("xid", "row").len("in_lake")
    counted = source.group_by("xid", "row").len("live").join(in_lake, on=["xid", "row"], how="left")
    lacking = pl.col("live").cast(pl.Int64) - pl.col("in_lake").fill_null(0).cast(pl.Int64)
    return counted.select("xid", missing=lacking).filter(pl.col("missing") > 0)


def _ahead(source: "pl.DataFrame", copied: "pl.DataFrame", horizon: int) -> int:
    import polars as pl

    unborn = copied.filter(pl.col("xid") >= horizon).height
    keyed = source.drop_nulls("key").select("key", live_xid="xid", live_row="row")
    later = copied.filter(pl.col("xid") < horizon).join(keyed, on="key", how="inner")
    same_time = (pl.col("xid") == pl.col("live_xid")) & (pl.col("row") != pl.col("live_row"))
    return unborn + later.filter((pl.col("xid") > pl.col("live_xid")) | same_time).height


def _only_in_lake(source: "pl.DataFrame", copied: "pl.DataFrame") -> int:
    # Without a primary key every key is null.
    return copied.drop_nulls("key").select("key").unique().join(source, on="key", how="anti").height
