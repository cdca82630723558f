"""What can be set for the sync of one table."""

from dataclasses import dataclass, field

from pg_bronze.core import cursor_column
from pg_bronze.core.band_rules import BandRules
from pg_bronze.core.column_choices import ColumnChoices
from pg_bronze.core.table import SourceTable
from pg_bronze.core.value_policies import DEFAULT_POLICIES, Policies
from pg_bronze.lake.parquet import Codec


@dataclass(frozen=True)
class SyncOptions:
    """What can be set for one table.

    Attributes:
        slice_rows: Most rows in a slice; None derives the limit from ``slice_bytes``.
        slice_bytes: Most bytes in a slice as PostgreSQL's COPY sends them.
        codec: How objects are compressed that verification writes again.
        dated: Put objects into ``date=YYYY-MM-DD/`` folders.
        cursor_names: Names of columns that are preferred as the cursor column, best first.
        cursor_column: The configured cursor column; None chooses one.
        takeover: What to do where the original system left objects or a control row: ``fresh``, ``adopt-seed``, or None
            to stop the table.
        unfenced: The bucket may ignore create-only writes, so every report says that rows may be duplicated.
        policies: What happens to values that their Parquet type cannot hold.
        columns: Which columns are copied, and which of them are masked.
        bands: When a large table is divided into bands, and when it is swept; None reads every table completely in
            every tick.
        turn_s: A first load stops after so many seconds, and the next run continues it; None loads to the end.
        load_parallel: How many block ranges of a first load are read at once.
        share_s: The table stops after so many seconds, because the others of the run wait; None copies to the end.
    """

    slice_rows: int | None = None
    slice_bytes: int = 32 * 2**20
    codec: Codec = field(default_factory=Codec)
    dated: bool = False
    cursor_names: tuple[str, ...] = cursor_column.DEFAULT_NAMES
    cursor_column: str | None = None
    takeover: str | None = None
    unfenced: bool = False
    policies: Policies = DEFAULT_POLICIES
    columns: ColumnChoices = field(default_factory=ColumnChoices)
    bands: BandRules | None = field(default_factory=BandRules)
    load_parallel: int = 1
    turn_s: float | None = None
    share_s: float | None = None

    def applied(self, table: SourceTable) -> SourceTable:
        """Return a table of the catalog as it is copied."""
        return self.columns.apply(table).with_policies(self.policies)
