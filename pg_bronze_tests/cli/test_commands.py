"""The commands, each in this process on real servers: what they print, change and exit with."""

import contextlib
import io
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow.parquet
import pytest

from pg_bronze.cli import batch, kept_memory, state_changes, status
from pg_bronze.defs import resources
from pg_bronze.errors import PgBronzeError, TableLocked
from pg_bronze.lake.object_store import Store
from pg_bronze.postgres.connection import Source
from pg_bronze.settings.load import load_settings
from pg_bronze_tests.cli.conftest import Commands, Printed, commands_of
from pg_bronze_tests.harness import bucket_pool
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.project import Project, key, settle

Environment = pytest.MonkeyPatch


@pytest.fixture
def visitor(copied: Commands, environment: Environment) -> Iterator[str]:
    """A role of its own that may read all tables."""
    role, execute = f"visitor_{secrets.token_hex(3)}", copied.project.database.execute
    execute(f"create role {role} login password 'v'; grant select on all tables in schema public to {role}")
    for name, value in {"PG_USER": role, "PG_PASS": "v", "PG_CONTROL_URL": "off"}.items():
        environment.setenv(name, value)
    yield role
    execute(f"drop owned by {role}; drop role {role}")


def of(printed: Printed, subject: str) -> list[dict[str, str]]:
    """The findings of `doctor --json` about a subject that are not ok."""
    found = printed.document["findings"]
    return [item for item in found if item["subject"] == subject and item["severity"] != "ok"]


def test_doctor_names_what_is_wrong_with_a_statement_that_mends_it(
    copied: Commands, visitor: str, environment: Environment
):
    environment.setattr(Store, "verify_create_only", lambda self: None)  # takes SeaweedFS seconds; see below
    execute = copied.project.database.execute
    execute("create table secret (id int primary key)")
    execute("create table price (id int primary key, amount numeric(9, 2))")
    execute("insert into price select i, i from generate_series(1, 50) i; insert into price values (0, 'NaN')")
    execute(f"analyze price; grant select on price to {visitor}")

    sick = copied.run("doctor", "--json")

    assert sick.code == 1
    (right,) = of(sick, "secret")
    assert (right["severity"], right["remedy"]) == ("warn", f'grant select on "public"."secret" to "{visitor}";')
    (value,) = of(sick, "price")
    assert "column amount (numeric(9,2)) contain NaN, and PG_BRONZE_NAN is error" in value["sentence"]
    (trigger,) = of(sick, "triggers")
    assert trigger["sentence"].startswith("no trigger sets movie.updated_at.")
    by_label = {item["table"]: item for item in sick.document["tables"]}
    assert by_label["price"]["values_at_risk"] == ["amount (PG_BRONZE_NAN)"]
    assert by_label["movie"]["first_load"].keys() == {"seconds", "bytes"}

    execute(right["remedy"])
    name, _, setting = value["remedy"].partition("=")
    environment.setenv(name, setting)
    execute(
        "create function touch() returns trigger language plpgsql as 'begin new.updated_at = now(); return new; end';"
        "create trigger touch before update on movie for each row execute function touch()"
    )
    healed = copied.run("doctor", "--json")

    execute("drop table secret, price; drop trigger touch on movie")
    assert (healed.code, healed.document["ok"]) == (0, True)
    assert [item for item in healed.document["findings"] if item["severity"] != "ok"] == []


def test_doctor_examines_the_bucket_although_the_database_does_not_answer(copied: Commands, environment: Environment):
    environment.setenv("PG_PASS", "wrong")

    printed = copied.run("doctor")

    assert printed.code == 1
    first, *others = printed.out.splitlines()
    assert first.startswith("error   database: ")
    assert "rejected the user name or password" in first
    assert any(line.startswith("ok      bucket: s3://") and "one creates an object" in line for line in others)
    assert "wrong" not in printed.out.replace("1 wrong", "")


