"""Databases in other encodings than UTF-8: the lake is UTF-8, and no text is changed or lost."""

import hashlib
import itertools

import pytest

from pg_bronze.core.column_choices import ColumnChoices
from pg_bronze.errors import NotUtf8
from pg_bronze.postgres import catalog
from pg_bronze.settings.choices import Mask
from pg_bronze_tests.harness.lake import Lake
from pg_bronze_tests.harness.servers import Database

_number = itertools.count(1)


@pytest.fixture
def database_in(postgres_server):
    """Creates a database in an encoding; the locale C fits every encoding."""
    made = []

    def make(encoding: str) -> Database:
        name = f"encoded_{next(_number)}"
        with postgres_server.connect() as connection:
            connection.autocommit = True
            connection.execute(
                f"create database {name} encoding '{encoding}' template template0 locale_provider libc locale 'C'"
            )
        made.append(name)
        return Database(postgres_server, name)

    yield make
    with postgres_server.connect() as connection:
        connection.autocommit = True
        for name in made:
            connection.execute(f"drop database {name} with (force)")


def test_every_character_of_latin1_is_exact(database_in, bucket):
    database = database_in("LATIN1")
    texts = ["".join(map(chr, range(1, 128))), "".join(map(chr, range(160, 256))), "ñandú", ""]
    with database.connect(client_encoding="utf8") as connection:
        connection.execute('create table movie (movie_id int, "título" text, tags varchar[], kind "char")')
        for number, text in enumerate(texts):
            connection.execute("insert into movie values (%s, %s, %s, 'x')", (number, text, [text, "é"]))
        connection.execute("create type mood as enum ('añejo'); alter table movie add mood mood default 'añejo'")
        printed = connection.execute("select tags::text, mood::text from movie order by movie_id").fetchall()
    lake = Lake(database, bucket.store())

    lake.tick()

    frame = lake.rows().sort("movie_id")
    assert frame["título"].to_list() == texts
    assert frame.select("tags", "mood").rows() == printed


def raw(database, query: bytes) -> None:
    """Run a statement whose bytes reach the server unchanged."""
    with database.connect(client_encoding="SQL_ASCII") as connection:
        connection.execute(query)


def test_bytes_that_are_not_utf8_are_hashed_as_they_are(database_in, bucket):
    """A masked column stops no table because of the values that nobody wants to read."""
    database = database_in("SQL_ASCII")
    raw(database, b"create table movie (movie_id int, title text); insert into movie values (1, 'ma\xf1ana')")
    lake = Lake(database, bucket.store())

    lake.tick(columns=ColumnChoices(masks={"title": Mask("sha256")}))

    assert lake.rows()["title"].to_list() == [hashlib.sha256(b"ma\xf1ana").hexdigest()]


def test_bytes_that_are_not_utf8_stop_the_table_and_name_the_column(database_in, bucket):
    database = database_in("SQL_ASCII")
    raw(database, b"create table movie (movie_id int, title text, note varchar(20), tags text[], raw bytea)")
    valid = ["\x7f", "\u0080", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff", "ñ 🎬"]
    for number, text in enumerate(valid):
        raw(database, f"insert into movie values ({number}, '{text}', '{text}', array['{text}'], '\\xff')".encode())
    lake = Lake(database, bucket.store())
    lake.tick()
    assert lake.rows().sort("movie_id")["title"].to_list() == valid
    wrong = [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"a\xc3", b"\xe0\x80\x80"]
    for number, text in enumerate(wrong):
        raw(database, b"insert into movie values (%d, '%s', 'x', array['%s'])" % (100 + number, text, text))

    with pytest.raises(NotUtf8, match=r"^movie: .* 'title' \(6 rows\), 'tags' \(6 rows\)\. .*SQL_ASCII") as error:
        lake.tick()

    assert "note" not in str(error.value)
    remedy = str(error.value).split("set the column to ")[1].split(". Or")[0]
    tags = b"delete from movie where movie_id > 100; update movie set tags = null, title = "
    raw(database, tags + remedy.replace("column", "title").encode() + b" where movie_id = 100")
    lake.drain()
    assert lake.rows().sort("movie_id")["title"].to_list()[-1] == "ÿ"


def test_a_character_missing_from_unicode_stops_the_table(database_in, bucket):
    database = database_in("EUC_JP")
    with database.connect(client_encoding="utf8") as connection:
        connection.execute("create table movie (movie_id int, title text); insert into movie values (1, '映画')")
    lake = Lake(database, bucket.store())
    lake.tick()
    assert lake.rows()["title"].to_list() == ["映画"]
    raw(database, b"insert into movie values (2, E'\\xa2\\xc8')")

    with pytest.raises(NotUtf8, match=r"^movie: a text is not valid UTF-8, or has no equivalent"):
        lake.tick()


@pytest.mark.parametrize(
    "statement",
    [
        b'create table "a\xf1o" (id int)',
        b"create table odd (id int); comment on table odd is 'a\xf1o'",
        b'create table odd ("a\xf1o" int)',
        b"create table odd (id int); comment on column odd.id is 'a\xf1o'",
        b'create type "a\xf1o" as enum (\'x\'); create table odd (id "a\xf1o")',
        b'create schema "a\xf1o"; create table "a\xf1o".odd (id int)',
        b'create table odd (id int) partition by list (id); create table "a\xf1o" partition of odd for values in (1)',
        b'create view "a\xf1o" as select 1',
    ],
    ids=["table", "comment", "column", "column comment", "type", "schema", "partition", "view"],
)
def test_a_name_that_is_not_utf8_costs_its_table_alone(database_in, bucket, statement):
    """The server refuses the whole catalog for one such text: nothing would be copied, and no new table seen."""
    database = database_in("SQL_ASCII")
    raw(database, b"create table movie (movie_id int); insert into movie values (1); create table person (id int)")
    raw(database, statement)

    with database.connect(client_encoding="utf8") as connection:
        tables = {table.name: table for table in catalog.read_catalog(connection).tables}

    assert {"movie", "person"} < set(tables)
    assert tables["movie"].skipped is None
    (odd,) = set(tables) - {"movie", "person"}
    assert "not valid UTF-8" in tables[odd].skipped
    assert odd.isascii()
    lake = Lake(database, bucket.store())
    with lake.source() as source:
        assert {("public", "movie"), ("public", "person")} <= set(source.activity().oids)
    lake.tick()
    assert lake.rows()["movie_id"].to_list() == [1]
