"""What a role may read, and how long a run may: through assets, as a deployment has it."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.project import Project, sentences
from pg_bronze_tests.harness.slow import SLOW, wait_until_gone


@pytest.fixture(params=["connectorx", "copy"])
def limited(request: pytest.FixtureRequest, cinema: Project) -> Iterator[Project]:
    """The project read by a role that may select ``movie`` and one column of ``person``."""
    role = f"limited_{cinema.database.name}"
    cinema.database.execute(
        f"create role {role} login password 'pw'; grant select on movie to {role};grant select (id) on person to {role}"
    )
    cinema.set(PG_USER=role, PG_PASS="pw", PG_CONTROL_URL="off", PG_BRONZE_READER=request.param)
    cinema.reload()
    yield cinema
    cinema.database.execute(f"drop owned by {role}; drop role {role}")


def reasons(project: Project) -> dict[str, str]:
    """Why source tables are skipped, as the asset catalog shows it."""
    graph = project.definitions.resolve_asset_graph()
    return {
        key.path[-1]: graph.get(key).description
        for key in graph.get_all_asset_keys()
        if graph.get(key).tags.get("pg_bronze/status") == "skipped"
    }


def test_a_role_copies_what_it_may_and_is_told_the_grant_for_the_rest(limited: Project):
    """Nobody grants everything at once; what is missing must neither stop the others nor be guessed."""
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


def test_a_read_ends_before_the_time_of_its_run_is_up(cinema: Project):
    """Dagster would end the run, and the read with it, but only after asking a worker that may not answer."""
    cinema.database.execute(SLOW)
    cinema.database.execute("alter table movie add f feeling default 'slow'")
    today = datetime.now(UTC).date().isoformat()

    result = cinema.copy("movie", tags={"dagster/partition": today, "dagster/max_runtime": "6"})

    assert "the read was canceled, by its time limit" in sentences(result)["bronze__movie"]
    wait_until_gone(cinema.database)