def test_plan_names_the_tables_of_the_next_tick_and_changes_nothing(copied: Commands):
    project = copied.project
    copied.run("tick")
    project.database.execute("insert into person values (100, 'planned')")

    def state() -> tuple[object, ...]:
        events = project.instance.fetch_observations(key("person"), limit=5).records
        cursor = project.instance.daemon_cursor_storage.get_cursor_values({"pg_bronze/command_line"})
        runs = [record.dagster_run.run_id for record in project.instance.get_run_records()]
        return runs, len(events), cursor, lake.keys(project.bucket, "person")

    before = state()
    document = copied.run("plan", "--json").document

    assert state() == before
    found = {item["table"]: (item["due"], item["reason"]) for item in document["tables"]}
    assert found == {"movie": (False, "unchanged"), "person": (True, "may have new rows")}
    lines = copied.run("plan").out.splitlines()
    assert lines[0].split() == ["table", "read", "reason"]
    assert lines[2].split()[:2] == ["person", "yes"]
    assert copied.run("tick").code == 0
    assert 100 in lake.ids(project.bucket, "person")


def test_scan_prints_the_first_rows_and_escapes_what_a_terminal_would_execute(copied: Commands):
    execute = copied.project.database.execute
    execute("create table note (id int primary key, body text, raw bytea, price numeric(9, 2))")
    execute("insert into note values (1, E'a\\x1b[2Jb', '\\x01ff', 1.50), (2, null, null, null)")
    copied.run("tick", "note")
    execute("update note set body = 'newer' where id = 2")
    copied.run("tick", "note")

    table = copied.run("scan", "note").out
    document = copied.run("scan", "note", "--latest", "--rows", "9", "--json").document
    first = copied.run("scan", "note", "--rows", "1", "--json").document["rows"]
    execute("drop table note")

    assert "\x1b" not in table
    assert "a\\x1b[2Jb" in table
    rows = {row["id"]: (row["body"], row["raw"], row["price"]) for row in document["rows"]}
    assert rows == {1: ("a\x1b[2Jb", "\\x01ff", "1.50"), 2: ("newer", None, None)}
    assert [row["id"] for row in first] == [1]
    missing = copied.run("scan", "nothing", "--json")
    assert missing.code == 1
    assert missing.document["error"]["retry"] == "after_fix"


def test_verify_writes_a_missing_object_again_and_reports_it(copied: Commands):
    project, at = copied.project, datetime.now(UTC) - timedelta(days=1)
    project.database.execute("create table film (id int primary key); insert into film values (1)")
    for number in (2, 3):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(resources, "_now", lambda second=number: at.replace(hour=12, second=second))
            assert copied.run("tick", "film").code == 0
        project.database.execute(f"insert into film values ({number})")
    assert copied.run("tick", "film").code == 0
    deleted = lake.keys(project.bucket, "film")[1]
    project.bucket.store().delete(deleted)

    printed = copied.run("verify", f"{at:%Y-%m-%d}", "film", "--json")
    again = copied.run("verify", f"{at:%Y-%m-%d}")

    project.database.execute("drop table film")
    assert printed.code == 0
    assert printed.document["tables"] == [
        {"table": "film", "objects": 1, "repaired": [deleted], "lost": [], "rows": 1, "error": None}
    ]
    assert f"verified film for {at:%Y-%m-%d}: 2 objects present" in again.out
    assert lake.ids(project.bucket, "film") == [1, 2, 3]
    assert copied.run("verify", "2999-01-01").code == 2


def test_rebuild_records_what_the_bucket_has_so_that_nothing_is_copied_twice(copied: Commands):
    project = copied.project
    before, rows = project.watermark("movie"), lake.ids(project.bucket, "movie")
    assert before is not None
    project.instance.wipe_assets([key("movie")])

    (found,) = copied.run("rebuild", "movie", "--json").document["tables"]
    again = copied.run("rebuild", "movie")

    assert (found["object_number"], found["recorded"], found["recorded_days"]) == (before.seq, True, 1)
    assert project.watermark("movie") == before
    assert again.out.rstrip().endswith("Dagster's storage has the same")
    assert copied.run("tick", "movie").code == 0
    assert lake.ids(project.bucket, "movie") == rows


def test_rebuild_does_not_go_back_to_an_older_object(copied: Commands):
    """The rows of the missing object would be copied again, and nobody would learn that it was lost."""
    project = copied.project
    project.database.execute("create table play (id int primary key); insert into play values (1)")
    assert copied.run("tick", "play").code == 0
    project.database.execute("insert into play values (2)")
    assert copied.run("tick", "play").code == 0
    before = project.watermark("play")
    project.bucket.store().delete(lake.keys(project.bucket, "play")[1])

    printed = copied.run("rebuild", "play")

    project.database.execute("drop table play")
    assert printed.code == 1
    assert (
        "Dagster's storage has object number 2 of generation 0, and the newest in the bucket is number 1" in printed.err
    )
    assert project.watermark("play") == before


