"""First loads give way: their runs, their slots, their turns, and the size that decides."""

from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from pg_bronze.core import band_rules
from pg_bronze.core.band_rules import BandRules
from pg_bronze.defs import io_managers, metadata
from pg_bronze.lake.commit import SliceWriter
from pg_bronze.postgres import activity
from pg_bronze.scheduling import first_loads
from pg_bronze_tests.harness.lake import SAME, Lake
from pg_bronze_tests.harness.project import Project, key, messages, requested, values

LOADS = ["load_1", "load_2", "load_3"]
FILL = "insert into {} select i, repeat('x', 500) from generate_series(1, 1500) i"


@pytest.fixture
def empty(project: Project) -> Project:
    """Three tables without rows and a small one, loaded. Two slices are 16 blocks."""
    project.set(PG_BRONZE_SLICE_BYTES="64KiB")
    for name in [*LOADS, "small"]:
        project.database.execute(f"create table {name} (id int, filler text); analyze {name}")
    project.database.execute("insert into small values (1)")
    project.reload()
    return project


@pytest.fixture
def loading(empty: Project) -> Project:
    """Three of its tables were filled since."""
    for name in LOADS:
        empty.database.execute(FILL.format(name))
    return empty


@pytest.fixture
def slice_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every turn is one slice."""
    monkeypatch.setattr(first_loads, "TURN_S", 0.0)
    monkeypatch.setattr(first_loads, "SHARED_TURN_S", 0.0)


def run(project: Project, data) -> list[str]:
    """Run what a sensor requested, and return the tables of the runs for first loads."""
    for request in data.run_requests:
        tables = [".".join(item.path[1:]) for item in request.asset_selection]
        assert project.copy(*tables, tags=dict(request.tags)).success
    alone = [request for request in data.run_requests if metadata.FIRST_LOAD_TAG in request.tags]
    return [request.asset_selection[0].path[-1] for request in alone]


def statements(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[int]]]:
    asked, sizes = [], activity.sizes
    monkeypatch.setattr(activity, "sizes", lambda session, oids: asked.append(list(oids)) or sizes(session, oids))
    return asked


def test_a_table_that_was_filled_after_the_catalog_was_read_gets_a_run_of_its_own(loading: Project):
    """One that was created and filled within a minute held up the others of its run for 22 s."""
    data = loading.evaluate()
    assert requested(data) == [{"small"}, {"load_1"}]
    together, *alone = data.run_requests
    assert metadata.FIRST_LOAD_TAG not in together.tags
    assert "dagster/priority" not in together.tags
    assert all(request.tags[metadata.FIRST_LOAD_TAG] == "true" for request in alone)
    assert all(request.tags["dagster/priority"] == "-1" for request in alone)


def test_a_table_that_is_being_loaded_is_not_requested_and_leaves_a_slot(loading: Project):
    run(loading, loading.evaluate())
    create_run_for_test(
        loading.instance, job_name="bronze", asset_selection=frozenset([key("load_3")]),
        tags={metadata.FIRST_LOAD_TAG: "true"}, status=dg.DagsterRunStatus.STARTED,
    )  # fmt: skip
    data = loading.evaluate()
    assert {"load_2"} in requested(data)
    assert "load_3" not in {name for tables in requested(data) for name in tables}


@pytest.mark.parametrize("unfinished", [1, 2])
def test_no_more_loads_are_requested_than_are_free(loading: Project, unfinished: int):
    """With a dagster.yaml of one's own, all runs would be first loads, and the other tables would wait for them."""
    for _ in range(unfinished):
        create_run_for_test(
            loading.instance, job_name="bronze", asset_selection=frozenset([key("gone")]),
            tags={metadata.FIRST_LOAD_TAG: "true"}, status=dg.DagsterRunStatus.STARTED,
        )  # fmt: skip
    assert requested(loading.evaluate()) == [{"small"}, *[{"load_1"}][: 2 - unfinished]]
    loading.copy("small")
    if unfinished == 2:
        assert "3 waiting for other first loads" in loading.evaluate().skip_message


def test_tables_are_loaded_in_turn_until_all_are_copied(
    loading: Project, slice_each: None, monkeypatch: pytest.MonkeyPatch
):
    """The first ones would otherwise be loaded to their ends, and the last ones would wait for hours."""
    turns = [name for _ in range(6) for name in run(loading, loading.evaluate())]
    assert turns == ["load_1", "load_2", "load_3"] * 2
    monkeypatch.setattr(first_loads, "TURN_S", 60.0)
    monkeypatch.setattr(first_loads, "SHARED_TURN_S", 60.0)
    for _ in range(10):
        data = loading.evaluate()
        if not data.run_requests:
            break
        run(loading, data)
    lake = Lake(loading.database, loading.bucket.store())
    assert [lake.compare(name, "id") for name in LOADS] == [SAME] * 3
    assert len(lake.keys("load_1")) > 6


