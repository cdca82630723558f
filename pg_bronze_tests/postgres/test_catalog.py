import dataclasses
from collections.abc import Callable, Iterator
from uuid import uuid4

import psycopg
import pytest

from pg_bronze.core.table import Column
from pg_bronze.postgres.catalog import Catalog, _unreadable, read_catalog, read_table


@pytest.fixture
def database(any_database):
    """Run every test of this module on every version."""
    return any_database


@pytest.fixture
def sql(database) -> Iterator[psycopg.Connection]:
    with database.connect() as conn:
        yield conn


@pytest.fixture
def role(sql) -> Iterator[str]:
    """A role without rights, for `set role`."""
    name = f"reader_{uuid4().hex[:12]}"
    sql.execute(f"create role {name}")
    yield name
    sql.execute("reset role")
    sql.execute(f"drop owned by {name}")
    sql.execute(f"drop role {name}")


@pytest.fixture
def fingerprint(sql) -> Callable[..., str]:
    """Returns the fingerprint of a table."""

    def current(name: str = "movie", schema: str = "public") -> str:
        found = read_table(sql, schema, name)
        assert found is not None
        return found.fingerprint

    return current


def skipped(sql: psycopg.Connection, name: str) -> str:
    found = read_catalog(sql).table("public", name)
    assert found is not None
    return found.skipped or ""


def test_a_table_is_described_with_domains_resolved(sql):
    sql.execute(
        """
        create domain price as numeric(10,2);
        create domain net as price;
        create domain loose as numeric;
        create type mood as enum ('sad', 'happy');
        create table movie (
          gone int, a int not null, n net, l loose, m mood, ms mood[], w varchar(10), t text collate "C",
          at timestamptz(3), "Ünï ""q" uuid, primary key (w, a)
        );
        alter table movie drop column gone;
        comment on table movie is 'films';
        comment on column movie.n is 'before tax';
        """
    )

    movie = read_table(sql, "public", "movie")

    assert movie is not None
    assert (movie.label, movie.comment, movie.primary_key, movie.skipped) == ("movie", "films", ("w", "a"), None)
    price = (10 << 16 | 2) + 4
    assert movie.columns == (
        Column(2, "a", "integer", "int4", -1, True),
        Column(3, "n", "net", "numeric", price, False, "before tax"),
        Column(4, "l", "loose", "numeric", -1, False),
        Column(5, "m", "mood", "public.mood", -1, False, labels=("sad", "happy")),
        Column(6, "ms", "mood[]", "public._mood", -1, False, labels=("sad", "happy"), dimensions=1),
        Column(7, "w", "character varying(10)", "varchar", 14, True),
        Column(8, "t", "text", "text", -1, False, collation="pg_catalog.C", deterministic=True),
        Column(9, "at", "timestamp(3) with time zone", "timestamptz", 3, False),
        Column(10, 'Ünï "q', "uuid", "uuid", -1, False),
    )
    # Facts that only footers record are read for one table at a time.
    brief = tuple(
        dataclasses.replace(column, labels=None, dimensions=None, deterministic=None) for column in movie.columns
    )
    assert read_catalog(sql).table("public", "movie") == dataclasses.replace(movie, columns=brief)


def test_the_extension_of_a_type_is_recorded(sql):
    """Its name alone does not show what a type is."""
    sql.execute(
        """create schema ext; create extension citext schema ext; create schema x; create type x.citext as (a text);
        create domain word as ext.citext;
        create table movie (a ext.citext, b word, c ext.citext[], d x.citext, e text)"""
    )

    columns = read_table(sql, "public", "movie").columns

    assert [column.extension for column in columns] == ["citext", "citext", None, None, None]


def test_a_collation_that_is_not_deterministic_is_recorded(sql):
    """Two texts can be one key then."""
    # PostgreSQL 18 is built without ICU here, whose collations alone can be created like this.
    sql.execute(
        "create collation ci from \"C\"; update pg_collation set collisdeterministic = false where collname = 'ci'"
    )
    sql.execute("create domain word text collate ci; create table movie (a text, b text collate ci, c word, d text[])")

    columns = read_table(sql, "public", "movie").columns

    assert [column.deterministic for column in columns] == [None, False, False, None]
    assert columns[2].collation == "public.ci"


