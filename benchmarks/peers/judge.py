"""The comparison of what a tool wrote with the source, value by value. DuckDB reads the Parquet files.

Both sides are brought to one text for each kind of column. A decimal that is stored as text or as a float is exact if
it is the same number, and a `char(n)` with or without its blanks, because SQL treats those as equal; a column whose
Parquet type is not that of its kind is named in ``retyped``. Everything else that differs is wrong.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import duckdb
import psycopg

from pg_bronze.core.table import quote

NULL = "~"  # no value of the tables is this text
# The infinities of connectorx: the first and last value of its calendar, as days and as microseconds since 1970.
SENTINELS = {"-96465292", "95026236", "-8334601228800000000", "8210266876799999999"}
_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UINTEGER")
# The Parquet types of each kind, as DuckDB names them.
_TYPES = {
    "integer": _INTEGERS,
    "numeric": ("DECIMAL",),
    "float": ("DOUBLE",),
    "date": ("DATE",),
    "instant": ("TIMESTAMP WITH TIME ZONE",),
    "moment": ("TIMESTAMP", "TIMESTAMP_NS"),
    "time": ("TIME",),
    "json": ("VARCHAR", "JSON"),
}


@dataclass(frozen=True)
class Verdict:
    """How the objects differ from the source. ``wrong`` has the number of wrong values of each wrong column."""

    rows: int
    lost: int = 0
    doubled: int = 0
    wrong: Mapping[str, int] = field(default_factory=dict)
    retyped: tuple[str, ...] = ()
    error: str | None = None

    @property
    def exact(self) -> bool:
        """Whether every row and every value is there once."""
        return not (self.lost or self.doubled or self.wrong or self.error)


def source_text(name: str, kind: str) -> str:
    """Return PostgreSQL's expression for the text of a column."""
    texts = {
        "numeric": f"trim_scale({name})::text",
        "uuid": f"replace({name}::text, '-', '')",
        "date": _finite(name, f"({name} - date '1970-01-01')::text", "::text"),
        "instant": _finite(name, f"trim_scale(extract(epoch from {name}) * 1000000)::text", "::text"),
    }
    return texts.get("instant" if kind == "moment" else kind, f"{name}::text")


def loaded_text(name: str, kind: str) -> str:
    """Return DuckDB's expression that turns the source's text into the text that is compared."""
    return {"float": f"{name}::double::varchar", "numeric": f"lower({name})"}.get(kind, name)


def found_text(name: str, kind: str, stored: str) -> str:
    """Return DuckDB's expression for the text of a column of the Parquet type ``stored``."""
    moment = name if stored == "TIMESTAMP WITH TIME ZONE" else f"try_cast({name} as timestamp)"
    number = f"lower({name}::varchar)"
    texts = {
        "integer": f"{name}::bigint::varchar",
        "numeric": f"case when contains({number}, '.') then rtrim(rtrim({number}, '0'), '.') else {number} end",
        "float": f"{name}::double::varchar",
        "char": f"rtrim({name}::varchar)",
        "uuid": f"lower(hex({name}))" if stored == "BLOB" else f"lower(replace({name}::varchar, '-', ''))",
        "date": _finite(
            f"try_cast({name} as date)",
            f"date_diff('day', date '1970-01-01', try_cast({name} as date))::varchar",
            "::varchar",
        ),
        "instant": _finite(moment, f"epoch_us({moment})::varchar", "::varchar"),
        "json": f"{name}::varchar" if stored in _TYPES["json"] else f"to_json({name})::varchar",
    }
    return texts.get("instant" if kind == "moment" else kind, f"{name}::varchar")


def _finite(tested: str, text: str, cast: str) -> str:
    return f"case when isfinite({tested}) then {text} else {tested}{cast} end"


