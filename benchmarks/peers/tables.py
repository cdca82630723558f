"""The tables that are copied: their statements, and the kind of each column, which decides how its values are compared.

No connection. ``lines``, ``wide`` and ``narrow`` are those of ``benchmarks/first_load.py``, with a primary key. Each
edge table has one value that some tools store as another one.
"""

from dataclasses import dataclass

from benchmarks import first_load


@dataclass(frozen=True)
class Table:
    """A table: ``statements`` create it with ``{rows}`` rows, ``kinds`` has the kind of each column by its name."""

    name: str
    statements: tuple[str, ...]
    kinds: dict[str, str]
    rows: int = 0
    label: str = ""

    @property
    def key(self) -> str:
        """The primary key, which is the first column."""
        return next(iter(self.kinds))


def _kinds(**names: str) -> dict[str, str]:
    """Return the kind of each column, from the columns of each kind."""
    return {column: kind for kind, columns in names.items() for column in columns.split()}


def _ordinary(name: str, label: str, kinds: dict[str, str]) -> Table:
    statement, rows = first_load.TABLES[name]
    return Table(name, (statement, f"alter table {name} add primary key (id)"), kinds, rows, label)


_LINES = _kinds(
    integer="id part supplier number", numeric="quantity price discount tax", char="flag status instruction mode",
    date="shipped committed received", text="comment",
)  # fmt: skip
ORDINARY = (
    _ordinary("lines", "order lines: 16 columns, four of them decimals", _LINES),
    _ordinary(
        "wide", "wide rows: texts of 330 bytes and `jsonb`", {"id": "uuid", "body": "text", "attributes": "json"}
    ),
    _ordinary("narrow", "narrow rows: three numbers", {"id": "integer", "at": "instant", "value": "float"}),
)
EVENTS = Table(
    "events",
    (
        """create table events (
  id bigint generated always as identity primary key,
  created_at timestamptz not null default clock_timestamp(),
  customer int not null,
  amount numeric(12,2) not null,
  note text
)""",
        """insert into events (customer, amount, note)
select i % 1000, (i % 100000) / 100.0, md5(i::text) from generate_series(1, {rows}) i""",
    ),
    {"id": "integer", "created_at": "instant", "customer": "integer", "amount": "numeric", "note": "text"},
)
MORE_EVENTS = EVENTS.statements[1]
IDLE = Table("idle", ("create table idle (id int primary key, note text)", "insert into idle values (1, 'x')"), {})

# The type, an ordinary value, the value in question, and the kind.
_EDGES = {
    "numeric(10,2): NaN": ("numeric(10,2)", "1.50", "NaN", "numeric"),
    "numeric: 20 digits before and 18 after the point": (
        "numeric", "1.5", "12345678901234567890.123456789012345678", "numeric",
    ),
    "numeric(38,10): all 38 digits": (
        "numeric(38,10)", "1.5", "9999999999999999999999999999.9999999999", "numeric",
    ),
    "float8: NaN": ("float8", "1.5", "NaN", "float"),
    "float8: -infinity": ("float8", "1.5", "-Infinity", "float"),
    "date: infinity": ("date", "2026-01-01", "infinity", "date"),
    "date: 44 BC": ("date", "2026-01-01", "0044-03-15 BC", "date"),
    "timestamptz: infinity": ("timestamptz", "2026-01-01 00:00+00", "infinity", "instant"),
    "timestamp: year 12345": ("timestamp", "2026-01-01 00:00", "12345-01-01 00:00", "moment"),
    "timestamptz: year 294276": ("timestamptz", "2026-01-01 00:00+00", "294276-12-31 00:00+00", "instant"),
    "time: 24:00": ("time", "10:00:00.123456", "24:00:00", "time"),
    "jsonb: a number of 21 digits": ("jsonb", '{"a": 1}', '{"a": 1.00000000000000000001}', "json"),
}  # fmt: skip


def _edge(number: int, label: str) -> Table:
    kind_of_column, ordinary, special, kind = _EDGES[label]
    name = f"edge_{number}"
    statements = (
        f"create table {name} (id int primary key, value {kind_of_column})",
        f"insert into {name} values (1, '{ordinary}'), (2, '{special}'), (3, null)",
    )
    return Table(name, statements, {"id": "integer", "value": kind}, 3, label)


EDGES = tuple(_edge(number, label) for number, label in enumerate(_EDGES, 1))