def test_the_catalog_has_every_table_once_with_the_reason_for_skipping_it(sql):
    sql.execute(
        """
        create schema sales;
        create table sales.movie (id int);
        create table movie (id int);
        create table etl_control (id int);
        create table sales.etl_control (id int);
        create temp table scratch (id int);
        create unlogged table fast (id int);
        create table empty ();
        create view v as select 1 as one;
        create materialized view mv as select 1 as one;
        create table parent (id int);
        create table child () inherits (parent);
        create table days (day date, kind int) partition by range (day);
        create table day1 partition of days for values from ('2025-01-01') to ('2025-01-02');
        create table day2 partition of days for values from ('2025-01-02') to ('2025-01-03') partition by list (kind);
        create table day2_rest partition of day2 default;
        create table none_yet (id int) partition by list (id);
        create foreign data wrapper nowhere;
        create server far foreign data wrapper nowhere;
        create foreign table f (id int) server far;
        """
    )

    catalog = read_catalog(sql)

    copied = {table.label: [leaf.name for leaf in table.relations] for table in catalog.tables if not table.skipped}
    assert copied == {
        "child": ["child"],
        "days": ["day1", "day2_rest"],
        "empty": ["empty"],
        "fast": ["fast"],
        "movie": ["movie"],
        "none_yet": [],
        "parent": ["parent"],
        "sales.etl_control": ["etl_control"],
        "sales.movie": ["movie"],
    }
    assert {table.label: table.skipped for table in catalog.tables if table.skipped} == {
        "f": "it is a foreign table, whose rows carry no transaction id",
        "mv": "it is a materialized view, whose rows carry no transaction id",
        "v": "it is a view, whose rows carry no transaction id",
    }
    assert [t.label for t in catalog.tables if t.partitioned] == ["days", "none_yet"]
    assert Catalog.from_text(catalog.to_text()) == catalog
    assert catalog.server_version == sql.info.server_version
    assert catalog.database == sql.info.dbname


def test_a_missing_table_is_none(sql):
    assert read_table(sql, "public", "movie") is None
    sql.execute("create table etl_control (id int)")
    assert read_table(sql, "public", "etl_control") is None


@pytest.mark.parametrize(
    "search_path, copied",
    [
        ("public, sales", ["sales.etl_control"]),
        ("sales, public", ["etl_control"]),
        ("movies, sales", ["etl_control"]),  # it has no table of that name
        ("pg_catalog", ["etl_control", "sales.etl_control"]),
    ],
)
def test_only_the_control_table_itself_is_left_out(sql, search_path, copied):
    """A table of that name in another schema would be missing from the lake without a reason."""
    sql.execute("create schema sales; create schema movies; create table movies.movie (id int)")
    sql.execute("create table etl_control (id int); create table sales.etl_control (id int)")
    sql.execute(f"set search_path = {search_path}")

    assert [table.label for table in read_catalog(sql).tables if table.name == "etl_control"] == copied


def test_a_foreign_partition_or_access_method_skips_the_whole_table(sql):
    """Reading only the other partitions would look like a complete copy."""
    sql.execute(
        """
        create foreign data wrapper nowhere;
        create server far foreign data wrapper nowhere;
        create table days (day date) partition by range (day);
        create foreign table day1 partition of days for values from ('2025-01-01') to ('2025-01-02') server far;
        create access method other type table handler heap_tableam_handler;
        create table odd (id int) using other;
        """
    )
    assert skipped(sql, "days").startswith("its partition public.day1 is a foreign table")
    assert "access method other" in skipped(sql, "odd")


def test_an_unlogged_table_is_skipped_on_a_standby_only():
    node = {"kind": "r", "method": "heap", "persistence": "u", "standby": True}
    assert "read it from the primary" in str(_unreadable(node))


