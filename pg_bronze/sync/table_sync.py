"""The copy of one table: recover, plan, read, commit. The asset, the IO manager and the command line all use it."""

import contextlib
import dataclasses
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

import psycopg

from pg_bronze.core import column_types, cursor_column, history_check, planning, row_width, slice_size, window_sql
from pg_bronze.core.planning import NewGeneration, Quiet, Read, TickState
from pg_bronze.core.table import SourceTable
from pg_bronze.core.value_policies import DEFAULT_POLICIES, ExceptionalCount, Policies
from pg_bronze.core.watermark import Leaf, Origin, Watermark
from pg_bronze.errors import NotUtf8, SettingsError, SliceTooLarge, SourceNotFit, Superseded, TableChanged
from pg_bronze.lake.claim import Claim
from pg_bronze.lake.footer import Footer, footer_of
from pg_bronze.lake.keys import Layout, next_time
from pg_bronze.lake.ledger import Committed, Ledger, Recovered, Step, ignore_step
from pg_bronze.lake.object_store import Store
from pg_bronze.lake.parquet import Codec, encode
from pg_bronze.postgres import catalog
from pg_bronze.postgres.connection import Source
from pg_bronze.postgres.control_table import Control, ControlRow, Mirrored
from pg_bronze.postgres.error_mapping import explain, explain_bad_texts
from pg_bronze.settings.process import return_freed_memory
from pg_bronze.sync import takeover
from pg_bronze.sync.column_history import ColumnHistory, ColumnSnapshot

if TYPE_CHECKING:
    import polars as pl


TABLE_CHANGED_TRIES = 3
END_AHEAD_S = 10.0
INTERRUPTED_WITHIN_S = 0.5
BULKY_ROW_BYTES = 256 * 1024


return_freed_memory()


