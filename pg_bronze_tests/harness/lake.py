"""The sync of tables as a scheduler runs it, and what it left in the lake."""

import io
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import polars as pl
import psycopg

from pg_bronze.core.band_rules import BandRules
from pg_bronze.core.planning import Quiet
from pg_bronze.core.table import quote
from pg_bronze.core.watermark import Watermark
from pg_bronze.errors import TransientError
from pg_bronze.lake.commit import SliceWriter, ignore_step, write_all
from pg_bronze.lake.footer import ENTRY, Footer
from pg_bronze.lake.keys import Layout
from pg_bronze.lake.ledger import Committed, Ledger
from pg_bronze.lake.object_store import Store
from pg_bronze.lake.parquet import Codec
from pg_bronze.lake.reading import scan
from pg_bronze.postgres import catalog, catalog_query
from pg_bronze.postgres.connection import Source
from pg_bronze.postgres.control_table import Control, Mirrored
from pg_bronze.sync.options import SyncOptions
from pg_bronze.sync.table_sync import TableSync
from pg_bronze_tests.harness.comparison import SAME, Difference, difference, texts

READERS = ("connectorx", "copy")
STEPS = ("recover", "read", "claim", "list", "put", "unclaim")
MOVIE = """create table movie (
  movie_id int primary key,
  title text,
  updated_at timestamptz default clock_timestamp(),
  price numeric(10,2)
)"""

__all__ = ["SAME", "Difference", "texts"]  # most tests import them together with the lake

# Divides even the smallest table, moves its floors often, and spreads a sweep over many ticks.
FORCED_BANDS = BandRules(one_band_s=0.0, share=0.05, chunk_s=0.002, chunk_blocks=40, rank=100, top_rows=400)


class Crash(BaseException):
    """The process is killed here. No product code may catch this and continue."""


class NoLock(TableSync):
    """A writer on a server, or behind a pooler, where the advisory lock does not hold: only the claim keeps order."""

    def __enter__(self):
        self.locked = True
        return self

    def __exit__(self, *_):
        pass


def crash_after(step: str, time: int = 1) -> Callable[[str], None]:
    """Return an ``on_step`` that raises Crash after a step was done ``time`` times."""
    left = [time]

    def on_step(name: str) -> None:
        if name == step:
            left[0] -= 1
            if left[0] == 0:
                raise Crash(step)

    return on_step


def once_after(step: str, act: Callable[[], object]) -> Callable[[str], None]:
    """Return an ``on_step`` that calls ``act`` when a step is done for the first time."""
    left = [act]

    def on_step(name: str) -> None:
        if name == step and left:
            left.pop()()

    return on_step


@dataclass
class Outcome:
    """What one tick did. ``quiet`` is the reason of a tick that had nothing to do, or None."""

    quiet: str | None = None
    adopted: tuple[Committed, ...] = ()
    committed: list[Committed] = field(default_factory=list)
    watermark: Watermark | None = None
    mirrored: Mirrored | None = None

    @property
    def row_count(self) -> int:
        return sum(item.row_count for item in (*self.adopted, *self.committed))

    @property
    def row_counts(self) -> list[int]:
        return [item.row_count for item in self.committed]