def test_a_table_skipped_for_a_missing_right_names_the_grant(sql, role):
    sql.execute('create schema shut; create table shut.t (id int); create table movie (id int, "a b" int)')
    sql.execute(f"set role {role}")
    closed = read_table(sql, "shut", "t")
    assert closed is not None
    assert closed.skipped == f'it is in a schema that this role may not use; grant usage on schema "shut" to "{role}"'
    assert skipped(sql, "movie") == f'it may not be read by this role; grant select on "public"."movie" to "{role}"'

    sql.execute("reset role")
    sql.execute(f"grant select (id) on movie to {role}")
    sql.execute(f"set role {role}")
    assert f'grant select (xmin, ctid, "a b") on "public"."movie" to "{role}"' in skipped(sql, "movie")


def test_the_named_grants_are_enough(sql, role):
    sql.execute('create table movie (id int, "a b" int)')
    sql.execute(f'grant select (id) on movie to {role}; grant select (xmin, ctid, "a b") on "public"."movie" to {role}')
    sql.execute(f"set role {role}")
    assert skipped(sql, "movie") == ""
    assert sql.execute('select id, "a b", xmin, ctid from only movie').fetchall() == []


def test_a_closed_partition_skips_the_table_and_a_closed_one_in_between_does_not(sql, role):
    sql.execute(
        f"""
        create table days (day date, kind int) partition by range (day);
        create table day2 partition of days for values from ('2025-01-02') to ('2025-01-03') partition by list (kind);
        create table rest partition of day2 default;
        grant select on days to {role};
        """
    )
    sql.execute(f"set role {role}")
    assert f'its partition public.rest may not be read by this role; grant select on "public"."rest" to "{role}"' == (
        skipped(sql, "days")
    )
    sql.execute(f"reset role; grant select on rest to {role}; set role {role}")
    assert skipped(sql, "days") == ""


@pytest.mark.parametrize("row_security", ["on", "off"])
def test_row_security_skips_a_table_where_it_applies_to_this_role(sql, role, row_security):
    """A policy filters silently: the hidden rows would count as copied."""
    sql.execute(f"set row_security = {row_security}")
    sql.execute("create table movie (id int); create table forced (id int)")
    sql.execute(f"grant select on movie, forced to {role}")
    sql.execute("alter table movie enable row level security; alter table forced enable row level security")
    sql.execute(f"alter table forced force row level security; grant create on schema public to {role}")
    sql.execute(f"alter table forced owner to {role}")
    assert skipped(sql, "movie") == ""  # a superuser passes every policy
    sql.execute(f"set role {role}")
    assert "row-level security" in skipped(sql, "movie")
    assert "row-level security" in skipped(sql, "forced")
    sql.execute(f"reset role; alter role {role} bypassrls; set role {role}")
    assert skipped(sql, "movie") == ""


def test_sizes_are_measured_for_one_table_and_estimated_for_all(sql):
    sql.execute("create table movie (id int, t text)")
    sql.execute("alter table movie alter t set storage external, set (autovacuum_enabled = off)")
    sql.execute("insert into movie select i, repeat('x', 3000) from generate_series(1, 100) i")
    measured = read_table(sql, "public", "movie")
    estimated = read_catalog(sql).table("public", "movie")
    assert measured is not None
    assert estimated is not None
    pages = sql.execute("select pg_relation_size('movie') / current_setting('block_size')::int").fetchone()
    assert (measured.relations[0].page_count,) == pages
    assert measured.relations[0].toast_page_count > measured.relations[0].page_count
    assert estimated.relations[0].page_count == 0
    sql.execute("analyze movie")
    analyzed = read_catalog(sql).table("public", "movie")
    assert analyzed is not None
    assert analyzed.row_estimate == 100
    assert analyzed.relations[0].page_count == measured.relations[0].page_count


