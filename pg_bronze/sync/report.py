"""The report of one table's sync: a plain value that metadata, log lines and the control table are made from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

from pg_bronze.core.band_notes import BandNotes
from pg_bronze.core.cursor_column import CursorColumn
from pg_bronze.core.watermark import Watermark
from pg_bronze.lake.ledger import Committed


@dataclass(frozen=True)
class SyncReport:
    """What one run did for one table.

    Attributes:
        label: The table as messages name it.
        watermark: How far the table is copied after the last object.
        adopted: Objects that were written before this run and had not been recorded, oldest first.
        committed: Objects that this run wrote, oldest first.
        cursor_column: The column that shows progress, or None.
        superseded: Another writer committed first; its objects are among ``adopted``, and the run stopped there.
        unfenced: The bucket may ignore create-only writes, so rows may be duplicated by two writers.
        control_off: Why ``etl_control`` is not written, or None if it is.
        bands: What people are told about a table that is swept by a schedule; None for any other table.
    """

    label: str
    watermark: Watermark
    adopted: Sequence[Committed] = ()
    committed: Sequence[Committed] = ()
    cursor_column: CursorColumn | None = None
    superseded: bool = False
    unfenced: bool = False
    control_off: str | None = None
    bands: BandNotes | None = None

    @property
    def objects(self) -> tuple[Committed, ...]:
        """All objects recorded by this run, oldest first."""
        return (*self.adopted, *self.committed)

    @property
    def row_count(self) -> int:
        """Rows in these objects."""
        return sum(item.row_count for item in self.objects)

    @property
    def size_bytes(self) -> int:
        """Bytes of these objects; those that another writer wrote under our key count as 0."""
        return sum(item.size_bytes for item in self.objects)

    @property
    def late_row_count(self) -> int | None:
        """Rows in these objects that a copy by ``column > last value`` would have lost; None without such a column."""
        return sum(item.late_row_count for item in self.objects) if self.cursor_column else None

    def day_row_count(self, day: date, day_of: Callable[[str], date | None]) -> int | None:
        """Return the rows of all objects of a day up to the last of these; None if not known, or if none is of it.

        Args:
            day_of: Returns the day of a key.
        """
        last = next((item.watermark for item in reversed(self.objects) if day_of(item.key) == day), None)
        return last.counts.day_rows if last and last.counts else None

    @property
    def drift(self) -> tuple[str, ...]:
        """How the table's columns changed before or between these objects, one sentence each, in order."""
        return tuple(sentence for item in self.objects for sentence in item.drift)
