"""`pg-bronze` as people and cron run it: what it copies and prints, and its exit code."""

import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from pg_bronze_tests.e2e.conftest import Shop, end, make_shop, wait_until
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.clusters import CopiedServer
from pg_bronze_tests.harness.repetitions import combinations, repetition
from pg_bronze_tests.harness.replicas import PRIMARY_OPTIONS, Standby
from pg_bronze_tests.harness.servers import Bucket, Database

MOVIES = """
create table movie (id int primary key, title text, updated_at timestamptz default now());
create table person (id int primary key, name text);
insert into movie select i, 'film ' || i from generate_series(1, 200) i;
insert into person select i, 'person ' || i from generate_series(1, 30) i;
"""


@pytest.fixture
def stocked(shop: Shop) -> Shop:
    shop.database.execute(MOVIES)
    return shop


def test_a_tick_in_any_folder_copies_all_rows_and_the_next_one_only_new_rows(stocked: Shop, tmp_path: Path):
    """Cron runs it in `/`, with an empty DAGSTER_HOME."""
    home = tmp_path / "dagster home"
    home.mkdir()
    stocked.folder = tmp_path

    first = stocked.run("tick", DAGSTER_HOME=str(home))

    assert first.returncode == 0, first.stderr
    assert "copied movie: 200 rows" in first.stdout
    assert "batch: 230 new rows in 2 tables" in first.stdout
    for table in ("movie", "person"):
        assert lake.compare(stocked.database, stocked.bucket, table) == lake.SAME
    stocked.database.execute("insert into movie values (1000, 'new'); update movie set title = 'changed' where id = 7")

    second = stocked.run("tick", DAGSTER_HOME=str(home))

    assert second.returncode == 0, second.stderr
    assert "copied movie: 2 rows" in second.stdout
    assert len(lake.ids(stocked.bucket, "movie")) == 202
    assert lake.compare(stocked.database, stocked.bucket, "movie") == lake.SAME


def test_workers_without_a_common_disk_continue_each_others_copies_exactly(stocked: Shop, tmp_path: Path):
    """Each pod of Airflow or Kubernetes may begin with an empty DAGSTER_HOME, or one that others have overtaken."""
    database, bucket = stocked.database, stocked.bucket

    def tick_on(worker: str, *options: str) -> None:
        home = tmp_path / worker
        home.mkdir(exist_ok=True)
        done = stocked.run("tick", *options, DAGSTER_HOME=str(home), PG_CONTROL_URL="off")
        assert done.returncode == 0, done.stderr

    tick_on("first")
    with database.connect(autocommit=False) as late:
        late.execute("insert into movie values (1000, 'late'); update movie set title = 'late' where id = 7")
        database.execute("insert into movie values (1001, 'early'); insert into person values (100, 'early')")
        tick_on("second", "--due")
        late.commit()
    tick_on("third")
    database.execute("insert into movie values (1002, 'after')")
    tick_on("first", "--due")

    assert lake.compare(database, bucket, "movie") == lake.SAME
    assert lake.compare(database, bucket, "person") == lake.SAME
    assert len(lake.ids(bucket, "movie")) == 204, "200 rows, three new ones, and one changed: each once"


@pytest.mark.slow
def test_the_watermark_is_stored_in_the_project_folder_without_dagster_home(stocked: Shop):
    """Dagster would otherwise store it in a temporary folder that is deleted on exit."""
    shutil.rmtree(stocked.folder / ".dagster")
    assert stocked.run("tick").returncode == 0
    assert (stocked.folder / ".dagster/storage").is_dir()
    before = lake.keys(stocked.bucket, "movie")

    again = stocked.run("tick", "movie")

    assert again.returncode == 0, again.stderr
    assert "movie: no new row up to transaction" in again.stdout
    assert lake.keys(stocked.bucket, "movie") == before


def test_a_tick_names_each_failed_table_and_copies_the_others(stocked: Shop):
    stocked.database.execute("create table ours (id int); insert into ours values (1)")
    settings = '{"movie": {"cursor_column": "nope"}, "person": {"cursor_column": "neither"}}'

    result = stocked.run("tick", PG_BRONZE_TABLES=settings)

    assert result.returncode == 1
    lines = result.stderr.strip().splitlines()
    assert [line.split(" failed: ")[0] for line in lines] == ["pg-bronze: movie", "pg-bronze: person"]
    assert "nope" in lines[0]
    assert "neither" in lines[1]
    assert "Traceback" not in result.stdout + result.stderr
    assert lake.ids(stocked.bucket, "ours") == [1]


def test_a_tick_of_named_tables_copies_no_other_table(stocked: Shop):
    assert stocked.run("tick", "person").returncode == 0

    assert lake.keys(stocked.bucket, "movie") == []
    unknown = stocked.run("tick", "persn")
    assert unknown.returncode == 1
    assert "persn" in unknown.stderr
    assert "person" in unknown.stderr