def test_adopt_continues_in_the_bucket_that_all_objects_were_moved_to(copied: Commands):
    project = copied.project
    project.database.execute("create table scene (id int primary key); insert into scene values (1)")
    assert copied.run("tick", "scene").code == 0
    before = project.watermark("scene")
    with bucket_pool.empty_bucket(project.bucket.server) as other:
        stopped = copied.run("tick", "scene", MINIO_BUCKET=other.name)
        incomplete = copied.run("adopt", "scene", MINIO_BUCKET=other.name)
        for item in list(project.bucket.store().list("scene/")):
            other.store().create(item.key, project.bucket.store().get(item.key) or b"")

        adopted = copied.run("adopt", "scene", "--json", MINIO_BUCKET=other.name)
        again = copied.run("adopt", "scene", MINIO_BUCKET=other.name)

        project.database.execute("insert into scene values (2)")
        assert copied.run("tick", "scene", MINIO_BUCKET=other.name).code == 0
        assert lake.compare(project.database, other, "scene") == lake.SAME
    project.database.execute("drop table scene")
    assert "with the same prefix, and run `pg-bronze adopt`" in stopped.err
    assert incomplete.code == 1
    assert "has no object, and the last one that was written" in incomplete.err
    assert adopted.document["tables"] == [{"table": "scene", "adopted": True, "error": None}]
    assert (again.code, again.out) == (0, "scene: nothing to adopt\n")
    assert before is not None
    assert project.watermark("scene").seq == before.seq + 2


def test_objects_that_were_moved_to_another_prefix_are_refused(copied: Commands):
    """They name each other by their keys, so the newest one would not be found."""
    store = copied.project.bucket.store()
    for item in list(store.list("movie/")):
        store.create(f"moved/{item.key}", store.get(item.key) or b"")

    refused = copied.run("adopt", "movie", PG_BRONZE_PREFIX="moved")

    for item in list(store.list("moved/")):
        store.delete(item.key)
    assert refused.code == 1
    assert "It was moved from another prefix" in refused.err


def test_reset_says_what_it_does_and_changes_nothing_before_a_yes(copied: Commands, environment: Environment):
    project = copied.project
    project.database.execute("create table act (id int primary key); insert into act values (1); analyze act")
    assert copied.run("tick", "act").code == 0
    objects = lake.keys(project.bucket, "act")

    refused = copied.run("reset", "act")
    environment.setattr(state_changes, "is_attended", lambda: True)
    declined = copied.run("reset", "act", answer="n\n")
    unchanged = lake.keys(project.bucket, "act")
    done = copied.run("reset", "act", answer="y\n")
    project.database.execute("drop table act")

    assert (refused.code, refused.out) == (2, "")
    assert "standard input is no terminal. Nothing was changed. Run `pg-bronze reset --yes act`" in refused.err
    assert declined.code == 1
    assert "act: 1 object, " in declined.out
    assert (
        f"move to s3://{project.bucket.name}/_pg_bronze/old/act/gen=0/; about 1 rows are copied again." in declined.out
    )
    assert unchanged == objects
    assert done.code == 0
    assert "act: generation 1, object number 2" in done.out


def test_tick_prints_one_document_with_the_rows_and_the_failures(copied: Commands, environment: Environment):
    project = copied.project
    project.database.execute("create table actor (id int primary key); insert into actor values (1), (2)")
    project.database.execute("create table role (id int primary key); insert into role values (1)")
    environment.setenv("PG_BRONZE_TABLES", '{"role": {"cursor_column": "nope"}}')

    printed = copied.run("tick", "actor", "role", "--json")
    project.database.execute("drop table actor, role")

    assert printed.code == 1
    found = printed.document
    ((actor),) = found["tables"]
    assert (actor["table"], actor["rows"], actor["objects"]) == ("actor", 2, 1)
    assert (found["ok"], found["rows"], found["objects"], found["blocked"]) == (False, 2, 1, None)
    ((role),) = found["failed"]
    assert (role["table"], role["retry"]) == ("role", "after_fix")
    assert "nope" in role["sentence"]
    assert printed.err.startswith("pg-bronze: role failed: ")