QUIET = [
    "vacuum movie",
    "analyze movie",
    "vacuum (analyze, freeze) movie",
    "insert into movie select generate_series(1, 10000)",
    "update movie set id = id + 1",
    "delete from movie",
    "begin; lock table movie; rollback",
    "vacuum freeze pg_class; vacuum freeze pg_attribute; vacuum freeze pg_inherits; analyze",
    "create table other (id int)",
]
LOUD = [
    "alter table movie rename to film; alter table film rename to movie",
    (
        "alter table movie rename to a; alter table other rename to movie; "
        "alter table movie rename to other; alter table a rename to movie"
    ),
    "alter schema public rename to elsewhere; alter schema elsewhere rename to public",
    "alter table movie set schema side; alter table side.movie set schema public",
    "drop table movie; create table movie (id int, title varchar(10))",
    "alter table movie add x int; alter table movie drop x",
    "alter table movie rename title to t; alter table movie rename t to title",
    "alter table movie alter title type varchar(20)",
    "alter table movie alter title type varchar(20); alter table movie alter title type varchar(10)",
    "alter table movie alter id set not null",
    "vacuum full movie",
    "cluster movie using movie_id",
    "truncate movie",
    "alter table movie enable row level security; alter table movie disable row level security",
]


def run(sql: psycopg.Connection, statements: str) -> None:
    for statement in statements.split("; "):
        sql.execute(statement)


@pytest.fixture
def movie(sql) -> None:
    sql.execute(
        "create schema side; create table movie (id int, title varchar(10)); create index movie_id on movie (id)"
    )
    sql.execute("insert into movie select generate_series(1, 1000)")


@pytest.mark.usefixtures("movie")
def test_the_fingerprint_is_kept_by_writes_and_maintenance(sql, fingerprint):
    """If it changed, every read concurrent with an autovacuum would be discarded."""
    before = fingerprint()
    for statements in QUIET:
        run(sql, statements)
        assert fingerprint() == before, statements


@pytest.mark.usefixtures("movie")
@pytest.mark.parametrize("statements", LOUD)
def test_the_fingerprint_changes_even_if_the_change_is_undone(sql, fingerprint, statements):
    """Two equal fingerprints must mean that the rows in between came from one and the same table."""
    if "other" in statements:
        sql.execute("create table other (id int, title varchar(10))")
    before = fingerprint()
    run(sql, statements)
    assert fingerprint() != before


DAYS = """
create table days (day date, n int) partition by range (day);
create table day1 partition of days for values from ('2025-01-01') to ('2025-01-02');
create table day2 partition of days for values from ('2025-01-02') to ('2025-01-03') partition by list (n);
create table rest partition of day2 default;
"""
DAY1 = "alter table days attach partition day1 for values from ('2025-01-01') to ('2025-01-02')"
DAY2 = "alter table days attach partition day2 for values from ('2025-01-02') to ('2025-01-03')"


def test_a_partitioned_tables_fingerprint_is_kept_by_maintenance(sql, fingerprint):
    sql.execute(DAYS)
    before = fingerprint("days")
    for statements in [
        "insert into days values ('2025-01-01', 1), ('2025-01-02', 2)",
        "vacuum (analyze, freeze) days",
        "vacuum freeze pg_class; vacuum freeze pg_attribute; vacuum freeze pg_inherits",
        "create table apart (day date, n int)",
    ]:
        run(sql, statements)
        assert fingerprint("days") == before, statements


@pytest.mark.parametrize(
    "statements",
    [
        "create table day3 partition of days for values from ('2025-01-03') to ('2025-01-04')",
        "alter table days detach partition day1",
        f"alter table days detach partition day1; {DAY1}",
        f"alter table days detach partition day1 concurrently; {DAY1}",
        f"alter table days detach partition day2; {DAY2}",
        "alter table rest rename to x; alter table x rename to rest",
        "truncate rest",
        "vacuum full day1",
        "alter table days add x int; alter table days drop x",
    ],
)
def test_a_partitioned_tables_fingerprint_changes_with_its_leaves(sql, fingerprint, statements):
    sql.execute(DAYS)
    before = fingerprint("days")
    run(sql, statements)
    assert fingerprint("days") != before


