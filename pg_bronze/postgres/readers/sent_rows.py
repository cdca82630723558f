"""Sent rows: what one read returned, in the arrays of its reader.

The rows of connectorx become a frame only after their session has ended: the server can send the next rows meanwhile.
Texts are copied then, 12 ms for 270,000 order lines.
"""

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa


class SentRows:
    """The rows of one read.

    Attributes:
        height: The number of rows.
        width: The number of columns.
    """

    def __init__(self, rows: "pl.DataFrame | pa.Table") -> None:
        self.height: int = rows.shape[0]
        self.width: int = rows.shape[1]
        self._rows: pl.DataFrame | pa.Table | None = rows

    def estimated_size(self) -> int:
        """Return the bytes of the rows in memory, as ``polars.DataFrame.estimated_size`` does.

        Raises:
            RuntimeError: The frame was taken.
        """
        import polars as pl

        rows = self._taken_once()
        return int(rows.estimated_size() if isinstance(rows, pl.DataFrame) else rows.nbytes)

    def frame(self) -> "pl.DataFrame":
        """Return the rows as a frame and forget them, because they would stay in memory beside it; call it once.

        Raises:
            RuntimeError: The frame was taken.
        """
        import polars as pl

        rows, self._rows = self._taken_once(), None
        return rows if isinstance(rows, pl.DataFrame) else cast("pl.DataFrame", pl.from_arrow(rows))

    def _taken_once(self) -> "pl.DataFrame | pa.Table":
        if self._rows is None:
            raise RuntimeError("the frame of these rows was taken")
        return self._rows