@dataclass(frozen=True)
class SyncOptions:
    """What is settable for one table; ``slice_rows`` None leaves it to ``slice_bytes``.

    ``unfenced``: the bucket may ignore create-only writes, so every outcome says that rows may be doubled.
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


@dataclass
class Slice:
    """One object about to be written: its claim, its rows as they will be stored, and how it came to be.

    ``frame`` is empty once they are encoded: two slices and their encodings are in memory at a time as it is.
    """

    claim: Claim
    frame: "pl.DataFrame"
    look: ColumnSnapshot
    redo: bool = False
    seconds: float = 0.0
    exceptional: tuple[ExceptionalCount, ...] = ()
    row_count: int = field(init=False)
    bulky: bool = field(init=False)

    def __post_init__(self) -> None:
        self.row_count = self.frame.height
        # Encoding takes seven times the largest value for a while, so beside it nothing else is read.
        self.bulky = self.frame.estimated_size() > BULKY_ROW_BYTES * max(1, self.frame.height)

    def encoded(self, footer: Footer, codec: Codec) -> bytes:
        """The Parquet bytes; the frame is given up."""
        body = encode(self.frame, footer, codec)
        self.frame = self.frame.clear()
        return body


class SliceStream:
    """The slices of one table in one run, read lazily, one ahead of the one being committed.

    Iterate, and ``commit`` each slice before asking for the next. ``watermark`` is the state after the last commit.
    """

    def __init__(self, copy: "TableSync", recovered: Recovered, watermark: Watermark, first: Slice | None) -> None:
        self.copy = copy
        self.adopted = recovered.adopted
        self.rebuilt = recovered.rebuilt
        self.watermark = watermark
        self.committed: list[Committed] = []
        self._first = first
        self._superseded = False
        self._only_first = False

    def __iter__(self) -> Iterator[Slice]:
        current = self._first
        ahead: Future[Slice | None] | None = None
        pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead")
        try:
            while current is not None:
                if self._only_first:
                    yield current
                    return
                ahead = None
                if not current.bulky:
                    ahead = pool.submit(self.copy.next_slice, current.claim.after)
                yield current
                if ahead is not None and self.watermark == current.claim.after:
                    current = _outcome(ahead).result()
                    continue
                if ahead is not None:
                    # Another writer's object ended elsewhere than planned: what was read ahead does not fit.
                    _discard(ahead)
                if self._superseded:
                    return
                current = self.copy.next_slice(self.watermark)
        except BaseException:
            # An interrupt, or nobody asks for the next slice any more: the read ahead must not go on without us.
            self._end(ahead)
            raise
        finally:
            pool.shutdown(wait=False)

    def _end(self, ahead: "Future[Slice | None] | None") -> None:
        if ahead is None or ahead.cancel():
            return
        deadline = time.monotonic() + END_AHEAD_S
        while not ahead.done() and time.monotonic() < deadline:
            self.copy.source.stop_reading()
            wait([ahead], 0.1)

    def commit(self, piece: Slice) -> Committed | None:
        """Make a slice an object; None if another writer was first: its objects are adopted and the stream ends."""
        try:
            committed = self.copy.commit(piece)
        except Superseded:
            recovered = self.copy.objects.recover(self.watermark if self.watermark.seq else None, self.copy.now())
            self.adopted = (*self.adopted, *recovered.adopted)
            self.watermark = recovered.watermark or self.watermark
            self._superseded = True
            return None
        self.committed.append(committed)
        self.watermark = committed.watermark
        return committed

    def without_new(self, keep_first: bool = False) -> Self:
        """The same outcome without reading on: what was adopted or claimed is recorded, and nothing new is copied."""
        if self._first is not None and not self._first.redo and not keep_first:
            self._first = None
        self._only_first = True
        return self

    @property
    def drift(self) -> tuple[str, ...]:
        """What changed in the table before or between these slices, one sentence each, in order."""
        return tuple(sentence for item in (*self.adopted, *self.committed) for sentence in item.drift)

    @property
    def reason(self) -> str | None:
        """Why the first object exists, if it is not for its rows."""
        return self._first.claim.reason if self._first else None

    @property
    def row_count(self) -> int:
        """Rows committed by this stream or adopted from an earlier attempt."""
        return sum(item.row_count for item in (*self.adopted, *self.committed))


def _discard(ahead: "Future[Slice | None]") -> None:
    if not ahead.cancel():
        _outcome(ahead)


def _outcome(ahead: "Future[Slice | None]") -> "Future[Slice | None]":
    """Wait for a read ahead, whatever becomes of it, and notice an interrupt meanwhile.

    Polars has signals restart what they interrupt, so a wait without a time limit would end with the read only.
    """
    while True:
        with contextlib.suppress(TimeoutError):
            ahead.exception(INTERRUPTED_WITHIN_S)
            return ahead


class TableSync:
    """Copies one table as far as one horizon.

    Use as a context manager: the table's advisory lock is held inside. ``now`` gives the present as aware UTC;
    ``on_step`` is called after each step of a commit.
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
        self.table = table.with_policies(options.policies)
        self.options = options
        self.control = control or Control(None)
        self.now = now
        self.on_step = on_step
        self.layout = Layout(store.prefix, table.schema, table.name, "date" if options.dated else "flat")
        self.objects = Ledger(store, self.layout, options.codec, on_step)
        self._columns = ColumnHistory(source, self.objects, options.cursor_names, options.cursor_column)
        self.label = table.label
        self.cursor_column: cursor_column.CursorColumn | None = None
        self.horizon = 0
        self.generation = -1
        self.place: Origin | None = None
        self._size = slice_size.SliceSize(1, 1, 1)
        self._outlook = TickState()
        self._locked = False
        self._mirrored_before: str | None = None

    def __enter__(self) -> Self:
        self._locked = self.source.try_lock(self.table.oid)
        return self

    def __exit__(self, *_: object) -> None:
        if self._locked:
            self.source.unlock(self.table.oid)

    def start(self, recorded: Watermark | None, new: bool = True) -> SliceStream | Quiet:
        """Recover, look, plan and read the first slice; Quiet if there is nothing to commit or record.

        ``recorded`` is the watermark of the latest materialization, None if it has none. Without ``new`` nothing is
        read but what another writer claimed and left.
        """
        if not self._locked:
            return Quiet("another run is copying it just now")
        if recorded is not None and recorded.origin.bucket != self.store.place:
            raise history_check.bucket_changed(recorded, self.store.place, self.label)
        recovered = self.objects.recover(recorded, self.now())
        self.on_step("recover")
        # After the watermark is known: the other order takes what another writer committed in between for a restore.
        self.place = place = self.source.place(self.store.place)
        watermark = recovered.watermark
        if watermark is None and recovered.redo is not None:
            watermark = recovered.redo.before
        self.generation = watermark.generation if watermark else -1
        if watermark is not None:
            history_check.check_origin(watermark, place, self.label, self.source.standby)
            if watermark.generation:
                self.objects.move_old(watermark)
        newest = recovered.redo.after if recovered.redo else watermark
        self.horizon = self.source.horizon(at_least=newest.highest_horizon if newest else None)
        self._look()
        if watermark is None:
            watermark = self._beginning(recovered.foreign_key)
        # Whoever wrote what was adopted may have ended before the control row was written.
        self._mirrored_before = None if recovered.adopted else watermark.cursor
        first = self._again(recovered.redo) if recovered.redo else self.next_slice(watermark) if new else None
        if first is None and not recovered.adopted and not recovered.rebuilt:
            return Quiet(f"no new row up to transaction {self.horizon}")
        if first is not None and recovered.watermark is not None:
            self.objects.look_back(recovered.watermark, self.now())
        return SliceStream(self, recovered, watermark, first)

    def reset(self, recorded: Watermark | None, reason: str = "reset on request") -> SliceStream:
        """Forget the watermark on purpose: the next tick copies the whole table into a new generation."""
        return self._state_change(recorded, reason, self._forgotten)

    def resume(self, recorded: Watermark | None, reason: str = "continued on request") -> SliceStream:
        """Accept the database or bucket as it is now as the continuation of the watermark's."""
        return self._state_change(recorded, reason, lambda watermark: watermark)

    def resume_from(self, recorded: Watermark | None, reason: str) -> SliceStream:
        """Accept the database as it is now, all that was copied below ``horizon`` being in the lake; see ``live_rows``.

        Where transaction ids went back, those handed out again are read; where they did not, copying goes on.
        """

        def back(watermark: Watermark) -> Watermark:
            swept = {oid: leaf.swept for oid, leaf in watermark.leaves.items() if leaf.swept is not None}
            return watermark.with_leaves({oid: Leaf(swept=min(upto, self.horizon)) for oid, upto in swept.items()})

        return self._state_change(recorded, reason, back)

    def _state_change(
        self, recorded: Watermark | None, reason: str, change: Callable[[Watermark], Watermark]
    ) -> SliceStream:
        self.place = place = self.source.place(self.store.place)
        elsewhere = recorded is not None and recorded.origin.bucket != place.bucket
        recovered = self.objects.recover(None if elsewhere else recorded, self.now(), allow_gaps=True)
        claimed = recovered.redo.before if recovered.redo else None
        watermark = recovered.watermark or recorded or claimed
        if watermark is None:
            raise SettingsError(f"{self.label}: nothing of it has been copied yet, so there is nothing to change.")
        if elsewhere and recovered.watermark is None:
            watermark = dataclasses.replace(watermark, key="", columns_key="", columns_digest="")
        self._look()
        after = change(dataclasses.replace(watermark, origin=place))
        piece = self._empty(watermark, after, reason)
        if recovered.redo:
            # A claim left open has taken the number: its object becomes the change, and its rows are read later.
            key = recovered.redo.after.key
            numbered = piece.claim.after
            anew = numbered.generation != watermark.generation
            after = dataclasses.replace(numbered, key=key, first_key=key if anew else numbered.first_key)
            after = piece.look.onto(after, watermark)
            piece = dataclasses.replace(piece, claim=dataclasses.replace(piece.claim, after=after), redo=True)
        return SliceStream(self, recovered, watermark, piece)

    def live_rows(self) -> "Iterator[pl.DataFrame]":
        """The table's rows below a new ``horizon``, in frames as slices are; nothing is committed.

        Raises TableChanged if the table is rewritten meanwhile.
        """
        self.source.forget_horizon()
        self.place = self.source.place(self.store.place)
        self.horizon = self.source.horizon()
        self._look()
        state = Watermark(self.place, self.table.oid)
        while (piece := self.next_slice(state)) is not None:
            if piece.claim.after.generation != state.generation:
                raise TableChanged(f"{self.label}: it was rewritten while it was read. Try again.")
            yield piece.frame
            state = piece.claim.after

    def nothing(self, recorded: Watermark | None) -> SliceStream:
        """A stream without a slice, which only carries the watermark on."""
        recovered = self.objects.recover(recorded, self.now())
        watermark = recovered.watermark or self._beginning(recovered.foreign_key)
        return SliceStream(self, recovered, watermark, None)

    def next_slice(self, watermark: Watermark) -> Slice | None:
        """Plan and read the next slice after a committed watermark; None when the table is copied up to the horizon.

        Empty windows only advance what is planned next, until a row or the end of a pending window commits them.
        """
        ahead, changed = watermark, 0
        while True:
            step = planning.plan(ahead, self.table, self.horizon, self.source.standby, self._size, self._outlook)
            if isinstance(step, Quiet):
                if planning.due_for_heartbeat(watermark, self.table, self.horizon):
                    return self._empty(watermark, ahead, "a quiet table's window is closed long before ids wrap around")
                return None
            if isinstance(step, NewGeneration) and ahead is not watermark:
                # What was rewritten is a window of which nothing is committed yet: begin it again.
                ahead = watermark
                continue
            if isinstance(step, NewGeneration):
                return self._empty(watermark, self._forgotten(watermark), step.reason)
            started, table = time.monotonic(), self.table
            try:
                found = self._read(step.region)
            except TableChanged:
                if self._look() == table.fingerprint:
                    raise
                found = None
            if self._look() != table.fingerprint:
                found = None  # or its rows would stay in memory while they are read again
                changed += 1
                if changed >= TABLE_CHANGED_TRIES:
                    raise TableChanged(
                        f"{self.label}: it was altered {changed} times while it was read; the next tick tries again."
                    )
                continue
            if found is None:
                pages = sum(item.page_count for item in self.table.relations if item.oid in step.region.leaves)
                self._size = self._size.halved(pages)
                self._outlook = dataclasses.replace(
                    self._outlook, by_blocks=self._outlook.by_blocks | set(step.region.leaves)
                )
                continue
            frame, exceptional = found
            if step.region.blocks is not None:
                self._size = self._size.adjusted(frame.height, int(frame.estimated_size()))
            if frame.height == 0 and not step.must_commit:
                ahead = step.after
                blocks = self._size.blocks if step.region.blocks and not self._size.lines else 0
                self._outlook = dataclasses.replace(
                    self._outlook, uncommitted_blocks=self._outlook.uncommitted_blocks + blocks
                )
                continue
            self._outlook = dataclasses.replace(self._outlook, uncommitted_blocks=0)
            self.on_step("read")
            piece = self._slice(watermark, step, frame, table, time.monotonic() - started)
            return dataclasses.replace(piece, exceptional=exceptional)

    def _read(self, region: window_sql.Region) -> "tuple[pl.DataFrame, tuple[ExceptionalCount, ...]] | None":
        """What ``schema.conform`` gives for a region; None if its rows are too many for one slice and can be split."""
        names, columns, limit = self.table.names_by_attnum, self.table.columns, self._size.byte_limit
        splittable = region.blocks is None or not self._size.is_single_row
        fits = not splittable or slice_size.certainly_fits(self.table, region, limit)
        widths = [] if fits else row_width.width_expressions(columns)
        bound = None
        if widths and region.blocks is None and region.start is not None:
            bound = window_sql.ByteLimit(limit, widths)
        elif widths:
            rows, size_bytes = self.source.measure(window_sql.measure(region, widths, names), self.label)
            if rows > self._size.row_limit or (size_bytes > limit and rows > 1):
                return None
        row_limit = self._size.row_limit + 1 if splittable else None
        query = window_sql.select(
            region, column_types.projection(columns), column_types.xid_column(columns), names, row_limit, bound
        )
        try:
            frame = self._rows(region, query)
        except SliceTooLarge:
            return None
        if row_limit is not None and frame.height >= row_limit:
            return None
        return column_types.conform(frame, columns, self.label)

    def _rows(self, region: window_sql.Region, query: str) -> "pl.DataFrame":
        try:
            return self.source.read(query, self.label)
        except NotUtf8 as error:
            # The server does not say in which column, and connectorx repeats no more than the bytes.
            texts = [
                name for name, dtype in column_types.read_schema(self.table.columns).items() if str(dtype) == "String"
            ]
            asked = window_sql.not_utf8(region, texts, self.table.names_by_attnum)
            found = dict(zip(texts, self.source.measure(asked, self.label), strict=True))
            if bad := {name: count for name, count in found.items() if count}:
                raise explain_bad_texts(self.label, bad) from error
            raise

    def _slice(
        self, watermark: Watermark, step: Read, frame: "pl.DataFrame", table: SourceTable, seconds: float
    ) -> Slice:
        look = self._columns.look(watermark, step.after, table)
        found = cursor_column.newest_value(frame, self.cursor_column) if self.cursor_column else None
        highest = self._highest(None if look.cursor_moved else watermark.cursor, found)
        after = self._numbered(watermark, dataclasses.replace(step.after, cursor=highest), look)
        nodes = {item.oid: item.relfilenode for item in table.relations if item.oid in step.region.leaves}
        claim = Claim(secrets.token_hex(8), watermark, after, step.region, nodes)
        return Slice(claim, frame, look, seconds=seconds)

    def _highest(self, known: str | None, found: str | None) -> str | None:
        """The later of two cursor values. A value of the column followed before says nothing about this one."""
        if self.cursor_column is None:
            return known
        try:
            return cursor_column.later_value(known, found, self.cursor_column)
        except (ArithmeticError, ValueError):
            return found

    def _again(self, claim: Claim) -> Slice:
        """Do a claimed slice again: same region, same key, and an object even if no row is left.

        It gets the columns of now, and its watermark says so, whatever the claim said of them.
        """
        look = self._columns.look(claim.before, claim.after, self.table)
        claim = dataclasses.replace(claim, after=look.onto(claim.after, claim.before))
        if claim.region is None:
            return Slice(claim, self.no_rows(), look, redo=True)
        found = {item.oid: item for item in self.table.relations}
        moved = claim.region.blocks is not None and any(
            oid not in found or found[oid].relfilenode != node for oid, node in claim.relfilenodes.items()
        )
        gone = self.table.oid != claim.after.table or any(oid not in found for oid in claim.region.leaves)
        if moved or gone:
            return self._given_up(claim, "the table was rewritten, dropped or detached meanwhile")
        # By the name it has now: a renamed leaf is still the same leaf.
        named = found[claim.region.leaves[0]] if claim.region.only else self.table
        region = dataclasses.replace(claim.region, schema=named.schema, name=named.name)
        names, columns = self.table.names_by_attnum, self.table.columns
        started = time.monotonic()
        try:
            query = window_sql.select(
                region, column_types.projection(columns), column_types.xid_column(columns), names, None
            )
        except KeyError:
            return self._given_up(claim, "a column that bounds it was dropped meanwhile")
        table = self.table
        frame, exceptional = column_types.conform(self._rows(region, query), columns, self.label)
        if self._look() != table.fingerprint:
            raise TableChanged(
                f"{self.label}: it was altered while a claimed slice was read again; the next tick tries again."
            )
        return Slice(claim, frame, look, True, time.monotonic() - started, exceptional)

    def _given_up(self, claim: Claim, why: str) -> Slice:
        """What a claim becomes that nobody can do again: an empty object under its key, and a new first load."""
        seq, key = claim.after.seq, claim.after.key
        after = dataclasses.replace(self._forgotten(claim.before), seq=seq, key=key, first_key=key)
        look = self._columns.look(claim.before, after, self.table)
        after = look.onto(after, claim.before)
        reason = f"a claimed slice cannot be read again: {why}"
        return Slice(dataclasses.replace(claim, after=after, region=None, reason=reason), self.no_rows(), look, True)

    def commit(self, piece: Slice) -> Committed:
        """Write one slice; see ``commit.Ledger.commit``."""
        look, source = piece.look, self.source
        footer = footer_of(
            piece.claim,
            piece.row_count,
            look.description,
            source.server_version,
            source.database(),
            piece.exceptional,
            look.drift,
        )
        body = piece.encoded(footer, self.options.codec)
        committed = self.objects.commit(piece.claim, body, footer, piece.redo)
        if committed.watermark.generation != piece.claim.before.generation:
            self.objects.move_old(committed.watermark)
        return committed

    def mirror(self, watermark: Watermark) -> Mirrored:
        """Write the table's control row; call it once the watermark is recorded."""
        column = self.cursor_column.name if self.cursor_column else None
        try:
            return self.control.mirror(ControlRow(self.label, watermark.cursor, column), self._mirrored_before)
        except psycopg.Error as error:
            raise explain(error, "etl_control") from error

    def _look(self) -> str:
        """Look at the table as it is now; gives its fingerprint."""
        try:
            with self.source.session() as connection:
                table = catalog.read_table(connection, self.table.schema, self.table.name)
        except psycopg.Error as error:
            raise explain(error, self.label) from error
        if table is None:
            raise TableChanged(
                f"{self.label}: the table is not there any more; the catalog is read again within a minute."
            )
        if table.skipped:
            raise SourceNotFit(f"{self.label} cannot be copied: {table.skipped}.")
        if table.fingerprint != self.table.fingerprint or self.cursor_column is None:
            self.cursor_column = cursor_column.choose(table, self.options.cursor_names, self.options.cursor_column)
        if self._size.byte_limit == 1:
            self._size = slice_size.initial_size(table, self.options.slice_rows, self.options.slice_bytes)
        self.table = table.with_policies(self.options.policies)
        return table.fingerprint

    def _beginning(self, foreign_key: str) -> Watermark:
        place = self.place or self.source.place(self.store.place)
        uri = self.store.uri(foreign_key) if foreign_key else ""
        try:
            row = self.control.last_value(self.label)
        except psycopg.Error as error:
            raise explain(error, "etl_control") from error
        seed = takeover.decide(self.source, self.table, row, uri, self.options.takeover)
        started = Watermark(place, self.table.oid, key=foreign_key)
        return started if seed is None else dataclasses.replace(started, seed=seed, cursor=seed.value)

    def _forgotten(self, watermark: Watermark) -> Watermark:
        return dataclasses.replace(
            watermark,
            table=self.table.oid,
            generation=watermark.generation + 1,
            cursor=None,
            seed=None,
            leaves=MappingProxyType({}),
        )

    def _numbered(self, before: Watermark, after: Watermark, look: ColumnSnapshot) -> Watermark:
        """``after`` with the number, key and columns of the object that will commit it, and the present place."""
        key = self.layout.key(next_time(self.now(), self.layout.time(before.key)))
        opened = key if after.generation != before.generation else after.first_key
        numbered = dataclasses.replace(
            after, origin=self.place or after.origin, seq=before.seq + 1, key=key, first_key=opened
        )
        return look.onto(numbered, before)

    def _empty(self, before: Watermark, after: Watermark, reason: str) -> Slice:
        look = self._columns.look(before, after, self.table)
        claim = Claim(secrets.token_hex(8), before, self._numbered(before, after, look), None, {}, reason)
        return Slice(claim, self.no_rows(), look)

    def no_rows(self) -> "pl.DataFrame":
        """A frame as this table's slices are, without a row."""
        return column_types.empty_slice(self.table.columns)
