"""The copier as a scheduler drives it, and the comparison of what landed with the source, value by value."""

import io
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

import polars as pl
import psycopg

from pg_bronze.core.planning import Quiet
from pg_bronze.core.table import quote
from pg_bronze.core.value_policies import DATE_INFINITY, TIMESTAMP_INFINITY
from pg_bronze.core.watermark import Watermark
from pg_bronze.errors import TransientError
from pg_bronze.lake.commit import SliceWriter, ignore_step, write_all
from pg_bronze.lake.footer import ENTRY, Footer
from pg_bronze.lake.keys import Layout
from pg_bronze.lake.ledger import Committed, Ledger
from pg_bronze.lake.object_store import Store
from pg_bronze.lake.parquet import Codec
from pg_bronze.lake.reading import scan
from pg_bronze.postgres import catalog
from pg_bronze.postgres.connection import Source
from pg_bronze.postgres.control_table import Control, Mirrored
from pg_bronze.postgres.error_mapping import explain
from pg_bronze.sync.options import SyncOptions
from pg_bronze.sync.table_sync import TableSync

READERS = ("connectorx", "copy")
STEPS = ("recover", "read", "claim", "list", "put", "unclaim")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Crash(BaseException):
    """The process dies here: nothing of ours may catch it and carry on."""


class NoLock(TableSync):
    """A writer on a server or behind a pooler where the advisory lock does not hold: only the claim keeps order."""

    def __enter__(self):
        self.locked = True
        return self

    def __exit__(self, *_):
        pass


def crash_after(step: str, time: int = 1) -> Callable[[str], None]:
    """An ``on_step`` that dies the ``time``-th time a step is done."""
    left = [time]

    def on_step(name: str) -> None:
        if name == step:
            left[0] -= 1
            if left[0] == 0:
                raise Crash(step)

    return on_step


def once_after(step: str, act: Callable[[], object]) -> Callable[[str], None]:
    """An ``on_step`` that calls ``act`` after the first time a step is done."""
    left = [act]

    def on_step(name: str) -> None:
        if name == step and left:
            left.pop()()

    return on_step


@dataclass
class Outcome:
    """What one tick did. ``quiet`` is the sentence of a tick that had nothing to do, else None."""

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


