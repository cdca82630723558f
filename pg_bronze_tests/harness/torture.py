"""Every type a column can have, with the values that readers get wrong, in two tables: them, and their arrays.

Row ``k`` of ``torture`` holds the k-th value of every column. Types that this build or version does not have are left
out and named; a type of the server that stands nowhere here fails ``test_types``.
"""

from dataclasses import dataclass, field

import psycopg

SETUP = """
create type mood as enum ('sad', 'ok', 'happy');
create type comp as (a int, b text);
create type deep as (c comp, d numeric(10,2)[], e timestamptz);
create domain posint as int check (value > 0);
create domain price as numeric(10,2);
create domain net as price;
create domain gross as net check (value <> 0);
create domain plain as numeric;
create domain short as varchar(5);
create domain instant as timestamptz(0);
create domain dtext as text;
create domain dom_arr as int[];
create domain dom_mood as mood;
create domain dom_inet as inet;
create domain dom_money as money;
create domain dom_comp as comp;
create domain dom_dates as date[];
create domain dom_range as int4range;
create type floats as range (subtype = float8);
create type moods as range (subtype = mood);
create schema odd;
create domain odd.date as text;
create domain odd."numeric" as text;
create type odd."timestamp" as enum ('infinity');
create type odd."int4" as (x int);
create table statistic (a int default 7, b int);
insert into statistic select i % 5, i % 5 from generate_series(1, 500) i;
create statistics kept (ndistinct, dependencies, mcv) on a, b from statistic;
analyze statistic;
"""
# After the rows are in: what a value is called and made of may change under it.
ALTERED = """
alter type mood rename value 'ok' to 'so so';
alter type mood add value 'glad' before 'happy';
alter type comp add attribute z date;
"""

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
        *("0." + "0" * 1000 + "1", "-" + "123456789" * 14000 + ".5", "'-0'", "0.0", "1e-16383", "'  12  '"),
        *("0.12345678905", "1.10", "1.100000000000", "-1e-300"),
    ],
    "numeric(10,2)": ["12345678.99", "-0.01", "99999999.99", "0", "'-0'", "-99999999.99", "0.005"],
    "numeric(9,9)": ["0.999999999", "-0.000000001"],
    "numeric(18,4)": ["99999999999999.9999", "-99999999999999.9999"],
    "numeric(19,4)": ["999999999999999.9999"],
    "numeric(38,38)": ["0." + "9" * 38, "-0." + "0" * 37 + "1"],
    "numeric(1000,500)": ["9" * 500 + "." + "9" * 500, "'NaN'"],
    "numeric(1)": ["9", "-9"],
    "numeric(38,10)": ["1234567890123456789012345678.0123456789", "0.0000000001", "12345678901234567.0123456789"],
    "numeric(38,0)": ["99999999999999999999999999999999999999", "-99999999999999999999999999999999999999"],
    "numeric(39,1)": ["99999999999999999999999999999999999999.9"],
    "numeric(20,15)": ["12345.123456789012345"],
    "numeric(5)": ["12345"],
    "real": [
        "1.5",
        "3.4028235e38",
        "1e-45",
        "'NaN'",
        "'Infinity'",
        "'-Infinity'",
        "'-0'",
        "1e6",
        "123456",
        "0.0001",
        "16777216",
        "1e-38",
        "1e-40",
    ],
    "double precision": [
        *("0.1", "1.7976931348623157e308", "5e-324", "'NaN'", "'Infinity'", "'-Infinity'", "'-0'"),
        *("1e15", "123456789012345", "0.00001", "-1.25e-7", "100000", "2.2250738585072014e-308"),
        *("2.225073858507201e-308", "9007199254740993", "0.30000000000000004"),
    ],
    "money": ["12.34", "-92233720368547758.08", "92233720368547758.07", "0"],
    "varchar(10)": ["'abc'", "''", "'ñandú'"],
    "varchar": ["'abc '", "''"],
    "char": ["'x'", "''"],
    "bpchar": ["'ab  '"],
    "char(5)": ["'ab'", "''"],
    "text": [
        *("''", "' '", "E'a\\nb\\t\"q\",;\\\\'", "'🎬 日本'", "repeat('x', 1000000)", "'NULL'", "'\\N'", "'''$$'"),
        *("E'\\r\\n'", "E'\\x01\\x02\\x1f\\x7f'", "E'e\\u0301 \\u00e9'", "E'\\u200d\\ufeff\\u202e'", "E'\\U0010FFFF'"),
        *("'👩‍👩‍👧‍👦'", "E'\\ufffd\\uffff'", "'\\.'", "'{}'", "repeat('ñ', 3000)", "'a,b'", "E'\\t'"),
    ],
    "name": ["'nm'", "''", "repeat('ñ', 31)"],
    '"char"': ["'a'", "''", "'\\200'"],
    "bytea": [
        *("'\\x00ff80'", "''", "'\\x'", f"'\\x{bytes(range(256)).hex()}'", "decode(repeat('00', 100000), 'hex')"),
    ],
    "boolean": ["true", "false"],
    "date": [
        *(f"'{DAY}'", "'infinity'", "'-infinity'", "'0044-03-15 BC'", "'0001-01-01'", "'0001-12-31 BC'"),
        *("'9999-12-31'", "'10000-01-01'", "'4713-01-01 BC'", "'1970-01-01'", "'1969-12-31'", "'262142-12-29'"),
    ],
    "time": ["'00:00:00'", "'23:59:59.999999'", "'24:00:00'", "'00:00:00.000001'"],
    "time(0)": ["'12:34:56'"],
    "timetz": ["'12:34:56.789012+05:30'", "'24:00:00-08'", "'00:00:00+15:59:59'", "'23:59:59-15:59:59'"],
    "timetz(2)": ["'12:34:56.789+02'"],
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
    "interval": [
        *("'1 year 2 mons -3 days 04:05:06.789'", "'-178000000 years'", "'0'", "'1 mon -1 day'", "'30 days'"),
        *("'-00:00:00.000001'", "'2147483647 days'", "'-2147483647:59:59.999999'", "'1 mon -30 days 00:00:01'"),
    ],
    "interval(0)": ["'04:05:06.5'"],
    "interval year": ["'3 years'"],
    "interval day to second": ["'3 days 04:05:06'"],
    "uuid": [UUID],
    "json": [
        *('\'{"b": 1, "a": 2.10, "a": 12345678901234567890123}\'', "'null'", "'[1, 2,  3]'", "'\"x\"'", "'1e400'"),
        *("'0.1000'", 'E\' {\\n\\t"z" : 1 ,"a": 2 } \'', "'\"\\u00e9\\ud83c\\udfac\"'", "'{}'", "'-0'", "'1E+2'"),
    ],
    "jsonb": [
        *('\'{"bb": 1, "a": 2.10, "c": 12345678901234567890123}\'', "'null'", "'0.10'", "'1e400'"),
        *("'{\"k\":0.30000000000000004441}'", "'18446744073709551616'", "'1.0'", "'1e2'"),
        *('\'{"a": null, "": {}, "ñ": []}\'', "'\"\\u00e9\\ud83c\\udfac\"'", "'{}'", "'[]'", "'-0'"),
    ],
    "jsonpath": ["'$.a'", "'strict $.\"b c\"[*] ? (@ > 1)'"],
    "xml": ["'<a>x</a>'"],
    "inet": [
        "'10.1.2.3/32'",
        "'::ffff:1.2.3.4'",
        "'10.1.2.3'",
        "'10.1.2.3/8'",
        "'10.0.0.0/8'",
        "'::1/128'",
        "'fe80::1/64'",
    ],
    "cidr": ["'10.0.0.0/8'", "'10.1.2.3/32'", "'::/0'"],
    "macaddr": ["'08:00:2b:01:02:03'"],
    "macaddr8": ["'08:00:2b:01:02:03:04:05'"],
    "bit(3)": ["B'101'"],
    "bit(9)": ["B'101010101'"],
    "bit varying": ["B'10101'", "B''", "repeat('10', 200)::varbit"],
    "bit varying(5)": ["B'101'"],
    "bit(64)": ["repeat('1', 64)::bit(64)"],
    "point": ["'(1,2)'", "'(0.1,1e-300)'", "'(NaN,-Infinity)'", "'(-0,0.30000000000000004)'"],
    "line": ["'{1,2,3}'"],
    "lseg": ["'((1,2),(3,4))'"],
    "box": ["'((1,2),(3,4))'"],
    "path": ["'((1,2),(3,4))'", "'[(1,2),(3,4)]'"],
    "polygon": ["'((1,2),(3,4))'"],
    "circle": ["'<(1,2),3>'"],
    "int4range": ["'[1,5)'", "'empty'"],
    "int8range": ["'[1,5)'", "'(,)'"],
    "numrange": ["'[1.5,)'", "'(1.50,2]'", "'empty'"],
    "tsrange": ["'[2024-01-01,2024-02-01)'", "'(-infinity,infinity)'"],
    "tstzrange": ["'[2024-01-01 00:00+00,infinity)'"],
    "daterange": ["'[2024-01-01,2024-02-01)'"],
    "int4multirange": ["'{[1,5),[7,9)}'", "'{}'"],
    "int8multirange": ["'{(,5),[7,)}'"],
    "tsmultirange": ["'{[2024-01-01,2024-02-01)}'"],
    "tstzmultirange": ["'{[2024-01-01 00:00+00,infinity)}'"],
    "nummultirange": ["'{}'"],
    "datemultirange": ["'{[2024-01-01,2024-02-01)}'"],
    "integer[]": ["'{1,NULL,3}'", "'{}'", "'{{1,2},{3,4}}'", "'[2:3]={7,8}'"],
    "bigint[]": ["'{1,NULL}'", "'{{1,2},{3,4}}'"],
    "double precision[]": ["'{1.5,NULL,NaN}'"],
    "numeric[]": ["'{1.5,NULL}'", "'{1.12345678901234}'", "'{NaN}'"],
    "text[]": ['\'{a,NULL,"b,c",""}\'', "'{}'", "'{{a,b},{c,d}}'", '\'{"x\\"y"}\''],
    "date[]": ["'{2024-01-01}'"],
    "bytea[]": ["array['\\x01'::bytea]"],
    "comp[]": ["array[row(1,'x')::comp]"],
    "int4range[]": ["'{\"[1,2)\"}'"],
    "mood": ["'sad'", "'ok'", "'happy'"],
    "floats": ["'[0.1,NaN)'", "'(,1e-300]'"],
    "floats_multirange": ["'{[0.1,0.2),[3,)}'", "'{}'"],
    "moods": ["'[sad,happy]'"],
    "moods_multirange": ["'{[sad,ok],(ok,happy]}'"],
    "posint": ["5"],
    "price": ["1.50"],
    "net": ["2.50", "-0.05"],
    "gross": ["3.5"],
    "plain": ["1.500", "'NaN'", "'Infinity'"],
    "short": ["'abc'"],
    "instant": ["'2024-02-29 12:34:56.5+00'", "'infinity'"],
    "dtext": ["'dd'"],
    "dom_arr": ["'{1,2}'"],
    "dom_dates": ["'{infinity,5874897-12-31}'"],
    "dom_mood": ["'sad'"],
    "dom_inet": ["'10.1.2.3'"],
    "dom_money": ["12.34"],
    "dom_comp": ["row(1,'x')::comp"],
    "dom_range": ["'[1,5)'"],
    "comp": ["row(1,'x,y')", "row(null,'')", "row(null,null)", "row(-1,E'a\"b\\\\c\\n')"],
    "deep": ["row(row(1,'(x)')::comp, array[1.5,null]::numeric(10,2)[], '2024-10-27 02:30:00+02')", "null::deep"],
    "odd.date": ["'not a date'"],
    'odd."numeric"': ["'not a number'"],
    'odd."timestamp"': ["'infinity'"],
    'odd."int4"': ["row(7)"],
    "tsvector": ["'a fat cat'", "$$'a b':1A,2B 'it''s':3$$", "''"],
    "tsquery": ["'fat & cat'", "'!a <-> (b:*A | c)'"],
    "oid": ["0", "4294967295"],
    "regclass": ["'pg_class'", "0", "4294967295"],
    "regtype": ["'int4'", "'mood[]'"],
    "regproc": ["'now'"],
    "regprocedure": ["'abs(int4)'"],
    "regoper": ["'pg_catalog.||/'"],
    "regoperator": ["'+(int4,int4)'"],
    "regrole": ["'pg_monitor'"],
    "regconfig": ["'english'"],
    "regdictionary": ["'simple'"],
    "regcollation": ["'\"C\"'"],
    "regnamespace": ["'pg_catalog'"],
    "xid": ["'123'"],
    "xid8": ["'123'", "'9223372036854775808'", "'18446744073709551615'"],
    "cid": ["'1'"],
    "tid": ["'(0,1)'"],
    "pg_lsn": ["'16/B374D848'", "'0/0'", "'FFFFFFFF/FFFFFFFF'"],
    "txid_snapshot": ["'10:20:10,14'"],
    "pg_snapshot": ["'10:20:10,14'"],
    "refcursor": ["'c'"],
    "int2vector": ["'1 2'"],
    "oidvector": ["'1 2'"],
    "aclitem": ["'pg_monitor=r/pg_monitor'", "'=r*/pg_monitor'"],
    # Without input: what the catalog itself is made of.
    "pg_node_tree": ["(select adbin from pg_attrdef where adrelid = 'statistic'::regclass)"],
    "pg_ndistinct": ["(select stxdndistinct from pg_statistic_ext_data)"],
    "pg_dependencies": ["(select stxddependencies from pg_statistic_ext_data)"],
    "pg_mcv_list": ["(select stxdmcv from pg_statistic_ext_data)"],
    "gtsvector": [],
    "pg_brin_bloom_summary": [],
    "pg_brin_minmax_multi_summary": [],
}
NEGATIVE_SCALE = {"numeric(5,-2)": ["1234500", "-99999"], "numeric(2,4)": ["0.0012"]}  # since PostgreSQL 15
# Types without input, which nothing can be copied back into.
NO_INPUT = {"pg_node_tree", "pg_ndistinct", "pg_dependencies", "pg_mcv_list", "gtsvector"} | {
    "pg_brin_bloom_summary",
    "pg_brin_minmax_multi_summary",
}
EXTENSIONS: dict[str, dict[str, list[str]]] = {
    "citext": {"citext": ["'AbC'", "''"]},
    "cube": {"cube": ["'(1,2),(3,4)'", "'(0.1)'"]},
    "earthdistance": {"earth": ["ll_to_earth(40, -3)"]},
    "hstore": {"hstore": ["'a=>1,b=>NULL'", "''", """'"a b"=>"c\\"d", "=>"=>""'"""], "ghstore": []},
    "intarray": {"query_int": ["'1&(2|!3)'"], "intbig_gkey": []},
    "isn": {
        "ean13": ["'978-0-393-04002-9'"],
        "isbn13": ["'978-0-393-04002-9'"],
        "isbn": ["'0-393-04002-X'"],
        "ismn13": ["'979-0-2600-0043-8'"],
        "ismn": ["'M-2600-0043-8'"],
        "issn13": ["'977-1436-452-00-8'"],
        "issn": ["'1436-4522'"],
        "upc": ["'220356483481'"],
    },
    "lo": {"lo": ["16400"]},
    "ltree": {
        "ltree": ["'a.b.c'", "''"],
        "lquery": ["'a.*{2,}.!b'"],
        "ltxtquery": ["'a & b*'"],
        "ltree_gist": [],
    },
    "pg_trgm": {"gtrgm": []},
    "seg": {"seg": ["'1.50 .. 2'", "'~6.5'", "'< 3'"]},
    "vector": {"vector": ["'[0.1,2,3]'"], "halfvec": ["'[0.1,2]'"], "sparsevec": ["'{1:0.1,3:2}/5'"]},
}