@pytest.mark.slow
def test_a_reset_with_another_dagster_instance_copies_the_table_again_into_a_new_generation(
    stocked: Shop, tmp_path: Path
):
    """The old objects must not be mixed with the new ones, and must not be lost.

    A reset on a laptop must reach the server, which reads it from the bucket.
    """
    assert stocked.run("tick").returncode == 0
    (old,) = lake.keys(stocked.bucket, "movie")
    laptop = tmp_path / "laptop"
    laptop.mkdir()

    reset = stocked.run("reset", "--yes", "movie", DAGSTER_HOME=str(laptop))
    assert reset.returncode == 0, reset.stderr
    assert "movie: generation 1" in reset.stdout
    assert stocked.run("tick").returncode == 0

    assert lake.ids(stocked.bucket, "movie") == list(range(1, 201))
    assert old not in lake.keys(stocked.bucket, "movie")
    moved = [item.key for item in stocked.bucket.store().list("_pg_bronze/old/movie/gen=0/")]
    assert [key.rsplit("/", 1)[1] for key in moved] == [old.rsplit("/", 1)[1]]
    assert lake.compare(stocked.database, stocked.bucket, "person") == lake.SAME


@pytest.mark.slow
def test_continue_copies_new_rows_after_a_lost_object(stocked: Shop):
    assert stocked.run("tick").returncode == 0
    stocked.bucket.store().delete(lake.keys(stocked.bucket, "movie")[0])
    stocked.database.execute("insert into movie values (1000, 'new')")
    stopped = stocked.run("tick")
    assert stopped.returncode == 1
    assert "pg-bronze continue movie" in stopped.stderr

    assert stocked.run("continue", "movie").returncode == 0
    assert stocked.run("tick").returncode == 0

    assert lake.ids(stocked.bucket, "movie") == [1000]


@pytest.mark.parametrize("command, table", combinations(["reset", "continue"], ["nowhere", "movie"]))
def test_a_change_of_an_unknown_or_uncopied_table_fails_with_one_sentence(stocked: Shop, command: str, table: str):
    result = stocked.run(command, table, *(["--yes"] if command == "reset" else []))

    assert result.returncode == 1
    assert result.stderr.startswith("pg-bronze: ")
    assert table in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.slow
def test_run_copies_repeatedly_and_ctrl_c_ends_it_without_a_traceback(stocked: Shop, tmp_path: Path):
    output = tmp_path / "run.log"
    process = stocked.start("run", "--every", "1s", output=output)
    try:
        wait_until(lambda: len(lake.keys(stocked.bucket, "person")) == 1, "the first batch", 60)
        stocked.database.execute("insert into person values (1000, 'new')")
        wait_until(lambda: 1000 in lake.ids(stocked.bucket, "person"), "the second batch", 30)
    finally:
        code = end(process, 20)

    text = output.read_text()
    assert code in {0, -signal.SIGINT, 130}, text
    assert "Traceback" not in text
    assert lake.compare(stocked.database, stocked.bucket, "person") == lake.SAME


# cli/test_batch.py shows it with the batches of one process.
@pytest.mark.slow
@repetition
def test_run_retries_a_failing_table_after_pauses_and_copies_the_others(stocked: Shop, tmp_path: Path):
    """The same error every second would hide every other line."""
    stocked.environment["PG_BRONZE_TABLES"] = '{"movie": {"cursor_column": "nope"}}'
    output = tmp_path / "run.log"
    process = stocked.start("run", "--every", "1s", output=output)
    try:
        wait_until(lambda: "movie failing since" in output.read_text(), "the sentence about the failing table", 60)
        for number in range(1000, 1004):
            stocked.database.execute(f"insert into person values ({number}, 'new')")
            wait_until(lambda number=number: number in lake.ids(stocked.bucket, "person"), "a batch", 30)
    finally:
        end(process, 20)

    text = output.read_text()
    # Twice if the test took more than a minute.
    assert text.count("pg-bronze: movie failed: ") <= 2
    assert text.count("movie failing since") <= 2
    assert text.count("batch: ") > 3


def test_run_continues_after_an_outage_of_the_database(stocked: Shop, tmp_path: Path):
    """It runs unattended for months, and a restart of the database must not end it."""
    stocked.environment["PG_DB"] = "not_there_yet_" + stocked.database.name
    output = tmp_path / "run.log"
    process = stocked.start("run", "--every", "1s", output=output)
    try:
        wait_until(lambda: "the database does not exist" in output.read_text(), "a failing batch", 60)
        assert process.poll() is None
        stocked.database.execute(f'create database "{stocked.environment["PG_DB"]}" template "template0"')
        wait_until(lambda: "recovered after" in output.read_text(), "a batch that works", 30)
    finally:
        end(process, 20)
        stocked.database.execute(f'drop database if exists "{stocked.environment["PG_DB"]}" with (force)')
    text = output.read_text()
    assert "Traceback" not in text
    assert text.count("pg-bronze: ") - text.count("still failing") == 2, "one line for the outage, one for its end"


