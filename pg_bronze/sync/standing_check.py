"""The standing check of one table: compare it with its objects while it is copied, within a budget.

Nothing is changed, and no lock is taken. A table within the budget is read completely on both sides, with all values.
Of a larger one, each day another part of its keys is compared.
"""

import math
from dataclasses import dataclass

from pg_bronze.core.slice_size import BLOCK_BYTES
from pg_bronze.core.table import shell_argument
from pg_bronze.core.watermark import Watermark
from pg_bronze.errors import SettingsError
from pg_bronze.lake.reading import table_objects
from pg_bronze.settings.bucket import S3Connection
from pg_bronze.sync import range_check
from pg_bronze.sync.comparison import Comparison
from pg_bronze.sync.range_check import Part, PartCompared
from pg_bronze.sync.reconcile import compare
from pg_bronze.sync.table_sync import TableSync

# With what the rows of the lake are those of the source.
_VALUES, _VERSIONS = "their values", "their key and transaction"


@dataclass(frozen=True)
class Checked:
    """The result of a standing check.

    Attributes:
        comparison: How the lake differs from the source; None if they were not compared.
        sentence: What a person should know, the remedy last.
        mirror: What is wrong with the row of the table in the control table, as a sentence; None if nothing is.
        part: Which part of a large table was compared; None for the whole table.
    """

    comparison: Comparison | None
    sentence: str
    mirror: str | None = None
    part: Part | None = None

    @property
    def passed(self) -> bool:
        """Whether no copied row is missing. A table that was not compared passes."""
        return self.comparison is None or self.comparison.same


def check(
    sync: TableSync,
    watermark: Watermark | None,
    connection: S3Connection,
    budget_bytes: int,
    again: Part | None = None,
) -> Checked:
    """Compare a table, or a part of a large one, with its objects.

    Args:
        watermark: How far the table is copied; None before the first object.
        budget_bytes: The size of the table in the source, and of its objects, above which one part of it is compared.
        again: A part that differed when it was last compared: it is compared until it does not differ any more.

    Raises:
        PgBronzeError: The database or the bucket did not answer, or they do not continue the watermark.
    """
    if watermark is None or any(leaf.swept is None for leaf in watermark.leaves.values()):
        return Checked(None, "Not compared: the first load has not copied all rows yet.")
    sync.check(watermark)
    mirror = _mirror(sync, watermark)
    upto, objects = _copied_upto(watermark), table_objects.find(sync.store, sync.layout)
    size_bytes = max(_source_bytes(sync), sum(objects.sizes.values()))
    try:
        if size_bytes <= budget_bytes:
            found = compare(sync, upto, connection, while_copying=True)
            return Checked(found, _sentence(sync, found), mirror)
        if watermark.seed is not None:
            return Checked(None, _not_divided("its first rows are in objects of the original system", sync), mirror)
        divided = range_check.divided(sync, size_bytes, budget_bytes, again)
        if isinstance(divided, str):
            return Checked(None, _not_divided(divided, sync), mirror)
        part, keys = divided
        compared = range_check.compare(sync, watermark, upto, keys, objects, connection)
    except SettingsError as error:
        return Checked(None, f"Not compared: {error}", mirror)
    return Checked(compared.comparison, _part_sentence(sync, part, compared), mirror, part)


def check_completely(
    sync: TableSync, watermark: Watermark | None, connection: S3Connection, part_bytes: int
) -> Checked:
    """Compare a whole table of any size with its objects.

    Args:
        part_bytes: The size of the table, and of its objects, above which its keys and transactions are compared, in
            parts of about this size, which bound the memory; other values are not read then.

    Raises:
        SettingsError: Equal keys cannot be found without the server.
        PgBronzeError: The database or the bucket did not answer, or they do not continue the watermark.
    """
    if watermark is None or any(leaf.swept is None for leaf in watermark.leaves.values()):
        return Checked(None, "Not compared: the first load has not copied all rows yet.")
    sync.check(watermark)
    upto, objects = _copied_upto(watermark), table_objects.find(sync.store, sync.layout)
    size_bytes = max(_source_bytes(sync), sum(objects.sizes.values()))
    if size_bytes > part_bytes and watermark.seed is None:
        parts = range_check.all_parts(sync, size_bytes, part_bytes)
        if not isinstance(parts, str):
            each = [
                range_check.compare(sync, watermark, upto, keys, objects, connection, math.inf).comparison
                for keys in parts
            ]
            found = range_check.total(each)
            return Checked(found, _sentence(sync, found, _VERSIONS))
    found = compare(sync, upto, connection, while_copying=True)
    return Checked(found, _sentence(sync, found))


def _copied_upto(watermark: Watermark) -> int:
    attached = [leaf for oid, leaf in watermark.leaves.items() if oid not in watermark.detached]
    return min((leaf.swept or 0 for leaf in attached), default=0)


def _source_bytes(sync: TableSync) -> int:
    return sum(item.page_count + item.toast_page_count for item in sync.table.relations) * BLOCK_BYTES


def _not_divided(reason: str, sync: TableSync) -> str:
    return (
        "Not compared: the table is larger than PG_BRONZE_RECONCILE_MB, and it cannot be compared in parts: "
        f"{reason}. `pg-bronze reconcile --check {shell_argument(sync.label)}` compares it completely."
    )


def _part_sentence(sync: TableSync, part: Part, compared: PartCompared) -> str:
    sentence = _sentence(sync, compared.comparison, _VERSIONS)
    if not compared.comparison.same:
        return f"Of the keys, {part.text} was compared. {sentence} This part is compared again tomorrow."
    limit_s = range_check.TIME_LIMIT_S
    rest = f"A round through the table takes {part.count} days."
    if not compared.complete:
        rest = f"The time limit of {limit_s:.0f} s was reached before the end of the part."
    return f"Of the keys, {part.text} was compared. {sentence} {rest}"


def _sentence(sync: TableSync, found: Comparison, compared_by: str = _VALUES) -> str:
    compared = found.row_count - found.not_copied
    if found.same:
        deleted = f" {found.only_in_lake:,} keys are only in the lake: deleted since." if found.only_in_lake else ""
        return f"All {compared:,} live rows that were copied are in the lake with {compared_by}.{deleted}"
    written = ", ".join(map(str, found.transactions))
    # A row has the lower 32 bits of its transaction id.
    lower = ", ".join(str(xid % 2**32) for xid in found.transactions)
    rows = f"select * from {sync.table.sql} where xmin::text::bigint in ({lower})"
    where = f" Some were written by transactions {written}: `{rows}`." if written else ""
    return (
        f"Of {compared:,} live rows that were copied, {found.missing:,} are not in the lake with {compared_by}, and "
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
