"""Changes of a table between two ticks and during a read: what is copied and reported, and that nothing is lost."""

import itertools
import threading

import pytest

from pg_bronze.errors import SettingsError, TableChanged
from pg_bronze.postgres.connection import Source
from pg_bronze_tests.harness.lake import SAME, Lake
from pg_bronze_tests.harness.repetitions import also
from pg_bronze_tests.harness.servers import fresh_database, new_bucket

_number = itertools.count(1)
FILM = """create table {t} (
  id int primary key, title varchar(10), price numeric(10,2), seen_at timestamptz default now(), mood {t}_mood
)"""


@pytest.fixture(scope="module")
def place(postgres_server, s3_server):
    """One database and one bucket for all tables of this module."""
    made = new_bucket(s3_server)
    with fresh_database(postgres_server) as database:
        yield database, made
    made.remove()


class Film:
    """A new table with three rows, copied once."""

    def __init__(self, place) -> None:
        self.database, bucket = place
        self.name = f"film{next(_number)}"
        self.lake = Lake(self.database, bucket.store())
        self.sql("create type {t}_mood as enum ('sad', 'happy')")
        self.sql(FILM)
        self.insert(1, 2, 3)
        self.lake.drain(self.name)

    def sql(self, query: str):
        with self.database.connect() as connection:
            for statement in query.split(";"):
                connection.execute(statement.replace("{t}", self.name))

    def insert(self, *ids: int) -> None:
        self.sql(f"insert into {{t}} (id) values {', '.join(f'({number})' for number in ids)}")

    def tick(self, **options):
        return self.lake.tick(self.name, **options)

    @property
    def drift(self) -> tuple[str, ...]:
        return self.lake.footers(self.name)[-1].drift

    @property
    def columns(self) -> dict[str, str]:
        return {column["name"]: column["stored"] for column in self.lake.footers(self.name)[-1].columns}

    def is_exact(self) -> bool:
        """Run ticks until quiet, and return whether the lake contains what the table contains."""
        self.lake.drain(self.name)
        return self.lake.compare(self.name, "id") == SAME


@pytest.fixture
def film(place) -> Film:
    return Film(place)