def load_source(
    connection: psycopg.Connection, judge: duckdb.DuckDBPyConnection, table: str, kinds: Mapping[str, str], file: Path
) -> None:
    """Copy the texts of a table of the source into the table ``source`` of the judge."""
    texts = ", ".join(source_text(quote(name), kind) for name, kind in kinds.items())
    query = f"copy (select {texts} from {table}) to stdout (format csv, force_quote *, null '{NULL}')"
    connection.execute("set timezone = 'UTC'")
    with file.open("wb") as writing, connection.cursor().copy(query.encode()) as reading:
        for block in reading:
            writing.write(block)
    columns = ", ".join(f"'{name}': 'VARCHAR'" for name in kinds)
    shown = ", ".join(f"{loaded_text(quote(name), kind)} as {quote(name)}" for name, kind in kinds.items())
    judge.execute(
        f"create or replace table source as select {shown} from read_csv('{file}', header = false, quote = '\"', "
        f"escape = '\"', nullstr = '{NULL}', columns = {{{columns}}}, auto_detect = false, delim = ',')"
    )


def compare(
    judge: duckdb.DuckDBPyConnection, kinds: Mapping[str, str], files: Sequence[Path], key: str = "id"
) -> Verdict:
    """Compare Parquet files with the table ``source``."""
    if not files:
        (lost,) = _row(judge, "select count(*) from source")
        return Verdict(0, lost=lost)
    try:
        return _compare(judge, kinds, files, key)
    except duckdb.Error as error:
        return Verdict(0, error=f"{type(error).__name__}: {str(error).splitlines()[0][:160]}")


def _compare(judge: duckdb.DuckDBPyConnection, kinds: Mapping[str, str], files: Sequence[Path], key: str) -> Verdict:
    names = ", ".join(f"'{file}'" for file in files)
    scanned = f"read_parquet([{names}], union_by_name = true, hive_partitioning = false)"
    stored = {row[0]: row[1] for row in judge.execute(f"describe select * from {scanned}").fetchall()}
    present = {name: kind for name, kind in kinds.items() if name in stored}
    texts = ", ".join(
        f"{found_text(quote(name), kind, stored[name])} as {quote(name)}" for name, kind in present.items()
    )
    judge.execute(f"create or replace temp table found as select {texts} from {scanned}")
    rows, distinct = _row(judge, f"select count(*), count(distinct {key}) from found")
    (lost,) = _row(judge, f"select count(*) from source anti join found using ({key})")
    wrong = {name: rows for name in kinds if name not in present} | _wrong(judge, present, key)
    retyped = tuple(f"{name}: {stored[name]}" for name, kind in present.items() if not _keeps_type(kind, stored[name]))
    return Verdict(rows, lost, rows - distinct, wrong, retyped)


def _wrong(judge: duckdb.DuckDBPyConnection, kinds: Mapping[str, str], key: str) -> dict[str, int]:
    sums = ", ".join(f"sum((s.{name} is distinct from f.{name})::int)::bigint" for name in map(quote, kinds))
    counts = _row(judge, f"select {sums} from source s join found f using ({key})")
    wrong = {name: count for name, count in zip(kinds, counts, strict=True) if count}
    for name in [name for name in wrong if kinds[name] == "json"]:
        left, right = f"s.{quote(name)}", f"f.{quote(name)}"
        both = f"select {left}, {right} from source s join found f using ({key})"
        pairs = judge.execute(f"{both} where {left} is distinct from {right}").fetchall()
        wrong[name] = sum(not _same_json(*pair) for pair in pairs)
    return {name: count for name, count in wrong.items() if count}


def _same_json(left: str | None, right: str | None) -> bool:
    """Whether two documents are the same whatever their blanks and the order of keys, with exact numbers."""
    if left is None or right is None:
        return False
    return bool(json.loads(left, parse_float=Decimal) == json.loads(right, parse_float=Decimal))


def _keeps_type(kind: str, stored: str) -> bool:
    return kind not in _TYPES or stored.partition("(")[0] in _TYPES[kind]


def _row(judge: duckdb.DuckDBPyConnection, query: str) -> tuple[int, ...]:
    found = judge.execute(query).fetchone()
    assert found is not None
    return tuple(value or 0 for value in found)


def special_value(judge: duckdb.DuckDBPyConnection) -> str | None:
    """Return the text of row 2 of an edge table after a comparison."""
    found = judge.execute("select value from found where id = '2'").fetchone()
    return found[0] if found else None
