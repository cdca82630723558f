"""Faults of a running project: lost state, settings that name another place, a bucket that fails.

A table stops with the reason or continues exactly. It never continues with missing rows.
"""

import contextlib
import functools
import json
from collections.abc import Iterator

import dagster as dg
import psycopg
import pytest
import typer

from pg_bronze.cli import app, batch
from pg_bronze.core.formats import FORMAT
from pg_bronze.defs import metadata
from pg_bronze.lake import s3_client
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.faults import Proxy, held_reads
from pg_bronze_tests.harness.project import MOVIES, Project, key, requested, sentences
from pg_bronze_tests.harness.repetitions import also, combinations
from pg_bronze_tests.harness.servers import Bucket, new_bucket
from pg_bronze_tests.harness.slow import SLOW, wait_until_gone

TABLES = ("movie", "person")
STEPS = {f"bronze__{table}" for table in TABLES}


@pytest.fixture
def copied(cinema: Project) -> Project:
    """Both tables are copied and have new rows."""
    assert cinema.copy().success
    write(cinema)
    return cinema


def write(project: Project) -> None:
    project.database.execute(
        "insert into movie select max(id) + 1, 'new', now() from movie;"
        "insert into person select max(id) + 1 from person;"
        "update movie set title = 'changed' where id = 2"
    )


def assert_continues(project: Project) -> None:
    """The next batch copies all rows, once."""
    result = project.copy()
    assert result.success, sentences(result)
    for table in TABLES:
        assert lake.compare(project.database, project.bucket, table) == lake.SAME


@pytest.mark.parametrize(
    "lost",
    [
        *also("etl_control dropped"),
        "etl_control edited",
        *also("Dagster's storage"),
        "etl_control dropped, and Dagster's storage",
        *also("etl_control edited, and Dagster's storage"),
    ],
)
def test_lost_state_neither_loses_nor_duplicates_rows(copied: Project, lost: str):
    """The footers are the truth; etl_control is a mirror, and Dagster's storage a shortcut."""
    if "edited" in lost:
        copied.database.execute("update etl_control set last_extracted_value = '1999-01-01'")
    if "dropped" in lost:
        copied.database.execute("drop table etl_control")
    if "Dagster" in lost:
        copied.instance = dg.DagsterInstance.ephemeral()

    assert_continues(copied)
    write(copied)
    assert_continues(copied)

    names = copied.database.execute("select table_name from etl_control order by 1")
    assert [name for (name,) in names] == list(TABLES)


NEWER = {"format": FORMAT + 1}
UNREADABLE = {"leaves": None}


@pytest.mark.parametrize(
    "changed, words", [(NEWER, f"format {FORMAT + 1}"), (UNREADABLE, "Wipe")], ids=["newer", "damaged"]
)
def test_a_watermark_that_cannot_be_read_stops_only_its_table(copied: Project, changed, words):
    """After a downgrade, a wrong guess at a newer watermark could duplicate the table."""
    written = json.loads(copied.latest("movie").metadata[metadata.WATERMARK].value)
    copied.instance.report_runless_asset_event(
        dg.AssetMaterialization(key("movie"), metadata={metadata.WATERMARK: json.dumps({**written, **changed})})
    )
    write(copied)
    before = lake.keys(copied.bucket, "movie")

    assert {"movie", "person"} <= set().union(*requested(copied.evaluate()))
    result = copied.copy()

    sentence = sentences(result)
    assert list(sentence) == ["bronze__movie"]
    assert words in sentence["bronze__movie"]
    assert "movie" in sentence["bronze__movie"]
    assert lake.keys(copied.bucket, "movie") == before
    assert lake.compare(copied.database, copied.bucket, "person") == lake.SAME


@pytest.fixture
def elsewhere(copied: Project) -> Iterator[dict[str, dict[str, str]]]:
    """Settings that name another database or another bucket than before."""
    other = f"{copied.database.name}_other"
    copied.database.execute(f'create database "{other}"')
    type(copied.database)(copied.database.server, other).execute(MOVIES)
    empty: Bucket = new_bucket(copied.bucket.server)
    yield {"MINIO_BUCKET": {"MINIO_BUCKET": empty.name}, "PG_DB": {"PG_DB": other}}
    for table in TABLES:
        assert lake.keys(empty, table) == [], "a stopped table wrote to the other bucket"
    empty.remove()
    copied.database.execute(f'drop database "{other}" with (force)')


