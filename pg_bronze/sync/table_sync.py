"""The sync of one table in one run: its lock, its recovered watermark, its first slice, and its control row."""

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Self

from pg_bronze.core import band_rules, column_choices, history_check
from pg_bronze.core.planning import Quiet
from pg_bronze.core.table import SourceTable, shell_argument
from pg_bronze.core.watermark import ControlVersion, Origin, Watermark
from pg_bronze.errors import HistoryChanged, SettingsError, SourceUnavailable, StateRestored
from pg_bronze.lake import stop
from pg_bronze.lake.commit import Slice, Step, ignore_step
from pg_bronze.lake.keys import Layout
from pg_bronze.lake.ledger import Ledger, Recovered
from pg_bronze.lake.object_store import Store
from pg_bronze.postgres import activity
from pg_bronze.postgres.connection import Source
from pg_bronze.postgres.control_table import Control, ControlRow, Mirrored
from pg_bronze.sync import redo, takeover
from pg_bronze.sync.options import SyncOptions
from pg_bronze.sync.slice_source import SliceSource
from pg_bronze.sync.slice_stream import SliceStream


class TableSync:
    """Copies one table up to one horizon.

    Use it as a context manager, which holds the table's advisory lock. ``now`` returns the current time as aware UTC.
    ``on_step`` is called with ``recover`` and ``read`` after these steps.

    Attributes:
        slices: Plans and reads the slices.
        ledger: The objects and claims of the table.
        generation: The generation of the recovered watermark; -1 before the first object.
        locked: This run holds the table's advisory lock.
        watermark: The watermark that a quiet table continues from; None before ``start``.
    """

    def __init__(
        self,
        source: Source,
        store: Store,
        table: SourceTable,
        options: SyncOptions,
        control: Control | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        on_step: Step = ignore_step,
    ) -> None:
        self.source = source
        self.store = store
        self.options = options
        self.control = control or Control(None)
        self.now = now
        self.on_step = on_step
        self.label = table.label
        self.layout = Layout(store.prefix, table.schema, table.name, "date" if options.dated else "flat")
        self.ledger = Ledger(store, self.layout)
        self.slices = SliceSource(source, self.ledger, table, options, now, on_step)
        self.generation = -1
        self.locked = False
        self.watermark: Watermark | None = None
        self._mirrored_before: str | None = None
        self._progress: Watermark | None = None

    def __enter__(self) -> Self:
        self.locked = self.source.try_lock(self.table.oid)
        return self

    def __exit__(self, *_: object) -> None:
        self.slices.close()
        if self.locked:
            self.source.unlock(self.table.oid)
            self.locked = False

    @property
    def table(self) -> SourceTable:
        """The table as the catalog last described it."""
        return self.slices.table

    @property
    def horizon(self) -> int:
        """Every transaction below it has finished; 0 before ``start``."""
        return self.slices.planner.horizon

    def start(self, recorded: Watermark | None, progress: Watermark | None = None) -> SliceStream | Quiet:
        """Recover, plan and read the first slice.

        Args:
            recorded: The watermark of the latest materialization, or None if it has none.
            progress: What the last run read after its last commit and found empty; see ``SliceSource.progress_after``.

        Returns:
            Quiet if there is nothing to commit and nothing to record.
        """
        if not self.locked:
            return Quiet("another run is copying the table")
        self._progress = progress
        self._check_bucket(recorded)
        stream = self._continue(recorded)
        if stream is not None:
            return stream
        recovered = self._listed(recorded)
        watermark, first = self._begin(recovered)
        self.watermark = watermark
        if first is None and not recovered.adopted and not recovered.rebuilt:
            blocked = self.source.held_back()
            return Quiet(self.slices.waiting or f"no new row up to transaction {self.horizon}{blocked}")
        if first is not None and recovered.watermark is not None:
            self.ledger.check_foreign_objects(recovered.watermark, self.now())
        return SliceStream(self, recovered, watermark, first)

    def check(self, recorded: Watermark | None) -> None:
        """Check that the database and the bucket continue the watermark, as before a copy, and copy nothing."""
        self._check_bucket(recorded)
        self._prepare(self._listed(recorded))

    def recover_again(self, recorded: Watermark) -> tuple[Recovered, Watermark, Slice | None]:
        """Recover by listings after a claim showed that a recorded watermark was not current, and read on.

        Returns:
            What the bucket contains, the watermark to continue, and the next slice.
        """
        recovered = self.ledger.recover(recorded, self.now())
        return recovered, *self._begin(recovered)

    def _check_bucket(self, recorded: Watermark | None) -> None:
        if recorded is not None and recorded.origin.bucket != self.store.place:
            raise history_check.bucket_changed(recorded, self.store.place, self.label)

    def _continue(self, recorded: Watermark | None) -> SliceStream | None:
        """Plan and read after a recorded watermark without any request to the bucket; None if that is not enough.

        It is not known yet whether the watermark is current. Nothing is written otherwise: the first claim fails if
        the next number is claimed, and the listing after it if the watermark's object is not the last one.
        """
        if recorded is None or not self.ledger.is_recent(recorded, self.now()):
            return None
        try:
            self.slices.builder.place = self._place_after(recorded)
            self._refresh(recorded)
        except HistoryChanged:
            return None  # the bucket may have a later watermark, of a reset for example
        self.on_step("recover")
        self.generation = recorded.generation
        recovered = Recovered(recorded)
        first = self._first_slice(recovered, recorded)
        return SliceStream(self, recovered, recorded, first, proven=False) if first is not None else None

    def _listed(self, recorded: Watermark | None) -> Recovered:
        recovered = self.ledger.recover(recorded, self.now())
        self.on_step("recover")
        return recovered

    def _prepare(self, recovered: Recovered) -> Watermark | None:
        """Read horizon and table, and return the watermark that the database continues; None before the first one."""
        watermark = self._check_history(recovered)
        self._refresh(recovered.redo.after if recovered.redo else watermark)
        return watermark

    def _begin(self, recovered: Recovered) -> tuple[Watermark, Slice | None]:
        """Return the watermark to continue, and the first slice after it."""
        watermark = self._prepare(recovered)
        if watermark is None:
            watermark = self._initial_watermark(recovered.foreign_key)
        return watermark, self._first_slice(recovered, watermark)

    def _refresh(self, newest: Watermark | None) -> None:
        """Read the horizon, which must not be below that of a watermark, and the table's definition."""
        self._read_horizon(newest)
        self.slices.refresh_table()

    def _first_slice(self, recovered: Recovered, watermark: Watermark) -> Slice | None:
        # The writer of an adopted object may have ended before it wrote the control row.
        self._mirrored_before = None if recovered.adopted else watermark.cursor
        self._check_seed(watermark)
        self._remember(watermark)
        self.sign_control(watermark.origin.control)
        if recovered.redo:
            return redo.slice_of(self.slices, recovered.redo)
        return self.slices.next_slice(watermark)

    def _check_seed(self, watermark: Watermark) -> None:
        hidden = column_choices.hidden(self.table)
        if watermark.seed is not None and watermark.seed.attnum in hidden:
            raise SettingsError(
                f"{self.label}: column {hidden[watermark.seed.attnum]!r} cannot be excluded or masked, because every "
                "watermark has a value of it, which etl_control had at the takeover. Run `pg-bronze reset "
                f"{shell_argument(self.label)}` to copy the table again without it."
            )

    def _read_horizon(self, newest: Watermark | None) -> None:
        planner = self.slices.planner
        if band_rules.is_scheduled(self.table, newest.sweeps if newest else None, self.options.bands):
            # The counter first, the horizon second: what the counter includes began before the horizon.
            planner.counted = self.source.counter([item.oid for item in self.table.relations])
            planner.cache_blocks = activity.cache_blocks(self.source)
            self.source.forget_horizon()
        planner.horizon_at = self.now()
        planner.horizon = self.source.horizon(at_least=newest.highest_horizon if newest else None)

    def _remember(self, watermark: Watermark) -> None:
        """Continue after what the last run found empty, if the database continues the history of then."""
        place, progress = self.slices.builder.place, self._progress
        self._progress = None  # what this run reads and finds empty replaces it
        known = (watermark.table, watermark.generation, watermark.seq, watermark.key, watermark.seed)
        if progress is None or place is None:
            return
        if known != (progress.table, progress.generation, progress.seq, progress.key, progress.seed):
            return
        if (progress.highest_horizon or 0) > self.horizon:
            return  # another table of this run read the horizon before the last run ended
        if history_check.continues(progress.origin, place, self.source.standby):
            self.slices.remember(watermark, progress)

    def recover_after_conflict(self, watermark: Watermark) -> Recovered:
        """Adopt what another writer committed after a watermark."""
        return self.ledger.recover(watermark if watermark.seq else None, self.now())

    def mirror(self, watermark: Watermark) -> Mirrored:
        """Write the table's row in ``etl_control``; call it after the watermark was recorded. Raises no error of it."""
        column = self.slices.cursor_column
        row = ControlRow(self.label, watermark.cursor, column.name if column else None)
        return self.control.mirror(row, self._mirrored_before)

    def sign_control(self, known: ControlVersion | None = None) -> None:
        """Have the control row written before the next claim, so that its watermark names that version of the row.

        The row is written after the horizon was read. A later restore that lost rows below the horizon has lost this
        version too.

        Args:
            known: The version to name if none can be written.
        """

        def signed(place: Origin) -> Origin:
            version = self.control.sign(self.label, place.system_id)
            return dataclasses.replace(place, control=version or known)

        self.slices.builder.sign = signed

    def _check_history(self, recovered: Recovered) -> Watermark | None:
        """Compare the recovered watermark with the database's history and return it; None before the first object."""
        watermark = recovered.watermark
        if watermark is None and recovered.redo is not None:
            watermark = recovered.redo.before
        self.generation = watermark.generation if watermark else -1
        if watermark is not None:
            try:
                self.slices.builder.place = self._place_after(watermark)
            except StateRestored as error:
                stop.write(self.store, self.layout, watermark, str(error), self.now())
                raise
            if recovered.stopped:
                raise StateRestored(recovered.stopped)
            if watermark.generation:
                self.ledger.move_old(watermark)
        else:
            self.slices.builder.place = self.source.place(self.store.place)
        return watermark

    def _place_after(self, watermark: Watermark) -> Origin:
        """Return the current place, and raise HistoryChanged if it does not continue a watermark's.

        The watermark is known before the place is read. The other order would take what another writer committed in
        between for a restored database.
        """
        place = self.source.place(self.store.place)
        history_check.check_origin(watermark, place, self.label, self.source.standby)
        self._check_control(watermark)
        return place

    def _check_control(self, watermark: Watermark) -> None:
        origin = watermark.origin
        if origin.control is not None and not self.source.standby:
            found = self.control.version(self.label, origin.system_id)
            history_check.check_control(watermark, found, self.label)

    def _initial_watermark(self, foreign_key: str) -> Watermark:
        """Return the watermark before the first object, bounded by what the original system copied if that is set."""
        place = self.slices.builder.place or self.source.place(self.store.place)
        uri = self.store.uri(foreign_key) if foreign_key else ""
        row = self.control.last_value(self.label)
        if self.options.takeover == "adopt-seed" and self.control.off:
            raise SourceUnavailable(
                f"{self.label}: PG_BRONZE_TAKEOVER is adopt-seed, but etl_control cannot be read. {self.control.off} "
                "It is retried at the next tick."
            )
        seed = takeover.initial_seed(self.source, self.table, row, uri, self.options.takeover)
        initial = Watermark(place, self.table.oid, key=foreign_key)
        return initial if seed is None else dataclasses.replace(initial, seed=seed, cursor=seed.value)
