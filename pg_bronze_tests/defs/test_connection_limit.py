"""The limit on connections, through sensor, asset and run: what gets none is copied later, and nothing fails."""

import pytest

from pg_bronze.defs.resources import open_source
from pg_bronze.postgres.connection import Source
from pg_bronze.settings.load import load_settings
from pg_bronze_tests.harness import plain_lake as lake
from pg_bronze_tests.harness.project import Project, messages, requested

TICK = {"pg_bronze/batch": "tick"}


@pytest.fixture
def limited(cinema: Project) -> Project:
    """A project whose limit allows one run at a time."""
    cinema.set(PG_BRONZE_MAX_CONNECTIONS="4")
    cinema.reload()
    return cinema


def holder(name: str = "pg_bronze command") -> Source:
    """Return a source that holds the slot of a run."""
    source = open_source(load_settings(), name)
    source.connection  # noqa: B018
    return source


def test_a_table_left_for_lack_of_a_connection_is_copied_by_the_next_tick(limited: Project):
    """A failure would postpone it by minutes, and alarm somebody for nothing."""
    with holder():
        result = limited.copy(tags=TICK)
    assert result.success
    found = [line for line in messages(limited, result) if "PG_BRONZE_MAX_CONNECTIONS is 4" in line]
    assert len(found) == 1
    assert found[0].startswith("The tables of this run are left to a later tick. ")
    assert "batch: 0 new rows in 0 tables, 2 left to a later tick" in messages(limited, result)
    assert lake.keys(limited.bucket, "movie") == []

    data = limited.evaluate()
    assert requested(data) == [{"movie", "person"}]
    assert limited.copy(tags=TICK).success

    for table in ("movie", "person"):
        assert lake.compare(limited.database, limited.bucket, table) == lake.SAME


def test_a_verification_without_a_connection_says_so(limited: Project):
    assert limited.copy(tags=TICK).success
    with holder():
        job = limited.definitions.resolve_job_def("bronze_verify")
        result = job.execute_in_process(
            instance=limited.instance, partition_key=limited.latest("movie").partition, raise_on_error=False
        )
    assert not result.success
    assert any("PG_BRONZE_MAX_CONNECTIONS is 4" in line for line in messages(limited, result))