@dataclass
class Lake:
    """One database that is copied into one bucket, and the watermarks that a scheduler recorded."""

    database: Any
    store: Store
    recorded: dict[str, Watermark | None] = field(default_factory=dict)
    control: Control | None = None
    sync_class: type[TableSync] = TableSync
    reader: Literal["auto", "connectorx", "copy"] = "auto"
    bands: BandRules = field(default_factory=BandRules)
    progress: dict[str, Watermark | None] = field(default_factory=dict)

    def source(self) -> Source:
        """Return a source that is not connected yet; a database of a test session leaves its connection to the next."""
        if hasattr(self.database, "kept_source"):
            return self.database.kept_source(self.reader)
        return Source(self.database.conninfo, self.database.url, 60, self.reader)

    def open(self, source: Source, table: str = "movie", *, now=None, on_step=None, dated=False, codec=None, **options):
        """Return the ``TableSync`` of one table, which is not entered yet."""
        schema, name = split(table)
        try:
            found = catalog.read_table(source.connection, schema, name)
        except psycopg.Error as error:  # a standby may cancel even this query; the product explains it the same way
            raise source.explain(error, catalog_query.everything(), table) from error
        assert found is not None, f"no table {table}"
        arguments: dict[str, Any] = {} if now is None else {"now": now}
        if on_step is not None:
            arguments["on_step"] = on_step
        sync_options = SyncOptions(dated=dated, codec=codec or Codec(), **{"bands": self.bands, **options})
        return self.sync_class(source, self.store, found, sync_options, self.control, **arguments)

    def tick(self, table: str = "movie", *, crash_at: str | Callable[[str], None] | None = None, act=None, **options):
        """Run one tick as a scheduler does: the watermark is recorded after the stream has ended, or not at all.

        Args:
            crash_at: A step after which Crash is raised, or a function that is called with each step.
            act: A change of the watermark instead of a copy, such as ``state_changes.reset``.
            options: Settings by the names of ``SyncOptions``.
        """
        with self.source() as source:
            return self.copy(source, table, crash_at=crash_at, act=act, **options)

    def copy(self, source, table: str = "movie", *, crash_at=None, act=None, **options) -> Outcome:
        """Run one tick over a connection that is open; see ``tick``."""
        on_step = crash_after(crash_at) if isinstance(crash_at, str) else crash_at
        with self.open(source, table, on_step=on_step, **options) as sync:
            recorded = self.recorded.get(table)
            if act:
                committed = act(sync, recorded, self.writer(sync, on_step))
                self.recorded[table] = committed.watermark
                return Outcome(None, (), [committed], committed.watermark)
            stream = sync.start(recorded, self.progress.get(table))
            if isinstance(stream, Quiet):
                self.progress[table] = sync.watermark and sync.slices.progress_after(sync.watermark)
                return Outcome(quiet=stream.reason, watermark=recorded)
            report = write_all(stream.slices(), self.writer(sync, on_step))
            self.recorded[table] = report.watermark
            self.progress[table] = sync.slices.progress_after(report.watermark)
            mirrored = sync.mirror(report.watermark) if self.control else None
            return Outcome(None, tuple(report.adopted), list(report.committed), report.watermark, mirrored)

    def writer(self, sync: TableSync, on_step: Callable[[str], None] | None = None) -> SliceWriter:
        """Return the writer of a table's slices, as the IO manager has one."""
        return SliceWriter(Ledger(self.store, sync.layout), sync.options.codec, on_step or ignore_step)

    def crash(self, step: str | Callable[[str], None], table: str = "movie", **options) -> bool:
        """Run a tick that is killed after a step; return False if it never reached the step."""
        try:
            self.tick(table, crash_at=step, **options)
        except Crash:
            return True
        return False

    def drain(self, table: str = "movie", *, patience: int = 0, **options) -> list[Outcome]:
        """Run ticks until one is quiet that began after the horizon had passed all transactions.

        ``patience`` is how many ticks may fail with a TransientError. Tables with bands are swept in each tick.
        """
        options = {"bands": replace(self.bands, complete=True), **options}
        outcomes = []
        for _ in range(500):
            behind = self.database.execute(
                "select pg_snapshot_xmin(s) < pg_snapshot_xmax(s) from pg_current_snapshot() s"
            )[0][0]
            try:
                outcome = self.tick(table, **options)
            except TransientError:
                patience -= 1
                if patience < 0:
                    raise
                continue
            outcomes.append(outcome)
            if outcome.quiet and not behind:
                return outcomes
        raise AssertionError(f"{table} is not quiet after 500 ticks")

    def forget(self, table: str = "movie") -> None:
        """Lose what the scheduler recorded: only the footers contain the watermark."""
        self.recorded.pop(table, None)

    def layout(self, table: str = "movie") -> Layout:
        return Layout(self.store.prefix, *split(table))

    def keys(self, table: str = "movie") -> list[str]:
        """Return the keys in the table's folder, oldest first, of all generations."""
        return scan.keys(self.store, self.layout(table))

    def all_keys(self, prefix: str = "") -> list[str]:
        return [item.key for item in self.store.list(prefix)]

    def footers(self, table: str = "movie"):
        """Return the footers of the objects in the table's folder, oldest first."""
        ledger = Ledger(self.store, self.layout(table))
        return [ledger.footer(key) for key in self.keys(table)]

    def objects(self, table: str = "movie") -> list[tuple[Footer, pl.DataFrame]]:
        """Return footer and rows of each object of the newest generation, oldest first."""
        bodies = [(key, self.store.get(key) or b"") for key in self.keys(table)]
        ours = [(footer, body) for key, body in bodies if (footer := _footer(key, body))]
        newest = max((footer.after.generation for footer, _ in ours), default=0)
        return [
            (footer, pl.read_parquet(io.BytesIO(body))) for footer, body in ours if footer.after.generation == newest
        ]

    def frames(self, table: str = "movie") -> list[pl.DataFrame]:
        """Return one frame for each object of the newest generation, oldest first."""
        return [frame for _, frame in self.objects(table)]

    def old_generations(self, table: str = "movie") -> dict[int, list[str]]:
        """Return the keys of the objects that were moved away, by their generation."""
        found: dict[int, list[str]] = defaultdict(list)
        folder = self.layout(table).old("", 0).partition("gen=")[0]
        for key in self.all_keys(folder):
            found[int(key.removeprefix(f"{folder}gen=").partition("/")[0])].append(key)
        return dict(found)

    def doubled(self, keys: Iterable[str], key: str) -> int:
        """Count copies of a row version beyond the first, in objects of one generation.

        The rows of the source at that time are not known any more, but one transaction leaves only one version of a
        primary key.
        """
        count: Counter = Counter()
        for name in keys:
            frame = pl.read_parquet(io.BytesIO(self.store.get(name) or b""))
            count.update(frame.select(key, frame.columns[-1]).iter_rows())
        return count.total() - len(count)

    def rows(self, table: str = "movie") -> pl.DataFrame:
        """Return the newest generation of a table as one frame."""
        frames = self.frames(table)
        return pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame()

    def versions(self, table: str, attnums: list[int]) -> list[tuple]:
        """Return ``(xid, *values)`` of every row of the newest generation, as PostgreSQL's texts.

        A column is found by its attnum, whatever its name. Rows of slices older than the column have the value that the
        first footer with the column contains for them.
        """
        objects = self.objects(table)
        footers = [footer for footer, _ in objects]
        described = [{column["attnum"]: column for column in footer.columns} for footer in footers]
        missing = {
            attnum: next((columns[attnum].get("missing") for columns in described if attnum in columns), None)
            for attnum in attnums
        }
        copied: list[tuple] = []
        for (footer, frame), columns in zip(objects, described, strict=True):
            values = [
                texts(frame[columns[attnum]["name"]]) if attnum in columns else [missing[attnum]] * frame.height
                for attnum in attnums
            ]
            copied += zip(frame[footer.xid_column].to_list(), *values, strict=True)
        return copied

    def column(self, name: str = "movie_id", table: str = "movie") -> list[Any]:
        """Return one column of the newest generation, sorted, NULL last."""
        values = self.rows(table)[name].to_list()
        return [*sorted(value for value in values if value is not None), *[v for v in values if v is None]]

    def compare(self, table: str = "movie", key: str | None = "movie_id") -> Difference:
        """Compare the newest generation with the table as it is now; without a ``key``, whole rows are compared."""
        schema, name = split(table)
        with self.database.session() as connection:
            connection.execute("set timezone = 'UTC'; set datestyle = 'ISO'")
            found = catalog.read_table(connection, schema, name)
            columns = [column.name for column in found.columns]
            shown = ", ".join(f"{quote(column)}::text" for column in columns)
            only = "" if found.partitioned else "only "
            live = connection.execute(
                f"select xmin::text::bigint, {shown} from {only}{quote(schema)}.{quote(name)}".encode()
            ).fetchall()
        copied = self.versions(table, [column.attnum for column in found.columns])
        return difference(live, copied, columns.index(key) + 1 if key else None)


def _footer(key: str, body: bytes) -> Footer | None:
    """Return the footer of an object; None if pg_bronze did not write it."""
    try:
        text = pl.read_parquet_metadata(io.BytesIO(body)).get(ENTRY)
    except pl.exceptions.PolarsError:
        return None
    return Footer.from_text(text, key) if text is not None else None


def split(table: str) -> tuple[str, str]:
    """Divide ``movie`` or ``sales:movie`` at the first colon; names may contain dots."""
    schema, colon, name = table.partition(":")
    return (schema, name) if colon else ("public", table)


def clock(start: datetime | None = None, step_s: float = 0.0) -> Callable[[], datetime]:
    """Return a clock that does not move, or that advances by ``step_s`` each time it is read."""
    moment = [start or datetime(2026, 1, 2, 0, 0, 10, tzinfo=UTC)]

    def now() -> datetime:
        current = moment[0]
        moment[0] += timedelta(seconds=step_s)
        return current

    return now


def fill(first: int, last: int) -> str:
    """Return SQL that inserts films ``first`` to ``last``."""
    values = "i, 'film ' || i, clock_timestamp(), i / 100.0"
    return f"insert into movie select {values} from generate_series({first}, {last}) i"
