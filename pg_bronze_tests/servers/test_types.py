"""Every built-in type, and what extensions and users add, read into a frame and held against the server's word.

exact: the stored value is what the server prints, bit for bit. declared: it is not, and the documentation says so
(±infinity as the ends of the calendar, money as a number, a loud error). changed: anything else, and there is none.
"""

import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import connectorx
import polars as pl
import psycopg
import pytest

from pg_bronze.catalog import read_table
from pg_bronze.cursor import choose, newest
from pg_bronze.errors import DataError, TableChanged
from pg_bronze.policies import DATE_INFINITY, TIMESTAMP_INFINITY
from pg_bronze.schema import (
    SourceTable,
    conform,
    projection,
    read_schema,
    stored_schema,
)

SETUP = """
create type mood as enum ('sad', 'happy');
create type comp as (a int, b text);
create domain posint as int check (value > 0);
create domain price as numeric(10,2);
create domain net as price;
create domain dtext as text;
create domain dom_arr as int[];
create domain dom_mood as mood;
create domain dom_inet as inet;
"""
# Not every build of PostgreSQL brings them.
OPTIONAL = {"citext", "citext[]", "hstore", "ltree", "lquery", "xml"}

DAY = "2024-02-29"
UUID = "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"
TYPES: dict[str, list[str]] = {
    "smallint": ["-32768", "32767", "0"],
    "integer": ["-2147483648", "2147483647"],
    "bigint": ["-9223372036854775808", "9223372036854775807", "9007199254740993"],
    "smallserial": ["1"],
    "serial": ["1"],
    "bigserial": ["1"],
    "numeric": [
        *("0", "1.5", "-123456789.0123456789", "0.00000000001", "1e27", "1e28", "79228162514264337593543950335"),
        *("1e30", "12345678901234567890.1234567890123", "'NaN'", "'Infinity'", "'-Infinity'", "9" * 1000),
        *("0.12345678905", "1.10", "1.100000000000", "-1e-300"),
    ],
    "numeric(10,2)": ["12345678.99", "-0.01", "99999999.99", "0"],
    "numeric(38,10)": ["1234567890123456789012345678.0123456789", "0.0000000001", "12345678901234567.0123456789"],
    "numeric(38,0)": ["99999999999999999999999999999999999999", "-99999999999999999999999999999999999999"],
    "numeric(39,1)": ["99999999999999999999999999999999999999.9"],
    "numeric(20,15)": ["12345.123456789012345"],
    "numeric(5)": ["12345"],
    "real": ["1.5", "3.4028235e38", "1e-45", "'NaN'", "'Infinity'", "'-Infinity'", "'-0'", "1e6", "123456", "0.0001"],
    "double precision": [
        *("0.1", "1.7976931348623157e308", "5e-324", "'NaN'", "'Infinity'", "'-Infinity'", "'-0'"),
        *("1e15", "123456789012345", "0.00001", "-1.25e-7", "100000"),
    ],
    "money": ["12.34", "-92233720368547758.08"],
    "varchar(10)": ["'abc'", "''", "'ñandú'"],
    "varchar": ["'abc '"],
    "char(5)": ["'ab'", "''"],
    "text": ["''", "E'a\\nb\\t\"q\",;\\\\'", "'🎬 日本'", "repeat('x', 1000000)", "'NULL'", "'\\N'", "'''$$'"],
    "name": ["'nm'"],
    '"char"': ["'a'", "''"],
    "citext": ["'AbC'"],
    "bytea": ["'\\x00ff80'", "''", "'\\x'"],
    "boolean": ["true", "false"],
    "date": [
        *(f"'{DAY}'", "'infinity'", "'-infinity'", "'0044-03-15 BC'", "'0001-01-01'", "'0001-12-31 BC'"),
        *("'9999-12-31'", "'10000-01-01'", "'4713-01-01 BC'", "'1970-01-01'", "'1969-12-31'", "'262142-12-29'"),
    ],
    "time": ["'00:00:00'", "'23:59:59.999999'", "'24:00:00'"],
    "time(0)": ["'12:34:56'"],
    "timetz": ["'12:34:56.789012+05:30'", "'24:00:00-08'"],
    "timestamp": [
        *(f"'{DAY} 12:34:56.789012'", "'infinity'", "'-infinity'", "'0044-03-15 12:00:00 BC'", "'0001-01-01'"),
        *("'9999-12-31 23:59:59.999999'", "'4713-01-01 BC'", "'1969-12-31 23:59:59.999999'", "'1677-09-20'"),
        *("'2262-04-12'", "'262142-01-01'", "'2024-01-01 00:00:00.1'"),
    ],
    "timestamp(3)": [f"'{DAY} 12:34:56.789'"],
    "timestamptz": [
        *("'2024-03-31 01:59:59.999999 Europe/Madrid'", "'2024-10-27 02:30:00+02'", "'2024-10-27 02:30:00+01'"),
        *("'infinity'", "'-infinity'", "'0044-03-15 12:00:00+00 BC'", "'9999-12-31 23:59:59.999999+00'"),
        *("'2262-04-12 00:00+00'", "'2024-01-01 00:00:00.120+00'"),
    ],
    "timestamptz(0)": [f"'{DAY} 12:34:56+00'"],
    "interval": ["'1 year 2 mons -3 days 04:05:06.789'", "'-178000000 years'", "'0'"],
    "interval day to second": ["'3 days 04:05:06'"],
    "uuid": [UUID],
    "json": [
        *('\'{"b": 1, "a": 2.10, "a": 12345678901234567890123}\'', "'null'", "'[1, 2,  3]'", "'\"x\"'", "'1e400'"),
        "'0.1000'",
    ],
    "jsonb": [
        *('\'{"bb": 1, "a": 2.10, "c": 12345678901234567890123}\'', "'null'", "'0.10'", "'1e400'"),
        *("'{\"k\":0.30000000000000004441}'", "'18446744073709551616'", "'1.0'", "'1e2'"),
    ],
    "jsonpath": ["'$.a'"],
    "xml": ["'<a>x</a>'"],
    "inet": ["'10.1.2.3'", "'10.1.2.3/8'", "'10.0.0.0/8'", "'::1/128'", "'fe80::1/64'"],
    "cidr": ["'10.0.0.0/8'", "'10.1.2.3/32'", "'::/0'"],
    "macaddr": ["'08:00:2b:01:02:03'"],
    "macaddr8": ["'08:00:2b:01:02:03:04:05'"],
    "bit(3)": ["B'101'"],
    "bit(9)": ["B'101010101'"],
    "bit varying": ["B'10101'", "B''"],
    "point": ["'(1,2)'", "'(0.1,1e-300)'"],
    "line": ["'{1,2,3}'"],
    "lseg": ["'((1,2),(3,4))'"],
    "box": ["'((1,2),(3,4))'"],
    "path": ["'((1,2),(3,4))'", "'[(1,2),(3,4)]'"],
    "polygon": ["'((1,2),(3,4))'"],
    "circle": ["'<(1,2),3>'"],
    "int4range": ["'[1,5)'", "'empty'"],
    "int8range": ["'[1,5)'"],
    "numrange": ["'[1.5,)'"],
    "tsrange": ["'[2024-01-01,2024-02-01)'"],
    "tstzrange": ["'[2024-01-01 00:00+00,infinity)'"],
    "daterange": ["'[2024-01-01,2024-02-01)'"],
    "int4multirange": ["'{[1,5),[7,9)}'"],
    "nummultirange": ["'{}'"],
    "datemultirange": ["'{[2024-01-01,2024-02-01)}'"],
    "boolean[]": ["'{t,f,NULL}'", "'{}'"],
    "smallint[]": ["'{1,NULL}'", "'{}'"],
    "integer[]": ["'{1,NULL,3}'", "'{}'", "'{{1,2},{3,4}}'", "'[2:3]={7,8}'"],
    "bigint[]": ["'{1,NULL}'", "'{{1,2},{3,4}}'"],
    "real[]": ["'{1.5,NULL}'"],
    "double precision[]": ["'{1.5,NULL,NaN}'"],
    "numeric[]": ["'{1.5,NULL}'", "'{1.12345678901234}'", "'{NaN}'"],
    "text[]": ['\'{a,NULL,"b,c",""}\'', "'{}'", "'{{a,b},{c,d}}'", '\'{"x\\"y"}\''],
    "varchar[]": ["'{a,NULL}'"],
    "char(3)[]": ["'{a,NULL}'"],
    "citext[]": ["'{a}'"],
    "name[]": ["'{a}'"],
    "date[]": ["'{2024-01-01}'"],
    "timestamp[]": ["'{2024-01-01 00:00:00}'"],
    "timestamptz[]": ["'{2024-01-01 00:00:00+00}'"],
    "time[]": ["'{12:00}'"],
    "uuid[]": [f"array[{UUID}::uuid]"],
    "jsonb[]": ["array['{\"a\":1}'::jsonb]"],
    "json[]": ["array['{\"a\":1}'::json]"],
    "bytea[]": ["array['\\x01'::bytea]"],
    "inet[]": ["'{10.0.0.1}'"],
    "mood[]": ["'{sad,happy}'"],
    "comp[]": ["array[row(1,'x')::comp]"],
    "int4range[]": ["'{\"[1,2)\"}'"],
    "mood": ["'sad'", "'happy'"],
    "posint": ["5"],
    "price": ["1.50"],
    "net": ["2.50", "-0.05"],
    "dtext": ["'dd'"],
    "dom_arr": ["'{1,2}'"],
    "dom_mood": ["'sad'"],
    "dom_inet": ["'10.1.2.3'"],
    "comp": ["row(1,'x,y')", "row(null,'')"],
    "hstore": ["'a=>1,b=>NULL'", "''"],
    "ltree": ["'a.b.c'"],
    "lquery": ["'a.*'"],
    "tsvector": ["'a fat cat'"],
    "tsquery": ["'fat & cat'"],
    "oid": ["0", "4294967295"],
    "regclass": ["'pg_class'"],
    "regtype": ["'int4'"],
    "regproc": ["'now'"],
    "regnamespace": ["'pg_catalog'"],
    "xid": ["'123'"],
    "xid8": ["'123'", "'9223372036854775808'"],
    "cid": ["'1'"],
    "tid": ["'(0,1)'"],
    "pg_lsn": ["'16/B374D848'"],
    "txid_snapshot": ["'10:20:10,14'"],
    "pg_snapshot": ["'10:20:10,14'"],
    "refcursor": ["'c'"],
    "int2vector": ["'1 2'"],
    "oidvector": ["'1 2'"],
    "aclitem": ["'pg_monitor=r/pg_monitor'"],
}
NEGATIVE_SCALE = {"numeric(5,-2)": ["1234500", "-99999"], "numeric(2,4)": ["0.0012"]}  # since PostgreSQL 15
# Values that stop a read, each alone, and the words of the error.
TOO_LATE = "beyond the year 262142"
REFUSED = [
    ("numeric(10,2)", "'NaN'", "holds NaN"),
    ("price", "'NaN'", "holds NaN"),
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
# By base type: what the server says of a value in exact terms, and the same said of the stored one.
NATIVE: dict[str, tuple[str, Callable[[Any], str]]] = {
    "bool": ("v::text", lambda value: str(value).lower()),
    "float4": ("encode(float4send(v), 'hex')", lambda value: struct.pack(">f", value).hex()),
    "float8": ("encode(float8send(v), 'hex')", lambda value: struct.pack(">d", value).hex()),
    "bytea": ("encode(v, 'hex')", bytes.hex),
    "money": ("v::numeric::text", str),
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
        """Create a table of the values and a NULL, and look it up in the catalog."""
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
        """Read all of a table as the copy does, without the window."""
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

    def says(self, table: SourceTable, expression: str) -> list[str | None]:
        """Give what the server prints of every row, through no type adaptation."""
        result = self.conn.execute(f"select {expression} from {table.sql} order by ctid").pgresult
        assert result is not None
        found = [result.get_value(row, 0) for row in range(result.ntuples)]
        return [None if value is None else value.decode() for value in found]


@pytest.fixture
def database(any_database):
    """All of this on every version."""
    return any_database


@pytest.fixture
def server(database) -> Iterator[Server]:
    with database.connect() as conn:
        for name, value in SETTINGS.items():
            conn.execute("select set_config(%s, %s, false)", (name, value))
        conn.execute("set client_min_messages = error")
        for extension in ("citext", "hstore", "ltree"):
            conn.execute(
                f"do $$ begin if exists (select from pg_available_extensions where name = '{extension}') "
                f"then create extension {extension}; end if; end $$"
            )
        conn.execute(SETUP)
        yield Server(database.url, conn)


def stored(frame: pl.DataFrame, base: str) -> list[str | None]:
    """Say the stored values in the terms of NATIVE, or as text."""
    values = frame["v"]
    if isinstance(values.dtype, pl.Date | pl.Datetime):
        values = values.to_physical()
    elif isinstance(values.dtype, pl.Decimal):
        values = values.cast(pl.String)
    say = NATIVE.get(base, ("v", str))[1]
    return [None if value is None else say(value) for value in values.to_list()]


def judge(base: str, found: str | None, expected: str | None) -> str:
    if found == expected:
        return "declared" if base == "money" and found is not None else "exact"
    if found is not None and INFINITY.get(found) == expected:
        return "declared"
    return "changed"


def test_no_value_of_any_type_is_changed(server, capsys):
    types = TYPES | (NEGATIVE_SCALE if server.conn.info.server_version >= 150000 else {})
    verdicts: Counter[str] = Counter()
    changed: list[str] = []
    absent: set[str] = set()
    for number, (declared, values) in enumerate(types.items()):
        try:
            table = server.table(f"t_{number}", declared, values)
        except (psycopg.errors.UndefinedObject, psycopg.errors.FeatureNotSupported):
            absent.add(declared)
            continue
        base = table.columns[1].base
        frame = server.read(table)
        assert frame.schema == stored_schema(table.columns), declared
        expected = server.says(table, NATIVE.get(base, ("v", str))[0])
        assert frame.height == len(expected), declared
        for row, (found, wanted) in enumerate(zip(stored(frame, base), expected, strict=True)):
            verdict = judge(base, found, wanted)
            verdicts[verdict] += 1
            if verdict == "changed":
                changed.append(
                    f"{declared}, value {row}: {str(found)[:80]!r}, and the server says {str(wanted)[:80]!r}"
                )
        check_newest(server, table, frame)
    with capsys.disabled():
        print(f"\n{sum(verdicts.values())} values of {len(types) - len(absent)} types: {dict(verdicts)}", end=" ")
        print(f"(not in this build: {', '.join(sorted(absent))})" if absent else "")
    assert changed == []
    assert absent <= OPTIONAL


def check_newest(server: Server, table: SourceTable, frame: pl.DataFrame) -> None:
    """What goes into etl_control is a value as psql would show it."""
    cursor = choose(table, names=("v",), wanted="v" if may_be_cursor(table) else None)
    if cursor is None or cursor.name != "v":
        return
    for row, printed in enumerate(server.says(table, "v::text")):
        infinite = printed is None or printed.lstrip("-") in {"NaN", "Infinity", "infinity"}
        assert newest(frame[row : row + 1], cursor) == (None if infinite else printed), table.columns[1].declared


def may_be_cursor(table: SourceTable) -> bool:
    return table.columns[1].base in {"int2", "int4", "int8", "numeric", "float4", "float8"}


@pytest.mark.parametrize("declared, value, words", REFUSED)
def test_a_value_that_cannot_be_kept_stops_the_read_loudly(server, declared, value, words):
    """These are declared too: nothing is stored, and somebody is told."""
    table = server.table("t", declared, [value])
    with pytest.raises(DataError, match=words) as error:
        server.read(table)
    assert value.strip("'") == "NaN" or value.strip("'") not in str(error.value)


def test_the_refusal_cases_cover_what_the_types_leave_out():
    assert {declared for declared, _, _ in REFUSED} <= TYPES.keys()


def test_an_empty_table_of_every_type_keeps_its_schema(server):
    """A first slice without rows of some kind must not give a column another type than the next."""
    columns = []
    for number, declared in enumerate(TYPES):
        try:
            server.conn.execute(f"create temp table probe_{number} (v {declared})")
        except (psycopg.errors.UndefinedObject, psycopg.errors.FeatureNotSupported):
            continue
        columns.append(f"c{number} {declared}")
    server.conn.execute(f"create table wide ({', '.join(columns)})")
    table = read_table(server.conn, "public", "wide")
    assert table is not None
    frame = server.read(table)
    assert frame.schema == stored_schema(table.columns)
    assert len(read_schema(table.columns)) == len(columns)
    assert frame.height == 0


def test_a_column_widened_during_a_read_is_not_rounded(server):
    """The catalog still says numeric(10,2) while the server already prints four decimals."""
    table = server.table("t", "numeric(10,2)", ["1.50"])
    server.conn.execute("alter table t alter v type numeric(12,4); update t set v = 1.5555 where v is not null")
    with pytest.raises(TableChanged, match=r"numeric\(10,2\)"):
        server.read(table)


def test_a_column_retyped_during_a_read_is_never_misread(server):
    """Two types of one width would be taken for each other's bytes; the cast makes the server convert or refuse."""
    table = server.table("t", "int", ["1"])
    server.conn.execute("alter table t alter v type float4 using v + 0.25")
    assert server.read(table)["v"].to_list() == [1, None]
