"""Every type of column, read from the Parquet objects in the bucket and compared with what the server prints.

exact: the stored value is what the server prints, bit for bit. declared: it differs as documented (±infinity as the
ends of the calendar, money as a number). changed: it differs otherwise, and no value does.
"""

import io
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import connectorx
import polars as pl
import psycopg
import pyarrow.parquet as pq
import pytest

from pg_bronze.core.column_types import conform, projection, stored_schema
from pg_bronze.core.cursor_column import CursorColumn, choose, newest_value
from pg_bronze.core.table import SourceTable
from pg_bronze.core.value_policies import DATE_INFINITY, TIMESTAMP_INFINITY
from pg_bronze.errors import DataError, TableChanged
from pg_bronze.postgres.catalog import read_table
from pg_bronze_tests.harness.lake import Lake
from pg_bronze_tests.harness.servers import fresh_database, new_bucket
from pg_bronze_tests.harness.torture import NO_INPUT, SETUP, Torture

# Values that each stop a read, and the words of the error.
TOO_LATE = "beyond the year 262142"
REFUSED = [
    ("numeric(10,2)", "'NaN'", "contains NaN"),
    ("price", "'NaN'", "contains NaN"),
    ("date", "'262143-01-01'", TOO_LATE),
    ("date", "'275760-01-01'", TOO_LATE),
    ("date", "'5874897-12-31'", TOO_LATE),
    ("timestamp", "'294276-12-31 23:59:59.999999'", TOO_LATE),
    ("timestamptz", "'294276-12-31 23:59:59.999999+00'", TOO_LATE),
]

SETTINGS = {
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
}


def in_days(column: str, unit: str) -> str:
    return f"case when isfinite({column}) then ({unit})::text else {column}::text end"


MICROSECONDS = in_days("v", "(extract(epoch from v) * 1000000)::numeric(30, 0)")
# By base type: an exact text of a value as the server computes it, and as computed from the stored value.
NATIVE: dict[str, tuple[str, Callable[[Any], str]]] = {
    "bool": ("v::text", lambda value: str(value).lower()),
    "float4": ("encode(float4send(v), 'hex')", lambda value: struct.pack(">f", value).hex()),
    "float8": ("encode(float8send(v), 'hex')", lambda value: struct.pack(">d", value).hex()),
    "bytea": ("encode(v, 'hex')", bytes.hex),
    "money": ("v::numeric::text", str),
    "_money": ("v::numeric[]::text", str),
    "date": (in_days("v", "v - date '1970-01-01'"), str),
    "timestamp": (MICROSECONDS, str),
    "timestamptz": (MICROSECONDS, str),
}
INFINITY = {
    **dict(zip(map(str, DATE_INFINITY), ("-infinity", "infinity"), strict=True)),
    **dict(zip(map(str, TIMESTAMP_INFINITY), ("-infinity", "infinity"), strict=True)),
}


@dataclass
class Server:
    url: str
    conn: psycopg.Connection

    def table(self, name: str, declared: str, values: list[str]) -> SourceTable:
        """Create a table of the values and a NULL, and return it as the catalog describes it."""
        self.conn.execute(f"create table {name} (k int, v {declared})")
        cast = "bigint" if "serial" in declared else declared
        rows = ", ".join(f"({k}, ({value})::{cast})" for k, value in enumerate(values))
        self.conn.execute(f"insert into {name} values {rows}")
        if "serial" not in declared:
            self.conn.execute(f"insert into {name} values ({len(values)}, null)")
        found = read_table(self.conn, "public", name)
        assert found is not None
        assert found.skipped is None
        return found

    def read(self, table: SourceTable) -> pl.DataFrame:
        """Read all of a table as a sync does, without the window."""
        frame = pl.from_arrow(
            connectorx.read_sql(
                self.url,
                f"select {projection(table.columns)} from only {table.relations[0].sql} as t order by t.ctid",
                protocol="binary",
                return_type="arrow",
                pre_execution_query=[
                    "begin isolation level repeatable read read only",
                    *(f"set local {name} = '{value}'" for name, value in SETTINGS.items()),
                ],
            )
        )
        assert isinstance(frame, pl.DataFrame)
        return conform(frame, table.columns, table.label)[0]


