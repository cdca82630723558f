"""Privileges of the role, and the time limit of a run, through the assets."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import get_args

import annotated_types
import pytest

from pg_bronze.settings.model import FIELDS
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.project import Project, sentences
from pg_bronze_tests.harness.slow import SLOW, wait_until_gone


@pytest.fixture(params=["connectorx", "copy"])
def limited(request: pytest.FixtureRequest, cinema: Project) -> Iterator[Project]:
    """The project with a role that may read ``movie`` and one column of ``person``."""
    role = f"limited_{cinema.database.name}"
    cinema.database.execute(
        f"create role {role} login password 'pw'; grant select on movie to {role};grant select (id) on person to {role}"
    )
    cinema.set(PG_USER=role, PG_PASS="pw", PG_CONTROL_URL="off", PG_BRONZE_READER=request.param)
    cinema.reload()
    yield cinema
    cinema.database.execute(f"drop owned by {role}; drop role {role}")


def reasons(project: Project) -> dict[str, str]:
    """Return the descriptions of skipped source tables."""
    graph = project.definitions.resolve_asset_graph()
    return {
        key.path[-1]: graph.get(key).description
        for key in graph.get_all_asset_keys()
        if graph.get(key).tags.get("pg_bronze/status") == "skipped"
    }


def test_readable_tables_are_copied_and_the_missing_grant_is_shown_for_the_others(limited: Project):
    """A missing privilege on one table must not stop the others."""
    assert limited.copy().success
    assert lake.compare(limited.database, limited.bucket, "movie") == lake.SAME
    assert lake.keys(limited.bucket, "person") == []
    (reason,) = reasons(limited).values()
    named = f'grant select (xmin, ctid, "name") on "public"."person" to "limited_{limited.database.name}"'
    assert named in reason

    limited.database.execute(named)
    limited.reload()

    assert reasons(limited) == {}
    assert limited.copy().success
    assert lake.compare(limited.database, limited.bucket, "person") == lake.SAME


GUARDED = """
create schema vault;
create function shown(i int) returns int immutable language sql as 'select $1 / 2';
create domain positive as int check (shown(value) >= 0);
create type vault.mood as enum ('sad', 'happy');
create type pair as (a int, b vault.mood);
create table computed (id int, name text, title text generated always as (initcap(name)) {kind});
create table checked (id positive);
create table feeling (id int, mood vault.mood, moods vault.mood[], two pair);
create table secret (id int, m money);
insert into computed values (1);
insert into checked values (1);
insert into feeling values (1, 'sad', '{sad,happy}', (1, 'happy'));
insert into secret values (1, 2);
grant select on computed, checked, feeling, secret to {role};
revoke execute on function initcap(text) from public;
revoke execute on function shown(int) from public;
revoke execute on function pg_catalog.cash_out(money) from public;
revoke usage on type vault.mood from public;
"""


def test_a_missing_privilege_on_a_function_costs_its_table_alone_and_is_named(limited: Project):
    """Functions in computed columns and in the output of types are checked while rows are read."""
    computes = limited.database.server.version >= 18  # earlier versions store what a column computes
    guarded = GUARDED.replace("{role}", f"limited_{limited.database.name}")
    limited.database.execute(guarded.replace("{kind}", "virtual" if computes else "stored"))
    limited.reload()

    failed = sentences(limited.copy())

    assert set(failed) == ({"bronze__computed"} if computes else set())
    if computes:
        assert "permission denied for function initcap" in failed["bronze__computed"]
        assert "grant execute" in failed["bronze__computed"]
    assert lake.compare(limited.database, limited.bucket, "feeling") == lake.SAME


def test_a_read_ends_before_the_maximum_run_time(cinema: Project):
    """Dagster ends a run by a request to its worker, which may not answer during a read."""
    cinema.database.execute(SLOW)
    cinema.database.execute("alter table movie add f feeling default 'slow'")
    today = datetime.now(UTC).date().isoformat()

    result = cinema.copy("movie", tags={"dagster/partition": today, "dagster/max_runtime": "6"})

    assert "the read was canceled, by its time limit" in sentences(result)["bronze__movie"]
    wait_until_gone(cinema.database)


def extremes(index: int) -> dict[str, str]:
    """Return the smallest (0) or largest (-1) number of every setting, and the first or last of its words."""
    found = {"PG_BRONZE_START_DATE": ("1970-01-01", f"{datetime.now(UTC):%Y-%m-%d}")[index]}
    for name, field in FIELDS.items():
        ends = [item.ge for item in field.metadata if isinstance(item, annotated_types.Ge)]
        ends += [item.le for item in field.metadata if isinstance(item, annotated_types.Le)]
        words = [word for word in get_args(field.annotation) if isinstance(word, str)]
        if (ends or words) and name not in {"PG_PORT", "PG_SSLMODE"}:
            found[name] = str((ends or words)[index])
    return found


@pytest.mark.parametrize("index", [0, -1], ids=["least", "most"])
def test_every_table_is_copied_with_the_extreme_value_of_every_setting(project: Project, index):
    """A value that the page of settings allows must not stop the copy, alone or with the others."""
    project.set(**extremes(index))
    project.database.execute("create table movie (id int primary key, updated_at date); insert into movie values (1)")
    project.database.execute("insert into movie values (2, '2026-01-02')")
    project.reload()

    assert project.evaluate().run_requests
    assert sentences(project.copy()) == {}
    assert lake.ids(project.bucket, "movie") == [1, 2]
