"""The check of a large table: one part of its keys a day, by numbers first and key by key where they differ."""

import io
from datetime import UTC, datetime, timedelta

import polars as pl
import pyarrow.parquet
import pytest

from pg_bronze.postgres.connection import Source
from pg_bronze.sync import range_check, standing_check
from pg_bronze.sync.standing_check import Checked
from pg_bronze_tests.harness.lake import Lake
from pg_bronze_tests.harness.servers import s3_connection

BUDGET = 30_000
KEYS = {
    "int8": "(n - 600) * 10000000000",
    "int4": "n - 600",
    "uuid": "md5(n::text)::uuid",
    'text collate "C"': "md5(n::text)",
}


def made(database, bucket, declared: str = "int4") -> Lake:
    """Twelve hundred rows, which are copied."""
    value = KEYS[declared]
    database.execute(
        f"create table t (id {declared}, n int2, note text, primary key (id, n));"
        f"insert into t select {value}, n, 'a note that has some length' from generate_series(1, 1200) n; analyze t"
    )
    lake = Lake(database, bucket.store())
    lake.tick("t")
    return lake


@pytest.fixture
def lake(database, bucket) -> Lake:
    return made(database, bucket)


def rounds(lake: Lake, bucket, monkeypatch) -> list[tuple[Checked, range_check.PartCompared | None]]:
    """The results of as many days as the table has parts."""
    found, compared = [], []
    real = range_check.compare
    monkeypatch.setattr(range_check, "_FIRST_ROWS", 100)
    monkeypatch.setattr(range_check, "compare", lambda *given: compared.append(real(*given)) or compared[-1])
    day = 0
    while day < (found[0].part.count if found and found[0].part else 1):
        now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day)
        with lake.source() as source:
            sync = lake.open(source, "t", now=lambda now=now: now)
            found.append(standing_check.check(sync, lake.recorded["t"], s3_connection(bucket), BUDGET))
        day += 1
    return list(zip(found, compared, strict=True)) if compared else [(item, None) for item in found]


def without(lake: Lake, wanted: pl.Expr) -> None:
    """Remove rows from the only object of the table, as a damaged disk or a person might."""
    (name,) = [item.key for item in lake.store.list("t/")]
    file = pyarrow.parquet.ParquetFile(io.BytesIO(lake.store.get(name)))
    stored = file.read()
    kept = stored.filter(pl.from_arrow(stored).select(~wanted).to_series().to_arrow())
    assert kept.num_rows < stored.num_rows
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(kept.replace_schema_metadata(file.metadata.metadata), buffer)
    lake.store.replace(name, buffer.getvalue())


@pytest.mark.parametrize("declared", KEYS)
def test_each_day_another_part_is_compared_until_the_table_is(database, bucket, monkeypatch, declared) -> None:
    found = rounds(made(database, bucket, declared), bucket, monkeypatch)

    assert all(checked.passed for checked, _ in found)
    assert {checked.part.number for checked, _ in found} == set(range(found[0][0].part.count))
    assert sum(checked.comparison.row_count for checked, _ in found) >= 1200
    assert "are in the lake with their key and transaction" in found[0][0].sentence
    # The checksum of the source is that of the lake: nothing is read key by key.
    by_key = sum(compared.by_key for _, compared in found)
    assert (by_key == 0) == declared.startswith("int")
    assert sum(compared.range_count for _, compared in found) > len(found) > 2


def test_a_row_that_the_lake_lacks_is_found_in_its_part_and_only_its_range_is_read(lake, bucket, monkeypatch) -> None:
    without(lake, pl.col("id") == 77)

    failed = [(checked, compared) for checked, compared in rounds(lake, bucket, monkeypatch) if not checked.passed]

    # A part begins within the one before it.
    assert 1 <= len(failed) <= 2
    for checked, compared in failed:
        assert (checked.comparison.missing, checked.comparison.ahead, compared.by_key) == (1, 0, 1)
        query = checked.sentence.split("`")[1].replace("select *", "select id")
        assert (77,) in lake.database.execute(query)
        assert "77 " not in checked.sentence
        assert "a note" not in checked.sentence


def test_a_row_that_was_lost_is_found_beside_one_that_was_deleted(lake, bucket, monkeypatch) -> None:
    """Both sides have as many rows, of the same transaction."""
    without(lake, pl.col("id") == 200)
    lake.database.execute("delete from t where id = 201")

    found = [checked.comparison for checked, _ in rounds(lake, bucket, monkeypatch)]

    assert max(item.missing for item in found) == 1
    assert max(item.only_in_lake for item in found) == 1