@dataclass
class Copied:
    """The torture tables on one server, and their copies in the lake."""

    torture: Torture
    lake: Lake
    tables: dict[str, SourceTable]
    frames: dict[str, pl.DataFrame]

    def printed(self, table: str, expressions: dict[str, str]) -> dict[str, list[str | None]]:
        """Return what the server prints for every row, in the order of ``k``, without type adaptation."""
        listed = ", ".join(expressions.values())
        self.torture.conn.execute("set search_path = pg_catalog")  # names of objects have their schema
        result = self.torture.conn.execute(f"select {listed} from public.{table} order by {table}.k".encode()).pgresult
        self.torture.conn.execute("reset search_path")
        assert result is not None
        found = [[result.get_value(row, n) for row in range(result.ntuples)] for n in range(len(expressions))]
        texts = [[None if value is None else value.decode() for value in values] for values in found]
        return dict(zip(expressions, texts, strict=True))


@pytest.fixture(scope="module")
def copied(any_postgres_server, s3_server) -> Iterator[Copied]:
    """Both tables, copied once on each version of the server by an ordinary tick."""
    bucket = new_bucket(s3_server)
    with fresh_database(any_postgres_server) as database, database.connect() as conn:
        for name, value in SETTINGS.items():
            conn.execute("select set_config(%s, %s, false)", (name, value))
        torture = Torture(conn)
        torture.create()
        lake = Lake(database, bucket.store())
        tables, frames = {}, {}
        for name in torture.columns:
            assert lake.tick(name).row_count
            found = read_table(conn, "public", name)
            assert found is not None
            tables[name], frames[name] = found, lake.rows(name).sort("k")
        yield Copied(torture, lake, tables, frames)
    bucket.remove()


@pytest.fixture
def database(any_database):
    """Run every test of this module on every version."""
    return any_database


@pytest.fixture
def server(database) -> Iterator[Server]:
    with database.connect() as conn:
        for name, value in SETTINGS.items():
            conn.execute("select set_config(%s, %s, false)", (name, value))
        conn.execute("set client_min_messages = error")
        conn.execute(SETUP)
        yield Server(database.url, conn)


def stored(values: pl.Series, base: str) -> list[str | None]:
    """Return the stored values as the texts of NATIVE, or as plain text."""
    if isinstance(values.dtype, pl.Date | pl.Datetime):
        values = values.to_physical()
    elif isinstance(values.dtype, pl.Decimal):
        values = values.cast(pl.String)
    to_text = NATIVE.get(base, ("v", str))[1]
    return [None if value is None else to_text(value) for value in values.to_list()]


def judge(base: str, found: str | None, expected: str | None) -> str:
    if found == expected:
        return "declared" if base in {"money", "_money"} and found is not None else "exact"
    if found is not None and INFINITY.get(found) == expected:
        return "declared"
    return "changed"


def test_no_value_of_any_type_is_changed(copied, record_property):
    verdicts: Counter[str] = Counter()
    changed: list[str] = []
    for name, table in copied.tables.items():
        declared = copied.torture.columns[name]
        bases = {column.name: column.base for column in table.columns if column.name in declared}
        expected = copied.printed(name, {column: _of(column, base) for column, base in bases.items()})
        for column, base in bases.items():
            found = stored(copied.frames[name][column], base)
            assert len(found) == len(expected[column]), declared[column]
            # One NULL after the values represents all others.
            for row in range(copied.torture.values[name][column] + 1):
                verdict = judge(base, found[row], expected[column][row])
                verdicts[verdict] += 1
                if verdict == "changed":
                    shown, wanted = str(found[row])[:80], str(expected[column][row])[:80]
                    changed.append(f"{declared[column]}, value {row}: {shown!r}, the server prints {wanted!r}")
    version = copied.torture.conn.info.server_version // 10000
    count = sum(len(columns) for columns in copied.torture.columns.values())
    summary = ", ".join(f"{verdicts[kind]} {kind}" for kind in ("exact", "declared", "changed"))
    absent = f" (not in this build: {', '.join(copied.torture.absent)})" if copied.torture.absent else ""
    record_property(
        "summary", f"PostgreSQL {version}: {sum(verdicts.values())} values of {count} types: {summary}{absent}"
    )
    assert changed == []
    assert verdicts["exact"] > 1000


def _of(column: str, base: str) -> str:
    """Return the SQL expression of NATIVE for a column."""
    return re.sub(r"\bv\b", column, NATIVE.get(base, ("v", str))[0])


def test_no_type_of_the_server_is_left_out(copied):
    """Types of a new version, or of an installed extension, have to be tested too."""
    missing = copied.torture.conn.execute(
        """
        with recursive used as (
          select atttypid as oid from pg_attribute
          where attrelid in ('torture'::regclass, 'arrays'::regclass) and attnum > 0
          union
          select d.typbasetype from used join pg_type d on d.oid = used.oid where d.typbasetype <> 0
        )
        select t.oid::regtype::text
        from pg_type t left join pg_type e on e.oid = t.typelem
        where t.typtype in ('b', 'r', 'm', 'd', 'e')
          and t.typnamespace <> 'information_schema'::regnamespace
          and coalesce(e.typtype, 'b') not in ('p', 'c')
          and t.oid not in (select oid from used)
        order by 1
        """
    ).fetchall()
    untestable = {*NO_INPUT, *copied.torture.absent}
    assert [name for (name,) in missing if name.removesuffix("[]") not in untestable] == []


