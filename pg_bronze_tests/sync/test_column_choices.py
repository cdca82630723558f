"""Excluded and masked columns, copied from a real table: what arrives, and what readers see after a change."""

import hashlib
import io

import polars as pl
import pytest

import pg_bronze
from pg_bronze.core.band_rules import BandRules
from pg_bronze.core.column_choices import ColumnChoices
from pg_bronze.errors import SettingsError
from pg_bronze.settings.choices import Mask
from pg_bronze.settings.load import load_settings
from pg_bronze.sync.reconcile import reconcile
from pg_bronze.sync.verify_day import verify_day
from pg_bronze_tests.harness.lake import Lake, clock
from pg_bronze_tests.harness.repetitions import also

SECRET = "pl4nted-s3cret"
PERSON = f"""create table movie (
  movie_id int primary key, email text, phone text, born date, pay numeric(10,2), country text, seen_at timestamptz
);
insert into movie values
  (1, '{SECRET}', '{SECRET}', '1999-09-09', 7177.77, '{SECRET}', '2077-07-07 07:07:07+00'),
  (2, null, null, null, null, null, null)"""
MASKED = ColumnChoices(
    exclude=("seen_at",),
    masks={
        "email": Mask("sha256"),
        "phone": Mask("null"),
        "born": Mask("fixed", "1900-01-01"),
        "pay": Mask("null"),
        "country": Mask("fixed", "XX"),
    },
)
TRACES = [SECRET, "1999-09-09", "7177", "2077-07-07"]
HASHABLE = [
    *[("int", "7"), ("bool", "t"), ("float8", "0.1"), ("uuid", "12345678-1234-1234-1234-1234567890ab")],
    *[("timestamptz", "2024-01-02 03:04:05.6+00"), ("date", "2024-01-02"), ("numeric(10,3)", "1.500")],
    *[("varchar(9)", "ñandú 🎬"), ("text[]", "{a,NULL,b}"), ("money", "-1.50"), ("text", ""), ("jsonb", '{"a": 1}')],
    *[("interval", "1 day 02:00:00"), ("numeric", "NaN"), ("date", "infinity"), ("date", "5874897-12-31")],
]
HASHED = ColumnChoices(masks={"email": Mask("sha256")})


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def lake(database, bucket) -> Lake:
    database.execute(PERSON)
    return Lake(database, bucket.store())


@pytest.fixture
def scan(lake, bucket):
    settings = load_settings(bucket.environ, None, lake_only=True)
    return lambda **options: pg_bronze.scan("movie", settings=settings, **options).collect().sort("movie_id")


def everything(lake: Lake) -> str:
    """Return the text of all objects: their bytes, and the values of their columns, which are compressed there."""
    bodies = [lake.store.get(key) or b"" for key in lake.all_keys()]
    frames = [pl.read_parquet(io.BytesIO(body)) for body in bodies if body[:4] == b"PAR1"]
    return " ".join([*(body.decode("latin-1") for body in bodies), *(frame.write_csv() for frame in frames)])


@pytest.mark.parametrize("reader", ["connectorx", *also("copy")])
def test_hidden_values_are_in_no_object_and_the_others_are(lake, reader):
    lake.reader = reader
    lake.tick(columns=MASKED)

    frame = lake.rows().sort("movie_id")
    assert frame.columns == ["movie_id", "email", "phone", "born", "pay", "country", "_pg_xid"]
    assert frame["email"].to_list() == [digest(SECRET), None]
    assert frame["phone"].to_list() == frame["pay"].to_list() == [None, None]
    assert frame["country"].to_list() == ["XX", "XX"]
    assert frame["born"].cast(str).to_list() == ["1900-01-01", "1900-01-01"]
    assert frame.schema["pay"] == pl.Decimal(10, 2)
    assert not [trace for trace in TRACES if trace in everything(lake)]
    assert lake.footers()[0].table["excluded"] == [[7, "seen_at"]]


def test_the_hash_is_that_of_the_text_of_the_value(database, bucket):
    """Policies of exceptional values do not apply: a date that cannot be stored can be hashed."""
    lake = Lake(database, bucket.store())
    columns = {f"c{number}": type_ for number, (type_, _) in enumerate(HASHABLE)}
    database.execute(f"create table movie ({', '.join(f'{name} {type_}' for name, type_ in columns.items())})")
    database.execute(f"insert into movie values ({', '.join(repr(value) for _, value in HASHABLE)})")

    lake.tick(columns=ColumnChoices(masks=dict.fromkeys(columns, Mask("sha256"))))

    assert lake.rows().row(0)[:-1] == tuple(digest(value) for _, value in HASHABLE)


def test_a_key_that_is_hashed_identifies_the_versions_of_a_row(lake, database, scan):
    hashed = {"columns": ColumnChoices(masks={"movie_id": Mask("sha256")})}
    lake.tick(**hashed)
    database.execute("update movie set email = 'new' where movie_id = 1")
    lake.tick(**hashed)

    newest = scan(versions="latest")

    assert dict(newest.select("movie_id", "email").rows()) == {digest("1"): "new", digest("2"): None}


@pytest.mark.parametrize("excluded", [True, False])
def test_readers_see_one_column_before_and_after_it_was_hidden(lake, database, scan, excluded):
    lake.tick()
    hiding = ColumnChoices(exclude=("born",)) if excluded else ColumnChoices(masks={"born": Mask("sha256")})
    database.execute("insert into movie (movie_id, born) values (3, '2003-03-03')")
    lake.tick(columns=hiding)
    database.execute("insert into movie (movie_id, born) values (4, '2004-04-04')")
    lake.tick()

    third = None if excluded else digest("2003-03-03")
    assert scan()["born"].cast(str).to_list() == ["1999-09-09", None, third, "2004-04-04"]
    drift = [sentence.split(";")[0] for footer in lake.footers() for sentence in footer.drift]
    if excluded:
        assert drift == ["column 'born' (date) is excluded now", "column 'born' (date) is not excluded any more"]
    else:
        assert drift[0] == "column 'born' is masked by sha256 now"
        assert drift[2] == "column 'born' is not masked any more"