def test_updates_and_inserts_that_are_not_copied_yet_are_no_fault(lake, bucket, monkeypatch) -> None:
    lake.database.execute(
        "update t set note = 'new' where id % 500 = 0; insert into t values (5000, 1, 'x'); delete from t where id = 1"
    )

    found = [checked for checked, _ in rounds(lake, bucket, monkeypatch)]

    assert all(checked.passed for checked in found)
    assert sum(checked.comparison.not_copied for checked in found) >= 4
    assert 1 <= sum(checked.comparison.only_in_lake for checked in found) <= 2


def test_versions_that_were_copied_twice_are_compared_by_the_newest(lake, bucket, monkeypatch) -> None:
    lake.database.execute("update t set note = 'new' where id % 3 = 0")
    lake.tick("t")

    found = rounds(lake, bucket, monkeypatch)

    assert all(checked.passed for checked, _ in found)
    assert sum(compared.by_key for _, compared in found) == 0


def test_a_lake_that_lacks_an_update_is_missing_it(lake, bucket, monkeypatch) -> None:
    """The key is there, with the transaction of before."""
    lake.database.execute("update t set note = 'new' where id = 300")
    lake.tick("t")
    *_, last = [item.key for item in lake.store.list("t/")]
    footer = pyarrow.parquet.ParquetFile(io.BytesIO(lake.store.get(last)))
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(footer.read().slice(0, 0).replace_schema_metadata(footer.metadata.metadata), buffer)
    lake.store.replace(last, buffer.getvalue())

    assert max(checked.comparison.missing for checked, _ in rounds(lake, bucket, monkeypatch)) == 1


def test_a_table_that_was_not_analyzed_names_the_remedy(database, bucket, monkeypatch) -> None:
    database.execute(
        "create table t (id int primary key, note text); insert into t select n, repeat('x', 100) "
        "from generate_series(1, 2000) n"
    )
    lake = Lake(database, bucket.store())
    lake.tick("t")
    (checked, _), *_ = rounds(lake, bucket, monkeypatch)
    assert checked.passed
    assert checked.comparison is None
    assert checked.sentence.endswith(
        'run `analyze "public"."t"`. `pg-bronze reconcile --check t` compares it completely.'
    )


def test_of_a_partitioned_table_a_partition_that_was_attached_since_is_left_out(database, bucket, monkeypatch) -> None:
    database.execute(
        "create table t (id int primary key, note text) partition by range (id);"
        "create table a partition of t for values from (0) to (700); create table b partition of t for values from "
        "(700) to (2000); insert into t select n, repeat('x', 90) from generate_series(1, 1200) n; analyze t;"
        "create table c (id int primary key, note text); insert into c values (3000, 'x')"
    )
    lake = Lake(database, bucket.store())
    lake.tick("t")
    # Its row is older than what is copied, and the next tick copies it.
    database.execute("alter table t attach partition c for values from (3000) to (4000)")

    found = rounds(lake, bucket, monkeypatch)

    assert all(checked.passed for checked, _ in found)
    assert len(found) > 2
    assert 1200 <= sum(checked.comparison.row_count for checked, _ in found) < 1400


def test_a_complete_check_compares_each_row_once_in_parts_and_finds_what_is_missing(lake, bucket, monkeypatch) -> None:
    monkeypatch.setattr(range_check, "_FIRST_ROWS", 100)

    def checked() -> Checked:
        with lake.source() as source:
            sync = lake.open(source, "t")
            return standing_check.check_completely(sync, lake.recorded["t"], s3_connection(bucket), BUDGET)

    assert checked().comparison.row_count == 1200
    without(lake, pl.col("id").is_in([77, -300]))
    assert (checked().comparison.missing, checked().passed) == (2, False)


def test_no_statement_scans_or_sorts_the_table(lake, bucket, monkeypatch) -> None:
    """The planner would scan a table as small as this one, and a part of any table that has many rows."""
    plans = []
    real = Source.measure

    def measure(source, query, label, **more):
        plans.append(str(real(source, f"explain (format json) {query}", label, **more)[0]))
        return real(source, query, label, **more)

    monkeypatch.setattr(Source, "measure", measure)
    rounds(lake, bucket, monkeypatch)

    assert all("Index Scan" in plan and "Seq Scan" not in plan and "'Sort'" not in plan for plan in plans)