@pytest.mark.slow
def test_two_ticks_at_the_same_time_duplicate_no_row(stocked: Shop, tmp_path: Path):
    """Cron may start one while another is still working."""
    homes = [tmp_path / "one", tmp_path / "two"]
    processes = []
    for home in homes:
        home.mkdir()
        environment = {**stocked.environment, "DAGSTER_HOME": str(home)}
        second = Shop(stocked.folder, stocked.database, stocked.bucket, environment)
        processes.append(second.start("tick", output=home / "log"))
    codes = [process.wait(90) for process in processes]

    assert 0 in codes, [(home / "log").read_text() for home in homes]
    assert stocked.run("tick").returncode == 0
    assert lake.ids(stocked.bucket, "movie") == list(range(1, 201))
    assert lake.ids(stocked.bucket, "person") == list(range(1, 31))


def test_help_and_version_need_no_settings(tmp_path: Path):
    from pg_bronze import __version__
    from pg_bronze_tests.e2e.conftest import BIN, clean_environment

    for arguments, words in ((["--help"], "tick"), (["--version"], __version__)):
        result = subprocess.run(
            [BIN / "pg-bronze", *arguments], capture_output=True, text=True, check=True, cwd=tmp_path,
            env=clean_environment(tmp_path),
        )  # fmt: skip
        assert words in result.stdout


def test_an_env_file_that_would_be_ignored_is_an_error(stocked: Shop, tmp_path: Path):
    """Another database than the one in that file would be copied."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".env").write_text("PG_DB=elsewhere\n")
    stocked.folder = elsewhere

    done = stocked.run("tick", DAGSTER_HOME=str(tmp_path))

    assert done.returncode == 1
    assert f"{elsewhere / '.env'} would be ignored" in done.stderr


# The test of a failover reconciles one table without a difference, and copies it afterwards.
@repetition
def test_reconcile_finds_no_difference_and_the_copy_continues(stocked: Shop):
    assert stocked.run("tick", "movie").returncode == 0

    done = stocked.run("reconcile", "movie")

    assert (done.returncode, done.stderr) == (0, "")
    assert "movie: generation 0, object number 2" in done.stdout
    stocked.database.execute("insert into movie (id, title) values (9001, 'after')")
    assert "copied movie: 1 row," in stocked.run("tick", "movie").stdout


@pytest.mark.slow
def test_each_table_stops_after_a_failover_until_a_command_continues_it(bucket: Bucket, tmp_path: Path):
    """The standby did not receive the last change of a note, which would remain the newest version in the lake."""
    with CopiedServer(tmp_path / "primary", options=PRIMARY_OPTIONS) as primary:
        database = Database(primary, "postgres")
        shop = make_shop(tmp_path / "a shop", database, bucket)
        database.execute(f"{MOVIES}; create table note (id int primary key, body text)")
        database.execute("insert into note select i, 'note ' || i from generate_series(1, 5) i")
        with Standby(tmp_path / "standby", primary) as standby:
            standby.catch_up()
            standby.cut_off()
            database.execute("update note set body = 'lost' where id = 3")
            assert shop.run("tick").returncode == 0
            primary.kill()
            standby.promote()
            shop.database = database = Database(standby, "postgres")
            shop.environment |= database.environ
            for _ in range(20):  # ids that the lost transactions had are used again
                database.execute("select pg_current_xact_id()")
            database.execute("insert into movie values (1000, 'new'); delete from movie where id = 5")
            database.execute("insert into person values (1000, 'new')")
            before = [item.key for item in bucket.store().list("")]

            stopped = shop.run("tick")

            assert stopped.returncode == 1
            assert [line.split(" failed: ")[0] for line in stopped.stderr.strip().splitlines()] == [
                "pg-bronze: movie", "pg-bronze: note", "pg-bronze: person"
            ]  # fmt: skip
            for table in ("movie", "note", "person"):
                assert f"{table} failed: the database changed from timeline 1 to 2" in stopped.stderr
                assert f"pg-bronze reconcile {table}" in stopped.stderr
            assert [item.key for item in bucket.store().list("")] == before

            same, other = shop.run("reconcile", "movie"), shop.run("reconcile", "note")
            assert (same.returncode, same.stderr) == (0, "")
            assert "movie: reconciled: all 199 live rows copied so far are in the lake" in same.stdout
            assert "movie: generation 0, object number 2" in same.stdout
            assert other.returncode == 1
            assert re.search(r"note: of 5 live rows, 1 .* and 1 row versions in the lake", other.stderr), other.stderr
            assert shop.run("continue", "person").returncode == 0
            assert shop.run("reset", "--yes", "note").returncode == 0

            assert shop.run("tick").returncode == 0
            assert lake.ids(bucket, "movie") == [*range(1, 201), 1000]
            assert lake.ids(bucket, "person") == [*range(1, 31), 1000]
            assert lake.ids(bucket, "note") == [1, 2, 3, 4, 5]
            for table in ("movie", "person", "note"):
                assert lake.compare(database, bucket, table) == lake.SAME