@dataclass(frozen=True)
class Difference:
    """Lake against source. Every count must be 0.

    lost: live rows whose key the lake does not know. stale: live rows whose present version it does not hold, values
    included. doubled: copies of a row version beyond those in the source. wrong_latest: keys whose highest ``_pg_xid``
    is not the live version.
    """

    lost: int = 0
    stale: int = 0
    doubled: int = 0
    wrong_latest: int = 0

    def __add__(self, other: "Difference") -> "Difference":
        return Difference(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


SAME = Difference()


@dataclass
class Lake:
    """One database copied into one bucket, and the watermarks a scheduler would have recorded."""

    database: Any
    store: Store
    recorded: dict[str, Watermark | None] = field(default_factory=dict)
    control: Control | None = None
    copier: type[TableSync] = TableSync
    reader: Literal["auto", "connectorx", "copy"] = "auto"

    def source(self) -> Source:
        return Source(self.database.conninfo, self.database.url, 60, self.reader)

    def open(self, source: Source, table: str = "movie", *, now=None, on_step=None, dated=False, codec=None, **options):
        """The ``TableSync`` of one table, not entered yet."""
        schema, name = split(table)
        try:
            found = catalog.read_table(source.connection, schema, name)
        except psycopg.Error as error:  # on a standby even this may be cancelled; the product says it the same way
            raise explain(error, table) from error
        assert found is not None, f"no table {table}"
        given: dict[str, Any] = {} if now is None else {"now": now}
        if on_step is not None:
            given["on_step"] = on_step
        wanted = SyncOptions(dated=dated, codec=codec or Codec(), **options)
        return self.copier(source, self.store, found, wanted, self.control, **given)

    def tick(self, table: str = "movie", *, crash_at: str | Callable[[str], None] | None = None, act=None, **options):
        """One tick as a scheduler runs it: the watermark is recorded after the stream has ended, or not at all.

        ``crash_at`` ends it in a Crash after that step. ``act`` starts something else than an ordinary copy
        (``state_changes.reset``, ``state_changes.resume``).
        """
        on_step = crash_after(crash_at) if isinstance(crash_at, str) else crash_at
        with self.source() as source, self.open(source, table, on_step=on_step, **options) as sync:
            recorded = self.recorded.get(table)
            if act:
                committed = act(sync, recorded, self.writer(sync, on_step))
                self.recorded[table] = committed.watermark
                return Outcome(None, (), [committed], committed.watermark)
            stream = sync.start(recorded)
            if isinstance(stream, Quiet):
                return Outcome(quiet=stream.reason, watermark=recorded)
            report = write_all(stream.slices(), self.writer(sync, on_step))
            self.recorded[table] = report.watermark
            mirrored = sync.mirror(report.watermark) if self.control else None
            return Outcome(None, tuple(report.adopted), list(report.committed), report.watermark, mirrored)

    def writer(self, sync: TableSync, on_step: Callable[[str], None] | None = None) -> SliceWriter:
        """Return the writer of a table's slices, as the IO manager has one."""
        return SliceWriter(Ledger(self.store, sync.layout), sync.options.codec, on_step or ignore_step)

    def crash(self, step: str | Callable[[str], None], table: str = "movie", **options) -> bool:
        """A tick that dies after a step; False if it never came to that step."""
        try:
            self.tick(table, crash_at=step, **options)
        except Crash:
            return True
        return False

    def drain(self, table: str = "movie", *, patience: int = 0, **options) -> list[Outcome]:
        """Tick until a tick that began after the horizon had passed everything is quiet.

        So many ticks as ``patience`` may fail with what the next one may retry.
        """
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
        raise AssertionError(f"{table} does not become quiet")

    def forget(self, table: str = "movie") -> None:
        """Lose what the scheduler recorded: the state has to come from the footers alone."""
        self.recorded.pop(table, None)

    def layout(self, table: str = "movie") -> Layout:
        return Layout(self.store.prefix, *split(table))

    def keys(self, table: str = "movie") -> list[str]:
        """The keys of the table's objects, oldest first, of whatever generation."""
        return scan.keys(self.store, self.layout(table))

    def all_keys(self, prefix: str = "") -> list[str]:
        return [item.key for item in self.store.list(prefix)]

    def footers(self, table: str = "movie"):
        """The footers of the table's objects, oldest first."""
        objects = Ledger(self.store, self.layout(table))
        return [objects.footer(key) for key in self.keys(table)]

    def held(self, table: str = "movie") -> list[tuple[Footer, pl.DataFrame]]:
        """Footer and rows of each object of the newest generation, oldest first."""
        bodies = [(key, self.store.get(key) or b"") for key in self.keys(table)]
        ours = [(footer, body) for key, body in bodies if (footer := _footer(key, body))]
        newest = max((footer.after.generation for footer, _ in ours), default=0)
        return [
            (footer, pl.read_parquet(io.BytesIO(body))) for footer, body in ours if footer.after.generation == newest
        ]

    def frames(self, table: str = "movie") -> list[pl.DataFrame]:
        """One frame for each object of the newest generation, oldest first."""
        return [frame for _, frame in self.held(table)]

    def old_generations(self, table: str = "movie") -> dict[int, list[str]]:
        """The keys of the objects that were moved away, by their generation."""
        found: dict[int, list[str]] = defaultdict(list)
        folder = self.layout(table).old("", 0).partition("gen=")[0]
        for key in self.all_keys(folder):
            found[int(key.removeprefix(f"{folder}gen=").partition("/")[0])].append(key)
        return dict(found)

    def doubled(self, keys: Iterable[str], key: str) -> int:
        """Copies of a row version beyond the first, in objects of one generation; ``key`` is its primary key.

        What the source held then is not known any more, but one transaction leaves no two versions of one key.
        """
        count: Counter = Counter()
        for name in keys:
            frame = pl.read_parquet(io.BytesIO(self.store.get(name) or b""))
            count.update(frame.select(key, frame.columns[-1]).iter_rows())
        return count.total() - len(count)

    def rows(self, table: str = "movie") -> pl.DataFrame:
        """The newest generation of a table as one frame."""
        frames = self.frames(table)
        return pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame()

    def versions(self, table: str, attnums: list[int]) -> list[tuple]:
        """``(xid, *values)`` of every row of the newest generation, as PostgreSQL's texts.

        A column is followed by its number through renames; where a slice is older than it, its rows hold the value that
        the first footer with the column says they have.
        """
        objects = self.held(table)
        footers = [footer for footer, _ in objects]
        described = [{column["attnum"]: column for column in footer.columns} for footer in footers]
        missing = {
            attnum: next((columns[attnum].get("missing") for columns in described if attnum in columns), None)
            for attnum in attnums
        }
        held: list[tuple] = []
        for (footer, frame), columns in zip(objects, described, strict=True):
            values = [
                texts(frame[columns[attnum]["name"]]) if attnum in columns else [missing[attnum]] * frame.height
                for attnum in attnums
            ]
            held += zip(frame[footer.xid_column].to_list(), *values, strict=True)
        return held

    def column(self, name: str = "movie_id", table: str = "movie") -> list[Any]:
        """One column of what landed, sorted, NULL last."""
        values = self.rows(table)[name].to_list()
        return [*sorted(value for value in values if value is not None), *[v for v in values if v is None]]

    def compare(self, table: str = "movie", key: str | None = "movie_id") -> Difference:
        """What landed against the table as it is now; ``key`` None means that whole rows are their own key."""
        schema, name = split(table)
        with self.database.connect() as connection:
            connection.execute("set timezone = 'UTC'; set datestyle = 'ISO'")
            found = catalog.read_table(connection, schema, name)
            columns = [column.name for column in found.columns]
            shown = ", ".join(f"{quote(column)}::text" for column in columns)
            only = "" if found.partitioned else "only "
            live = connection.execute(
                f"select xmin::text::bigint, {shown} from {only}{quote(schema)}.{quote(name)}".encode()
            ).fetchall()
        held = self.versions(table, [column.attnum for column in found.columns])
        return difference(live, held, columns.index(key) + 1 if key else None)


def _footer(key: str, body: bytes) -> Footer | None:
    """The footer of an object in hand; None if it is not one of pg_bronze's."""
    try:
        text = pl.read_parquet_metadata(io.BytesIO(body)).get(ENTRY)
    except pl.exceptions.PolarsError:
        return None
    return Footer.from_text(text, key) if text is not None else None


def difference(live: Iterable[tuple], held: Iterable[tuple], key: int | None) -> Difference:
    """Both sides are rows ``(xid, *values)``: live with 32-bit ids, held with 64-bit ones."""
    live_count = Counter(live)
    held_count: Counter = Counter()
    newest: dict[Any, int] = {}
    by_key: dict[Any, set] = defaultdict(set)
    for xid, *values in held:
        version = (xid % 2**32, *values)
        held_count[version] += 1
        name = tuple(values) if key is None else values[key - 1]
        if xid > newest.get(name, -1):
            newest[name], by_key[name] = xid, set()
        if xid == newest[name]:
            by_key[name].add(version)
    lost = stale = wrong = 0
    for version, count in live_count.items():
        name = tuple(version[1:]) if key is None else version[key]
        if name not in newest:
            lost += count
        elif held_count[version] < count:
            stale += 1
        if name in newest and version not in by_key[name]:
            wrong += key is not None
    doubled = sum(max(0, count - max(1, live_count[version])) for version, count in held_count.items())
    return Difference(lost, stale, doubled, wrong)


def texts(series: pl.Series) -> list[str | None]:
    """A column of the lake in the text PostgreSQL would print for it (UTC, ISO)."""
    if isinstance(series.dtype, pl.Datetime):
        zone = "+00" if series.dtype.time_zone else ""
        return [_moment(value, TIMESTAMP_INFINITY, 1, zone) for value in series.to_physical().to_list()]
    if series.dtype == pl.Date:
        return [_moment(value, DATE_INFINITY, 86_400_000_000, None) for value in series.to_physical().to_list()]
    return [_text(value) for value in series.to_list()]


def _moment(value: int | None, infinity: tuple[int, int], unit_us: int, zone: str | None) -> str | None:
    if value is None:
        return None
    if value in infinity:
        return "infinity" if value == infinity[1] else "-infinity"
    moment = EPOCH + timedelta(microseconds=value * unit_us)
    if zone is None:
        return f"{moment:%Y-%m-%d}"
    text = moment.replace(tzinfo=None).isoformat(sep=" ")
    return (text.rstrip("0") if "." in text else text) + zone


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def split(table: str) -> tuple[str, str]:
    """``movie`` or ``sales:movie``; a colon, because names may hold dots, and the first one."""
    schema, colon, name = table.partition(":")
    return (schema, name) if colon else ("public", table)


def clock(start: datetime | None = None, step_s: float = 0.0) -> Callable[[], datetime]:
    """A clock of one's own: stands still, or goes on by ``step_s`` at every look."""
    moment = [start or datetime(2026, 1, 2, 0, 0, 10, tzinfo=UTC)]

    def now() -> datetime:
        found = moment[0]
        moment[0] += timedelta(seconds=step_s)
        return found

    return now


MOVIE = """create table movie (
  movie_id int primary key,
  title text,
  updated_at timestamptz default clock_timestamp(),
  price numeric(10,2)
)"""


def fill(first: int, last: int) -> str:
    """SQL that inserts films ``first`` to ``last``."""
    values = "i, 'film ' || i, clock_timestamp(), i / 100.0"
    return f"insert into movie select {values} from generate_series({first}, {last}) i"