@dataclass
class Torture:
    """The two tables, ``torture`` and ``arrays``, on one connection. ``absent`` is what this server does not have."""

    conn: psycopg.Connection
    columns: dict[str, dict[str, str]] = field(default_factory=dict)  # by table: column name -> declaration
    values: dict[str, dict[str, int]] = field(default_factory=dict)  # by table: column name -> number of values
    absent: list[str] = field(default_factory=list)

    def create(self) -> None:
        """Make the types and fill the tables."""
        self.conn.execute("set client_min_messages = error")
        types = dict(TYPES)
        available = {name for (name,) in self.conn.execute("select name from pg_available_extensions")}
        for name, added in EXTENSIONS.items():
            if name not in available:
                self.absent += added
                continue
            self.conn.execute(f"create extension {name} cascade")
            types |= added
        self.conn.execute(SETUP)
        if self.conn.info.server_version >= 150000:
            types |= NEGATIVE_SCALE
        if self.conn.info.server_version >= 170000:
            types["interval"] = [*types["interval"], "'infinity'", "'-infinity'"]
        try:
            self.conn.execute("select '<a/>'::xml")
        except psycopg.errors.FeatureNotSupported:  # built without libxml
            del types["xml"]
            self.absent.append("xml")
        self._table("torture", types)
        arrays = _arrays(types).items()
        # The catalog's own types have no arrays.
        self._table(
            "arrays", {d: v for d, v in arrays if self.conn.execute("select to_regtype(%s)", (d,)).fetchone()[0]}
        )
        self.conn.execute(ALTERED)

    def _table(self, table: str, types: dict[str, list[str]]) -> None:
        names = {f"c{number}": declared for number, declared in enumerate(types)}
        self.columns[table] = names
        self.values[table] = {name: len(types[declared]) for name, declared in names.items()}
        self.conn.execute(f"create table {table} (k int, {', '.join(f'{n} {d}' for n, d in names.items())})")
        # One row more than the longest list: a NULL of each, but serials are not nullable.
        serial = {name: d.replace("serial", "int") for name, d in names.items() if d.endswith("serial")}
        for row in range(max(map(len, types.values())) + 1):
            given = {"k": str(row)} | dict.fromkeys(serial, "0")
            given |= {n: f"({types[d][row]})::{serial.get(n, d)}" for n, d in names.items() if row < len(types[d])}
            self.conn.execute(f"insert into {table} ({', '.join(given)}) values ({', '.join(given.values())})".encode())


def _arrays(types: dict[str, list[str]]) -> dict[str, list[str]]:
    """An array of each type: all its values and a NULL, none, two dimensions."""
    found = {}
    for declared, values in types.items():
        if declared.endswith(("serial", "[]")):
            continue
        cast = [f"({value})::{declared}" for value in values if len(value) < 10_000]
        listed = f"array[{', '.join([*cast, 'null'])}]::{declared}[]"
        shapes = [f"array[array[{cast[0]}], array[{cast[-1]}]]"] if cast else []
        found[f"{declared}[]"] = [listed, f"'{{}}'::{declared}[]", *shapes]
    return found