def test_tick_as_the_sensor_copies_new_rows_and_counts_a_table_as_failed_until_its_retry(
    copied: Commands, environment: Environment
):
    """A scheduler that retries it each minute would load the source, and one that sees 0 would not report it."""
    project = copied.project
    project.database.execute("create table act (id int primary key); create table role (id int primary key)")
    project.database.execute("insert into act values (1); insert into role values (1)")
    environment.setenv("PG_BRONZE_TABLES", '{"role": {"cursor_column": "nope"}}')

    first, second = copied.run("tick", "--due", "--json", "act", "role"), copied.run("tick", "--due", "--json", "role")
    runs = len(project.instance.get_run_records())
    held = copied.run("tick", "--due", "--json", "act", "role")

    project.database.execute("drop table act, role")
    assert [item.code for item in (first, second, held)] == [1, 1, 1]
    ((act),) = first.document["tables"]
    assert (act["rows"], act["state"]) == (1, "up_to_date")
    assert act["object"] == f"s3://{project.bucket.name}/{lake.keys(project.bucket, 'act')[-1]}"
    ((role),) = held.document["failed"]
    assert (role["table"], role["retry"], role["state"]) == ("role", "after_fix", "stuck")
    assert held.document["tables"] == []
    assert held.err.count("nope") == 1
    assert len(project.instance.get_run_records()) == runs


def test_a_tick_of_some_tables_as_the_sensor_keeps_what_is_known_about_the_others(copied: Commands):
    """Each group of tables would otherwise make the others due again."""
    copied.run("tick")
    before = kept_memory.load(copied.project.instance, load_settings())

    copied.run("tick", "--due", "person")

    after = kept_memory.load(copied.project.instance, load_settings())
    assert len(before.hints) > 1
    assert before.hints.keys() == after.hints.keys()


def test_the_states_of_all_tables_are_shown_while_one_is_locked(copied: Commands, environment: Environment):
    """An ALTER TABLE or a long load would otherwise hold up `pg-bronze status` until the time limit of a statement."""
    copied.run("tick")
    environment.setattr(status, "open_instance", lambda: contextlib.nullcontext(copied.project.instance))
    refused: list[type[BaseException]] = []
    ask = Source.ask

    def noted(self: Source, *arguments: Any) -> Any:
        try:
            return ask(self, *arguments)
        except PgBronzeError as error:
            refused.append(type(error))
            raise

    environment.setattr(Source, "ask", noted)
    database = copied.project.database
    with database.connect(autocommit=False) as other:
        database.execute("create table noise (); drop table noise")
        other.execute("lock table person in access exclusive mode")
        shown = copied.run("status", "--json", PG_BRONZE_STATEMENT_TIMEOUT_S="5")
        other.rollback()

    assert refused == [TableLocked]
    states = {table["table"]: table["state"] for table in shown.document["tables"]}
    assert states["person"] == states["movie"] == "up_to_date"


@pytest.mark.parametrize("labels", [[], ["person"]], ids=["all", "named"])
def test_blocked_rows_have_an_exit_status_of_their_own(copied: Commands, environment: Environment, labels: list[str]):
    """Nothing is copied then, and 0 looks the same as a quiet day."""
    environment.setattr(batch, "BLOCKED_AFTER_S", 0.0)
    database, name = copied.project.database, f"held {secrets.token_hex(3)}"
    copied.run("tick")
    with database.connect(autocommit=False) as held:
        held.execute(f"select pg_current_xact_id(); prepare transaction '{name}'")
    database.execute("insert into person values (200, 'after'); delete from person where id = 200")
    try:
        usual, strict = copied.run("tick", *labels), copied.run("tick", *labels, "--strict", "--json")
    finally:
        database.execute(f"rollback prepared '{name}'")

    assert usual.code == 0
    assert f"New rows are blocked: prepared transaction '{name}' has held the horizon" in usual.err
    assert strict.code == 3
    assert name in strict.document["blocked"]