def test_the_catalogs_fingerprint_changes_with_definitions_only(sql):
    """A change reloads the code location, which must not happen for every insert or new partition."""
    sql.execute("create table movie (id int)")
    sql.execute(DAYS)
    before = read_catalog(sql).fingerprint
    for statements in [
        "insert into movie select generate_series(1, 10000)",
        "vacuum full analyze",
        "create table day3 partition of days for values from ('2025-01-03') to ('2025-01-04')",
        "create temp table scratch (id int)",
    ]:
        run(sql, statements)
        assert read_catalog(sql).fingerprint == before, statements
    for statements in [
        "alter table movie add title text",
        "alter table movie alter title type varchar(3)",
        "comment on column movie.title is 'name'",
        "alter table movie add primary key (id)",
        "create table genre (id int)",
        "alter table genre rename to kind",
        "drop table kind",
    ]:
        run(sql, statements)
        after = read_catalog(sql).fingerprint
        assert after != before, statements
        before = after


def test_the_catalog_is_read_in_a_read_only_transaction_and_a_sql_ascii_database(database):
    name = f"ascii_{uuid4().hex[:12]}"
    with database.connect() as admin:
        admin.execute(f"create database {name} encoding 'SQL_ASCII' locale 'C' template template0")
        with database.connect(dbname=name, client_encoding="UTF8", autocommit=False) as conn:
            conn.execute("create table película (año int)")
            conn.commit()
            conn.execute("set transaction isolation level repeatable read read only")
            (table,) = read_catalog(conn).tables
        admin.execute(f"drop database {name}")
    assert (table.name, table.columns[0].name, table.skipped) == ("película", "año", None)


def test_a_definition_that_the_server_cannot_read_costs_its_table_alone(sql, role):
    """One damaged entry hid all tables: no new one was copied any more."""
    sql.execute("create table movie (id int); create table person (id int); create table odd (id int)")
    damaged = "array[array[makeaclitem(relowner, relowner, 'SELECT', false)]]"
    sql.execute(f"grant select on movie, person to {role}")
    sql.execute(f"update pg_class set relacl = {damaged} where relname = 'odd'; set role {role}")

    with sql.transaction():  # as behind a pooler
        tables = {table.name: table for table in read_catalog(sql).tables}

    assert [tables[name].skipped for name in ("movie", "person")] == [None, None]
    assert "the server fails to read its definition" in tables["odd"].skipped


def test_a_right_that_every_table_needs_is_an_error_and_skips_no_table(sql, role):
    sql.execute("create table movie (id int); create table person (id int)")
    sql.execute("revoke execute on function row_security_active(oid) from public")
    sql.execute(f"set role {role}")

    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row_security_active"):
        read_catalog(sql)


def test_a_right_that_only_values_of_a_type_need_skips_no_table(sql, role):
    """The default of an added column is read with the catalog, for all tables in one statement."""
    sql.execute(
        "create table movie (id int); insert into movie values (1); alter table movie add price money default 1"
    )
    sql.execute('revoke execute on function pg_catalog."numeric"(money) from public')
    sql.execute(f"grant select on movie to {role}; set role {role}")

    assert [table.skipped for table in read_catalog(sql).tables] == [None]


def test_what_the_objects_of_a_table_do_not_contain_is_part_of_the_catalog(sql):
    sql.execute(
        """
        create table event (id int);
        create table event_1 (note text) inherits (event);
        create table event_2 () inherits (event_1);
        create domain lo as oid;
        create table scan (id int, page lo, thumb oid);
        create type spot as (x int, y int);
        create domain place as spot;
        create type stretch as range (subtype = spot);
        create table map (id int, a spot, b place[], c stretch, d int4range, e event) partition by list (id);
        """
    )
    tables = {table.name: table.caveats for table in read_catalog(sql).tables}

    inherited = "Tables inherit from this one: {}. It is copied without their rows, which are in the folders of these"
    assert tables["event"] == (f"{inherited.format('event_1')} tables",)
    assert tables["event_1"] == (f"{inherited.format('event_2')} tables",)
    assert tables["event_2"] == ()
    (objects,) = tables["scan"]
    assert objects.endswith("`page` (lo), `thumb` (oid)")
    (attributes,) = tables["map"]
    assert attributes.endswith("in `a` (spot), `b` (place[]), `c` (stretch) and 1 more")
    copy = Catalog.from_text(read_catalog(sql).to_text())
    assert {table.name: table.caveats for table in copy.tables} == tables
