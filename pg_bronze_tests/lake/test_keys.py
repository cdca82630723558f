from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pg_bronze.lake.keys import Layout, folder, next_time, own_key, search_starts, table_of
from pg_bronze_tests.harness.names import TABLES

AT = datetime(2026, 1, 2, 0, 0, 10, tzinfo=UTC)
FLAT = Layout("", "public", "movie")
DATED = Layout("", "public", "movie", "date")

awkward = st.sampled_from(
    [
        "public",
        "_pg_bronze",
        "a\\b",
        "/" * 63,
        "." * 62 + "a",
        "%62",
        "%62cHVibGljAGE",
        "_pg_bronzed",
        "date=2026-01-02",
        "a.b",
        "a/b",
        "a%2Eb",
        "ñ",
        "映画",
    ]
)
names = awkward | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
short = st.text("a.%/_=", min_size=1, max_size=4) | awkward
long = st.text(st.sampled_from("./%\\\x01a\uffff映"), min_size=1, max_size=63).filter(
    lambda name: len(name.encode()) <= 63
)
prefixes = st.sampled_from(["", "sales", "a/b", "movie"])
seconds = st.integers(0, 253_000_000_000).map(lambda second: datetime.fromtimestamp(second, UTC))
layouts = st.builds(Layout, prefixes, short, short, st.sampled_from(["flat", "date"]))


@pytest.mark.parametrize(
    "schema, name, expected",
    [
        ("public", "movie", "movie"),
        ("sales", "movie", "sales.movie"),
        ("public", "sales.movie", "sales%2Emovie"),
        ("public", "a/b", "a%2Fb"),
        ("public", "a\\b", "a%5Cb"),
        ("public", "50%", "50%25"),
        ("public", "a\tb", "a%09b"),
        ("public", "a\uffffb", "a%EF%BF%BFb"),
        ("public", "/" * 63, "%2F" * 63),
        ("public", "película", "película"),
        ("public", "_pg_bronze", "%5Fpg_bronze"),
        ("_pg_bronze", "movie", "%5Fpg_bronze.movie"),
        ("public", "_pg_bronzed", "%5Fpg_bronzed"),
        ("public", "date=2026-01-02", "date%3D2026-01-02"),
    ],
)
def test_a_folder_is_the_name_with_ambiguous_characters_escaped(schema, name, expected):
    assert folder(schema, name) == expected


def test_names_of_every_kind_have_different_folders():
    """Names that differ only in case or in the composition of characters stay different."""
    folders = {folder(*table) for table in TABLES}
    assert len(folders) == len(TABLES)
    assert not any(set(name) & set("/\\") or name in (".", "..") for name in folders)


def test_keys_in_both_layouts():
    assert FLAT.key(AT) == "movie/movie_20260102000010.parquet"
    assert DATED.key(AT) == "movie/date=2026-01-02/movie_20260102000010.parquet"
    assert Layout("lake", "sales", "movie").key(AT) == "lake/sales.movie/sales.movie_20260102000010.parquet"


def test_keys_below_the_folder_of_pg_bronze():
    assert FLAT.claim(12) == "_pg_bronze/claims/movie/0000000012.json"
    assert Layout("lake", "sales", "movie").claim(12) == "lake/_pg_bronze/claims/sales.movie/0000000012.json"
    assert (
        FLAT.old("movie/movie_20260102000010.parquet", 0) == "_pg_bronze/old/movie/gen=0/movie_20260102000010.parquet"
    )
    assert DATED.old(DATED.key(AT), 3) == "_pg_bronze/old/movie/gen=3/date=2026-01-02/movie_20260102000010.parquet"
    assert own_key("", "catalog.json") == "_pg_bronze/catalog.json"
    assert own_key("lake", "catalog.json") == "lake/_pg_bronze/catalog.json"


@given(long, long)
@example("/" * 63, "." * 63)
@example("映" * 21, "\uffff" * 21)
def test_a_key_of_two_long_names_stays_within_the_limits_of_servers(schema, name):
    """255 bytes between two slashes and 1,024 in total, with the longest prefix and in an earlier generation."""
    layout = Layout("x" * 400, schema, name, "date")
    for key in (layout.key(AT), layout.old(layout.key(AT), 1_000_000), layout.claim(12)):
        assert len(key.encode()) <= 1024
        assert all(len(part.encode()) <= 255 for part in key.removeprefix(layout.prefix).split("/"))


@given(names, names)
def test_a_folder_identifies_its_table(schema, name):
    assert "%~" in folder(schema, name) or table_of(folder(schema, name)) == (schema, name)


within_63_bytes = names.filter(lambda name: len(name.encode()) <= 63)
escaped = st.text("./%\x01", min_size=60, max_size=63)


