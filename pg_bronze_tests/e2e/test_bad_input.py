"""Errors of the first day: one sentence with the remedy, within seconds, without a traceback or a secret."""

import functools
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pg_bronze_tests.e2e.conftest import BIN, ROOT, Shop, free_port
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.servers import unused_bucket_name

SECRET = "pl4nted-secret"
TRIED_S = 10.0


@dataclass
class Fault:
    """The changed variables, and words that the sentence contains."""

    words: tuple[str, ...]
    changed: dict[str, str | None] = field(default_factory=dict)


FAULTS = {
    "server down": Fault(("no connection to PostgreSQL", "PG_HOST", "PG_PORT"), {"PG_PORT": "1"}),
    "host unknown": Fault(("host name cannot be resolved", "PG_HOST"), {"PG_HOST": "nowhere.invalid"}),
    "wrong password": Fault(("rejected the user name or password", "PG_PASS"), {"PG_PASS": SECRET}),
    "no such database": Fault(("the database does not exist", "PG_DB"), {"PG_DB": "nowhere"}),
    "setting missing": Fault(("PG_DB is not set",), {"PG_DB": None}),
    "setting unknown": Fault(("PG_BRONZE_INTERVAL is not a known setting", "INTERVAL_S"), {"PG_BRONZE_INTERVAL": "10"}),
    "setting wrong": Fault(("PG_BRONZE_INTERVAL_S", "'soon'", "number"), {"PG_BRONZE_INTERVAL_S": "soon"}),
    "wrong alias": Fault(
        ("MINIO_ALIAS", "'elsewhere'", "mc alias set"),
        {"MINIO_ALIAS": "elsewhere", "MINIO_ENDPOINT": None, "MINIO_ACCESS_KEY": None, "MINIO_SECRET_KEY": None},
    ),
    "bucket's name": Fault(("MINIO_BUCKET", "lower-case"), {"MINIO_BUCKET": "No_Bucket"}),
    "S3 down": Fault(
        ("no connection to the S3 server http://127.0.0.1:1", "MINIO_ENDPOINT"),
        {"MINIO_ENDPOINT": "http://127.0.0.1:1"},
    ),
    "wrong S3 keys": Fault(("rejected the keys", "MINIO_SECRET_KEY"), {"MINIO_SECRET_KEY": SECRET}),
}


@pytest.fixture
def stocked(shop: Shop) -> Shop:
    shop.database.execute("create table movie (id int primary key, title text); insert into movie values (1, 'one')")
    return shop


def _sentence(shop: Shop, **changed: str | None) -> str:
    """Run a tick that fails, and return the one line that it prints on standard error."""
    started = time.monotonic()
    result = shop.run("tick", **changed)
    seconds = time.monotonic() - started
    text = result.stdout + result.stderr
    assert result.returncode == 1, text
    assert "Traceback" not in text, text
    assert SECRET not in text
    assert shop.bucket.server.secret_key not in text
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, text
    assert lines[0].startswith("pg-bronze: ")
    assert seconds < _start_s() + TRIED_S
    return lines[0]


@functools.cache
def _start_s() -> float:
    """Return the seconds in which this machine loads the modules of the command."""
    started = time.monotonic()
    subprocess.run([BIN / "python", "-c", "import pg_bronze.definitions"], cwd=ROOT, check=True)
    return time.monotonic() - started


@pytest.mark.parametrize("name", FAULTS)
def test_an_error_is_one_sentence_with_the_remedy(stocked: Shop, name: str):
    fault = FAULTS[name]

    sentence = _sentence(stocked, **fault.changed)

    assert all(word in sentence for word in fault.words), sentence
    assert lake.keys(stocked.bucket, "movie") == []


def test_an_error_of_many_tables_is_one_sentence(stocked: Shop):
    """A hundred lines would hide that a hundred tables fail for one cause."""
    stocked.database.execute("create table a (id int); create table b (id int); create table c (id int)")

    sentence = _sentence(stocked, MINIO_SECRET_KEY=SECRET)

    assert sentence.startswith("pg-bronze: the S3 server http")


def test_the_next_tick_succeeds_after_the_fix(stocked: Shop):
    _sentence(stocked, PG_PASS=SECRET)

    assert stocked.run("tick").returncode == 0
    assert lake.ids(stocked.bucket, "movie") == [1]


def test_an_env_file_that_cannot_be_read_is_named(stocked: Shop):
    (stocked.folder / ".env").mkdir()

    sentence = _sentence(stocked)

    assert ".env" in sentence
    assert "cannot be read" in sentence


def test_an_error_in_the_env_file_names_the_line_without_its_text(stocked: Shop):
    (stocked.folder / ".env").write_text(f"PG_BRONZE_LAYOUT=flat\nPG_PASS {SECRET}\n")

    assert "line 2" in _sentence(stocked)