# The change; how many of the rows 1, 2 and 3 are copied again; the drift; the columns stored differently.
PRICE = "Decimal(precision=10, scale=2)"
BEFORE = {
    "id": "Int32",
    "title": "String",
    "price": PRICE,
    "seen_at": "Datetime(time_unit='us', time_zone='UTC')",
    "mood": "String",
}
CHANGES = {
    "added": (
        "alter table {t} add x int",
        0,
        ("column 'x' (integer) was added; rows copied earlier have NULL until they are copied again",),
        {"x": "Int32"},
    ),
    "added with a constant default": (
        "alter table {t} add x int default 7",
        0,
        ("column 'x' (integer) was added; rows copied earlier have its default, which is in this object's footer",),
        {"x": "Int32"},
    ),
    "added with a volatile default": (
        "alter table {t} add x text default gen_random_uuid()::text",
        3,
        ("column 'x' (text) was added; rows copied earlier have NULL until they are copied again",),
        {"x": "String"},
    ),
    "added as a stored computation": (
        "alter table {t} add x int generated always as (id * 2) stored",
        3,
        ("column 'x' (integer) was added; rows copied earlier have NULL until they are copied again",),
        {"x": "Int32"},
    ),
    "dropped": ("alter table {t} drop price", 0, ("column 'price' (numeric(10,2)) was dropped",), {"price": None}),
    "dropped and added again": (
        "alter table {t} drop title, add title text",
        0,
        (
            "column 'title' (character varying(10)) was dropped",
            "column 'title' (text) was added; rows copied earlier have NULL until they are copied again",
        ),
        {},
    ),
    "renamed": (
        "alter table {t} rename title to name",
        0,
        ("column 'title' was renamed to 'name'",),
        {"title": None, "name": "String"},
    ),
    "two that swap their names": (
        "alter table {t} rename title to x;alter table {t} rename mood to title;alter table {t} rename x to mood",
        0,
        ("column 'title' was renamed to 'mood'", "column 'mood' was renamed to 'title'"),
        {},
    ),
    "int widened": (
        "alter table {t} alter id type bigint",
        3,
        (
            "column 'id' changed its type from integer to bigint",
            "column 'id' is now stored as Int64, previously as Int32",
        ),
        {"id": "Int64"},
    ),
    "text widened": (
        "alter table {t} alter title type varchar(20)",
        0,
        ("column 'title' changed its type from character varying(10) to character varying(20)",),
        {},
    ),
    "number widened": (
        "alter table {t} alter price type numeric(12,2)",
        0,
        (
            "column 'price' changed its type from numeric(10,2) to numeric(12,2)",
            f"column 'price' is now stored as Decimal(precision=12, scale=2), previously as {PRICE}",
        ),
        {"price": "Decimal(precision=12, scale=2)"},
    ),
    "number narrowed": (
        "alter table {t} alter price type numeric(8,1)",
        3,
        (
            "column 'price' changed its type from numeric(10,2) to numeric(8,1)",
            f"column 'price' is now stored as Decimal(precision=8, scale=1), previously as {PRICE}",
        ),
        {"price": "Decimal(precision=8, scale=1)"},
    ),
    "int to text": (
        "alter table {t} alter id type text",
        3,
        (
            "column 'id' changed its type from integer to text",
            "column 'id' is now stored as String, previously as Int32",
            "progress is shown by no column now, before by 'id'",
        ),
        {"id": "String"},
    ),
    "text to int": (
        "alter table {t} alter title type int using length(title)",
        3,
        (
            "column 'title' changed its type from character varying(10) to integer",
            "column 'title' is now stored as Int32, previously as String",
        ),
        {"title": "Int32"},
    ),
    "a value of an enum added": (
        "alter type {t}_mood add value 'so so' before 'happy'",
        0,
        ("column 'mood' now also allows 'so so'",),
        {},
    ),
    "the key changed": (
        "alter table {t} drop constraint {t}_pkey;alter table {t} add primary key (id, seen_at)",
        0,
        ("the primary key changed from (id) to (id, seen_at)",),
        {},
    ),
    "a column with our name": (
        "alter table {t} add _pg_xid int",
        0,
        (
            "column '_pg_xid' (integer) was added; rows copied earlier have NULL until they are copied again",
            "the added column was renamed from '_pg_xid' to '_pg_xid_1'",
        ),
        {"_pg_xid": "Int32"},
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_between_ticks_loses_nothing_and_is_reported_once(film, change):
    query, again, sentences, stored = CHANGES[change]
    film.sql(query)
    film.insert(4)

    outcome = film.tick()

    assert outcome.row_count == again + 1
    assert film.drift == sentences
    assert outcome.committed[0].drift == sentences
    assert film.columns == {name: dtype for name, dtype in {**BEFORE, **stored}.items() if dtype}
    film.insert(5)
    film.tick()
    assert film.drift == ()
    assert film.is_exact()


# Every second one; all of them happen between two ticks above.
@pytest.mark.parametrize("change", [*list(CHANGES)[::2], *also(*list(CHANGES)[1::2])])
def test_a_change_between_plan_and_read_loses_nothing(film, change, monkeypatch):
    """The planned query names columns, types and a table that do not exist any more."""
    original, left = Source.read_sent, [CHANGES[change][0]]

    def alter_and_read(self, query, label):
        if left:
            film.sql(left.pop())
        return original(self, query, label)

    film.insert(4)
    monkeypatch.setattr(Source, "read_sent", alter_and_read)
    film.tick()

    assert not left
    film.insert(5)
    assert film.is_exact()
    drift = [sentence for footer in film.lake.footers(film.name) for sentence in footer.drift]
    assert drift == list(CHANGES[change][2])


def test_a_read_that_waits_for_a_rewrite_does_not_find_the_table_empty(film, monkeypatch):
    """Its snapshot is older than the rewritten rows, so PostgreSQL returns no row."""
    film.insert(4)
    original, done = Source.read_sent, threading.Event()
    holder = film.database.connect(autocommit=False)

    def commit_once_a_lock_is_awaited() -> None:
        with film.database.connect() as watch:
            while not watch.execute("select count(*) from pg_locks where not granted").fetchone()[0]:
                pass
        holder.commit()
        done.set()

    def wait_and_read(self, query, label):
        if not done.is_set():
            holder.execute(f"alter table {film.name} alter price type numeric(12,1)")
            threading.Thread(target=commit_once_a_lock_is_awaited, daemon=True).start()
        return original(self, query, label)

    monkeypatch.setattr(Source, "read_sent", wait_and_read)
    film.tick()
    holder.close()

    assert done.is_set()
    assert film.is_exact()


def test_each_of_several_changes_is_one_sentence(film):
    film.sql("alter table {t} drop price;alter table {t} rename title to name;alter table {t} add x int")
    film.insert(4)

    film.tick()

    assert len(film.drift) == 3


def test_the_drift_of_an_adopted_object_is_reported(film):
    """A crash after the PUT must not hide the change."""
    film.sql("alter table {t} drop price")
    film.insert(4)
    assert film.lake.crash("put", film.name)

    outcome = film.tick()

    assert [item.drift for item in outcome.adopted] == [("column 'price' (numeric(10,2)) was dropped",)]


def test_a_renamed_enum_value_is_reported_as_valid_for_new_rows_only(film):
    film.sql("update {t} set mood = 'happy';insert into {t} (id) values (4)")
    film.tick()
    film.sql("alter type {t}_mood rename value 'happy' to 'glad';insert into {t} (id, mood) values (5, 'glad')")

    film.tick()

    assert film.drift[0] == "column 'mood' no longer allows 'happy'; rows copied earlier keep the old text"
    assert film.lake.frames(film.name)[-1]["mood"].to_list() == ["glad"]


@pytest.mark.parametrize("settle", ["vacuum full {t}", "cluster {t} using {t}_pkey"])
def test_a_default_that_a_rewrite_put_into_every_row_is_found_in_a_row(film, settle):
    """The catalog does not keep it any more, and the rows are not copied again: they would be read as NULL."""
    film.sql("alter table {t} add x numeric(9,2) default 7.5;alter table {t} add y text;" + settle)
    film.insert(4)

    assert film.tick().row_count == 1

    missing = {column["name"]: column.get("missing") for column in film.lake.footers(film.name)[-1].columns}
    assert (missing["x"], missing["y"]) == ("7.50", None)
    assert "have its default" in film.drift[0]
    film.insert(5)
    film.tick()
    assert film.drift == ()
    assert film.is_exact()


def test_another_cursor_column_starts_with_its_own_values(film):
    """A higher value of the former cursor column would stay in etl_control forever."""
    film.sql("alter table {t} add updated_at timestamptz;update {t} set updated_at = '2031-01-01'")
    film.tick()
    film.sql("alter table {t} drop updated_at;alter table {t} add created_at timestamptz")
    film.sql("insert into {t} (id, created_at) values (4, '2030-01-01')")

    outcome = film.tick()

    assert "progress is shown by 'created_at' now, before by 'updated_at'" in film.drift
    assert outcome.watermark.cursor.startswith("2030-01-01")


@pytest.mark.parametrize("change", ["drop seen_at", "rename seen_at to x", "alter seen_at type text"])
def test_a_configured_cursor_column_that_no_longer_fits_stops_the_table(film, change):
    film.insert(4)
    film.tick(cursor_column="seen_at")
    film.sql("alter table {t} " + change)
    film.insert(5)

    with pytest.raises(SettingsError, match=f"{film.name}: the cursor column 'seen_at'"):
        film.tick(cursor_column="seen_at")

    assert film.is_exact()


GONE = {
    "dropped": "drop table {t}",
    "renamed": "alter table {t} rename to {t}_x",
    "moved to another schema": "create schema if not exists side;alter table {t} set schema side",
}


@pytest.mark.parametrize("change", GONE)
@pytest.mark.parametrize("moment", ["between ticks", "in a read"])
def test_a_table_that_does_not_exist_any_more_is_reported_and_keeps_its_objects(film, change, moment, monkeypatch):
    film.insert(4)
    kept = film.lake.keys(film.name)
    with film.lake.source() as source, film.lake.open(source, film.name) as sync:
        if moment == "between ticks":
            film.sql(GONE[change])
        else:
            original = Source.read_sent
            monkeypatch.setattr(Source, "read_sent", lambda *a: (film.sql(GONE[change]), original(*a))[1])
        with pytest.raises(TableChanged, match=r"does not exist any more\. The catalog is read again within a minute"):
            sync.start(film.lake.recorded[film.name])
    monkeypatch.undo()

    assert film.lake.keys(film.name) == kept
    if change != "dropped":
        new = f"{film.name}_x" if change == "renamed" else f"side:{film.name}"
        film.lake.drain(new)
        assert film.lake.compare(new, "id") == SAME
        assert film.lake.column("id", new) == [1, 2, 3, 4]


def test_a_table_created_again_during_a_read_is_a_new_generation(film, monkeypatch):
    original, left = Source.read_sent, [f"drop table {film.name};{FILM}"]

    def swap_and_read(self, query, label):
        if left:
            film.sql(left.pop())
            film.insert(7)
        return original(self, query, label)

    film.insert(4)
    monkeypatch.setattr(Source, "read_sent", swap_and_read)
    film.tick()

    assert film.is_exact()
    assert film.lake.column("id", film.name) == [7]
    assert "another table" in film.lake.footers(film.name)[0].reason
    assert all(footer.drift == () for footer in film.lake.footers(film.name))


PARTS = """create table {t}_sale (id int, kind int, at timestamptz default now()) partition by list (kind);
create table {t}_sale1 partition of {t}_sale for values in (1);
create table {t}_sale2 partition of {t}_sale for values in (2);
insert into {t}_sale values (1, 1), (2, 2)"""


def test_attached_and_detached_partitions_are_reported_once(film):
    film.sql(PARTS)
    table = f"{film.name}_sale"
    [first] = film.lake.drain(table)[:1]
    assert all(item.drift == () for item in first.committed)
    film.sql(
        "create table {t}_sale3 (like {t}_sale);insert into {t}_sale3 values (3, 3);"
        "alter table {t}_sale attach partition {t}_sale3 for values in (3)"
    )
    attached = film.lake.tick(table)
    film.sql("alter table {t}_sale detach partition {t}_sale2;insert into {t}_sale values (4, 1)")
    detached = film.lake.tick(table)
    film.sql("insert into {t}_sale values (5, 1)")
    later = film.lake.tick(table)

    drift = [
        [sentence for item in outcome.committed for sentence in item.drift] for outcome in (attached, detached, later)
    ]
    assert drift[0] == [f"partition '{film.name}_sale3' is new, and is copied completely"]
    assert [sentence.split(" (oid")[0] for sentence in drift[1]] == ["a partition"]
    assert drift[2] == []
    assert film.lake.column("id", table) == [1, 2, 3, 4, 5]


def test_a_default_of_a_partitioned_table_is_found_in_a_row(film):
    film.sql(PARTS)
    table = f"{film.name}_sale"
    film.lake.drain(table)
    film.sql("alter table {t}_sale add x int default 7;insert into {t}_sale values (3, 1)")

    film.lake.tick(table)

    assert [column.get("missing") for column in film.lake.footers(table)[-1].columns] == [None, None, None, "7"]
    assert film.lake.compare(table, "id") == SAME


def test_a_virtual_column_is_copied_with_new_rows_only_and_that_is_reported(film, postgres_server):
    if postgres_server.version < 18:
        pytest.skip("virtual columns came with PostgreSQL 18")
    film.sql("alter table {t} add x int generated always as (id * 2) virtual")
    film.insert(4)

    film.tick()

    assert film.lake.frames(film.name)[-1]["x"].to_list() == [8]
    assert film.drift == ("column 'x' (integer) was added; rows copied earlier do not have its computed values",)
    described = film.lake.footers(film.name)[-1].columns[-1]
    assert (described["generated"], described["generated_as"]) == ("virtual", "(id * 2)")