NATIVE_PARQUET = {
    "bool": ("BOOLEAN", "None"),
    "int2": ("INT32", "Int(bitWidth=16, isSigned=true)"),
    "int4": ("INT32", "None"),
    "int8": ("INT64", "None"),
    "oid": ("INT32", "Int(bitWidth=32, isSigned=false)"),
    "float4": ("FLOAT", "None"),
    "float8": ("DOUBLE", "None"),
    "bytea": ("BYTE_ARRAY", "None"),
    "date": ("INT32", "Date"),
    "timestamp": ("INT64", "Timestamp(isAdjustedToUTC=false, timeUnit=microseconds, "),
    "timestamptz": ("INT64", "Timestamp(isAdjustedToUTC=true, timeUnit=microseconds, "),
}
DECIMALS = {"numeric(10,2)": (10, 2), "numeric(38,38)": (38, 38), "numeric(5)": (5, 0)} | dict.fromkeys(
    ("price", "net", "gross"), (10, 2)
)


def test_the_parquet_schema_has_the_logical_types(copied):
    """Every reader of Parquet has to see that an INT64 is a time in UTC, not only Polars."""
    for name, table in copied.tables.items():
        key = copied.lake.keys(name)[0]
        parquet = pq.ParquetFile(io.BytesIO(copied.lake.store.get(key))).schema
        found = {item.name: item for item in (parquet.column(n) for n in range(len(parquet.names)))}
        for column in table.columns:
            physical, logical = found[column.name].physical_type, str(found[column.name].logical_type)
            declared = copied.torture.columns[name].get(column.name, "")
            if declared in DECIMALS:
                assert logical == "Decimal(precision={}, scale={})".format(*DECIMALS[declared])
            elif not (column.base == "numeric" and logical.startswith("Decimal")):
                wanted = NATIVE_PARQUET.get(column.base, ("BYTE_ARRAY", "String"))
                assert (physical, logical[: len(wanted[1])]) == wanted, declared
            assert found[column.name].max_repetition_level == 0
        assert found["_pg_xid"].physical_type == "INT64"


def test_a_table_restored_from_the_lake_equals_the_source(copied):
    """The lake may be the last copy: a table restored from it has to be the same table."""
    conn = copied.torture.conn
    for name, table in copied.tables.items():
        names = [
            column.name
            for column in table.columns
            if copied.torture.columns[name].get(column.name, "").removesuffix("[]") not in NO_INPUT
        ]
        listed = ", ".join(names)
        conn.execute(f"create table {name}_back (like {name})")
        bases = {column.name: column.base for column in table.columns}
        texts = [printed(copied.frames[name][column], bases[column]) for column in names]
        with conn.cursor() as cursor, cursor.copy(f"copy {name}_back ({listed}) from stdin") as target:
            for row in zip(*texts, strict=True):
                target.write_row(row)
        assert difference(conn, name, names) == []


def difference(conn: psycopg.Connection, name: str, columns: list[str]) -> list[str]:
    """Return the columns in which a table and its copy differ, by the type's equality, if it has one, and by text."""
    differing = []
    for column in columns:
        for shown in (column, f"{column}::text"):
            for one, other in ((name, f"{name}_back"), (f"{name}_back", name)):
                query = (
                    f"select count(*) from (select k, {shown} from {one} except all select k, {shown} from {other}) d"
                )
                try:
                    count = conn.execute(query.encode()).fetchone()[0]
                except psycopg.errors.UndefinedFunction:
                    assert shown == column  # json, xml, point and others have no equality
                    continue
                differing += [f"{name}.{shown}: {count}"] * bool(count)
    return differing


def printed(values: pl.Series, base: str) -> list[str | None]:
    """Return a column of a frame as text that COPY reads."""
    dtype = values.dtype
    if isinstance(dtype, pl.Date | pl.Datetime):
        unit = 1 if isinstance(dtype, pl.Date) else 86_400_000_000
        return [None if value is None else moment(value, unit) for value in values.to_physical().to_list()]
    if isinstance(dtype, pl.Binary):
        return [None if value is None else f"\\x{value.hex()}" for value in values.to_list()]
    if isinstance(dtype, pl.Boolean):
        return [None if value is None else str(value) for value in values.to_list()]
    if dtype.is_float():
        return [None if value is None else repr(value) for value in values.to_list()]
    return values.cast(pl.String).to_list()