@pytest.mark.parametrize("setting, storage_is_new", combinations(["MINIO_BUCKET", "PG_DB"], [False, True]))
def test_a_setting_that_points_elsewhere_stops_every_table(
    copied: Project, elsewhere: dict[str, dict[str, str]], setting: str, storage_is_new: bool
):
    """A first load from the wrong database would mix rows of two databases in one lake."""
    right = {"MINIO_BUCKET": copied.bucket.name, "PG_DB": copied.database.name}[setting]
    instance = copied.instance
    before = {table: lake.keys(copied.bucket, table) for table in TABLES}
    if storage_is_new:
        copied.instance = dg.DagsterInstance.ephemeral()
    copied.set(**elsewhere[setting])
    copied.reload()

    result = copied.copy()

    errors = sentences(result)
    assert set(errors) == STEPS
    for table in TABLES:
        assert (
            f"pg-bronze reset {table}" in errors[f"bronze__{table}"] or "takeover" in errors[f"bronze__{table}"].lower()
        )
    assert {table: lake.keys(copied.bucket, table) for table in TABLES} == before
    copied.instance = instance
    copied.set(**{setting: right})
    copied.reload()
    assert_continues(copied)


@pytest.fixture
def proxy(cinema: Project) -> Iterator[Proxy]:
    """A proxy in front of the bucket that can fail; the project uses it for every request."""
    made = Proxy(cinema.bucket)
    cinema.set(MINIO_ENDPOINT=made.endpoint_url)
    cinema.bucket.record_probe(made.endpoint_url)
    cinema.reload()
    yield made
    made.close()


@pytest.mark.parametrize("method, part, doing", [("GET", "prefix=movie/", "list"), ("PUT", "/movie/movie_", "write")])
def test_a_bucket_that_fails_for_one_table_does_not_stop_the_others(
    copied: Project, proxy: Proxy, method: str, part: str, doing: str
):
    with proxy.broken(method, part, answer=(500, "InternalError")):
        errors = sentences(copied.copy())

    assert list(errors) == ["bronze__movie"]
    assert f"the S3 server {proxy.endpoint_url} failed to {doing} movie/" in errors["bronze__movie"]
    assert lake.compare(copied.database, copied.bucket, "person") == lake.SAME
    assert_continues(copied)


# Preparing the bucket takes one request; the second is the first table's.
@pytest.mark.parametrize("spared", [*also(0), 1], ids=["from the start", "during the first table"])
def test_a_batch_waits_only_once_for_a_server_that_does_not_answer(copied: Project, proxy: Proxy, spared: int):
    """A hundred tables with a timeout of twenty seconds each would take half an hour."""
    copied.database.execute("create table a (id int); create table b (id int); create table c (id int)")
    copied.reload()
    with pytest.MonkeyPatch.context() as patch, proxy.broken("GET|HEAD|PUT|DELETE", spared=spared, silent=True):
        patch.setattr(s3_client, "_kept", {})
        patch.setattr(s3_client, "connect", functools.partial(s3_client.connect, answer_s=0.5))
        errors = sentences(copied.copy())

    assert len(errors) == 5
    assert len({sentence.partition(": ")[2] for sentence in errors.values()}) == 1
    assert "did not respond in time" in errors["bronze__movie"]
    assert proxy.met <= 4, "two attempts, and two more to make sure"
    assert_continues(copied)


def test_no_object_is_written_to_a_bucket_that_overwrites(cinema: Project, proxy: Proxy):
    """Two writers would duplicate rows there without any error."""
    cinema.bucket.store().delete("_pg_bronze/create_only.json")
    with proxy.broken("PUT", unfenced=True):
        errors = sentences(cinema.copy())

    assert set(errors) == STEPS
    for table in TABLES:
        assert errors[f"bronze__{table}"].startswith(f"{table}: bucket {cinema.bucket.name!r}: 8 of 8 simultaneous")
        assert "PG_BRONZE_UNFENCED=true" in errors[f"bronze__{table}"]
    assert [item.key for item in cinema.bucket.store().list("") if not item.key.endswith(".json")] == []
    assert_continues(cinema)