def test_a_table_without_permission_is_named_with_the_grant(stocked: Shop):
    stocked.database.execute(
        "create table open (id int); insert into open values (1);"
        "create role visitor login password 'visitor'; grant select on open to visitor"
    )
    try:
        result = stocked.run("tick", PG_USER="visitor", PG_PASS="visitor", PG_CONTROL_URL="off")

        # A table that was never readable is skipped with the reason, so ticks do not fail.
        assert result.returncode == 0, result.stderr
        assert "skipped movie: " in result.stdout
        assert lake.ids(stocked.bucket, "open") == [1]
        named = stocked.run("tick", "movie", PG_USER="visitor", PG_PASS="visitor", PG_CONTROL_URL="off")
        assert named.returncode == 1
        assert "Traceback" not in named.stderr
        assert 'grant select on "public"."movie" to "visitor"' in named.stderr
    finally:
        stocked.database.execute("drop owned by visitor; drop role visitor")


def test_a_folder_that_was_deleted_is_named(stocked: Shop):
    gone = stocked.folder / "gone"
    gone.mkdir()
    command = f"cd {shlex.quote(str(gone))} && rmdir ../gone && exec {shlex.quote(str(BIN / 'pg-bronze'))} tick"

    done = subprocess.run(["sh", "-c", command], env=stocked.environment, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert done.stderr == (
        "pg-bronze: The current folder was deleted or cannot be entered. Change to another folder, and run the command "
        "again.\n"
    )


def test_a_terminal_without_the_letters_of_a_name_stops_no_table(stocked: Shop):
    """Cron and containers often have the locale C; its Python may be told to use ASCII."""
    stocked.database.execute("create table película (id int); insert into película values (1)")
    reader, writer = os.pipe()
    os.close(reader)

    for encoding, output in (("ascii", subprocess.PIPE), ("utf-8", writer)):
        stocked.database.execute("insert into película values (2)")
        stocked.database.execute("insert into movie values (7, 'x') on conflict do nothing")
        done = subprocess.run(
            [BIN / "pg-bronze", "tick"], cwd=stocked.folder, env=stocked.environment | {"PYTHONIOENCODING": encoding},
            stdout=output, stderr=subprocess.PIPE, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, b"")

    os.close(writer)
    assert len(lake.ids(stocked.bucket, "película")) == 3
    assert lake.ids(stocked.bucket, "movie") == [1, 7]


def test_a_missing_bucket_is_created(stocked: Shop):
    name = unused_bucket_name()

    assert stocked.run("tick", MINIO_BUCKET=name).returncode == 0

    assert lake.ids(type(stocked.bucket)(stocked.bucket.server, name), "movie") == [1]


@pytest.fixture
def postgres_home(shop: Shop, tmp_path: Path) -> Iterator[Shop]:
    """The shop with Dagster's storage in a PostgreSQL database, as configured in deploy/postgres."""
    name = f"dagster_{shop.database.name}"
    shop.database.execute(f'create database "{name}"')
    shutil.rmtree(shop.folder / ".dagster")
    home = tmp_path / "deploy"
    shutil.copytree(ROOT / "deploy/postgres", home)
    server = shop.database.server
    shop.environment |= {
        "DAGSTER_HOME": str(home),
        "DAGSTER_PG_HOST": server.host,
        "DAGSTER_PG_PORT": str(server.port),
        "DAGSTER_PG_DB": name,
        "DAGSTER_PG_USER": server.user,
        "DAGSTER_PG_PASSWORD": server.password,
    }
    yield shop
    shop.database.execute(f'drop database "{name}" with (force)')


def test_the_watermark_is_stored_in_postgresql_if_dagsters_storage_is_there(postgres_home: Shop):
    postgres_home.database.execute("create table movie (id int primary key); insert into movie values (1)")
    first = postgres_home.run("tick")
    assert first.returncode == 0, first.stderr
    assert not (postgres_home.folder / ".dagster/storage").exists()
    postgres_home.database.execute("insert into movie values (2)")

    second = postgres_home.run("tick")

    assert second.returncode == 0, second.stderr
    assert "copied movie: 1 row," in second.stdout
    assert "adopted" not in second.stdout
    assert lake.ids(postgres_home.bucket, "movie") == [1, 2]


def test_dagsters_storage_that_does_not_answer_is_one_sentence(postgres_home: Shop):
    result = postgres_home.run("tick", DAGSTER_PG_PORT=str(free_port()))

    assert result.returncode == 1
    # Dagster's storage logs its attempts first.
    assert result.stderr.strip().splitlines()[-1].startswith("pg-bronze: Dagster's own storage cannot be opened")
    assert postgres_home.database.server.password not in result.stderr


def test_a_missing_variable_of_dagsters_storage_is_named(postgres_home: Shop):
    result = postgres_home.run("tick", DAGSTER_PG_HOST=None)

    assert result.returncode == 1
    assert "DAGSTER_PG_HOST" in result.stderr
    assert "Traceback" not in result.stderr