def moment(count: int, unit: int) -> str:
    """Return days or microseconds since 1970 as PostgreSQL reads them; Python's calendar ends at the year 9999."""
    if str(count) in INFINITY:
        return INFINITY[str(count)]
    days, rest = divmod(count, unit)
    cycles, rest_days = divmod(days + date(1970, 1, 1).toordinal() - 1, 146_097)
    day = date.fromordinal(rest_days + 1)
    year = day.year + 400 * cycles
    era = "" if year > 0 else " BC"
    clock = "" if unit == 1 else f" {timedelta(seconds=rest // 1_000_000)}.{rest % 1_000_000:06}+00"
    return f"{year if year > 0 else 1 - year:04}-{day:%m-%d}{clock}{era}"


def test_the_newest_value_of_a_column_is_what_psql_shows(copied):
    """It is written to etl_control, where people compare it with the table."""
    table, frame = copied.tables["torture"], copied.frames["torture"]
    expected = copied.printed("torture", {column.name: f"{column.name}::text" for column in table.columns})
    for column in table.columns:
        cursor = chosen(table, column.name)
        if cursor is None:
            continue
        for row, text in enumerate(expected[column.name]):
            infinite = text is None or text.lstrip("-") in {"NaN", "Infinity", "infinity"}
            assert newest_value(frame[row : row + 1], cursor) == (None if infinite else text), column.declared


def chosen(table: SourceTable, name: str) -> CursorColumn | None:
    number = {"int2", "int4", "int8", "numeric", "float4", "float8"}
    base = next(column.base for column in table.columns if column.name == name)
    cursor = choose(table, names=(name,), configured=name if base in number else None)
    return cursor if cursor is not None and cursor.name == name else None


@pytest.mark.parametrize("declared, value, words", REFUSED)
def test_a_value_that_cannot_be_stored_stops_the_read_with_an_error(server, declared, value, words):
    """Nothing is stored in place of the value, and the message does not repeat it."""
    table = server.table("t", declared, [value])
    with pytest.raises(DataError, match=words) as error:
        server.read(table)
    assert value.strip("'") == "NaN" or value.strip("'") not in str(error.value)


def test_an_empty_table_of_every_type_keeps_its_schema(copied, database):
    """An empty first slice must not have other types than the next one."""
    for name, table in copied.tables.items():
        copied.torture.conn.execute(f"create table {name}_empty (like {name})")
        empty = read_table(copied.torture.conn, "public", f"{name}_empty")
        frame = Server(copied.lake.database.url, copied.torture.conn).read(empty)
        assert frame.height == 0
        assert frame.schema == stored_schema(table.columns)
        assert frame.schema == copied.frames[name].drop("_pg_xid").schema


def test_a_column_widened_during_a_read_is_not_rounded(server):
    """The catalog read before says numeric(20,2), and the server prints four decimals."""
    table = server.table("t", "numeric(20,2)", ["1.50"])
    server.conn.execute("alter table t alter v type numeric(22,4); update t set v = 1.5555 where v is not null")
    with pytest.raises(TableChanged, match=r"numeric\(20,2\)"):
        server.read(table)


def test_a_column_retyped_during_a_read_is_never_misread(server):
    """Two types of one width could be confused; the cast makes the server convert the value or fail."""
    table = server.table("t", "int", ["1"])
    server.conn.execute("alter table t alter v type float4 using v + 0.25")
    assert server.read(table)["v"].to_list() == [1, None]


def test_generated_columns_are_copied_with_their_values(database, bucket):
    """Virtual ones, since PostgreSQL 18, are stored nowhere but in the lake."""
    database.execute("create table movie (movie_id int, double int generated always as (movie_id * 2) stored)")
    with database.connect() as connection:
        if connection.info.server_version >= 180000:
            connection.execute("alter table movie add triple numeric(9,1) generated always as (movie_id * 3.5) virtual")
        connection.execute("insert into movie (movie_id) values (1), (2)")
        live = connection.execute("select * from movie order by 1").fetchall()
    lake = Lake(database, bucket.store())

    lake.tick()

    assert lake.rows().sort("movie_id").drop("_pg_xid").rows() == live


def test_money_is_stored_as_a_number(database, bucket):
    """lc_monetary decides how money is printed, and its number of decimals; every server has the locale C."""
    database.execute("create table movie (movie_id int, budget money, parts money[])")
    database.execute("insert into movie values (1, 1234567.89, array[-0.05, null]::money[])")
    lake = Lake(database, bucket.store())

    lake.tick()

    assert lake.rows().select("budget", "parts").rows() == [("1234567.89", "{-0.05,NULL}")]