def test_a_column_has_its_default_before_it_was_added_and_null_while_it_was_excluded(lake, database, scan):
    """The default of the catalog is not the value of a row that was written since."""
    lake.tick()
    database.execute("alter table movie add mood text default 'ok'")
    database.execute("insert into movie (movie_id, mood) values (3, 'sad')")
    lake.tick(columns=ColumnChoices(exclude=("mood",)))
    database.execute("insert into movie (movie_id, mood) values (4, 'new')")
    lake.tick()
    database.execute("insert into movie (movie_id, mood) values (5, 'new')")
    lake.tick()

    assert scan()["mood"].to_list() == ["ok", "ok", None, "new", "new"]


def test_the_default_of_a_masked_column_is_masked(lake, database, scan):
    """It is the value of all rows that were written before the column was added."""
    lake.tick()
    database.execute(f"alter table movie add mood text default '{SECRET}x'")
    database.execute("insert into movie (movie_id) values (3)")

    lake.tick(columns=ColumnChoices(masks={**MASKED.masks, "mood": Mask("sha256")}))

    assert scan()["mood"].to_list() == [digest(f"{SECRET}x")] * 3
    assert f"{SECRET}x" not in everything(lake)


def test_partitions_are_masked_like_a_table(database, bucket):
    lake = Lake(database, bucket.store())
    database.execute(
        "create table movie (movie_id int, email text) partition by range (movie_id);"
        "create table movie_old (email text, gone int, movie_id int); alter table movie_old drop gone;"
        "alter table movie attach partition movie_old for values from (0) to (10);"
        "create table movie_new partition of movie for values from (10) to (20);"
        f"insert into movie values (1, '{SECRET}'), (11, '{SECRET}')"
    )

    lake.tick(columns=HASHED)

    assert lake.rows()["email"].to_list() == [digest(SECRET)] * 2
    assert SECRET not in everything(lake)


def test_the_floors_of_a_large_table_are_no_values_of_a_hidden_column(lake, database):
    """They are values of the column that divides the rows, and part of every watermark."""
    rows = "select 10 + i, 'x', '2055-05-05'::timestamptz + i * interval '1 s' from generate_series(1, 300) i"
    database.execute("create index on movie (seen_at)")
    database.execute(f"insert into movie (movie_id, country, seen_at) {rows}")
    lake.bands = BandRules(one_band_s=0.0, share=1e-9, rank=3)
    lake.tick()
    assert "2055-05-05" in everything(lake)
    before = len(lake.keys())

    for columns in (ColumnChoices(masks={"seen_at": Mask("null")}), ColumnChoices(exclude=("seen_at",))):
        lake.drain(columns=columns)
        database.execute("insert into movie (movie_id, seen_at) select max(movie_id) + 1, '2066-06-06' from movie")
        lake.drain(columns=columns)

    hidden = lake.footers()[before:] if len(lake.keys()) > before else lake.footers()
    assert not [footer for footer in hidden if "2055-05-05" in str(footer.after.to_json())]
    assert "2066-06-06" not in everything(lake)
    assert all(leaf.order is None or leaf.order.attnum != 7 for leaf in lake.recorded["movie"].leaves.values())
    assert lake.recorded["movie"].cursor == str(312)
    live = database.execute("select movie_id from movie order by 1")
    assert sorted(set(lake.column())) == [movie_id for (movie_id,) in live]


def test_a_renamed_column_of_a_pattern_is_not_copied_as_it_is(lake, database):
    lake.tick(columns=HASHED)
    database.execute(
        f"alter table movie rename email to mail; insert into movie (movie_id, mail) values (3, '{SECRET}')"
    )

    with pytest.raises(
        SettingsError, match=r"^movie: column 'email', which was excluded or masked, is called 'mail' now"
    ):
        lake.tick(columns=HASHED)

    assert SECRET not in str([frame["email"].to_list() for frame in lake.frames()])
    lake.tick(columns=ColumnChoices(masks={"mail": Mask("sha256")}))
    assert lake.frames()[-1]["mail"].to_list() == [digest(SECRET)]


def test_a_missing_object_is_written_again_with_the_masks_of_today(lake, database):
    now = clock()
    lake.tick(now=now)
    database.execute("insert into movie (movie_id) values (3)")
    lake.tick(now=now, columns=HASHED)
    lake.store.delete(lake.keys()[0])

    with lake.source() as source:
        report = verify_day(lake.open(source, columns=HASHED), lake.recorded["movie"], now().date())

    assert len(report.repaired) == 1
    assert sorted(lake.rows()["email"].drop_nulls()) == [digest(SECRET)]


def test_reconcile_does_not_take_a_mask_for_a_difference(lake, database, bucket):
    lake.tick()
    database.execute("insert into movie (movie_id, email, country) values (3, 'x', 'y')")
    hidden = {"columns": ColumnChoices(exclude=("country",), masks={"email": Mask("sha256")})}
    lake.tick(**hidden)
    settings = load_settings(bucket.environ, None, lake_only=True)

    def act(sync, recorded, writer):
        return reconcile(sync, recorded, writer, settings.s3)[0]

    assert lake.tick(act=act, **hidden).row_count == 0
    lake.tick(act=act)