@given(within_63_bytes | escaped, within_63_bytes | escaped)
def test_a_key_stays_within_the_limits_of_servers(schema, name):
    """File names are limited to 255 bytes and S3 keys to 1,024, of which a prefix can take 400."""
    for style in ("flat", "date"):
        key = Layout("p" * 400, schema, name, style).key(AT)
        assert max(len(part.encode()) for part in key.split("/")[1:]) <= 255
        assert len(key.encode()) <= 1024


@given(escaped, escaped, escaped, escaped)
def test_shortened_names_stay_different(schema, name, other_schema, other_name):
    assert (folder(schema, name) == folder(other_schema, other_name)) == ((schema, name) == (other_schema, other_name))


@given(short, short, short, short)
def test_no_two_tables_share_a_folder_or_nest(schema, name, other_schema, other_name):
    """Two tables in one folder would adopt each other's objects."""
    one, other = folder(schema, name), folder(other_schema, other_name)
    assert (one == other) == ((schema, name) == (other_schema, other_name))
    assert "/" not in one
    assert not one.startswith("_pg_bronze")


@given(layouts, seconds)
def test_the_time_and_day_of_a_key_do_not_depend_on_the_current_style(layout, at):
    key = layout.key(at)
    for style in ("flat", "date"):
        now = Layout(layout.prefix, layout.schema, layout.name, style)
        assert (now.time(key), now.day(key)) == (at, at.date())


@given(layouts, layouts, seconds)
def test_a_key_belongs_to_one_table(layout, other, at):
    if (layout.prefix, layout.schema, layout.name) != (other.prefix, other.schema, other.name):
        assert other.time(layout.key(at)) is None


@pytest.mark.parametrize(
    "key",
    [
        "movie/movie_20260102000010.parquet.tmp",
        "movie/movie_2026010200001.parquet",
        "movie/movie_20261302000010.parquet",
        "movie/x/movie_20260102000010.parquet",
        "movie/date=2026-1-2/movie_20260102000010.parquet",
        "movies/movie_20260102000010.parquet",
        "lake/movie/movie_20260102000010.parquet",
        "movie/movie_20260102000010.parquet\n",
        "_pg_bronze/claims/movie/0000000012.json",
    ],
)
def test_any_other_key_has_no_time(key):
    assert FLAT.time(key) is None
    assert FLAT.day(key) is None


@given(layouts, st.integers(0, 9_999_999_999))
def test_claims_sort_by_their_number(layout, seq):
    key = layout.claim(seq)
    assert layout.claim_seq(key) == seq
    assert key.startswith(layout.claims)
    assert seq == 0 or layout.claim(seq - 1) < key


def test_other_claims_have_no_number():
    assert FLAT.claim_seq("_pg_bronze/claims/movies/0000000012.json") is None
    assert FLAT.claim_seq("_pg_bronze/claims/movie/12.json") is None


near = st.integers(-3, 3) | st.integers(-90_000, 90_000) | st.integers(-(10**8), 10**8)


@given(layouts, seconds.filter(lambda at: 1975 < at.year < 9990), near, st.sampled_from(["flat", "date"]))
def test_a_listing_from_a_time_finds_exactly_the_objects_that_are_not_older(layout, after, offset, style):
    """One too early and an object would be adopted twice; one too late and it would never be adopted."""
    at = after + timedelta(seconds=offset)
    key = Layout(layout.prefix, layout.schema, layout.name, style).key(at)
    listed = [key for prefix, start in layout.listings(after) if key.startswith(prefix) and key > start]
    assert listed == ([key] if at >= after else [])


@given(layouts, seconds)
def test_a_listing_of_all_objects_finds_a_key_once(layout, at):
    assert [start for _, start in layout.listings(None)] == ["", ""]
    assert sum(layout.key(at).startswith(prefix) for prefix, _ in layout.listings(None)) == 1


@given(layouts, st.lists(seconds, min_size=2, max_size=5))
def test_each_listing_is_ordered_by_time(layout, times):
    keys = sorted(layout.key(at) for at in times)
    assert [layout.time(key) for key in keys] == sorted(times)


def test_the_next_key_has_the_current_time_or_one_second_after_the_last():
    assert next_time(AT, None) == AT
    assert next_time(AT, AT - timedelta(days=1)) == AT
    assert next_time(AT, AT) == AT + timedelta(seconds=1)
    assert next_time(AT - timedelta(hours=3), AT) == AT + timedelta(seconds=1)


def test_the_next_time_is_a_whole_second_in_utc():
    madrid = timezone(timedelta(hours=1))
    assert next_time(datetime(2026, 1, 2, 1, 0, 10, 999999, madrid), None) == AT
    assert FLAT.day(FLAT.key(next_time(datetime(2026, 1, 2, 0, 30, tzinfo=madrid), None))) == date(2026, 1, 1)


@given(seconds.filter(lambda at: at.year > 1975))
def test_the_search_for_the_newest_object_ends_at_the_beginning(now):
    *starts, last = search_starts(now)
    assert last is None
    assert starts == sorted(starts, reverse=True)
    assert starts[0] < now
