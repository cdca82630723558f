"""The standing check of one table: compare it with its objects while it is copied, within a budget.

Nothing is changed, and no lock is taken. A comparison reads both sides completely, so a table above the budget is not
compared; `pg-bronze reconcile` has no budget.
"""

from dataclasses import dataclass

from pg_bronze.core.slice_size import BLOCK_BYTES
from pg_bronze.core.watermark import Watermark
from pg_bronze.errors import SettingsError
from pg_bronze.lake.reading import table_objects
from pg_bronze.settings.bucket import S3Connection
from pg_bronze.sync.reconcile import Comparison, compare
from pg_bronze.sync.table_sync import TableSync


@dataclass(frozen=True)
class Checked:
    """The result of a standing check.

    Attributes:
        comparison: How the lake differs from the source; None if they were not compared.
        sentence: What a person should know, the remedy last.
        mirror: What is wrong with the row of the table in the control table, as a sentence; None if nothing is.
    """

    comparison: Comparison | None
    sentence: str
    mirror: str | None = None

    @property
    def passed(self) -> bool:
        """Whether no copied row is missing. A table that was not compared passes."""
        return self.comparison is None or self.comparison.same


def check(sync: TableSync, watermark: Watermark | None, connection: S3Connection, budget_bytes: int) -> Checked:
    """Compare a table with its objects.

    Args:
        watermark: How far the table is copied; None before the first object.
        budget_bytes: The size of the table in the source, and of its objects, above which they are not compared.

    Raises:
        PgBronzeError: The database or the bucket did not answer, or they do not continue the watermark.
    """
    if watermark is None or any(leaf.swept is None for leaf in watermark.leaves.values()):
        return Checked(None, "Not compared: the first load has not copied all rows yet.")
    sync.check(watermark)
    mirror = _mirror(sync, watermark)
    if reason := _too_large(sync, budget_bytes):
        return Checked(None, reason, mirror)
    attached = [leaf for oid, leaf in watermark.leaves.items() if oid not in watermark.detached]
    upto = min((leaf.swept or 0 for leaf in attached), default=0)
    try:
        found = compare(sync, upto, connection, while_copying=True)
    except SettingsError as error:
        return Checked(None, f"Not compared: {error}", mirror)
    return Checked(found, _sentence(sync, found), mirror)


def _too_large(sync: TableSync, budget_bytes: int) -> str | None:
    source = sum(item.page_count + item.toast_page_count for item in sync.table.relations) * BLOCK_BYTES
    lake = 0 if source > budget_bytes else sum(table_objects.find(sync.store, sync.layout).sizes.values())
    if max(source, lake) <= budget_bytes:
        return None
    where, size = ("the source", source) if source > budget_bytes else ("the bucket", lake)
    return (
        f"Not compared: the table has {size / 1e6:,.0f} MB in {where}, and PG_BRONZE_RECONCILE_MB is "
        f"{budget_bytes / 1e6:,.0f}. `pg-bronze reconcile` compares tables of any size."
    )


def _sentence(sync: TableSync, found: Comparison) -> str:
    compared = found.row_count - found.not_copied
    if found.same:
        deleted = f" {found.only_in_lake:,} keys are only in the lake: deleted since." if found.only_in_lake else ""
        return f"All {compared:,} live rows that were copied are in the lake with their values.{deleted}"
    written = ", ".join(map(str, found.transactions))
    # A row has the lower 32 bits of its transaction id.
    lower = ", ".join(str(xid % 2**32) for xid in found.transactions)
    rows = f"select * from {sync.table.sql} where xmin::text::bigint in ({lower})"
    where = f" Some were written by transactions {written}: `{rows}`." if written else ""
    return (
        f"Of {compared:,} live rows that were copied, {found.missing:,} are not in the lake with their values, and "
        f"{found.ahead:,} row versions in the lake are later than the database.{where} Run `pg-bronze reconcile`, and "
        "if it finds the same, `pg-bronze reset`."
    )


def _mirror(sync: TableSync, watermark: Watermark) -> str | None:
    if sync.control.off:
        return None  # the mirror is off by a setting, or its database does not answer: it is not state
    row = sync.control.last_value(sync.label)
    if watermark.cursor is None or (row is not None and row.value == watermark.cursor):
        return None
    found = "has no row of the table" if row is None else "has another value"
    return f"etl_control {found}. The next copy of the table writes it again."