def test_a_table_whose_right_was_revoked_has_an_exit_status_of_its_own(copied: Commands, visitor: str):
    copied.run("tick")
    copied.project.database.execute(f"revoke select on movie from {visitor}")

    usual, strict = copied.run("tick"), copied.run("tick", "--strict", "--json")

    assert (usual.code, strict.code) == (1, 4)
    (lost,) = strict.document["not_copied"]
    assert lost["table"] == "movie"
    assert f'grant select on "public"."movie" to "{visitor}"' in lost["sentence"]
    assert strict.document["failed"] == []


def test_a_forgotten_table_does_not_fail_until_it_was_copied_again(copied: Commands, visitor: str):
    execute = copied.project.database.execute
    copied.run("tick")
    refused = copied.run("forget", "person")
    execute(f"revoke select on person from {visitor}")
    failing = copied.run("tick")

    forgotten = copied.run("forget", "person")
    quiet = copied.run("tick", "--strict")
    execute(f"grant select on person to {visitor}; insert into person values (300, 'again')")
    again = copied.run("tick", "--strict")
    execute(f"revoke select on person from {visitor}")
    revoked_again = copied.run("tick", "--strict")

    assert refused.code == 1
    assert refused.err.startswith("pg-bronze: person is not a table that was copied and is not copied any more.")
    assert "run `pg-bronze forget person`" in failing.err
    assert [item.code for item in (failing, forgotten, quiet, again, revoked_again)] == [1, 0, 0, 0, 4]
    assert 300 in lake.ids(copied.project.bucket, "person")


def test_a_renamed_table_is_no_failure_and_has_an_exit_status_with_strict(copied: Commands, environment: Environment):
    """Its rows are copied under the new name, and a quiet day looks the same otherwise."""
    environment.setenv("PG_BRONZE_INCLUDE", "premiere,opening")
    environment.setenv("PG_BRONZE_FORGET_AFTER_H", "1")
    execute = copied.project.database.execute
    execute("create table premiere (id int primary key); insert into premiere values (1)")
    copied.run("tick")
    execute("alter table premiere rename to opening")

    usual, strict = copied.run("tick"), copied.run("tick", "--strict", "--json")
    (found,) = of(copied.run("doctor", "--json"), "premiere")
    forgotten = copied.run("forget", "premiere")
    execute("drop table opening")

    assert (usual.code, strict.code, forgotten.code) == (0, 4, 0)
    assert "premiere was renamed to opening" in usual.err
    assert [item["table"] for item in strict.document["not_copied"]] == ["premiere"]
    assert found["remedy"] == "pg-bronze forget premiere"


@pytest.mark.parametrize("variable", ["PG_PASS", "MINIO_SECRET_KEY"])
def test_a_wrong_password_in_a_shell_is_not_recorded_as_the_failure_of_a_table(
    copied: Commands, environment: Environment, variable: str
):
    """The sensor and everybody else would see a failing table, and wait for its next retry."""
    project = copied.project

    def recorded() -> tuple[int, int]:
        return len(project.instance.fetch_observations(key("movie"), limit=100).records), len(
            project.instance.get_run_records()
        )

    before = recorded()
    environment.setenv(variable, "mistyped-secret")

    printed = [copied.run("tick", "movie"), copied.run("tick")]

    assert [item.code for item in printed] == [1, 1]
    assert all("rejected" in item.err and "mistyped" not in item.err for item in printed)
    assert recorded() == before


def empty(store: Store, name: str) -> None:
    """Remove the rows of an object, as a person might."""
    file = pyarrow.parquet.ParquetFile(io.BytesIO(store.get(name) or b""))
    buffer = io.BytesIO()
    rows = file.read().slice(0, 0).replace_schema_metadata(file.metadata.metadata)
    pyarrow.parquet.write_table(rows, buffer)
    store.replace(name, buffer.getvalue())


def test_reconcile_with_check_compares_and_changes_nothing(cinema: Project):
    settle(cinema)
    store = cinema.bucket.store()
    objects = [item.key for item in store.list("movie/")]
    with commands_of(cinema) as commands:
        same = commands.run("reconcile", "movie", "--check", "--json")
        assert (same.code, same.document["same"], same.document["rows"]["missing"]) == (0, True, 0)
        assert [item.key for item in store.list("movie/")] == objects
        assert commands.run("reconcile", "movie", "--json").code == 2

        empty(store, objects[0])
        lost = commands.run("reconcile", "movie", "--check")

    assert lost.code == 1
    assert "are not in the lake" in lost.err
