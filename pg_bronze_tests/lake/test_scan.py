"""Reading a table: all versions, the newest ones, as of a day or a horizon, after every kind of change."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

import pg_bronze
from pg_bronze.core.watermark import Watermark
from pg_bronze.errors import AccessDenied, DataError, NothingCopied, SettingsError
from pg_bronze.lake.ledger import Ledger
from pg_bronze.lake.object_store import Store
from pg_bronze.lake.reading import scan as scan_module
from pg_bronze.settings.load import load_settings
from pg_bronze.settings.model import Settings
from pg_bronze.sync import state_changes
from pg_bronze_tests.harness.lake import MOVIE, Lake, clock, fill


def at(bucket: Any, **changed: str) -> Settings:
    return load_settings({**bucket.environ, **changed}, None, lake_only=True)


@pytest.fixture
def lake(database, bucket) -> Lake:
    database.execute(MOVIE)
    return Lake(database, bucket.store())


@pytest.fixture
def scan(bucket):
    """``pg_bronze.scan`` of the test's bucket, collected."""

    def scanned(table: str = "movie", **options: Any) -> pl.DataFrame:
        return pg_bronze.scan(table, settings=at(bucket), **options).collect()

    return scanned


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the objects whose footers were read."""
    keys: list[str] = []
    tail = Store.tail

    def tail_and_record(self: Store, key: str, size_bytes: int) -> bytes | None:
        keys.append(key)
        return tail(self, key, size_bytes)

    monkeypatch.setattr(Store, "tail", tail_and_record)
    return keys


def change(lake: Lake, *statements: str, table: str = "movie", **options: Any) -> None:
    """Execute each statement and tick after it: one object for each that writes a row."""
    for statement in statements:
        lake.database.execute(statement)
        lake.tick(table, **options)


def test_one_line_reads_a_table_with_the_settings_of_the_bucket_alone(
    database, any_bucket, monkeypatch: pytest.MonkeyPatch, tmp_path
):
    """An analyst needs no access to the database."""
    database.execute(MOVIE)
    lake = Lake(database, any_bucket.store())
    change(lake, fill(1, 30), fill(31, 40), "update movie set title = 'new' where movie_id <= 5")
    monkeypatch.chdir(tmp_path)
    for name, value in any_bucket.environ.items():
        monkeypatch.setenv(name, value)

    frame = pg_bronze.scan("movie")

    assert isinstance(frame, pl.LazyFrame)
    assert frame.collect().sort("_pg_xid", "movie_id").equals(lake.rows().sort("_pg_xid", "movie_id"))
    assert frame.select(pl.len()).collect().item() == 45
    assert frame.filter(pl.col("movie_id") == 3).select("title").collect()["title"].to_list() == ["film 3", "new"]


def test_credentials_of_another_account_in_the_environment_are_not_sent(
    lake, bucket, scan, monkeypatch: pytest.MonkeyPatch
):
    """The server would reject a foreign session token, and botocore an unknown profile."""
    change(lake, fill(1, 3))
    monkeypatch.setenv("AWS_SESSION_TOKEN", "foreign")
    monkeypatch.setenv("AWS_PROFILE", "unknown")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")

    assert scan().height == 3


def test_the_newest_version_of_each_row(lake, scan):
    change(
        lake,
        fill(1, 6),
        "update movie set title = 'second' where movie_id in (1, 2)",
        "update movie set title = 'third' where movie_id = 1; delete from movie where movie_id = 6",
        "update movie set movie_id = 50 where movie_id = 5",
    )

    newest = scan(versions="latest").sort("movie_id")

    assert dict(newest.select("movie_id", "title").iter_rows()) == {
        1: "third",
        2: "second",
        3: "film 3",
        4: "film 4",
        5: "film 5",  # the key it had before
        6: "film 6",  # deleted, which is not copied
        50: "film 5",
    }
    assert newest.columns == scan().columns


def test_newest_versions_computed_in_parts_are_the_same(lake, bucket, scan, monkeypatch: pytest.MonkeyPatch):
    """Only one part of the objects is in memory."""
    lake.database.execute("create table vote (movie_id int, person text, points int, primary key (movie_id, person))")
    change(
        lake,
        "insert into vote select i % 5, 'person ' || i % 3, 0 from generate_series(0, 14) i",
        "update vote set points = 1 where movie_id < 3",
        "update vote set points = 2 where person = 'person 1'",
        "update vote set points = 3 where movie_id = 0",
        table="vote",
    )
    whole = scan("vote", versions="latest").sort("movie_id", "person")
    monkeypatch.setattr(scan_module, "PART_BYTES", 1)

    parts = pg_bronze.scan("vote", versions="latest", settings=at(bucket))

    live = lake.database.execute("select movie_id, person, points from vote order by movie_id, person")
    assert whole.select("movie_id", "person", "points").rows() == live
    assert parts.collect().sort("movie_id", "person").equals(whole)
    few = parts.filter(pl.col("movie_id") == 0, pl.col("points") == 3).select("person").collect()
    assert sorted(few["person"]) == ["person 0", "person 1", "person 2"]
    # A filter on a column that changes must not make an older version the newest one.
    assert parts.filter(pl.col("points") == 0, pl.col("movie_id") == 0).collect().height == 0
    assert parts.head(4).collect().height == 4
    assert parts.select("points").collect()["points"].sum() == whole["points"].sum()


def test_without_a_primary_key_the_identifying_columns_are_required(lake, scan):
    lake.database.execute("create table log (who text, what text)")
    change(
        lake,
        "insert into log values ('a', 'x'), ('a', 'y'), (null, 'z')",
        "insert into log values ('b', 'x'), (null, 'w')",
        table="log",
    )

    with pytest.raises(SettingsError, match=r'log has no primary key.*by=\["…"\]'):
        scan("log", versions="latest")
    with pytest.raises(SettingsError, match="by contains 'when'"):
        scan("log", versions="latest", by=["when"])

    # One of several rows that one transaction wrote, never both.
    found = scan("log", versions="latest", by=["who"]).sort("who", nulls_last=True)
    assert found["who"].to_list() == ["a", "b", None]
    assert found["what"].to_list()[1:] == ["x", "w"]


def test_columns_added_dropped_renamed_and_widened_read_as_one_table(lake, scan):
    """The columns are those of psql, and rows from before keep their values."""
    change(
        lake,
        fill(1, 1),
        "alter table movie rename title to name; insert into movie (movie_id, name) values (2, 'two')",
        "alter table movie add seen bool default true, add note text; insert into movie (movie_id) values (3)",
        "alter table movie drop price; insert into movie (movie_id, note) values (4, 'x')",
        "alter table movie add price int; insert into movie (movie_id, price) values (5, 7)",
        "alter table movie alter price type bigint; insert into movie (movie_id, price) values (6, 8000000000)",
    )

    found = scan(versions="latest").sort("movie_id")

    assert found.columns == ["movie_id", "name", "updated_at", "seen", "note", "price", "price_4", "_pg_xid"]
    assert found["name"].to_list() == ["film 1", "two", None, None, None, None]
    assert found["seen"].to_list() == [True] * 6
    assert found["note"].to_list() == [None, None, None, "x", None, None]
    assert found["price"].to_list() == [None, None, None, None, 7, 8000000000]
    # The last change rewrote every row, so only older versions contain the dropped column.
    assert found["price_4"].to_list() == [None] * 6
    assert scan().sort("_pg_xid")["price_4"].to_list()[:2] == [Decimal("0.01"), None]


DEFAULTS: list[tuple[str, str, Any]] = [
    ("int", "7", 7),
    ("bigint", "-8000000000", -8000000000),
    ("numeric(10,2)", "1.5", Decimal("1.50")),
    ("numeric", "1.50", "1.50"),
    ("float8", "'-infinity'", float("-inf")),
    ("real", "0.5", 0.5),
    ("bool", "false", False),
    ("text", "'it''s, {\"so\"}'", 'it\'s, {"so"}'),
    ("text", "''", ""),
    ("date", "'2026-01-02'", date(2026, 1, 2)),
    ("timestamp", "'2026-01-02 03:04:05.678'", datetime.fromisoformat("2026-01-02T03:04:05.678")),
    ("timestamptz", "'2026-01-02 03:04:05+02'", datetime(2026, 1, 2, 1, 4, 5, tzinfo=UTC)),
    ("bytea", "'\\x00ff'", b"\x00\xff"),
    ("int[]", "'{1,2}'", "{1,2}"),
    ("uuid", "'00000000-0000-0000-0000-00000000000a'", "00000000-0000-0000-0000-00000000000a"),
]


def test_rows_from_before_a_column_with_a_default_read_with_that_default(lake, scan):
    """PostgreSQL does not rewrite these rows, so they are never copied again. A later rewrite removes the note."""
    numbered = list(enumerate(DEFAULTS))
    added = ", ".join(f"add c{number} {declared} default {default}" for number, (declared, default, _) in numbered)
    changed = ", ".join(f"alter c{number} drop default" for number, _ in numbered)
    lake.database.execute("create table thing (id int primary key)")
    change(
        lake,
        "insert into thing values (1)",
        f"alter table thing {added}; insert into thing values (2); alter table thing {changed}",
        "insert into thing values (3)",
        "vacuum full thing",
        "insert into thing values (4)",
        table="thing",
    )

    found = scan("thing").sort("id")

    for number, (declared, _, value) in numbered:
        assert found[f"c{number}"].to_list() == [value, value, None, None], declared


def test_types_with_nothing_in_common_are_an_error_with_a_remedy(lake, scan):
    change(lake, fill(1, 2), "alter table movie alter movie_id type text; update movie set title = 'again'")
    first, second = lake.keys()

    with pytest.raises(DataError) as caught:
        scan()

    text = str(caught.value)
    assert all(word in text for word in ("'movie_id'", "integer", "text", f"/{first} ", f"/{second}:", "cast="))
    found = scan(cast={"movie_id": pl.String})
    assert sorted(found["movie_id"]) == ["1", "1", "2", "2"]
    with pytest.raises(SettingsError, match="cast contains 'movieid'"):
        scan(cast={"movieid": pl.String})


def test_footers_are_read_where_columns_changed_and_nowhere_else(lake, scan, requests):
    """With one request for each object it would take a minute to open the objects of a day."""
    change(lake, *(fill(number, number) for number in range(1, 9)))
    change(lake, "alter table movie rename title to name")
    change(lake, *(f"insert into movie (movie_id) values ({number})" for number in range(9, 15)))
    requests.clear()

    scan()

    assert len(requests) <= 5
    assert len(lake.keys()) == 14


def test_all_footers_are_read_for_objects_without_a_columns_key(lake, scan, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patched:
        patched.setattr(Watermark, "with_columns", lambda self, digest, before: self)
        change(lake, fill(1, 1), fill(2, 2), "alter table movie rename title to name")
        change(lake, "insert into movie (movie_id, name) values (3, 'film 3')")
        assert scan().sort("movie_id")["name"].to_list() == ["film 1", "film 2", "film 3"]
        assert scan(days=[date(2020, 1, 1)]).columns == ["movie_id", "name", "updated_at", "price", "_pg_xid"]
    change(lake, "alter table movie add note text; insert into movie (movie_id, name) values (4, 'film 4')")

    found = scan().sort("movie_id")

    assert found["name"].to_list() == ["film 1", "film 2", "film 3", "film 4"]
    assert scan(days=[date(2020, 1, 1)]).columns == found.columns


def test_as_of_a_day_is_what_was_ingested_up_to_its_end(lake, scan):
    for day in (1, 2, 4):
        change(lake, fill(day, day), now=clock(datetime(2026, 1, day, 23, 59, 59, tzinfo=UTC)))

    assert sorted(scan(as_of=date(2026, 1, 2))["movie_id"]) == [1, 2]
    assert sorted(scan(as_of=date(2026, 1, 3))["movie_id"]) == [1, 2]
    assert sorted(scan(as_of=date(2026, 1, 4))["movie_id"]) == [1, 2, 4]
    assert scan(as_of=date(2025, 12, 31)).schema == scan().clear().schema
    assert sorted(scan(days=[date(2026, 1, 1), date(2026, 1, 4)])["movie_id"]) == [1, 4]


def test_as_of_a_day_columns_and_key_are_those_of_that_day(lake, scan):
    change(lake, fill(1, 2), "update movie set title = 'new'", now=clock(datetime(2026, 1, 1, tzinfo=UTC), step_s=1))
    change(lake, "alter table movie rename movie_id to id; insert into movie (id) values (3)")

    before = scan(versions="latest", as_of=date(2026, 1, 1))

    assert before.sort("movie_id").select("movie_id", "title").rows() == [(1, "new"), (2, "new")]
    assert sorted(scan(versions="latest")["id"]) == [1, 2, 3]
    assert scan(versions="latest", as_of=date(2025, 1, 1)).columns == scan().columns


def test_days_without_objects_give_no_rows_and_all_columns(lake, scan):
    change(lake, fill(1, 1), now=clock(datetime(2026, 1, 1, tzinfo=UTC)))
    change(lake, "alter table movie rename title to name; insert into movie (movie_id) values (2)")

    for days in ([date(2026, 1, 2)], []):
        found = scan(days=days)
        assert (found.height, found.columns) == (0, ["movie_id", "name", "updated_at", "price", "_pg_xid"])
    assert scan(days=[date(2026, 1, 1)])["name"].to_list() == ["film 1"]


def test_as_of_a_horizon_is_what_transactions_below_it_wrote(lake, scan, requests):
    horizons = []
    for number in range(1, 17):
        change(lake, fill(number, number))
        horizons.append(lake.recorded["movie"].highest_horizon)
    change(lake, "update movie set title = 'late' where movie_id < 3")
    requests.clear()

    found = scan(versions="latest", as_of=horizons[4])

    assert sorted(found["title"]) == [f"film {number}" for number in range(1, 6)]
    assert len(requests) < 12
    assert scan(as_of=0).height == 0
    assert scan(as_of=horizons[-1] + 1000).height == 18

    lake.database.execute(fill(17, 17))
    change(lake, fill(18, 18))
    [(later,)] = lake.database.execute("select xmin::text::bigint from movie where movie_id = 18")
    assert scan(as_of=later)["movie_id"].max() == 17, "one object holds both"


def test_as_of_a_horizon_counts_partitions_that_were_attached_later(lake, scan):
    """Their rows are older than the windows of all objects before them."""
    lake.database.execute(
        """create table part (id int, region text) partition by list (region);
        create table part_a partition of part for values in ('a');
        create table part_b (id int, region text);
        insert into part_b values (1, 'b')"""
    )
    horizon = lake.database.execute("select pg_snapshot_xmax(pg_current_snapshot())::text::bigint")[0][0]
    change(
        lake,
        *(f"insert into part values ({number}, 'a')" for number in range(2, 8)),
        "alter table part attach partition part_b for values in ('b')",
        table="part",
    )

    assert scan("part", as_of=horizon)["id"].to_list() == [1]


def test_only_the_newest_generation_is_read_while_the_older_one_is_not_moved_yet(
    lake, scan, monkeypatch: pytest.MonkeyPatch
):
    change(lake, fill(1, 3), now=clock(datetime(2026, 1, 1, tzinfo=UTC)))
    monkeypatch.setattr(Ledger, "move_old", lambda self, watermark: 0)
    lake.tick(act=state_changes.reset)
    lake.tick()

    assert len(lake.keys()) == 3
    assert sorted(scan()["movie_id"]) == [1, 2, 3]
    with pytest.raises(NothingCopied, match="_pg_bronze/old/movie/gen=0/"):
        scan(as_of=date(2026, 1, 2))


def test_objects_of_another_system_are_skipped(lake, scan):
    """The objects of the original system stay in the folder after a takeover."""
    lake.store.create("movie/movie_20250101000000.parquet", b"PAR1 of another program PAR1")
    change(lake, fill(1, 3), takeover="fresh")

    assert sorted(scan()["movie_id"]) == [1, 2, 3]


def test_an_unknown_table_is_an_error_that_names_others(lake, scan, bucket):
    with pytest.raises(NothingCopied, match="It has no tables"):
        scan()
    change(lake, fill(1, 3))

    with pytest.raises(NothingCopied, match=r"has not written any object of movies .*Did you mean movie\?"):
        scan("movies")
    with pytest.raises(NothingCopied, match="Tables in the bucket: movie"):
        scan("sales.invoice")
    with pytest.raises(SettingsError, match="is not a table name"):
        scan("a.b.c")
    with pytest.raises(AccessDenied, match="MINIO_ACCESS_KEY"):
        pg_bronze.scan("movie", settings=at(bucket, MINIO_SECRET_KEY="not-the-right-one"))


def test_objects_in_date_folders_and_beside_them_are_one_table(lake, scan):
    change(lake, fill(1, 1), now=clock(datetime(2026, 1, 1, tzinfo=UTC)))
    change(lake, fill(2, 2), now=clock(datetime(2026, 1, 2, tzinfo=UTC)), dated=True)
    change(lake, fill(3, 3), now=clock(datetime(2026, 1, 3, tzinfo=UTC)))

    assert sorted(scan()["movie_id"]) == [1, 2, 3]
    assert scan().columns == ["movie_id", "title", "updated_at", "price", "_pg_xid"]
    assert scan(days=[date(2026, 1, 2)])["movie_id"].to_list() == [2]
    assert scan(as_of=date(2026, 1, 1))["movie_id"].to_list() == [1]


def test_invalid_arguments_are_refused(scan):
    for options, words in (
        ({"versions": "newest"}, 'must be "all" or "latest"'),
        ({"by": ["movie_id"]}, 'requires versions="latest"'),
        ({"days": date(2026, 1, 1)}, "days must be a list of days"),
        ({"days": [datetime(2026, 1, 1, tzinfo=UTC)]}, "days must be a list of days"),
        ({"as_of": datetime(2026, 1, 1, tzinfo=UTC)}, "as_of must be a day"),
    ):
        with pytest.raises(SettingsError, match=words):
            scan(**options)