def test_new_rows_of_a_large_table_arrive_in_each_turn_of_its_load(
    project: Project, slice_each: None, monkeypatch: pytest.MonkeyPatch
):
    """They would otherwise arrive after hours, when all older rows are loaded."""
    forced = BandRules(one_band_s=0.0, share=1e-9, rank=3)
    monkeypatch.setattr(band_rules, "rules_of", lambda _interval, _tables, complete=False: forced)
    project.set(PG_BRONZE_SLICE_BYTES="64KiB")
    project.database.execute("create table movie (movie_id int primary key, title text, created_at timestamptz)")
    project.database.execute("create index on movie (created_at)")
    project.database.execute("insert into movie select i, repeat('x', 500), now() from generate_series(1, 1500) i")
    project.reload()
    lake = Lake(project.database, project.bucket.store())
    for number in range(2001, 2004):
        project.database.execute(f"insert into movie values ({number}, 'new', clock_timestamp())")
        assert run(project, project.evaluate()) == ["movie"]
        assert number in lake.column()
        assert len(lake.column()) < 1000
        assert values(project.latest("movie"))["pg_bronze/load_share"] < 1


def test_a_load_that_a_person_requested_is_not_interrupted(loading: Project, slice_each: None):
    assert loading.copy("load_1").success
    assert Lake(loading.database, loading.bucket.store()).compare("load_1", "id") == SAME


def test_sizes_are_measured_with_one_statement_and_only_of_tables_that_were_not_read(
    empty: Project, monkeypatch: pytest.MonkeyPatch
):
    asked = statements(monkeypatch)
    run(empty, empty.evaluate())
    assert [len(oids) for oids in asked] == [4]
    empty.database.execute("insert into small values (2); select pg_stat_force_next_flush()")
    empty.evaluate()
    assert len(asked) == 1


def test_a_tick_does_not_wait_for_a_table_that_is_locked(loading: Project):
    """Its size cannot be read then. Every other table would wait for the transaction that has it locked."""
    with loading.database.connect() as connection, connection.transaction():
        connection.execute("lock table load_2 in access exclusive mode")
        data = loading.evaluate()
    assert requested(data) == [{"small", "load_2"}, {"load_1"}]  # as small as the catalog says


def shares(project: Project, table: str) -> list[float]:
    """Return the progress in the observations of an asset, oldest first."""
    found = project.instance.fetch_observations(key(table), limit=100).records[::-1]
    entries = [record.event_log_entry.asset_observation.metadata for record in found]
    return [item[metadata.LOAD_SHARE].value for item in entries if metadata.LOAD_SHARE in item]


def test_progress_is_visible_while_a_first_load_runs(loading: Project, monkeypatch: pytest.MonkeyPatch):
    """The materialization comes after the last slice: nobody would know for hours how far the load is."""
    monkeypatch.setattr(io_managers, "PROGRESS_EVERY_S", 0.0)
    write, seen = SliceWriter.write, []
    monkeypatch.setattr(
        SliceWriter, "write", lambda self, piece: seen.append(shares(loading, "load_1")) or write(self, piece)
    )
    result = loading.copy("load_1")
    assert [len(found) for found in seen] == list(range(len(seen)))
    assert len(seen) > 6
    assert shares(loading, "load_1") == sorted(set(shares(loading, "load_1")))
    assert shares(loading, "load_1")[-1] == 1.0
    assert any(
        "first load of load_1: 50" in line or "first load of load_1: 4" in line for line in messages(loading, result)
    )
    assert values(loading.latest("load_1"))["pg_bronze/load_rows"] == 1500


def test_a_short_load_has_no_progress_in_its_log(loading: Project):
    result = loading.copy("load_1")
    assert shares(loading, "load_1") == []
    assert not [line for line in messages(loading, result) if "first load of" in line]


def test_progress_counts_the_slices_of_all_runs(loading: Project, slice_each: None):
    known = []
    for _ in range(3):
        result = loading.copy("load_1", tags={metadata.BATCH_TAG: "tick"})
        known.append(values(loading.latest("load_1")))
        assert any("the next run continues it" in line for line in messages(loading, result))
    rows = [found["pg_bronze/load_rows"] for found in known]
    assert rows == [sum(found["pg_bronze/rows"] for found in known[: n + 1]) for n in range(3)]
    assert known[0]["pg_bronze/load_bytes"] < known[1]["pg_bronze/load_bytes"]
    assert 0 < known[0]["pg_bronze/load_share"] < known[1]["pg_bronze/load_share"] < 1
    assert known[2]["pg_bronze/load_left_s"] >= 0


def test_a_table_that_is_copied_shows_no_progress(loading: Project):
    loading.copy("load_1")
    loading.database.execute("insert into load_1 values (0, 'new')")
    loading.copy("load_1")
    assert "pg_bronze/load_rows" not in values(loading.latest("load_1"))
