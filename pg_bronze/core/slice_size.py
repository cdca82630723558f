"""The size of a slice: how many rows, bytes and heap blocks one read may take.

Belongs here: the first estimate for a table, and its correction after each read. Does not belong here: which rows are
read (``planning``) and the reads themselves. An estimate is never trusted: the reader compares every result with the
limits and reads a smaller range if it exceeds them.
"""

import dataclasses
from dataclasses import dataclass

from pg_bronze.core.region import Region
from pg_bronze.core.row_width import min_row_bytes
from pg_bronze.core.table import SourceTable

BLOCK_BYTES = 8192
MAX_BLOCKS_PER_RANGE = 64_000
# Line pointers in a block of 8 KB: a row takes at least 28 bytes, its line pointer and its header. A server built with
# larger blocks has more of them; the last range of a block includes the rest.
LINES_PER_BLOCK = BLOCK_BYTES // 28
# The highest compression ratio: lz4 expands one byte to at most 255, pglz to 91.
MAX_EXPANSION = 255
ROW_HEADER_BYTES = 24
UNKNOWN_ROW_BYTES = 100
# How full a range should be by the statistics. A read that exceeds a limit is discarded: planned to be exactly full,
# half of the first loads paid for one such read, and for slices of half the size after it.
PLANNED_SHARE = 7 / 8


@dataclass(frozen=True)
class SliceSize:
    """How much one slice may contain.

    Attributes:
        row_limit: The number of rows.
        byte_limit: The number of bytes in the format of ``COPY``, approximately.
        blocks: The number of heap blocks in the next range of a window; at least 1.
        lines: The number of line pointers in the next range, if even one block exceeds a limit because its rows point
            to large TOAST values; 0 for whole blocks.
        most_rows: What ``row_limit`` may grow to, if it was derived from statistics. After a large insert these are
            those of before, and a row seems to be as long as a block.
    """

    row_limit: int
    byte_limit: int
    blocks: int
    lines: int = 0
    most_rows: int = 0

    @property
    def is_single_row(self) -> bool:
        """Whether a range is one row, which cannot be divided."""
        return self.blocks == 1 and self.lines == 1

    def range_end(self, block: int, line: int) -> tuple[int, int]:
        """Return the exclusive end of the range that starts at a block and line pointer, as block and line pointer."""
        if self.lines and line + self.lines < LINES_PER_BLOCK:
            return block, line + self.lines
        return block + self.blocks, 0

    def halved(self, page_count: int) -> "SliceSize":
        """Return the size to use after a read of at most ``page_count`` blocks that exceeded a limit."""
        blocks = min(self.blocks, page_count)
        if blocks > 1:
            return dataclasses.replace(self, blocks=blocks // 2)
        return dataclasses.replace(self, blocks=1, lines=max(1, (self.lines or LINES_PER_BLOCK) // 2))

    def adjusted(self, row_count: int, size_bytes: int) -> "SliceSize":
        """Return the size to use after a range within the limits: doubled if it was less than a quarter full."""
        has_rows = row_count * 4 >= self.row_limit
        if size_bytes * 4 >= self.byte_limit or (has_rows and self.row_limit >= self.most_rows):
            return self
        row_limit = min(self.row_limit * 2, self.most_rows) if has_rows else self.row_limit
        if self.lines:
            lines = self.lines * 2 if self.lines * 2 < LINES_PER_BLOCK else 0
            return dataclasses.replace(self, row_limit=row_limit, lines=lines)
        return dataclasses.replace(self, row_limit=row_limit, blocks=min(self.blocks * 2, MAX_BLOCKS_PER_RANGE))


def initial_size(table: SourceTable, slice_rows: int | None, slice_bytes: int) -> SliceSize:
    """Estimate the size of a slice from the size of the table.

    Statistics may be wrong by any factor, so a row counts as at least 24 bytes (its header), at most one block, and
    never less than its columns take in memory when all of them are NULL.

    Args:
        table: The table, with the current number of blocks of each relation.
        slice_rows: The configured row limit, or None to derive it from ``slice_bytes``.
        slice_bytes: The configured byte limit.
    """
    pages = sum(relation.page_count for relation in table.relations)
    row_bytes = float(UNKNOWN_ROW_BYTES)
    if table.row_estimate > 0 and pages > 0:
        row_bytes = min(float(BLOCK_BYTES), max(float(ROW_HEADER_BYTES), pages * BLOCK_BYTES / table.row_estimate))
    least_bytes = min_row_bytes(table.columns)
    row_limit = slice_rows or max(1000, int(slice_bytes / max(row_bytes, least_bytes)))
    most_rows = slice_rows or max(1000, int(slice_bytes / max(ROW_HEADER_BYTES, least_bytes)))
    # A block is read together with the TOAST values that its rows point to.
    toast_ratio = sum(relation.toast_page_count for relation in table.relations) / max(pages, 1)
    full = min(slice_bytes / BLOCK_BYTES / (1 + toast_ratio), row_limit * row_bytes / BLOCK_BYTES)
    blocks = max(1, int(full * PLANNED_SHARE))
    return SliceSize(row_limit=row_limit, byte_limit=slice_bytes, blocks=blocks, most_rows=most_rows)


def certainly_fits(table: SourceTable, region: Region, byte_limit: int) -> bool:
    """Return whether a region cannot exceed ``byte_limit``, at any compression ratio of its values."""
    relations = [item for item in table.relations if item.oid in region.leaves]
    if any(item.toast_page_count for item in relations):
        return False
    return sum(item.page_count for item in relations) * BLOCK_BYTES * MAX_EXPANSION <= byte_limit
