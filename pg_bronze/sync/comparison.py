"""Comparison: how the row versions of two frames differ, one of the source and one of the lake.

Belongs here: the numbers that represent a row, and counting what one side lacks. Does not belong here: reading either
side (``reconcile``, ``range_check``). Three numbers are kept in memory for each row, 24 bytes.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pg_bronze.core import column_types
from pg_bronze.core.key_identity import key_identity
from pg_bronze.core.table import shell_argument
from pg_bronze.errors import SettingsError
from pg_bronze.lake.reading import table_objects
from pg_bronze.sync.table_sync import TableSync

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import polars as pl

TRANSACTIONS_SHOWN = 5


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


def stored_otherwise(sync: TableSync) -> set[str]:
    """Return the columns that some objects do not have because they were excluded, or have with another mask."""
    eras = table_objects.find(sync.store, sync.layout).eras
    return {
        column.name
        for column in sync.table.columns
        for era in eras
        if column.attnum in era.excluded or era.by_attnum.get(column.attnum, column).mask != column.mask
    }


def key_forms(sync: TableSync) -> "dict[str, pl.Expr]":
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


def numbers(columns: "Sequence[str]", key: "Mapping[str, pl.Expr]", xid: str) -> "list[pl.Expr]":
    """Return the three numbers that represent a row: its key, its transaction, and all its values."""
    import polars as pl

    known = all(column in columns for column in key) and bool(key)
    forms = [form.alias(name) for name, form in key.items()]
    return [
        (pl.struct(forms).hash() if known else pl.lit(None, pl.UInt64)).alias("key"),
        pl.col(xid).alias("xid"),
        (pl.struct(list(columns)).hash() if columns else pl.lit(0, pl.UInt64)).alias("row"),
    ]


def of_rows(source: "pl.DataFrame", expected: "pl.DataFrame", copied: "pl.DataFrame", horizon: int) -> Comparison:
    """Return how the numbers of rows differ.

    Args:
        source: All live rows.
        expected: Those of copied transactions.
        copied: The row versions in the lake.
        horizon: The source has not reached transactions from this one on.
    """
    found = missing(expected, copied)
    return Comparison(
        row_count=source.height,
        missing=int(found["missing"].sum()),
        ahead=ahead(source, copied, horizon),
        not_copied=source.height - expected.height,
        only_in_lake=only_in_lake(source, copied),
        transactions=tuple(found["xid"].unique().sort().head(TRANSACTIONS_SHOWN)),
    )


def missing(source: "pl.DataFrame", copied: "pl.DataFrame") -> "pl.DataFrame":
    """Return the versions that the lake lacks, with their number; rows with equal values are counted, not merged."""
    import polars as pl

    in_lake = copied.group_by("xid", "row").len("in_lake")
    counted = source.group_by("xid", "row").len("live").join(in_lake, on=["xid", "row"], how="left")
    lacking = pl.col("live").cast(pl.Int64) - pl.col("in_lake").fill_null(0).cast(pl.Int64)
    return counted.select("xid", missing=lacking).filter(pl.col("missing") > 0)


def ahead(source: "pl.DataFrame", copied: "pl.DataFrame", horizon: int) -> int:
    import polars as pl

    unborn = copied.filter(pl.col("xid") >= horizon).height
    keyed = source.drop_nulls("key").select("key", live_xid="xid", live_row="row")
    later = copied.filter(pl.col("xid") < horizon).join(keyed, on="key", how="inner")
    same_time = (pl.col("xid") == pl.col("live_xid")) & (pl.col("row") != pl.col("live_row"))
    return unborn + later.filter((pl.col("xid") > pl.col("live_xid")) | same_time).height


def only_in_lake(source: "pl.DataFrame", copied: "pl.DataFrame") -> int:
    # Without a primary key every key is null.
    return copied.drop_nulls("key").select("key").unique().join(source, on="key", how="anti").height