def _cut(other: psycopg.Connection, pid: int) -> None:
    """End every session of pg_bronze, as a network outage does, and the reading one last.

    Otherwise the next table would use a session that is about to end, and fail too.
    """
    sessions = other.execute(
        "select pid from pg_stat_activity where datname = current_database() and application_name like 'pg_bronze%'"
    ).fetchall()
    for (session,) in sorted(sessions, key=lambda session: session == (pid,)):
        other.execute("select pg_terminate_backend(%s, 10000)", (session,))


def _end(other: psycopg.Connection, pid: int) -> None:
    other.execute("select pg_terminate_backend(%s)", (pid,))


def _retries(result: dg.ExecuteInProcessResult) -> set[str]:
    """Return what a retry requires, from the failures in the events of a run."""
    return {
        event.step_failure_data.user_failure_data.metadata["pg_bronze/retry"].value
        for event in result.all_events
        if event.event_type == dg.DagsterEventType.STEP_FAILURE
    }


def test_a_read_that_is_interrupted_during_a_batch_fails_only_its_table(cinema: Project):
    """Three of five reads are interrupted in different ways. The server is available, so the others continue."""
    ended = ("cut", "ended", "slow")
    for table in ended:
        cinema.database.execute(f"create table {table} (id int primary key); insert into {table} values (1), (2)")
    cinema.database.execute(f"{SLOW}; alter table slow add f feeling")
    cinema.set(PG_BRONZE_STATEMENT_TIMEOUT_S="3")
    cinema.reload()
    assert cinema.copy().success
    write(cinema)
    for table in ended:
        cinema.database.execute(f"insert into {table} values (3)")
    cinema.database.execute("update slow set f = 'slow' where id = 2")

    with held_reads(cinema.database, "cut", _cut), held_reads(cinema.database, "ended", _end):
        result = cinema.copy()

    errors = sentences(result)
    assert set(errors) == {f"bronze__{table}" for table in ended}
    for table in ended:
        assert errors[f"bronze__{table}"].startswith(f"{table}: ")
        assert "retried at the next tick" in errors[f"bronze__{table}"]
    assert "by its time limit" in errors["bronze__slow"]
    assert "Raise PG_BRONZE_STATEMENT_TIMEOUT_S" in errors["bronze__slow"]
    assert _retries(result) == {"automatic"}
    for table in TABLES:
        assert lake.compare(cinema.database, cinema.bucket, table) == lake.SAME
    wait_until_gone(cinema.database)
    cinema.database.execute("update slow set f = 'fast'")
    assert_continues(cinema)
    for table in ended:
        assert lake.compare(cinema.database, cinema.bucket, table) == lake.SAME


@pytest.fixture
def guest(copied: Project) -> Iterator[str]:
    """A new role that the project connects as."""
    role = f"guest_{copied.database.name}"
    copied.database.execute(f"create role {role} login password 'guest'; grant pg_read_all_data to {role}")
    copied.set(PG_USER=role, PG_PASS="guest", PG_CONTROL_URL="off")
    copied.reload()
    yield role
    copied.database.execute(f"drop role {role}")


@pytest.mark.parametrize("away", ["S3", "PostgreSQL"])
def test_an_unavailable_server_is_named_with_the_remedy_for_every_table(
    copied: Project, guest: str, capsys: pytest.CaptureFixture[str], away: str
):
    """The UI and the terminal show the same sentence."""
    copied.monkeypatch.setattr(batch, "open_instance", lambda: contextlib.nullcontext(copied.instance))
    there = copied.bucket.server.endpoint_url
    if away == "S3":
        words = ("http://127.0.0.1:1", "Check that MINIO_ENDPOINT is right")
        copied.set(MINIO_ENDPOINT="http://127.0.0.1:1")
        copied.reload()
    else:
        words = (f"{copied.database.name}@", "Raise its connection limit, or end sessions")
        copied.database.execute(f"alter role {guest} connection limit 0")

    errors = sentences(copied.copy())
    with pytest.raises(typer.Exit):
        app.tick([])

    line = capsys.readouterr().err.splitlines()[-1]
    assert set(errors) == STEPS
    assert all(errors[f"bronze__{table}"].startswith(f"{table}: ") for table in TABLES)
    assert line.startswith("pg-bronze: "), "one line for all tables"
    assert [text for text in (*errors.values(), line) if not all(word in text for word in words)] == []
    copied.database.execute(f"alter role {guest} connection limit -1")
    copied.set(MINIO_ENDPOINT=there)
    copied.reload()
    assert_continues(copied)
