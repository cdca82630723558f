"""Two spellings of a key are one row in the lake if they are one row in the database."""

import polars as pl
import pytest

import pg_bronze
from pg_bronze.errors import DataError, SettingsError
from pg_bronze.lake.reading import scan as scan_module
from pg_bronze.settings.load import load_settings
from pg_bronze.sync.reconcile import compare
from pg_bronze_tests.harness.lake import Lake
from pg_bronze_tests.harness.servers import s3_connection

# A type, and two spellings that PostgreSQL treats as the same key.
SPELLINGS = {
    "citext": ("'Anna@x.org'", "'anna@X.ORG'"),
    "numeric": ("1", "1.0"),
    "numeric(60)": ("1", "1.0"),
    "numeric(8,2)": ("1", "1.00"),
    "float8": ("0", "'-0'"),
    "float4": ("'-0'", "0"),
    "char(5)": ("'a'", "'a  '"),
    "bpchar": ("'a'", "'a  '"),
}


@pytest.fixture
def latest(bucket):
    settings = load_settings(bucket.environ, None, lake_only=True)
    return lambda table, **options: pg_bronze.scan(table, versions="latest", settings=settings, **options)


def test_the_newest_version_of_a_key_is_one_row_in_every_spelling(database, bucket, latest, monkeypatch):
    """One key of all these types: two rows if any of them is compared by its text."""
    columns = [(f"c{number}", declared, *pair) for number, (declared, pair) in enumerate(SPELLINGS.items())]
    names = ", ".join(name for name, *_ in columns)
    database.execute(
        f"""create extension citext;
        create table code (part int, {", ".join(f"{name} {declared}" for name, declared, *_ in columns)}, note text,
          primary key (part, {names}));
        insert into code select part, {", ".join(before for *_, before, _ in columns)}, 'old'
        from generate_series(1, 2) part"""
    )
    lake = Lake(database, bucket.store())
    lake.drain("code")
    new = ", ".join(f"{name} = {after}" for name, _, _, after in columns)
    same = " and ".join(f"{name} = {after}" for name, _, _, after in columns)
    database.execute(f"update code set {new}, note = 'new' where part = 1 and {same}")
    lake.drain("code")

    for part_bytes in (1, scan_module.PART_BYTES):
        monkeypatch.setattr(scan_module, "PART_BYTES", part_bytes)
        found = latest("code").collect()
        assert sorted(found.select("part", "note").rows()) == [(1, "new"), (2, "old")]
        assert found.columns == ["part", *(name for name, *_ in columns), "note", "_pg_xid"]
    # A filter on a spelling is applied to the newest version, which has another one.
    assert latest("code").filter(pl.col("c0") == "Anna@x.org").collect()["part"].to_list() == [2]

    with lake.source() as source, lake.open(source, "code") as sync:
        found = compare(sync, lake.recorded["code"].highest_horizon, s3_connection(bucket))
    assert (found.same, found.only_in_lake) == (True, 0)


def test_a_key_that_only_the_server_can_compare_is_never_two_rows(database, bucket, latest):
    """One day and 24 hours are one interval."""
    lake = Lake(database, bucket.store())
    database.execute("create table span (code interval primary key, other int); insert into span values ('1 day', 7)")
    lake.drain("span")
    database.execute("update span set code = '24 hours'")
    lake.drain("span")

    with pytest.raises(SettingsError, match=r"span: column 'code' \(interval\) cannot identify a row .*by=\["):
        latest("span")
    assert latest("span", by=["other"]).collect()["other"].to_list() == [7]
    with lake.source() as source, lake.open(source, "span") as sync, pytest.raises(SettingsError, match="reset span"):
        compare(sync, lake.recorded["span"].highest_horizon, s3_connection(bucket))


@pytest.mark.parametrize("made_as", ["(part text)", 'range (subtype = text, collation = "C")'])
def test_a_type_of_a_user_is_not_that_of_the_extension_of_the_same_name(database, bucket, latest, made_as):
    """Two keys that differ only in case would silently be one row."""
    database.execute(
        f"create schema x; create type x.citext as {made_as}; create table code (code x.citext primary key)"
    )
    values = "('(a)'), ('(A)')" if "part" in made_as else "('[a,b]'), ('[A,B]')"
    database.execute(f"insert into code values {values}")
    lake = Lake(database, bucket.store())
    lake.drain("code")

    with pytest.raises(SettingsError, match=r"code: column 'code' \(x\.citext\) cannot identify a row"):
        latest("code")


def test_citext_keys_in_doubt_are_an_error_and_others_are_not(database, bucket, latest):
    """Whether É and é are equal depends on the server's locale."""
    database.execute("create extension citext; create table word (code citext primary key)")
    lake = Lake(database, bucket.store())
    database.execute("insert into word values ('Élan'), ('elan'), ('ÜBER')")
    lake.drain("word")
    assert set(latest("word").collect()["code"]) == {"elan", "Élan", "ÜBER"}

    database.execute("update word set code = 'ÉLAN' where code = 'Élan'")
    lake.drain("word")
    assert latest("word").collect().height == 3

    database.execute("update word set code = 'éLAN' where code = 'ÉLAN'")
    lake.drain("word")
    with pytest.raises(DataError, match=r"word: several values of column 'code' \(citext\) are"):
        latest("word").collect()
